"""How much of a run is done, by its steps or by its time."""

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.data import RandomBatches, Windows
from fastmlp.training.clock import Clock
from fastmlp.training.completion import Completion
from fastmlp.training.progress import Progress
from fastmlp.training.schedule import Schedule


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only a test moves."""
    now = [1_000.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def completion(progress: Progress, **options: object) -> tuple[Completion, Clock]:
    config = TrainConfig(batch_size=10, **options)
    schedule = Schedule(config, RandomBatches(Windows(np.arange(103), 3), 10, 1))
    clock = Clock(progress)
    return Completion(schedule, clock, progress, words_at_end=100), clock


def test_by_steps() -> None:
    progress = Progress()
    done, _ = completion(progress, steps=20)
    assert (done.share(), done.is_done()) == (0, False)
    progress.step = 5
    assert (done.share(), done.is_done()) == (0.25, False)
    progress.step = 20
    assert (done.share(), done.is_done(), done.seconds_left()) == (1, True, 0)


def test_by_time_at_least_one_step_is_made(now: list[float]) -> None:
    progress = Progress()
    done, clock = completion(progress, minutes=2)
    clock.pace.evaluated(100, 20.0)
    now[0] += 50
    assert (done.share(), done.is_done(), done.seconds_left()) == (0.5, False, 70)
    now[0] += 50
    assert (done.share(), done.is_done()) == (1, False)
    progress.step = 1
    assert (done.is_done(), done.seconds_left()) == (True, 0)


def test_a_run_that_gave_up_is_done() -> None:
    done, _ = completion(Progress(step=5, gave_up=True), steps=20)
    assert (done.share(), done.is_done(), done.seconds_left()) == (0.25, True, 0)


def test_what_is_left_are_the_steps_and_the_evaluation_at_the_end() -> None:
    progress = Progress()
    done, clock = completion(progress, steps=20)
    clock.pace.evaluated(50, 10.0)
    assert done.seconds_left() is None
    progress.step = 5
    clock.pace.trained(5, 2.0)
    assert done.seconds_left() == pytest.approx(15 * 2 / 5 + 100 * 10 / 50)


def test_what_an_earlier_sitting_has_finished() -> None:
    kept = {"kept_step": 20}
    assert not completion(Progress(step=20), steps=20)[0].was_finished(), "its end was not reached"
    assert completion(Progress(step=20, kept=kept), steps=20)[0].was_finished()
    assert not completion(Progress(step=20, kept=kept), steps=30)[0].was_finished()
    assert completion(Progress(step=20, kept=kept, gave_up=True), steps=30)[0].was_finished()


def test_what_an_earlier_sitting_has_finished_of_its_minutes(now: list[float]) -> None:
    """A little of a time budget may have been left."""
    progress = Progress(step=20, seconds=110.0, kept={"kept_step": 20}, kept_minutes=2.0)
    assert completion(progress, minutes=2)[0].was_finished()
    assert completion(progress, minutes=1)[0].was_finished()
    assert not completion(progress, minutes=3)[0].was_finished()
    assert not completion(progress, steps=30)[0].was_finished()
    progress.kept_minutes = None  # steps decided
    assert not completion(progress, minutes=2)[0].was_finished()
    assert completion(progress, minutes=1)[0].was_finished()
