"""Numbers left out at random."""

import numpy as np

from fastmlp.arrays import NUMBERS, WHOLE, ArrayLike, float_array, hand_over, place_for
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._shapes import threads_for
from fastmlp.ops.backend import ops_of

__all__ = ["dropout", "dropout_backward"]

Array = np.ndarray


@takes_float16
def dropout(
    input: ArrayLike,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    seed: int | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Each number is 0 with probability p and else divided by 1 - p; when not training, nothing happens to it.

    input     (...)  x
    p         a probability from 0 to 1, which holds to within 2^-17
    training  whether to leave anything out
    inplace   the result is written over the input
    seed      an int64, from which the mask follows; None: a new one each time. dropout_backward needs it
    out       (...)  it may be the input
    Returns (...).
    Source: torch.nn.functional.dropout; the mask is not PyTorch's.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.dropout(np.ones(6, np.float32), seed=7)
    array([0., 2., 2., 2., 2., 0.], dtype=float32)
    """
    if inplace and out is not None:
        raise ValueError("dropout: out: expected None where inplace is True")
    x, out = float_array("dropout", "input", input), input if inplace else out
    y = x if out is x else place_for("dropout", out, x.shape, x.dtype, x)
    _masked("dropout", x, y, p, training, new_seed() if seed is None else seed, threads)
    return hand_over(y, out)


@takes_float16
def dropout_backward(
    grad: ArrayLike, p: float = 0.5, training: bool = True, *, seed: int, threads: int | None = None
) -> Array:
    """dx = dy / (1 - p) where dropout kept x, else 0.

    grad         (...)  dy, the gradient of dropout's output
    p, training  as dropout took them
    seed         that of dropout: the mask is made again from it
    Returns dinput (...).
    Source: torch.nn.functional.dropout, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.dropout_backward(np.ones(6, np.float32), seed=7)
    array([0., 2., 2., 2., 2., 0.], dtype=float32)
    """
    dy = float_array("dropout_backward", "grad", grad)
    dx = np.empty(dy.shape, dy.dtype)
    _masked("dropout_backward", dy, dx, p, training, seed, threads)
    return dx


def new_seed() -> int:
    return int(np.random.default_rng().integers(2**63))


def _masked(name: str, x: Array, y: Array, p: float, training: bool, seed: int, threads: int | None) -> None:
    if not isinstance(p, NUMBERS) or not 0 <= p <= 1:
        raise ValueError(f"{name}: p: expected a probability from 0 to 1, got {p!r}")
    if not isinstance(seed, WHOLE) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"{name}: seed: expected a whole number of 64 bits with its sign, got {seed!r}")
    if training and p == 1:
        y[...] = 0
        return
    counter, share = np.array([seed, 0], np.int64), float(p) if training else 0.0
    ops_of(x.dtype).dropout_forward(x, counter, y, layer=0, p=share, threads=threads_for(threads, x.size // 4))
