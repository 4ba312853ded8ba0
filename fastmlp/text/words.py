"""The tokenizers `words` and `whitespace`, numbers in place of words, and the table of them all."""

import unicodedata
from collections.abc import Iterable, Mapping

from fastmlp.text.prose import Prose
from fastmlp.text.tokenizer import Joiner, Tokenizer
from fastmlp.text.vocabulary import UNK

__all__ = ["IDS", "TOKENIZERS", "get_tokenizer"]

# ---------------------------------------------------------------------------------------------------------- tokenizers


class _Spaced(Joiner):
    """Joins words by single spaces, but attaches one word to the word before it.

    attached  the word without a space before it; None: there is none
    written   its spelling in the text; if that is white space, the next word has no space before it either
    """

    def __init__(self, attached: str | None = None, written: str = "") -> None:
        self.attached, self.written = attached, written
        self.space = ""

    def add(self, word: str) -> str:
        if word == self.attached:
            self.space = "" if self.written.isspace() else " "
            return self.written
        piece, self.space = self.space + word, " "
        return piece


class _Roles(dict[int, str]):
    """The role of each character in the `words` rule, cached: itself, an apostrophe (it vanishes) or a space."""

    # apostrophes, hyphens (the last one soft), and joiners without width, as Persian and Indic scripts have in words
    VANISHING = frozenset("'\u2018\u2019\u02bc" + "-\u2010\u2011\u00ad" + "\u200c\u200d\u2060\ufeff")

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in self.VANISHING:
            role = "'"
        elif character == "." or character.isalnum() or unicodedata.category(character).startswith("M"):
            role = character
        else:
            role = " "
        self[code] = role
        return role


_ROLES = _Roles()


class Words(Tokenizer):
    """Plain lower-case words, and '.'.

    Runs of two or more ASCII hyphens separate words, as U+2012 to U+2015 and every other dash do. Then apostrophes
    (' U+2018 U+2019 U+02BC), hyphens (- U+2010 U+2011, soft U+00AD) and joiners without width inside a word vanish:
    "don't" is dont, "seventeen-year-old" seventeenyearold. Letters and digits of any script (str.isalnum), with the
    combining marks that follow them, form words, lower-cased and in Unicode's normal form C. '.' is a word of its own,
    wherever it stands. All else is white space, `_` and other punctuation included.
    """

    name = "words"
    sentence_end = "."

    def joiner(self) -> Joiner:
        """Words separated by single spaces, '.' attached to the word before it.

        Of a text that was split, capitals, line breaks and all punctuation but '.' are gone. Splitting the result gives
        the same words again.
        """
        return _Spaced(self.sentence_end, ".")

    def _candidates(self, piece: str) -> list[str]:
        # At the edge of a word an apostrophe may vanish or become white space: its other side is white space anyway. So
        # all of them can vanish, once the dashes are spaces.
        return piece.replace("--", " ").translate(_ROLES).replace("'", "").replace(".", " . ").split()

    def _form(self, candidate: str) -> str:
        if candidate.isascii():
            return candidate.lower()
        # marks without a letter before them do not belong to the word
        first = next((place for place, character in enumerate(candidate) if character.isalnum()), len(candidate))
        return unicodedata.normalize("NFC", candidate[first:].lower())


class Whitespace(Tokenizer):
    """Text that is tokenized already, as the published benchmarks are.

    Words are what str.split() finds. Each line end but one that ends the text is the word `<eos>`. A line end is "\\n",
    which read_text makes of CRLF and CR; Unicode's other line separators are white space only.
    """

    name = "whitespace"
    sentence_end = "<eos>"

    def split(self, text: str) -> list[str]:
        """Return the words of a text in order; equal words are one object, so that the list stays small."""
        words = super().split(text)
        if text.endswith("\n"):
            words.pop()
        return words

    def joiner(self) -> Joiner:
        """Words separated by single spaces, `<eos>` as a line end.

        Of a text that was split, white space between words is one space, that around a line end is gone, and so is the
        line end that ends it. Splitting the result gives the same words again, but for an `<eos>` as the last.
        """
        return _Spaced(self.sentence_end, "\n")

    def _candidates(self, piece: str) -> list[str]:
        return piece.replace("\n", f" {self.sentence_end} ").split()


class Ids(Tokenizer):
    """Numbers instead of words: each is a word of its own, written in decimal digits.

    The context of the first one is `<unk>`, which is not one of the numbers.
    """

    name = "ids"
    sentence_end = UNK

    def joiner(self) -> Joiner:
        """Numbers separated by single spaces."""
        return _Spaced()

    def _candidates(self, piece: str) -> list[str]:
        return piece.split()


IDS = Ids()
TOKENIZERS: Mapping[str, Tokenizer] = {tokenizer.name: tokenizer for tokenizer in (Words(), Prose(), Whitespace())}


def get_tokenizer(name: str, capitalized: Iterable[str] = ()) -> Tokenizer:
    """The tokenizer of that name, one of TOKENIZERS or IDS.

    capitalized  the `capitalized` of a tokenizer that was fitted to a text
    Raises ValueError for another name.
    """
    if name == IDS.name:
        return IDS
    if name not in TOKENIZERS:
        raise ValueError(f"tokenizer: expected one of {', '.join(TOKENIZERS)}, got {name!r}")
    return Prose(capitalized) if name == Prose.name else TOKENIZERS[name]
