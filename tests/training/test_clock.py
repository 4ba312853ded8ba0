"""The seconds of a run, and how long the rest of it takes by what was measured."""

import pytest

from fastmlp.training.clock import RECENT, Clock, Pace
from fastmlp.training.progress import Progress


def test_nothing_measured_says_nothing() -> None:
    pace = Pace()
    assert pace.seconds_to_train(1_000) is None
    pace.trained(0, 0.0)  # an evaluation right after a line
    assert pace.seconds_to_train(1_000) is None


def test_the_rest_is_trained_at_the_speed_of_the_last_intervals() -> None:
    pace = Pace()
    for _ in range(5):
        pace.trained(100, 50.0)
    assert pace.seconds_to_train(1_000) == pytest.approx(500)
    for _ in range(RECENT):
        pace.trained(100, 10.0)  # another program has ended
    assert pace.seconds_to_train(1_000) == pytest.approx(100)
    pace.trained(1_000, 200.0)  # each step counts alike, however long its interval
    assert pace.seconds_to_train(1_000) == pytest.approx(1_000 * (9 * 10 + 200) / (9 * 100 + 1_000))


def test_what_comes_between_the_steps_comes_again() -> None:
    pace = Pace(first_step=1_000)
    pace.trained(100, 10.0)
    pace.worked("save", 1_100, 3.0)
    for _ in range(2):  # until it comes again, it has come once in a hundred steps
        assert pace.seconds_to_train(600) == pytest.approx(60 + 6 * 3)
        pace.trained(50, 5.0)
    pace.worked("sample", 1_200, 1.0)
    assert pace.seconds_to_train(600) == pytest.approx(60 + 6 * 3 + 3 * 1)
    pace.worked("save", 1_200, 5.0)
    assert pace.seconds_to_train(600) == pytest.approx(60 + 3 * (3 + 5) + 3 * 1)


def test_the_end_evaluates_saves_twice_and_does_all_else_once_more() -> None:
    pace = Pace()
    assert pace.seconds_to_finish(1_000) == 0
    pace.evaluated(500, 5.0)
    pace.evaluated(500, 1.0)
    for kind, seconds in (("evaluation", 1.0), ("save", 9.0), ("save", 3.0), ("sample", 0.5)):
        pace.worked(kind, 100, seconds)
    assert pace.seconds_to_finish(2_000) == pytest.approx(4 + 2 * 3 + 0.5)


def test_a_run_goes_on_counting_and_other_work_is_not_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress = Progress(step=10, seconds=50.0, interval_seconds=7.0)
    clock = Clock(progress)
    now[0] += 3
    assert (clock.seconds(), clock.interval_seconds()) == (53, 10)
    with clock.uncounted("evaluation"):
        now[0] += 5
    assert (clock.seconds(), clock.interval_seconds()) == (58, 10)
    clock.begin_interval()
    now[0] += 2
    assert (clock.seconds(), clock.interval_seconds()) == (60, 2)
    clock.update_progress()
    assert (progress.seconds, progress.interval_seconds) == (60, 2)


def test_what_goes_by_between_two_sittings_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress = Progress()
    clock = Clock(progress)
    clock.pace.trained(10, 5.0)
    now[0] += 5
    clock.update_progress()
    now[0] += 100
    progress.step = 10
    clock.start()
    assert (clock.seconds(), clock.interval_seconds()) == (5, 5)
    assert clock.pace.seconds_to_train(10) is None, "the speed is that of a sitting"


def test_what_other_work_takes_counts_even_if_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Clock(Progress(step=4))
    clock.pace = Pace()

    def work() -> None:
        with clock.uncounted("sample"):
            now[0] += 8
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert clock.interval_seconds() == 0
    clock.pace.trained(4, 4.0)
    assert clock.pace.seconds_to_train(10) == pytest.approx(10 * (1 + 8 / 4))
