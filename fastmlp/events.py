"""What a training run tells whoever watches it. Events are plain data: a program may print, draw or forward them.

`train --json` prints each as a line: an object with the name of its class here as "event", and its fields. A number
that is infinite or none at all is null there, as JSON has no other word for it.
"""

import math
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "Compiled",
    "Compiling",
    "Evaluating",
    "Event",
    "Finished",
    "GoOn",
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
    "Warnings",
    "Writing",
]


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    def facts(self) -> dict[str, Any]:
        """Its name and fields, as JSON holds them."""
        return {"event": type(self).__name__, **{name: _in_json(value) for name, value in asdict(self).items()}}


def _in_json(value: Any) -> Any:
    """What strict JSON has for a field: null for a number that is none."""
    if isinstance(value, dict):
        return {name: _in_json(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class TextRead(Event):
    """The text is read: words of all its parts, different words and those the vocabulary kept, words held out.

    validation_file  where the words to validate are, if they are not a part of the text
    """

    source: str
    files: int
    words: int
    types: int
    kept: int
    validation_words: int
    test_words: int
    validation_file: str | None = None


@dataclass(frozen=True)
class NetworkMade(Event):
    """The network's sizes: `hidden` has those of the blocks too, `passes` is how often it will go through the text.

    passes is None where time decides.
    """

    vocabulary: int
    context: int
    embed: int
    hidden: list[int]
    parameters: int
    averages: list[float] = field(default_factory=list)
    reach: int = 0
    activation: str = "tanh"
    projection: bool = False
    tied: bool = False
    dropout: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    passes: float | None = None


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
    """Training begins, or goes on.

    step    updates made before
    total   updates in all; None where time decides
    share   of the run that is done
    epochs  times that the run goes through the text; None where windows are drawn
    """

    step: int
    total: int | None
    share: float
    epochs: int | None = None


@dataclass(frozen=True)
class Sampled(Event):
    """A text that the network wrote, beginning with the prompt; at the end `before` is what it wrote untrained."""

    step: int
    prompt: str
    text: str
    before: str | None = None


@dataclass(frozen=True)
class Measured(Event):
    """A line of metrics.jsonl.

    metrics       step, words, seconds, loss, lr, words_per_second (of training since the line before); with an
                  evaluation val_loss and val_perplexity, which unlike `loss` leave words outside the vocabulary out; in
                  the last line the figures that Finished has as `kept`
    seconds_left  until the run is finished, evaluations and saves included; None where nothing is measured yet
    best_step     when the validation loss was lowest; None where nothing was validated
    """

    metrics: dict[str, Any]
    seconds_left: float | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class Evaluating(Event):
    """The last step is done and saved: the kept weights guess all words that are held out, which may take a while."""

    words: int


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
    kept    kept_step, when the kept weights were made, and their figures over all words of the validation and the
            test part that are in the vocabulary (kept_val_loss, kept_test_perplexity, ...); how many words those leave
            out (kept_val_unknown_words, ...); and where <unk> was trained the figures over all words
            (kept_val_loss_with_unknown, kept_val_perplexity_with_unknown, ...)
    plot    the picture of the loss; None where it could not be drawn
    """

    folder: str | None
    step: int
    seconds: float
    loss: float | None
    kept: dict[str, Any]
    plot: str | None = None


@dataclass(frozen=True)
class GoOn(Event):
    """The command is done: commands to go on with, such as the one that resumes a run that was stopped."""

    commands: list[str]


class Reporter:
    """Watches a run. This one is silent; a program overrides what it wants."""

    def report(self, event: Event) -> None:
        """Something happened."""

    def step(self, step: int, share: float, loss: float) -> None:
        """Step `step` is done, and this share of the run; `loss` is that of its batch. Called after each: be quick."""


class Warnings(Reporter):
    """Makes warnings of what a run's user should know, and is silent otherwise."""

    def report(self, event: Event) -> None:
        """Only notices."""
        if isinstance(event, Notice):
            warnings.warn(event.text, stacklevel=2)
