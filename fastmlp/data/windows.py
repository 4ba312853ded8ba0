"""The parts of a text as ids, and the windows on which a network trains."""

from collections.abc import Sized
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from fastmlp.errors import TextError

__all__ = ["Split", "Windows", "as_ids", "evenly_spaced", "split_ids"]

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


class Windows:
    """The (context -> next word) windows of a text: window i predicts the word after T words.

    A view of the ids, without memory of its own; with `history` a copy of them.
    """

    def __init__(self, ids: np.ndarray, context: int, *, history: np.ndarray | None = None) -> None:
        """All windows of a text.

        ids      (N,)           in: the text
        context                 T, the number of words in a context
        history  (M,) or None   in: the words before the text, M >= T: the text's first words are predicted from their
                                end, so that window i predicts word i; None: window i predicts word T + i
        Raises TextError if the text is too short for one window.
        """
        ids = as_ids("ids", ids)
        context = integer("context", context, 1)
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
