"""What a character is to the tokenizers: a form of plain letters, an apostrophe, invisible, of a script without spaces.

All of this is of the rules 2 of reading (fastmlp.options.RULES); words.py and prose.py have those of rules 1.
"""

import re
import unicodedata
from collections.abc import Callable

__all__ = [
    "APOSTROPHES",
    "FOLLOWING",
    "JOINERS",
    "SPACELESS",
    "Table",
    "apart",
    "is_character_of_spaceless_script",
    "is_invisible",
    "is_of_spaceless_script",
    "mended_apostrophes",
    "plain_form",
    "visible",
    "without_joiners",
]

APOSTROPHES = "'\u2018\u2019\u02bc" + "\u02b9\u02bb\u02bd\u201b\ua78b\ua78c\uff07\u055a\u05f3\u05f4\x91\x92"
"""What is typed as an apostrophe; also the Hebrew geresh and gershayim, and the C1 controls of Windows-1252."""
JOINERS = "\u200c\u200d"
"""They have no width, and show how Persian and Indic letters are joined."""
_APOSTROPHE = "\u2019"


class Table(dict[int, str]):
    """A table for str.translate that is filled as characters are met."""

    def __init__(self, of: Callable[[str], str]) -> None:
        self._of = of

    def __missing__(self, code: int) -> str:
        self[code] = self._of(chr(code))
        return self[code]


# ----------------------------------------------------------------------------------------------- apostrophes in words

_LETTER = r"[^\W\d_]"
_ENTITY = re.compile(r"&(?:#(?:39|146|8217)|#[xX](?:27|2019)|apos|rsquo);")
_BETWEEN_LETTERS = re.compile(rf"[`\u00b4\u2032](?={_LETTER})(?<={_LETTER}.)")
_GERSHAYIM = re.compile('"(?=[\u05d0-\u05ea])(?<=[\u05d0-\u05ea].)')


def mended_apostrophes(text: str) -> str:
    """Return the text with an apostrophe or gershayim for what can be nothing else inside a word.

    These are ` U+00B4 U+2032 between two letters (unless one more quotes the word: `int`s), the HTML entities of an
    apostrophe, and " between two Hebrew letters.
    """
    if "&" in text:
        text = _ENTITY.sub(_APOSTROPHE, text)
    if "`" in text or "\u00b4" in text or "\u2032" in text:
        text = _BETWEEN_LETTERS.sub(_apostrophe_or_quote, text)
    return text if text.isascii() else _GERSHAYIM.sub("\u05f4", text)


def _apostrophe_or_quote(match: re.Match[str]) -> str:
    text, start = match.string, match.start()
    while start and text[start - 1].isalpha():
        start -= 1
    return match.group() if text[start - 1 : start] == match.group() else _APOSTROPHE


# ------------------------------------------------------------------------------------------------- invisible characters

_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""What Unicode calls default ignorable (soft hyphens, direction marks, fillers, selectors), but for JOINERS."""
_IS_INVISIBLE = re.compile(f"[{_INVISIBLE}]")
_JOINS_NOTHING = re.compile(f"(?<![\u0600-\u0dff])[{JOINERS}]+|[{JOINERS}]+(?!\\w)")


def is_invisible(character: str) -> bool:
    """Whether a character shows nothing and means nothing in a word; not one of JOINERS."""
    return _IS_INVISIBLE.match(character) is not None


def visible(text: str) -> str:
    """Return the text without invisible characters; JOINERS stay between letters of scripts that need them."""
    return text if text.isascii() else without_joiners(_IS_INVISIBLE.sub("", text))


def without_joiners(text: str) -> str:
    """Return the text with JOINERS only between letters of scripts that need them."""
    return _JOINS_NOTHING.sub("", text) if any(joiner in text for joiner in JOINERS) else text


# ---------------------------------------------------------------------------------------------------- forms of letters

_FORMS = ("<wide>", "<narrow>", "<initial>", "<medial>", "<final>", "<isolated>", "<vertical>", "<font>")
_JAMO = range(0x3131, 0x318F)  # their compatibility forms are how they are written alone


def plain_form(character: str) -> str:
    """Return the plain spelling of a ligature, of a wide or narrow letter, of a letter's form: fi for U+FB01.

    Superscripts, fractions and circled numbers are no such forms.
    """
    if character.isascii() or ord(character) in _JAMO:
        return character
    kind = unicodedata.decomposition(character).partition(" ")[0]
    plain = unicodedata.normalize("NFKC", character)
    is_form = kind in _FORMS or (kind == "<compat>" and plain.isalpha())
    return plain if is_form else unicodedata.normalize("NFC", character)


# ----------------------------------------------------------------------------------------------- scripts without spaces

SPACELESS = (  # Thai, Lao, Burmese, Khmer, Kana, Han
    *(range(0x0E00, 0x0F00), range(0x1000, 0x10A0), range(0x1780, 0x1800), range(0x3005, 0x3008)),
    *(range(0x3041, 0x3100), range(0x31F0, 0x3200), range(0x3400, 0x4DC0), range(0x4E00, 0xA000)),
    *(range(0xA9E0, 0xAA00), range(0xAA60, 0xAA80), range(0xF900, 0xFB00), range(0x20000, 0x33480)),
)
"""Blocks of characters of scripts that have no spaces between words."""
FOLLOWING = "".join(
    character
    for block in (*SPACELESS[:3], *SPACELESS[4:5], range(0xA9E0, 0xAA80))
    for character in map(chr, block)
    if unicodedata.category(character).startswith("M") or character in "\u0e33\u0eb3"
)
"""Marks that stay with such a letter before them."""
_CLUSTER = re.compile(f"\0(.[{FOLLOWING}]*(?:(?<=[\u1039\u17d2])\0.[{FOLLOWING}]*)*)")


def is_of_spaceless_script(character: str) -> bool:
    """Whether a letter is of a script that has no spaces between words: Han, Kana, Thai, Lao, Khmer, Burmese."""
    if character < "\u0e00":
        return False
    code = ord(character)
    return any(code in block for block in SPACELESS) and unicodedata.category(character) in ("Lo", "Lm", "Nl")


def is_character_of_spaceless_script(word: str) -> bool:
    """Whether a word is such a letter, with the marks that follow it: what `apart` makes."""
    return word[:1] > "\u0dff" and is_of_spaceless_script(word[0]) and _CLUSTER.fullmatch(f"\0{word}") is not None


def apart(text: str) -> str:
    """Return the text with spaces around each letter that has a NUL before it, and the marks that follow the letter.

    Inside of quotation marks it is a NUL: a space would hide whether the mark opens or closes.
    """
    return _CLUSTER.sub(_spaced, text) if "\0" in text else text


def _spaced(match: re.Match[str]) -> str:
    text, (start, end) = match.string, match.span()
    before = "\0" if text[max(start - 1, 0) : start] in ("“", "‘") else " "
    after = "\0" if text[end : end + 1] in ("”", "’") else " "
    return f"{before}{match[1].replace(chr(0), '')}{after}"
