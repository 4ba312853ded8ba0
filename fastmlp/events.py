"""The events of a training run: plain data that a program may print, draw or forward.

`train --json` prints each as a line: an object with the name of its class here as "event", and its fields. Infinity
and NaN become null, since JSON has neither.
"""

import math
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "Compiled",
    "Compiling",
    "Counted",
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
        """Return the event's name and fields in types of JSON."""
        return {"event": type(self).__name__, **{name: _in_json(value) for name, value in asdict(self).items()}}


def _in_json(value: Any) -> Any:
    """Return a field's value in strict JSON: null for infinity and NaN."""
    if isinstance(value, dict):
        return {name: _in_json(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class TextRead(Event):
    """The text was read. Counts: all words, different words, words in the vocabulary, held-out words.

    validation_file  the file with the validation words; None: they are a part of the text
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
    """The back-end, its SIMD variant (None: it has no variants), the precision, and the threads of this process.

    ranks  processes that share the words out, on so many machines (hosts)
    """

    backend: str
    simd: str | None
    precision: str
    threads: int
    ranks: int = 1
    hosts: int = 1


@dataclass(frozen=True)
class Counted(Event):
    """The n-grams of the training text are counted; loss and perplexity of the counts alone on the validation part."""

    order: int
    loss: float
    perplexity: float
    seconds: float


@dataclass(frozen=True)
class Writing(Event):
    """The run's folder."""

    folder: str


@dataclass(frozen=True)
class Resumed(Event):
    """A checkpoint was loaded."""

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
    """Training begins or is resumed.

    step    updates made before
    total   updates in all; None: time limits the run
    share   of the run that is done
    epochs  passes over the text; None: windows are drawn at random
    """

    step: int
    total: int | None
    share: float
    epochs: int | None = None


@dataclass(frozen=True)
class Sampled(Event):
    """A sample text, which begins with the prompt; in the last event `before` is the untrained network's.

    weights_of  step of the weights that wrote it, where it is not this one
    """

    step: int
    prompt: str
    text: str
    before: str | None = None
    weights_of: int | None = None


@dataclass(frozen=True)
class Measured(Event):
    """A line of metrics.jsonl.

    metrics       step, words, seconds, loss, lr, words_per_second (of training since the line before); with a
                  validation val_loss and val_perplexity, which unlike `loss` exclude words outside the vocabulary; in
                  the last line the figures in Finished.kept
    seconds_left  until the run is finished, evaluations and saves included; None before the first measurement
    best_step     step of the lowest validation loss; None before the first validation
    """

    metrics: dict[str, Any]
    seconds_left: float | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class Evaluating(Event):
    """The last step is done and saved; the kept weights are evaluated on all held-out words, which may take long."""

    words: int


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written: one to resume from, or the best weights so far."""

    file: str
    step: int


@dataclass(frozen=True)
class Stopped(Event):
    """Training was stopped on request and saved; folder is None for a run in memory."""

    folder: str | None
    step: int


@dataclass(frozen=True)
class Finished(Event):
    """The run is complete; it may have been so before this sitting.

    folder  of the run; None: a run in memory
    kept    kept_step, the step of the kept weights; their loss and perplexity over the validation and the test part,
            without words outside the vocabulary (kept_val_loss, kept_test_perplexity, ...); the number of those words
            (kept_val_unknown_words, ...); and if <unk> was trained the figures over all words
            (kept_val_loss_with_unknown, kept_val_perplexity_with_unknown, ...)
            `mixture`: what the network, the counts, and their mixtures have as perplexities ("network+counts", ...) on
            some words of a part, "val" (its second half) or "test", to which no weights were fitted
    plot    the picture of the loss; None where it could not be drawn
    mixture  the file of counts and weights, which holds the text; None: there is none
    """

    folder: str | None
    step: int
    seconds: float
    loss: float | None
    kept: dict[str, Any]
    plot: str | None = None
    mixture: str | None = None


@dataclass(frozen=True)
class GoOn(Event):
    """The command is done; these commands can follow, such as the one that resumes a stopped run."""

    commands: list[str]


class Reporter:
    """Receives the events of a run and ignores them; a subclass overrides the methods it needs."""

    def report(self, event: Event) -> None:
        """Receive an event."""

    def step(self, step: int, share: float, loss: float) -> None:
        """Receive a finished step, the share of the run that is done, and the batch's loss; must be quick."""


class Warnings(Reporter):
    """Turns notices into Python warnings and ignores the other events."""

    def report(self, event: Event) -> None:
        """Warn if the event is a notice."""
        if isinstance(event, Notice):
            warnings.warn(event.text, stacklevel=2)
