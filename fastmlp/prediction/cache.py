"""A continuous cache: what came after similar words a little before (Grave, Joulin and Usunier, 2016).

Each of the last words votes for itself. Its vote is exp(sharpness * h . h'), where h is the vector from which the
network predicts the next word and h' the one from which it predicted that word. A word's probability is its share of
all votes. Without a network all votes are equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["Cache", "CacheReader"]

Array = np.ndarray
Product = Callable[[Array, Array], Array]  # a (N, H), b (M, H) -> a b^T (N, M), a new array
ROWS = 128  # words that are predicted by one product
NOTHING = np.float32(-np.inf)


@dataclass(frozen=True)
class Cache:
    """The settings of a cache.

    size       number of words that it remembers
    sharpness  of the votes: 0 gives all words the same
    """

    size: int
    sharpness: float

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: expected at least 1 word, got {self.size}")
        if not (np.isfinite(self.sharpness) and self.sharpness >= 0):
            raise ValueError(f"sharpness: expected a number of at least 0, got {self.sharpness}")


class CacheReader:
    """A cache that reads a text: it remembers what came, and only that."""

    def __init__(self, cache: Cache, width: int, product: Product) -> None:
        """width    H of the vectors; 0: there are none
        product  how matrices are multiplied
        """
        self.cache, self._product = cache, product
        self._ids, self._vectors = np.empty(0, np.int32), np.empty((0, width), np.float32)

    def forget(self) -> None:
        """Remember nothing: another document begins."""
        self._ids, self._vectors = self._ids[:0], self._vectors[:0]

    def read(self, vectors: Array, ids: Array) -> Array:
        """Return the probability of each word of a text from what came before it, and remember them all, (N,) float32.

        vectors  (N, H)  in: from which the network predicts each word
        ids      (N,)    in: the words
        NaN where nothing came before.
        """
        known, size = len(self._ids), self.cache.size
        ids, vectors = np.concatenate([self._ids, ids]), np.concatenate([self._vectors, vectors])
        found = np.empty(len(ids) - known, np.float32)
        for start in range(known, len(ids), ROWS):
            end = min(start + ROWS, len(ids))
            first = max(0, start - size)
            found[start - known : end - known] = self._probabilities(vectors[first:end], ids[first:end], end - start)
        self._ids, self._vectors = ids[-size:].copy(), vectors[-size:].copy()
        return found

    def _probabilities(self, vectors: Array, ids: Array, count: int) -> Array:
        """Return the probabilities of the last `count` of these words (count,)."""
        columns = len(ids) - 1  # the last word votes for none of them
        votes = self._product(vectors[-count:] * np.float32(self.cache.sharpness), vectors[:columns])
        votes += _no_vote(count, columns, self.cache.size)
        with np.errstate(invalid="ignore"):  # where nothing came before
            votes -= votes.max(axis=1, keepdims=True, initial=NOTHING)
            np.exp(votes, out=votes)
            rows, same = np.nonzero(ids[:columns] == ids[-count:, None])
            return np.asarray(np.bincount(rows, votes[rows, same], minlength=count) / votes.sum(axis=1), np.float32)

    def add(self, vector: Array, word: int) -> None:
        """Remember a word by its id, and the vector (H,) from which the network predicted it."""
        self._ids = np.append(self._ids, np.int32(word))[-self.cache.size :]
        self._vectors = np.concatenate([self._vectors, vector[None]])[-self.cache.size :]

    def probabilities(self, vector: Array, size: int) -> Array | None:
        """Return the probability of each word as the next one (V,), float32; None where nothing came before.

        vector  (H,)  in: from which the network predicts it
        size          V
        """
        if not len(self._ids):
            return None
        votes = self._vectors @ (vector * np.float32(self.cache.sharpness))
        votes = np.exp(votes - votes.max())
        return np.asarray(np.bincount(self._ids, votes, minlength=size) / votes.sum(dtype=np.float64), np.float32)


@lru_cache(maxsize=4)  # all blocks but a document's first and last have the same
def _no_vote(count: int, columns: int, size: int) -> Array:
    """Return 0 where a column's word comes 1 to `size` words before a row's, else minus infinity (count, columns)."""
    before = np.arange(columns + 1 - count, columns + 1)[:, None] - np.arange(columns)
    return np.where((before < 1) | (before > size), NOTHING, np.float32(0))
