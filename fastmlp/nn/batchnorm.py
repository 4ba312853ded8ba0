"""Batch normalization."""

from typing import Any

import numpy as np

from fastmlp.arrays import as_floats, float_type
from fastmlp.nn.module import Module, check_device, checked_size

__all__ = ["BatchNorm1d"]

Array = np.ndarray


class BatchNorm1d(Module):
    """Normalize each channel over the batch, then scale and shift it; evaluation uses the running statistics.

    num_features  C
    eps           added to the variance
    momentum      weight of the new batch in the running statistics; None: they are the mean over all batches
    affine        whether the layer has weight and bias; bias=False leaves out only the bias
    track_running_stats  if False, evaluation uses the batch's statistics too
    weight, bias  (C,)  initially 1 and 0
    running_mean, running_var  (C,)  initially 0 and 1; num_batches_tracked ()
    Channels are the second axis, as in PyTorch. In makemore part 5 they are the last of three axes: swap the axes
    before and after this layer, or reshape to (B * L, C).
    Source: Ioffe and Szegedy (2015), with PyTorch's running estimates.

    >>> layer = BatchNorm1d(1)
    >>> layer([[1.0], [3.0]]).round(3).tolist()
    [[-1.0], [1.0]]
    >>> print(layer.running_mean)
    [0.2]
    """

    weight: Array | None
    bias: Array | None
    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: Array | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_device(device)
        self.num_features, self.eps, self.momentum = checked_size("num_features", num_features), eps, momentum
        self.affine, self.track_running_stats, self.dtype = affine, track_running_stats, float_type(dtype)
        self.register_parameter("weight", np.ones(num_features, self.dtype) if affine else None)
        self.register_parameter("bias", np.zeros(num_features, self.dtype) if affine and bias else None)
        self.register_buffer("running_mean", np.zeros(num_features, self.dtype) if track_running_stats else None)
        self.register_buffer("running_var", np.ones(num_features, self.dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track_running_stats else None)

    def forward(self, input: Any) -> Array:
        """Return the normalized input in its shape, (B, C) or (B, C, L) as in PyTorch.

        Raise ValueError for another shape and for batch statistics of one value. An empty input changes no statistics.
        """
        x, of_batch = self.checked(input)
        y = self.run_forward("batchnorm_forward", x, of_batch, training=of_batch)
        return self._back(y, x.shape)

    def backward(self, grad: Any) -> Array:
        """Return the gradient of the input; grad has the output's shape."""
        _, _, _, of_batch, shape = self._kept()
        dy = self._rows(self._upstream(grad, self.dtype, shape))
        return self._back(self.run_backward("batchnorm_backward", dy, training=of_batch), shape)

    def checked(self, input: Any) -> tuple[Array, bool]:
        """Return the input as floats, and whether its own statistics normalize it. Raise the errors of `forward`."""
        x = as_floats("BatchNorm1d: input", input, self.dtype)
        if x.ndim not in (2, 3) or x.shape[1] != self.num_features:
            c = self.num_features
            raise ValueError(f"BatchNorm1d: input: expected shape (B, {c}) or (B, {c}, L), got {x.shape}")
        of_batch = x.size > 0 and (self.training or not self.track_running_stats)
        if of_batch and x.size == self.num_features:
            raise ValueError(
                f"BatchNorm1d: input: expected more than one value a channel to train on, got shape {x.shape};"
                " eval() goes by the running statistics"
            )
        return x, of_batch

    def run_forward(self, op: str, x: Array, of_batch: bool, *arrays: Array, **options: Any) -> Array:
        """Return the rows that batchnorm_forward gives, or an op that goes on from there and takes more arrays."""
        rows = self._rows(x)
        mean, inv_std = (self.place.array(self, name, (self.num_features,), x.dtype) for name in ("mean", "inv_std"))
        y = self.place.array(self, "y", rows.shape, x.dtype)
        running = (
            np.zeros(x.shape[1], x.dtype) if self.running_mean is None else self.running_mean,
            np.ones(x.shape[1], x.dtype) if self.running_var is None else self.running_var,
        )
        inputs = rows, self._scale(), self.shift(), *running, *arrays
        self.place.run(op, *inputs, mean, inv_std, y, momentum=self._momentum(), eps=self.eps, **options)
        if self.training and self.num_batches_tracked is not None:
            self.place.call(_count_one, self.num_batches_tracked.data)
        self.place.keep(rows)
        self._saved = rows, mean, inv_std, of_batch, x.shape
        return y

    def run_backward(self, op: str, dy: Array, *arrays: Array, **options: Any) -> Array:
        """Return the gradient of the rows for that of what `run_forward` gave; store those of the parameters."""
        rows, mean, inv_std, _, _ = self._kept()
        dx = self.place.over(self, "dx", dy)
        dweight, dbias = (
            np.empty_like(mean) if getattr(self, name) is None else self._gradient(name) for name in ("weight", "bias")
        )
        self.place.run(op, dy, rows, self._scale(), mean, inv_std, *arrays, dx, dweight, dbias, **options)
        return dx

    def normalized_again(self, saved: Any) -> Array:
        """Return what a forward pass in training gave, from what it saved; this changes nothing."""
        rows: Array = saved[0]
        y, unused = np.empty_like(rows), np.zeros((4, self.num_features), rows.dtype)
        self.place.run("batchnorm_forward", rows, self._scale(), self.shift(), *unused, y, momentum=0.0, eps=self.eps)
        return y

    def _momentum(self) -> float:
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.num_batches_tracked is None else 1 / (int(self.num_batches_tracked) + 1)

    def _scale(self) -> Array:
        return np.ones(self.num_features, self.dtype) if self.weight is None else self.weight

    def shift(self) -> Array:
        """Return the bias, 0 where there is none."""
        return np.zeros(self.num_features, self.dtype) if self.bias is None else self.bias

    @staticmethod
    def _rows(x: Array) -> Array:
        """Return (B, C, L) as rows (B*L, C)."""
        return x if x.ndim == 2 else np.ascontiguousarray(np.moveaxis(x, 1, 2)).reshape(-1, x.shape[1])

    @staticmethod
    def _back(rows: Array, shape: tuple[int, ...]) -> Array:
        if len(shape) == 2:
            return rows
        return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[0], shape[2], shape[1]), 2, 1))

    def _arguments(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"


def _count_one(count: memoryview) -> None:
    count[()] += 1
