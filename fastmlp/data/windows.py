"""The parts of a text as ids, and the windows on which a network trains."""

from collections.abc import Sized
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from fastmlp.errors import TextError

__all__ = ["Batch", "Split", "Windows", "as_ids", "evenly_spaced", "split_ids"]

_INTEGER = (int, np.integer)


# --------------------------------------------------------------------------------------------------- parts of the text


@dataclass(frozen=True)
class Split:
    """The contiguous parts of a text, one after the other: int32 ids, views of one array.

    train  the beginning
    val    the middle; empty if its fraction is 0
    test   the end; empty if its fraction is 0
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def split_ids(ids: np.ndarray, val_fraction: float, test_fraction: float) -> Split:
    """Split a text in three: training, validation and, at the end, test part.

    ids            (N,)  in
    val_fraction         part of all words, 0 <= fraction, together less than 1
    test_fraction        likewise
    The parts begin at floor(N * (1 - val - test)) and floor(N * (1 - test)), computed with exact
    decimal fractions: 0.05 is 1/20. Raises TextError if a part with a fraction above 0 would have no word.
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
    """Return ids (N,) of any integer type and layout as contiguous int32.

    Raises TypeError, ValueError or IndexError, which names the argument, for anything else.
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


class Batch(NamedTuple):
    """The words of one training step or one prediction, int32.

    near     (B, T)          the words just before each target, in the order of the text
    far      (B, K) or None  the words before these, likewise; -1 where the text has not begun
    targets  (B,)            the true next words
    """

    near: np.ndarray
    far: np.ndarray | None
    targets: np.ndarray

    def different_words(self) -> np.ndarray:
        """Return the different words of near (U,), ascending."""
        return different(self.near)


class Windows:
    """The (words before -> next word) windows of a text: window i predicts the word after T words.

    A view of the ids, without memory of its own; only `history` and `reach` make copies of the ids.
    targets  (N,)  what each window predicts
    before   (M,)  the text's words before the first target
    """

    def __init__(
        self,
        ids: np.ndarray,
        context: int,
        *,
        reach: int = 0,
        history: np.ndarray | None = None,
        padding: int | None = None,
    ) -> None:
        """Make all windows of a text.

        ids      (N,)           in: the text
        context                 T, the number of words just before a target
        reach                   K, the number of words before these; 0: none
        history  (M,) or None   in: the words before the text, from which its first words are predicted: window i
                                predicts word i; None: window i predicts word T + i
        padding                 the id that fills up a history of fewer than T words
        Raise TextError if the text is too short for one window.
        """
        ids = as_ids("ids", ids)
        context, reach = integer("context", context, 1), integer("reach", reach, 0)
        needed = 1 if history is not None else context + 1
        if ids.size < needed:
            raise TextError(
                f"the text is too short: {_count(ids.size, 'word')} where a context of"
                f" {context} needs at least {needed}; name a longer text"
            )
        self.context, self.reach = context, reach
        self.before, self.targets = ids[:context], ids[context:]
        if history is not None:
            self.before, self.targets = as_ids("history", history)[-(context + reach) :], ids
        missing = max(context - len(self.before), 0)
        if missing and padding is None:
            raise ValueError(f"history: expected at least {context} words, got {len(self.before)}")
        known = ids if history is None else np.concatenate([self.before, ids])
        padded = np.concatenate([np.full(missing, padding, np.int32), known]) if missing else known
        first = len(padded) - len(self.targets)  # index of the first target in the padded text
        self._near = _windows_of(padded[first - context : -1], context)
        self._far = None
        if reach:
            nothing = np.full(max(reach + context - len(self.before), 0), -1, np.int32)
            far = np.concatenate([nothing, known])
            first = len(far) - len(self.targets)
            self._far = _windows_of(far[first - context - reach : len(far) - context - 1], reach)

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: np.ndarray) -> Batch:
        """Copy windows into a batch.

        indices  (B,)  in:  which windows, 0 <= index < len
        """
        indices = np.asarray(indices)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"indices: expected integers, got {indices.dtype}")
        if indices.ndim != 1:
            raise ValueError(f"indices: expected shape (B,), got {indices.shape}")
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            wrong = indices.min() if indices.min() < 0 else indices.max()
            raise IndexError(f"indices: expected windows in [0, {len(self)}), got {wrong}")
        far = None if self._far is None else np.ascontiguousarray(self._far[indices])
        return Batch(np.ascontiguousarray(self._near[indices]), far, self.targets[indices])


def different(ids: np.ndarray) -> np.ndarray:
    """Return the different ids (U,), ascending, in a fifth of the time of np.unique."""
    ids = np.sort(ids, axis=None)
    is_first = np.empty(ids.shape, bool)
    is_first[:1] = True
    np.not_equal(ids[1:], ids[:-1], out=is_first[1:])
    unique: np.ndarray = ids[is_first]
    return unique


def _windows_of(ids: np.ndarray, width: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(ids, width)


def evenly_spaced(windows: Sized, count: int) -> np.ndarray:
    """Return the indices (min(count, len),) of a fixed sample of windows, evenly spread from the first on."""
    count = min(integer("count", count, 1), len(windows))
    return np.arange(count, dtype=np.int64) * len(windows) // count


def integer(name: str, value: int, least: int) -> int:
    if not isinstance(value, _INTEGER):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
