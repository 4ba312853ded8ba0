"""The vocabulary: words to ids and back, the most frequent first."""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat

import numpy as np

from fastmlp.errors import TextError

__all__ = ["UNK", "Vocabulary", "bytes_to_words", "checked_words", "is_word", "words_to_bytes"]

UNK = "<unk>"


# ---------------------------------------------------------------------------------------------------------- vocabulary


@dataclass(frozen=True)
class Vocabulary:
    """The words that a network knows; a word's id is its place.

    words  all different, the last one `<unk>`
    """

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", {word: index for index, word in enumerate(self.words)})
        if not self.words or self.words[-1] != UNK:
            raise ValueError(f"words: expected {UNK} as the last one, got {self.words[-1:]}")
        if len(self._ids) != len(self.words):
            twice = next(word for index, word in enumerate(self.words) if self._ids[word] != index)
            raise ValueError(f"words: expected different words, got {twice!r} twice")

    @classmethod
    def from_words(cls, words: Iterable[str], *, max_size: int | None = None, min_count: int = 1) -> "Vocabulary":
        """Count words: the most frequent first, equally frequent ones in the order of their characters.

        words      of a whole text; a `<unk>` among them, as in published benchmarks, becomes the vocabulary's
        max_size   the largest len() of the vocabulary, `<unk>` included; None: no limit
        min_count  words that occur less often are left out
        What is left out becomes `<unk>`. Raises TextError where no word is left.
        """
        if min_count < 1:
            raise ValueError(f"min_count: expected at least 1, got {min_count}")
        if max_size is not None and max_size < 2:
            raise ValueError(f"max_size: expected at least 2 ({UNK} and a word), got {max_size}")
        counts = Counter(words)
        counts.pop(UNK, None)
        if not any(map(is_word, counts)):
            raise TextError("the text has no words, only punctuation or white space; name a text with words in it")
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        if not kept:
            most = max(counts.values())
            raise TextError(f"min_count {min_count} leaves no word: the most frequent one occurs {most} times")
        return cls((*kept[: None if max_size is None else max_size - 1], UNK))

    @classmethod
    def of_ids(cls, size: int) -> "Vocabulary":
        """The numbers below `size`, each its own id, and `<unk>`."""
        return cls((*map(str, range(size)), UNK))

    def __len__(self) -> int:
        """V, with `<unk>`."""
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    @property
    def unk_id(self) -> int:
        """The id of `<unk>`, the last one."""
        return len(self.words) - 1

    def id_of(self, word: str) -> int:
        """A word's id; that of `<unk>` for a word that is not there."""
        return self._ids.get(word, self.unk_id)

    def in_its_case(self, word: str) -> str:
        """Return the word; if it is missing, the most frequent one that differs in capitals only."""
        return word if word in self else self._by_folded.get(word.casefold(), word)

    @cached_property
    def _by_folded(self) -> dict[str, str]:
        """The most frequent word of those that differ in capitals only, by its form without capitals."""
        return {word.casefold(): word for word in reversed(self.words)}

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """The ids (N,) of words, int32; that of `<unk>` for each word that is not there."""
        return np.fromiter(map(self._ids.get, words, repeat(self.unk_id)), np.int32, len(words))

    def decode(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The words of ids.

        Raises IndexError for an id outside [0, V).
        """
        numbers = np.asarray(ids).tolist()
        if numbers and not 0 <= min(numbers) <= max(numbers) < len(self):
            wrong = next(number for number in numbers if not 0 <= number < len(self))
            raise IndexError(f"ids: expected ids in [0, {len(self)}), got {wrong}")
        return [self.words[number] for number in numbers]

    def closest(self, word: str, n: int = 3) -> list[str]:
        """Up to n words of the vocabulary that are spelled like `word`, the closest first."""
        # Only lengths that can reach difflib's ratio of 2 * common letters / all letters: a fraction of the vocabulary
        cutoff = 0.7
        shortest, longest = len(word) * cutoff / (2 - cutoff), len(word) * (2 - cutoff) / cutoff
        candidates = [other for other in self.words[:-1] if shortest <= len(other) <= longest]
        return difflib.get_close_matches(word, candidates, n, cutoff)


def words_to_bytes(words: Iterable[str]) -> np.ndarray:
    """Return words as one array of bytes, which a checkpoint holds whatever their number: JSON in UTF-8."""
    written = json.dumps(list(words), ensure_ascii=False, separators=(",", ":"))
    return np.frombuffer(written.encode("utf-8", "surrogatepass"), np.uint8)


def bytes_to_words(written: np.ndarray) -> tuple[str, ...]:
    """Return the words of an array that `words_to_bytes` made. Raise ValueError for another."""
    try:
        words = json.loads(written.tobytes().decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        words = None
    return checked_words(words)


def checked_words(words: object) -> tuple[str, ...]:
    """Return a list of words that came from a file. Raise ValueError for anything else."""
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("expected a list of words as JSON")
    return tuple(words)


def is_word(word: str) -> bool:
    """Whether a token is a word: not punctuation, not a mark such as `<eos>`."""
    return any(map(str.isalnum, word)) and not (word.startswith("<") and word.endswith(">"))
