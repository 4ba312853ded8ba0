"""The linear layer."""

import math
from typing import Any

import numpy as np

from fastmlp.arrays import as_floats, float_type
from fastmlp.nn.module import UNDRAWN, Module, Random, check_device, checked_size, drawn
from fastmlp.ops.gradient import FusingOptimizer

__all__ = ["Linear"]

Array = np.ndarray


class Linear(Module):
    """y = x W^T + b.

    in_features, out_features  I and O
    bias     whether the layer has b
    weight   (O, I)  initially U(-1/sqrt(I), 1/sqrt(I))
    bias     (O,)    likewise, or None
    fp32_precision  of the products, forward and backward, as in LinearCrossEntropyLoss
    updated_by  the optimizer whose step of the weight `backward` makes at once, so that its gradient is stored nowhere;
             `optimizer.step` then updates the bias. None: `backward` stores both gradients
    rng      seed or Generator of the initial values

    >>> layer = Linear(3, 2)
    >>> layer.weight[...], layer.bias[...] = [[1, 2, 3], [0, 1, 0]], [10, 20]
    >>> layer([[1.0, 1.0, 1.0]]).tolist()
    [[16.0, 21.0]]
    """

    weight: Array
    bias: Array | None
    updated_by: FusingOptimizer | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        fp32_precision: str = "auto",
        rng: Random = None,
    ) -> None:
        super().__init__()
        check_device(device)
        self.fp32_precision = fp32_precision
        self.in_features, self.out_features = (
            checked_size("in_features", in_features),
            checked_size("out_features", out_features),
        )
        self.dtype, bound = float_type(dtype), 1 / math.sqrt(in_features)
        rng = rng if rng is UNDRAWN else np.random.default_rng(rng)
        for name, shape in (("weight", (out_features, in_features)), ("bias", (out_features,))):
            absent = name == "bias" and not bias
            uniform = None if absent else drawn(rng, shape, self.dtype, "uniform", -bound, bound)
            self.register_parameter(name, uniform)

    def forward(self, input: Any) -> Array:
        """Return y (..., O) for input (..., I). Raise ValueError for another last axis, TypeError for non-numbers."""
        x = as_floats("Linear: input", input, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"Linear: input: expected shape (..., {self.in_features}), got {x.shape}")
        rows = x.reshape(-1, self.in_features)
        y = self.place.array(self, "y", (len(rows), self.out_features), self.dtype)
        self.place.run("linear_forward", rows, self.weight, self.bias, y, fp32_precision=self.fp32_precision)
        self.place.keep(rows)
        self._saved = x
        return y.reshape(*x.shape[:-1], self.out_features)

    def backward(self, grad: Any) -> Array:
        """Return the gradient of the input (..., I) for grad (..., O)."""
        x = self._kept()
        dy = self._upstream(grad, self.dtype, (*x.shape[:-1], self.out_features)).reshape(-1, self.out_features)
        dx = self.place.array(self, "dx", (len(dy), self.in_features), self.dtype)
        dbias = None if self.bias is None else self._gradient("bias")
        inputs = dy, x.reshape(dx.shape), self.weight
        if self.updated_by is None:
            gradients = dx, self._gradient("weight"), dbias
            self.place.run("linear_backward", *inputs, *gradients, fp32_precision=self.fp32_precision)
        else:
            self.place.call(self._update, self.updated_by, inputs, (dx, dbias))
        return dx.reshape(x.shape)

    def _update(self, optimizer: FusingOptimizer, inputs: tuple[Array, ...], outputs: tuple[Array | None, ...]) -> None:
        """Run the backward pass with the optimizer's next step of the weight."""
        precision = self.fp32_precision
        optimizer.step_with("linear_update", self, "weight", inputs, outputs, again=True, fp32_precision=precision)
        self.grads.pop("weight", None)  # of an earlier pass: `optimizer.step` would take it

    def _arguments(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
