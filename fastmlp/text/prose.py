"""The `prose` tokenizer: a novel's page as words, punctuation marks and paragraphs, and a page of these again."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from itertools import chain, compress, islice

from fastmlp.text.tokenizer import Forms, Joiner, Tokenizer

__all__ = ["PARAGRAPH", "Prose"]

PARAGRAPH = "<p>"
"""The word that stands between two paragraphs. No text can write it: there '<' and '>' are words of their own."""

_PAIRS = {"“": "”", "‘": "’", "«": "»", "‹": "›", "(": ")", "[": "]", "{": "}", "<": ">"}
_OPENING, _CLOSING = frozenset(_PAIRS), frozenset(_PAIRS.values())
_MARKS = _OPENING | _CLOSING
_STOPS = frozenset(",;:.!?…")
_DASH = "—"
_APOSTROPHE = "’"
_LONE = "'"
"""The word of an apostrophe that is none of a word's and closes nothing."""
_NOT_WORDS = _MARKS | _STOPS | {_DASH, _LONE, PARAGRAPH, ""}


class Prose(Tokenizer):
    """A novel's words and punctuation.

    Words are what stands between white space and marks, with the apostrophes, hyphens, and signs inside them: don't,
    seventeen-year-old, 3.14, 1,000, £5, &c. Each of , ; : . ! ? … ( ) [ ] { } < > and the dash is a word of its own,
    and so is each quotation mark: one that opens and one that closes are two words. A full stop stays with an
    abbreviation: before a lower-case word or another stop, after single letters but I, and after some titles (Mr.).
    A longer line is a word or a part of one: `Mr ——`. `<p>` stands between paragraphs.

    Words keep their capitals, except at the beginning of a paragraph or after a full stop: a word that the text writes
    in lower case more often than with a capital inside sentences is lower case there too. After ? and ! it is not sure
    that a sentence begins, so nothing is changed. What must be known of the text for that is `capitalized`: the words
    that keep their capital. `fit` finds them.
    """

    name = "prose"
    sentence_end = PARAGRAPH

    def __init__(self, capitalized: Iterable[str] = ()) -> None:
        self.capitalized = frozenset(capitalized)

    def split(self, text: str) -> list[str]:
        """The words of a text, in its order; equal words are one object, so that a list of them stays small."""
        forms = Forms(self)
        words = self._words(text, forms)
        _lower_beginnings(words, self.capitalized, forms)
        return words

    def fit(self, text: str) -> tuple["Prose", list[str]]:
        """The tokenizer that knows which words of this text keep their capital, and the text's words."""
        forms = Forms(self)
        words = self._words(text, forms)
        fitted = Prose(_capitalized(words))
        _lower_beginnings(words, fitted.capitalized, forms)
        return fitted, words

    def joiner(self) -> Joiner:
        """A page as it is printed: paragraphs separated by empty lines, capitals where sentences begin.

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
        return _ProseJoiner(self.capitalized)

    _gap = re.compile(r"\n[^\S\n]*\n")

    def _words(self, text: str, forms: Forms) -> list[str]:
        words = super()._words(text, forms)
        _abbreviate(words, forms)
        return list(islice(filter(None, words), 1, None))  # nothing ends before the first paragraph

    def _candidates(self, piece: str) -> list[str]:
        paragraphs = (_QUOTE.sub(_Quotations(), paragraph) for paragraph in self._gap.split(_plain(piece)))
        piece = f" {PARAGRAPH} ".join(paragraph for paragraph in paragraphs if paragraph.strip())
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


def _plain(text: str) -> str:
    """A text with one character for each mark, and spaces around dashes, '<' and '>'."""
    if not text.isascii():
        text = _EN_DASH.sub("--", text.translate(_SPELLINGS))
    text = _HYPHENS.sub(_dash, _UNDERSCORES.sub(_underscore, text))
    if ".." in text:
        text = _DOTS.sub("…", text)
    return text.replace("<", " < ").replace(">", " > ")


def _underscore(match: re.Match[str]) -> str:
    """Nothing, but between two letters itself."""
    text, start, end = match.string, match.start(), match.end()
    return match.group() if text[start - 1 : start].isalpha() and text[end : end + 1].isalpha() else ""


def _dash(match: re.Match[str]) -> str:
    """A dash is a word; a longer line stands for a word that is not told, or for a part of one: `D——n`."""
    return f" {_DASH} " if len(match.group()) < 4 else 2 * _DASH


# ------------------------------------------------------------------------------------------------------ quotation marks

_QUOTE = re.compile("[\"“”«»‹›'‘’]")
_QUOTES = re.compile(_QUOTE.pattern + "+")
_DOUBLE = {'"': "“", "“": "“", "”": "“", "«": "«", "»": "«", "‹": "‹", "›": "‹"}
"""The mark that opens where one of these closes, or opens itself."""
_BEFORE_CLOSING = (_STOPS | _CLOSING) - {_APOSTROPHE}
_AROUND_WORDS = _MARKS | _STOPS | {'"', _LONE, ""}
_ELIDED = re.compile(r"(?:tis|twas|twere|twill|twould|twixt|em|ee|cause|bout|neath|gainst|mongst)\b", re.IGNORECASE)
_CLOSES = re.compile(r"\S['’](?!\w)")
_LONGEST_QUOTATION = 2_000
"""Characters within which what ' opens must be closed: to look for it to the end of a text could take for ever."""


class _Quotations:
    """Tells what each quotation mark of a paragraph is; called with their matches, from the first to the last.

    With a word on one side only, a mark opens or closes. With words on both sides or none (dashes count as none), one
    that looks different for both means what it says, and " opens where none is open.

    An apostrophe is one inside a word. Before a word, ' opens where it is closed later and the word is none like 'tis;
    after a word, ' and ’ close where ‘ is open, and else belong to the word: dogs’.
    """

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.end, self.mark = -1, ""  # where the mark before ended, and what it was
        self.run_end = 0  # of the last marks that stand side by side

    def __call__(self, match: re.Match[str]) -> str:
        """What takes the mark's place in the paragraph: a word with spaces around it, or an apostrophe without."""
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
        """The mark that it is; "" for an apostrophe."""
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
        """Whether ' in front of a word, or of a mark and a word, opens."""
        word = end + (text[end : end + 1] in ('"', "“"))
        if "‘" in self.open or not _is_of_word(text[word : word + 1]) or _ELIDED.match(text, word):
            return False
        return _CLOSES.search(text, word, word + _LONGEST_QUOTATION) is not None

    def _ends(self, text: str, end: int) -> bool:
        """Whether no word begins here, quotation marks left out."""
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
    """Give the full stops of abbreviations to the words before them, and leave "" in their place."""
    for at in [at for at, word in enumerate(words) if word == "."]:
        before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
        if before not in _NOT_WORDS and (after in _CONTINUING or _is_lower(after) or _is_abbreviated(before)):
            words[at - 1 : at + 1] = forms[f"{before}."], ""


def _capitalized(words: list[str]) -> frozenset[str]:
    """The words that begin with a capital inside sentences at least as often as without one anywhere."""
    counts = Counter(words)
    inside = counts - Counter(compress(words, map(_MAY_END.__contains__, chain((PARAGRAPH,), words))))
    return frozenset(word for word in counts if (lower := _lower(word)) != word and inside[word] >= counts[lower])


def _lower_beginnings(words: list[str], capitalized: Collection[str], forms: Forms) -> None:
    """Take the capitals from the words that begin sentences for sure, but for those that keep theirs."""
    for at in [0, *(at for at, word in enumerate(words, 1) if word in _ENDS)]:
        while at < len(words) and words[at] in _MARKS:
            at += 1
        if at < len(words) and words[at] not in capitalized:
            words[at] = forms[_lower(words[at])]


@lru_cache(1 << 16)
def _is_abbreviated(word: str) -> bool:
    """Whether a full stop after the word is the word's, whatever comes next: A. but not I., Mr."""
    return word not in "Ii" and word.upper() != word.lower() if len(word) == 1 else _upper(word) in _TITLES


@lru_cache(1 << 16)
def _is_lower(word: str) -> bool:
    return word.removeprefix(_APOSTROPHE)[:1].islower()


@lru_cache(1 << 16)
def _lower(word: str) -> str:
    """A word that has one capital, its first letter, without it; other words as they are."""
    return _changed(word, str.lower, str.upper)


@lru_cache(1 << 16)
def _upper(word: str) -> str:
    """A word in lower case with a capital; others as they are."""
    return _changed(word, str.upper, str.lower)


def _changed(word: str, change: Callable[[str], str], back: Callable[[str], str]) -> str:
    """A word with its first letter changed, where that can be undone and no other letter is a capital."""
    at = len(word) - len(word.removeprefix(_APOSTROPHE))
    first, rest = change(word[at : at + 1]), word[at + 1 :]
    changed = word[:at] + first + rest
    can_be_undone = len(first) == 1 and back(first) == word[at : at + 1] and unicodedata.is_normalized("NFC", changed)
    return changed if can_be_undone and rest == rest.lower() else word


# -------------------------------------------------------------------------------------------------------- back to text


class _ProseJoiner(Joiner):
    """Puts a page together.

    last    the word before; "" at the beginning of a paragraph
    begins  whether the next word begins a sentence for sure
    open    the marks of this paragraph that are open, the innermost last
    """

    def __init__(self, capitalized: Collection[str]) -> None:
        self.capitalized = capitalized
        self._begin_paragraph()

    def _begin_paragraph(self) -> None:
        self.last, self.begins = "", True
        self.open: list[str] = []

    def add(self, word: str) -> str:
        """What the word adds to the text: itself as it is written there, with what stands before it."""
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
        """What it closes is not open any more, nor is what was opened after that."""
        for depth, opening in enumerate(self.open):
            if _PAIRS[opening] == mark:
                del self.open[depth:]
                return

    def _space(self, word: str) -> str:
        """What stands before a word."""
        last = self.last
        if not last:
            return ""
        if (last[-1] in "-—" and word[0] in "-—") or last[-1] == word[0] == ".":
            return " "  # or both would be read as one
        tight = last in _OPENING or _DASH in (last, word) or word in _CLOSING or word in _STOPS
        return "" if tight else " "

    def excluded(self) -> Collection[str]:
        """Marks that open what is open already or close what is not, and `<p>` while something is open or nothing said.

        So quotation marks and brackets come in pairs, around something, one inside of the other and all in one
        paragraph.
        """
        may_close = {_PAIRS[self.open[-1]]} if self.open and self.last not in _OPENING else set()
        paragraph = [PARAGRAPH] if self.open or not self.last else []
        return [*(_CLOSING - may_close), *self.open, *paragraph]
