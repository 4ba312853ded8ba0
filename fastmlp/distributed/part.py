"""The part of a vocabulary that a rank owns, and what the parts together make of a batch."""

from collections.abc import Iterator

import numpy as np

from fastmlp.distributed.group import Group

__all__ = ["Part"]

Array = np.ndarray
PIECE = 1 << 22  # bytes of the rows of all parts that travel at once where a whole array is gathered or shared out


class Part:
    """The words of a rank: every size-th, as cards are dealt.

    Ids go from frequent to rare words. So the parts are alike in their number of words, which is the output layer's
    work, and in how often these come, which is that of the rows that a batch reads and changes.

    group       whose ranks share the words
    vocabulary  V, how many words there are
    words       how many are this rank's
    """

    def __init__(self, group: Group, vocabulary: int) -> None:
        """Raise ValueError if there are fewer words than ranks."""
        if vocabulary < group.size:
            raise ValueError(f"vocabulary: expected a word at least for each of {group.size} ranks, got {vocabulary}")
        self.group, self.vocabulary = group, vocabulary
        self.lengths = [(vocabulary - rank + group.size - 1) // group.size for rank in range(group.size)]
        self.words = self.lengths[group.rank]

    def of(self, whole: Array) -> Array:
        """Return the rows (words, ...) of this part in an array of all words (V, ...), a view."""
        return whole[self.group.rank :: self.group.size]

    def local(self, ids: Array) -> Array:
        """Return the rows of words in this part, -1 for words of other parts and for what is no word."""
        own = (ids >= 0) & (ids % self.group.size == self.group.rank)
        return np.where(own, ids // self.group.size, ids.dtype.type(-1))

    def fetch(self, weight: Array, ids: Array) -> Array:
        """Return the rows (U, D) of words of all parts.

        weight  (words, D)  in: the rows of this part
        ids     (U,)        in: unique and ascending, the same ones on every rank
        """
        size = self.group.size
        owners = ids % size
        counts = np.bincount(owners, minlength=size).tolist()
        own = weight[ids[owners == self.group.rank] // size]
        rows = np.empty((len(ids), *weight.shape[1:]), weight.dtype)
        for rank, part in enumerate(self.group.allgather(own, counts)):
            rows[owners == rank] = part
        return rows

    def combine(self, highest: Array, sums: Array, target_logits: Array) -> None:
        """Turn the statistics of this part into those of all words: `between` of the op linear_cross_entropy.

        The parts are added up in rank order, in float64, so that each rank gets the same numbers.
        """
        mine = np.array([highest, sums, target_logits], np.float64)
        parts = self.group.allgather(mine)
        with np.errstate(all="ignore"):  # what is not finite shows in the losses
            top = np.max([part[0] for part in parts], axis=0)
            total = np.zeros_like(top)
            for part in parts:
                total += part[1] * np.exp(part[0] - top)
            highest[...], sums[...] = top, total
            target_logits[...] = np.max([part[2] for part in parts], axis=0)

    def gathered(self, rows: Array) -> Iterator[Array]:
        """Yield all words' rows in order, a block after the other, to rank 0: the others must go through it as well.

        rows  (words, ...)  in: those of this part
        """
        group = self.group
        for first, last in self._pieces(rows):
            lengths = [max(min(last, length) - first, 0) for length in self.lengths]
            nothing = rows[:0]
            sent = [np.ascontiguousarray(rows[first:last]) if rank == 0 else nothing for rank in range(group.size)]
            parts = group.exchange(sent, lengths if group.rank == 0 else [0] * group.size)
            block = np.empty((sum(lengths) if group.rank == 0 else 0, *rows.shape[1:]), rows.dtype)
            for rank, part in enumerate(parts):
                block[rank :: group.size] = part
            yield block

    def take_from_rank_0(self, whole: Array | None, rows: Array) -> None:
        """Set this part's rows (words, ...) to those of an array of all words (V, ...), which rank 0 has."""
        group = self.group
        for first, last in self._pieces(rows):
            sent = [rows[:0]] * group.size
            if whole is not None:
                some = whole[first * group.size : last * group.size]
                sent = [np.ascontiguousarray(some[rank :: group.size], rows.dtype) for rank in range(group.size)]
            length = len(rows[first:last])
            received = group.exchange(sent, [length if rank == 0 else 0 for rank in range(group.size)])
            rows[first:last] = received[0]

    def _pieces(self, rows: Array) -> Iterator[tuple[int, int]]:
        """Yield first and last row of the pieces of a part; of every rank the same."""
        row = rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64)) * self.group.size
        step = max(1, PIECE // max(row, 1))
        for first in range(0, self.lengths[0], step):
            yield first, min(first + step, self.lengths[0])
