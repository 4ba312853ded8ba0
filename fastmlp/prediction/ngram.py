"""A back-off model: probabilities of the n-grams that are known, and back-off weights for all others.

p(w | h), of the word w after the words h, is the probability of the n-gram h w where it is known. Else it is the
back-off weight of h (1 if h is not known either) times p(w | h without its first word).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from fastmlp.errors import ModelError

__all__ = ["BackoffCursor", "BackoffModel", "Level"]

Array = np.ndarray


@dataclass(frozen=True)
class Level:
    """The known n-grams of one length n, sorted by `key`; an n-gram's number is its place.

    key          (M,)          V times the number of its first n - 1 words (0 for n = 1), plus its last word; int64
    probability  (M,)          of its last word after the others, above 0, float32
    backoff      (M,) or None  its back-off weight as a context, float32; None: n is the order
    count        (M,) or None  how often it comes in the training text, int32; None: not known
    """

    key: Array
    probability: Array
    backoff: Array | None = None
    count: Array | None = None

    def find(self, keys: Array) -> Array:
        """Return the numbers of the n-grams with these keys, (N,); -1 where there is none."""
        places = np.searchsorted(self.key, keys)
        found = self.key.take(places, mode="clip") == keys if len(self.key) else np.zeros(len(keys), bool)
        return np.where(found, places, -1)

    def find_one(self, key: int) -> int:
        """Return the number of the n-gram with this key; -1 if there is none."""
        place = int(self.key.searchsorted(key))
        return place if place < len(self.key) and self.key[place] == key else -1


@dataclass(frozen=True)
class BackoffModel:
    """The known n-grams of all lengths.

    size    V, the size of the vocabulary
    levels  of n = 1, 2, ... order; all V words are known, with the number of their id
    """

    size: int
    levels: tuple[Level, ...]

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.levels)

    def log_probabilities(self, ids: Array) -> Array:
        """Return the log-probability of each word of a text from those before it, (N,) in nats, float32.

        ids  (N,)  in: the text
        """
        probability = self.levels[0].probability[ids].astype(np.float64)
        for (shorter, level), (at, context, number) in zip(pairwise(self.levels), self._numbers(ids), strict=True):
            assert shorter.backoff is not None
            known = number >= 0
            probability[at] *= shorter.backoff[context]
            probability[at[known]] = level.probability[number[known]]
        return np.asarray(np.log(probability), np.float32)

    def context_counts(self, ids: Array, length: int) -> Array:
        """Return how often the `length` words before each word of a text come in the training text, (N,), int32.

        ids     (N,)  in: the text
        length        as `checked_length` returns it
        0 where the text has fewer words before.
        """
        if length == 0:
            return np.full(len(ids), self.counts(1).sum(), np.int32)
        at, number = np.arange(len(ids)), ids  # of the n-grams of `length` words: where they end, their numbers
        for ends, _, found in self._numbers(ids, length):
            at, number = ends, found
        known = (number >= 0) & (at < len(ids) - 1)
        counts = np.zeros(len(ids), np.int32)
        counts[at[known] + 1] = self.counts(length)[number[known]]
        return counts

    def checked_length(self, length: int | None) -> int:
        """Return the length of the contexts to count, order - 1 for None; raise ValueError for an impossible one."""
        highest = self.order - 1
        if length is not None and not (0 <= length <= highest):
            raise ValueError(f"length: expected 0 to {highest} words before the next, got {length}")
        return highest if length is None else length

    def counts(self, length: int) -> Array:
        """Return how often each n-gram of this length comes in the training text; raise ModelError if not known."""
        count = self.levels[length - 1].count
        if count is None:
            raise ModelError("the model is from an ARPA file, which holds no counts")
        return count

    def _numbers(self, ids: Array, order: int | None = None) -> Iterator[tuple[Array, Array, Array]]:
        """Yield, for n = 2, ... order: the places whose n - 1 words before are known, their number, the n-gram's or -1.

        A place's n-gram is one of two: the n-gram of the place before without its first word, and this word.
        """
        number = ids.astype(np.int64)
        for level in self.levels[1:order]:
            at = np.flatnonzero(number[:-1] >= 0)
            context = number[at]
            at += 1
            found = level.find(context * self.size + ids[at])
            yield at, context, found
            number = np.full(len(ids), -1)
            number[at] = found

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of all levels by name, for a file."""
        named = (
            (f"{n}.{name}", array) for n, level in enumerate(self.levels, 1) for name, array in vars(level).items()
        )
        return {name: array for name, array in named if array is not None}

    @classmethod
    def from_arrays(cls, size: int, arrays: Mapping[str, Array]) -> "BackoffModel":
        """Restore a model from its arrays. Raise ValueError for arrays that are not those of a model."""
        names = [field.name for field in fields(Level)]
        order = sum(name.endswith(".key") for name in arrays)
        levels = [{name: arrays.get(f"{n}.{name}") for name in names} for n in range(1, order + 1)]
        if order < 1 or any(level["key"] is None or level["probability"] is None for level in levels):
            raise ValueError("n-grams: keys or probabilities are missing")
        model = cls(size, tuple(Level(**level) for level in levels))  # type: ignore[arg-type]
        model._check()
        return model

    def _check(self) -> None:
        """Raise ValueError where an array is not what `Level` says: a search would read elsewhere, or find nothing."""
        shorter = None
        for n, level in enumerate(self.levels, 1):
            contexts = 1 if shorter is None else len(shorter.key)
            last = n == self.order
            fits = (
                level.key.ndim == 1
                and level.key.dtype == np.int64
                and bool((np.diff(level.key) > 0).all())
                and (not len(level.key) or 0 <= level.key[0] <= level.key[-1] < contexts * self.size)
                and (n > 1 or len(level.key) == self.size)
                and _are_numbers(level.probability, len(level.key), above=0)
                and (last or (level.backoff is not None and _are_numbers(level.backoff, len(level.key), above=-1)))
                and (level.count is None or (level.count.shape == level.key.shape and level.count.dtype == np.int32))
            )
            if not fits:
                raise ValueError(f"n-grams: those of {n} are not as a model has them")
            shorter = level

    def cursor(self, before: Sequence[int]) -> "BackoffCursor":
        """Return the place after these words."""
        return BackoffCursor(self, before)


def _are_numbers(array: Array, count: int, *, above: float) -> bool:
    """Whether an array has this many finite numbers in float32, all above one."""
    fits = array.shape == (count,) and array.dtype == np.float32
    return fits and bool((np.isfinite(array) & (array > above)).all())


class BackoffCursor:
    """A place in a text that a back-off model continues."""

    def __init__(self, model: BackoffModel, before: Sequence[int]) -> None:
        self._model = model
        self._numbers = [0] + [-1] * (model.order - 1)  # of the last 0, 1, ... order - 1 words; -1: not known
        for word in before[max(0, len(before) - model.order + 1) :]:
            self.add(word)

    def probabilities(self) -> Array:
        """Return the probability of each word as the next one in a new array (V,), float32."""
        size, levels = self._model.size, self._model.levels
        weight, known = 1.0, []
        for length in range(len(levels) - 1, 0, -1):  # of the context
            context, level, backoff = self._numbers[length], levels[length], levels[length - 1].backoff
            if context < 0:
                continue
            begin, end = np.searchsorted(level.key, [context * size, (context + 1) * size])
            known.append((level.key[begin:end] - context * size, level.probability[begin:end] * np.float32(weight)))
            assert backoff is not None
            weight *= float(backoff[context])
        probabilities = levels[0].probability * np.float32(weight)
        for words, theirs in reversed(known):
            probabilities[words] = theirs
        return np.asarray(probabilities)

    def logits(self) -> Array:
        """Return the log-probability of each word as the next one in a new array (V,), float32."""
        return np.asarray(np.log(self.probabilities()))

    def context_count(self, length: int | None = None) -> int:
        """Return how often the last `length` words, None: order - 1, come in the training text; 0 for fewer words."""
        length = self._model.checked_length(length)
        if length == 0:
            return int(self._model.counts(1).sum())
        number = self._numbers[length]
        return int(self._model.counts(length)[number]) if number >= 0 else 0

    def add(self, word: int) -> None:
        """Append a word by its id; raise IndexError for an id outside the vocabulary."""
        word, size, numbers = int(word), self._model.size, self._numbers
        if not 0 <= word < size:
            raise IndexError(f"word: expected an id in [0, {size}), got {word}")
        found = (
            level.find_one(number * size + word) if number >= 0 else -1
            for level, number in zip(self._model.levels[:-1], numbers[:-1], strict=True)
        )
        self._numbers = [0, *found]
