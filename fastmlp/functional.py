"""The layers and the loss of the network as functions of arrays, with the names of torch.nn.functional.

    logits = F.linear(h, weight, bias)                                # import fastmlp.functional as F
    loss = F.cross_entropy(logits, target)
    dlogits = F.cross_entropy_backward(1.0, logits, target)           # 1.0: the gradient of the loss itself
    dh, dweight, dbias = F.linear_backward(dlogits, h, weight, bias)

Arguments, their order, defaults and meaning are those of PyTorch 2.13; what it has and this has not is refused with
NotImplementedError. There is no tape: `<name>_backward` takes the gradient of what `<name>` returned, then what it took
(tanh, softmax and log_softmax: its output), and returns the gradients of the differentiable inputs in their order, None
for those that were None.

Arrays      NumPy arrays, or what gives its memory without a copy: DLPack (CPU tensors of PyTorch), the buffer protocol.
            Of any layout and byte order, read-only ones too; not C-contiguous ones are copied, for the call.
float32     runs the kernels: the best back-end that there is (fastmlp.backend), chosen at the first call, which warns
            where that is not the fastest.
float64     runs the reference in NumPy, exact and slow.
float16     is converted to float32, and so are the results. Other types are no floats here, and all floats of a call
            must be of one type.
Integers    of any type are ids and classes; int32 and int64 are taken as they are.
`out=`      an array of the result's shape and type, of any layout; it may overlap the inputs. Then it is what returns.
`threads=`  how many may work; None: FASTMLP_NUM_THREADS, else the cores that the process may use. No bit depends on it.

Every function raises TypeError for a wrong type, ValueError for a wrong shape or option, IndexError for an id out of
range, each with the function's and the argument's name, what was expected and what came.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastmlp import _loss
from fastmlp._arrays import float_type, refuse_mask
from fastmlp.backend import ops_of
from fastmlp.threads import default_threads

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "embedding",
    "embedding_backward",
    "linear",
    "linear_backward",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "log_softmax",
    "log_softmax_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
]

Array = np.ndarray
ArrayLike = Any  # an array, or what gives its memory without a copy
DType = np.dtype[Any]
Shape = tuple[int, ...]

FLOAT16, FLOAT32, FLOAT64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
INTEGERS, NUMBERS = (int, np.integer), (int, float, np.integer, np.floating)
INT32, INT64 = np.dtype(np.int32), np.dtype(np.int64)
FEW = 32  # numbers that Python has added up before NumPy begins to
SMALL = 1 << 12  # numbers that no kernel shares out
CHEAP = 64  # times as many numbers of three flops each are over before a second thread is awake
CACHED = 1 << 18  # numbers of an array that NumPy passes over several times while they are in the cache

# ---------------------------------------------------------------------------------------------------------- embedding


def embedding(
    input: ArrayLike,
    weight: ArrayLike,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Look up rows of a table: weight[input].

    input               (...)     ids, 0 <= id < V
    weight              (V, D)    one row a word
    padding_idx         an id, from the end if negative, whose row gets no gradient: see embedding_backward
    scale_grad_by_freq  likewise of no meaning here
    out                 (..., D)
    Returns (..., D). Raises IndexError for an id out of range, NotImplementedError for max_norm and sparse.
    Source: torch.nn.functional.embedding.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.embedding(np.array([[2, 0]]), np.array([[0, 1], [2, 3], [4, 5]], np.float32))
    array([[[4., 5.],
            [0., 1.]]], dtype=float32)
    """
    if max_norm is not None:
        raise NotImplementedError(f"embedding: max_norm: expected None, got {max_norm}")
    if sparse:
        raise NotImplementedError("embedding: sparse: expected False; embedding_backward gives a dense gradient")
    ids, table = _ids("embedding", "input", input), _float("embedding", "weight", weight)
    _check_table("embedding", table, padding_idx)
    width = table.shape[1]
    emb = _place("embedding", out, (*ids.shape, width), table.dtype, ids, table)
    try:
        ops_of(table.dtype).embedding_forward(table, *_batch(ids, emb), threads=_threads(threads, 0))
    except IndexError:
        raise _out_of_range("embedding", "input", ids, len(table)) from None
    return _hand_over(emb, out)


def embedding_backward(
    grad: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    padding_idx: int | None = None,
    scale_grad_by_freq: bool = False,
    *,
    threads: int | None = None,
) -> Array:
    """The gradient of the table: row i is the sum of `grad` over all places where the id is i.

    grad                (..., D)  gradient of embedding's output
    input, weight       as embedding took them
    padding_idx         an id whose row gets no gradient
    scale_grad_by_freq  divide each row by how often its id comes
    Returns dweight (V, D), 0 where no id is.
    Source: torch.nn.functional.embedding, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.embedding_backward(np.ones((3, 2), np.float32), np.array([2, 0, 2]), np.zeros((3, 2), np.float32))
    array([[1., 1.],
           [0., 0.],
           [2., 2.]], dtype=float32)
    """
    name = "embedding_backward"
    ids, table = _ids(name, "input", input), _float(name, "weight", weight)
    _check_table(name, table, padding_idx)
    demb = _gradient(name, "grad", grad, (*ids.shape, table.shape[1]), table.dtype)
    words, width = table.shape
    rows, drows = np.empty(ids.size, ids.dtype), np.empty((ids.size, width), table.dtype)
    try:
        unique = ops_of(table.dtype).embedding_backward(
            *_batch(ids, demb), rows, drows, threads=_threads(threads, drows.size)
        )
    except IndexError:  # below 0
        raise _out_of_range(name, "input", ids, words) from None
    rows, drows = rows[:unique], drows[:unique]
    if unique and rows[-1] >= words:  # they are in order
        raise _out_of_range(name, "input", ids, words)
    if scale_grad_by_freq:
        drows /= np.unique(ids, return_counts=True)[1][:, None].astype(table.dtype)
    dweight = np.zeros(table.shape, table.dtype)
    dweight[rows] = drows
    if padding_idx is not None:
        dweight[padding_idx] = 0
    return dweight


def _batch(ids: Array, emb: Array) -> tuple[Array, Array]:
    """ids as (B, T), their embedding as (B, T, D)."""
    return (ids, emb) if ids.ndim == 2 else (ids.reshape(1, ids.size), emb.reshape(1, ids.size, emb.shape[-1]))


def _check_table(name: str, table: Array, padding_idx: int | None) -> None:
    if table.ndim != 2:
        raise ValueError(f"{name}: weight: expected shape (V, D), got {table.shape}")
    words = len(table)
    if padding_idx is not None and not isinstance(padding_idx, INTEGERS):
        raise TypeError(f"{name}: padding_idx: expected None or an id, got {padding_idx!r}")
    if padding_idx is not None and not -words <= padding_idx < words:
        raise ValueError(f"{name}: padding_idx: expected None or an id in [{-words}, {words}), got {padding_idx}")


# ------------------------------------------------------------------------------------------------------------- linear


def linear(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """y = x W^T + b.

    input   (..., I)         x
    weight  (O, I) or (I,)   W
    bias    (O,), or () for a weight of one dimension; None: 0
    out     (..., O) or (...)
    Returns (..., O), or (...) for a weight of one dimension.
    Source: torch.nn.functional.linear.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.linear(np.array([1, 2], np.float32), np.array([[1, 1], [0, 3]], np.float32), np.array([10, 0], np.float32))
    array([13.,  6.], dtype=float32)
    """
    x, w, b = _linear_inputs("linear", input, weight, bias)
    y = _place("linear", out, x.shape[:-1] + w.shape[:-1], x.dtype, x, w, b)
    rows, matrix = _rows(x), _rows(w)
    ops_of(x.dtype).linear_forward(
        rows,
        matrix,
        None if b is None else b.ravel(),
        y.reshape(len(rows), len(matrix)),
        threads=_threads(threads, max(x.size, w.size)),
    )
    return _hand_over(y, out)


def linear_backward(
    grad: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    threads: int | None = None,
) -> tuple[Array, Array, Array | None]:
    """dx = dy W, dW = dy^T x, db = the sum of dy over all but its last axis.

    grad                 (..., O) or (...)  dy, the gradient of linear's output
    input, weight, bias  as linear took them
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
    dy = _gradient("linear_backward", "grad", grad, x.shape[:-1] + w.shape[:-1], x.dtype)
    rows, matrix = _rows(x), _rows(w)
    dx, dw, db = _empty(x, w, b)
    ops_of(x.dtype).linear_backward(
        dy.reshape(len(rows), len(matrix)),
        rows,
        matrix,
        dx.reshape(rows.shape),
        dw.reshape(matrix.shape),
        None if db is None else db.ravel(),
        threads=_threads(threads, max(x.size, w.size)),
    )
    return dx, dw, db


def _linear_inputs(
    name: str, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None
) -> tuple[Array, Array, Array | None]:
    x = _float(name, "input", input)
    w = _float(name, "weight", weight, x.dtype)
    if x.ndim < 1:
        raise ValueError(f"{name}: input: expected shape (..., I), got ()")
    if w.ndim not in (1, 2) or w.shape[-1] != x.shape[-1]:
        raise ValueError(f"{name}: weight: expected shape (O, I) or (I,) with I = {x.shape[-1]}, got {w.shape}")
    if bias is None:
        return x, w, None
    return x, w, _shaped(name, "bias", _float(name, "bias", bias, x.dtype), w.shape[:-1])


def _empty(x: Array, w: Array, b: Array | None) -> tuple[Array, Array, Array | None]:
    """Places for the gradients of input, weight and bias."""
    dtype = x.dtype
    return np.empty(x.shape, dtype), np.empty(w.shape, dtype), None if b is None else np.empty(b.shape, dtype)


def _rows(x: Array) -> Array:
    """(..., I) as a matrix; (I,) is one row."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


# --------------------------------------------------------------------------------------------------------- batch norm


def batch_norm(
    input: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Normalize each channel over all other axes, then scale and shift: (x - mean) / sqrt(var + eps) * weight + bias.

    input         (N, C) or (N, C, ...)  the latter is copied so that the channels come last
    running_mean  (C,)  in training it moves towards the input's mean by `momentum`, in place; else it is the mean
    running_var   (C,)  likewise, with the unbiased variance; to normalize, training takes the biased one
    weight, bias  (C,)  None: 1, 0
    training      with the input's statistics; then running_mean and running_var may both be None
    momentum      the share of the running statistics that is new
    out           (N, C) or (N, C, ...)
    Returns the input's shape. In training running_mean and running_var must be writeable; ValueError for one value a
    channel, whose variance says nothing. An empty input leaves them alone.
    Source: Ioffe and Szegedy (2015); torch.nn.functional.batch_norm.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> running_mean, running_var = np.zeros(1, np.float32), np.ones(1, np.float32)
    >>> F.batch_norm(np.array([[1], [3]], np.float32), running_mean, running_var, training=True).round(3)
    array([[-1.],
           [ 1.]], dtype=float32)
    >>> running_mean, running_var
    (array([0.2], dtype=float32), array([1.1], dtype=float32))
    """
    name = "batch_norm"
    x, mean, var, w, b = _batch_norm_inputs(name, input, running_mean, running_var, weight, bias, training, eps)
    momentum = float(_number(name, "momentum", momentum))
    y = _place(name, out, x.shape, x.dtype, x, mean, var, w, b)
    if not x.size:
        return _hand_over(y, out)
    own_mean, own_var = _own(mean, x, 0), _own(var, x, 1)  # the op writes into both
    rows = _channels_last(x)
    normalized = y if x.ndim == 2 else np.empty_like(rows)
    ops_of(x.dtype).batchnorm_forward(
        rows,
        np.ones(rows.shape[1], x.dtype) if w is None else w,
        np.zeros(rows.shape[1], x.dtype) if b is None else b,
        own_mean,
        own_var,
        np.empty(rows.shape[1], x.dtype),
        np.empty(rows.shape[1], x.dtype),
        normalized,
        training=bool(training),
        momentum=momentum,
        eps=eps,
        threads=_threads(threads, x.size),
    )
    if training and mean is not None and own_mean is not mean:
        mean[...] = own_mean
    if training and var is not None and own_var is not var:
        var[...] = own_var
    if normalized is not y:
        y[...] = _channels_second(normalized, x.shape)
    return _hand_over(y, out)


def batch_norm_backward(
    grad: ArrayLike,
    input: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    threads: int | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """The gradients of batch_norm. In training its statistics depend on the input, and are computed again.

    grad  the input's shape  gradient of batch_norm's output
    The rest is as batch_norm took it; running_mean and running_var are read where not training, and never written, so
    that momentum is of no meaning here.
    Returns (dinput, dweight, dbias); dweight and dbias are None where weight and bias are.
    Source: Ioffe and Szegedy (2015); torch.nn.functional.batch_norm, its gradients.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> x, weight, bias = np.array([[1], [3]], np.float32), np.ones(1, np.float32), np.zeros(1, np.float32)
    >>> dx, dweight, dbias = F.batch_norm_backward(
    ...     np.array([[1], [0]], np.float32), x, None, None, weight, bias, training=True
    ... )
    >>> dweight.round(3), dbias
    (array([-1.], dtype=float32), array([1.], dtype=float32))
    """
    name = "batch_norm_backward"
    x, mean, var, w, b = _batch_norm_inputs(name, input, running_mean, running_var, weight, bias, training, eps, False)
    dy = _gradient(name, "grad", grad, x.shape, x.dtype)
    channels, dtype, ops, threads = x.shape[1], x.dtype, ops_of(x.dtype), _threads(threads, x.size)
    dx, dw, db = np.empty(x.shape, dtype), np.zeros(channels, dtype), np.zeros(channels, dtype)
    if x.size:
        rows, drows = _channels_last(x), _channels_last(dy)
        into = dx if x.ndim == 2 else np.empty_like(rows)
        scale = np.ones(channels, dtype) if w is None else w
        if training:
            batch_mean, inv_std = np.empty(channels, dtype), np.empty(channels, dtype)
            ops.batchnorm_forward(  # its other outputs are not wanted
                rows, scale, scale, db, dw, batch_mean, inv_std, into, eps=eps, threads=threads
            )
        else:
            batch_mean = _own(mean, x, 0)
            inv_std = (1 / np.sqrt(_own(var, x, 1) + np.float64(eps))).astype(dtype)
        ops.batchnorm_backward(
            drows, rows, scale, batch_mean, inv_std, into, dw, db, training=bool(training), threads=threads
        )
        if into is not dx:
            dx[...] = _channels_second(into, x.shape)
    return dx, None if w is None else dw, None if b is None else db


def _batch_norm_inputs(
    name: str,
    input: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    training: bool,
    eps: float,
    written: bool = True,
) -> tuple[Array, Array | None, Array | None, Array | None, Array | None]:
    """Input, running mean and variance, weight and bias; the running ones where they lie, not copied."""
    x = _float(name, "input", input)
    if x.ndim < 2:
        raise ValueError(f"{name}: input: expected shape (N, C) or (N, C, ...), got {x.shape}")
    channels = (x.shape[1],)
    if training and x.size == x.shape[1] > 0:
        raise ValueError(f"{name}: input: expected more than 1 value a channel to train on, got shape {x.shape}")
    _number(name, "eps", eps)
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"{name}: eps: expected {'a number above' if training else 'at least'} 0, got {eps}")
    written = training and written
    mean = _statistic(name, "running_mean", running_mean, x, training, written)
    var = _statistic(name, "running_var", running_var, x, training, written)
    if (mean is None) != (var is None):
        raise ValueError(f"{name}: running_mean, running_var: expected both or neither, got one")
    w = None if weight is None else _shaped(name, "weight", _float(name, "weight", weight, x.dtype), channels)
    b = None if bias is None else _shaped(name, "bias", _float(name, "bias", bias, x.dtype), channels)
    return x, mean, var, w, b


def _statistic(
    name: str, argument: str, given: ArrayLike | None, x: Array, training: bool, written: bool
) -> Array | None:
    """A running statistic where it lies."""
    if given is None:
        if not training:
            raise ValueError(f"{name}: {argument}: expected shape {x.shape[1:2]} where not training, got None")
        return None
    array = _shaped(name, argument, given if type(given) is Array else _array(name, argument, given), x.shape[1:2])
    if array.dtype.newbyteorder("=") != x.dtype:
        raise TypeError(f"{name}: {argument}: expected {x.dtype}, as the other floats are, got {array.dtype}")
    if written and not array.flags.writeable:
        raise ValueError(f"{name}: {argument}: expected a writeable array, got a read-only one")
    return array


def _own(statistic: Array | None, x: Array, otherwise: float) -> Array:
    """A running statistic as the op can write it, the array itself if possible; a number for each channel if None."""
    if statistic is None:
        return np.full(x.shape[1], otherwise, x.dtype)
    return statistic if statistic.flags.carray and statistic.dtype == x.dtype else np.array(statistic, x.dtype)


def _channels_last(x: Array) -> Array:
    """(N, C, ...) as a matrix (rows, C)."""
    return x if x.ndim == 2 else np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])


def _channels_second(rows: Array, shape: Shape) -> Array:
    """The same the other way: a view of shape (N, C, ...)."""
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


# --------------------------------------------------------------------------------------------------------------- tanh


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
    x = _float("tanh", "input", input)
    y = x if out is x else _place("tanh", out, x.shape, x.dtype, x)
    ops_of(x.dtype).tanh_forward(x, y, threads=_threads(threads, x.size // 4))
    return _hand_over(y, out)


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
    y = _float("tanh_backward", "output", output)
    dy = _gradient("tanh_backward", "grad", grad, y.shape, y.dtype)
    dx = np.empty(y.shape, y.dtype)
    ops_of(y.dtype).tanh_backward(dy, y, dx, threads=_threads(threads, y.size // CHEAP))
    return dx


# ------------------------------------------------------------------------------------------------------------ softmax


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
    dtype  float32 or float64: what the input, of any real type, is converted to first
    out    (...)
    Returns (...). Raises IndexError for a dim that the input has not.
    Source: torch.nn.functional.softmax.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.softmax(np.array([0, 0, -np.inf, 0, 0], np.float32), dim=-1)
    array([0.25, 0.25, 0.  , 0.25, 0.25], dtype=float32)
    """
    x, axis = _softmax_inputs("softmax", input, dim, _stacklevel, dtype)
    return _along("softmax", x, axis, out, _threads(threads, x.size))


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
    return _along("log_softmax", x, axis, out, _threads(threads, x.size))


def softmax_backward(
    grad: ArrayLike, output: ArrayLike, dim: int | None = None, *, threads: int | None = None
) -> Array:
    """dx = y (dy - sum dy y), the sum over the axis `dim`.

    grad    (...)  dy, the gradient of softmax's output
    output  (...)  y, what softmax returned
    dim     the axis over which it went; None: the one that it takes then, without its warning
    Returns dinput (...).
    Source: torch.nn.functional.softmax, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.softmax_backward(np.array([1, 0], np.float32), np.array([0.5, 0.5], np.float32))
    array([ 0.25, -0.25], dtype=float32)
    """
    return _softmax_backward("softmax_backward", grad, output, dim, threads)


def log_softmax_backward(
    grad: ArrayLike, output: ArrayLike, dim: int | None = None, *, threads: int | None = None
) -> Array:
    """dx = dy - exp(y) sum dy, the sum over the axis `dim`.

    grad    (...)  dy, the gradient of log_softmax's output
    output  (...)  y, what log_softmax returned
    dim     the axis over which it went; None: the one that it takes then, without its warning
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
        x = _float(name, "input", input)
    else:
        wanted, given = float_type(dtype, f"{name}: dtype"), _array(name, "input", input)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"{name}: input: expected real numbers, got {given.dtype}")
        x = np.require(given, wanted, ["C", "A"])
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X.",
            stacklevel=stacklevel,
        )
    return x, _axis(name, dim, x)


def _axis(name: str, dim: int | None, x: Array) -> int:
    """`dim` from the beginning, PyTorch's choice for None; an array without axes passes for one of a single number."""
    axes = max(x.ndim, 1)
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
    if not isinstance(dim, INTEGERS):
        raise TypeError(f"{name}: dim: expected an integer, got {dim!r}")
    if not -axes <= dim < axes:
        raise IndexError(f"{name}: dim: expected an axis in [{-axes}, {axes}), got {dim}")
    return dim % axes


def _along(name: str, x: Array, axis: int, out: ArrayLike | None, threads: int) -> Array:
    """softmax or log_softmax along an axis."""
    y = _place(name, out, x.shape, x.dtype, x)
    if x.size:
        rows, last = _axis_last(x, axis), axis >= x.ndim - 1
        result = y.reshape(rows.shape) if last else np.empty_like(rows)
        ops_of(x.dtype).softmax_forward(rows, result, log=name == "log_softmax", threads=threads)
        if not last:
            y[...] = _axis_back(result, axis, x.shape)
    return _hand_over(y, out)


def _axis_last(x: Array, axis: int) -> Array:
    """x as a matrix with that axis last."""
    if x.ndim == 2 and axis == 1:
        return x
    if axis < x.ndim - 1:
        x = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    return x.reshape(-1, x.shape[-1] if x.ndim else 1)


def _axis_back(rows: Array, axis: int, shape: Shape) -> Array:
    """The same the other way: a view of that shape."""
    return np.moveaxis(rows.reshape(*shape[:axis], *shape[axis + 1 :], shape[axis]), -1, axis)


def _softmax_backward(name: str, grad: ArrayLike, output: ArrayLike, dim: int | None, threads: int | None) -> Array:
    y = _float(name, "output", output)
    dy = _gradient(name, "grad", grad, y.shape, y.dtype)
    axis, threads = _axis(name, dim, y), _threads(threads, y.size // 4)
    dx = np.empty(y.shape, y.dtype)
    if y.size:
        rows, last = _axis_last(y, axis), axis >= y.ndim - 1
        dx_rows = dx.reshape(rows.shape) if last else np.empty_like(rows)
        log = name == "log_softmax_backward"
        ops_of(y.dtype).softmax_backward(_axis_last(dy, axis), rows, dx_rows, log=log, threads=threads)
        if not last:
            dx[...] = _axis_back(dx_rows, axis, y.shape)
    return dx


def _in_blocks(work: Callable[[int, int], object], x: Array) -> None:
    """Let NumPy pass several times over a few rows of a matrix while they are in the cache.

    On one thread: with two, Python's lock took what the second one gave.
    """
    rows = max(1, CACHED // x.shape[1])
    for first in range(0, len(x), rows):
        work(first, min(first + rows, len(x)))


# ------------------------------------------------------------------------------------------------------ cross entropy


def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """How surprised a model with these logits is by the targets, in nats: -log softmax(input)[target].

    input            (C,), (N, C) or (N, C, d1, ...)  logits of C classes
    target           (), (N,)  or (N, d1, ...)        integers: the true class of each, 0 <= class < C; or
                     the input's shape                floats: the probability of each class
    weight           (C,)  how much each class counts; None: 1
    ignore_index     classes of this number do not count, whatever it is; for probabilities it must be negative
    reduction        "none": a loss for each target; "sum": of them all; "mean": the sum divided by the weights of the
                     targets that count, for probabilities by their number
    label_smoothing  share of each target that is spread over all classes, from 0 to 1
    out              () or for "none" the shape of a target of classes
    Returns the loss, 0-dimensional but for "none". The mean over nothing is NaN.
    Raises IndexError for a class out of range, NotImplementedError for size_average and reduce (deprecated in PyTorch:
    they are `reduction`).
    Source: torch.nn.functional.cross_entropy; label smoothing: Szegedy et al. (2016), section 7.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> logits, target = np.zeros((3, 4), np.float32), np.array([0, 3, -100])
    >>> F.cross_entropy(logits, target)
    array(1.3862944, dtype=float32)
    >>> F.cross_entropy(logits, target, reduction="none")
    array([1.3862944, 1.3862944, 0.       ], dtype=float32)
    """
    name = "cross_entropy"
    if size_average is not None or reduce is not None:
        raise NotImplementedError(
            f"{name}: size_average, reduce: expected None, got {size_average!r}, {reduce!r}; use reduction"
        )
    x, truth, w, shape = _cross_entropy_inputs(name, input, target, weight, reduction, ignore_index, label_smoothing)
    threads, label_smoothing = _threads(threads, x.size), float(label_smoothing)
    loss = _place(name, out, shape if reduction == "none" else (), x.dtype, x, truth, w)
    logits = _classes_last(x)
    total: float
    if truth.dtype.kind == "f":
        losses, total = _losses_of_probabilities(logits, _classes_last(truth), w, label_smoothing, threads)
    else:
        losses, total = _losses_of_classes(name, logits, truth.ravel(), w, ignore_index, label_smoothing, threads)
    _reduce(losses, total, reduction, loss)
    return _hand_over(loss, out)


def cross_entropy_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    threads: int | None = None,
) -> Array:
    """The gradient of the logits: softmax(input) - 1 at the target, times what each target counts.

    grad  the loss's shape, a number where that is ()  gradient of cross_entropy's output
    The rest is as cross_entropy took it. Returns dinput, shaped as input; 0 where the target is ignored.
    Source: torch.nn.functional.cross_entropy, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.cross_entropy_backward(1.0, np.zeros((2, 4), np.float32), np.array([0, -100]))
    array([[-0.75,  0.25,  0.25,  0.25],
           [ 0.  ,  0.  ,  0.  ,  0.  ]], dtype=float32)
    """
    name = "cross_entropy_backward"
    x, truth, w, shape = _cross_entropy_inputs(name, input, target, weight, reduction, ignore_index, label_smoothing)
    threads, label_smoothing = _threads(threads, x.size), float(label_smoothing)
    upstream = _gradient(name, "grad", grad, shape if reduction == "none" else (), x.dtype).ravel()
    logits, mean = _classes_last(x), reduction == "mean"
    if truth.dtype.kind == "f":
        dlogits = _gradient_of_probabilities(upstream, logits, _classes_last(truth), w, mean, label_smoothing, threads)
    else:
        dlogits = _gradient_of_classes(
            name, upstream, logits, truth.ravel(), w, ignore_index, mean, label_smoothing, threads
        )
    if x.ndim < 3:
        return dlogits.reshape(x.shape)
    return np.ascontiguousarray(_axis_back(dlogits, 1, x.shape))


def _cross_entropy_inputs(
    name: str,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array, Array, Array | None, Shape]:
    """Logits, classes or probabilities, class weights, and the shape of the losses."""
    x = _float(name, "input", input)
    if x.ndim < 1 or not x.shape[x.ndim > 1]:
        raise ValueError(
            f"{name}: input: expected shape (C,), (N, C) or (N, C, ...), one class at least, got {x.shape}"
        )
    _loss.check_options(reduction, ignore_index, label_smoothing, where=f"{name}: ")
    truth = target if type(target) is Array else _array(name, "target", target)
    shape = x.shape[:1] * (x.ndim > 1) + x.shape[2:]
    if truth.shape == x.shape:
        if truth.dtype.kind != "f":
            raise TypeError(f"{name}: target: expected probabilities, as its shape is the input's, got {truth.dtype}")
        if ignore_index >= 0:
            raise ValueError(f"{name}: ignore_index: expected a negative one with probabilities, got {ignore_index}")
        truth = _float(name, "target", truth, x.dtype)
    elif truth.shape == shape:
        truth = _ids(name, "target", truth)
    else:
        wanted = f"{shape} for classes or {x.shape} for probabilities"
        raise ValueError(f"{name}: target: expected shape {wanted}, got {truth.shape}")
    if weight is None:
        return x, truth, None, shape
    return x, truth, _class_weight(name, weight, x.dtype, x.shape[x.ndim > 1], truth, ignore_index), shape


def _class_weight(name: str, weight: ArrayLike, dtype: DType, classes: int, truth: Array, ignore_index: int) -> Array:
    """How much each class counts; the classes that do are one of them each, so that their weights can be looked up."""
    counted = truth[truth != ignore_index] if truth.dtype.kind == "i" else truth[:0]
    if counted.size and not (counted.min() >= 0 and counted.max() < classes):
        raise _out_of_range(name, "target", counted, classes)
    return _shaped(name, "weight", _float(name, "weight", weight, dtype), (classes,))


def _classes_last(x: Array) -> Array:
    """(C,), (N, C) or (N, C, ...) as a matrix (rows, C)."""
    return x if x.ndim == 2 else _axis_last(x, min(x.ndim - 1, 1))


# With class weights w and smoothing s a row with the target y has the loss
#
#     (1 - s) w_y (lse - z_y) + s/C sum_c w_c (lse - z_c)
#
# of which the op computes the case w = 1.


def _losses_of_classes(
    name: str,
    logits: Array,
    targets: Array,
    w: Array | None,
    ignore_index: int,
    label_smoothing: float,
    threads: int,
) -> tuple[Array, float]:
    """The losses, and what their mean is to be divided by."""
    counted = targets != ignore_index
    row_scale = counted.astype(logits.dtype)
    highest, log_sum, losses = np.empty((3, len(logits)), logits.dtype)
    smoothing = label_smoothing if w is None else 0.0
    ops = ops_of(logits.dtype)
    outputs = highest, log_sum, losses
    try:
        ops.cross_entropy_forward(logits, targets, row_scale, *outputs, label_smoothing=smoothing, threads=threads)
    except IndexError:
        raise _out_of_range(name, "target", targets[counted], logits.shape[1]) from None
    if w is None:
        return losses, int(np.count_nonzero(counted))
    target_weight = w[np.where(counted, targets, 0)] * row_scale
    losses *= target_weight
    if label_smoothing:
        log_p = np.empty_like(logits)
        ops.softmax_forward(logits, log_p, log=True, threads=threads)
        losses = (1 - label_smoothing) * losses - np.where(counted, label_smoothing / len(w) * (log_p @ w), 0)
    return losses, _sum(target_weight)


def _gradient_of_classes(
    name: str,
    upstream: Array,
    logits: Array,
    targets: Array,
    w: Array | None,
    ignore_index: int,
    mean: bool,
    label_smoothing: float,
    threads: int,
) -> Array:
    counted = targets != ignore_index
    if w is None:
        scale = _row_scale(counted, upstream, int(np.count_nonzero(counted)) if mean else 1, logits.dtype)
        return _dlogits(name, logits, targets, scale, label_smoothing, threads)
    targets = np.where(counted, targets, 0).astype(targets.dtype)
    target_weight = w[targets] * counted
    total = _sum(target_weight) if mean else 1
    scale = _row_scale(counted, upstream, total, logits.dtype)
    if not label_smoothing:
        return _dlogits(name, logits, targets, target_weight * scale, 0.0, threads)
    shares = (label_smoothing / len(w) * w.astype(FLOAT64)).astype(w.dtype)  # s/C w
    of_all = shares.sum()
    row_scale = ((1 - label_smoothing) * target_weight + of_all) * scale
    dlogits = _dlogits(name, logits, targets, row_scale, 0.0, threads)
    dlogits[np.arange(len(targets)), targets] += of_all * scale
    dlogits -= scale[:, None] * shares
    return dlogits


def _dlogits(name: str, logits: Array, targets: Array, row_scale: Array, label_smoothing: float, threads: int) -> Array:
    dlogits = np.empty(logits.shape, logits.dtype)
    arguments = (logits, targets, row_scale, *np.empty((3, len(logits)), logits.dtype), dlogits)
    try:
        ops_of(logits.dtype).cross_entropy(*arguments, label_smoothing=label_smoothing, threads=threads)
    except IndexError:
        raise _out_of_range(name, "target", targets[row_scale != 0], logits.shape[1]) from None
    return dlogits


def _row_scale(counted: Array, upstream: Array, total: float, dtype: DType) -> Array:
    """The gradient of the total with respect to each row's loss: 0 where it does not count."""
    scale = np.zeros(len(counted), dtype)
    each = upstream.item() if upstream.size == 1 else upstream
    np.putmask(scale, counted, each * (1 / total if total else math.nan))
    return scale


def _reduce(losses: Array, total: float, reduction: str, loss: Array) -> None:
    """loss = the losses, their sum or their mean, which is their sum divided by `total`."""
    if reduction == "none":
        loss[...] = losses.reshape(loss.shape)
    elif reduction == "sum":
        loss[...] = _sum(losses)
    else:
        loss[...] = _sum(losses) / total if total else math.nan


def _sum(x: Array) -> float:
    """In float64."""
    return sum(x.tolist()) if x.size <= FEW else float(np.add.reduce(x, dtype=FLOAT64))


def _weighted_truth(truth: Array, w: Array | None, label_smoothing: float) -> Array:
    """What each class's -log p counts."""
    if label_smoothing:
        truth = truth * (1 - label_smoothing) + label_smoothing / truth.shape[1]
    return truth if w is None else truth * w


def _losses_of_probabilities(
    logits: Array, truth: Array, w: Array | None, label_smoothing: float, threads: int
) -> tuple[Array, int]:
    losses, log_p = np.empty(len(logits), logits.dtype), np.empty_like(logits)
    ops_of(logits.dtype).softmax_forward(logits, log_p, log=True, threads=threads)

    def block(first: int, last: int) -> None:
        with np.errstate(invalid="ignore"):  # 0 times infinity: NaN, as in PyTorch
            log_p[first:last] *= _weighted_truth(truth[first:last], w, label_smoothing)
        np.negative(log_p[first:last].sum(axis=1), out=losses[first:last])

    _in_blocks(block, logits)
    return losses, len(logits)


def _gradient_of_probabilities(
    upstream: Array,
    logits: Array,
    truth: Array,
    w: Array | None,
    mean: bool,
    label_smoothing: float,
    threads: int,
) -> Array:
    """scale * (sum(t) p - t), where t is what each class's -log p counts."""
    dlogits = np.empty_like(logits)
    ops_of(logits.dtype).softmax_forward(logits, dlogits, threads=threads)
    scale = np.broadcast_to(upstream / max(len(logits), 1) if mean else upstream, len(logits))[:, None]

    def block(first: int, last: int) -> None:
        counts = _weighted_truth(truth[first:last], w, label_smoothing)
        dlogits[first:last] *= counts.sum(axis=1, keepdims=True)
        dlogits[first:last] -= counts
        dlogits[first:last] *= scale[first:last]

    _in_blocks(block, logits)
    return dlogits


# ----------------------------------------------------------------------------------------------- linear cross entropy


def linear_cross_entropy(
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
    fp32_precision: str = "auto",
) -> Array:
    """cross_entropy(linear(input, linear_weight, linear_bias), target), without an array of all the logits.

    input            (N, H) or (H,)
    linear_weight    (V, H)
    target           (N,) or ()  the true classes, 0 <= class < V
    linear_bias      (V,)        None: 0
    weight           (V,)        how much each class counts; None: 1
    reduction, label_smoothing   as in cross_entropy
    ignore_index     as there; None: -100
    out              () or for "none" the target's shape
    fp32_precision   how the products are made: "ieee", which is "auto", in float32; "bf16x3" of numbers split in two
                     bf16, up to 1e-5 off; "bf16" of numbers rounded to bf16; these two where the CPU has them
    Returns the loss, 0-dimensional but for "none".
    Raises NotImplementedError for probabilities as targets, weights of more than two dimensions and `options`.
    Source: torch.nn.functional.linear_cross_entropy.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> h, weight = np.ones((2, 3), np.float32), np.zeros((4, 3), np.float32)
    >>> F.linear_cross_entropy(h, weight, np.array([0, 3]))
    array(1.3862944, dtype=float32)
    """
    name = "linear_cross_entropy"
    h, w, targets, b, class_weight, ignored = _linear_cross_entropy_inputs(
        name, input, linear_weight, target, linear_bias, weight, reduction, ignore_index, label_smoothing, options
    )
    loss = _place(name, out, h.shape[:-1] if reduction == "none" else (), h.dtype, h, w, targets, b, class_weight)
    rows, targets, threads = _rows(h), targets.ravel(), _threads(threads, w.size)
    if class_weight is not None:
        weighted, _ = _loss.linear_cross_entropy(
            rows,
            w,
            targets,
            b,
            class_weight,
            reduction=reduction,
            ignore_index=ignored,
            label_smoothing=label_smoothing,
            grads=False,
            ops=ops_of(h.dtype),
            threads=threads,
            fp32_precision=fp32_precision,
        )
        assert weighted is not None
        loss[...] = weighted.reshape(loss.shape)
        return _hand_over(loss, out)
    counted = targets != ignored
    highest, log_sum, losses = np.empty((3, len(rows)), h.dtype)
    try:
        ops_of(h.dtype).linear_cross_entropy_forward(
            rows,
            w,
            b,
            targets,
            counted.astype(h.dtype),
            highest,
            log_sum,
            losses,
            label_smoothing=label_smoothing,
            fp32_precision=fp32_precision,
            threads=threads,
        )
    except IndexError:
        raise _out_of_range(name, "target", targets[counted], len(w)) from None
    _reduce(losses, int(np.count_nonzero(counted)), reduction, loss)
    return _hand_over(loss, out)


def linear_cross_entropy_backward(
    grad: ArrayLike,
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: None = None,
    threads: int | None = None,
    fp32_precision: str = "auto",
) -> tuple[Array, Array, Array | None]:
    """The gradients of linear_cross_entropy, which keeps nothing: the logits are made again, slice by slice.

    grad  the loss's shape, a number where that is ()  gradient of linear_cross_entropy's output
    The rest is as linear_cross_entropy took it.
    Returns (dinput, dlinear_weight, dlinear_bias), shaped as those; dlinear_bias is None where linear_bias is.
    Source: torch.nn.functional.linear_cross_entropy, its gradients.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> h, weight = np.ones((1, 2), np.float32), np.zeros((4, 2), np.float32)
    >>> dh, dweight, dbias = F.linear_cross_entropy_backward(1.0, h, weight, np.array([3]))
    >>> dweight[:, 0], dbias is None
    (array([ 0.25,  0.25,  0.25, -0.75], dtype=float32), True)
    """
    name = "linear_cross_entropy_backward"
    h, w, targets, b, class_weight, ignored = _linear_cross_entropy_inputs(
        name, input, linear_weight, target, linear_bias, weight, reduction, ignore_index, label_smoothing, options
    )
    upstream = _gradient(name, "grad", grad, h.shape[:-1] if reduction == "none" else (), h.dtype)
    rows, targets, upstream, threads = _rows(h), targets.ravel(), upstream.ravel(), _threads(threads, w.size)
    if class_weight is not None:
        _, gradients = _loss.linear_cross_entropy(
            rows,
            w,
            targets,
            b,
            class_weight,
            reduction=reduction,
            ignore_index=ignored,
            label_smoothing=label_smoothing,
            grads=True,
            upstream=upstream,
            ops=ops_of(h.dtype),
            threads=threads,
            fp32_precision=fp32_precision,
        )
        assert gradients is not None
        dinput, dweight, dbias = gradients
        assert dinput is not None
        assert dweight is not None
        return dinput.reshape(h.shape), dweight, dbias
    counted = targets != ignored
    total = int(np.count_nonzero(counted)) if reduction == "mean" else 1
    highest, log_sum, losses = np.empty((3, len(rows)), h.dtype)
    dh, dw, db = _empty(h, w, b)
    try:
        ops_of(h.dtype).linear_cross_entropy(
            rows,
            w,
            b,
            targets,
            _row_scale(counted, upstream, total, h.dtype),
            highest,
            log_sum,
            losses,
            dh.reshape(rows.shape),
            dw,
            db,
            label_smoothing=label_smoothing,
            fp32_precision=fp32_precision,
            threads=threads,
        )
    except IndexError:
        raise _out_of_range(name, "target", targets[counted], len(w)) from None
    return dh, dw, db


def _linear_cross_entropy_inputs(
    name: str,
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    linear_bias: ArrayLike | None,
    weight: ArrayLike | None,
    reduction: str,
    ignore_index: int | None,
    label_smoothing: float,
    options: object,
) -> tuple[Array, Array, Array, Array | None, Array | None, int]:
    """Input, weight, targets, bias, class weights and what index is ignored."""
    if options is not None:
        raise NotImplementedError(f"{name}: options: expected None, got {options!r}; the kernels choose for themselves")
    h = _float(name, "input", input)
    w = _float(name, "linear_weight", linear_weight, h.dtype)
    if h.ndim not in (1, 2):
        raise ValueError(f"{name}: input: expected shape (N, H) or (H,), got {h.shape}")
    if w.ndim > 2:
        raise NotImplementedError(f"{name}: linear_weight: expected shape (V, H), got {w.shape}")
    classes = w.shape[0] if w.ndim else 0
    if w.ndim != 2 or w.shape[1] != h.shape[-1] or not classes:
        raise ValueError(
            f"{name}: linear_weight: expected shape (V, H) with H = {h.shape[-1]}, one class at least, got {w.shape}"
        )
    truth, batch = target if type(target) is Array else _array(name, "target", target), h.shape[:-1]
    if truth.ndim == h.ndim and truth.shape == (*batch, classes):
        raise NotImplementedError(
            f"{name}: target: expected classes, got the logits' shape {truth.shape}: "
            "probabilities are for cross_entropy(linear(...))"
        )
    ignored = -100 if ignore_index is None else ignore_index
    _loss.check_options(reduction, ignored, label_smoothing, where=f"{name}: ")
    targets = _ids(name, "target", _shaped(name, "target", truth, batch))
    b = None
    if linear_bias is not None:
        b = _shaped(name, "linear_bias", _float(name, "linear_bias", linear_bias, h.dtype), (classes,))
    if weight is None:
        return h, w, targets, b, None, ignored
    return h, w, targets, b, _class_weight(name, weight, h.dtype, classes, targets, ignored), ignored


# -------------------------------------------------------------------------------------------------------- conversions


def _threads(threads: int | None, size: int) -> int:
    """The threads for arrays of that size: small ones are one thread's work, and asking costs as much."""
    return 1 if threads is None and size < SMALL else default_threads(threads)


def _array(name: str, argument: str, given: ArrayLike) -> Array:
    """What gives its memory, as an array; TypeError for what would have to be copied."""
    refuse_mask(f"{name}: {argument}", given)
    if isinstance(given, np.ndarray | np.generic):
        return np.asarray(given)
    try:
        return np.from_dlpack(given) if hasattr(given, "__dlpack__") else np.asarray(given, copy=False)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        why = str(error).partition("\n")[0]
        raise TypeError(
            f"{name}: {argument}: expected an array or what gives its memory, got {type(given).__name__}: {why}"
        ) from None


def _float(name: str, argument: str, given: ArrayLike, dtype: DType | None = None) -> Array:
    """A C-contiguous array of float32 or float64, copied where it must be.

    dtype  the type of the floats before it, if that is known
    """
    if type(given) is Array and given.dtype is FLOAT32 and given.flags.carray and (dtype is None or dtype is FLOAT32):
        return given
    array = _array(name, argument, given)
    own = FLOAT32 if array.dtype == FLOAT16 else array.dtype.newbyteorder("=")
    if own not in (FLOAT32, FLOAT64):
        raise TypeError(f"{name}: {argument}: expected float32 or float64, got {array.dtype}")
    if dtype is not None and own != dtype:
        raise TypeError(f"{name}: {argument}: expected {dtype}, as the other floats are, got {array.dtype}")
    return np.require(array, own, ["C", "A"])


def _ids(name: str, argument: str, given: ArrayLike) -> Array:
    """A C-contiguous array of int32 or int64, converted from any integers."""
    if type(given) is Array and (given.dtype is INT64 or given.dtype is INT32) and given.flags.carray:
        return given
    array = _array(name, argument, given)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: {argument}: expected integers, got {array.dtype}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(INT64).max:
        raise IndexError(f"{name}: {argument}: expected numbers of int64, got {array.max()}")
    return np.require(array, INT32 if array.dtype.newbyteorder("=") == INT32 else INT64, ["C", "A"])


def _gradient(name: str, argument: str, given: ArrayLike, shape: Shape, dtype: DType) -> Array:
    """The gradient from above, of the shape of what was computed; a number will do where that has no axes."""
    if not shape and isinstance(given, NUMBERS):
        return np.asarray(_number(name, argument, given), dtype)
    return _shaped(name, argument, _float(name, argument, given, dtype), shape)


def _number(name: str, argument: str, given: Any) -> Any:
    if not isinstance(given, NUMBERS):
        raise TypeError(f"{name}: {argument}: expected a number, got {given!r}")
    return given


def _shaped(name: str, argument: str, array: Array, shape: Shape) -> Array:
    if array.shape != shape:
        raise ValueError(f"{name}: {argument}: expected shape {shape}, got {array.shape}")
    return array


def _out_of_range(name: str, argument: str, ids: Array, size: int) -> IndexError:
    low, high = int(ids.min()), int(ids.max())
    return IndexError(f"{name}: {argument}: expected ids in [0, {size}), got {low if low < 0 else high}")


def _place(name: str, out: ArrayLike | None, shape: Shape, dtype: DType, *inputs: Array | None) -> Array:
    """Where the result is computed: in `out` if that can be, else in a new array."""
    if out is None:
        return np.empty(shape, dtype)
    array = _shaped(name, "out", _array(name, "out", out), shape)
    if array.dtype != dtype:
        raise TypeError(f"{name}: out: expected {dtype}, got {array.dtype}")
    if not array.flags.writeable or isinstance(out, np.generic):
        raise ValueError(f"{name}: out: expected a writeable array, got a read-only one")
    if array.flags.carray and not any(x is not None and np.may_share_memory(array, x) for x in inputs):
        return array
    return np.empty(shape, dtype)


def _hand_over(result: Array, out: ArrayLike | None) -> Array:
    """The result, in `out` where that was given."""
    if out is None or result is out:
        return result
    array = _array("", "out", out)
    if array.ctypes.data != result.ctypes.data or not array.flags.c_contiguous:
        array[...] = result
    return out  # type: ignore[no-any-return]
