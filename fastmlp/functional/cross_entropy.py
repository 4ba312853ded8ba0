"""Cross entropy of given logits, with classes or probabilities as targets."""

import numpy as np

from fastmlp.arrays import (
    FLOAT64,
    ArrayLike,
    Shape,
    float_array,
    hand_over,
    id_array,
    ids_out_of_range,
    lent_array,
    listed,
    place_for,
    upstream_gradient,
)
from fastmlp.functional import _loss
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._shapes import (
    axis_back,
    axis_last,
    class_weight_of,
    exact_sum,
    in_blocks,
    reduce_losses,
    row_scale_of,
    threads_for,
)
from fastmlp.ops.backend import ops_of

__all__ = ["cross_entropy", "cross_entropy_backward"]

Array = np.ndarray


@takes_float16
def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Compute the loss -log softmax(input)[target] in nats: how much the targets surprise a model with these logits.

    input            (C,), (N, C) or (N, C, d1, ...)  logits of C classes
    target           (), (N,)  or (N, d1, ...)        integers: the true class of each, 0 <= class < C; or
                     the input's shape                floats: the probability of each class
    weight           (C,)  how much each class counts; None: 1
    ignore_index     targets with this value do not count; for probabilities it must be negative
    reduction        "none": a loss for each target; "sum": of them all; "mean": the sum divided by the weights of the
                     targets that count, for probabilities by their number
    label_smoothing  share of each target that is spread over all classes, from 0 to 1
    out              () or for "none" the shape of a target of classes
    Returns the loss, 0-dimensional but for "none". The mean over nothing is NaN.
    Raises IndexError for a class out of range, NotImplementedError for size_average and reduce (deprecated in PyTorch:
    they are `reduction`).
    Source: torch.nn.functional.cross_entropy; label smoothing: Szegedy et al. (2016), section 7.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> logits, target = np.zeros((3, 4), np.float32), np.array([0, 3, -100])
    >>> F.cross_entropy(logits, target)
    array(1.3862944, dtype=float32)
    >>> F.cross_entropy(logits, target, reduction="none")
    array([1.3862944, 1.3862944, 0.       ], dtype=float32)
    """
    name = "cross_entropy"
    if size_average is not None or reduce is not None:
        raise NotImplementedError(
            f"{name}: size_average, reduce: expected None, got {size_average!r}, {reduce!r}; use reduction"
        )
    x, truth, w, shape = _cross_entropy_inputs(name, input, target, weight, reduction, ignore_index, label_smoothing)
    threads, label_smoothing = threads_for(threads, x.size), float(label_smoothing)
    loss = place_for(name, out, shape if reduction == "none" else (), x.dtype, x, truth, w)
    logits = _classes_last(x)
    total: float
    if truth.dtype.kind == "f":
        losses, total = _losses_of_probabilities(logits, _classes_last(truth), w, label_smoothing, threads)
    else:
        losses, total = _losses_of_classes(name, logits, truth.ravel(), w, ignore_index, label_smoothing, threads)
    reduce_losses(losses, total, reduction, loss)
    return hand_over(loss, out)


@takes_float16
def cross_entropy_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    threads: int | None = None,
) -> Array:
    """The gradient of the logits: softmax(input), minus 1 at the target, times the weight of the target.

    grad  the loss's shape, a number where that is ()  gradient of cross_entropy's output
    The other arguments are those of cross_entropy. Returns dinput, shaped as input; 0 where the target is ignored.
    Source: torch.nn.functional.cross_entropy, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.cross_entropy_backward(1.0, np.zeros((2, 4), np.float32), np.array([0, -100]))
    array([[-0.75,  0.25,  0.25,  0.25],
           [ 0.  ,  0.  ,  0.  ,  0.  ]], dtype=float32)
    """
    name = "cross_entropy_backward"
    x, truth, w, shape = _cross_entropy_inputs(name, input, target, weight, reduction, ignore_index, label_smoothing)
    threads, label_smoothing = threads_for(threads, x.size), float(label_smoothing)
    upstream = upstream_gradient(name, "grad", grad, shape if reduction == "none" else (), x.dtype).ravel()
    logits, mean = _classes_last(x), reduction == "mean"
    if truth.dtype.kind == "f":
        dlogits = _gradient_of_probabilities(upstream, logits, _classes_last(truth), w, mean, label_smoothing, threads)
    else:
        dlogits = _gradient_of_classes(
            name, upstream, logits, truth.ravel(), w, ignore_index, mean, label_smoothing, threads
        )
    if x.ndim < 3:
        return dlogits.reshape(x.shape)
    return np.ascontiguousarray(axis_back(dlogits, 1, x.shape))


def _cross_entropy_inputs(
    name: str,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array, Array, Array | None, Shape]:
    """Return logits, classes or probabilities, class weights, and the shape of the losses."""
    x = float_array(name, "input", input)
    if x.ndim < 1 or not x.shape[x.ndim > 1]:
        raise ValueError(
            f"{name}: input: expected shape (C,), (N, C) or (N, C, ...), one class at least, got {x.shape}"
        )
    _loss.check_options(reduction, ignore_index, label_smoothing, where=f"{name}: ")
    truth = target if type(target) is Array else lent_array(name, "target", listed(name, "target", target, x.dtype))
    shape = x.shape[:1] * (x.ndim > 1) + x.shape[2:]
    if truth.shape == x.shape:
        if truth.dtype.kind != "f":
            raise TypeError(f"{name}: target: expected probabilities, as its shape is the input's, got {truth.dtype}")
        if ignore_index >= 0:
            raise ValueError(f"{name}: ignore_index: expected a negative one with probabilities, got {ignore_index}")
        truth = float_array(name, "target", truth, x.dtype)
    elif truth.shape == shape:
        truth = id_array(name, "target", truth)
    else:
        wanted = f"{shape} for classes or {x.shape} for probabilities"
        raise ValueError(f"{name}: target: expected shape {wanted}, got {truth.shape}")
    if weight is None:
        return x, truth, None, shape
    return x, truth, class_weight_of(name, weight, x.dtype, x.shape[x.ndim > 1], truth, ignore_index), shape


def _classes_last(x: Array) -> Array:
    """Return (C,), (N, C) or (N, C, ...) as a matrix (rows, C)."""
    return x if x.ndim == 2 else axis_last(x, min(x.ndim - 1, 1))


# With class weights w and smoothing s a row with the target y has the loss
#
#     (1 - s) w_y (lse - z_y) + s/C sum_c w_c (lse - z_c)
#
# of which the op computes the case w = 1.


def _losses_of_classes(
    name: str,
    logits: Array,
    targets: Array,
    w: Array | None,
    ignore_index: int,
    label_smoothing: float,
    threads: int,
) -> tuple[Array, float]:
    """Return the losses and the divisor of their mean."""
    counted = targets != ignore_index
    row_scale = counted.astype(logits.dtype)
    highest, log_sum, losses = np.empty((3, len(logits)), logits.dtype)
    smoothing = label_smoothing if w is None else 0.0
    ops = ops_of(logits.dtype)
    outputs = highest, log_sum, losses
    try:
        ops.cross_entropy_forward(logits, targets, row_scale, *outputs, label_smoothing=smoothing, threads=threads)
    except IndexError:
        raise ids_out_of_range(name, "target", targets[counted], logits.shape[1]) from None
    if w is None:
        return losses, int(np.count_nonzero(counted))
    target_weight = w[np.where(counted, targets, 0)] * row_scale
    losses *= target_weight
    if label_smoothing:
        log_p = np.empty_like(logits)
        ops.softmax_forward(logits, log_p, log=True, threads=threads)
        losses = (1 - label_smoothing) * losses - np.where(counted, label_smoothing / len(w) * (log_p @ w), 0)
    return losses, exact_sum(target_weight)


def _gradient_of_classes(
    name: str,
    upstream: Array,
    logits: Array,
    targets: Array,
    w: Array | None,
    ignore_index: int,
    mean: bool,
    label_smoothing: float,
    threads: int,
) -> Array:
    counted = targets != ignore_index
    if w is None:
        scale = row_scale_of(counted, upstream, int(np.count_nonzero(counted)) if mean else 1, logits.dtype)
        return _dlogits(name, logits, targets, scale, label_smoothing, threads)
    targets = np.where(counted, targets, 0).astype(targets.dtype)
    target_weight = w[targets] * counted
    total = exact_sum(target_weight) if mean else 1
    scale = row_scale_of(counted, upstream, total, logits.dtype)
    if not label_smoothing:
        return _dlogits(name, logits, targets, target_weight * scale, 0.0, threads)
    shares = (label_smoothing / len(w) * w.astype(FLOAT64)).astype(w.dtype)  # s/C w
    of_all = shares.sum()
    row_scale = ((1 - label_smoothing) * target_weight + of_all) * scale
    dlogits = _dlogits(name, logits, targets, row_scale, 0.0, threads)
    dlogits[np.arange(len(targets)), targets] += of_all * scale
    dlogits -= scale[:, None] * shares
    return dlogits


def _dlogits(name: str, logits: Array, targets: Array, row_scale: Array, label_smoothing: float, threads: int) -> Array:
    dlogits = np.empty(logits.shape, logits.dtype)
    arguments = (logits, targets, row_scale, *np.empty((3, len(logits)), logits.dtype), dlogits)
    try:
        ops_of(logits.dtype).cross_entropy(*arguments, label_smoothing=label_smoothing, threads=threads)
    except IndexError:
        raise ids_out_of_range(name, "target", targets[row_scale != 0], logits.shape[1]) from None
    return dlogits


def _weighted_truth(truth: Array, w: Array | None, label_smoothing: float) -> Array:
    """Return the factor of each class's -log p."""
    if label_smoothing:
        truth = truth * (1 - label_smoothing) + label_smoothing / truth.shape[1]
    return truth if w is None else truth * w


def _losses_of_probabilities(
    logits: Array, truth: Array, w: Array | None, label_smoothing: float, threads: int
) -> tuple[Array, int]:
    losses, log_p = np.empty(len(logits), logits.dtype), np.empty_like(logits)
    ops_of(logits.dtype).softmax_forward(logits, log_p, log=True, threads=threads)

    def block(first: int, last: int) -> None:
        with np.errstate(invalid="ignore"):  # 0 times infinity: NaN, as in PyTorch
            log_p[first:last] *= _weighted_truth(truth[first:last], w, label_smoothing)
        np.negative(log_p[first:last].sum(axis=1), out=losses[first:last])

    in_blocks(block, logits)
    return losses, len(logits)


def _gradient_of_probabilities(
    upstream: Array,
    logits: Array,
    truth: Array,
    w: Array | None,
    mean: bool,
    label_smoothing: float,
    threads: int,
) -> Array:
    """scale * (sum(t) p - t), where t is the factor of each class's -log p."""
    dlogits = np.empty_like(logits)
    ops_of(logits.dtype).softmax_forward(logits, dlogits, threads=threads)
    scale = np.broadcast_to(upstream / max(len(logits), 1) if mean else upstream, len(logits))[:, None]

    def block(first: int, last: int) -> None:
        counts = _weighted_truth(truth[first:last], w, label_smoothing)
        dlogits[first:last] *= counts.sum(axis=1, keepdims=True)
        dlogits[first:last] -= counts
        dlogits[first:last] *= scale[first:last]

    in_blocks(block, logits)
    return dlogits
