"""BatchNorm1d, GELU and Dropout that follow each other run as one op.

Three ops would write and read arrays in between that are larger than the caches. All results are those of the three
modules called one after the other, to the bit, and so is what each of them keeps for its backward pass.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from fastmlp.nn.activation import GELU
from fastmlp.nn.batchnorm import BatchNorm1d
from fastmlp.nn.dropout import Dropout
from fastmlp.nn.module import Module

__all__ = ["BatchNormGELUDropout", "fused"]

Array = np.ndarray


class BatchNormGELUDropout(NamedTuple):
    """Three modules in sequence."""

    batchnorm: BatchNorm1d
    gelu: GELU
    dropout: Dropout

    def __call__(self, input: Any) -> Array:
        """Return dropout(gelu(batchnorm(input))): by one op on rows (B, C) that give the statistics."""
        x, of_batch = self.batchnorm.checked(input)
        if not of_batch or x.ndim != 2 or self.dropout.share() == 1:
            y: Array = self.dropout(self.gelu(self.batchnorm(x)))
            return y
        p, counter = self.dropout.draw()
        op, options = "batchnorm_gelu_dropout_forward", {"layer": self.dropout.layer, "p": p}
        y = self.batchnorm.run_forward(op, x, True, counter, **options)
        self.dropout._saved = p, counter, y.dtype, y.shape
        self.gelu._saved = _Between(self.batchnorm, self.batchnorm._saved, self.dropout._saved)
        return y

    def backward(self, grad: Any) -> Array:
        """Return the gradient of the input: by one op if the last forward pass of all three was by one."""
        between = self.gelu._saved
        if not isinstance(between, _Between) or not between.is_of(self):
            return self.batchnorm.backward(self.gelu.backward(self.dropout.backward(grad)))
        p, counter, dtype, shape = self.dropout._saved
        dy = self.dropout._upstream(grad, dtype, shape)
        op, options = "batchnorm_gelu_dropout_backward", {"layer": self.dropout.layer, "p": p}
        return self.batchnorm.run_backward(op, dy, self.batchnorm.shift(), counter, **options)


class _Between(NamedTuple):
    """Stands for the array between batchnorm and gelu, which the op does not store."""

    batchnorm: BatchNorm1d
    of_batchnorm: Any  # what each kept in that forward pass
    of_dropout: Any

    def is_of(self, modules: BatchNormGELUDropout) -> bool:
        """Return whether neither batchnorm nor dropout has run since."""
        return self.of_batchnorm is modules.batchnorm._saved and self.of_dropout is modules.dropout._saved

    def __call__(self) -> Array:
        """Make the array, for a backward pass of GELU by itself."""
        return self.batchnorm.normalized_again(self.of_batchnorm)


def fused(modules: Iterable[Module]) -> list[Any]:
    """Return the modules in their order, three that one op can run as a BatchNormGELUDropout.

    A subclass may do anything, and so may a module whose methods were replaced: these run by themselves.
    """
    found: list[Any] = []
    for module in modules:
        found.append(module)
        three = found[-3:]
        if [type(each) for each in three] == [BatchNorm1d, GELU, Dropout] and all(map(_is_plain, three)):
            batchnorm, gelu, dropout = three
            if batchnorm.place is gelu.place is dropout.place:
                found[-3:] = [BatchNormGELUDropout(batchnorm, gelu, dropout)]
    return found


def _is_plain(module: Module) -> bool:
    return vars(module).keys().isdisjoint(("forward", "backward"))
