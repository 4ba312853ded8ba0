"""The schedule: how long a run is, its learning rate, and what is due after which step."""

import math

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.data import EpochBatches, RandomBatches, Windows
from fastmlp.training.schedule import Schedule, learning_rate

WINDOWS = Windows(np.arange(103), 3)  # 100 of them


def schedule(**options: object) -> Schedule:
    config = TrainConfig(batch_size=10, **options)
    kind = RandomBatches if config.epochs is None else EpochBatches
    return Schedule(config, kind(WINDOWS, config.batch_size, config.seed))


def test_length() -> None:
    assert schedule(steps=7).total == 7
    assert schedule(epochs=3).total == 3 * EpochBatches(WINDOWS, 10, 1).batches_per_epoch
    assert schedule(minutes=2).total is None


def test_a_time_budget_ends_with_the_work_after_the_last_step() -> None:
    in_time = schedule(minutes=2)
    assert in_time.budget == 120
    assert in_time.share_of_time(40, seconds_to_finish=20) == pytest.approx(0.4)
    assert in_time.share_of_time(100, seconds_to_finish=20) == 1
    assert in_time.share_of_time(130, seconds_to_finish=20) == 1
    assert in_time.share_of_time(30, seconds_to_finish=500) == pytest.approx(0.5), "half of it is for training"


def test_the_learning_rate_grows_and_falls() -> None:
    config = {"lr": 0.1, "schedule": "linear", "warmup": 10}
    by_steps = schedule(steps=100, **config)
    assert by_steps.warmup == 10
    assert by_steps.learning_rate(4, share=0.04) == pytest.approx(0.1 * 0.5 * 0.96)
    assert by_steps.learning_rate(50, share=0.5) == pytest.approx(0.05)


def test_without_a_length_in_steps_the_warmup_is_a_share_of_the_time() -> None:
    in_time = schedule(minutes=2, lr=0.1, schedule="constant")
    assert in_time.learning_rate(3, share=0.05) == pytest.approx(0.05)
    assert in_time.learning_rate(3, share=0.1) == pytest.approx(0.1)


def test_what_is_due_after_a_step() -> None:
    due = schedule(steps=100, log_every=2, eval_every=6, sample_every=10)
    steps = range(1, 31)
    assert [step for step in steps if due.logs(step)] == list(range(2, 31, 2))
    assert [step for step in steps if due.validates(step)] == [6, 12, 18, 24, 30]
    assert [step for step in steps if due.samples(step)] == [10, 20, 30]


def test_why_no_step_is_left_is_said() -> None:
    assert schedule(steps=1_000).why_done(1_000) == "it has made 1,000 of 1,000 steps"
    assert schedule(minutes=2).why_done(5) == "its 2 minutes, which count over all sittings, are over"


def test_why_a_finished_run_does_not_go_on_is_said() -> None:
    finished = "it was finished before, after 1,000 steps: nothing is trained"
    assert schedule(steps=1_000).why_finished(1_000) == finished
    assert schedule(minutes=2).why_finished(1_000) == f"{finished}; minutes count over all sittings"


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("step", [1, 1, 0.1, 0.1, 0.1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
    ],
)
def test_schedules(schedule: str, rates: list[float]) -> None:
    got = [learning_rate(0.1, schedule, progress=progress) for progress in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(got, [0.1 * rate for rate in rates], atol=1e-17)


def test_the_warmup_grows_linearly_and_ends() -> None:
    rates = [learning_rate(0.1, "constant", progress=0, step=step, warmup=4) for step in range(6)]
    np.testing.assert_allclose(rates, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_the_warmup_is_over_after_its_steps_or_its_share_of_the_run() -> None:
    def rate(progress: float, step: int) -> float:
        return learning_rate(0.1, "constant", progress=progress, step=step, warmup=4, warmup_share=0.1)

    assert rate(0.0, 1) == pytest.approx(0.05)
    assert rate(0.075, 1) == pytest.approx(0.075)
    assert rate(0.5, 1) == rate(0.0, 3) == 0.1
