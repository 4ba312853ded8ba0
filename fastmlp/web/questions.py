"""The questions that the page asks, and how their fields are read, from whatever sent them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastmlp.errors import ReportedError
from fastmlp.options import FEWEST_ON_MAP, not_negative, positive_share, whole

__all__ = ["MAP", "NEIGHBORS", "NEXT", "RUN", "SURPRISE", "TRAINING", "Field", "QuestionError", "read_fields"]

MOST_ON_MAP = 5_000


class QuestionError(ReportedError):
    """A question that is not understood."""


class Field(NamedTuple):
    """A field of a question: how it is read, and its value where it is left out; ... where it may not be."""

    read: Callable[[Any], Any]
    default: Any = ...


def a_text(value: Any) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {value!r}")
    return value


def names(value: Any) -> tuple[str, ...]:
    """Read a list of strings."""
    if not isinstance(value, list):
        raise ValueError(f"expected a list of names, got {value!r}")
    return tuple(map(a_text, value))


def read_fields(given: Any, fields: dict[str, Field]) -> dict[str, Any]:
    """Return the fields of a question. Raise QuestionError for one that is missing, unknown, or of another kind."""
    if not isinstance(given, dict):
        raise QuestionError("expected a JSON object")
    if unknown := given.keys() - fields:
        raise QuestionError(f"{', '.join(sorted(unknown))}: no such field")
    found = {}
    for name, (read, default) in fields.items():
        value = given.get(name)
        if value is None:
            if default is ...:
                raise QuestionError(f"{name}: missing")
            found[name] = default
            continue
        try:
            found[name] = read(value)
        except (ValueError, TypeError) as error:
            raise QuestionError(f"{name}: {error}") from None
    return found


RUN, PREDICTORS = Field(a_text), Field(names, ())
NEXT = {
    "text": Field(a_text),
    "place": Field(whole(0), None),
    "predictors": PREDICTORS,
    "count": Field(whole(1, 1_000), 20),
    "temperature": Field(not_negative, 1.0),
    "top_k": Field(whole(1), None),
    "top_p": Field(positive_share, None),
}
SURPRISE = {"text": Field(a_text), "predictors": PREDICTORS}
MAP = {"count": Field(whole(FEWEST_ON_MAP, MOST_ON_MAP), 1_000)}
NEIGHBORS = {"word": Field(a_text), "count": Field(whole(1, 100), 10)}
TRAINING = {"text": Field(a_text, None), "resume": Field(a_text, None), "minutes": Field(not_negative, None)}
