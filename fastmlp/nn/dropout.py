"""Dropout."""

from typing import Any

import numpy as np

from fastmlp.arrays import as_floats
from fastmlp.nn.module import Module, Random, refuse, type_of

__all__ = ["Dropout"]

Array = np.ndarray


class Dropout(Module):
    """In training set each number to 0 with probability p, else divide it by 1 - p; in evaluation do nothing.

    p        probability that a number becomes 0, which it does to within 2^-17
    rng      seed or Generator of the masks
    counter  (2,) or None  seed and step that select the mask, int64; None: a new mask for each forward pass
    layer    number of the mask among those of one seed and step
    Source: Srivastava et al. (2014), scaled in training as PyTorch does. The op dropout defines the mask.

    >>> Dropout(0.5, rng=1)(np.ones(6)).tolist()
    [2.0, 0.0, 0.0, 2.0, 2.0, 0.0]
    """

    counter: Array | None = None
    layer = 0

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: Random = None) -> None:
        super().__init__()
        refuse("Dropout", inplace=inplace)
        if not isinstance(p, int | float | np.number) or not 0 <= p <= 1:
            raise ValueError(f"p: expected a probability from 0 to 1, got {p!r}")
        self.p, self.rng = p, np.random.default_rng(rng)

    def forward(self, input: Any) -> Array:
        """Accept any shape; float64 stays float64, every other type becomes float32."""
        x = as_floats("Dropout: input", input, type_of(input))
        (p, counter), y = self.draw(), x
        if p:
            y = self.place.over(self, "y", x)
            self._mask("dropout_forward", x, counter, y, p)
        self._saved = p, counter, x.dtype, x.shape
        return y

    def backward(self, grad: Any) -> Array:
        """Return the gradient of the input; grad has the output's shape."""
        p, counter, dtype, shape = self._kept()
        dy = self._upstream(grad, dtype, shape)
        if not p:
            return dy
        dx = self.place.over(self, "dx", dy)
        self._mask("dropout_backward", dy, counter, dx, p)
        return dx

    def share(self) -> float:
        """Return the probability that a number becomes 0 in the present mode."""
        return self.p if self.training else 0.0

    def draw(self) -> tuple[float, Array]:
        """Return the share and the counter of the next mask; where the share is 0, of none."""
        p = self.share()
        if self.counter is not None:
            return p, self.counter
        return p, np.array([self.rng.integers(0, 2**63) if p else 0, 0])

    def _mask(self, op: str, x: Array, counter: Array, y: Array, p: float) -> None:
        if p == 1:
            self.place.call(y.fill, 0)
        else:
            self.place.run(op, x, counter, y, layer=self.layer, p=p)

    def _arguments(self) -> str:
        return f"p={self.p}"
