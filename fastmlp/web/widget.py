"""Write and Surprise in a notebook: a widget of the page's own modules, which asks this process."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import anywidget
import traitlets

from fastmlp.errors import ReportedError
from fastmlp.prediction.mixture import Mixture
from fastmlp.web.answers import Model, NextWords
from fastmlp.web.bundle import bundle, page_file
from fastmlp.web.questions import NEXT, SURPRISE, QuestionError, read_fields

__all__ = ["Widget"]


class Widget(anywidget.AnyWidget):
    """The page in a cell's output; as text it says what it is."""

    _esm = bundle("widget")
    predictors = traitlets.List(traitlets.Unicode()).tag(sync=True)
    style = traitlets.Unicode().tag(sync=True)

    def __init__(self, mixture: Callable[[], Mixture], lock: AbstractContextManager[Any], name: str) -> None:
        """mixture  returns what is to answer, at each question: it may have been trained anew
        lock     held while it computes
        name     of the model, for the widget's text
        """
        super().__init__(predictors=list(mixture().names), style=scoped_style())
        self._mixture, self._lock, self._name = mixture, lock, name
        self._asked: tuple[Mixture, Model] | None = None  # what was asked last
        self.on_msg(self._hear)

    def __repr__(self) -> str:
        return f"the page of {self._name}: a notebook shows it; elsewhere python -m fastmlp.play"

    def _model(self) -> Model:
        mixture = self._mixture()
        if self._asked is None or self._asked[0] is not mixture:
            self._asked = mixture, Model(mixture, self._lock)
        return self._asked[1]

    def _hear(self, _widget: Any, message: Any, _buffers: Any) -> None:
        number = message.get("number") if isinstance(message, dict) else None
        try:
            self.send({"number": number, "answer": self._answer(message)})
        except ReportedError as error:
            self.send({"number": number, "error": str(error)})
        except Exception as error:  # the page must not wait for ever
            self.send({"number": number, "error": f"{type(error).__name__}: {error}"})
            raise

    def _answer(self, message: Any) -> dict[str, Any]:
        method, question = (message.get(name) if isinstance(message, dict) else None for name in ("method", "question"))
        if method == "next":
            return self._model().next_words(NextWords(**read_fields(question, NEXT)))
        if method == "surprise":
            return self._model().surprise(**read_fields(question, SURPRISE))
        raise QuestionError(f"{method!r}: no such question")


def scoped_style() -> str:
    """Return the page's style for a part of another page: what holds for its root and body holds for that part."""
    return re.sub(r"^( *)body\b", r"\1.body", page_file("page.css").replace(":root", ":host"), flags=re.MULTILINE)
