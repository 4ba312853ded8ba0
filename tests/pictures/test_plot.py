"""The loss curve: its content, and that drawing it needs no display, no home and no pyplot."""

import io
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

import fastmlp
from fastmlp.errors import CheckpointError
from fastmlp.pictures import plot
from fastmlp.pictures.plot import draw_loss, plot_loss, smooth


def run(steps=10_000, every=100, evaluated=1_000, seed=1):
    """Metrics as training writes them: 10 nats falling to about 5.5."""
    noise = np.random.default_rng(seed).normal(0, 0.05, steps // every + 1)
    metrics = []
    for step in range(0, steps + 1, every):
        loss = 10.0 if step == 0 else 5.4 + 2 * (1 + step / 400) ** -0.9 + noise[step // every]
        metrics.append({"step": step, "words": 128 * step, "seconds": step / 100, "loss": loss, "lr": 0.002})
        if step and step % evaluated == 0:
            validation = 5.6 + 4 * (step / 10_000 - 0.7) ** 2  # best at 7,000
            metrics[-1].update(val_loss=validation, val_perplexity=math.exp(validation))
    return metrics


def lines(figure):
    return {line.get_label().partition(":")[0]: line for line in figure.axes[0].lines}


def png_of(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def test_it_tells_the_figures_of_the_kept_weights_and_what_they_leave_out():
    metrics = run()
    metrics[-1].update(kept_step=8_000, kept_val_loss=5.5, kept_val_unknown_words=0, kept_val_loss_with_unknown=5.5)
    best = lines(draw_loss(metrics, "text"))["best validation"]
    first, rest = best.get_label().split("\n")
    assert first.startswith("best validation: 5.640 at 8,000 (perplexity ")  # other words validated before
    assert rest == "on all of that part: 5.500 (perplexity 244.7)"
    metrics[-1].update(kept_val_unknown_words=1_302)
    assert lines(draw_loss(metrics, "text"))["best validation"].get_label().split("\n")[1:] == [
        "on all of that part but 1,302 unknown words: 5.500 (perplexity 244.7)",
        "with them: 5.500 (perplexity 244.7)",
    ]
    del metrics[-1]["kept_val_loss_with_unknown"]
    assert lines(draw_loss(metrics, "text"))["best validation"].get_label().count("\n") == 1


def test_what_it_shows():
    metrics = run()
    figure = draw_loss(metrics, "Barchester Towers")
    drawn = lines(figure)
    assert list(drawn) == ["training", "training, smoothed", "validation", "best validation"]
    points = drawn["training"].get_xydata()
    np.testing.assert_array_equal(points, [(line["step"], line["loss"]) for line in metrics])
    np.testing.assert_array_equal(drawn["training, smoothed"].get_xydata(), np.c_[points[:, 0], smooth(points[:, 1])])
    evaluated = [(line["step"], line["val_loss"]) for line in metrics if "val_loss" in line]
    np.testing.assert_array_equal(drawn["validation"].get_xydata(), evaluated)
    np.testing.assert_array_equal(drawn["best validation"].get_xydata(), [(7_000, 5.6)])
    assert drawn["best validation"].get_label() == "best validation: 5.600 at 7,000 (perplexity 270.4)"
    assert drawn["training"].get_alpha() < 0.5
    assert drawn["validation"].get_zorder() >= drawn["training, smoothed"].get_zorder()


def test_axes_are_labelled():
    figure = draw_loss(run(), "Barchester Towers")
    axes, rates = figure.axes
    figure.canvas.draw()
    assert axes.get_title() == "Barchester Towers"
    assert rates.get_xlabel() == "iteration"
    assert (axes.get_ylabel(), rates.get_ylabel()) == ("loss (nats per word)", "learning rate")
    assert not any(label.get_visible() for label in axes.get_xticklabels())
    assert [label.get_text() for label in rates.get_xticklabels()][1:-1] == [
        "0",
        "2,000",
        "4,000",
        "6,000",
        "8,000",
        "10,000",
    ]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [line.get_label() for line in axes.lines]
    assert all(line.get_visible() for line in axes.get_xgridlines() + axes.get_ygridlines())


def test_the_learning_rate_is_below_on_the_same_iterations():
    metrics = run()
    for line in metrics:
        line["lr"] = 0.002 * min(line["step"] / 500, 1 - line["step"] / 10_000)
    losses, rates = draw_loss(metrics, "").axes
    (drawn,) = rates.lines
    np.testing.assert_array_equal(drawn.get_xydata(), [(line["step"], line["lr"]) for line in metrics])
    assert rates.get_xlim() == losses.get_xlim()
    assert rates.get_ylim()[0] == 0
    assert losses.get_position().height > 3 * rates.get_position().height
    assert losses.get_position().y0 > rates.get_position().y1


def test_no_panel_without_learning_rates():
    (axes,) = draw_loss([{"step": 0, "loss": 10.0}, {"step": 100, "loss": 7.0, "lr": None}], "").axes
    assert axes.get_xlabel() == "iteration"
    assert all(label.get_visible() for label in axes.get_xticklabels())


@pytest.mark.parametrize(("highest", "lowest"), [(10.0, 5.5), (5.6, 5.5), (3.0, 0.01)])
def test_perplexity_is_exp_of_the_loss_at_round_numbers(highest, lowest):
    figure = draw_loss([{"step": 0, "loss": highest}, {"step": 100, "loss": lowest}], "")
    figure.canvas.draw()
    axes = figure.axes[0]
    (right,) = axes.child_axes
    assert right.get_ylabel() == "perplexity"
    np.testing.assert_allclose(right.get_ylim(), np.exp(axes.get_ylim()))
    low, high = right.get_ylim()
    shown = [text.get_text() for text in right.get_yticklabels() if low <= text.get_position()[1] <= high]
    assert len(shown) >= 3
    assert all(len(number.replace(",", "").replace(".", "").strip("0")) <= 3 for number in shown)


def test_no_perplexity_of_a_run_that_diverged():
    figure = draw_loss([*run(), {"step": 10_100, "loss": 5000.0, "val_loss": 5000.0}], "")
    assert not figure.axes[0].child_axes
    diverged = draw_loss([{"step": 0, "loss": 5000.0, "val_loss": 5000.0}], "")
    assert lines(diverged)["best validation"].get_label() == "best validation: 5000.000 at 0"
    assert png_of(figure)
    assert png_of(diverged)


@pytest.mark.parametrize("step", [0, 6_000])
def test_one_point(step):
    figure = draw_loss([{"step": step, "loss": 10.0}], "")
    assert png_of(figure)
    assert list(lines(figure)) == ["training", "training, smoothed"]
    low, high = figure.axes[0].get_xlim()
    assert low < step < high
    ticks = [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high]
    assert ticks == [int(tick) for tick in ticks]


def test_no_validation_and_nothing_at_all():
    assert list(lines(draw_loss([{"step": 0, "loss": 10.0}, {"step": 100, "loss": 7.0}], ""))) == [
        "training",
        "training, smoothed",
    ]
    empty = draw_loss([], "")
    assert not lines(empty)
    assert png_of(empty)


def test_what_is_not_finite_is_left_out():
    metrics = [
        {"step": 0, "loss": 10.0},
        {"step": 100, "loss": 7.0, "val_loss": 7.5},
        {"step": 200, "loss": math.nan, "val_loss": math.inf},
        {"step": 300, "loss": None, "val_loss": None},
        {"step": 400, "val_loss": 7.0},
    ]
    drawn = lines(draw_loss(metrics, ""))
    np.testing.assert_array_equal(drawn["training"].get_xydata(), [(0, 10), (100, 7)])
    np.testing.assert_array_equal(drawn["validation"].get_xydata(), [(100, 7.5), (400, 7)])


def test_smoothing():
    metrics = run()
    losses = np.array([line["loss"] for line in metrics])
    smoothed = smooth(losses)
    truth = np.array([5.4 + 2 * (1 + line["step"] / 400) ** -0.9 for line in metrics])
    assert smoothed[0] == 10.0  # the first loss is no average
    later = slice(20, None)
    assert np.abs(smoothed - truth)[later].max() < np.abs(losses - truth)[later].max() / 2
    assert np.abs(smoothed - truth)[1:].max() < 0.25  # it does not lag in the fall
    np.testing.assert_allclose(smooth(np.full(50, 3.0)), 3.0)
    assert smooth(np.array([])).size == 0


def test_the_file_is_a_png_with_ink(tmp_path):
    path = tmp_path / "loss.png"
    plot_loss(run(), path, title="Barchester Towers")
    image = matplotlib.image.imread(path)[..., :3]
    assert image.shape == (900, 1200, 3)
    assert (image[[0, -1]] == 1).all()  # nothing is cut off at the edges
    assert (image[:, [0, -1]] == 1).all()
    for colour in (plot.TRAINING, plot.VALIDATION):
        rows, columns = np.nonzero(np.abs(image - to_rgb(colour)).max(axis=2) < 0.02)
        assert rows.size > 500
        assert columns.max() - columns.min() > 800  # over the whole width
    assert [file.name for file in tmp_path.iterdir()] == ["loss.png"]


def test_same_metrics_same_bytes(tmp_path):
    for name in ("a", "b"):
        plot_loss(run(), tmp_path / name, title="Barchester Towers")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_unwritable_file_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot write .*loss\.png"):
        plot_loss(run(), tmp_path / "missing" / "loss.png", title="")


@pytest.mark.parametrize("title", ["$a_b$ \\frac{", "三國演義", "lone \udcff, NUL \0, line\nend", "long " * 50])
@pytest.mark.filterwarnings("error")
def test_any_title(tmp_path, title):
    plot_loss(run(), tmp_path / "loss.png", title=title)
    shown = draw_loss(run(), title).axes[0].get_title()
    assert shown.replace("\n", " ") == "".join(c if c.isprintable() else "?" for c in title).strip()
    assert len(shown.splitlines()[0]) <= 80


@pytest.mark.parametrize(
    "unwritable", [[], ["HOME"], ["HOME", "MPLCONFIGDIR"]], ids=lambda names: "+".join(names) or "-"
)
def test_promise_17_headless_without_a_home_and_without_noise(tmp_path, unwritable):
    """In a process of its own: matplotlib comes with the first picture, without pyplot, display or a word on stderr."""
    code = """
        import logging, sys
        from pathlib import Path
        from fastmlp.pictures.plot import plot_loss
        assert "matplotlib" not in sys.modules
        plot_loss([{"step": 0, "loss": 10.0}, {"step": 100, "loss": 7.0}], Path(sys.argv[1]), title="Novel")
        assert "matplotlib.pyplot" not in sys.modules
        assert logging.getLogger("matplotlib").level == logging.NOTSET
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "XDG", "DISPLAY"))}
    environment["PYTHONPATH"] = str(Path(fastmlp.__file__).parents[1])
    (tmp_path / "file").touch()  # root may write to any folder, but not below a file
    environment |= {name: str(tmp_path / "file" / name) for name in unwritable}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), tmp_path / "loss.png"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
