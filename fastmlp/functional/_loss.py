"""The linear cross entropy of NumPy arrays with PyTorch's reductions, ignored targets, class weights and smoothing.

With class weights w and label smoothing s, a row h, its logits z and its target y have the loss

    (1 - s) w_y (lse - z_y) + s/V sum_c w_c (lse - z_c)
    = (1 - s) w_y (lse - z_y) + s/V (sum(w) lse - h . W^T w - w . b)

The fused op's `row_scale` weighs rows, not classes. So where both w and s are given it runs without smoothing, at
row_scale = (1 - s) w_y + s/V sum(w), the factor of the softmax. It then subtracts row_scale from the target's gradient
instead of (1 - s) w_y, and 0 from the others instead of s/V w; _correct_gradients mends that in O(N H + V H).
"""

from typing import Any

import numpy as np

from fastmlp.ops import Ops

__all__ = ["REDUCTIONS", "check_options", "linear_cross_entropy"]

Array = np.ndarray
Gradients = tuple[Array | None, Array | None, Array | None]

REDUCTIONS = ("mean", "sum", "none")
BLOCK = 1024  # classes that are corrected at a time, without a second array of the weight's size


@np.errstate(divide="ignore", invalid="ignore")  # the mean over no weight is NaN, as in PyTorch
def linear_cross_entropy(
    input: Array,
    linear_weight: Array,
    target: Array,
    linear_bias: Array | None = None,
    class_weight: Array | None = None,
    *,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    grads: bool | tuple[bool, bool, bool],
    upstream: Any = None,
    ops: Ops,
    threads: int,
    fp32_precision: str = "auto",
) -> tuple[Array | None, Gradients | None]:
    """Return the loss and, if asked for, its gradients, computed together.

    input            (N, H)        float32; for the reference's ops any float type, one for all
    linear_weight    (V, H)
    target           (N,)          int32 or int64 classes
    linear_bias      (V,) or None
    class_weight     (V,) or None
    reduction        "mean", divided by the sum of the counted targets' class weights; "sum"; or "none"
    ignore_index     rows with this target do not count: their loss and their gradients are 0
    label_smoothing  in [0, 1]
    grads            whether the gradients are wanted: all, or each of (dinput, dlinear_weight, dlinear_bias)
    upstream         gradient of the total with respect to the loss, of the loss's shape; None: 1

    Returns the loss, 0-dimensional or (N,) for "none", and (dinput, dlinear_weight, dlinear_bias), each None where it
    is not wanted or its input is None, or None for all. The loss is None if `upstream` is given, since the caller then
    has the loss already. The mean over no row is NaN, its gradients are 0.
    Raises IndexError for a target outside [0, V), TypeError or ValueError for options; the op checks the
    other arguments.
    """
    check_options(reduction, ignore_index, label_smoothing)
    dtype, counted = input.dtype, target != ignore_index
    _check_targets(target[counted], linear_weight.shape[0])
    smoothed_weight = class_weight if label_smoothing else None  # needs a correction after the op

    target_weight = np.zeros(target.shape)  # w_y; 0 where the row does not count
    target_weight[counted] = 1 if class_weight is None else class_weight[target[counted]]
    softmax_weight = target_weight
    if smoothed_weight is not None:
        mean = smoothed_weight.mean(dtype=np.float64)
        softmax_weight = np.where(counted, (1 - label_smoothing) * target_weight + label_smoothing * mean, 0)
    total = target_weight.sum() if reduction == "mean" else np.float64(1)
    scale = np.where(counted, np.asarray(1 if upstream is None else upstream, np.float64) / total, 0)
    row_scale = np.where(counted, softmax_weight * scale, 0).astype(dtype)

    highest, log_sum, losses = np.empty((3, *target.shape), dtype)
    gradients: Gradients | None = None
    inputs = (input, linear_weight, linear_bias, target)
    settings: dict[str, Any] = {
        "label_smoothing": 0.0 if smoothed_weight is not None else label_smoothing,
        "fp32_precision": fp32_precision,
        "threads": threads,
    }
    wanted = grads if isinstance(grads, tuple) else (grads,) * 3
    if any(wanted):
        dinput, dweight, dbias = (
            np.empty_like(array) if want and array is not None else None
            for want, array in zip(wanted, (input, linear_weight, linear_bias), strict=True)
        )
        gradients = (dinput, dweight, dbias)
        ops.linear_cross_entropy(*inputs, row_scale, highest, log_sum, losses, *gradients, **settings)
    else:
        ops.linear_cross_entropy_forward(*inputs, counted.astype(dtype), highest, log_sum, losses, **settings)
    loss = target_weight * losses
    if smoothed_weight is not None:
        input = np.where(counted[:, None], input, 0)  # a row that does not count may hold anything
        shares = label_smoothing / smoothed_weight.size * smoothed_weight.astype(np.float64)
        targets = np.where(counted, target, 0).astype(target.dtype)
        target_logits, shared_logits = _logits(input, linear_weight, linear_bias, targets, shares)
        # not softmax_weight * lse - ...: a difference from the large lse would lose its last digits
        loss = softmax_weight * losses + counted * (shares.sum() * target_logits - shared_logits)
        if gradients is not None:
            _correct_gradients(gradients, input, linear_weight, targets, shares, scale, ops)
    if upstream is not None:
        return None, gradients
    return np.asarray(loss if reduction == "none" else loss.sum() / total, dtype), gradients


def check_options(reduction: str, ignore_index: int, label_smoothing: float, *, where: str = "") -> None:
    """Raise TypeError for an option of another type, ValueError for another reduction and smoothing outside [0, 1].

    where  the beginning of the message
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"{where}reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if not isinstance(ignore_index, int | np.integer):
        raise TypeError(f"{where}ignore_index: expected an integer, got {ignore_index!r}")
    if not isinstance(label_smoothing, int | float | np.integer | np.floating):
        raise TypeError(f"{where}label_smoothing: expected a number, got {label_smoothing!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{where}label_smoothing: expected a number from 0 to 1, got {label_smoothing}")


def _check_targets(counted: Array, classes: int) -> None:
    if counted.size and not 0 <= (low := int(counted.min())) <= (high := int(counted.max())) < classes:
        raise IndexError(f"target: expected classes in [0, {classes}), got {low if low < 0 else high}")


def _shared_weight(linear_weight: Array, shares: Array) -> Array:
    """Return W^T shares (H,), in float64."""
    total = np.zeros(linear_weight.shape[1])
    for first in range(0, shares.size, BLOCK):
        total += np.einsum("v,vh->h", shares[first : first + BLOCK], linear_weight[first : first + BLOCK])
    return total


def _logits(
    input: Array, linear_weight: Array, linear_bias: Array | None, targets: Array, shares: Array
) -> tuple[Array, Array]:
    """Return each row's z_y and shares . z, in float64; `shares` (V,) are s/V w."""
    target_logits = np.einsum("nh,nh->n", input, linear_weight[targets], dtype=np.float64)
    shared_logits = np.einsum("nh,h->n", input, _shared_weight(linear_weight, shares))
    if linear_bias is not None:
        target_logits += linear_bias[targets]
        shared_logits += shares @ linear_bias
    return target_logits, shared_logits


def _correct_gradients(
    gradients: Gradients, input: Array, linear_weight: Array, targets: Array, shares: Array, scale: Array, ops: Ops
) -> None:
    """Add scale * (sum(shares) at the target - `shares` at each class) to the gradient of the logits.

    gradients  in/out: of input, weight and bias
    targets    (N,)    any class where the row does not count
    shares     (V,)    s/V w
    scale      (N,)    the gradient of the total with respect to each loss, 0 where the row does not count
    """
    dinput, dweight, dbias = gradients
    at_target = (shares.sum() * scale).astype(input.dtype)
    if dinput is not None:
        dinput += at_target[:, None] * linear_weight[targets]
        dinput -= np.outer(scale, _shared_weight(linear_weight, shares)).astype(input.dtype)
    if dweight is not None:
        rows, drows = np.empty_like(targets), np.empty_like(input)
        unique = ops.embedding_backward(targets[:, None], (at_target[:, None] * input)[:, None], rows, drows)
        dweight[rows[:unique]] += drows[:unique]
        scaled_input = np.einsum("n,nh->h", scale, input)
        for first in range(0, shares.size, BLOCK):
            dweight[first : first + BLOCK] -= np.outer(shares[first : first + BLOCK], scaled_input)
    if dbias is not None:
        np.add.at(dbias, targets, at_target)
        dbias -= shares * scale.sum()
