"""Dropout."""

from typing import Any

import numpy as np

from fastmlp.arrays import as_floats
from fastmlp.nn.module import Module, Random, refuse, type_of

__all__ = ["Dropout"]

Array = np.ndarray


class Dropout(Module):
    """In training, each number is 0 with probability p and else divided by 1 - p; after training, nothing happens.

    p    probability of 0
    rng  seed or Generator of what is dropped
    Source: Srivastava et al. (2014), scaled in training as PyTorch does.

    >>> Dropout(0.5, rng=1)(np.ones(6)).tolist()
    [2.0, 2.0, 0.0, 2.0, 0.0, 0.0]
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: Random = None) -> None:
        super().__init__()
        refuse("Dropout", inplace=inplace)
        if not isinstance(p, int | float | np.number) or not 0 <= p <= 1:
            raise ValueError(f"p: expected a probability from 0 to 1, got {p!r}")
        self.p, self.rng = p, np.random.default_rng(rng)

    def forward(self, input: Any) -> Array:
        """Any shape; float64 stays float64, all else becomes float32."""
        x = as_floats("Dropout: input", input, type_of(input))
        scale = np.ones((), x.dtype)
        if self.training and self.p:
            scale = (self.rng.random(x.shape) >= self.p) * x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        self._saved = scale, x.dtype, x.shape
        y: Array = x * scale
        return y

    def backward(self, grad: Any) -> Array:
        """grad of the output's shape -> gradient of the input."""
        scale, dtype, shape = self._kept()
        dx: Array = self._upstream(grad, dtype, shape) * scale
        return dx

    def _arguments(self) -> str:
        return f"p={self.p}"
