"""tanh, element by element."""

import numpy as np

from fastmlp.ops.contract import contract, floats, out

Array = np.ndarray


@contract(x=floats("..."), y=out("..."))
def tanh_forward(x: Array, y: Array, *, threads: int = 1) -> None:
    """y = tanh(x), for arrays of any one shape; y may be x."""
    np.tanh(x, out=y)


@contract(dy=floats("..."), y=floats("..."), dx=out("..."))
def tanh_backward(dy: Array, y: Array, dx: Array, *, threads: int = 1) -> None:
    """dx = dy * (1 - y^2), from the forward pass's output y, for arrays of any one shape; dx may be dy."""
    np.multiply(dy, 1 - y * y, out=dx)
