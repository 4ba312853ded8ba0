"""The forms in which a caller may give a text: the text itself, files, or ids."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.text.reading import Text, text_in_memory

Array = np.ndarray
Ids = Sequence[int] | Array
TextOrIds = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Ids
LONGEST_NAME = 4096  # of a file


def source_of(name: str, given: TextOrIds) -> tuple[str, ...] | Text | Array:
    """Return the files that the caller gave, or the text, or integers."""
    if isinstance(given, str):
        _refuse_file_name(name, given)
        return text_in_memory(given)
    if isinstance(given, os.PathLike):
        return (os.fsdecode(given),)
    if isinstance(given, list | tuple) and given and all(isinstance(item, str | os.PathLike) for item in given):
        return tuple(map(os.fsdecode, given))
    return integers(name, given, "a text (str), a file (pathlib.Path), a list of files, or integers")


def integers(name: str, given: Any, expected: str) -> Array:
    """Return integers as an array; raise TypeError, with `expected`, for anything else."""
    if isinstance(given, list | tuple) and not given:
        return np.empty(0, np.int32)
    try:
        array = np.asarray(given)
    except ValueError:  # nested lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "iu":
        of = f" of {array.dtype}" if array.ndim else ""
        raise TypeError(f"{name}: expected {expected}; got {type(given).__name__}{of}")
    return array


def _refuse_file_name(name: str, text: str) -> None:
    """Raise ValueError if a str, which is a text, looks like the name of a file."""
    if len(text) > LONGEST_NAME or not text.strip() or "\n" in text:
        return
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):
        is_file = False
    if is_file or (not any(map(str.isspace, text)) and text.endswith((".txt", ".gz"))):
        raise ValueError(
            f"{name}: expected a text, got {text!r}, the name of a file; for what is in it give pathlib.Path({text!r})"
        )
