"""The map of a model's words: their vectors in two dimensions, where words that are used alike lie together."""

import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastmlp.errors import require
from fastmlp.files.atomic import write_atomically
from fastmlp.pictures.fonts import fonts_for
from fastmlp.pictures.plot import printable, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

__all__ = ["draw_words", "plot_words", "principal_components"]

Array = np.ndarray
DPI = 150
PIXELS = DPI / 72  # of a point
FONT_SIZE = 8.0  # points
GAP = 3.0 * PIXELS  # between a dot and its label
FURTHER = np.array([0.0, 10.0, 20.0]) * PIXELS  # from the dot to a label that has no room beside it
DIRECTIONS = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)])
DOTS, LEADERS = "#1f77b4", "0.7"


def principal_components(vectors: Array) -> tuple[Array, Array]:
    """Project vectors on the two directions in which they vary most.

    vectors  (N, D), N at least 2
    Returns points (N, 2), and the share (2,) of all variance that each axis shows. The sign of an axis, which the
    singular value decomposition leaves open, makes the coordinate that is furthest from 0 positive.
    """
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    centred = np.pad(centred, ((0, 0), (0, 1)))  # so that there are two directions even where D is 1
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :2] * singular[:2]
    furthest = points[np.abs(points).argmax(axis=0), [0, 1]]
    variance = singular**2
    return points * np.where(furthest < 0, -1, 1), variance[:2] / max(variance.sum(), np.finfo(np.float64).tiny)


@quiet()
def plot_words(words: Sequence[str], vectors: Array, path: Path, *, title: str) -> "Figure":
    """Write the picture of `draw_words` as a PNG of 1500 x 1350 pixels or as SVG; the same vectors make the same bytes.

    words, vectors, title  as in draw_words
    path                   file to write or replace, whose name ends in .png or .svg
    Returns the figure. Raises CheckpointError where it cannot be written.
    """
    require("matplotlib", "a picture")
    from matplotlib import rc_context

    picture = io.BytesIO()
    figure = draw_words(words, vectors, title)
    with rc_context({"svg.hashsalt": "fastmlp"}):  # makes its ids the same each time
        if path.suffix.lower() == ".svg":
            figure.savefig(picture, format="svg", metadata={"Date": None})
        else:
            figure.savefig(picture, format="png", metadata={"Software": None})
    write_atomically(path, picture.getvalue())
    return figure


@quiet()
def draw_words(words: Sequence[str], vectors: Array, title: str) -> "Figure":
    """Draw a dot for each word, labelled if there is room; the first words are labelled first.

    words    (N,) the most important first
    vectors  (N, D), of which the two principal components are drawn
    title    one line of plain text
    Letters that the usual font lacks are those of another one; warns where none has them.
    """
    require("matplotlib", "a picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = [printable(word) for word in words]
    families, missing = fonts_for([*labels, title])
    if missing:
        shown = missing if len(missing) <= 10 else f"{missing[:10]} ..."
        warnings.warn(
            f"no font of this machine has {len(missing):,} of the letters, which are boxes on the map: {shown};"
            " install one that has them, such as Noto Sans CJK",
            stacklevel=2,
        )
    points, shares = principal_components(vectors)
    figure = Figure(figsize=(10, 9), dpi=DPI)
    FigureCanvasAgg(figure)  # draws in memory, without a display
    axes = figure.add_axes((0.04, 0.04, 0.92, 0.91))  # fixed, since the labels are placed by it
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.05)
    axes.plot(*points.T, ".", color=DOTS, markersize=3)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(LEADERS)
    axes.set_title(printable(title), parse_math=False, fontfamily=families)
    axes.set_xlabel(f"first principal component: {shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second: {shares[1]:.0%}")
    axes.apply_aspect()
    _label(axes, labels, points, families)
    return figure


def _label(axes: "Axes", words: Sequence[str], points: Array, families: Sequence[str]) -> None:
    """Write each word beside its dot, or further away with a line to it; leave it out if it would cover something."""
    dots = axes.transData.transform(points)  # (N, 2) pixels
    low, high = axes.bbox.get_points()
    taken = np.empty((0, 2, 2))  # lower left and upper right corners of the labels so far
    leaders = []
    for word, point, dot in zip(words, points, dots, strict=True):
        label = _annotate(axes, word, point, families)
        size = np.array(label.get_window_extent().size)
        for offset, is_beside in _offsets(size):
            box = dot + offset + np.array([-size, size]) / 2
            covers_dot = ((dots > box[0]) & (dots < box[1])).all(axis=1).any()
            covers_label = ((taken[:, 0] < box[1]) & (taken[:, 1] > box[0])).all(axis=1).any()
            if covers_dot or covers_label or (box[0] < low).any() or (box[1] > high).any():
                continue
            label.set_position(tuple(offset / PIXELS))
            taken = np.concatenate([taken, box[None]])
            if not is_beside:
                leaders.append([dot, np.clip(dot, *box)])
            break
        else:
            label.remove()
    _draw_leaders(axes, leaders)


def _annotate(axes: "Axes", word: str, point: Array, families: Sequence[str]) -> "Annotation":
    """Add a word centred on its dot; its position is an offset in points."""
    return axes.annotate(
        word,
        tuple(point),
        (0, 0),
        textcoords="offset points",
        fontsize=FONT_SIZE,
        fontfamily=families,
        horizontalalignment="center",
        verticalalignment="center",
        parse_math=False,
    )


def _offsets(size: Array) -> Iterator[tuple[Array, bool]]:
    """Yield offsets from a dot to the middle of its label, and whether that is right beside the dot."""
    for further in FURTHER:
        for direction in DIRECTIONS:
            yield direction * (size / 2 + GAP) + direction / np.linalg.norm(direction) * further, further == 0


def _draw_leaders(axes: "Axes", leaders: Sequence[Sequence[Array]]) -> None:
    """Draw thin lines from dots to their labels; coordinates are in pixels."""
    from matplotlib.collections import LineCollection

    lines = [axes.transData.inverted().transform(leader) for leader in leaders]
    axes.add_collection(LineCollection(lines, linewidths=0.5, colors=LEADERS, zorder=1), autolim=False)
