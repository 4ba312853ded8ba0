"""Draw the training batches of a text from its (context -> next word) windows.

Every batch is a pure function of (seed, step), so a run that resumes needs no state but its step. The random numbers
are the raw output of the counter-based generator Philox-4x64-10 (Salmon et al. 2011), for which NumPy promises that a
given key and counter always give the same integers; the rest is integer arithmetic and sorting of
distinct integers. NumPy's distributions (integers, permutation), whose results may change between versions, are not
used. So batches are the same on every platform and NumPy version.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastmlp.data.windows import Batch, Windows, different, integer
from fastmlp.errors import TextError

__all__ = ["Batches", "EpochBatches", "RandomBatches", "StretchBatches"]

# The second half of Philox's key: the purpose of a stream.
_WINDOWS_OF_STEP, _ORDER_OF_EPOCH, _START_OF_EPOCH = 1, 2, 3
_PIECE_ROWS, _PIECE_BATCHES = 4096, 128  # that are made at once, at most; each batch takes some 800 bytes of its own


# ------------------------------------------------------------------------------------------------------------- batches


class _Piece(NamedTuple):
    """Consecutive batches, made at once.

    number   (epoch, number in the epoch)
    batches  read-only views of the arrays of all rows
    """

    number: tuple[int, int]
    batches: list[Batch]


class _BatchOfPiece(Batch):
    """A batch whose different words are known."""

    words: np.ndarray | None = None

    def different_words(self) -> np.ndarray:
        return super().different_words() if self.words is None else self.words


class Batches:
    """Batches, made in pieces of several consecutive steps.

    A training step evicts NumPy's code from the caches: a batch of 32 rows made alone takes 110 us, mostly for loading
    that code, and 3 us as a part of a piece. So the different words of each batch are found with the piece, too.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int) -> None:
        self.windows, self.batch_size, self.seed = windows, integer("batch_size", batch_size, 1), _seed(seed)
        self.piece_size = max(1, min(_PIECE_ROWS // self.batch_size, _PIECE_BATCHES))
        self._made: _Piece | None = None

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0: a pure function of (seed, step); read-only views of a piece."""
        piece, place = self._locate(integer("step", step, 0))
        made = self._made
        if made is None or made.number != piece:
            made = self._made = _Piece(piece, self._make(piece))
        return made.batches[place]

    def _make(self, piece: tuple[int, int]) -> list[Batch]:
        near, far, targets = self.windows.take(self._indices(*piece))
        numbers = np.arange(len(near)) // self.batch_size
        sorted_words = different(numbers[:, None] << 32 | near)  # the words of the first batch come first
        starts = np.searchsorted(sorted_words, np.arange(numbers[-1] + 2) << 32)
        words = sorted_words.astype(np.int32)
        for array in (near, far, targets, words):
            if array is not None:
                array.flags.writeable = False
        batches: list[Batch] = []
        for place, (first, last) in enumerate(pairwise(starts)):
            rows = slice(place * self.batch_size, (place + 1) * self.batch_size)
            batch = _BatchOfPiece(near[rows], None if far is None else far[rows], targets[rows])
            batch.words = words[first:last]
            batches.append(batch)
        return batches

    def _locate(self, step: int) -> tuple[tuple[int, int], int]:
        """Return the piece of a step, as (epoch, number in the epoch), and the batch's index in the piece."""
        raise NotImplementedError

    def _indices(self, epoch: int, piece: int) -> np.ndarray:
        """Return the windows of a piece, batch after batch."""
        raise NotImplementedError


class RandomBatches(Batches):
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


class EpochBatches(Batches):
    """Every window once per epoch; each epoch has its own order.

    Memory: the order of one epoch, 8 bytes a window; 24 while it is drawn.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int) -> None:
        """Batches of `batch_size` windows; `seed` in [0, 2**63).

        The last batch of an epoch may be smaller; a single window, on which batchnorm cannot train, is left out.
        Raises TextError if that leaves no batch.
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
        """Return the permutation (len,) of an epoch: a function of (seed, epoch)."""
        drawn = self._drawn
        if drawn is None or drawn[0] != epoch:
            self._drawn = None  # so that two orders are never kept at once
            drawn = self._drawn = (epoch, self._new_order(epoch))
        return drawn[1]

    def _new_order(self, epoch: int) -> np.ndarray:
        return _permutation(self.seed, epoch, len(self.windows))


class StretchBatches(EpochBatches):
    """Every window once per epoch, in stretches of consecutive windows; each epoch has its own order of stretches.

    Within a stretch each window's averages follow from those of the window before, and neighbours share their words.
    Each epoch draws where the first stretch begins, so that stretches do not always hold the same windows. The windows
    before the first and after the last whole stretch come at the end of the epoch.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int, stretch: int = 16) -> None:
        """Batches of `batch_size` windows in stretches of `stretch`; otherwise as EpochBatches."""
        super().__init__(windows, batch_size, seed)
        self.stretch = integer("stretch", stretch, 1)

    def _new_order(self, epoch: int) -> np.ndarray:
        size, stretch = len(self.windows), self.stretch
        first = int(_random_integers(self.seed, _START_OF_EPOCH, range(epoch, epoch + 1), 1)[0, 0] % stretch)
        whole = max(size - first, 0) // stretch
        if not whole:
            return np.arange(size)
        starts = first + stretch * _permutation(self.seed, epoch, whole)
        rest = np.concatenate([np.arange(first), np.arange(first + stretch * whole, size)])
        return np.concatenate([(starts[:, None] + np.arange(stretch)).ravel(), rest])


def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return the windows sorted by random numbers.

    The low bits of each number are replaced by the window's index: so no two are equal, the result does not depend on
    how the sort treats equal numbers, and the sorted numbers contain the permutation. For a million windows 44 bits
    stay random: the chance that any two windows agree in them, and so stay in the text's order, is 1 in 30.
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

    use        purpose of the stream
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
    if integer("seed", seed, 0) >= 1 << 63:
        raise ValueError(f"seed: expected less than 2**63, got {seed}")
    return int(seed)
