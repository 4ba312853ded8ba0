"""The linear layer."""

import numpy as np

from fastmlp.arrays import ArrayLike, float_array, hand_over, of_shape, place_for, transposed, upstream_gradient
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._shapes import as_rows, empty_like_inputs, threads_for
from fastmlp.ops.backend import ops_of

__all__ = ["linear", "linear_backward"]

Array = np.ndarray


@takes_float16
def linear(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
    fp32_precision: str = "auto",
) -> Array:
    """y = x W^T + b.

    input   (..., I)         x
    weight  (O, I) or (I,)   W
    bias    (O,), or () for a weight of one dimension; None: 0
    out     (..., O) or (...)
    fp32_precision  of the product, as in linear_cross_entropy
    Returns (..., O), or (...) for a weight of one dimension.
    Source: torch.nn.functional.linear.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.linear(np.array([1, 2], np.float32), np.array([[1, 1], [0, 3]], np.float32), np.array([10, 0], np.float32))
    array([13.,  6.], dtype=float32)
    """
    x, w, b = _linear_inputs("linear", input, weight, bias)
    y = place_for("linear", out, x.shape[:-1] + w.shape[:-1], x.dtype, x, w, b)
    rows, matrix = as_rows(x), as_rows(w)
    ops_of(x.dtype).linear_forward(
        rows,
        matrix,
        None if b is None else b.ravel(),
        y.reshape(len(rows), len(matrix)),
        threads=threads_for(threads, max(x.size, w.size)),
        fp32_precision=fp32_precision,
    )
    return hand_over(y, out)


@takes_float16
def linear_backward(
    grad: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    threads: int | None = None,
    fp32_precision: str = "auto",
) -> tuple[Array, Array, Array | None]:
    """dx = dy W, dW = dy^T x, db = the sum of dy over all but its last axis.

    grad                 (..., O) or (...)  dy, the gradient of linear's output
    input, weight, bias, fp32_precision  those of linear
    Returns (dinput, dweight, dbias), shaped as those; dbias is None where bias is.
    Source: torch.nn.functional.linear, its gradients.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> x, weight = np.array([[1, 2]], np.float32), np.array([[1, 1], [0, 3]], np.float32)
    >>> dx, dweight, dbias = F.linear_backward(np.array([[1, 10]], np.float32), x, weight)
    >>> dx, dweight
    (array([[ 1., 31.]], dtype=float32), array([[ 1.,  2.],
           [10., 20.]], dtype=float32))
    """
    x, w, b = _linear_inputs("linear_backward", input, weight, bias)
    dy = upstream_gradient("linear_backward", "grad", grad, x.shape[:-1] + w.shape[:-1], x.dtype)
    rows, matrix = as_rows(x), as_rows(w)
    dx, dw, db = empty_like_inputs(x, w, b)
    ops_of(x.dtype).linear_backward(
        dy.reshape(len(rows), len(matrix)),
        rows,
        matrix,
        dx.reshape(rows.shape),
        dw.reshape(matrix.shape),
        None if db is None else db.ravel(),
        threads=threads_for(threads, max(x.size, w.size)),
        fp32_precision=fp32_precision,
    )
    return dx, dw, db


def _linear_inputs(
    name: str, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None
) -> tuple[Array, Array, Array | None]:
    x = float_array(name, "input", input)
    w = float_array(name, "weight", weight, x.dtype)
    if x.ndim < 1:
        raise ValueError(f"{name}: input: expected shape (..., I), got ()")
    if w.ndim not in (1, 2) or w.shape[-1] != x.shape[-1]:
        wanted, hint = f"(O, I) or (I,) with I = {x.shape[-1]}", transposed(w, ("any", x.shape[-1]))
        raise ValueError(f"{name}: weight: expected shape {wanted}, got {w.shape}{hint}")
    if bias is None:
        return x, w, None
    return x, w, of_shape(name, "bias", float_array(name, "bias", bias, x.dtype), w.shape[:-1])
