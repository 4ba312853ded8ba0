"""What a training run tells whoever watches it. Events are plain data: a program may print, draw or forward them."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "Compiled",
    "Compiling",
    "Event",
    "Finished",
    "Measured",
    "NetworkMade",
    "Notice",
    "Reporter",
    "Resumed",
    "Running",
    "Sampled",
    "Saved",
    "Started",
    "Stopped",
    "TextRead",
    "Writing",
]


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    def facts(self) -> dict[str, Any]:
        """Its name and fields, as JSON holds them."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class TextRead(Event):
    """The text is read: words of all its parts, different words and those the vocabulary kept, words held out."""

    source: str
    files: int
    words: int
    types: int
    kept: int
    validation_words: int
    test_words: int


@dataclass(frozen=True)
class NetworkMade(Event):
    """The network's sizes."""

    vocabulary: int
    context: int
    embed: int
    hidden: list[int]
    parameters: int


@dataclass(frozen=True)
class Running(Event):
    """What computes; simd is None where the back-end does not choose it itself."""

    backend: str
    simd: str | None
    precision: str
    threads: int


@dataclass(frozen=True)
class Writing(Event):
    """The run's folder."""

    folder: str


@dataclass(frozen=True)
class Resumed(Event):
    """A checkpoint is loaded."""

    step: int


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know."""

    text: str


@dataclass(frozen=True)
class Compiling(Event):
    """The back-end compiles its kernels, which may take a while."""

    backend: str


@dataclass(frozen=True)
class Compiled(Event):
    """The kernels are ready."""

    seconds: float


@dataclass(frozen=True)
class Started(Event):
    """Training begins, or goes on: after `step` of `total` steps, which is None where time decides."""

    step: int
    total: int | None
    share: float


@dataclass(frozen=True)
class Sampled(Event):
    """A text that the network wrote, beginning with the prompt; at the end `before` is what it wrote untrained."""

    step: int
    prompt: str
    text: str
    before: str | None = None


@dataclass(frozen=True)
class Measured(Event):
    """A line of metrics.jsonl."""

    metrics: dict[str, Any]


@dataclass(frozen=True)
class Saved(Event):
    """A file from which the run can go on, or the best weights so far."""

    file: str
    step: int


@dataclass(frozen=True)
class Stopped(Event):
    """Training was asked to stop, and saved itself; folder is None where the run has none."""

    folder: str | None
    step: int


@dataclass(frozen=True)
class Finished(Event):
    """Training reached its end, or had reached it before.

    folder  of the run; None where it has none
    kept    the step of the kept weights and their figures over all words that are held out
    plot    the picture of the loss; None where it could not be drawn
    """

    folder: str | None
    step: int
    seconds: float
    loss: float | None
    kept: dict[str, Any]
    plot: str | None = None


class Reporter:
    """Watches a run. This one is silent; a program overrides what it wants."""

    def report(self, event: Event) -> None:
        """Something happened."""

    def step(self, step: int, share: float, loss: float) -> None:
        """Step `step` is done, and this share of the run; `loss` is that of its batch. Called after each: be quick."""
