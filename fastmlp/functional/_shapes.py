"""Axes, blocks and reductions shared by several functions."""

import math
from collections.abc import Callable

import numpy as np

from fastmlp.arrays import (
    FLOAT64,
    ArrayLike,
    DType,
    Shape,
    float_array,
    ids_out_of_range,
    of_shape,
)
from fastmlp.threads import default_threads

Array = np.ndarray
FEW = 32  # up to so many numbers Python's sum() beats NumPy's
SMALL = 1 << 12  # numbers for which no kernel uses a second thread
CHEAP = 64  # elementwise work of three flops is single-threaded below SMALL times as many numbers
CACHED = 1 << 18  # numbers of a block that stays in the cache while NumPy passes over it several times


def empty_like_inputs(x: Array, w: Array, b: Array | None) -> tuple[Array, Array, Array | None]:
    """Return empty arrays for the gradients of input, weight and bias."""
    dtype = x.dtype
    return np.empty(x.shape, dtype), np.empty(w.shape, dtype), None if b is None else np.empty(b.shape, dtype)


def as_rows(x: Array) -> Array:
    """Return (..., I) as a matrix; (I,) is one row."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def channels_last(x: Array) -> Array:
    """Return (N, C, ...) as a matrix (rows, C)."""
    return x if x.ndim == 2 else np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])


def channels_second(rows: Array, shape: Shape) -> Array:
    """Undo `channels_last`: return a view of shape (N, C, ...)."""
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def axis_last(x: Array, axis: int) -> Array:
    """Return x as a matrix with the given axis last."""
    if x.ndim == 2 and axis == 1:
        return x
    if axis < x.ndim - 1:
        x = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    return x.reshape(-1, x.shape[-1] if x.ndim else 1)


def axis_back(rows: Array, axis: int, shape: Shape) -> Array:
    """Undo `axis_last`: return a view of the given shape."""
    return np.moveaxis(rows.reshape(*shape[:axis], *shape[axis + 1 :], shape[axis]), -1, axis)


def in_blocks(work: Callable[[int, int], object], x: Array) -> None:
    """Call `work` on blocks of rows that stay in the cache while NumPy passes over them several times.

    On one thread: with two, waiting for Python's lock took as long as the second one saved.
    """
    rows = max(1, CACHED // x.shape[1])
    for first in range(0, len(x), rows):
        work(first, min(first + rows, len(x)))


def class_weight_of(name: str, weight: ArrayLike, dtype: DType, classes: int, truth: Array, ignore_index: int) -> Array:
    """Return the classes' weights; raise IndexError for a target that counts and is no class."""
    counted = truth[truth != ignore_index] if truth.dtype.kind == "i" else truth[:0]
    if counted.size and not (counted.min() >= 0 and counted.max() < classes):
        raise ids_out_of_range(name, "target", counted, classes)
    return of_shape(name, "weight", float_array(name, "weight", weight, dtype), (classes,))


def row_scale_of(counted: Array, upstream: Array, total: float, dtype: DType) -> Array:
    """Return the gradient of the total with respect to each row's loss: 0 for a row that does not count."""
    scale = np.zeros(len(counted), dtype)
    each = upstream.item() if upstream.size == 1 else upstream
    np.putmask(scale, counted, each * (1 / total if total else math.nan))
    return scale


def reduce_losses(losses: Array, total: float, reduction: str, loss: Array) -> None:
    """Write the losses, their sum, or their mean (the sum divided by `total`) to `loss`."""
    if reduction == "none":
        loss[...] = losses.reshape(loss.shape)
    elif reduction == "sum":
        loss[...] = exact_sum(losses)
    else:
        loss[...] = exact_sum(losses) / total if total else math.nan


def exact_sum(x: Array) -> float:
    """Return the sum in float64."""
    return sum(x.tolist()) if x.size <= FEW else float(np.add.reduce(x, dtype=FLOAT64))


def threads_for(threads: int | None, size: int) -> int:
    """Return the threads for arrays of that size: one for small arrays, without looking up the default."""
    return 1 if threads is None and size < SMALL else default_threads(threads)
