"""The progress bar of a training that is a function call, on a terminal or in a notebook."""

import sys
import warnings
from importlib.util import find_spec
from typing import Any, Self

from fastmlp.errors import require
from fastmlp.events import Event, Finished, Measured, Started, Stopped, Warnings

__all__ = ["Bar", "shows_bar"]

FINE = 1_000  # parts of the bar: a run that time limits has no number of steps


def shows_bar(wanted: bool | None) -> bool:
    """Return whether to show a bar: as wanted, or for None on a terminal and in a notebook where tqdm is installed.

    Raises MissingPackageError if a bar is wanted and tqdm is not installed.
    """
    if wanted:
        require("tqdm", "progress=True")
    if wanted is not None:
        return wanted
    seen = "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
    if seen and find_spec("tqdm") is None:
        warnings.warn("no progress bar, which needs tqdm: pip install tqdm", stacklevel=3)
        return False
    return seen


class Bar(Warnings):
    """Shows the share of a run that is done, its step and losses; notices are Python warnings."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def report(self, event: Event) -> None:
        """Begin, describe and end the bar."""
        super().report(event)
        if isinstance(event, Started):
            from tqdm.auto import tqdm  # imported late: it looks for notebooks

            layout = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
            self._bar = tqdm(total=FINE, initial=int(FINE * event.share), bar_format=layout)
        elif isinstance(event, Measured) and self._bar is not None:
            names = ("step", "loss", "val_loss")
            self._bar.set_postfix({name: event.metrics[name] for name in names if name in event.metrics})
        elif isinstance(event, Finished | Stopped) and self._bar is not None:
            self._bar.close()

    def step(self, step: int, share: float, loss: float) -> None:
        """Move the bar."""
        if self._bar is not None and (parts := int(FINE * share) - self._bar.n) > 0:
            self._bar.update(parts)
