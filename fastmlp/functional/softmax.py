"""softmax and log_softmax."""

import warnings
from typing import Any

import numpy as np

from fastmlp.arrays import (
    WHOLE,
    ArrayLike,
    float_array,
    float_type,
    hand_over,
    lent_array,
    place_for,
    upstream_gradient,
)
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._shapes import axis_back, axis_last, threads_for
from fastmlp.ops.backend import ops_of

__all__ = ["log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]

Array = np.ndarray


@takes_float16
def softmax(
    input: ArrayLike,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: Any = None,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """exp(x) / sum exp(x), over one axis.

    input  (...)  x; -inf gives 0
    dim    the axis; None: PyTorch's choice, with its warning: 0 of no, one or three axes, else 1
    dtype  float32 or float64: the input, of any real type, is first converted to it
    out    (...)
    Returns (...). Raises IndexError for a dim that the input does not have.
    Source: torch.nn.functional.softmax.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.softmax(np.array([0, 0, -np.inf, 0, 0], np.float32), dim=-1)
    array([0.25, 0.25, 0.  , 0.25, 0.25], dtype=float32)
    """
    x, axis = _softmax_inputs("softmax", input, dim, _stacklevel, dtype)
    return _along("softmax", x, axis, out, threads_for(threads, x.size))


@takes_float16
def log_softmax(
    input: ArrayLike,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: Any = None,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """x - log sum exp(x), over one axis: the logarithm of softmax, without its underflow.

    The arguments are softmax's. Returns (...).
    Source: torch.nn.functional.log_softmax.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.log_softmax(np.array([0, -1000], np.float32), dim=0)
    array([    0., -1000.], dtype=float32)
    """
    x, axis = _softmax_inputs("log_softmax", input, dim, _stacklevel, dtype)
    return _along("log_softmax", x, axis, out, threads_for(threads, x.size))


@takes_float16
def softmax_backward(
    grad: ArrayLike, output: ArrayLike, dim: int | None = None, *, threads: int | None = None
) -> Array:
    """dx = y (dy - sum dy y), the sum over the axis `dim`.

    grad    (...)  dy, the gradient of softmax's output
    output  (...)  y, what softmax returned
    dim     the axis of the sum; None: the default of the forward function, without its warning
    Returns dinput (...).
    Source: torch.nn.functional.softmax, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.softmax_backward(np.array([1, 0], np.float32), np.array([0.5, 0.5], np.float32))
    array([ 0.25, -0.25], dtype=float32)
    """
    return _softmax_backward("softmax_backward", grad, output, dim, threads)


@takes_float16
def log_softmax_backward(
    grad: ArrayLike, output: ArrayLike, dim: int | None = None, *, threads: int | None = None
) -> Array:
    """dx = dy - exp(y) sum dy, the sum over the axis `dim`.

    grad    (...)  dy, the gradient of log_softmax's output
    output  (...)  y, what log_softmax returned
    dim     the axis of the sum; None: the default of the forward function, without its warning
    Returns dinput (...).
    Source: torch.nn.functional.log_softmax, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.log_softmax_backward(np.array([1, 0], np.float32), np.log(np.array([0.5, 0.5], np.float32)))
    array([ 0.5, -0.5], dtype=float32)
    """
    return _softmax_backward("log_softmax_backward", grad, output, dim, threads)


def _softmax_inputs(name: str, input: ArrayLike, dim: int | None, stacklevel: int, dtype: Any) -> tuple[Array, int]:
    if dtype is None:
        x = float_array(name, "input", input)
    else:
        wanted, given = float_type(dtype, f"{name}: dtype"), lent_array(name, "input", input)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"{name}: input: expected real numbers, got {given.dtype}")
        x = np.require(given, wanted, ["C", "A"])
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X.",
            stacklevel=stacklevel + 1,  # the frame of takes_float16
        )
    return x, _axis(name, dim, x)


def _axis(name: str, dim: int | None, x: Array) -> int:
    """Return `dim` as an index from 0, for None PyTorch's choice; a scalar is treated as one axis of one number."""
    axes = max(x.ndim, 1)
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
    if not isinstance(dim, WHOLE):
        raise TypeError(f"{name}: dim: expected an integer, got {dim!r}")
    if not -axes <= dim < axes:
        raise IndexError(f"{name}: dim: expected an axis in [{-axes}, {axes}), got {dim}")
    return dim % axes


def _along(name: str, x: Array, axis: int, out: ArrayLike | None, threads: int) -> Array:
    """Compute softmax or log_softmax along an axis."""
    y = place_for(name, out, x.shape, x.dtype, x)
    if x.size:
        rows, last = axis_last(x, axis), axis >= x.ndim - 1
        result = y.reshape(rows.shape) if last else np.empty_like(rows)
        ops_of(x.dtype).softmax_forward(rows, result, log=name == "log_softmax", threads=threads)
        if not last:
            y[...] = axis_back(result, axis, x.shape)
    return hand_over(y, out)


def _softmax_backward(name: str, grad: ArrayLike, output: ArrayLike, dim: int | None, threads: int | None) -> Array:
    y = float_array(name, "output", output)
    dy = upstream_gradient(name, "grad", grad, y.shape, y.dtype)
    axis, threads = _axis(name, dim, y), threads_for(threads, y.size // 4)
    dx = np.empty(y.shape, y.dtype)
    if y.size:
        rows, last = axis_last(y, axis), axis >= y.ndim - 1
        dx_rows = dx.reshape(rows.shape) if last else np.empty_like(rows)
        log = name == "log_softmax_backward"
        ops_of(y.dtype).softmax_backward(axis_last(dy, axis), rows, dx_rows, log=log, threads=threads)
        if not last:
            dx[...] = axis_back(dx_rows, axis, y.shape)
    return dx
