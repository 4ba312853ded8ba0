"""The activations tanh and ReLU."""

from typing import Any

import numpy as np

from fastmlp.arrays import as_floats
from fastmlp.nn.module import Module, refuse, type_of
from fastmlp.ops.backend import ops_of
from fastmlp.threads import default_threads

__all__ = ["ReLU", "Tanh"]

Array = np.ndarray


class Tanh(Module):
    """tanh of each number.

    >>> Tanh()([0.0, 100.0]).tolist()
    [0.0, 1.0]
    """

    def forward(self, input: Any) -> Array:
        """Any shape; float64 stays float64, all else becomes float32."""
        x = as_floats("Tanh: input", input, type_of(input))
        y = np.empty_like(x)
        ops_of(x.dtype).tanh_forward(x, y, threads=default_threads())
        self._saved = y
        return y

    def backward(self, grad: Any) -> Array:
        """grad of the output's shape -> gradient of the input: grad * (1 - output^2)."""
        y: Array = self._kept()
        dx = np.empty_like(y)
        ops_of(y.dtype).tanh_backward(self._upstream(grad, y.dtype, y.shape), y, dx, threads=default_threads())
        return dx


class ReLU(Module):
    """max(x, 0) of each number.

    >>> ReLU()([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        refuse("ReLU", inplace=inplace)

    def forward(self, input: Any) -> Array:
        """Any shape; float64 stays float64, all else becomes float32."""
        x = as_floats("ReLU: input", input, type_of(input))
        y: Array = np.maximum(x, x.dtype.type(0))
        self._saved = y
        return y

    def backward(self, grad: Any) -> Array:
        """grad of the output's shape -> gradient of the input: grad but where the output is 0."""
        y = self._kept()
        dx: Array = np.where(y == 0, y.dtype.type(0), self._upstream(grad, y.dtype, y.shape))
        return dx
