"""The activation tanh."""

import numpy as np

from fastmlp.arrays import ArrayLike, float_array, hand_over, place_for, upstream_gradient
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._shapes import CHEAP, threads_for
from fastmlp.ops.backend import ops_of

__all__ = ["tanh", "tanh_backward"]

Array = np.ndarray


@takes_float16
def tanh(input: ArrayLike, *, out: ArrayLike | None = None, threads: int | None = None) -> Array:
    """tanh(x), element by element.

    input  (...)  x
    out    (...)  it may be the input
    Returns (...).
    Source: torch.nn.functional.tanh.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.tanh(np.array([-100, 0, 100], np.float32))
    array([-1.,  0.,  1.], dtype=float32)
    """
    x = float_array("tanh", "input", input)
    y = x if out is x else place_for("tanh", out, x.shape, x.dtype, x)
    ops_of(x.dtype).tanh_forward(x, y, threads=threads_for(threads, x.size // 4))
    return hand_over(y, out)


@takes_float16
def tanh_backward(grad: ArrayLike, output: ArrayLike, *, threads: int | None = None) -> Array:
    """dx = dy (1 - y^2).

    grad    (...)  dy, the gradient of tanh's output
    output  (...)  y, what tanh returned
    Returns dinput (...).
    Source: torch.nn.functional.tanh, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.tanh_backward(np.array([8, 8], np.float32), np.array([0, 0.5], np.float32))
    array([8., 6.], dtype=float32)
    """
    y = float_array("tanh_backward", "output", output)
    dy = upstream_gradient("tanh_backward", "grad", grad, y.shape, y.dtype)
    dx = np.empty(y.shape, y.dtype)
    ops_of(y.dtype).tanh_backward(dy, y, dx, threads=threads_for(threads, y.size // CHEAP))
    return dx
