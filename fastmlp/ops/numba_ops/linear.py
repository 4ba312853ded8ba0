"""linear in Numba: its products are BLAS's."""

from typing import Any

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.gradient import rule_of
from fastmlp.ops.numba_ops import update as rules
from fastmlp.ops.numba_ops._arithmetic import column_sums
from fastmlp.ops.numba_ops._jit import cut_elements
from fastmlp.ops.numba_ops._products import multiply

Array = np.ndarray


def linear_forward(
    x: Array, weight: Array, bias: Array | None, y: Array, *, fp32_precision: str = "auto", threads: int = 1
) -> None:
    """Sliced over the rows of the batch or the outputs."""
    multiply(x, weight.T, y, threads, bias)


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
    """dW, dx and db, each sliced for itself."""
    multiply(dy.T, x, dweight, threads)
    if dx is not None:
        multiply(dy, weight, dx, threads)
    if dbias is not None:
        slices = cut_elements(len(dbias), times=len(dy))
        team.run_slices(lambda first, last: column_sums(dy, first, last, dbias), slices, threads)


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
    """The gradient is an array of its own, as large as the weight."""
    update, states = rule_of("linear_update", rule, vars(rules), (weight_state, weight_state2))
    dweight = np.empty_like(weight)
    linear_backward(dy, x, weight, dx, dweight, dbias, threads=threads)
    update(dweight, *states, weight, threads=threads, **options)
