"""The embedding layer."""

from typing import Any

import numpy as np

from fastmlp.arrays import as_ids, float_type
from fastmlp.nn.module import Module, Random, check_device, checked_size, drawn, refuse
from fastmlp.ops.gradient import RowGradient

__all__ = ["Embedding"]

Array = np.ndarray


class Embedding(Module):
    """Look up the row of the weight for each id.

    num_embeddings, embedding_dim  V and D
    padding_idx  an id whose row is initially 0 and gets no gradient; a negative id counts from the end
    max_norm, norm_type, scale_grad_by_freq, sparse  any value but PyTorch's default raises NotImplementedError:
                 max_norm would write to the weight while it is read, and the gradient always holds only the rows read
    weight       (V, D)  initially N(0, 1)
    rng          seed or Generator of the initial weight

    >>> layer = Embedding(27, 2, rng=1)
    >>> layer([[0, 1, 2]]).shape
    (1, 3, 2)
    """

    weight: Array

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        rng: Random = None,
    ) -> None:
        super().__init__()
        check_device(device)
        refuse("Embedding", max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
        refuse("Embedding", norm_type=norm_type != 2.0 and norm_type)
        self.num_embeddings = checked_size("num_embeddings", num_embeddings)
        self.embedding_dim = checked_size("embedding_dim", embedding_dim)
        if padding_idx is not None and not isinstance(padding_idx, int | np.integer):
            raise TypeError(f"padding_idx: expected an id, got {padding_idx!r}")
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx: expected an id below {num_embeddings}, got {padding_idx}")
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.dtype = float_type(dtype)
        weight = drawn(rng, (num_embeddings, embedding_dim), self.dtype, "standard_normal")
        if padding_idx is not None:
            weight[padding_idx] = 0
        self.register_parameter("weight", weight)

    def forward(self, input: Any) -> Array:
        """Return rows (..., D) for ids (...) in [0, V). Raise IndexError for other ids, TypeError for non-integers."""
        ids = as_ids("Embedding: input", input)
        emb = self.place.array(self, "emb", (ids.size, 1, self.embedding_dim), self.dtype)
        try:
            self.place.run("embedding_forward", self.weight, ids.reshape(-1, 1), emb)
        except IndexError:
            got = low if (low := int(ids.min())) < 0 else int(ids.max())
            raise IndexError(f"Embedding: input: expected ids in [0, {self.num_embeddings}), got {got}") from None
        self._saved = ids
        return emb.reshape(*ids.shape, self.embedding_dim)

    def backward(self, grad: Any) -> None:
        """Store the weight's gradient for grad (..., D); ids have no gradient."""
        ids = self._kept()
        demb = self._upstream(grad, self.dtype, (*ids.shape, self.embedding_dim))
        self._backward(ids.reshape(-1, 1), demb.reshape(-1, 1, self.embedding_dim))

    def _backward(self, ids: Array, demb: Array) -> None:
        """Store the weight's gradient for ids (B, T) and demb (B, S, D), of which the op reads the first T places."""
        rows = self.place.array(self, "rows", (ids.size,), ids.dtype)
        drows = self.place.array(self, "drows", (ids.size, self.embedding_dim), self.dtype)
        self.place.call(self._sum_rows, ids, demb, rows, drows)

    def _sum_rows(self, ids: Array, demb: Array, rows: Array, drows: Array) -> None:
        """Store the gradient; its number of rows differs from batch to batch."""
        unique = self.place.run("embedding_backward", ids, demb, rows, drows)
        rows, drows = rows[:unique], drows[:unique]
        if self.padding_idx is not None:
            counted = rows != self.padding_idx
            rows, drows = rows[counted], drows[counted]
        self.grads["weight"] = RowGradient(rows, drows)

    def _arguments(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
