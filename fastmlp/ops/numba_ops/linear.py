"""linear in Numba."""

from typing import Any

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.gradient import rule_of
from fastmlp.ops.numba_ops import update as rules
from fastmlp.ops.numba_ops._arithmetic import column_sums
from fastmlp.ops.numba_ops._jit import bias_or_zeros, jit, read_only
from fastmlp.ops.numba_ops._products import rows_times_matrix, rows_times_rows, rows_worth_a_slice

Array = np.ndarray


def linear_forward(
    x: Array, weight: Array, bias: Array | None, y: Array, *, fp32_precision: str = "auto", threads: int = 1
) -> None:
    """Sliced over the rows of the batch."""
    x, weight, bias = read_only(x), read_only(weight), bias_or_zeros(bias, len(weight))
    slices = team.cut(len(x), rows_worth_a_slice(weight))
    team.run_slices(lambda first, last: _linear_forward(x[first:last], weight, bias, y[first:last]), slices, threads)


@jit
def _linear_forward(x: Array, weight: Array, bias: Array, y: Array) -> None:
    rows_times_rows(x, weight, y)
    for i in range(len(y)):
        row = y[i]
        for o in range(row.size):
            row[o] += bias[o]


def linear_backward(
    dy: Array,
    x: Array,
    weight: Array,
    dx: Array | None,
    dweight: Array,
    dbias: Array | None,
    *,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """dW and db sliced over the outputs, dx over the rows of the batch."""
    x, weight = read_only(x), read_only(weight)
    dbias = np.empty(len(weight), np.float32) if dbias is None else dbias

    slices = team.cut(len(weight), rows_worth_a_slice(x))
    team.run_slices(lambda first, last: _linear_backward_weight(dy, x, first, last, dweight, dbias), slices, threads)
    if dx is not None:
        slices = team.cut(len(x), rows_worth_a_slice(weight))
        team.run_slices(lambda first, last: _linear_backward_x(dy[first:last], weight, dx[first:last]), slices, threads)


@jit
def _linear_backward_weight(dy: Array, x: Array, first: int, last: int, dweight: Array, dbias: Array) -> None:
    rows_times_matrix(dy[:, first:last].T, x, False, dweight[first:last])
    column_sums(dy, first, last, dbias)


@jit
def _linear_backward_x(dy: Array, weight: Array, dx: Array) -> None:
    rows_times_matrix(dy[:, 0 : len(weight)], weight, False, dx)


def linear_update(
    dy: Array,
    x: Array,
    weight: Array,
    weight_state: Array | None,
    weight_state2: Array | None,
    dx: Array | None,
    dbias: Array | None,
    *,
    rule: str,
    fp32_precision: str = "auto",
    threads: int = 1,
    **options: Any,
) -> None:
    """The gradient is an array of its own: products of blocks of it would not be faster."""
    update, states = rule_of("linear_update", rule, vars(rules), (weight_state, weight_state2))
    dweight = np.empty_like(weight)
    linear_backward(dy, x, weight, dx, dweight, dbias, threads=threads)
    update(dweight, *states, weight, threads=threads, **options)
