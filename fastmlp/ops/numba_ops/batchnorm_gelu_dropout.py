"""batchnorm_gelu_dropout in Numba."""

from typing import Any

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.numba_ops._jit import cut_elements, jit, read_only
from fastmlp.ops.numba_ops.batchnorm import _batchnorm_backward, _batchnorm_forward, _normalize_row
from fastmlp.ops.numba_ops.dropout import _dropout, mask_of
from fastmlp.ops.numba_ops.gelu import _gelu_backward, _gelu_forward

Array = np.ndarray


def batchnorm_gelu_dropout_forward(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    counter: Array,
    mean: Array,
    inv_std: Array,
    y: Array,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    layer: int,
    p: float,
    threads: int = 1,
) -> None:
    """Sliced over the channels, row by row behind batchnorm."""
    rows, channels = x.shape
    if rows < 2:
        raise ValueError(f"batchnorm_gelu_dropout_forward: x: expected at least 2 rows to train on, got {rows}")
    inputs = read_only(x), read_only(weight), read_only(bias), float(momentum), float(eps)
    outputs, mask = (running_mean, running_var, mean, inv_std, y), mask_of(counter, layer, p)
    slices = cut_elements(channels, times=4 * rows, multiple_of=16)
    team.run_slices(lambda first, last: _forward(first, last, *inputs, *outputs, mask), slices, threads)


@jit
def _forward(
    first: int,
    last: int,
    x: Array,
    weight: Array,
    bias: Array,
    momentum: float,
    eps: float,
    running_mean: Array,
    running_var: Array,
    mean: Array,
    inv_std: Array,
    y: Array,
    mask: Any,
) -> None:
    _batchnorm_forward(first, last, x, weight, bias, True, momentum, eps, running_mean, running_var, mean, inv_std, y)
    for i in range(len(y)):
        row = y[i, first:last]
        _gelu_forward(row, row)
        _dropout(row, row, i * y.shape[1] + first, mask)


def batchnorm_gelu_dropout_backward(
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    bias: Array,
    counter: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
    *,
    layer: int,
    p: float,
    threads: int = 1,
) -> None:
    """Sliced over the channels, row by row before batchnorm."""
    inputs = tuple(read_only(array) for array in (dy, x, weight, mean, inv_std, bias))
    outputs, mask = (dx, dweight, dbias), mask_of(counter, layer, p)
    slices = cut_elements(x.shape[1], times=4 * len(x), multiple_of=16)
    team.run_slices(lambda first, last: _backward(first, last, *inputs, *outputs, mask), slices, threads)


@jit
def _backward(
    first: int,
    last: int,
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    bias: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
    mask: Any,
) -> None:
    middle, scale, add = mean[first:last], inv_std[first:last] * weight[first:last], bias[first:last]
    z = np.empty_like(middle)
    for i in range(len(x)):
        dx_row = dx[i, first:last]
        _normalize_row(x[i, first:last], middle, scale, add, z)
        _dropout(dy[i, first:last], dx_row, i * x.shape[1] + first, mask)
        _gelu_backward(dx_row, z, dx_row)
    _batchnorm_backward(first, last, dx, x, weight, mean, inv_std, True, dx, dweight, dbias)
