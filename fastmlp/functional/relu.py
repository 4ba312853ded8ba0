"""The activation relu."""

import numpy as np

from fastmlp.arrays import ArrayLike, float_array, hand_over, place_for, upstream_gradient
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._shapes import threads_for

__all__ = ["relu", "relu_backward"]

Array = np.ndarray


@takes_float16
def relu(input: ArrayLike, inplace: bool = False, *, out: ArrayLike | None = None, threads: int | None = None) -> Array:
    """max(x, 0), element by element.

    input    (...)  x
    inplace  the result is written over the input
    out      (...)  it may be the input
    threads  no effect: NumPy takes one
    Returns (...).
    Source: torch.nn.functional.relu.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.relu(np.array([-1, 0, 2], np.float32))
    array([0., 0., 2.], dtype=float32)
    """
    if inplace and out is not None:
        raise ValueError("relu: out: expected None where inplace is True")
    x, out = float_array("relu", "input", input), input if inplace else out
    threads_for(threads, 0)
    y = x if out is x else place_for("relu", out, x.shape, x.dtype, x)
    np.maximum(x, 0, out=y)
    return hand_over(y, out)


@takes_float16
def relu_backward(grad: ArrayLike, output: ArrayLike, *, threads: int | None = None) -> Array:
    """dx = dy where y is not 0, else 0.

    grad    (...)  dy, the gradient of relu's output
    output  (...)  y, what relu returned
    Returns dinput (...).
    Source: torch.nn.functional.relu, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.relu_backward(np.array([8, 8], np.float32), np.array([0, 0.5], np.float32))
    array([0., 8.], dtype=float32)
    """
    y = float_array("relu_backward", "output", output)
    threads_for(threads, 0)
    dy = upstream_gradient("relu_backward", "grad", grad, y.shape, y.dtype)
    return np.where(y == 0, y.dtype.type(0), dy)
