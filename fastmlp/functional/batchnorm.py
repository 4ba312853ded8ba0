"""Batch normalization."""

import numpy as np

from fastmlp.arrays import ArrayLike, float_array, hand_over, lent_array, number, of_shape, place_for, upstream_gradient
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._shapes import channels_last, channels_second, threads_for
from fastmlp.ops.backend import ops_of

__all__ = ["batch_norm", "batch_norm_backward"]

Array = np.ndarray


@takes_float16
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

    input         (N, C) or (N, C, ...)  the latter is copied to move the channels last
    running_mean  (C,)  in training moved towards the input's mean by `momentum`, in place; otherwise used as the mean
    running_var   (C,)  likewise, with the unbiased variance; training normalizes by the biased one
    weight, bias  (C,)  None: 1, 0
    training      normalize by the input's statistics; then running_mean and running_var may both be None
    momentum      the share of the running statistics that is new
    out           (N, C) or (N, C, ...)
    Returns the input's shape. In training running_mean and running_var must be writeable; ValueError for one value a
    channel, which has no variance, and for no channel. An empty input leaves them unchanged.
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
    momentum = float(number(name, "momentum", momentum))
    y = place_for(name, out, x.shape, x.dtype, x, mean, var, w, b)
    if not x.size:
        return hand_over(y, out)
    own_mean, own_var = _own(mean, x, 0), _own(var, x, 1)  # the op writes into both
    rows = channels_last(x)
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
        threads=threads_for(threads, x.size),
    )
    if training and mean is not None and own_mean is not mean:
        mean[...] = own_mean
    if training and var is not None and own_var is not var:
        var[...] = own_var
    if normalized is not y:
        y[...] = channels_second(normalized, x.shape)
    return hand_over(y, out)


@takes_float16
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
    The other arguments are those of batch_norm; running_mean and running_var are read if not training, and never
    written, so that momentum has no effect.
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
    dy = upstream_gradient(name, "grad", grad, x.shape, x.dtype)
    channels, dtype, ops, threads = x.shape[1], x.dtype, ops_of(x.dtype), threads_for(threads, x.size)
    dx, dw, db = np.empty(x.shape, dtype), np.zeros(channels, dtype), np.zeros(channels, dtype)
    if x.size:
        rows, drows = channels_last(x), channels_last(dy)
        into = dx if x.ndim == 2 else np.empty_like(rows)
        scale = np.ones(channels, dtype) if w is None else w
        if training:
            batch_mean, inv_std = np.empty(channels, dtype), np.empty(channels, dtype)
            ops.batchnorm_forward(  # for the statistics only
                rows, scale, scale, db, dw, batch_mean, inv_std, into, eps=eps, threads=threads
            )
        else:
            batch_mean = _own(mean, x, 0)
            inv_std = (1 / np.sqrt(_own(var, x, 1) + np.float64(eps))).astype(dtype)
        ops.batchnorm_backward(
            drows, rows, scale, batch_mean, inv_std, into, dw, db, training=bool(training), threads=threads
        )
        if into is not dx:
            dx[...] = channels_second(into, x.shape)
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
    """Return input, running mean and variance, weight and bias as arrays; the running ones are not copied."""
    x = float_array(name, "input", input)
    if x.ndim < 2:
        raise ValueError(f"{name}: input: expected shape (N, C) or (N, C, ...), got {x.shape}")
    channels = (x.shape[1],)
    if not x.shape[1]:
        raise ValueError(f"{name}: input: expected one channel at least, got shape {x.shape}")
    if training and x.size == x.shape[1]:
        raise ValueError(f"{name}: input: expected more than 1 value a channel to train on, got shape {x.shape}")
    number(name, "eps", eps)
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"{name}: eps: expected {'a number above' if training else 'at least'} 0, got {eps}")
    written = training and written
    mean = _statistic(name, "running_mean", running_mean, x, training, written)
    var = _statistic(name, "running_var", running_var, x, training, written)
    if (mean is None) != (var is None):
        raise ValueError(f"{name}: running_mean, running_var: expected both or neither, got one")
    w = None if weight is None else of_shape(name, "weight", float_array(name, "weight", weight, x.dtype), channels)
    b = None if bias is None else of_shape(name, "bias", float_array(name, "bias", bias, x.dtype), channels)
    return x, mean, var, w, b


def _statistic(
    name: str, argument: str, given: ArrayLike | None, x: Array, training: bool, written: bool
) -> Array | None:
    """Return a running statistic as an array that is not copied."""
    if given is None:
        if not training and x.size:
            raise ValueError(f"{name}: {argument}: expected shape {x.shape[1:2]} where not training, got None")
        return None
    array = of_shape(name, argument, given if type(given) is Array else lent_array(name, argument, given), x.shape[1:2])
    if array.dtype.newbyteorder("=") != x.dtype:
        raise TypeError(f"{name}: {argument}: expected {x.dtype}, as the other floats are, got {array.dtype}")
    if written and not array.flags.writeable:
        raise ValueError(f"{name}: {argument}: expected a writeable array, got a read-only one")
    return array


def _own(statistic: Array | None, x: Array, otherwise: float) -> Array:
    """Return a running statistic that the op can write to, without a copy if possible; for None a constant one."""
    if statistic is None:
        return np.full(x.shape[1], otherwise, x.dtype)
    return statistic if statistic.flags.carray and statistic.dtype == x.dtype else np.array(statistic, x.dtype)
