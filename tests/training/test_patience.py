"""A network that learns its text by heart is stopped early; its best weights are kept."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.events import Finished, Notice
from fastmlp.files import checkpoint
from fastmlp.trainer import open_run, train
from fastmlp.training.validation import Validation
from tests.runs import metrics_of, outcome, small_config, window_config, write_text
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")
RISING = "the validation loss has been rising since step "
STOPPED = "stopped early: the last "


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A text without a pattern: what a network learns of it is of no use for the rest."""
    words = np.random.default_rng(5).integers(0, 30, 400)
    return write_text(tmp_path, " ".join(f"w{word}" for word in words))


def config_for(file: Path, out: Path, **options: Any) -> TrainConfig:
    usual = {"steps": None, "epochs": 60, "eval_every": 5, "dropout": 0.0, "patience": 4, "val_fraction": 0.3}
    return window_config(
        file, out, **{**usual, "eval_windows": 1_000, "sample_every": 1_000, "save_every": 1_000, **options}
    )


def notices(recorder: Recorder) -> list[str]:
    return [event.text for event in recorder.all(Notice)]


def test_a_run_that_learns_by_heart_says_so_stops_and_keeps_its_best_weights(noise: Path, tmp_path: Path) -> None:
    recorder, config = Recorder(), config_for(noise, tmp_path / "run")
    result = train(config, reporter=recorder)
    assert result.finished
    assert result.step < 60 * 280 / 16 / 2
    assert [text.split(RISING)[0] for text in notices(recorder) if RISING in text] == [""]
    assert [text.split(STOPPED)[0] for text in notices(recorder) if STOPPED in text] == [""]
    assert len(notices(recorder)) == 2
    steps = [line["step"] for line in metrics_of(tmp_path / "run")]
    assert steps == sorted(set(steps))  # one line a step, the last one's too
    lines = [line for line in metrics_of(tmp_path / "run") if "val_loss" in line]
    best = min(lines, key=lambda line: line["val_loss"])
    assert f"step {best['step']:,}: the network learns its text by heart" in notices(recorder)[0]
    assert f"the last 4 validations were worse than that of step {best['step']:,}" in notices(recorder)[1]
    assert checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"] == best["step"] == result.kept_step
    assert result.kept_val_loss == pytest.approx(best["val_loss"], rel=1e-5)  # all held-out words are in the sample
    assert recorder.all(Finished)[0].step == result.step


def test_a_run_that_was_stopped_early_is_finished_and_a_resumed_one_trains_nothing(noise: Path, tmp_path: Path) -> None:
    config, recorder = config_for(noise, tmp_path / "run"), Recorder()
    first, before = train(config), outcome(tmp_path / "run")
    assert train(config, resume=True, reporter=recorder) == first
    assert outcome(tmp_path / "run") == before
    assert recorder.steps == []
    assert notices(recorder) == [f"it was finished before, after {first.step:,} steps: nothing is trained"]


def test_a_run_that_is_stopped_before_it_gives_up_gives_up_where_it_would_have(noise: Path, tmp_path: Path) -> None:
    """What is counted is in the checkpoint; what was said is not said again."""
    recorders = [Recorder() for _ in range(3)]
    whole = train(config_for(noise, tmp_path / "whole"), reporter=recorders[0])
    config = config_for(noise, tmp_path / "parts")
    stop = lambda: recorders[1].steps[-1:] != [] and recorders[1].steps[-1][0] == whole.step - 3  # noqa: E731
    assert not train(config, reporter=recorders[1], should_stop=stop).finished
    assert train(config, reporter=recorders[2], resume=True).step == whole.step
    assert [len(notices(recorder)) for recorder in recorders] == [2, 1, 1]
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("options", [{"patience": 0}, {"hidden": (12, 10), "patience": None}], ids=["0", "widths"])
def test_a_run_without_patience_goes_on_to_its_end(options: dict[str, Any], noise: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    of_window = dict.fromkeys(("reach", "blocks")) if "hidden" in options else {}
    config = config_for(noise, tmp_path / "run", epochs=30, **of_window, **options)
    assert config.patience == 0
    result = train(config, reporter=recorder)
    assert (result.finished, result.step) == (True, 30 * 18)
    assert notices(recorder) == []
    losses = [line["val_loss"] for line in metrics_of(tmp_path / "run") if "val_loss" in line]
    assert losses[-1] > min(losses) + 0.1  # there was reason to


def test_a_longer_run_goes_on_from_one_that_was_stopped_early_with_more_patience_only_in_another_folder(
    noise: Path, tmp_path: Path
) -> None:
    """Giving up is for good: the learning rate went down to where the run would have ended."""
    config = config_for(noise, tmp_path / "run")
    step = train(config).step
    assert train(config_for(noise, tmp_path / "run", epochs=90, patience=50), resume=True).step == step


def losses_are(monkeypatch: pytest.MonkeyPatch, losses: Iterable[float]) -> None:
    given = iter(losses)
    monkeypatch.setattr(Validation, "loss", lambda self, model: next(given))


@pytest.mark.parametrize(
    ("losses", "patience", "stops_after"),
    [
        ([3, 4, 4, 4, 4, 4], 2, 3),
        ([3, 4, 4, 4, 4, 4], 3, 4),
        ([3, 4, 2, 4, 4, 4], 2, 5),  # better than ever: it is counted anew
        ([3, 4, 3.01, 4, 3.01, 4], 2, None),  # in a row
        ([3, 3.01, 3.019, 3.01, 3.01, 3.01], 1, None),  # not by far
        ([3, 3.021, 3, 3, 3, 3], 1, 2),
        ([3, 2.9, 2.8, 2.7, 2.6, 2.5], 1, None),
        ([3, 3, 3, 3, 3, 9], 1, None),  # the end is the end
    ],
)
def test_validations_in_a_row_that_are_worse_by_far_are_counted(
    losses: list[float],
    patience: int,
    stops_after: int | None,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses_are(monkeypatch, [*losses, *losses[-1:]])
    config = window_config(file, tmp_path / "run", steps=12, eval_every=2, patience=patience)
    recorder = Recorder()
    with open_run(config, reporter=recorder) as run:
        result = run.train()
    assert result.step == 2 * (stops_after or 6)
    assert run.progress.gave_up == (stops_after is not None)
    assert sum(STOPPED in text for text in notices(recorder)) == (stops_after is not None)
    assert sum(RISING in text for text in notices(recorder)) == (stops_after is not None or losses[-1] == 9)


def test_a_list_of_widths_has_patience_where_it_is_asked_for(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_are(monkeypatch, [3, 4, 4, 4])
    assert train(small_config(file, tmp_path / "run", eval_every=2, patience=2)).step == 6
