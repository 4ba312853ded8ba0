"""The activation gelu."""

import numpy as np

from fastmlp.arrays import ArrayLike, float_array, hand_over, place_for, upstream_gradient
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._shapes import threads_for
from fastmlp.ops.backend import ops_of

__all__ = ["gelu", "gelu_backward"]

Array = np.ndarray


@takes_float16
def gelu(
    input: ArrayLike, *, approximate: str = "none", out: ArrayLike | None = None, threads: int | None = None
) -> Array:
    """x Phi(x), element by element, with the normal distribution Phi.

    input        (...)  x
    approximate  "none": the exact form
    out          (...)  it may be the input
    Returns (...). Raises NotImplementedError for the approximation "tanh".
    Source: torch.nn.functional.gelu.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.gelu(np.array([0, 100], np.float32))
    array([  0., 100.], dtype=float32)
    """
    _check("gelu", approximate)
    x = float_array("gelu", "input", input)
    y = x if out is x else place_for("gelu", out, x.shape, x.dtype, x)
    ops_of(x.dtype).gelu_forward(x, y, threads=threads_for(threads, x.size // 4))
    return hand_over(y, out)


@takes_float16
def gelu_backward(grad: ArrayLike, input: ArrayLike, *, approximate: str = "none", threads: int | None = None) -> Array:
    """dx = dy (Phi(x) + x phi(x)), with the normal distribution Phi and its density phi.

    grad         (...)  dy, the gradient of gelu's output
    input        (...)  x, as gelu took it
    approximate  "none": the exact form
    Returns dinput (...). Raises NotImplementedError for the approximation "tanh".
    Source: torch.nn.functional.gelu, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.gelu_backward(np.array([8, 8], np.float32), np.array([0, 100], np.float32))
    array([4., 8.], dtype=float32)
    """
    _check("gelu_backward", approximate)
    x = float_array("gelu_backward", "input", input)
    dy = upstream_gradient("gelu_backward", "grad", grad, x.shape, x.dtype)
    dx = np.empty(x.shape, x.dtype)
    ops_of(x.dtype).gelu_backward(dy, x, dx, threads=threads_for(threads, x.size // 4))
    return dx


def _check(name: str, approximate: str) -> None:
    if approximate == "tanh":
        raise NotImplementedError(f"{name}: approximate: expected 'none', got 'tanh'")
    if approximate != "none":
        raise ValueError(f"{name}: approximate: expected 'none', got {approximate!r}")
