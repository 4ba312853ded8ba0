"""softmax and its logarithm, row by row."""

import numpy as np

from fastmlp.ops.contract import contract, floats, out

Array = np.ndarray


@contract(x=floats("B", "V"), y=out("B", "V"))
def softmax_forward(x: Array, y: Array, *, log: bool = False, threads: int = 1) -> None:
    """y = exp(x) / sum exp(x), the sum over each row.

    x  (B, V)  in
    y  (B, V)  out
    log        if True, y is the logarithm of that without its underflow: x - log sum exp(x)
    """
    with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN, as in PyTorch
        np.subtract(x, x.max(axis=1, keepdims=True), out=y)
    if log:
        y -= np.log(np.exp(y).sum(axis=1, keepdims=True))
    else:
        np.exp(y, out=y)
        y /= y.sum(axis=1, keepdims=True)


@contract(dy=floats("B", "V"), y=floats("B", "V"), dx=out("B", "V"))
def softmax_backward(dy: Array, y: Array, dx: Array, *, log: bool = False, threads: int = 1) -> None:
    """dx = y (dy - sum dy y), the sum over each row; of the logarithm dx = dy - exp(y) sum dy.

    dy  (B, V)  in:  gradient of y
    y   (B, V)  in:  output of the forward pass
    dx  (B, V)  out
    """
    if log:
        np.subtract(dy, np.exp(y) * dy.sum(axis=1, keepdims=True), out=dx)
    else:
        np.multiply(y, dy - (dy * y).sum(axis=1, keepdims=True), out=dx)
