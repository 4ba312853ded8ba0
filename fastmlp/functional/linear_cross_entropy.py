"""The last layer and its cross entropy in one."""

from typing import cast

import numpy as np

from fastmlp.arrays import (
    ArrayLike,
    float_array,
    hand_over,
    id_array,
    ids_out_of_range,
    lent_array,
    listed,
    of_shape,
    place_for,
    transposed,
    upstream_gradient,
)
from fastmlp.functional import _loss
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._linear_loss import is_fused
from fastmlp.functional._linear_loss import linear_cross_entropy as _linear_loss
from fastmlp.functional._shapes import (
    as_rows,
    class_weight_of,
    empty_like_inputs,
    reduce_losses,
    row_scale_of,
    threads_for,
)
from fastmlp.ops.backend import ops_of

__all__ = ["linear_cross_entropy", "linear_cross_entropy_backward"]

Array = np.ndarray


@takes_float16
def linear_cross_entropy(
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
    fp32_precision: str = "auto",
) -> Array:
    """cross_entropy(linear(input, linear_weight, linear_bias), target), without an array of all the logits.

    input            (N, H) or (H,)
    linear_weight    (V, H), or (V, d1, ..., H) for losses at d1 * ... places of each row; these need N
    target           (N,), () or (N, d1, ...)         integers: the true classes, 0 <= class < V; or
                     (N, V), (V,) or (N, V, d1, ...)  floats: the probability of each class
    linear_bias      (V,) or (V, d1, ...)             None: 0
    weight           (V,)                             how much each class counts; None: 1
    reduction, label_smoothing   as in cross_entropy
    ignore_index     as there; None: -100, and the only value for probabilities
    out              () or for "none" the shape of a target of classes
    fp32_precision   precision of the products: "ieee", which is "auto", in float32; "bf16x3" with numbers split in
                     two bf16, up to 1e-5 off; "bf16" with numbers rounded to bf16; these two if the CPU has them
    Returns the loss, 0-dimensional but for "none". Probabilities, and weights of more than two dimensions, do store the
    logits. Raises NotImplementedError for `options`: the kernels choose for themselves.
    Source: torch.nn.functional.linear_cross_entropy.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> h, weight = np.ones((2, 3), np.float32), np.zeros((4, 3), np.float32)
    >>> F.linear_cross_entropy(h, weight, np.array([0, 3]))
    array(1.3862944, dtype=float32)
    """
    name = "linear_cross_entropy"
    h, w, targets, b, class_weight, ignored = checked_inputs(
        name, input, linear_weight, target, linear_bias, weight, reduction, ignore_index, label_smoothing, options
    )
    shape = h.shape[:-1] + w.shape[1:-1] if reduction == "none" else ()
    loss, threads = place_for(name, out, shape, h.dtype, h, w, targets, b, class_weight), threads_for(threads, w.size)
    if class_weight is not None or not is_fused(w, targets):
        found, _ = _linear_loss(
            h,
            w,
            targets,
            b,
            class_weight,
            reduction=reduction,
            ignore_index=ignored,
            label_smoothing=label_smoothing,
            grads=False,
            threads=threads,
            fp32_precision=fp32_precision,
        )
        loss[...] = found
        return hand_over(loss, out)
    rows, targets = as_rows(h), targets.ravel()
    counted = targets != ignored
    highest, log_sum, losses = np.empty((3, len(rows)), h.dtype)
    try:
        ops_of(h.dtype).linear_cross_entropy_forward(
            rows,
            w,
            b,
            targets,
            counted.astype(h.dtype),
            highest,
            log_sum,
            losses,
            label_smoothing=label_smoothing,
            fp32_precision=fp32_precision,
            threads=threads,
        )
    except IndexError:
        raise ids_out_of_range(name, "target", targets[counted], len(w)) from None
    reduce_losses(losses, int(np.count_nonzero(counted)), reduction, loss)
    return hand_over(loss, out)


@takes_float16
def linear_cross_entropy_backward(
    grad: ArrayLike,
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: None = None,
    threads: int | None = None,
    fp32_precision: str = "auto",
) -> tuple[Array, Array, Array | None]:
    """The gradients of linear_cross_entropy, which stores nothing: the logits are computed again, slice by slice.

    grad  the loss's shape, a number where that is ()  gradient of linear_cross_entropy's output
    The other arguments are those of linear_cross_entropy.
    Returns (dinput, dlinear_weight, dlinear_bias), shaped as those; dlinear_bias is None where linear_bias is.
    Source: torch.nn.functional.linear_cross_entropy, its gradients.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> h, weight = np.ones((1, 2), np.float32), np.zeros((4, 2), np.float32)
    >>> dh, dweight, dbias = F.linear_cross_entropy_backward(1.0, h, weight, np.array([3]))
    >>> dweight[:, 0], dbias is None
    (array([ 0.25,  0.25,  0.25, -0.75], dtype=float32), True)
    """
    name = "linear_cross_entropy_backward"
    h, w, targets, b, class_weight, ignored = checked_inputs(
        name, input, linear_weight, target, linear_bias, weight, reduction, ignore_index, label_smoothing, options
    )
    shape = h.shape[:-1] + w.shape[1:-1] if reduction == "none" else ()
    upstream, threads = upstream_gradient(name, "grad", grad, shape, h.dtype), threads_for(threads, w.size)
    if class_weight is not None or not is_fused(w, targets):
        _, gradients = _linear_loss(
            h,
            w,
            targets,
            b,
            class_weight,
            reduction=reduction,
            ignore_index=ignored,
            label_smoothing=label_smoothing,
            grads=True,
            upstream=upstream,
            threads=threads,
            fp32_precision=fp32_precision,
        )
        return cast(tuple[Array, Array, Array | None], gradients)
    rows, targets, upstream = as_rows(h), targets.ravel(), upstream.ravel()
    counted = targets != ignored
    total = int(np.count_nonzero(counted)) if reduction == "mean" else 1
    highest, log_sum, losses = np.empty((3, len(rows)), h.dtype)
    dh, dw, db = empty_like_inputs(h, w, b)
    try:
        ops_of(h.dtype).linear_cross_entropy(
            rows,
            w,
            b,
            targets,
            row_scale_of(counted, upstream, total, h.dtype),
            highest,
            log_sum,
            losses,
            dh.reshape(rows.shape),
            dw,
            db,
            label_smoothing=label_smoothing,
            fp32_precision=fp32_precision,
            threads=threads,
        )
    except IndexError:
        raise ids_out_of_range(name, "target", targets[counted], len(w)) from None
    return dh, dw, db


def checked_inputs(
    name: str,
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    linear_bias: ArrayLike | None,
    weight: ArrayLike | None,
    reduction: str,
    ignore_index: int | None,
    label_smoothing: float,
    options: object,
) -> tuple[Array, Array, Array, Array | None, Array | None, int]:
    """Return input, weight, targets, bias, class weights and the ignored index."""
    if options is not None:
        raise NotImplementedError(f"{name}: options: expected None, got {options!r}; the kernels choose for themselves")
    h = float_array(name, "input", input)
    w = float_array(name, "linear_weight", linear_weight, h.dtype)
    if h.ndim not in (1, 2):
        raise ValueError(f"{name}: input: expected shape (N, H) or (H,), got {h.shape}")
    classes = w.shape[0] if w.ndim else 0
    if w.ndim < 2 or w.shape[-1] != h.shape[-1] or not classes:
        raise ValueError(
            f"{name}: linear_weight: expected shape (V, ..., H) with H = {h.shape[-1]}, one class at least,"
            f" got {w.shape}{transposed(w, ('any', h.shape[-1]))}"
        )
    if h.ndim == 1 and w.ndim > 2:
        raise ValueError(f"{name}: input: expected (N, H) as linear_weight has more than two axes, got {h.shape}")
    ignored = -100 if ignore_index is None else ignore_index
    _loss.check_options(reduction, ignored, label_smoothing, where=f"{name}: ")
    truth = target if type(target) is Array else lent_array(name, "target", listed(name, "target", target, h.dtype))
    of_classes, of_probabilities = h.shape[:-1] + w.shape[1:-1], h.shape[:-1] + w.shape[:-1]
    if truth.shape == of_probabilities:
        if truth.dtype.kind != "f":
            raise TypeError(f"{name}: target: expected probabilities, as its shape is the logits', got {truth.dtype}")
        if ignore_index is not None:
            raise ValueError(f"{name}: ignore_index: expected None with probabilities, got {ignore_index}")
        targets = float_array(name, "target", truth, h.dtype)
    elif truth.shape == of_classes:
        targets = id_array(name, "target", truth)
    else:
        wanted = f"{of_classes} for classes or {of_probabilities} for probabilities"
        raise ValueError(f"{name}: target: expected shape {wanted}, got {truth.shape}")
    b = None
    if linear_bias is not None:
        b = of_shape(name, "linear_bias", float_array(name, "linear_bias", linear_bias, h.dtype), w.shape[:-1])
    if weight is None:
        return h, w, targets, b, None, ignored
    return h, w, targets, b, class_weight_of(name, weight, h.dtype, classes, targets, ignored), ignored
