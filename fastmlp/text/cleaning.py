"""What the newest rules do to the text of a file: books without licences, each once, characters for entities."""

import html
import re
from collections.abc import Sequence

from fastmlp.text.gutenberg import books_of

__all__ = ["Cleaning", "listing"]

_ENTITY = re.compile(r"&(?:#\d{2,7}|#[xX][0-9a-fA-F]{2,6}|[a-zA-Z][a-zA-Z0-9]{1,24});")
MANY = 10
"""Entities that show that a text was taken from HTML."""
_C1 = re.compile("[\x80-\x84\x86-\x9f]")
_WINDOWS = {
    code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names, and how many there are beside them."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Cleaning:
    """Cleans one file after the other, and notes what it has left out or converted.

    keep_licence  whether to keep what Project Gutenberg puts around a book
    """

    def __init__(self, *, keep_licence: bool = False) -> None:
        self._keep_licence = keep_licence
        self._seen: set[int] = set()
        self._noted: dict[str, list[str]] = {}

    def __call__(self, text: str, name: str) -> str:
        """Return the text of a file cleaned; "" if there is nothing in it that has not been read."""
        if not text.isascii():
            text = text.replace("\ufeff", "")
            if _C1.search(text):
                text = text.translate(_WINDOWS)
                self.note("control characters read as those of Windows-1252", name)
        if "&" in text and sum(1 for _ in zip(range(MANY), _ENTITY.finditer(text), strict=False)) == MANY:
            text = _ENTITY.sub(lambda match: html.unescape(match.group()), text)
            self.note("HTML entities converted to characters", name)
        books = None if self._keep_licence else books_of(text)
        if books is None:
            return text if self._is_new(text, name) else ""
        self.note("header and licence of Project Gutenberg left out (--keep-licence keeps them)", name)
        return "\n".join(book for book in books if self._is_new(book, name))

    def _is_new(self, text: str, name: str) -> bool:
        text = text.strip()
        known = hash(text)  # 64 bits of a keyed hash: no two texts have the same
        if text and known in self._seen:
            self.note("left out, since the same text came before", name)
            return False
        self._seen.add(known)
        return True

    def note(self, what: str, name: str) -> None:
        """Keep a notice about a file."""
        names = self._noted.setdefault(what, [])
        if name not in names:
            names.append(name)

    def converted(self, name: str, kind: str) -> None:
        """Note that a file was converted from a format."""
        self.note(f"text without markup, taken from {kind}", name)

    def notices(self) -> list[str]:
        """Return a line for each thing that was done, with the first of its files."""
        return [f"{listing(names)}: {what}" for what, names in self._noted.items()]
