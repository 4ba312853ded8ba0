"""Which files of a folder are texts, and in which order."""

import os
import re
from pathlib import Path

from fastmlp.text.formats import PACKED

__all__ = ["ENDINGS", "is_run", "texts_of", "texts_of_rules_1"]

ENDINGS = (".txt", ".text", ".epub", ".html", ".htm", ".xhtml", ".fb2")
"""What the name of a text ends in, in capitals or not, and one of PACKED may follow."""
_RUN = ("model.safetensors", "last.safetensors")
_NUMBER = re.compile(r"(\d+)")


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a training run."""
    return any((folder / name).exists() for name in _RUN)


def texts_of(folder: Path) -> tuple[list[str], list[Path]]:
    """Return the texts of a folder and of the folders in it, in natural order, and the rest, without its path.

    chapter2 comes before chapter10. Hidden files and folders do not count; folders of runs and links to folders are
    not entered. Raises OSError where a folder cannot be read.
    """
    texts: list[Path] = []
    others: list[Path] = []

    def fail(error: OSError) -> None:
        raise error

    for path, folders, files in os.walk(folder, onerror=fail):
        here = Path(path)
        others += [here / name for name in folders if name[0] != "." and _is_closed(here / name)]
        folders[:] = [name for name in folders if name[0] != "." and not _is_closed(here / name)]
        for name in files:
            if name[0] != ".":
                (texts if is_named_as_text(name) else others).append(here / name)
    return [str(text) for text in sorted(texts, key=_natural)], [
        other.relative_to(folder) for other in sorted(others, key=_natural)
    ]


def texts_of_rules_1(folder: Path) -> tuple[list[str], list[Path]]:
    """Return the *.txt of a folder itself, sorted by the codes of their letters."""
    entries = sorted(folder.iterdir())
    return [str(entry) for entry in entries if entry.match("[!.]*.txt") and not entry.is_dir()], []


def is_named_as_text(name: str) -> bool:
    """Whether a file's name ends as that of a text."""
    name = name.lower()
    packed = next((ending for ending in PACKED if name.endswith(ending)), "")
    return name.removesuffix(packed).endswith(ENDINGS)


def _is_closed(folder: Path) -> bool:
    return folder.is_symlink() or is_run(folder)


def _natural(path: Path) -> tuple[list[list[tuple[int, int, str]]], str]:
    """Return a key that sorts numbers by their value, and capitals with small letters."""
    return [
        [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _NUMBER.split(name.casefold()) if part]
        for name in path.parts
    ], str(path)
