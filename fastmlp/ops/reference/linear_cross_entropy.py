"""linear_cross_entropy: the last layer, softmax and cross entropy in one, and its update."""

from typing import Any

import numpy as np

from fastmlp.ops.contract import contract, floats, ids, inout, optional, out
from fastmlp.ops.gradient import rule_of
from fastmlp.ops.reference import update as rules
from fastmlp.ops.reference.cross_entropy import cross_entropy_backward, cross_entropy_forward
from fastmlp.ops.reference.linear import linear_forward

Array = np.ndarray


_LINEAR_CROSS_ENTROPY_INPUTS = {
    "h": floats("B", "H"),
    "weight": floats("V", "H"),
    "bias": optional(floats("V")),
    "targets": ids("B", below="V"),
    "row_scale": floats("B"),
}


def _wanted_gradients(
    dlogits: Array, h: Array, weight: Array, dh: Array | None, dweight: Array | None, dbias: Array | None
) -> None:
    """Compute those gradients of linear_backward that are wanted."""
    if dh is not None:
        np.matmul(dlogits, weight, out=dh)
    if dweight is not None:
        np.matmul(dlogits.T, h, out=dweight)
    if dbias is not None:
        np.sum(dlogits, axis=0, out=dbias)


def _logits(h: Array, weight: Array, bias: Array | None) -> Array:
    logits = np.empty((h.shape[0], weight.shape[0]), h.dtype)
    linear_forward(h, weight, bias, logits)
    return logits


@contract(**_LINEAR_CROSS_ENTROPY_INPUTS, highest=out("B"), log_sum=out("B"), losses=out("B"))
def linear_cross_entropy_forward(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    *,
    label_smoothing: float = 0.0,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """The last layer and its loss: cross_entropy_forward of linear_forward.

    h          (B, H)        in:  the last hidden layer
    weight     (V, H)        in:  one row a word
    bias       (V,) or None  in
    targets, row_scale, highest, log_sum, losses, label_smoothing: as in cross_entropy_forward
    """
    logits = _logits(h, weight, bias)
    cross_entropy_forward(logits, targets, row_scale, highest, log_sum, losses, label_smoothing=label_smoothing)


@contract(
    **_LINEAR_CROSS_ENTROPY_INPUTS,
    highest=floats("B"),
    log_sum=floats("B"),
    dh=optional(out("B", "H")),
    dweight=optional(out("V", "H")),
    dbias=optional(out("V")),
)
def linear_cross_entropy_backward(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    dh: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    *,
    label_smoothing: float = 0.0,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """The gradients of linear_cross_entropy_forward, which stores two numbers a row: the logits are computed again.

    h, weight, bias, targets, row_scale  in:  as in the forward pass
    highest, log_sum  (B,)   in:  outputs of the forward pass
    dh       (B, H) or None  out; None, here and below: not wanted
    dweight  (V, H) or None  out
    dbias    (V,) or None    out
    """
    logits = _logits(h, weight, bias)
    dlogits = logits  # overwritten in place: at most one (B, V) array lives at a time
    cross_entropy_backward(logits, targets, row_scale, highest, log_sum, dlogits, label_smoothing=label_smoothing)
    _wanted_gradients(dlogits, h, weight, dh, dweight, dbias)


@contract(
    **_LINEAR_CROSS_ENTROPY_INPUTS,
    highest=out("B"),
    log_sum=out("B"),
    losses=out("B"),
    dh=optional(out("B", "H")),
    dweight=optional(out("V", "H")),
    dbias=optional(out("V")),
)
def linear_cross_entropy(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dh: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    *,
    label_smoothing: float = 0.0,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """Forward and backward in one, for training: the logits are computed once.

    The arguments are those of linear_cross_entropy_forward, then the gradients of linear_cross_entropy_backward.
    """
    logits = _logits(h, weight, bias)
    dlogits = logits
    inputs = logits, targets, row_scale, highest, log_sum
    cross_entropy_forward(*inputs, losses, label_smoothing=label_smoothing)
    cross_entropy_backward(*inputs, dlogits, label_smoothing=label_smoothing)
    _wanted_gradients(dlogits, h, weight, dh, dweight, dbias)


@contract(
    h=floats("B", "H"),
    weight=inout("V", "H"),
    bias=optional(inout("V")),
    targets=ids("B", below="V"),
    row_scale=floats("B"),
    weight_state=optional(inout("V", "H")),
    weight_state2=optional(inout("V", "H")),
    bias_state=optional(inout("V")),
    bias_state2=optional(inout("V")),
    highest=out("B"),
    log_sum=out("B"),
    losses=out("B"),
    dh=out("B", "H"),
)
def linear_cross_entropy_update(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    weight_state: Array | None,
    weight_state2: Array | None,
    bias_state: Array | None,
    bias_state2: Array | None,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dh: Array,
    *,
    rule: str,
    label_smoothing: float = 0.0,
    fp32_precision: str = "auto",
    threads: int = 1,
    **options: Any,
) -> bool:
    """A training step of the last layer: linear_cross_entropy, then update_<rule> of weight and bias by its gradients.

    h, targets, row_scale          in:     as in linear_cross_entropy
    weight        (V, H)           in/out
    bias          (V,) or None     in/out
    weight_state, weight_state2    in/out: the rule's state of `weight`, in the order of the rule's arguments, or None
    bias_state, bias_state2        in/out: likewise of `bias`
    highest, log_sum, losses (B,)  out:    before the update
    dh            (B, H)           out:    before the update
    rule          "sgd", "momentum", "adagrad" or "adamw"
    options       those of update_<rule>, with its defaults
    Returns False if a loss is infinite or NaN: then nothing is updated, and dh is NaN.
    """
    dweight = np.empty_like(weight)
    dbias = None if bias is None else np.empty_like(bias)
    update, weight_states, bias_states = rule_of(
        rule, vars(rules), (weight_state, weight_state2), None if bias is None else (bias_state, bias_state2)
    )
    outputs = highest, log_sum, losses, dh, dweight, dbias
    linear_cross_entropy(h, weight, bias, targets, row_scale, *outputs, label_smoothing=label_smoothing)
    if not np.isfinite(losses).all():
        dh[...] = np.nan
        return False
    update(dweight, *weight_states, weight, **options)
    if bias is not None:
        update(dbias, *bias_states, bias, **options)
    return True
