"""The activations tanh, ReLU, GELU, softmax and its logarithm."""

from typing import Any

import numpy as np

from fastmlp import functional
from fastmlp.arrays import as_floats
from fastmlp.nn.module import Module, refuse, type_of

__all__ = ["GELU", "LogSoftmax", "ReLU", "Softmax", "Tanh"]

Array = np.ndarray


class Tanh(Module):
    """tanh of each number.

    >>> Tanh()([0.0, 100.0]).tolist()
    [0.0, 1.0]
    """

    def forward(self, input: Any) -> Array:
        """Accept any shape; float64 stays float64, every other type becomes float32."""
        x = as_floats("Tanh: input", input, type_of(input))
        y = self.place.over(self, "y", x)
        self.place.run("tanh_forward", x, y)
        self.place.keep(y)
        self._saved = y
        return y

    def backward(self, grad: Any) -> Array:
        """Return the gradient of the input: grad * (1 - output^2)."""
        y: Array = self._kept()
        dy = self._upstream(grad, y.dtype, y.shape)
        dx = self.place.over(self, "dx", dy)
        self.place.run("tanh_backward", dy, y, dx)
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
        """Accept any shape; float64 stays float64, every other type becomes float32."""
        x = as_floats("ReLU: input", input, type_of(input))
        y = self.place.over(self, "y", x)
        self.place.call(np.maximum, x, x.dtype.type(0), out=y)
        self.place.keep(y)
        self._saved = y
        return y

    def backward(self, grad: Any) -> Array:
        """Return the gradient of the input: grad, but 0 where the output is 0."""
        y: Array = self._kept()
        dy = self._upstream(grad, y.dtype, y.shape)
        dx = self.place.over(self, "dx", dy)
        self.place.call(_zero_where_zero, dy, y, dx)
        return dx


class GELU(Module):
    """x * Phi(x) of each number, with Phi the standard normal distribution function: the exact form.

    approximate  only "none" is supported; "tanh" raises NotImplementedError
    Source: Hendrycks and Gimpel (2016).

    >>> GELU()([0.0, 100.0]).tolist()
    [0.0, 100.0]
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        refuse("GELU", approximate=approximate != "none" and approximate)

    def forward(self, input: Any) -> Array:
        """Accept any shape; float64 stays float64, every other type becomes float32."""
        x = as_floats("GELU: input", input, type_of(input))
        self.place.keep(x)
        y = self.place.over(self, "y", x)
        self.place.run("gelu_forward", x, y)
        self._saved = x
        return y

    def backward(self, grad: Any) -> Array:
        """Return the gradient of the input; grad has the output's shape."""
        kept = self._kept()
        x: Array = kept() if callable(kept) else kept  # nn/fused.py stores a function that makes it
        dy = self._upstream(grad, x.dtype, x.shape)
        dx = self.place.over(self, "dx", dy)
        self.place.run("gelu_backward", dy, x, dx)
        return dx


class Softmax(Module):
    """exp(x) / sum exp(x), over the axis dim.

    dim  the axis; None: PyTorch's choice, with its warning: 0 of no, one or three axes, else 1

    >>> Softmax(dim=-1)([0.0, 0.0]).tolist()
    [0.5, 0.5]
    """

    _function = "softmax"

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Array:
        """Accept any shape; float64 stays float64, every other type becomes float32."""
        x = as_floats(f"{type(self).__name__}: input", input, type_of(input))
        y = self.place.over(self, "y", x)
        self.place.call(getattr(functional, self._function), x, self.dim, 6, out=y)
        self.place.keep(y)
        self._saved = y
        return y

    def backward(self, grad: Any) -> Array:
        """Return the gradient of the input; grad has the output's shape."""
        y: Array = self._kept()
        dy = self._upstream(grad, y.dtype, y.shape)
        dx = self.place.over(self, "dx", dy)
        self.place.call(self._gradient_into, dx, dy, y)
        return dx

    def _gradient_into(self, dx: Array, dy: Array, y: Array) -> None:
        dx[...] = getattr(functional, f"{self._function}_backward")(dy, y, self.dim)

    def _arguments(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """x - log sum exp(x), over the axis dim: the logarithm of Softmax, without its underflow.

    >>> LogSoftmax(dim=-1)([0.0, -1000.0]).tolist()
    [0.0, -1000.0]
    """

    _function = "log_softmax"


def _zero_where_zero(dy: Array, y: Array, dx: Array) -> None:
    np.copyto(dx, dy)
    np.copyto(dx, y.dtype.type(0), where=y == 0)
