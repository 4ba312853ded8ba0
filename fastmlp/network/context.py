"""The network's input layer: embeddings of the words just before, and averages of embeddings further back.

Where the vocabulary is shared out over ranks, each has the rows of its words: those just before are fetched from the
others, and of the words further back each averages its own.
"""

from typing import Any

import numpy as np

from fastmlp.distributed.part import Part
from fastmlp.nn.embedding import Embedding
from fastmlp.nn.module import UNDRAWN
from fastmlp.ops.gradient import RowGradient

__all__ = ["Context", "ContextOfPart"]

Array = np.ndarray


class Context(Embedding):
    """One embedding, read in two ways: T words side by side, and averages of the K words before them.

    Only the T words side by side train the embedding; the averages pass no gradient to it.
    """

    def __init__(self, vocabulary: int, embed: int, averages: tuple[float, ...], dtype: Any) -> None:
        """averages  the decay of each average, as in the op context_averages"""
        super().__init__(vocabulary, embed, dtype=dtype, rng=UNDRAWN)
        self.decays = np.array(averages, self.dtype)

    def forward(self, near: Array, far: Array | None = None) -> Array:
        """Return (B, (T + averages) * D) for words near (B, T) and far (B, K); -1 in far means no word."""
        rows, context = near.shape
        places = context + len(self.decays)
        emb = self.place.array(self, "emb", (rows, places, self.embedding_dim), self.dtype)
        self._read(near, far, emb)
        self._saved = near
        return emb.reshape(rows, places * self.embedding_dim)

    def _read(self, near: Array, far: Array | None, emb: Array) -> None:
        self.place.run("embedding_forward", self.weight, near, emb)
        if len(self.decays):
            self.place.run("context_averages_forward", self.weight, far, self.decays, emb)

    def backward(self, grad: Array) -> None:
        """Store the embedding's gradient; grad has the output's shape, and words have no gradient."""
        near = self._kept()
        self._backward(near, grad.reshape(len(near), -1, self.embedding_dim))

    def rows_of_words(self, words: Array) -> Array:
        """Return the rows of the weight for different words (U,), ascending: the rows of their gradient."""
        return words


class ContextOfPart(Context):
    """The same where each rank has a part of the words; the weight has their rows. All ranks have the same batch."""

    def __init__(self, part: Part, embed: int, averages: tuple[float, ...], dtype: Any) -> None:
        super().__init__(part.words, embed, averages, dtype)
        self._part = part
        self._words = self._positions = np.empty(0, np.int32)  # of the last batch: its different words; near among them

    def _read(self, near: Array, far: Array | None, emb: Array) -> None:
        self.place.call(self._gather, near, far, emb)

    def _gather(self, near: Array, far: Array | None, emb: Array) -> None:
        self._words, positions = np.unique(near, return_inverse=True)
        self._positions = positions.reshape(near.shape).astype(near.dtype)
        self.place.run("embedding_forward", self._part.fetch(self.weight, self._words), self._positions, emb)
        if len(self.decays):
            assert far is not None
            averages = self.place.array(self, "averages", (len(near), len(self.decays), self.embedding_dim), self.dtype)
            self.place.run("context_averages_forward", self.weight, self._part.local(far), self.decays, averages)
            self._part.group.allreduce(averages)
            emb[:, near.shape[1] :] = averages

    def _sum_rows(self, ids: Array, demb: Array, rows: Array, drows: Array) -> None:
        """Store the gradient of this part's rows. Each rank has that of the whole batch, so none has to travel."""
        super()._sum_rows(self._positions, demb, rows, drows)
        gradient = self.grads["weight"]
        assert isinstance(gradient, RowGradient)
        local = self._part.local(self._words[gradient.rows])
        self.grads["weight"] = RowGradient(local[local >= 0], gradient.drows[local >= 0])

    def rows_of_words(self, words: Array) -> Array:
        """As in Context, those of this part."""
        local = self._part.local(words)
        return local[local >= 0]
