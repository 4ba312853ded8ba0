"""batchnorm in Numba."""

import math

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.numba_ops._jit import cut_elements, jit, read_only

Array = np.ndarray


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
    """Sliced over the channels; statistics in float64."""
    rows, channels = x.shape
    if training and rows < 2:
        raise ValueError(f"batchnorm_forward: x: expected at least 2 rows to train on, got {rows}")
    inputs = read_only(x), read_only(weight), read_only(bias), bool(training), float(momentum), float(eps)
    outputs = running_mean, running_var, mean, inv_std, y
    slices = cut_elements(channels, times=rows, multiple_of=16)
    team.run_slices(lambda first, last: _batchnorm_forward(first, last, *inputs, *outputs), slices, threads)


@jit
def _batchnorm_forward(
    first: int,
    last: int,
    x: Array,
    weight: Array,
    bias: Array,
    training: bool,
    momentum: float,
    eps: float,
    running_mean: Array,
    running_var: Array,
    mean: Array,
    inv_std: Array,
    y: Array,
) -> None:
    rows, channels = x.shape[0], last - first
    center, var = np.zeros(channels), np.zeros(channels)
    if training:
        for i in range(rows):
            row = x[i, first:last]
            for c in range(channels):
                center[c] += row[c]
        center /= rows
        for i in range(rows):
            row = x[i, first:last]
            for c in range(channels):
                var[c] += (row[c] - center[c]) ** 2
        var /= rows
        unbiased = rows / (rows - 1)
        for c in range(channels):
            running_mean[first + c] += momentum * (center[c] - running_mean[first + c])
            running_var[first + c] += momentum * (var[c] * unbiased - running_var[first + c])
    else:
        center[:] = running_mean[first:last]
        var[:] = running_var[first:last]
    for c in range(channels):
        mean[first + c] = center[c]
        inv_std[first + c] = 1 / math.sqrt(var[c] + eps)
    middle, scale, add = mean[first:last], inv_std[first:last] * weight[first:last], bias[first:last]
    for i in range(rows):
        _normalize_row(x[i, first:last], middle, scale, add, y[i, first:last])


@jit
def _normalize_row(x: Array, middle: Array, scale: Array, add: Array, y: Array) -> None:
    for c in range(x.size):
        y[c] = (x[c] - middle[c]) * scale[c] + add[c]


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
    """Sliced over the channels; sums over the batch in float64."""
    inputs = *(read_only(array) for array in (dy, x, weight, mean, inv_std)), bool(training)
    outputs = dx, dweight, dbias
    slices = cut_elements(x.shape[1], times=len(x), multiple_of=16)
    team.run_slices(lambda first, last: _batchnorm_backward(first, last, *inputs, *outputs), slices, threads)


@jit
def _batchnorm_backward(
    first: int,
    last: int,
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    training: bool,
    dx: Array,
    dweight: Array,
    dbias: Array,
) -> None:
    rows, channels = x.shape[0], last - first
    middle, inverse = mean[first:last], inv_std[first:last]
    dy_sum, dy_xhat_sum = np.zeros(channels), np.zeros(channels)
    for i in range(rows):
        row, dy_row = x[i, first:last], dy[i, first:last]
        for c in range(channels):
            dy_sum[c] += dy_row[c]
            dy_xhat_sum[c] += dy_row[c] * ((row[c] - middle[c]) * inverse[c])
    for c in range(channels):
        dbias[first + c] = dy_sum[c]
        dweight[first + c] = dy_xhat_sum[c]

    scale = weight[first:last] * inverse
    dy_mean = (dy_sum / rows).astype(np.float32)
    slope = (dy_xhat_sum / rows * inverse).astype(np.float32)
    for i in range(rows):
        row, dy_row, dx_row = x[i, first:last], dy[i, first:last], dx[i, first:last]
        for c in range(channels):
            if training:
                dx_row[c] = (dy_row[c] - dy_mean[c] - (row[c] - middle[c]) * slope[c]) * scale[c]
            else:
                dx_row[c] = dy_row[c] * scale[c]
