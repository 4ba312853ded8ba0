"""What `train` shows of a run: lines, a progress bar on a terminal, or JSON for programs."""

import contextlib
import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any, Self, TextIO

from fastmlp import cli
from fastmlp.events import (
    Compiled,
    Compiling,
    Evaluating,
    Event,
    Finished,
    GoOn,
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
WIDTH = 100  # columns of a sample text, where the terminal has so many
BAR = range(6, 17)  # columns of the bar itself; where there is no room for them, there is none

Paint = Callable[[str, str], str]  # a text in one of these styles
BOLD, DIM, GREEN, YELLOW = "1", "2", "32", "33"


class Printer(Reporter):
    """Writes to standard output; `closed` is why it takes nothing more, once that is so."""

    closed: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def write(self, text: str) -> None:
        """A line, or several."""
        if self.closed is not None:
            return
        try:
            print(text, flush=True)
        except OSError as error:  # its reader is gone, or its disk full
            self.closed = error
            cli.silence(sys.stdout)


class Quiet(Printer):
    """Says nothing but what should be known, on standard error."""

    stopped = False

    def report(self, event: Event) -> None:
        """Only notices, and how a run that was stopped goes on."""
        match event:
            case Notice():
                cli.say(f"note: {event.text}")
            case Stopped():
                self.stopped = True
            case GoOn() if self.stopped:
                cli.say(f"to go on: {event.commands[0]}")


class JsonLines(Printer):
    """Each event as a line of JSON."""

    def report(self, event: Event) -> None:
        """Print it."""
        self.write(json.dumps(event.facts(), allow_nan=False))


class Console(Printer):
    """Lines for people; on a terminal a progress bar too, which tqdm draws on standard error."""

    def __init__(self, *, bar: bool) -> None:
        self.with_bar = bar
        self.bar: Any = None
        self.paint = colors if shows_colors(sys.stdout) else plain
        self.total: int | None = None
        self.epochs: int | None = None
        self.began, self.share_before = 0.0, 0.0  # when this sitting's training began, and the run's share by then
        self.share = 0.0
        self.ends_at: float | None = None  # when the run will be finished, as measured last
        self.loss, self.steps_seen = 0.0, 0  # smoothed, for the bar
        self.validation: tuple[str, ...] = ()  # with its perplexity, and shorter
        self.speed = ""
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
                self.fact("text", describe_text(event))
            case NetworkMade():
                layers = " -> ".join(str(width) for width in event.hidden)
                self.fact(
                    "network",
                    f"{plural(event.context, 'word')} x {event.embed} -> {layers} -> {event.vocabulary:,} words;"
                    f" {event.parameters:,} parameters",
                )
            case Running():
                simd = f" ({event.simd})" if event.simd else ""
                threads = plural(event.threads, "thread")
                self.fact("running", f"{event.backend}{simd}, precision {event.precision}, {threads}")
            case Writing():
                self.fact("writing", event.folder)
            case Resumed():
                self.fact("resuming", f"after step {event.step:,}")
            case Notice():
                self.write(f"{self.paint('note:', YELLOW)} {event.text}")
            case Compiling():
                self.write(f"compiling the {event.backend} kernels, which takes a while the first time ...")
            case Compiled():
                self.write(f"compiled in {event.seconds:.1f} s")
            case Started():
                self.start(event)
            case Sampled():
                self.write(describe_sample(event, self.paint))
            case Measured():
                self.show_metrics(event)
            case Evaluating():
                self.show_in_bar(f"{{percentage:3.0f}}% evaluating on all {event.words:,} words that are held out")
            case Stopped():
                self.end_bar()
                where = f"; saved in {event.folder}" if event.folder is not None else ""
                self.write(f"stopped after step {event.step:,}{where}")
            case Finished():
                self.end_bar()
                self.write(describe_end(event, self.paint))
            case GoOn():
                commands = "\n".join(f"  {command}" for command in event.commands)
                self.write(f"\n{self.paint('to go on:', BOLD)}\n{commands}")

    def fact(self, label: str, text: str) -> None:
        """One of the first lines; a narrow terminal gets it in several."""
        label = f"{label:<10}"
        if cli.is_terminal(sys.stdout):
            text = indented(text, label, shutil.get_terminal_size().columns)[len(label) :]
        self.write(self.paint(label, DIM) + text)

    def start(self, event: Started) -> None:
        """Training begins: so does the bar."""
        self.total, self.epochs, self.share = event.total, event.epochs, event.share
        self.began, self.share_before = time.monotonic(), event.share
        if self.with_bar:
            from tqdm import tqdm

            self.bar = tqdm(total=1_000, bar_format=self.layout(event.step, 80), dynamic_ncols=True, leave=False)

    def step(self, step: int, share: float, loss: float) -> None:
        """Move the bar, now and then."""
        self.steps_seen += 1
        self.loss += (loss - self.loss) * max(0.01, 1 / self.steps_seen)
        self.share = share
        if self.bar is not None and time.monotonic() >= self.refresh_at:
            self.refresh_at = time.monotonic() + REFRESH
            self.show_step(step)

    def show_step(self, step: int) -> None:
        """Draw the bar with where the run is, where there is one."""
        if self.bar is not None:
            columns = self.bar.format_dict["ncols"] or shutil.get_terminal_size().columns
            self.show_in_bar(self.layout(step, columns))

    def show_in_bar(self, layout: str) -> None:
        """Draw the bar anew, where there is one."""
        if self.bar is not None:
            with self.drawing():
                self.bar.n, self.bar.bar_format = 1_000 * self.share, layout
                self.bar.refresh()

    def layout(self, step: int, columns: int) -> str:
        """The progress, as tqdm writes it: of the parts that matter less only what there is room for, then the bar."""
        loss, left = f"loss {self.loss:.3f}" if self.steps_seen else "", self.time_left()
        full, *shorter = (self.line(step, loss, validation, self.speed, left) for validation in (*self.validation, ""))
        lines = [full, *shorter, self.line(step, loss, left), self.line(step, left)]
        room = columns - len("100% ") - 1
        line = next((line for line in lines if len(line) <= room), lines[-1])
        width = min(room - len(line) - len("|| "), BAR[-1])
        bar = f"|{{bar:{width}}}| " if width in BAR else " "
        return f"{{percentage:3.0f}}%{bar}{line}"

    def show_metrics(self, event: Measured) -> None:
        """A line for each of metrics.jsonl; beside a bar, which shows the rest, only for those with a validation."""
        metrics, validation = event.metrics, ""
        self.speed = f"{metrics['words_per_second']:,.0f} words/s" if metrics["words_per_second"] else ""
        self.ends_at = None if event.seconds_left is None else time.monotonic() + event.seconds_left
        if "val_loss" in metrics:
            validation = self.describe_validation(event)
            short = f"val {metrics['val_loss']:.3f}"
            self.validation = f"{short} (perplexity {shortly(metrics['val_perplexity'], 0)})", short
        shown = [f"loss {metrics['loss']:.3f}", validation]
        if self.bar is None:
            self.write(self.line(metrics["step"], *shown, self.speed, self.time_left() if self.share < 1 else ""))
        elif validation:
            self.write(self.line(metrics["step"], *shown))
        if "kept_step" in metrics:  # what was evaluated before is done
            self.show_step(metrics["step"])

    def describe_validation(self, event: Measured) -> str:
        """The figures of an evaluation, and where a better one was if this is not the best so far."""
        metrics = event.metrics
        text = f"validation {metrics['val_loss']:.3f} (perplexity {shortly(metrics['val_perplexity'])})"
        if event.best_step in (None, metrics["step"]):
            return self.paint(text, GREEN)
        return f"{text}, best at step {event.best_step:,}"

    def line(self, step: int, *parts: str) -> str:
        """Where the run is, and how it does."""
        where = f"step {step:,}"
        if self.total is not None:
            where = f"step {step:>{len(f'{self.total:,}')},}/{self.total:,}"
            if self.epochs is not None:
                where += f"  epoch {max(-(-step * self.epochs // self.total), 1)}/{self.epochs}"
        return "  ".join([where, *filter(None, parts)])

    def time_left(self) -> str:
        """As measured last; before that at the speed of this sitting."""
        now = time.monotonic()
        if self.ends_at is not None:
            return f"{duration(max(self.ends_at - now, 0))} left"
        done = self.share - self.share_before
        return f"{duration((now - self.began) * (1 - self.share) / done)} left" if done > 0 else ""

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
    validate = "to validate" if event.validation_file is None else f"to validate (in {event.validation_file})"
    held_out = [
        f"{words:,} {verb}"
        for words, verb in ((event.validation_words, validate), (event.test_words, "to test"))
        if words
    ]
    rest = f"; held out: {', '.join(held_out)}" if held_out else ""
    kept = f" ({event.kept:,} kept)" if event.kept != event.types else ""
    return f"{event.source}{files}: {event.words:,} words, {event.types:,} different{kept}{rest}"


def plain(text: str, style: str) -> str:
    """A text without its style."""
    return text


def colors(text: str, style: str) -> str:
    """A text in its style, on a terminal."""
    return f"\x1b[{style}m{text}\x1b[0m"


def shows_colors(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that shows colors to a user who wants them (https://no-color.org)."""
    return cli.is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def describe_sample(event: Sampled, paint: Paint = plain) -> str:
    """A text, or the one from before training beside the one from its end; what was given is bold."""
    if event.before is not None:
        before, after = (
            completion(text, event.prompt, label, paint)
            for label, text in (("before: ", event.before), ("after:  ", event.text))
        )
        return f"\n{before}\n{after}"
    when = f"after {event.step:,} steps: " if event.step else "before training: "
    return f"\n{completion(event.text, event.prompt, when, paint)}\n"


def completion(text: str, prompt: str, label: str, paint: Paint) -> str:
    """A text that begins with the prompt, broken into lines under its label."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    broken = indented(text, label, width)[len(label) :]
    end = end_of(prompt, broken)
    return paint(label, DIM) + (paint(broken[:end], BOLD) if end else "") + broken[end:]


def end_of(beginning: str, text: str) -> int:
    """Where a text's beginning ends in it, however both are broken into lines; 0 where it begins otherwise."""
    letters = [(place, letter) for place, letter in enumerate(text) if not letter.isspace()]
    wanted = "".join(beginning.split())
    begins = "".join(letter for _, letter in letters).startswith(wanted)
    return letters[len(wanted) - 1][0] + 1 if wanted and begins else 0


def describe_end(event: Finished, paint: Paint = plain) -> str:
    """The figures of the end."""
    kept = event.kept
    loss = f", training loss {event.loss:.3f}" if event.loss is not None else ""
    lines = [f"\n{paint('done:', BOLD)} {event.step:,} steps in {duration(event.seconds)}{loss}"]
    for part, name in (("val", "validation"), ("test", "test")):
        if f"kept_{part}_loss" in kept:
            lines += describe_kept(kept, part, name)
    if event.plot:
        lines.append(f"the loss over the steps: {event.plot}")
    return "\n".join(lines)


def describe_kept(kept: dict[str, Any], part: str, name: str) -> list[str]:
    """The figures of the kept weights on a part; those with unknown words in a line of their own."""

    def figures(which: str = "") -> str:
        perplexity = shortly(kept[f"kept_{part}_perplexity{which}"])
        return f"loss {kept[f'kept_{part}_loss{which}']:.3f}, perplexity {perplexity}"

    unknown = kept.get(f"kept_{part}_unknown_words", 0)  # of a run that ended before they were counted
    left_out = f" but {plural(unknown, 'word')} outside the vocabulary" if unknown else ""
    lines = [f"{name}: {figures()} on all of that part{left_out} (weights of step {kept['kept_step']:,})"]
    if unknown and f"kept_{part}_loss_with_unknown" in kept:
        lines.append(f"{name} with them: {figures('_with_unknown')}: <unk> was trained")
    return lines


def indented(text: str, label: str, width: int = WIDTH) -> str:
    """A text with a label, broken into lines of at most so many columns, but for words that are longer."""
    paragraphs = text.split("\n")
    wrap = textwrap.TextWrapper(
        max(width, 2 * len(label)),
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = [wrap.fill(paragraphs[0])]
    wrap.initial_indent = wrap.subsequent_indent
    return "\n".join([*lines, *(wrap.fill(paragraph) for paragraph in paragraphs[1:])])


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def shortly(perplexity: float, digits: int = 1) -> str:
    """A perplexity; one that tells a reader nothing any more as a power of ten."""
    return f"{perplexity:,.{digits}f}" if perplexity < 1e7 else f"{perplexity:.0e}"


def plural(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
