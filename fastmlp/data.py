"""From ids to batches: the parts of a text, its (context -> next word) windows, and how training draws them.

Every batch is a pure function of (seed, step), so a run that resumes needs no state but its step. The random numbers
are the raw output of the counter-based generator Philox-4x64-10 (Salmon et al. 2011), for which NumPy promises that a
given key and counter always give the same integers; all that follows is integer arithmetic and the sorting of
different integers. NumPy's distributions (integers, permutation), whose results may change between versions, are not
used. So batches are the same on every platform and NumPy version.
"""

from collections.abc import Sized
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from fastmlp.text import TextError

__all__ = ["EpochBatches", "RandomBatches", "Split", "Windows", "as_ids", "evenly_spaced", "split_ids"]

_INTEGER = (int, np.integer)

# The second half of Philox's key: which use of a seed a stream is for.
_WINDOWS_OF_STEP, _ORDER_OF_EPOCH = 1, 2
_PIECE_ROWS = 4096  # of the batches that are made in one go


# --------------------------------------------------------------------------------------------------- parts of the text


@dataclass(frozen=True)
class Split:
    """The contiguous parts of a text, one after the other: int32 ids, views of one array.

    train  the beginning
    val    what follows; empty where its fraction is 0
    test   the end; empty where its fraction is 0
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def split_ids(ids: np.ndarray, val_fraction: float, test_fraction: float) -> Split:
    """Cut a text in three: the last part of it is the test part, the part before that validates.

    ids            (N,)  in
    val_fraction         part of all words, 0 <= fraction, together less than 1
    test_fraction        likewise
    The parts begin at floor(N * (1 - val - test)) and floor(N * (1 - test)), computed with the decimal fractions
    that were written: 0.05 is exactly 1/20. Raises TextError where a part that was asked for would have no word.
    """
    ids = as_ids("ids", ids)
    for name, written in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= written < 1:
            raise ValueError(f"{name}: expected 0 <= fraction < 1, got {written}")
    val, test = Fraction(str(val_fraction)), Fraction(str(test_fraction))
    if val + test >= 1:
        raise ValueError(f"val_fraction + test_fraction: expected less than 1, got {float(val + test)}")
    val_start, test_start = int(ids.size * (1 - val - test)), int(ids.size * (1 - test))
    split = Split(ids[:val_start], ids[val_start:test_start], ids[test_start:])
    for part, fraction, words in (
        ("training", 1 - val - test, split.train),
        ("validation", val, split.val),
        ("test", test, split.test),
    ):
        if fraction and not words.size:
            raise TextError(
                f"the text is too short: {float(fraction):g} of {_count(ids.size, 'word')} makes no {part} part;"
                " name a longer text or change the fractions"
            )
    return split


def as_ids(name: str, values: np.ndarray) -> np.ndarray:
    """A vector of ids (N,) of any integer type and layout as contiguous int32.

    Raises TypeError, ValueError or IndexError, which names the argument, for what is none.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name}: expected shape (N,), got {array.shape}")
    if array.size and array.dtype != np.int32:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= 1 << 31:
            raise IndexError(f"{name}: expected ids in [0, {1 << 31}), got {low if low < 0 else high}")
    return np.ascontiguousarray(array, np.int32)


# ------------------------------------------------------------------------------------------------------------- windows


class Windows:
    """The (context -> next word) windows of a text: window i predicts the word after T others.

    A view of the ids: no memory of its own, but for a copy of them where `history` is given.
    """

    def __init__(self, ids: np.ndarray, context: int, *, history: np.ndarray | None = None) -> None:
        """All windows of a text.

        ids      (N,)           in: the text
        context                 T, the number of words that are looked at
        history  (M,) or None   in: what comes before the text, M >= T: the text's first words are predicted from its
                                end, so that window i predicts word i; None: from word T on, window i word T + i
        Raises TextError where the text is too short for one window.
        """
        ids = as_ids("ids", ids)
        context = _integer("context", context, 1)
        needed = 1 if history is not None else context + 1
        if ids.size < needed:
            raise TextError(
                f"the text is too short: {_count(ids.size, 'word')} where a context of"
                f" {context} needs at least {needed}; name a longer text"
            )
        if history is not None:
            history = as_ids("history", history)
            if history.size < context:
                raise ValueError(f"history: expected at least {context} words, got {history.size}")
            ids = np.concatenate([history[-context:], ids])
        self.context = context
        self._contexts = np.lib.stride_tricks.sliding_window_view(ids[:-1], context)
        self._targets = ids[context:]

    def __len__(self) -> int:
        return len(self._targets)

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Copy windows into a batch.

        indices  (B,)  in:  which windows, 0 <= index < len
        Returns contexts (B, T) and targets (B,), int32 and C-contiguous.
        """
        indices = np.asarray(indices)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"indices: expected integers, got {indices.dtype}")
        if indices.ndim != 1:
            raise ValueError(f"indices: expected shape (B,), got {indices.shape}")
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            wrong = indices.min() if indices.min() < 0 else indices.max()
            raise IndexError(f"indices: expected windows in [0, {len(self)}), got {wrong}")
        return np.ascontiguousarray(self._contexts[indices]), self._targets[indices]


def evenly_spaced(windows: Sized, count: int) -> np.ndarray:
    """The indices (min(count, len),) of a fixed sample of windows, spread evenly from the first one on, ascending."""
    count = min(_integer("count", count, 1), len(windows))
    return np.arange(count, dtype=np.int64) * len(windows) // count


# ------------------------------------------------------------------------------------------------------------- batches


class _Batches:
    """Batches that are made a piece at a time, for some steps in a row.

    Between the steps of training the caches are empty: one batch at a time takes 110 us at 32 rows, most of it NumPy's
    own code on its way back from memory, and as one of a piece 3 us.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int) -> None:
        self.windows, self.batch_size, self.seed = windows, _integer("batch_size", batch_size, 1), _seed(seed)
        self.piece_size = max(1, _PIECE_ROWS // self.batch_size)
        self._made: tuple[tuple[int, int], np.ndarray, np.ndarray] | None = None

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The contexts (B, T) and targets (B,) of a step, counted from 0: a pure function of (seed, step).

        They are views of a piece, and read-only.
        """
        piece, place = self._locate(_integer("step", step, 0))
        made = self._made
        if made is None or made[0] != piece:
            contexts, targets = self.windows.take(self._indices(*piece))
            contexts.flags.writeable = targets.flags.writeable = False
            made = self._made = (piece, contexts, targets)
        rows = slice(place * self.batch_size, (place + 1) * self.batch_size)
        return made[1][rows], made[2][rows]

    def _locate(self, step: int) -> tuple[tuple[int, int], int]:
        """The piece of a step, which is an epoch and its number in that, and which of its batches."""
        raise NotImplementedError

    def _indices(self, epoch: int, piece: int) -> np.ndarray:
        """The windows of a piece, the batches one after the other."""
        raise NotImplementedError


class RandomBatches(_Batches):
    """Windows drawn with replacement, each equally likely."""

    def __init__(self, windows: Windows, batch_size: int, seed: int) -> None:
        """Batches of `batch_size` windows; `seed` in [0, 2**63)."""
        super().__init__(windows, batch_size, seed)

    def _locate(self, step: int) -> tuple[tuple[int, int], int]:
        piece, place = divmod(step, self.piece_size)
        return (0, piece), place

    def _indices(self, epoch: int, piece: int) -> np.ndarray:
        # The remainder favours small indices by less than len / 2**64: one part in 10**13 for a million windows.
        steps = range(piece * self.piece_size, (piece + 1) * self.piece_size)
        raw = _random_integers(self.seed, _WINDOWS_OF_STEP, steps, self.batch_size)
        return (raw % len(self.windows)).ravel()


class EpochBatches(_Batches):
    """Every window once an epoch, in an order of its own for each epoch.

    Keeps the order of one epoch: 8 bytes a window, 24 for the moment in which it is drawn.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int) -> None:
        """Batches of `batch_size` windows; `seed` in [0, 2**63).

        The last batch of an epoch has what is left; where that is one window, on which batchnorm cannot train, it is
        left out. Raises TextError where that leaves no batch.
        """
        super().__init__(windows, batch_size, seed)
        full, rest = divmod(len(windows), self.batch_size)
        self.batches_per_epoch = full + (rest > 1)
        if not self.batches_per_epoch:
            raise TextError("the text is too short: one window makes no batch to train on; name a longer text")
        self._drawn: tuple[int, np.ndarray] | None = None

    def _locate(self, step: int) -> tuple[tuple[int, int], int]:
        epoch, place = divmod(step, self.batches_per_epoch)
        piece, place = divmod(place, self.piece_size)
        return (epoch, piece), place

    def _indices(self, epoch: int, piece: int) -> np.ndarray:
        rows = self.piece_size * self.batch_size
        return self._order(epoch)[piece * rows : (piece + 1) * rows]

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation (len,) of an epoch: a function of (seed, epoch)."""
        drawn = self._drawn
        if drawn is None or drawn[0] != epoch:
            self._drawn = None  # so that two orders are never kept at once
            drawn = self._drawn = (epoch, _permutation(self.seed, epoch, len(self.windows)))
        return drawn[1]


def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Windows sorted by random numbers.

    A number's low bits are replaced by the window's index: so no two are equal, the result does not depend on how the
    sort treats equal ones, and the sorted numbers carry the permutation. For a million windows 44 bits stay random: the
    chance that any pair of them has equal ones, and is thus in the order of the text, is 1 in 30.
    """
    index_bits = np.uint64((1 << (size - 1).bit_length()) - 1)
    keys: np.ndarray = _random_integers(seed, _ORDER_OF_EPOCH, range(epoch, epoch + 1), size)[0]
    keys &= ~index_bits
    keys |= np.arange(size, dtype=np.uint64)
    keys.sort()
    keys &= index_bits
    return keys.view(np.int64)


def _random_integers(seed: int, use: int, positions: range, count: int) -> np.ndarray:
    """Uniform 64-bit integers (positions, count), uint64: each row a function of (seed, use, position).

    use        which of the uses of a seed
    positions  the steps or epochs; each has 2**192 blocks of its own
    """
    integers = np.empty((len(positions), count), np.uint64)
    generator = np.random.Philox(key=[seed, use])
    state: Any = generator.state
    state["state"]["counter"][:3] = 0
    for row, position in zip(integers, positions, strict=True):
        state["state"]["counter"][3] = position
        generator.state = state  # a quarter of the time of a new generator
        row[:] = generator.random_raw(count)
    return integers


def _seed(seed: int) -> int:
    if _integer("seed", seed, 0) >= 1 << 63:
        raise ValueError(f"seed: expected less than 2**63, got {seed}")
    return int(seed)


def _integer(name: str, value: int, least: int) -> int:
    if not isinstance(value, _INTEGER):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
