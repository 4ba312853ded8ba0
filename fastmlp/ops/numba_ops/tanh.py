"""tanh in Numba."""

import numpy as np

from fastmlp.ops.numba_ops._arithmetic import _ONE, tanh_of
from fastmlp.ops.numba_ops._jit import for_each_element, jit

Array = np.ndarray


def tanh_forward(x: Array, y: Array, *, threads: int = 1) -> None:
    """Sliced over the elements."""
    for_each_element(_tanh_forward, (x, y), threads)


@jit
def _tanh_forward(x: Array, y: Array) -> None:
    for i in range(y.size):
        y[i] = tanh_of(x[i])


def tanh_backward(dy: Array, y: Array, dx: Array, *, threads: int = 1) -> None:
    """Sliced over the elements."""
    for_each_element(_tanh_backward, (dy, y, dx), threads)


@jit
def _tanh_backward(dy: Array, y: Array, dx: Array) -> None:
    for i in range(dx.size):
        dx[i] = dy[i] * (_ONE - y[i] * y[i])
