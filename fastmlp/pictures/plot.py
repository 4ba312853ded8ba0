"""The picture of a run: its training and validation loss over the iterations, and its learning rate below."""

import contextlib
import io
import logging
import math
import os
import textwrap
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.errors import require
from fastmlp.files.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_loss", "plot_loss", "plot_runs", "printable", "quiet", "smooth"]

Array = np.ndarray
Metrics = Sequence[Mapping[str, Any]]

ROUND = [1, 2, 5, 10]  # steps between the numbers on an axis
TRAINING, VALIDATION, LEARNING_RATE, COUNTS = "#1f77b4", "#d9480f", "#2b8a3e", "#495057"
HIGHEST_WITH_PERPLEXITY = 16.0  # nats; a larger perplexity, above nine million, says nothing


_drawing = threading.RLock()


def _renew_lock() -> None:
    """Renew the lock in a forked child: a thread that the child does not have may have held it."""
    global _drawing
    _drawing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence matplotlib's messages: on a temporary folder for its caches where there is no writable home, and on
    characters that its font lacks.

    One thread at a time, since the settings it changes are the whole program's.
    """
    with _drawing:
        yield from _without_talk()


def _without_talk() -> Iterator[None]:
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            yield
    finally:
        logger.setLevel(level)


@quiet()
def plot_loss(metrics: Metrics, path: Path, *, title: str) -> "Figure":
    """Write the picture of `draw_loss` as a PNG of 1200 x 900 pixels; the same metrics make the same bytes.

    metrics, title  as in draw_loss
    path            file to write or replace
    Returns the figure. Raises CheckpointError where it cannot be written.
    """
    png = io.BytesIO()
    figure = draw_loss(metrics, title)
    figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    write_atomically(path, png.getvalue())
    return figure


@quiet()
def plot_runs(runs: Mapping[str, Metrics], path: Path) -> "Figure":
    """Write a picture of several runs: the validation loss of each over the minutes, with the perplexity on the right.

    runs  the lines of metrics of each run, by its name; one that has not validated shows its training loss, dashed
    path  file to write or replace, .png or .svg
    Returns the figure. Raises CheckpointError where it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)  # draws in memory, without a display
    axes = figure.subplots()
    for name, metrics in runs.items():
        key, style = ("val_loss", "o-") if any("val_loss" in line for line in metrics) else ("loss", "--")
        lines = [line for line in metrics if line.get(key) is not None and math.isfinite(line[key])]
        minutes = [line["seconds"] / 60 for line in lines]
        axes.plot(minutes, [line[key] for line in lines], style, markersize=3, linewidth=1.4, label=printable(name))
    axes.set_xlabel("minutes")
    axes.set_ylabel("loss (nats per word)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_ylim()[1] <= HIGHEST_WITH_PERPLEXITY:
        _add_perplexity(axes)
    if runs:
        axes.legend(framealpha=0.8, edgecolor="none")
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    write_atomically(path, picture.getvalue())
    return figure


@quiet()
def draw_loss(metrics: Metrics, title: str) -> "Figure":
    """Draw the training loss, measured and smoothed, and the validation loss with its best, in nats and as perplexity;
    below, on the same iterations, the learning rate.

    metrics  a run's lines, by iteration: `step`, `loss`, and optionally `val_loss`, `lr` and `counts_val_loss`; values
             that are not finite are left out; so is the panel of `lr` if there is none
    title    one line of plain text
    """
    require("matplotlib", "a picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(8, 6), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)  # draws in memory, without a display
    steps, rates = _series(metrics, "lr")
    panels = [5, 1] if rates.size else [1]
    axes, *below = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=panels)[:, 0]
    _draw_losses(axes, metrics)
    axes.set_title(textwrap.fill(printable(title), 80), parse_math=False)
    for panel in below:
        _draw_learning_rate(panel, steps, rates)
    _set_iterations(figure, [line["step"] for line in metrics] or [0])
    return figure


def printable(text: str) -> str:
    """Return the text with a question mark for each line end, control character and surrogate."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _set_iterations(figure: "Figure", steps: Sequence[int]) -> None:
    """Set up the axis that all panels share, with its numbers below the last one."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    for axes in figure.axes:
        axes.margins(x=0.02)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    lowest = figure.axes[-1]
    lowest.set_xlabel("iteration")
    lowest.xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND))
    lowest.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if min(steps) == max(steps):  # around one point matplotlib would show fractions of an iteration
        lowest.set_xlim(steps[0] - 0.5, steps[0] + 10)
    figure.align_ylabels()


def _draw_losses(axes: "Axes", metrics: Metrics) -> None:
    _draw_training(axes, *_series(metrics, "loss"))
    _draw_validation(axes, metrics)
    _draw_counts(axes, metrics)
    axes.set_ylabel("loss (nats per word)")
    if axes.get_ylim()[1] <= HIGHEST_WITH_PERPLEXITY:
        _add_perplexity(axes)
    if axes.lines:
        axes.legend(framealpha=0.8, edgecolor="none")


def _draw_training(axes: "Axes", steps: Array, losses: Array) -> None:
    if losses.size:
        axes.plot(steps, losses, ".", color=TRAINING, alpha=0.4, markeredgewidth=0, label="training")
        axes.plot(steps, smooth(losses), color=TRAINING, linewidth=2, label="training, smoothed")


def _kept_figures(end: Mapping[str, Any]) -> str:
    """Return the kept weights' loss on the validation part, without unknown words and, if there are any, with them.

    The training loss includes unknown words.
    """
    unknown, with_unknown = end.get("kept_val_unknown_words"), end.get("kept_val_loss_with_unknown")
    all_but = f"all of that part but {unknown:,} unknown words" if unknown else "all of that part"
    figures = _figures(f"on {all_but}", end.get("kept_val_loss"))
    return figures + (_figures("with them", with_unknown) if unknown else "")


def _figures(of: str, loss: float | None) -> str:
    return "" if loss is None else f"\n{of}: {loss:.3f}{_perplexity(loss)}"


def _perplexity(loss: float) -> str:
    return f" (perplexity {math.exp(loss):,.1f})" if loss <= HIGHEST_WITH_PERPLEXITY else ""


def _draw_validation(axes: "Axes", metrics: Metrics) -> None:
    steps, losses = _series(metrics, "val_loss")
    if losses.size:
        end = metrics[-1]
        kept = np.flatnonzero(steps == end.get("kept_step"))  # not the lowest point if the validation words changed
        best = int(kept[0] if kept.size else losses.argmin())
        found = f"best validation: {losses[best]:.3f} at {steps[best]:,.0f}{_perplexity(losses[best])}"
        found += _kept_figures(end)
        axes.plot(steps, losses, "o-", color=VALIDATION, markersize=5, linewidth=1.2, label="validation")
        axes.plot(steps[best], losses[best], "*", color=VALIDATION, markersize=15, markeredgecolor="white", label=found)


def _draw_counts(axes: "Axes", metrics: Metrics) -> None:
    _, losses = _series(metrics, "counts_val_loss")
    if losses.size:
        label = f"counts alone on the validation part: {losses[0]:.3f}{_perplexity(losses[0])}"
        axes.axhline(losses[0], color=COUNTS, linestyle="--", linewidth=1.2, label=label)


def _draw_learning_rate(axes: "Axes", steps: Array, rates: Array) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.plot(steps, rates, ".-", color=LEARNING_RATE, markersize=3, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=ROUND))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _add_perplexity(axes: "Axes") -> None:
    """Add a second axis on the right: the perplexity exp(loss), at round numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    low, high = axes.get_ylim()
    right = axes.secondary_yaxis("right", functions=(np.exp, _log))
    narrow = high - low < math.log(20)
    right.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND) if narrow else LogLocator(subs=(1, 2, 5), numticks=20))
    right.yaxis.set_major_formatter(FuncFormatter(lambda perplexity, _: f"{perplexity:,.10g}"))
    right.set_ylabel("perplexity")
    right.spines["right"].set_visible(False)


def _log(perplexity: Any) -> Any:
    """Return the loss of a perplexity; matplotlib passes 0 before it knows the axis."""
    return np.log(np.maximum(perplexity, np.finfo(np.float64).tiny))


def _series(metrics: Metrics, key: str) -> tuple[Array, Array]:
    """Return the steps at which a value was measured, and the values."""
    points = [(line["step"], line[key]) for line in metrics if line.get(key) is not None and math.isfinite(line[key])]
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    return steps, values


def smooth(values: Array) -> Array:
    """Return a moving average, taken twice: over up to a thirtieth of all values on either side.

    Unlike an exponential average it does not lag behind. Value i has at most i // 4 neighbours on either side: in the
    beginning, where the loss falls fast, more of them would draw the line too high.
    """
    position = np.arange(values.size)
    reach = np.minimum(position // 4, math.ceil(values.size / 30))
    first, end = position - reach, np.minimum(position + reach + 1, values.size)
    for _ in range(2):
        total = np.concatenate([[0.0], np.cumsum(values)])
        values = (total[end] - total[first]) / (end - first)
    return values
