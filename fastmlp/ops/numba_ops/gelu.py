"""gelu in Numba."""

import numpy as np

from fastmlp.ops.numba_ops._arithmetic import gelu_of, gelu_slope
from fastmlp.ops.numba_ops._jit import for_each_element, jit

Array = np.ndarray


def gelu_forward(x: Array, y: Array, *, threads: int = 1) -> None:
    """Sliced over the elements."""
    for_each_element(_gelu_forward, (x, y), threads)


@jit
def _gelu_forward(x: Array, y: Array) -> None:
    for i in range(y.size):
        y[i] = gelu_of(x[i])


def gelu_backward(dy: Array, x: Array, dx: Array, *, threads: int = 1) -> None:
    """Sliced over the elements."""
    for_each_element(_gelu_backward, (dy, x, dx), threads)


@jit
def _gelu_backward(dy: Array, x: Array, dx: Array) -> None:
    for i in range(dx.size):
        dx[i] = dy[i] * gelu_slope(x[i])
