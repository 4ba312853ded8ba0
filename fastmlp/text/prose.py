"""The `prose` tokenizer: splits a novel into words, punctuation and paragraphs, and prints them as a page again."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from itertools import chain, compress, islice

from fastmlp.options import RULES
from fastmlp.text.characters import (
    APOSTROPHES,
    Table,
    apart,
    is_invisible,
    is_of_spaceless_script,
    mended_apostrophes,
    plain_form,
    without_joiners,
)
from fastmlp.text.tokenizer import Forms, Joiner, Tokenizer

__all__ = ["PARAGRAPH", "Prose"]

PARAGRAPH = "<p>"
"""The word between two paragraphs. No text contains it, since '<' and '>' are words of their own."""

_PAIRS = {"“": "”", "‘": "’", "«": "»", "‹": "›", "(": ")", "[": "]", "{": "}", "<": ">"}
_OPENING, _CLOSING = frozenset(_PAIRS), frozenset(_PAIRS.values())
_MARKS = _OPENING | _CLOSING
_STOPS = frozenset(",;:.!?…")
_DASH = "—"
_APOSTROPHE = "’"
_LONE = "'"
"""The word of an apostrophe that belongs to no word and closes no quotation."""
_NOT_WORDS = _MARKS | _STOPS | {_DASH, _LONE, PARAGRAPH, ""}


class Prose(Tokenizer):
    """A novel's words and punctuation.

    Words are what stands between white space and marks, with the apostrophes, hyphens, and signs inside them: don't,
    seventeen-year-old, 3.14, 1,000, £5, &c. Each of , ; : . ! ? … ( ) [ ] { } < > and the dash is a word of its own,
    and so is each quotation mark: one that opens and one that closes are two words. A full stop stays with an
    abbreviation: before a lower-case word or another stop, after single letters but I, and after some titles (Mr.).
    A longer line is a word or a part of one: `Mr ——`. `<p>` stands between paragraphs.

    Words keep their capitals, except at the beginning of a paragraph or after a full stop: a word that the text writes
    in lower case more often than with a capital inside sentences is lower case there too. After ? and ! a
    sentence may or may not begin, so nothing is changed. `capitalized` are the words that keep their capital; `fit`
    finds them. Forms of letters, characters that show nothing and scripts without spaces are as with `words`; the
    marks of those scripts are words too.

    rules  1: only an apostrophe U+02BC is as ’, only U+00AD U+200B U+2060 U+FEFF vanish, letters keep their form, and
           scripts without spaces have words as long as a clause
    """

    name = "prose"
    sentence_end = PARAGRAPH

    def __init__(self, capitalized: Iterable[str] = (), rules: int = RULES) -> None:
        self.capitalized, self.rules = frozenset(capitalized), rules

    def split(self, text: str) -> list[str]:
        """Return the words of a text in order; equal words are one object, so that the list stays small."""
        forms = Forms(self)
        words = self._words(text, forms)
        _lower_beginnings(words, self.capitalized, forms)
        return words

    def fit(self, text: str) -> tuple["Prose", list[str]]:
        """Return a tokenizer with the words of this text that keep their capital, and the text's words."""
        forms = Forms(self)
        words = self._words(text, forms)
        fitted = Prose(_capitalized(words), self.rules)
        _lower_beginnings(words, fitted.capitalized, forms)
        return fitted, words

    def joiner(self) -> Joiner:
        """Return a joiner that prints a page: paragraphs separated by empty lines, capitals where sentences begin.

        Of a text that was split,
        - line breaks, indentation and runs of white space are one space, or an empty line between paragraphs;
        - there is no space around dashes, inside brackets and quotation marks and before stops, but one outside of
          brackets and quotation marks and after stops (not between two marks, and not inside of numbers);
        - _ which marks italics (where it is not between two letters), soft hyphens and spaces without width are gone;
        - quotation marks and apostrophes are “ ” ‘ ’ or those of « » ‹ › that open and close; every dash (--, ---,
          U+2012, U+2014, U+2015, U+2013 but between digits) is —, a longer line ——, two full stops or more are …,
          U+2010 and U+2011 are -;
        - the first word of a paragraph, and one after a full stop and a mark, has a capital; all is in normal form C.
        Splitting the result gives the same words again.
        """
        return _ProseJoiner(self.capitalized, self.rules)

    _gap = re.compile(r"\n[^\S\n]*\n")

    def _words(self, text: str, forms: Forms) -> list[str]:
        words = super()._words(text, forms)
        _abbreviate(words, forms)
        return list(islice(filter(None, words), 1, None))  # no <p> before the first paragraph

    def _candidates(self, piece: str) -> list[str]:
        plain = _plain(piece) if self.rules == 1 else _plain_spaced(piece)
        paragraphs = (_QUOTE.sub(_Quotations(), paragraph) for paragraph in self._gap.split(plain))
        piece = f" {PARAGRAPH} ".join(paragraph for paragraph in paragraphs if paragraph.strip())
        piece = piece.replace("\0", " ")  # at the letters of scripts without spaces
        for mark in ";!?…()[]{}":
            piece = piece.replace(mark, f" {mark} ")
        for pattern, mark in _NOT_IN_NUMBERS:
            piece = pattern.sub(f" {mark} ", piece)
        words = piece.split()
        return [PARAGRAPH, *words] if words else []

    def _form(self, candidate: str) -> str:
        return unicodedata.normalize("NFC", candidate)


# --------------------------------------------------------------------------------------------- one way to write a thing

_SPELLINGS = str.maketrans(
    {
        **dict.fromkeys("\u00ad\u200b\u2060\ufeff", ""),  # a soft hyphen, spaces without width
        **dict.fromkeys("\u2010\u2011", "-"),
        **dict.fromkeys("\u2012—\u2015", "--"),
        **dict.fromkeys("„‟", "“"),
        "‚": "‘",
        "\u02bc": _APOSTROPHE,
        "\u2e3a": "----",  # a dash of double width
        "\u037e": ";",  # the Greek question mark, which normal form C makes a semicolon
    }
)
_EN_DASH = re.compile(r"–(?:(?!\d)|(?<!\d–))")
_HYPHENS = re.compile("--+")
_DOTS = re.compile(r"\.{2,}")
_UNDERSCORES = re.compile("_+")
_NOT_IN_NUMBERS = (
    (re.compile(r",(?:(?!\d)|(?<!\d,))"), ","),  # 1,000
    (re.compile(r":(?:(?!\d)|(?<!\d:))"), ":"),  # 10:30
    (re.compile(r"\.(?!\w)"), "."),  # 3.14, and i.e
)


_SPACELESS_MARKS = frozenset("\u3001\u3002\u30fb" + "".join(map(chr, [*range(0x3008, 0x3012), *range(0x3014, 0x3020)])))
"""Marks of Chinese and Japanese, which have no spaces around them; others have forms of half the width, as ! has."""
_OPEN_OR_APOSTROPHE = frozenset("‘\u02bb\u201b\x91")
_AS_APOSTROPHE = frozenset(APOSTROPHES) - _OPEN_OR_APOSTROPHE - {"'", "\u05f4"}


def _spelling(written: str) -> str:
    return "".join(map(_spelling_of_plain, plain_form(written)))


def _spelling_of_plain(character: str) -> str:
    """Return a character as the tokenizer has it; a NUL is before a letter that is a word."""
    if character in _AS_APOSTROPHE:
        return _APOSTROPHE
    if character in _OPEN_OR_APOSTROPHE:
        return "‘"
    if character == "\u0640" or is_invisible(character):
        return ""
    if character in _SPACELESS_MARKS:
        return f" {character} "
    return f"\0{character}" if is_of_spaceless_script(character) else _SPELLINGS.get(ord(character), character)


_SPELLINGS_OF_ALL = Table(_spelling)


def _plain_spaced(text: str) -> str:
    """Return `_plain` of a text by the newest rules."""
    text = mended_apostrophes(text)
    if not text.isascii():
        text = _EN_DASH.sub("--", apart(without_joiners(text.translate(_SPELLINGS_OF_ALL))))
    return _marked(text)


def _plain(text: str) -> str:
    """Return the text with one character for each mark, and spaces around dashes, '<' and '>'."""
    if not text.isascii():
        text = _EN_DASH.sub("--", text.translate(_SPELLINGS))
    return _marked(text)


def _marked(text: str) -> str:
    text = _HYPHENS.sub(_dash, _UNDERSCORES.sub(_underscore, text))
    if ".." in text:
        text = _DOTS.sub("…", text)
    return text.replace("<", " < ").replace(">", " > ")


def _underscore(match: re.Match[str]) -> str:
    """Remove an underscore unless it is between two letters."""
    text, start, end = match.string, match.start(), match.end()
    return match.group() if text[start - 1 : start].isalpha() and text[end : end + 1].isalpha() else ""


def _dash(match: re.Match[str]) -> str:
    """Return a dash as a word; a longer line stands for an omitted word or a part of one: `D——n`."""
    return f" {_DASH} " if len(match.group()) < 4 else 2 * _DASH


# ------------------------------------------------------------------------------------------------------ quotation marks

_QUOTE = re.compile("[\"“”«»‹›'‘’]")
_QUOTES = re.compile(_QUOTE.pattern + "+")
_DOUBLE = {'"': "“", "“": "“", "”": "“", "«": "«", "»": "«", "‹": "‹", "›": "‹"}
"""The opening mark that belongs to each double quotation mark."""
_BEFORE_CLOSING = (_STOPS | _CLOSING) - {_APOSTROPHE}
_AROUND_WORDS = _MARKS | _STOPS | {'"', _LONE, ""}
_ELIDED = re.compile(r"(?:tis|twas|twere|twill|twould|twixt|em|ee|cause|bout|neath|gainst|mongst)\b", re.IGNORECASE)
_CLOSES = re.compile(r"\S['’](?!\w)")
_LONGEST_QUOTATION = 2_000
"""Characters within which a quotation opened by ' must close; a search to the text's end could take for ever."""


class _Quotations:
    """Classifies each quotation mark of a paragraph; called with their matches, from the first to the last.

    With a word on one side only, a mark opens or closes. With words on both sides or none (dashes count as none), a
    mark with different opening and closing forms is taken as written, and " opens if none is open.

    Inside a word, a mark is an apostrophe. Before a word, ' opens if it is closed later and the word is not one like
    'tis; after a word, ' and ’ close if ‘ is open, and otherwise belong to the word: dogs’.
    """

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.end, self.mark = -1, ""  # of the mark before
        self.run_end = 0  # of the last run of adjacent marks

    def __call__(self, match: re.Match[str]) -> str:
        """Return the replacement of the mark: a word with spaces around it, or an apostrophe without."""
        text, quote, (start, end) = match.string, match.group(), match.span()
        before = self.mark if start == self.end else text[start - 1] if start else ""
        decide = self._double if quote in _DOUBLE else self._single
        mark = decide(quote, before, text, end)
        self.mark, self.end = mark or _APOSTROPHE, end
        if mark in _OPENING:
            self.open.add(mark)
        elif mark in _CLOSING:
            self.open -= {opening for opening in self.open if _PAIRS[opening] == mark or opening == "‘"}
        return f" {mark} " if mark else _APOSTROPHE

    def _double(self, quote: str, before: str, text: str, end: int) -> str:
        opening = _DOUBLE[quote]
        opens = _starts(before)
        if opens == self._ends(text, end):
            opens = quote == opening or (quote == '"' and opening not in self.open)
        return opening if opens else _PAIRS[opening]

    def _single(self, quote: str, before: str, text: str, end: int) -> str:
        """Return the mark; "" for an apostrophe."""
        of_word, before_word = _is_of_word(before), _is_of_word(text[end : end + 1])
        if of_word and before_word:
            return ""
        if quote == "‘" and (_starts(before) or not self._ends(text, end)):
            return "‘"
        if quote == "'" and _starts(before) and self._begins_quotation(text, end):
            return "‘"
        if before_word:
            return ""
        if "‘" in self.open or before in _BEFORE_CLOSING:
            return "’"
        return "" if of_word else _LONE

    def _begins_quotation(self, text: str, end: int) -> bool:
        """Whether ' opens a quotation before a word, or before a mark and a word."""
        word = end + (text[end : end + 1] in ('"', "“"))
        if "‘" in self.open or not _is_of_word(text[word : word + 1]) or _ELIDED.match(text, word):
            return False
        return _CLOSES.search(text, word, word + _LONGEST_QUOTATION) is not None

    def _ends(self, text: str, end: int) -> bool:
        """Whether no word begins here, after any quotation marks."""
        if end >= self.run_end and (run := _QUOTES.match(text, end)):
            self.run_end = run.end()
        end = max(end, self.run_end)
        after = text[end : end + 1]
        return not after or after.isspace() or after in _CLOSING or after in _STOPS


def _starts(before: str) -> bool:
    """Whether a word may begin after this character."""
    return not before or before.isspace() or before in _OPENING


def _is_of_word(character: str) -> bool:
    return not character.isspace() and character not in _AROUND_WORDS


# ------------------------------------------------------------------------------------------- full stops and capitals

_TITLES = frozenset(
    ("Mr", "Mrs", "Ms", "Messrs", "Dr", "Rev", "St", "Esq", "Hon", "Prof", "Capt", "Col", "Gen", "Lieut", "Jr", "Sr")
)
_CONTINUING = _STOPS - {".", "…"}
_ENDS = frozenset((".", PARAGRAPH))
_MAY_END = frozenset((*_MARKS, ".", "?", "!", ":", "…", _DASH, _LONE, PARAGRAPH))
"""Words after which a sentence may begin."""


def _abbreviate(words: list[str], forms: Forms) -> None:
    """Attach the full stops of abbreviations to the words before them, and leave "" in their place."""
    for at in [at for at, word in enumerate(words) if word == "."]:
        before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
        if before not in _NOT_WORDS and (after in _CONTINUING or _is_lower(after) or _is_abbreviated(before)):
            words[at - 1 : at + 1] = forms[f"{before}."], ""


def _capitalized(words: list[str]) -> frozenset[str]:
    """Return the words that have a capital inside sentences at least as often as they have none anywhere."""
    counts = Counter(words)
    inside = counts - Counter(compress(words, map(_MAY_END.__contains__, chain((PARAGRAPH,), words))))
    return frozenset(word for word in counts if (lower := _lower(word)) != word and inside[word] >= counts[lower])


def _lower_beginnings(words: list[str], capitalized: Collection[str], forms: Forms) -> None:
    """Lower-case the words that certainly begin a sentence, except those in `capitalized`."""
    for at in [0, *(at for at, word in enumerate(words, 1) if word in _ENDS)]:
        while at < len(words) and words[at] in _MARKS:
            at += 1
        if at < len(words) and words[at] not in capitalized:
            words[at] = forms[_lower(words[at])]


@lru_cache(1 << 16)
def _is_abbreviated(word: str) -> bool:
    """Whether a full stop after the word always belongs to it: A. but not I., Mr."""
    return word not in "Ii" and word.upper() != word.lower() if len(word) == 1 else _upper(word) in _TITLES


@lru_cache(1 << 16)
def _is_lower(word: str) -> bool:
    return word.removeprefix(_APOSTROPHE)[:1].islower()


@lru_cache(1 << 16)
def _lower(word: str) -> str:
    """Return a word whose only capital is its first letter in lower case; other words unchanged."""
    return _changed(word, str.lower, str.upper)


@lru_cache(1 << 16)
def _upper(word: str) -> str:
    """Return a lower-case word with a capital; other words unchanged."""
    return _changed(word, str.upper, str.lower)


def _changed(word: str, change: Callable[[str], str], back: Callable[[str], str]) -> str:
    """Return a word with its first letter changed, if that is reversible and no other letter is a capital."""
    at = len(word) - len(word.removeprefix(_APOSTROPHE))
    first, rest = change(word[at : at + 1]), word[at + 1 :]
    changed = word[:at] + first + rest
    can_be_undone = len(first) == 1 and back(first) == word[at : at + 1] and unicodedata.is_normalized("NFC", changed)
    return changed if can_be_undone and rest == rest.lower() else word


# -------------------------------------------------------------------------------------------------------- back to text


@lru_cache(1 << 16)
def _stands_close(character: str) -> bool:
    """Whether there is no space beside a character."""
    return character in _SPACELESS_MARKS or is_of_spaceless_script(character)


class _ProseJoiner(Joiner):
    """Joins words to a printed page.

    last    the word before; "" at the beginning of a paragraph
    begins  whether the next word certainly begins a sentence
    open    the marks of this paragraph that are open, the innermost last
    """

    def __init__(self, capitalized: Collection[str], rules: int) -> None:
        self.capitalized, self.rules = capitalized, rules
        self._begin_paragraph()

    def _begin_paragraph(self) -> None:
        self.last, self.begins = "", True
        self.open: list[str] = []

    def add(self, word: str) -> str:
        """Return the word as the text continues with it: the space before it and its spelling."""
        if word == PARAGRAPH:
            piece = "\n\n" if self.last else ""
            self._begin_paragraph()
            return piece
        capital = self.begins and _upper(word) not in self.capitalized
        piece = self._space(word) + (_upper(word) if capital else word)
        self.last = word
        if word in _OPENING:
            self.open.append(word)
        elif word in _CLOSING:
            self._close(word)
        else:
            self.begins = word == "."
        return piece

    def _close(self, mark: str) -> None:
        """Drop the mark that this one closes from the open marks, and those opened after it."""
        for depth, opening in enumerate(self.open):
            if _PAIRS[opening] == mark:
                del self.open[depth:]
                return

    def _space(self, word: str) -> str:
        """Return the white space before a word."""
        last = self.last
        if not last:
            return ""
        if (last[-1] in "-—" and word[0] in "-—") or last[-1] == word[0] == ".":
            return " "  # or both would be read as one mark
        tight = (
            last in _OPENING
            or _DASH in (last, word)
            or word in _CLOSING
            or word in _STOPS
            or (self.rules > 1 and (_stands_close(last[-1]) or _stands_close(word[0])))
        )
        return "" if tight else " "

    def excluded(self) -> Collection[str]:
        """Return the words that may not come next: marks that open again or close what is not open, and `<p>` while a
        mark is open or the paragraph is empty.

        So quotation marks and brackets come in pairs, around words, properly nested and within one paragraph.
        """
        may_close = {_PAIRS[self.open[-1]]} if self.open and self.last not in _OPENING else set()
        paragraph = [PARAGRAPH] if self.open or not self.last else []
        return [*(_CLOSING - may_close), *self.open, *paragraph]
