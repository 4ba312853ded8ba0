"""The interface of tokenizers: split a text into words, and join words to a text."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator

from fastmlp.options import RULES

__all__ = ["PIECE", "Forms", "Joiner", "Tokenizer"]

PIECE = 1 << 20
"""Characters that are split at once, which bounds the temporary memory."""


class Tokenizer(ABC):
    """Splits a text into words and joins words to a text."""

    name: str
    sentence_end: str
    """The word that ends a sentence, and that fills the context of a text's first word."""
    rules: int = RULES
    """The number of the rules by which it splits: what it was saved with is read by them (see fastmlp.options)."""
    capitalized: frozenset[str] = frozenset()
    """Words that always begin with a capital, learned by `fit`."""
    _gap: re.Pattern[str] = re.compile(r"\s")
    """Matches before which a text may be cut."""

    def split(self, text: str) -> list[str]:
        """Return the words of a text in order; equal words are one object, so that the list stays small."""
        return self._words(text, Forms(self))

    def fit(self, text: str) -> tuple["Tokenizer", list[str]]:
        """Return a tokenizer fitted to a text, and the text's words; most tokenizers need no fitting."""
        return self, self.split(text)

    def join(self, words: Iterable[str]) -> str:
        """Return the words as a readable text."""
        return "".join(map(self.joiner().add, words))

    @abstractmethod
    def joiner(self) -> "Joiner":
        """Return a new joiner, which takes a text's words one by one."""

    @abstractmethod
    def _candidates(self, piece: str) -> list[str]:
        """Return possible words of a piece of text that was cut before gaps."""

    def _words(self, text: str, forms: "Forms") -> list[str]:
        """Return the words of a text; equal words are one object."""
        words: list[str] = []
        for piece in _pieces(text, self._gap):
            words.extend(filter(None, map(forms.__getitem__, self._candidates(piece))))
        return words

    def _form(self, candidate: str) -> str:
        """Return the word of a candidate; "" if it is none."""
        return candidate


class Joiner(ABC):
    """Joins words to a text: the returned strings of `add`, in order, are the text."""

    @abstractmethod
    def add(self, word: str) -> str:
        """Return the word as the text continues with it: the space before it and its spelling."""

    def excluded(self) -> Collection[str]:
        """Return the words that may not come next in a generated text."""
        return ()


class Forms(dict[str, str]):
    """A cache of the word of each candidate."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __missing__(self, candidate: str) -> str:
        form = self.tokenizer._form(candidate)
        form = self[candidate] = self.setdefault(form, form)  # a word is its own form
        return form


def _pieces(text: str, gap: re.Pattern[str]) -> Iterator[str]:
    """Yield pieces of about PIECE characters, cut before gaps; without gaps the whole text."""
    start = 0
    while start < len(text):
        found = gap.search(text, start + PIECE)
        end = found.start() if found else len(text)
        yield text[start:end]
        start = end
