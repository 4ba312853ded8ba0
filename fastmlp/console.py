"""The output of `train`: lines and a progress bar for people, JSON for programs."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TextIO

from fastmlp import cli
from fastmlp.events import (
    Compiled,
    Compiling,
    Counted,
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
from fastmlp.files.run_folder import LAST_FILE
from fastmlp.text.wrapping import wrapped

__all__ = ["Console", "JsonLines", "Printer", "Quiet", "duration"]

REFRESH = 0.1  # seconds between two refreshes of the progress bar
BETWEEN_LINES = 10.0  # seconds between two progress lines where there is no bar, but before the last one
WIDTH = 100  # columns of a sample text, at most
BAR = range(6, 17)  # columns that the bar itself may have; with less room it is left out

Paint = Callable[[str, str], str]  # (text, style) -> the text in that style
BOLD, DIM, GREEN, YELLOW = "1", "2", "32", "33"


class Printer(Reporter):
    """Writes to standard output until that fails; `closed` is then the error."""

    closed: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def write(self, text: str) -> None:
        """Print one or more lines."""
        if self.closed is not None:
            return
        try:
            print(text, flush=True)
        except OSError as error:  # the reader has closed the pipe, or the disk is full
            self.closed = error
            cli.silence(sys.stdout)


class Quiet(Printer):
    """Prints notices only, to standard error."""

    stopped = False

    def report(self, event: Event) -> None:
        """Print a notice, or the command that resumes a stopped run."""
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
        """Print the event."""
        self.write(json.dumps(event.facts(), allow_nan=False))


class Console(Printer):
    """Lines for people; on a terminal a progress bar too, which tqdm draws on standard error."""

    def __init__(self, *, bar: bool) -> None:
        self.with_bar = bar
        self.bar: Any = None
        self.paint = colors if shows_colors(sys.stdout) else plain
        self.total: int | None = None
        self.epochs: int | None = None
        self.began, self.share_before = 0.0, 0.0  # start of this sitting, and the share of the run done before it
        self.share = 0.0
        self.ends_at: float | None = None  # expected end of the run, by the last measurement
        self.loss, self.steps_seen = 0.0, 0  # smoothed, for the bar
        self.validation: tuple[str, ...] = ()  # the last one, with its perplexity and without
        self.speed = ""
        self.refresh_at = self.line_at = 0.0

    def write(self, text: str) -> None:
        """Print one or more lines, above the progress bar if there is one."""
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
                self.fact("network", describe_network(event))
            case Running():
                simd = f" ({event.simd})" if event.simd else ""
                threads = plural(event.threads, "thread")
                if event.ranks > 1:
                    threads += f" in each of {event.ranks} ranks on {plural(event.hosts, 'machine')}"
                self.fact("running", f"{event.backend}{simd}, precision {event.precision}, {threads}")
            case Counted():
                counted = f"perplexity {shortly(event.perplexity)} in {event.seconds:.1f} s"
                self.fact("counting", f"{counted}, by sequences of up to {plural(event.order, 'word')} (Kneser-Ney)")
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
        """Print a labelled line about the run, wrapped on a narrow terminal."""
        label = f"{label:<10}"
        if cli.is_terminal(sys.stdout):
            text = indented(text, label, shutil.get_terminal_size().columns)[len(label) :]
        self.write(self.paint(label, DIM) + text)

    def start(self, event: Started) -> None:
        """Start the clock and the progress bar."""
        self.total, self.epochs, self.share = event.total, event.epochs, event.share
        self.began, self.share_before, self.line_at = time.monotonic(), event.share, 0.0
        if self.with_bar:
            from tqdm import tqdm

            self.bar = tqdm(total=1_000, bar_format=self.layout(event.step, 80), dynamic_ncols=True, leave=False)

    def step(self, step: int, share: float, loss: float) -> None:
        """Update the smoothed loss; refresh the bar every REFRESH seconds."""
        self.steps_seen += 1
        self.loss += (loss - self.loss) * max(0.01, 1 / self.steps_seen)
        self.share = share
        if self.bar is not None and time.monotonic() >= self.refresh_at:
            self.refresh_at = time.monotonic() + REFRESH
            self.show_step(step)

    def show_step(self, step: int) -> None:
        """Refresh the bar, if there is one, with the progress at this step."""
        if self.bar is not None:
            columns = self.bar.format_dict["ncols"] or shutil.get_terminal_size().columns
            self.show_in_bar(self.layout(step, columns))

    def show_in_bar(self, layout: str) -> None:
        """Refresh the bar, if there is one, in this layout."""
        if self.bar is not None:
            with self.drawing():
                self.bar.n, self.bar.bar_format = 1_000 * self.share, layout
                self.bar.refresh()

    def layout(self, step: int, columns: int) -> str:
        """Return a bar_format for tqdm: the longest progress line that fits, and the bar if it fits too."""
        loss, left = f"loss {self.loss:.3f}" if self.steps_seen else "", self.time_left()
        full, *shorter = (self.line(step, loss, validation, self.speed, left) for validation in (*self.validation, ""))
        lines = [full, *shorter, self.line(step, loss, left), self.line(step, left)]
        room = columns - len("100% ") - 1
        line = next((line for line in lines if len(line) <= room), lines[-1])
        width = min(room - len(line) - len("|| "), BAR[-1])
        bar = f"|{{bar:{width}}}| " if width in BAR else " "
        return f"{{percentage:3.0f}}%{bar}{line}"

    def show_metrics(self, event: Measured) -> None:
        """Print a line of metrics: beside a bar those with a validation, without one the first in ten seconds."""
        metrics, validation = event.metrics, ""
        self.speed = f"{metrics['words_per_second']:,.0f} words/s" if metrics["words_per_second"] else ""
        self.ends_at = None if event.seconds_left is None else time.monotonic() + event.seconds_left
        if "val_loss" in metrics:
            validation = self.describe_validation(event)
            short = f"val {metrics['val_loss']:.3f}"
            self.validation = f"{short} (perplexity {shortly(metrics['val_perplexity'], 0)})", short
        shown = [f"loss {metrics['loss']:.3f}", validation]
        if self.bar is None:
            if (now := time.monotonic()) >= self.line_at or self.share >= 1:
                self.line_at = now + BETWEEN_LINES
                self.write(self.line(metrics["step"], *shown, self.speed, self.time_left() if self.share < 1 else ""))
        elif validation:
            self.write(self.line(metrics["step"], *shown))
        if "kept_step" in metrics:  # the final evaluation is done
            self.show_step(metrics["step"])

    def describe_validation(self, event: Measured) -> str:
        """Return the validation loss and perplexity, and the step of the best validation if it was another."""
        metrics = event.metrics
        text = f"validation {metrics['val_loss']:.3f} (perplexity {shortly(metrics['val_perplexity'])})"
        if event.best_step in (None, metrics["step"]):
            return self.paint(text, GREEN)
        return f"{text}, best at step {event.best_step:,}"

    def line(self, step: int, *parts: str) -> str:
        """Return a progress line: the step, the epoch, and the given parts."""
        where = f"step {step:,}"
        if self.total is not None:
            where = f"step {step:>{len(f'{self.total:,}')},}/{self.total:,}"
            if self.epochs is not None:
                where += f"  epoch {max(-(-step * self.epochs // self.total), 1)}/{self.epochs}"
        return "  ".join([where, *filter(None, parts)])

    def time_left(self) -> str:
        """Return the time left by the last measurement; before the first one, by the speed of this sitting."""
        now = time.monotonic()
        if self.ends_at is not None:
            return f"{duration(max(self.ends_at - now, 0))} left"
        done = self.share - self.share_before
        return f"{duration((now - self.began) * (1 - self.share) / done)} left" if done > 0 else ""

    def __exit__(self, *_: object) -> None:
        self.end_bar()

    def end_bar(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            with self.drawing():
                self.bar.close()
            self.bar = None

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Guard code that draws the bar: an error, as when the terminal is gone, disables the bar only."""
        try:
            yield
        except OSError:
            self.bar.disable = True


def describe_text(event: TextRead) -> str:
    """Return a description of the text: source, words, held-out parts."""
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
    """Return the text unchanged."""
    return text


def colors(text: str, style: str) -> str:
    """Return the text with the escape codes of its style."""
    return f"\x1b[{style}m{text}\x1b[0m"


def shows_colors(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that shows colors to a user who wants them (https://no-color.org)."""
    return cli.is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def describe_sample(event: Sampled, paint: Paint = plain) -> str:
    """Return a sample text, or the samples from before and after training; the prompt is bold."""
    if event.before is not None:
        before, after = (
            completion(text, event.prompt, label, paint)
            for label, text in (("before: ", event.before), ("after:  ", event.text))
        )
        if event.weights_of not in (None, event.step):
            after += f"\n        {paint(f'(with the best weights, of step {event.weights_of:,})', DIM)}"
        return f"\n{before}\n{after}"
    when = f"after {event.step:,} steps: " if event.step else "before training: "
    return f"\n{completion(event.text, event.prompt, when, paint)}\n"


def completion(text: str, prompt: str, label: str, paint: Paint) -> str:
    """Return a text wrapped under its label, with its prompt in bold."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    broken = indented(text, label, width)[len(label) :]
    end = end_of(prompt, broken)
    return paint(label, DIM) + (paint(broken[:end], BOLD) if end else "") + broken[end:]


def end_of(beginning: str, text: str) -> int:
    """Return where `beginning` ends in `text`, ignoring white space; 0 if the text begins otherwise."""
    letters = [(place, letter) for place, letter in enumerate(text) if not letter.isspace()]
    wanted = "".join(beginning.split())
    begins = "".join(letter for _, letter in letters).startswith(wanted)
    return letters[len(wanted) - 1][0] + 1 if wanted and begins else 0


def describe_end(event: Finished, paint: Paint = plain) -> str:
    """Return the last lines of a run: duration, losses and the file of the picture."""
    kept = event.kept
    loss = f", training loss {event.loss:.3f}" if event.loss is not None else ""
    lines = [f"\n{paint('done:', BOLD)} {event.step:,} steps in {duration(event.seconds)}{loss}"]
    for part, name in (("val", "validation"), ("test", "test")):
        if f"kept_{part}_loss" in kept:
            lines += describe_kept(kept, part, name)
    if "mixture" in kept:
        lines.append(describe_mixture(kept["mixture"]))
    if event.plot:
        lines.append(f"the loss over the steps: {event.plot}")
    if event.folder is not None and (last := Path(event.folder, LAST_FILE)).exists():
        lines.append(f"only to train it further: {last} ({last.stat().st_size / 1e6:,.0f} MB), which may be deleted")
    if event.mixture:
        lines.append(f"the counts, which hold the text itself: {event.mixture} (--no-counts: without)")
    return "\n".join(lines)


def describe_kept(kept: dict[str, Any], part: str, name: str) -> list[str]:
    """Return lines with the kept weights' loss and perplexity on a part; one more with unknown words included."""

    def figures(which: str = "") -> str:
        perplexity = shortly(kept[f"kept_{part}_perplexity{which}"])
        return f"loss {kept[f'kept_{part}_loss{which}']:.3f}, perplexity {perplexity}"

    unknown = kept.get(f"kept_{part}_unknown_words", 0)  # missing in runs of earlier versions
    left_out = f" but {plural(unknown, 'word')} outside the vocabulary" if unknown else ", all in the vocabulary"
    lines = [f"{name}: {figures()} on all of that part{left_out} (weights of step {kept['kept_step']:,})"]
    if unknown and f"kept_{part}_loss_with_unknown" in kept:
        lines.append(f"{name} with them: {figures('_with_unknown')}: <unk> was trained")
    return lines


def describe_mixture(figures: dict[str, Any]) -> str:
    """Return the perplexities of the mixtures, of the network and of the counts, and of which words they are."""
    where = "the test part" if figures["part"] == "test" else "the second half of that part"
    network, counts, both, whole = (
        shortly(figures[names]) for names in ("network", "counts", "network+counts", "network+counts+cache")
    )
    return (
        f"mixed: perplexity {both} with the counts, {whole} with a cache too"
        f" ({network} network alone, {counts} counts alone; {where}, which no weight was fitted to)"
    )


def indented(text: str, label: str, width: int = WIDTH) -> str:
    """Return a text with its label, wrapped at `width` columns; longer words are not broken."""
    indent = " " * len(label)
    lines = "".join(wrapped([text], max(width, 2 * len(label)) - len(label))).split("\n")
    return label + "\n".join([lines[0], *(indent + line if line else "" for line in lines[1:])])


def describe_network(network: NetworkMade) -> str:
    """Its sizes, and how often it will go through the text."""
    widths = [*network.hidden, *([network.embed] if network.projection else [])]
    far = f" and {len(network.averages)} averages of the {network.reach} before" if network.averages else ""
    passes = ""
    if network.passes is not None:
        number = f"{network.passes:.2g}" if network.passes < 10 else f"{network.passes:,.0f}"
        passes = f"; {number} {'pass' if number == '1' else 'passes'} over the text"
    dropped = f", dropout {', '.join(f'{share:g}' for share in network.dropout)}" if any(network.dropout) else ""
    return (
        f"{plural(network.context, 'word')}{far} x {network.embed} -> {' -> '.join(map(str, widths))}"
        f" -> {network.vocabulary:,} words; {network.parameters:,} parameters{passes}{dropped}"
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def shortly(perplexity: float, digits: int = 1) -> str:
    """Return a perplexity as text; a huge one as a power of ten."""
    return f"{perplexity:,.{digits}f}" if perplexity < 1e7 else f"{perplexity:.0e}"


def plural(count: int, noun: str) -> str:
    """Return a count and its noun, in the plural unless the count is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
