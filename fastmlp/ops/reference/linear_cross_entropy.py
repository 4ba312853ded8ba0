"""linear_cross_entropy: the last layer, softmax and cross entropy in one, and its update."""

from typing import Any

import numpy as np

from fastmlp.ops.contract import contract, floats, ids, inout, optional, out
from fastmlp.ops.gradient import Between, check_places, rule_of
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
_OF_A_PART = _LINEAR_CROSS_ENTROPY_INPUTS | {"targets": ids("B", below="V", elsewhere="between")}


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


def _statistics(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    label_smoothing: float,
    between: Between | None,
) -> None:
    """cross_entropy_forward; with `between`, of the logits of all parts of the vocabulary."""
    if between is None:
        cross_entropy_forward(logits, targets, row_scale, highest, log_sum, losses, label_smoothing=label_smoothing)
        return
    top, target_logits, here = logits.max(axis=1), np.full(len(logits), -np.inf, logits.dtype), targets >= 0
    target_logits[here] = logits[here, targets[here]]
    sums = np.exp(logits - top[:, None]).sum(axis=1)
    between(top, sums, target_logits)
    highest[...], log_sum[...] = top, np.log(sums)
    losses[...] = log_sum + (top - target_logits)


def _dlogits(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    label_smoothing: float,
    between: Between | None,
) -> None:
    """cross_entropy_backward in place of the logits; with `between`, targets of other parts are none of these words."""
    if between is None:
        statistics = highest, log_sum
        cross_entropy_backward(logits, targets, row_scale, *statistics, logits, label_smoothing=label_smoothing)
        return
    here = targets >= 0
    np.exp(logits - highest[:, None] - log_sum[:, None], out=logits)
    logits[here, targets[here]] -= 1
    logits *= row_scale[:, None]


@contract(**_OF_A_PART, highest=out("B"), log_sum=out("B"), losses=out("B"))
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
    between: Between | None = None,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """The last layer and its loss: cross_entropy_forward of linear_forward.

    h          (B, H)        in:  the last hidden layer
    weight     (V, H)        in:  one row a word
    bias       (V,) or None  in
    targets, row_scale, highest, log_sum, losses, label_smoothing: as in cross_entropy_forward
    between    where the vocabulary is shared out and these words are a part of it: a function that is called with
               the statistics of the part, and turns them, in place, into those of the whole vocabulary. The arrays are
               valid during the call only:
                   highest        (B,)  the largest logit
                   sum            (B,)  sum of exp(logit - highest), in float64 but for the reference
                   target_logits  (B,)  of the target; -inf where the target's id is -1: it is of another part
               It may be called several times, for one piece of the rows after the other. An exception that it raises
               ends the op. It needs a label_smoothing of 0.
    """
    logits = _logits(h, weight, bias)
    _statistics(logits, targets, row_scale, highest, log_sum, losses, label_smoothing, between)


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
    **_OF_A_PART,
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
    between: Between | None = None,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """Forward and backward in one, for training: the logits are computed once.

    The arguments are those of linear_cross_entropy_forward, then the gradients of linear_cross_entropy_backward. With
    `between`, dh is this part's share of the gradient: the sum over the parts is the whole.
    """
    logits = _logits(h, weight, bias)
    inputs = logits, targets, row_scale, highest, log_sum
    _statistics(*inputs, losses, label_smoothing, between)
    _dlogits(*inputs, label_smoothing, between)
    _wanted_gradients(logits, h, weight, dh, dweight, dbias)


@contract(
    h=floats("B", "H"),
    weight=inout("V", "H"),
    bias=optional(floats("V")),
    targets=ids("B", below="V", elsewhere="between"),
    row_scale=floats("B"),
    weight_state=optional(inout("V", "H")),
    weight_state2=optional(inout("V", "H")),
    held=optional(ids("U", below="V", ascending=True)),
    highest=out("B"),
    log_sum=out("B"),
    losses=out("B"),
    dh=out("B", "H"),
    dbias=optional(out("V")),
    dheld=optional(out("U", "H")),
)
def linear_cross_entropy_update(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    weight_state: Array | None,
    weight_state2: Array | None,
    held: Array | None,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dh: Array,
    dbias: Array | None,
    dheld: Array | None,
    *,
    rule: str,
    label_smoothing: float = 0.0,
    between: Between | None = None,
    fp32_precision: str = "auto",
    threads: int = 1,
    **options: Any,
) -> bool:
    """A training step of the last layer: linear_cross_entropy, then update_<rule> of weight by its gradient.

    The caller updates what has other gradients beside: the bias, and where rows of `weight` also stand elsewhere in the
    network, as those of tied embeddings do, these rows, by update_<rule>_rows with `only_rows`.

    h, targets, row_scale          in:     as in linear_cross_entropy
    weight        (V, H)           in/out
    bias          (V,) or None     in:     not updated
    weight_state, weight_state2    in/out: what the rule keeps of `weight`, in the order of its own arguments, else None
    held          (U,) or None     in:     unique ids, ascending, of the type of `targets`: rows of `weight` that
                                           stay as they are, as does what the rule keeps of them
    highest, log_sum, losses (B,)  out:    before the update
    dh            (B, H)           out:    before the update
    dbias         (V,)             out:    the gradient of `bias`; None only where there is no bias
    dheld         (U, H) or None   out:    the gradients of the rows that are held; None where none are
    rule          "sgd", "momentum", "adagrad" or "adamw"
    between       as in linear_cross_entropy; V, held and all that is updated are of this part alone
    options       those of update_<rule>, with its defaults
    Returns False where a loss is infinite or no number: nothing is updated then, and all gradients are NaN.
    """
    update, states = rule_of("linear_cross_entropy_update", rule, vars(rules), (weight_state, weight_state2))
    check_places(bias, dbias, held, dheld)
    dweight = np.empty_like(weight)
    outputs = highest, log_sum, losses, dh, dweight, dbias
    forms: dict[str, Any] = {"label_smoothing": label_smoothing, "between": between}
    linear_cross_entropy(h, weight, bias, targets, row_scale, *outputs, **forms)
    if not np.isfinite(losses).all():
        for gradient in (dh, dbias, dheld):
            if gradient is not None:
                gradient[...] = np.nan
        return False
    if held is None or dheld is None:
        update(dweight, *states, weight, **options)
        return True
    dheld[...] = dweight[held]
    changed = *states, weight
    before = [array[held] for array in changed]
    update(dweight, *changed, **options)
    for array, rows in zip(changed, before, strict=True):
        array[held] = rows
    return True
