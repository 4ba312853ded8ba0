"""softmax in Numba."""

import math

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.numba_ops._arithmetic import exp_nonpositive, highest_of, row_sum, sums_below
from fastmlp.ops.numba_ops._jit import jit, read_only, rows_worth_waking

Array = np.ndarray


def softmax_forward(x: Array, y: Array, *, log: bool = False, threads: int = 1) -> None:
    """Sliced over the rows."""
    kernel, x = _log_softmax_forward if log else _softmax_forward, read_only(x)
    team.run_slices(lambda first, last: kernel(first, last, x, y), team.cut(len(x), rows_worth_waking(x)), threads)


@jit
def _softmax_forward(first: int, last: int, x: Array, y: Array) -> None:
    for i in range(first, last):
        softmax_row(x[i], y[i])


@jit
def softmax_row(row: Array, p: Array) -> None:
    """p = exp(row) / sum exp(row), with the highest number subtracted first."""
    highest = highest_of(row)
    for j in range(row.size):
        p[j] = exp_nonpositive(row[j] - highest)
    scale = np.float32(1 / row_sum(p))
    for j in range(row.size):
        p[j] *= scale


@jit
def _log_softmax_forward(first: int, last: int, x: Array, y: Array) -> None:
    for i in range(first, last):
        row, log_p = x[i], y[i]
        highest = highest_of(row)
        log_sum = np.float32(math.log(sums_below(row, highest)[0]))
        for j in range(row.size):
            log_p[j] = row[j] - highest - log_sum


def softmax_backward(dy: Array, y: Array, dx: Array, *, log: bool = False, threads: int = 1) -> None:
    """Sliced over the rows."""
    kernel, inputs = _log_softmax_backward if log else _softmax_backward, (read_only(dy), read_only(y))
    team.run_slices(
        lambda first, last: kernel(first, last, *inputs, dx), team.cut(len(y), rows_worth_waking(y)), threads
    )


@jit
def _softmax_backward(first: int, last: int, dy: Array, y: Array, dx: Array) -> None:
    for i in range(first, last):
        dy_row, p, dx_row = dy[i], y[i], dx[i]
        for j in range(p.size):
            dx_row[j] = dy_row[j] * p[j]
        total = np.float32(row_sum(dx_row))
        for j in range(p.size):
            dx_row[j] = p[j] * (dy_row[j] - total)


@jit
def _log_softmax_backward(first: int, last: int, dy: Array, y: Array, dx: Array) -> None:
    for i in range(first, last):
        dy_row, log_p, dx_row = dy[i], y[i], dx[i]
        total = np.float32(row_sum(dy_row))
        for j in range(log_p.size):
            dx_row[j] = dy_row[j] - exp_nonpositive(log_p[j]) * total
