"""Values of options: how they are read from flags, TOML and Python, and what is said of those that make no sense.

Standard library only, so that `--help` answers at once.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmlp.errors import ReportedError

__all__ = ["ConfigError", "Option", "closest"]

Reader = Callable[[Any], Any]
FEWEST_ON_MAP = 3  # words: two always lie on a line


class ConfigError(ReportedError, ValueError):
    """The value of an option cannot be used.

    option   the option's name, as in the dataclass
    problem  what was expected and what came, in one line
    other    an option that the problem names, as {other}
    file     the TOML file that says so; None where it was said otherwise
    """

    def __init__(self, option: str, problem: str, *, other: str = "", file: str | None = None) -> None:
        self.option, self.problem, self.other, self.file = option, problem, other, file
        super().__init__(self.described(str))

    def described(self, written: Callable[[str], str]) -> str:
        """The whole line; `written` says how an option is called where the user has met it."""
        problem = self.problem.replace("{other}", written(self.other)) if self.other else self.problem
        return f"{written(self.option)}: {problem}"


def closest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean '...'?" where a known word is near, else nothing."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


# ------------------------------------------------------------------------------------------------------------ readers
#
# A reader takes what the command line (a string), a TOML file or Python gives and makes the option's value of it, or
# raises ValueError with what was expected.


def whole(low: int, high: int | None = None) -> Reader:
    """A whole number within bounds."""
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
    """A whole number, whose digits may stand in groups of three: 10000 or 10,000, but not 1,5."""
    if "_" in written or ("," in written and not re.fullmatch(r"\s*[+-]?\d{1,3}(,\d{3})+\s*", written)):
        raise ValueError(f"not a whole number: {written}")
    return int(written.replace(",", ""))


def number(wanted: str, fits: Callable[[float], bool]) -> Reader:
    """A finite number that fits."""

    def read(value: Any) -> float:
        try:
            result = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            result = math.nan
        if not math.isfinite(result) or not fits(result):
            raise ValueError(f"expected {wanted}, got {value!r}")
        return result

    return read


def several(read_one: Reader, wanted: str, count: int | None = None) -> Reader:
    """Values separated by commas, or a list; one or more, or exactly `count`."""

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


def choice(names: tuple[str, ...]) -> Reader:
    """One of a few names."""

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
    """A string that can be written: what the system gives for bytes that are not UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected UTF-8, got {value!r}") from None
    return value


def file(value: Any) -> str:
    """The name of a file; not standard input, of which nothing is left when a run is resumed."""
    name = text(value)
    if name == "-":
        raise ValueError("expected a file, which can be read again when the run is resumed, got '-'")
    return name


def texts(value: Any) -> tuple[str, ...]:
    """A list of strings; one string is a list of one."""
    return tuple(text(item) for item in (value if isinstance(value, (list, tuple)) else [value]))


def picture(value: Any) -> Path:
    """A file to draw into."""
    path = Path(text(value))
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"expected a file that ends in .png or .svg, got {str(value)!r}")
    return path


positive = number("a number above 0", lambda value: value > 0)
not_negative = number("a number of at least 0", lambda value: value >= 0)
positive_share = number("a number above 0 and at most 1", lambda value: 0 < value <= 1)
share = number("a share of at least 0 and below 1", lambda value: 0 <= value < 1)


# ------------------------------------------------------------------------------------------------------------ options


@dataclass(frozen=True)
class Option:
    """What the command line and the help need to know of a field."""

    read: Reader
    help: str
    shown: str  # the default as the help shows it
    metavar: str
    fixed: bool  # belongs to the network, the text or the order of its windows: a resumed run keeps it
    repeated: bool


def option(
    default: Any, read: Reader, help: str, *, metavar: str, shown: str = "", fixed: bool = False, repeated: bool = False
) -> Any:
    """A field of the configuration."""
    if not shown:
        shown = f"{default:,}" if isinstance(default, int) else typed_value(default)
    return field(default=default, metadata={"option": Option(read, help, shown, metavar, fixed, repeated)})


def typed_value(value: Any) -> str:
    """A value as it is typed."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
