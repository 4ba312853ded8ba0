"""What a tokenizer is: a text becomes words, and words come together to a text again."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator

__all__ = ["PIECE", "Forms", "Joiner", "Tokenizer"]

PIECE = 1 << 20
"""Characters that are split at once: what bounds the memory in between."""


class Tokenizer(ABC):
    """How a text becomes words, and words a text again."""

    name: str
    sentence_end: str
    """The word that ends a sentence, and stands for what comes before a text's first word."""
    capitalized: frozenset[str] = frozenset()
    """What the text taught that it was made for: words that begin with a capital wherever they stand."""
    _gap: re.Pattern[str] = re.compile(r"\s")
    """Before what a text may be cut."""

    def split(self, text: str) -> list[str]:
        """The words of a text, in its order; equal words are one object, so that a list of them stays small."""
        return self._words(text, Forms(self))

    def fit(self, text: str) -> tuple["Tokenizer", list[str]]:
        """The tokenizer made for a text, and that text's words; most are the same for every text."""
        return self, self.split(text)

    def join(self, words: Iterable[str]) -> str:
        """The text that a reader expects of these words."""
        return "".join(map(self.joiner().add, words))

    @abstractmethod
    def joiner(self) -> "Joiner":
        """What puts a text together while its words come one by one."""

    @abstractmethod
    def _candidates(self, piece: str) -> list[str]:
        """What may be words in a part of a text that begins and ends where it may be cut."""

    def _words(self, text: str, forms: "Forms") -> list[str]:
        """The words of a text, one object each."""
        words: list[str] = []
        for piece in _pieces(text, self._gap):
            words.extend(filter(None, map(forms.__getitem__, self._candidates(piece))))
        return words

    def _form(self, candidate: str) -> str:
        """The word that a candidate is; "" where it is none."""
        return candidate


class Joiner(ABC):
    """Puts a text together word by word: what `add` returned for each, one after the other, is the text."""

    @abstractmethod
    def add(self, word: str) -> str:
        """What the word adds to the text: itself as it is written there, with what stands before it."""

    def excluded(self) -> Collection[str]:
        """Words that may not come next in a text that is made up."""
        return ()


class Forms(dict[str, str]):
    """The word of every candidate seen so far."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __missing__(self, candidate: str) -> str:
        form = self.tokenizer._form(candidate)
        form = self[candidate] = self.setdefault(form, form)  # the form of a word is the word itself
        return form


def _pieces(text: str, gap: re.Pattern[str]) -> Iterator[str]:
    """A text in parts of about PIECE characters, cut before gaps; in one where it has none."""
    start = 0
    while start < len(text):
        found = gap.search(text, start + PIECE)
        end = found.start() if found else len(text)
        yield text[start:end]
        start = end
