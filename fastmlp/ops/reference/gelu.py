"""gelu, element by element."""

import math

import numpy as np

from fastmlp.ops.contract import contract, floats, out

Array = np.ndarray
erfc = np.vectorize(math.erfc, otypes=[np.float64])
ONLY_ZEROS = 40  # beyond it the normal curve and its tail are 0, in float64 too


@contract(x=floats("..."), y=out("..."))
def gelu_forward(x: Array, y: Array, *, threads: int = 1) -> None:
    """y = x Phi(x), for arrays of any one shape; y may be x.

    Phi(x) = (1 + erf(x / sqrt 2)) / 2 is the normal distribution's; of -infinity y is 0.
    Source: Hendrycks and Gimpel (2016), the exact form.
    """
    np.multiply(np.maximum(x, np.finfo(x.dtype).min), _cdf(x), out=y)


@contract(dy=floats("..."), x=floats("..."), dx=out("..."))
def gelu_backward(dy: Array, x: Array, dx: Array, *, threads: int = 1) -> None:
    """dx = dy (Phi(x) + x phi(x)), from the forward pass's input x, for arrays of any one shape; dx may be dy or x.

    phi(x) = exp(-x^2 / 2) / sqrt(2 pi) is the density of the normal distribution.
    """
    near = np.clip(x, -ONLY_ZEROS, ONLY_ZEROS)
    np.multiply(dy, _cdf(x) + near * np.exp(-near * near / 2) / math.sqrt(2 * math.pi), out=dx)


def _cdf(x: Array) -> Array:
    """Phi(x), by the complement of erf: exact to the last digits far below 0 too."""
    tail: Array = erfc(-x.astype(np.float64) / math.sqrt(2))
    return (tail / 2).astype(x.dtype)
