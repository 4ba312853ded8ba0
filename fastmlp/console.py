"""What `train` shows of a run: lines, a progress bar on a terminal, or JSON for programs."""

import contextlib
import json
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any, Self

from fastmlp.cli import say, silence
from fastmlp.events import (
    Compiled,
    Compiling,
    Event,
    Finished,
    Measured,
    NetworkMade,
    Notice,
    Reporter,
    Resumed,
    Running,
    Sampled,
    Started,
    Stopped,
    TextRead,
    Writing,
)

__all__ = ["Console", "JsonLines", "Printer", "Quiet", "duration"]

REFRESH = 0.1  # seconds from one look of the progress bar to the next
WIDTH = 100  # columns of a sample text


class Printer(Reporter):
    """Writes to standard output; `closed` says that nobody reads it any more."""

    closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def go_on(self, commands: list[str]) -> None:
        """Show commands to go on with."""
        self.write("\nto go on:\n" + "\n".join(f"  {command}" for command in commands))

    def write(self, text: str) -> None:
        """A line, or several."""
        if self.closed:
            return
        try:
            print(text, flush=True)
        except OSError:  # its reader is gone, or its disk full
            self.closed = True
            silence(sys.stdout)


class Quiet(Printer):
    """Says nothing but what should be known, on standard error."""

    def report(self, event: Event) -> None:
        """Only notices."""
        if isinstance(event, Notice):
            say(f"note: {event.text}")

    def go_on(self, commands: list[str]) -> None:
        """Not a word."""


class JsonLines(Printer):
    """Each event as a line of JSON."""

    def report(self, event: Event) -> None:
        """Print it."""
        self.write(json.dumps(event.facts()))

    def go_on(self, commands: list[str]) -> None:
        """As an event of its own."""
        self.write(json.dumps({"event": "GoOn", "commands": commands}))


class Console(Printer):
    """Lines for people; on a terminal a progress bar too, which tqdm draws on standard error."""

    def __init__(self, *, bar: bool) -> None:
        self.with_bar = bar
        self.bar: Any = None
        self.total: int | None = None
        self.began, self.share_before = 0.0, 0.0  # when this sitting's training began, and the run's share by then
        self.share = 0.0
        self.loss, self.steps_seen = 0.0, 0  # smoothed, for the bar
        self.validation = self.speed = ""
        self.refresh_at = 0.0

    def write(self, text: str) -> None:
        """A line, above the progress bar where there is one."""
        if self.bar is None:
            super().write(text)
            return
        with self.drawing():
            self.bar.clear()
        super().write(text)
        with self.drawing():
            self.bar.refresh()

    def report(self, event: Event) -> None:
        """Show an event."""
        match event:
            case TextRead():
                self.write(f"text      {describe_text(event)}")
            case NetworkMade():
                layers = " -> ".join(str(width) for width in event.hidden)
                self.write(
                    f"network   {plural(event.context, 'word')} x {event.embed} -> {layers} ->"
                    f" {event.vocabulary:,} words; {event.parameters:,} parameters"
                )
            case Running():
                simd = f" ({event.simd})" if event.simd else ""
                threads = plural(event.threads, "thread")
                self.write(f"running   {event.backend}{simd}, precision {event.precision}, {threads}")
            case Writing():
                self.write(f"writing   {event.folder}")
            case Resumed():
                self.write(f"resuming  after step {event.step:,}")
            case Notice():
                self.write(f"note: {event.text}")
            case Compiling():
                self.write(f"compiling the {event.backend} kernels, which takes a while the first time ...")
            case Compiled():
                self.write(f"compiled in {event.seconds:.1f} s")
            case Started():
                self.start(event)
            case Sampled():
                self.write(describe_sample(event))
            case Measured():
                self.show_metrics(event.metrics)
            case Stopped():
                self.end_bar()
                where = f"; saved in {event.folder}" if event.folder is not None else ""
                self.write(f"stopped after step {event.step:,}{where}")
            case Finished():
                self.end_bar()
                self.write(describe_end(event))

    def start(self, event: Started) -> None:
        """Training begins: so does the bar."""
        self.total, self.began, self.share_before = event.total, time.monotonic(), event.share
        self.share = event.share
        if self.with_bar:
            from tqdm import tqdm

            layout = "{percentage:3.0f}%|{bar:16}| {desc}"
            self.bar = tqdm(total=1_000, bar_format=layout, dynamic_ncols=True, leave=False)

    def step(self, step: int, share: float, loss: float) -> None:
        """Move the bar, now and then."""
        self.steps_seen += 1
        self.loss += (loss - self.loss) * max(0.01, 1 / self.steps_seen)
        self.share = share
        if self.bar is not None and time.monotonic() >= self.refresh_at:
            self.refresh_at = time.monotonic() + REFRESH
            with self.drawing():
                self.bar.n = 1_000 * share
                self.bar.set_description_str(
                    self.line(step, f"loss {self.loss:.3f}", self.validation, self.speed, self.time_left())
                )

    def show_metrics(self, metrics: dict[str, Any]) -> None:
        """A line for each of metrics.jsonl; beside a bar, which shows the rest, only for those with a validation."""
        self.speed = f"{metrics['words_per_second']:,.0f} words/s" if metrics["words_per_second"] else ""
        validation = ""
        if "val_loss" in metrics:
            validation = f"validation {metrics['val_loss']:.3f} (perplexity {metrics['val_perplexity']:,.1f})"
            self.validation = f"val {metrics['val_loss']:.3f} (perplexity {metrics['val_perplexity']:,.0f})"
        if validation or self.bar is None:
            left = self.time_left() if self.share < 1 else ""
            self.write(self.line(metrics["step"], f"loss {metrics['loss']:.3f}", validation, self.speed, left))

    def line(self, step: int, *parts: str) -> str:
        """Where the run is, and how it does."""
        of_total = "" if self.total is None else f"/{self.total:,}"
        width = len(f"{self.total:,}") if self.total is not None else 0
        return "  ".join([f"step {step:>{width},}{of_total}", *filter(None, parts)])

    def time_left(self) -> str:
        """At the speed of this sitting."""
        done = self.share - self.share_before
        if done <= 0:
            return ""
        return f"{duration((time.monotonic() - self.began) * (1 - self.share) / done)} left"

    def __exit__(self, *_: object) -> None:
        self.end_bar()

    def end_bar(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            with self.drawing():
                self.bar.close()
            self.bar = None

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Within, the bar is drawn; where its terminal is gone it is drawn no more, and training goes on."""
        try:
            yield
        except OSError:
            self.bar.disable = True


def describe_text(event: TextRead) -> str:
    """What was read."""
    files = f" ({event.files} files)" if event.files > 1 else ""
    held_out = [
        f"{words:,} {verb}"
        for words, verb in ((event.validation_words, "to validate"), (event.test_words, "to test"))
        if words
    ]
    rest = f"; held out: {', '.join(held_out)}" if held_out else ""
    kept = f" ({event.kept:,} kept)" if event.kept != event.types else ""
    return f"{event.source}{files}: {event.words:,} words, {event.types:,} different{kept}{rest}"


def describe_sample(event: Sampled) -> str:
    """A text, or the one from before training beside the one from its end."""
    if event.before is not None:
        return f"\n{indented(event.before, 'before: ')}\n{indented(event.text, 'after:  ')}"
    when = f"after {event.step:,} steps" if event.step else "before training"
    return f"\n{indented(event.text, f'{when}: ')}\n"


def describe_end(event: Finished) -> str:
    """The figures of the end."""
    kept = event.kept
    loss = f", training loss {event.loss:.3f}" if event.loss is not None else ""
    lines = [f"\ndone: {event.step:,} steps in {duration(event.seconds)}{loss}"]
    for part, name in (("val", "validation"), ("test", "test")):
        if f"kept_{part}_loss" in kept:
            figures = f"loss {kept[f'kept_{part}_loss']:.3f}, perplexity {kept[f'kept_{part}_perplexity']:,.1f}"
            lines.append(f"{name}: {figures} on all of that part (weights of step {kept['kept_step']:,})")
    if event.plot:
        lines.append(f"the loss over the steps: {event.plot}")
    return "\n".join(lines)


def indented(text: str, label: str) -> str:
    """A text with a label, broken into lines."""
    paragraphs = text.split("\n")
    wrap = textwrap.TextWrapper(WIDTH, initial_indent=label, subsequent_indent=" " * len(label))
    lines = [wrap.fill(paragraphs[0])]
    wrap.initial_indent = wrap.subsequent_indent
    return "\n".join([*lines, *(wrap.fill(paragraph) for paragraph in paragraphs[1:])])


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def plural(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
