"""Lines of a text on a terminal, where Chinese, Japanese and Korean letters take two columns and marks take none."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain

from fastmlp.text.characters import is_of_spaceless_script

__all__ = ["columns", "wrapped"]

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")  # line ends, other white space, and words


def columns(text: str) -> int:
    """Return how many columns of a terminal a line takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


@lru_cache(1 << 16)
def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrapped(pieces: Iterable[str], width: int) -> Iterator[str]:
    """Yield the text in lines of at most `width` columns, broken at spaces and between letters without spaces.

    A word is yielded when what is after it comes, so that a full stop stays on its line. A word longer than a line is
    not broken.
    """
    column, space, word = 0, "", ""
    for part in chain.from_iterable(map(_parts, chain(pieces, [" "]))):
        if not part.isspace() and not (word and _may_break(word[-1], part[0])):
            word += part
            continue
        if word:
            if column and column + columns(space + word) > width:
                column, space = -1, "\n"
            column += columns(space + word)
            yield space + word
            space = word = ""
        if part == "\n":
            column, space = 0, ""
            yield part
        elif part.isspace():
            space += part
        else:
            word = part


def _parts(piece: str) -> Iterator[str]:
    """Yield line ends, other white space, and words; a letter of a script without spaces begins another part."""
    for part in _PARTS.findall(piece):
        if part.isascii():
            yield part
            continue
        start = 0
        for place, character in enumerate(part):
            if place > start and _may_break(part[place - 1], character):
                yield part[start:place]
                start = place
        yield part[start:]


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters: at a letter of a spaceless script, not after a mark that opens."""
    if _opens(after):
        return is_of_spaceless_script(before)
    return is_of_spaceless_script(after) and not _opens(before)


def _opens(mark: str) -> bool:
    return unicodedata.category(mark) in ("Ps", "Pi")
