"""The tokenizers `words` and `whitespace`, numbers in place of words, and the table of them all."""

import unicodedata
from collections.abc import Iterable, Mapping

from fastmlp.options import RULES
from fastmlp.text.characters import (
    APOSTROPHES,
    JOINERS,
    Table,
    apart,
    is_invisible,
    is_of_spaceless_script,
    mended_apostrophes,
    plain_form,
    visible,
)
from fastmlp.text.prose import Prose
from fastmlp.text.tokenizer import Joiner, Tokenizer
from fastmlp.text.vocabulary import UNK

__all__ = ["IDS", "TOKENIZERS", "get_tokenizer"]

# ---------------------------------------------------------------------------------------------------------- tokenizers


class _Spaced(Joiner):
    """Joins words by single spaces (letters of scripts without spaces by none); attaches one to the word before it.

    attached  the word without a space before it; None: there is none
    written   its spelling in the text; if that is white space, the next word has no space before it either
    spaceless whether letters of scripts without spaces are words
    """

    def __init__(self, attached: str | None = None, written: str = "", *, spaceless: bool = False) -> None:
        self.attached, self.written, self.spaceless = attached, written, spaceless
        self.space, self.last_is_spaceless = "", False

    def add(self, word: str) -> str:
        if word == self.attached:
            self.space = "" if self.written.isspace() else " "
            return self.written
        spaceless = self.spaceless and is_of_spaceless_script(word[:1])
        piece = word if spaceless and self.last_is_spaceless else self.space + word
        self.space, self.last_is_spaceless = " ", spaceless
        return piece


# apostrophes, hyphens (the last one soft), and joiners without width, as Persian and Indic scripts have in words
_VANISHING_1 = frozenset("'\u2018\u2019\u02bc" + "-\u2010\u2011\u00ad" + "\u200c\u200d\u2060\ufeff")
_TATWEEL = "\u0640"  # stretches an Arabic word
_VANISHING = frozenset(APOSTROPHES + "-\u2010\u2011" + JOINERS + _TATWEEL)
_STOPS = frozenset(".\u3002\uff61\u06d4\u0964\u0965\u17d4\u104b")
"""Full stops: the Chinese and Japanese, Urdu, Indic, Khmer and Burmese ones."""
_SPACE_WITHOUT_WIDTH = "\u200b"  # stands between words of Khmer and Thai


def _role_1(character: str) -> str:
    """The role of a character in rules 1: itself, an apostrophe (it vanishes) or a space."""
    if character in _VANISHING_1:
        return "'"
    if character == "." or character.isalnum() or unicodedata.category(character).startswith("M"):
        return character
    return " "


def _role(written: str) -> str:
    """The role of a character: those of its plain form. A letter of a script without spaces has a NUL before it."""
    return "".join(map(_role_of_plain, plain_form(written)))


def _role_of_plain(character: str) -> str:
    if character in _VANISHING or (is_invisible(character) and character != _SPACE_WITHOUT_WIDTH):
        return "'"
    if character in _STOPS:
        return "."
    return f"\0{character}" if is_of_spaceless_script(character) else _role_1(character)


_ROLES = {1: Table(_role_1), RULES: Table(_role)}


class Words(Tokenizer):
    """Plain lower-case words, and '.'.

    Runs of two or more ASCII hyphens separate words, as U+2012 to U+2015 and every other dash do. Then apostrophes
    (' U+2019 and whatever else is typed as one), hyphens (- U+2010 U+2011) and characters that show nothing (soft
    hyphens, direction marks, fillers, a byte order mark) vanish: "don't" is dont, "seventeen-year-old"
    seventeenyearold. Letters and digits of any script (str.isalnum), with the combining marks that follow them, form
    words, lower-cased and in Unicode's normal form C; ligatures, full-width letters and presentation forms are their
    plain letters. Letters of scripts without spaces (Han, Kana, Thai, Lao, Khmer, Burmese) are a word each. '.' is a
    word of its own, wherever it stands, and so is another script's full stop. All else is white space, `_` and other
    punctuation included.

    rules  1: of the apostrophes only ' U+2018 U+2019 U+02BC vanish, of what shows nothing only U+00AD U+200C U+200D
           U+2060 U+FEFF; letters keep their form; scripts without spaces have words as long as a clause
    """

    name = "words"
    sentence_end = "."

    def __init__(self, rules: int = RULES) -> None:
        self.rules = rules

    def joiner(self) -> Joiner:
        """Words separated by single spaces, '.' attached to the word before it.

        Of a text that was split, capitals, line breaks and all punctuation but '.' are gone. Splitting the result gives
        the same words again.
        """
        return _Spaced(self.sentence_end, ".", spaceless=self.rules > 1)

    def _candidates(self, piece: str) -> list[str]:
        # At the edge of a word an apostrophe may vanish or become white space: its other side is white space anyway. So
        # all of them can vanish, once the dashes are spaces.
        if self.rules > 1:
            piece = mended_apostrophes(piece)
        piece = piece.replace("--", " ").translate(_ROLES[self.rules]).replace("'", "").replace(".", " . ")
        return apart(piece).split()

    def _form(self, candidate: str) -> str:
        if candidate.isascii():
            return candidate.lower()
        # marks without a letter before them do not belong to the word
        first = next((place for place, character in enumerate(candidate) if character.isalnum()), len(candidate))
        return unicodedata.normalize("NFC", candidate[first:].lower())


class Whitespace(Tokenizer):
    """Text that is tokenized already, as the published benchmarks are.

    Words are what str.split() finds. Each line end but one that ends the text is the word `<eos>`. A line end is "\\n",
    which read_text makes of CRLF and CR; Unicode's other line separators are white space only. Characters that show
    nothing vanish.

    rules  1: they stay
    """

    name = "whitespace"
    sentence_end = "<eos>"

    def __init__(self, rules: int = RULES) -> None:
        self.rules = rules

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

    def _form(self, candidate: str) -> str:
        return candidate if self.rules == 1 else visible(candidate)


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


def get_tokenizer(name: str, capitalized: Iterable[str] = (), *, rules: int = RULES) -> Tokenizer:
    """The tokenizer of that name, one of TOKENIZERS or IDS.

    capitalized  the `capitalized` of a tokenizer that was fitted to a text
    rules        those by which it splits
    Raises ValueError for another name, and for rules that this fastmlp does not know.
    """
    if name == IDS.name:
        return IDS
    if name not in TOKENIZERS:
        raise ValueError(f"tokenizer: expected one of {', '.join(TOKENIZERS)}, got {name!r}")
    if rules not in range(1, RULES + 1):
        raise ValueError(f"rules: expected one of 1 to {RULES}, got {rules!r}; upgrade fastmlp")
    if name == Prose.name:
        return Prose(capitalized, rules)
    return TOKENIZERS[name] if rules == RULES else {Words.name: Words, Whitespace.name: Whitespace}[name](rules)
