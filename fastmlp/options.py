"""Readers of option values from flags, TOML and Python, and the error for a value that cannot be used.

Standard library only, so that `--help` answers at once.
"""

import math
import operator
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmlp.errors import ReportedError

__all__ = ["ConfigError", "Option", "closest"]

Reader = Callable[[Any], Any]
RULES = 2
"""The newest rules of reading a text and of splitting it into words. A run and a model keep the number of theirs, and
those without a number have rules 1."""
TEXTS = (
    "text files, EPUB, HTML, packed or not (.gz, .bz2, .xz, .zst); folders, with the texts in them and in their"
    " folders; - for standard input"
)
LONGEST_REACH = 1_000_000  # averaged words: nothing else in a file bounds what a batch of them takes
FEWEST_ON_MAP = 3  # words: two always lie on a line
TEMPERATURE = 0.7  # of generated text: at 1 every tenth word is out of place


class ConfigError(ReportedError, ValueError):
    """The value of an option cannot be used.

    option   the option's name, as in the dataclass
    problem  what was expected and what came, in one line
    other    another option, which the problem contains as {other}
    file     the TOML file that sets the option; None: set elsewhere
    """

    def __init__(self, option: str, problem: str, *, other: str = "", file: str | None = None) -> None:
        self.option, self.problem, self.other, self.file = option, problem, other, file
        super().__init__(self.described(str))

    def described(self, written: Callable[[str], str]) -> str:
        """Return the whole line; `written` gives an option's spelling, for example as a flag."""
        problem = self.problem.replace("{other}", written(self.other)) if self.other else self.problem
        return f"{written(self.option)}: {problem}"


def closest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean '...'?" if a known word is similar, else an empty string."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


# ------------------------------------------------------------------------------------------------------------ readers
#
# A reader converts a value from the command line (a string), a TOML file or Python to the option's type, or raises
# ValueError with what was expected.


def read_argument(name: str, read: Reader, value: Any) -> Any:
    """Return a function's argument as `read` converts it; a ValueError gets its name."""
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def whole(low: int, high: int | None = None) -> Reader:
    """Return a reader of whole numbers within bounds."""
    wanted = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"

    def read(value: Any) -> int:
        try:
            number = _digits(value) if isinstance(value, str) else operator.index(value)
        except (TypeError, ValueError):
            number = None
        if number is None or isinstance(value, bool) or number < low or (high and number > high):
            raise ValueError(f"expected {wanted}, got {value!r}")
        return number

    return read


def _digits(written: str) -> int:
    """Parse a whole number; commas may separate groups of three digits: 10000 or 10,000, but not 1,5."""
    if "_" in written or ("," in written and not re.fullmatch(r"\s*[+-]?\d{1,3}(,\d{3})+\s*", written)):
        raise ValueError(f"not a whole number: {written}")
    return int(written.replace(",", ""))


def number(wanted: str, fits: Callable[[float], bool]) -> Reader:
    """Return a reader of finite numbers for which `fits` holds."""

    def read(value: Any) -> float:
        try:
            result = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):  # the last of whole numbers beyond 1e308
            result = math.nan
        if not math.isfinite(result) or not fits(result):
            raise ValueError(f"expected {wanted}, got {value!r}")
        return result

    return read


def several(read_one: Reader, wanted: str, count: int | None = None) -> Reader:
    """Return a reader of a list, or of values separated by commas: one or more, or exactly `count`."""

    def read(value: Any) -> tuple[Any, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        try:
            result = tuple(read_one(part) for part in (parts if isinstance(parts, (list, tuple)) else [parts]))
        except ValueError:
            result = ()
        if not result or (count is not None and len(result) != count):
            raise ValueError(f"expected {wanted}, got {value!r}")
        return result

    return read


def none_or(read: Reader) -> Reader:
    """A value, or "none" or an empty list: nothing, which is ()."""

    def read_or_none(value: Any) -> Any:
        if value == "none" or (isinstance(value, (list, tuple)) and not value):
            return ()
        try:
            return read(value)
        except ValueError as error:
            raise ValueError(str(error).replace("expected ", "expected none or ", 1)) from None

    return read_or_none


def either(value: Any) -> bool:
    """Yes or no."""
    known = {"yes": True, "no": False, "true": True, "false": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in known:
        raise ValueError(f"expected yes or no, got {value!r}")
    return known[value.lower()]


def one_or_several(read_one: Reader, wanted: str) -> Reader:
    """A value, or several separated by commas or in a list: these are a tuple, even if there is one in the list."""
    read_list = several(read_one, wanted)

    def read(value: Any) -> Any:
        if isinstance(value, (list, tuple)) or (isinstance(value, str) and "," in value):
            return read_list(value)
        try:
            return read_one(value)
        except ValueError:
            raise ValueError(f"expected {wanted}, got {value!r}") from None

    return read


def of_each(read_one: Reader, wanted: str, count: int) -> Reader:
    """So many values separated by commas or in a list; or one, for all of them."""
    read_list = several(read_one, wanted)

    def read(value: Any) -> tuple[Any, ...]:
        values: tuple[Any, ...] = read_list(value)
        if len(values) not in (1, count):
            raise ValueError(f"expected {wanted}, got {value!r}")
        return values * count if len(values) == 1 else values

    return read


def choice(names: tuple[str, ...]) -> Reader:
    """Return a reader that accepts these names only."""

    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}, got {value!r}{closest(str(value), names)}")
        return str(value)

    return read


def text(value: Any) -> str:
    """A string that is not empty."""
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise ValueError(f"expected text, got {value!r}")
    return unicode(str(value))


def unicode(value: str) -> str:
    """Read a string that UTF-8 can encode, unlike a file name whose bytes are not UTF-8.

    Where the locale has no letters beyond ASCII, an argument is decoded from the bytes that the system gave.
    """
    try:
        value = value.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        raise ValueError(f"expected UTF-8, got {value!r}") from None
    return value


def system_path(name: str) -> str:
    """Return the name of a file, which is Unicode, as the system's functions take it.

    They are the same unless the locale has no letters beyond ASCII: then it is the bytes of the name in UTF-8.
    """
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def file(value: Any) -> str:
    """Read the name of a file; not standard input, which cannot be read again on resume."""
    name = text(value)
    if name == "-":
        raise ValueError("expected a file, which can be read again when the run is resumed, got '-'")
    return name


def texts(value: Any) -> tuple[str, ...]:
    """A list of strings; one string is a list of one."""
    return tuple(text(item) for item in (value if isinstance(value, (list, tuple)) else [value]))


def picture(value: Any) -> Path:
    """Read the name of a picture file to write."""
    path = Path(system_path(text(value)))
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"expected a file that ends in .png or .svg, got {str(value)!r}")
    return path


positive = number("a number above 0", lambda value: value > 0)
not_negative = number("a number of at least 0", lambda value: value >= 0)
positive_share = number("a number above 0 and at most 1", lambda value: 0 < value <= 1)
share = number("a share of at least 0 and below 1", lambda value: 0 <= value < 1)
between_0_and_1 = number("a number above 0 and below 1", lambda value: 0 < value < 1)


# ------------------------------------------------------------------------------------------------------------ options


@dataclass(frozen=True)
class Option:
    """The metadata of a field, for the command line and the help."""

    read: Reader
    help: str
    shown: str  # the default as the help shows it
    metavar: str
    fixed: bool  # must not change on resume: it shapes the network, the text or the windows' order
    repeated: bool


def option(
    default: Any, read: Reader, help: str, *, metavar: str, shown: str = "", fixed: bool = False, repeated: bool = False
) -> Any:
    """Return a dataclass field of the configuration."""
    if not shown:
        shown = f"{default:,}" if isinstance(default, int) else typed_value(default)
    return field(default=default, metadata={"option": Option(read, help, shown, metavar, fixed, repeated)})


def typed_value(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) if value else "none"
    return str(value)
