"""batchnorm: each channel normalized over the batch."""

import numpy as np

from fastmlp.ops.contract import contract, floats, inout, out

Array = np.ndarray


@contract(
    x=floats("B", "C"),
    weight=floats("C"),
    bias=floats("C"),
    running_mean=inout("C"),
    running_var=inout("C"),
    mean=out("C"),
    inv_std=out("C"),
    y=out("B", "C"),
)
def batchnorm_forward(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    mean: Array,
    inv_std: Array,
    y: Array,
    *,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    threads: int = 1,
) -> None:
    """Normalize each channel over the batch, then scale and shift: y = (x - mean) * inv_std * weight + bias.

    x             (B, C)  in
    weight, bias  (C,)    in
    running_mean  (C,)    in/out: moves towards the batch's mean by `momentum`; untouched when not training
    running_var   (C,)    in/out: moves towards the batch's unbiased variance (divided by B - 1)
    mean          (C,)    out: of the batch, over its rows; when not training, running_mean
    inv_std       (C,)    out: 1 / sqrt(var + eps), with the biased variance (divided by B) or running_var
    y             (B, C)  out
    Raises ValueError for training on fewer than two rows, which have no variance.
    Source: Ioffe and Szegedy (2015), algorithms 1 and 2, with PyTorch's running estimates.
    """
    if training:
        rows = x.shape[0]
        if rows < 2:
            raise ValueError(f"batchnorm_forward: x: expected at least 2 rows to train on, got {rows}")
        np.mean(x, axis=0, out=mean)
        var = np.var(x, axis=0, mean=mean[None])
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (rows / (rows - 1)) - running_var)
    else:
        mean[...] = running_mean
        var = running_var
    inv_std[...] = 1 / np.sqrt(var + eps)
    np.subtract(x, mean, out=y)
    y *= inv_std * weight
    y += bias


@contract(
    dy=floats("B", "C"),
    x=floats("B", "C"),
    weight=floats("C"),
    mean=floats("C"),
    inv_std=floats("C"),
    dx=out("B", "C"),
    dweight=out("C"),
    dbias=out("C"),
)
def batchnorm_backward(
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
    *,
    training: bool = True,
    threads: int = 1,
) -> None:
    """With xhat = (x - mean) * inv_std: dweight = sum dy * xhat, dbias = sum dy, and

    dx = weight * inv_std * (dy - dbias / B - xhat * dweight / B)    training: mean and variance depend on x
    dx = weight * inv_std * dy                                       not training: they are constants

    dy             (B, C)  in:  gradient of the output
    x, weight              in:  as in the forward pass
    mean, inv_std  (C,)    in:  outputs of the forward pass
    dx             (B, C)  out; it may be dy
    dweight, dbias (C,)    out
    """
    xhat = (x - mean) * inv_std
    np.sum(dy, axis=0, out=dbias)
    np.sum(dy * xhat, axis=0, out=dweight)
    if training:
        rows = x.shape[0]
        np.subtract(dy, dbias / rows, out=dx)
        dx -= xhat * (dweight / rows)
        dx *= weight * inv_std
    else:
        np.multiply(dy, weight * inv_std, out=dx)
