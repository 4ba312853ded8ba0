"""The sum of two arrays, element by element."""

import numpy as np

from fastmlp.ops.contract import contract, floats, out

Array = np.ndarray


@contract(a=floats("..."), b=floats("..."), y=out("..."))
def add(a: Array, b: Array, y: Array, *, threads: int = 1) -> None:
    """y = a + b, for arrays of any one shape; y may be a or b. The gradient of each is that of y."""
    np.add(a, b, out=y)
