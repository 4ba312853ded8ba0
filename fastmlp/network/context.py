"""The network's input layer: embeddings of the words just before, and averages of embeddings further back."""

from typing import Any

import numpy as np

from fastmlp.nn.embedding import Embedding
from fastmlp.nn.module import UNDRAWN

__all__ = ["Context"]

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
        self.place.run("embedding_forward", self.weight, near, emb)
        if len(self.decays):
            self.place.run("context_averages_forward", self.weight, far, self.decays, emb)
        self._saved = near
        return emb.reshape(rows, places * self.embedding_dim)

    def backward(self, grad: Array) -> None:
        """Store the embedding's gradient; grad has the output's shape, and words have no gradient."""
        near = self._kept()
        self._backward(near, grad.reshape(len(near), -1, self.embedding_dim))
