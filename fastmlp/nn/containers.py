"""Modules in sequence, with or without a residual connection, and the layer that merges axes."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, overload

import numpy as np

from fastmlp.arrays import as_floats
from fastmlp.nn.fused import fused
from fastmlp.nn.module import Module, type_of

__all__ = ["Flatten", "Residual", "Sequential"]

Array = np.ndarray


class Sequential(Module):
    """Run modules one after the other; `backward` runs from the last to the first.

    modules  in order, or one OrderedDict from names to modules
    BatchNorm1d, GELU and Dropout that follow each other run as one op in training: the same results, sooner.
    Raise ValueError if a module occurs twice: a module keeps only its last forward pass.

    >>> model = Sequential(Linear(3, 4, rng=1), Tanh(), Linear(4, 2, rng=2))
    >>> model(np.ones((5, 3))).shape
    (5, 2)
    >>> model.backward(np.ones((5, 2))).shape
    (5, 3)
    >>> list(model.state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *modules: "Module | OrderedDict[str, Module]") -> None:
        super().__init__()
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else dict(enumerate(modules))
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: module {name}: expected a Module, got {type(module).__name__}")
            if any(below is other for below in module.modules() for other in self.modules()):
                raise ValueError(f"Sequential: module {name} stands in it before; each may stand in it once")
            self._check_new(str(name))
            setattr(self, str(name), module)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...
    def __getitem__(self, index: int | slice) -> "Module | Sequential":
        if isinstance(index, slice):
            return Sequential(OrderedDict(list(self.named_children())[index]))
        return list(self)[index]

    def forward(self, input: Any) -> Array:
        """Return the last module's output."""
        output: Array = input
        for module in fused(self):
            output = module(output)
        return output

    def backward(self, grad: Any) -> Any:
        """Return the gradient of the first module's input."""
        for module in reversed(fused(self)):
            grad = module.backward(grad)
        return grad


class Residual(Sequential):
    """x + f(x): run modules one after the other and add their input to the output.

    Source: He, Zhang, Ren and Sun (2015).

    >>> Residual(Linear(3, 4, rng=1), Tanh(), Linear(4, 3, rng=2))(np.ones((5, 3))).shape
    (5, 3)
    """

    def forward(self, input: Any) -> Array:
        """Return x + f(x). Raise ValueError if f(x) has another shape than x."""
        x = as_floats("Residual: input", input, type_of(input))
        self.place.keep(x)
        y: Array = super().forward(x)
        if y.shape != x.shape:
            raise ValueError(f"Residual: expected modules that keep the shape {x.shape}, got {y.shape}")
        total = self.place.over(self, "sum", y)
        self.place.run("add", as_floats("Residual: input", x, y.dtype), y, total)
        return total

    def backward(self, grad: Any) -> Array:
        """Return the gradient of the input."""
        dy = as_floats("Residual.backward: grad", grad, type_of(grad))
        self.place.keep(dy)
        dx: Array = super().backward(dy)
        total = self.place.over(self, "dx", dx)
        self.place.run("add", dx, as_floats("Residual.backward: grad", dy, dx.dtype), total)
        return total


class Flatten(Module):
    """Merge the axes from start_dim to end_dim into one.

    >>> Flatten()(np.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Array:
        """Raise IndexError if an axis does not exist, ValueError if start_dim comes after end_dim."""
        x = np.asarray(input)
        first, last = (self._axis(name, getattr(self, name), x.ndim) for name in ("start_dim", "end_dim"))
        if first > last:
            raise ValueError(f"Flatten: expected start_dim not behind end_dim, got {first} and {last}")
        self._saved = x.shape
        return x.reshape(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])

    def backward(self, grad: Any) -> Array:
        """Return the gradient in the input's shape."""
        shape = self._kept()
        dy = np.asarray(grad)
        if dy.size != math.prod(shape):
            raise ValueError(f"Flatten.backward: grad: expected {math.prod(shape)} numbers, got shape {dy.shape}")
        return dy.reshape(shape)

    @staticmethod
    def _axis(name: str, axis: int, dimensions: int) -> int:
        dimensions = max(dimensions, 1)
        if not -dimensions <= axis < dimensions:
            raise IndexError(f"Flatten: {name}: expected an axis in [{-dimensions}, {dimensions - 1}], got {axis}")
        return axis % dimensions

    def _arguments(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
