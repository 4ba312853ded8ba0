"""What page/characters.js needs to know of Unicode as Python has it, in tables: a page tells words apart as we do."""

import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from itertools import chain
from sys import maxunicode
from typing import Any

from fastmlp.text.characters import FOLLOWING, SPACELESS, is_of_spaceless_script, plain_form

__all__ = ["tables"]


@cache
def tables() -> dict[str, Any]:
    """Return what JavaScript's `Characters` is made of.

    forms      ranges of characters whose plain form is not their normal form C, each by its first and last code
    spaceless  the same of letters of scripts without spaces
    following  marks that belong to such a letter before them
    """
    return {
        "forms": ranges(_has_plain_form, filter(_is_decomposed, range(0x80, maxunicode + 1))),
        "spaceless": ranges(is_of_spaceless_script, chain.from_iterable(SPACELESS)),
        "following": FOLLOWING,
    }


def ranges(belongs: Callable[[str], bool], codes: Iterable[int]) -> list[int]:
    """Return first and last of each run of codes, which are given ascending, whose characters belong."""
    found: list[int] = []
    for code in codes:
        if belongs(chr(code)):
            if found and found[-1] == code - 1:
                found[-1] = code
            else:
                found += [code, code]
    return found


def _is_decomposed(code: int) -> bool:
    return unicodedata.decomposition(chr(code)) != ""


def _has_plain_form(character: str) -> bool:
    return plain_form(character) != unicodedata.normalize("NFC", character)
