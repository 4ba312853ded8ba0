"""The ops in plain NumPy: the specification that the other back-ends are held against, for any float type.

Letters, here and everywhere else:

    B  batch: rows of a step              V  vocabulary: words, the classes of the last layer
    T  context: words that are looked at  H  hidden width
    D  embedding width                    I, O  inputs and outputs of a linear layer; C  channels of a batchnorm
    U  unique ids of a batch

A gradient is `d` + the name: `dlogits`, `dh`. Arguments come in this order: inputs, saved statistics, outputs. Outputs
belong to the caller and are completely overwritten; "in/out" marks arrays that are read and updated. `threads` is how
many threads may work; no result depends on it.

`row_scale` (B,) is the gradient of the total with respect to each row's loss: 1/B for a mean over the batch, 0 for a
row that is ignored: neither its target nor its numbers are looked at, its loss and its gradient are 0.

`highest` and `log_sum` (B,) are a row's largest logit and log sum exp(logits - highest): what a softmax needs to be
made again, exp(logits - highest - log_sum). They are kept apart since float32 has no room for the digits of both: of
logits around 1,000 their sum, log sum exp(logits), would be 3e-5 off, and every probability with it.

`fp32_precision` is how the products of the last layer are made: "ieee" in float32, which "auto" stands for; "bf16x3" of
numbers split in two bf16 each, whose products are up to 1e-5 off; "bf16" of numbers rounded to bf16, which puts a
gradient some 3e-3 off. Sums are float32 in each. Here and in Numba there is "ieee" alone (float64 stays float64).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastmlp.ops.contract import contract, floats, ids, inout, optional, out, out_ids

Array = np.ndarray

# ---------------------------------------------------------------------------------------------------------- embedding


@contract(weight=floats("V", "D"), ids=ids("B", "T", below="V"), emb=out("B", "T", "D"))
def embedding_forward(weight: Array, ids: Array, emb: Array, *, threads: int = 1) -> None:
    """Look up the words of the context.

    weight  (V, D)     in:  one row a word
    ids     (B, T)     in:  words, 0 <= id < V
    emb     (B, T, D)  out: weight[ids]
    """
    emb[...] = weight[ids]


@contract(ids=ids("B", "T"), demb=floats("B", "T", "D"), rows=out_ids("B*T"), drows=out("B*T", "D"))
def embedding_backward(ids: Array, demb: Array, rows: Array, drows: Array, *, threads: int = 1) -> int:
    """The sparse gradient of the embedding: the batch's unique ids, and for each the sum of its gradients.

    ids    (B, T)     in:  words
    demb   (B, T, D)  in:  gradient of the embedded words
    rows   (B*T,)     out: the U unique ids, ascending, of the type of `ids`; the rest is -1
    drows  (B*T, D)   out: their summed gradients, added in the order of the batch; the rest is 0
    Returns U: `rows[:U]` and `drows[:U]` are the gradient.
    """
    unique, position = np.unique(ids, return_inverse=True)
    rows[: unique.size] = unique
    rows[unique.size :] = -1
    drows[...] = 0
    np.add.at(drows, position.ravel(), demb.reshape(-1, demb.shape[-1]))
    return int(unique.size)


# ------------------------------------------------------------------------------------------------------------- linear


@contract(x=floats("B", "I"), weight=floats("O", "I"), bias=optional(floats("O")), y=out("B", "O"))
def linear_forward(x: Array, weight: Array, bias: Array | None, y: Array, *, threads: int = 1) -> None:
    """y = x W^T + b.

    x       (B, I)          in:  rows of the batch
    weight  (O, I)          in:  W
    bias    (O,) or None    in:  b; a layer before a batchnorm needs none
    y       (B, O)          out
    """
    np.matmul(x, weight.T, out=y)
    if bias is not None:
        y += bias


@contract(
    dy=floats("B", "O"),
    x=floats("B", "I"),
    weight=floats("O", "I"),
    dx=optional(out("B", "I")),
    dweight=out("O", "I"),
    dbias=optional(out("O")),
)
def linear_backward(
    dy: Array, x: Array, weight: Array, dx: Array | None, dweight: Array, dbias: Array | None, *, threads: int = 1
) -> None:
    """dx = dy W, dW = dy^T x, db = sum of dy over the batch.

    dy       (B, O)           in:  gradient of the output
    x        (B, I)           in:  the forward pass's input
    weight   (O, I)           in:  W
    dx       (B, I) or None   out: None where the input needs no gradient
    dweight  (O, I)           out
    dbias    (O,) or None     out: None where the layer has no bias
    """
    np.matmul(dy.T, x, out=dweight)
    if dbias is not None:
        np.sum(dy, axis=0, out=dbias)
    if dx is not None:
        np.matmul(dy, weight, out=dx)


# ---------------------------------------------------------------------------------------------------------- batchnorm


@contract(
    x=floats("B", "C"),
    weight=floats("C"),
    bias=floats("C"),
    running_mean=inout("C"),
    running_var=inout("C"),
    mean=out("C"),
    inv_std=out("C"),
    y=out("B", "C"),
)
def batchnorm_forward(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    mean: Array,
    inv_std: Array,
    y: Array,
    *,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    threads: int = 1,
) -> None:
    """Normalize each channel over the batch, then scale and shift: y = (x - mean) * inv_std * weight + bias.

    x             (B, C)  in
    weight, bias  (C,)    in
    running_mean  (C,)    in/out: moves towards the batch's mean by `momentum`; untouched when not training
    running_var   (C,)    in/out: moves towards the batch's unbiased variance (divided by B - 1)
    mean          (C,)    out: of the batch, over its rows; when not training, running_mean
    inv_std       (C,)    out: 1 / sqrt(var + eps), with the biased variance (divided by B) or running_var
    y             (B, C)  out
    Raises ValueError for training on fewer than two rows: their variance says nothing.
    Source: Ioffe and Szegedy (2015), algorithms 1 and 2, with PyTorch's running estimates.
    """
    if training:
        rows = x.shape[0]
        if rows < 2:
            raise ValueError(f"batchnorm_forward: x: expected at least 2 rows to train on, got {rows}")
        np.mean(x, axis=0, out=mean)
        var = np.var(x, axis=0, mean=mean[None])
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (rows / (rows - 1)) - running_var)
    else:
        mean[...] = running_mean
        var = running_var
    inv_std[...] = 1 / np.sqrt(var + eps)
    np.subtract(x, mean, out=y)
    y *= inv_std * weight
    y += bias


@contract(
    dy=floats("B", "C"),
    x=floats("B", "C"),
    weight=floats("C"),
    mean=floats("C"),
    inv_std=floats("C"),
    dx=out("B", "C"),
    dweight=out("C"),
    dbias=out("C"),
)
def batchnorm_backward(
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
    *,
    training: bool = True,
    threads: int = 1,
) -> None:
    """With xhat = (x - mean) * inv_std: dweight = sum dy * xhat, dbias = sum dy, and

    dx = weight * inv_std * (dy - dbias / B - xhat * dweight / B)    training: mean and variance depend on x
    dx = weight * inv_std * dy                                       not training: they are constants

    dy             (B, C)  in:  gradient of the output
    x, weight              in:  as in the forward pass
    mean, inv_std  (C,)    in:  what the forward pass kept
    dx             (B, C)  out; it may be dy
    dweight, dbias (C,)    out
    """
    xhat = (x - mean) * inv_std
    np.sum(dy, axis=0, out=dbias)
    np.sum(dy * xhat, axis=0, out=dweight)
    if training:
        rows = x.shape[0]
        np.subtract(dy, dbias / rows, out=dx)
        dx -= xhat * (dweight / rows)
        dx *= weight * inv_std
    else:
        np.multiply(dy, weight * inv_std, out=dx)


# --------------------------------------------------------------------------------------------------------------- tanh


@contract(x=floats("..."), y=out("..."))
def tanh_forward(x: Array, y: Array, *, threads: int = 1) -> None:
    """y = tanh(x), for arrays of any one shape; y may be x."""
    np.tanh(x, out=y)


@contract(dy=floats("..."), y=floats("..."), dx=out("..."))
def tanh_backward(dy: Array, y: Array, dx: Array, *, threads: int = 1) -> None:
    """dx = dy * (1 - y^2), from the forward pass's output y, for arrays of any one shape; dx may be dy."""
    np.multiply(dy, 1 - y * y, out=dx)


# ------------------------------------------------------------------------------------------------------------ softmax


@contract(x=floats("B", "V"), y=out("B", "V"))
def softmax_forward(x: Array, y: Array, *, log: bool = False, threads: int = 1) -> None:
    """y = exp(x) / sum exp(x), the sum over each row.

    x  (B, V)  in
    y  (B, V)  out
    log        y is the logarithm of that, without its underflow: x - log sum exp(x)
    """
    with np.errstate(invalid="ignore"):  # infinity less infinity: NaN, as in PyTorch
        np.subtract(x, x.max(axis=1, keepdims=True), out=y)
    if log:
        y -= np.log(np.exp(y).sum(axis=1, keepdims=True))
    else:
        np.exp(y, out=y)
        y /= y.sum(axis=1, keepdims=True)


@contract(dy=floats("B", "V"), y=floats("B", "V"), dx=out("B", "V"))
def softmax_backward(dy: Array, y: Array, dx: Array, *, log: bool = False, threads: int = 1) -> None:
    """dx = y (dy - sum dy y), the sum over each row; of the logarithm dx = dy - exp(y) sum dy.

    dy  (B, V)  in:  gradient of y
    y   (B, V)  in:  what the forward pass gave
    dx  (B, V)  out
    """
    if log:
        np.subtract(dy, np.exp(y) * dy.sum(axis=1, keepdims=True), out=dx)
    else:
        np.multiply(y, dy - (dy * y).sum(axis=1, keepdims=True), out=dx)


# ------------------------------------------------------------------------------------------------------ cross entropy


def _counted(row_scale: Array) -> Any:
    """An index of the rows that are not ignored; of all of them one that copies nothing."""
    return slice(None) if row_scale.all() else np.flatnonzero(row_scale)


@contract(
    logits=floats("B", "V"),
    targets=ids("B", below="V"),
    row_scale=floats("B"),
    highest=out("B"),
    log_sum=out("B"),
    losses=out("B"),
)
def cross_entropy_forward(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    *,
    label_smoothing: float = 0.0,
    threads: int = 1,
) -> None:
    """How surprised the model is by each true next word.

    logits     (B, V)  in:  scores, any scale
    targets    (B,)    in:  ids of the true next words, 0 <= id < V
    row_scale  (B,)    in:  see the top of this file
    highest    (B,)    out: the largest logit, kept for the backward pass as is
    log_sum    (B,)    out: log sum exp(logits - highest); both are 0 where row_scale is 0
    losses     (B,)    out: log sum exp(logits) - logits[target], in nats, not scaled; 0 where row_scale is 0
    label_smoothing    share of the true word's probability that is spread over all V words, itself included
    """
    counted = _counted(row_scale)
    highest[...] = log_sum[...] = losses[...] = 0
    rows, true = logits[counted], targets[counted]
    top = rows.max(axis=1)
    below = rows - top[:, None]
    log_sums = np.log(np.exp(below).sum(axis=1))
    loss = (1 - label_smoothing) * (log_sums - below[np.arange(true.size), true])
    if label_smoothing:
        loss += label_smoothing * (log_sums - below.mean(axis=1))
    highest[counted], log_sum[counted], losses[counted] = top, log_sums, loss


@contract(
    logits=floats("B", "V"),
    targets=ids("B", below="V"),
    row_scale=floats("B"),
    highest=floats("B"),
    log_sum=floats("B"),
    dlogits=out("B", "V"),
)
def cross_entropy_backward(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    dlogits: Array,
    *,
    label_smoothing: float = 0.0,
    threads: int = 1,
) -> None:
    """dlogits = (softmax(logits) - truth) * row_scale, where truth is 1 at the target, smoothed as in the forward pass.

    logits, targets, row_scale  in:  as in the forward pass
    highest, log_sum  (B,)      in:  what the forward pass kept
    dlogits  (B, V)             out: 0 where row_scale is 0; it may be logits
    """
    counted = np.flatnonzero(row_scale)
    np.subtract(logits, highest[:, None], out=dlogits)
    dlogits[row_scale == 0] = 0
    dlogits -= log_sum[:, None]
    np.exp(dlogits, out=dlogits)
    if label_smoothing:
        dlogits -= label_smoothing / logits.shape[1]
    dlogits[counted, targets[counted]] -= 1 - label_smoothing
    dlogits *= row_scale[:, None]


@contract(
    logits=floats("B", "V"),
    targets=ids("B", below="V"),
    row_scale=floats("B"),
    highest=out("B"),
    log_sum=out("B"),
    losses=out("B"),
    dlogits=out("B", "V"),
)
def cross_entropy(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dlogits: Array,
    *,
    label_smoothing: float = 0.0,
    threads: int = 1,
) -> None:
    """Forward and backward in one.

    The arguments are those of cross_entropy_forward, then the gradient of cross_entropy_backward.
    """
    inputs = logits, targets, row_scale, highest, log_sum
    cross_entropy_forward(*inputs, losses, label_smoothing=label_smoothing)
    cross_entropy_backward(*inputs, dlogits, label_smoothing=label_smoothing)


# ----------------------------------------------------------------------------------------------- linear cross entropy

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
    """linear_backward of any of the gradients."""
    if dh is not None:
        np.matmul(dlogits, weight, out=dh)
    if dweight is not None:
        np.matmul(dlogits.T, h, out=dweight)
    if dbias is not None:
        np.sum(dlogits, axis=0, out=dbias)


def _logits(h: Array, weight: Array, bias: Array | None, row_scale: Array) -> tuple[Array, Array]:
    """h with zeros where a row is ignored, and its logits."""
    h = h if row_scale.all() else np.where(row_scale[:, None] != 0, h, 0)
    logits = np.empty((h.shape[0], weight.shape[0]), h.dtype)
    linear_forward(h, weight, bias, logits)
    return h, logits


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
    _, logits = _logits(h, weight, bias, row_scale)
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
    """The gradients of linear_cross_entropy_forward, which keeps two numbers a row: the logits are made again.

    h, weight, bias, targets, row_scale  in:  as in the forward pass
    highest, log_sum  (B,)   in:  what the forward pass kept
    dh       (B, H) or None  out: None where nobody wants it, as the others
    dweight  (V, H) or None  out
    dbias    (V,) or None    out
    """
    h, logits = _logits(h, weight, bias, row_scale)
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
    """Forward and backward in one, for training: the logits are made once.

    The arguments are those of linear_cross_entropy_forward, then the gradients of linear_cross_entropy_backward.
    """
    h, logits = _logits(h, weight, bias, row_scale)
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
    weight_state, weight_state2    in/out: what the rule keeps of `weight`, in the order of its own arguments, else None
    bias_state, bias_state2        in/out: likewise of `bias`
    highest, log_sum, losses (B,)  out:    before the update
    dh            (B, H)           out:    before the update
    rule          "sgd", "momentum", "adagrad" or "adamw"
    options       those of update_<rule>, with its defaults
    Returns False where a loss is infinite or no number: nothing is updated then, and dh is NaN.
    """
    dweight = np.empty_like(weight)
    dbias = None if bias is None else np.empty_like(bias)
    update, weight_states, bias_states = rule_of(
        rule, globals(), (weight_state, weight_state2), None if bias is None else (bias_state, bias_state2)
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


# The optimizers' rules, and how many arrays of state each keeps of a parameter.
RULES = {"sgd": 0, "momentum": 1, "adagrad": 1, "adamw": 2}
States = tuple[Array | None, ...]


def rule_of(
    rule: str, back_end: Mapping[str, Any], weight_states: States, bias_states: States | None
) -> tuple[Callable[..., None], list[Array], list[Array]]:
    """The op update_<rule> of a back-end, and the arrays of state that it takes; bias_states is None without a bias."""
    if rule not in RULES:
        raise ValueError(f"linear_cross_entropy_update: rule: expected one of {', '.join(RULES)}, got {rule!r}")
    kept = RULES[rule]
    wanted = [[state for state in states[:kept] if state is not None] for states in (weight_states, bias_states or ())]
    if [len(states) for states in wanted] != [kept, 0 if bias_states is None else kept]:
        raise ValueError(f"linear_cross_entropy_update: {rule} needs {kept} arrays of state for each parameter")
    return back_end[f"update_{rule}"], wanted[0], wanted[1]


# ------------------------------------------------------------------------------------------------------------- update
#
# PyTorch's rules. `lr` is the learning rate; arrays of one call have one shape, whatever it is. The forms for rows do
# the same as the dense form on a gradient that is 0 outside `rows`; where that leaves the other rows as they are (SGD
# and Adagrad without weight decay) they are not touched.

_ROWS = {"rows": ids("U", below="V", ascending=True), "drows": floats("U", "D")}


@contract(grad=floats("..."), param=inout("..."))
def update_sgd(grad: Array, param: Array, *, lr: float, weight_decay: float = 0.0, threads: int = 1) -> None:
    """param -= lr * (grad + weight_decay * param).

    grad   in
    param  in/out
    """
    if weight_decay:
        grad = grad + weight_decay * param
    param -= lr * grad


@contract(grad=floats("..."), velocity=inout("..."), param=inout("..."))
def update_momentum(
    grad: Array,
    velocity: Array,
    param: Array,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """velocity = momentum * velocity + grad + weight_decay * param; param -= lr * velocity.

    grad      in
    velocity  in/out: zeros before the first step
    param     in/out
    """
    if weight_decay:
        grad = grad + weight_decay * param
    velocity *= momentum
    velocity += grad
    param -= lr * velocity


@contract(grad=floats("..."), squares=inout("..."), param=inout("..."))
def update_adagrad(
    grad: Array,
    squares: Array,
    param: Array,
    *,
    lr: float,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """With g = grad + weight_decay * param: squares += g^2; param -= lr * g / (sqrt(squares) + eps).

    grad     in
    squares  in/out: zeros before the first step
    param    in/out
    Source: Duchi, Hazan and Singer (2011).
    """
    if weight_decay:
        grad = grad + weight_decay * param
    squares += grad * grad
    param -= lr * grad / (np.sqrt(squares) + eps)


@contract(grad=floats("..."), mean=inout("..."), square=inout("..."), param=inout("..."))
def update_adamw(
    grad: Array,
    mean: Array,
    square: Array,
    param: Array,
    *,
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    threads: int = 1,
) -> None:
    """Adam with decoupled weight decay.

    param *= 1 - lr * weight_decay
    mean = beta1 * mean + (1 - beta1) * grad;  square = beta2 * square + (1 - beta2) * grad^2
    param -= lr * (mean / (1 - beta1^step)) / (sqrt(square / (1 - beta2^step)) + eps)

    grad    in
    mean    in/out: running mean of the gradient; zeros before the first step
    square  in/out: running mean of its square; zeros before the first step
    param   in/out
    step    1 for the first update
    Source: Loshchilov and Hutter (2019), algorithm 2.
    """
    param *= 1 - lr * weight_decay
    mean += (1 - beta1) * (grad - mean)
    square *= beta2
    square += (1 - beta2) * (grad * grad)
    param -= (lr / (1 - beta1**step)) * mean / (np.sqrt(square) / np.sqrt(1 - beta2**step) + eps)


def dense_gradient(rows: Array, drows: Array, like: Array) -> Array:
    """The dense gradient that a sparse one stands for."""
    grad = np.zeros_like(like)
    grad[rows] = drows
    return grad


@contract(**_ROWS, param=inout("V", "D"))
def update_sgd_rows(
    rows: Array, drows: Array, param: Array, *, lr: float, weight_decay: float = 0.0, threads: int = 1
) -> None:
    """update_sgd for a sparse gradient.

    rows   (U,)    in: unique ids, ascending
    drows  (U, D)  in: the gradient's rows at those ids
    param  (V, D)  in/out
    """
    if weight_decay:
        update_sgd(dense_gradient(rows, drows, param), param, lr=lr, weight_decay=weight_decay)
    else:
        param[rows] -= lr * drows


@contract(**_ROWS, velocity=inout("V", "D"), param=inout("V", "D"))
def update_momentum_rows(
    rows: Array,
    drows: Array,
    velocity: Array,
    param: Array,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """update_momentum for a sparse gradient; every row moves, as its velocity does.

    rows, drows  in: as in update_sgd_rows
    velocity, param  (V, D)  in/out
    """
    grad = dense_gradient(rows, drows, param)
    update_momentum(grad, velocity, param, lr=lr, momentum=momentum, weight_decay=weight_decay)


@contract(**_ROWS, squares=inout("V", "D"), param=inout("V", "D"))
def update_adagrad_rows(
    rows: Array,
    drows: Array,
    squares: Array,
    param: Array,
    *,
    lr: float,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """update_adagrad for a sparse gradient.

    rows, drows  in: as in update_sgd_rows
    squares, param  (V, D)  in/out
    """
    if weight_decay:
        update_adagrad(dense_gradient(rows, drows, param), squares, param, lr=lr, eps=eps, weight_decay=weight_decay)
    else:
        squares[rows] += drows * drows
        param[rows] -= lr * drows / (np.sqrt(squares[rows]) + eps)


@contract(**_ROWS, mean=inout("V", "D"), square=inout("V", "D"), param=inout("V", "D"))
def update_adamw_rows(
    rows: Array,
    drows: Array,
    mean: Array,
    square: Array,
    param: Array,
    *,
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    threads: int = 1,
) -> None:
    """update_adamw for a sparse gradient; every row moves, as its running mean does.

    rows, drows  in: as in update_sgd_rows
    mean, square, param  (V, D)  in/out
    """
    grad = dense_gradient(rows, drows, param)
    update_adamw(
        grad, mean, square, param, lr=lr, step=step, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay
    )
