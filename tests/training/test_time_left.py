"""How long a run still takes, and one that is given so many minutes."""

from pathlib import Path
from typing import Any

import pytest

from fastmlp.data.corpus import read_corpus
from fastmlp.events import Event, Measured, Started
from fastmlp.trainer import train
from tests.runs import metrics_of, small_config, stop_after
from tests.training.helpers import Clock, Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


class TimesLeft(Recorder):
    """When the run will end, as each line of metrics says it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.ends: dict[int, float | None] = {}

    def report(self, event: Event) -> None:
        super().report(event)
        if isinstance(event, Measured):
            left = event.seconds_left
            self.ends[event.metrics["step"]] = None if left is None else self.clock.now + left


def test_the_time_left_has_all_that_will_come(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watch = TimesLeft(clock)
    options = dict.fromkeys(("eval_every", "sample_every", "save_every"), 40)
    options |= {"steps": 400, "log_every": 10, "prompt": ("anna", "boris")}
    train(small_config(file, tmp_path / "run", **options), reporter=watch)
    ends = watch.ends
    assert ends.pop(0) is None
    assert ends.pop(400) == pytest.approx(clock.now, abs=1)
    between = 50 * clock.WORD + 2 * clock.SAMPLE
    for step, end in ends.items():
        assert end is not None
        ahead = clock.now - end
        # known from the start: steps, the evaluation of all at the end; once it has come: what comes between
        if step != 40:  # the first samples follow this line
            assert ahead == pytest.approx(10 * between if step < 40 else 0, abs=2 * between), step


def test_the_time_left_of_a_resumed_run_is_of_this_sitting(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    config = small_config(file, tmp_path / "run", steps=100, log_every=10, eval_every=100, sample_every=100)
    clock.STEP = 7.0
    train(config, should_stop=stop_after(50))
    clock.STEP = 0.5
    watch = TimesLeft(clock)
    train(config, resume=True, reporter=watch)
    assert watch.ends[60] == pytest.approx(clock.now, abs=2)


def test_a_time_budget_covers_the_evaluation_at_the_end(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    watch = TimesLeft(clock)
    options: dict[str, Any] = {"steps": None, "minutes": 1, "log_every": 1, "schedule": "linear", "save_every": 9_999}
    result = train(small_config(file, tmp_path / "run", **options), reporter=watch)
    assert (result.finished, watch.all(Started)[0].total) == (True, None)
    words = len(read_corpus(small_config(file, tmp_path / "run")).val or ())
    assert words * clock.WORD > 4
    assert clock.now - 1_000 == pytest.approx(60, abs=2 * clock.STEP)
    assert all(end == pytest.approx(1_060, abs=2 * clock.STEP) for end in watch.ends.values())
    lines = metrics_of(tmp_path / "run")
    assert lines[-1]["lr"] < 0.02 * 0.02  # of its height
    highest = max(lines, key=lambda line: line["lr"])
    assert 5 < highest["seconds"] < 7  # a tenth of the time warms up, which is less than 500 steps
    steps, minutes = (small_config(file, tmp_path / "run", **{**options, "warmup": warmup}) for warmup in (0, 5))
    for config, first in ((steps, 1.0), (minutes, 0.2)):
        train(config, overwrite=True)
        rates = [line["lr"] / 0.02 for line in metrics_of(tmp_path / "run")]
        assert rates[0] == pytest.approx(first, rel=0.05)


def test_a_time_that_the_evaluation_needs_leaves_half_for_training(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    clock.WORD = 1.0
    result = train(small_config(file, tmp_path / "run", steps=None, minutes=0.5, save_every=9_999, eval_every=9_999))
    before = clock.SAMPLE + 2 * 5 * clock.WORD  # and a trial of how long an evaluation takes
    assert result.step == pytest.approx((15 - before) / clock.STEP, abs=1)


def test_a_validation_in_which_the_time_runs_out_is_the_last(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    clock.STEP = 0.01
    options: dict[str, Any] = {"steps": None, "minutes": 0.5, "log_every": 1, "eval_every": 1, "save_every": 9_999}
    result = train(small_config(file, tmp_path / "run", **options))
    lines = metrics_of(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(result.step + 1)), "no step has two lines"
    assert {"val_loss", "kept_step"} <= lines[-1].keys()
    assert lines[-1]["words_per_second"] > 0
