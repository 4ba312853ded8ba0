"""The best validation so far, and runs that end early."""

from pathlib import Path

import numpy as np
import pytest

from fastmlp.events import Evaluating, Event, Measured, Notice, Sampled
from fastmlp.files import checkpoint
from fastmlp.trainer import train
from fastmlp.training.early_stopping import MUCH_WORSE, EarlyStopping
from fastmlp.training.progress import Progress
from fastmlp.training.validation import Validation
from tests.runs import metrics_of, outcome, small_config
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")
GUESSING = 9.0


def validate(
    losses: list[float], patience: int, total: int = 99, training_loss: float | None = None
) -> tuple[Progress, list[Event]]:
    """A validation after each of `total` steps, as long as the run goes on."""
    progress, recorder = Progress(last_loss=training_loss), Recorder()
    early_stopping = EarlyStopping(patience, np.arange(3), progress, recorder, GUESSING)
    for loss in losses:
        if not progress.gave_up:
            progress.step += 1
            early_stopping.validated(loss, is_done=progress.step == total)
    return progress, recorder.events


def test_the_best_is_the_lowest() -> None:
    progress, events = validate([3.0, 2.0, 2.5, 2.0, 1.5, 1.6], patience=0)
    assert (progress.best_step, progress.best_loss, progress.worse, progress.gave_up) == (5, 1.5, 0, False)
    assert events == []


def test_too_many_in_a_row_that_are_much_worse_end_the_run() -> None:
    progress, events = validate([2.0, 2.1, 2.2, 2.3, 2.4], patience=3)
    assert (progress.step, progress.best_step, progress.worse, progress.gave_up) == (4, 1, 3, True)
    assert [event.text.split(":")[0] for event in events if isinstance(event, Notice)] == [
        "the validation loss has been rising since step 1",
        "stopped early",
    ]
    assert events[1].facts()["text"] == (
        "stopped early: the last 3 validations were worse than that of step 1, whose weights are kept (--patience)"
    )


@pytest.mark.parametrize(
    ("training_loss", "advice"), [(None, "by heart"), (8.9, "by heart"), (9.1, "A lower learning rate helps")]
)
def test_what_helps_depends_on_whether_anything_is_learned(training_loss: float | None, advice: str) -> None:
    _, events = validate([2.0, 11.0], patience=1, training_loss=training_loss)
    assert advice in events[0].facts()["text"]


def test_a_patience_of_one_says_why_and_ends() -> None:
    progress, events = validate([2.0, 2.1], patience=1)
    assert (progress.gave_up, len(events)) == (True, 2)


def test_only_validations_in_a_row_that_are_much_worse_count() -> None:
    little = 2.0 + 0.9 * MUCH_WORSE
    progress, _ = validate([2.0, little, little, little], patience=2)
    assert (progress.worse, progress.gave_up) == (0, False)
    progress, _ = validate([2.0, 2.1, little, 2.2], patience=2)
    assert (progress.worse, progress.gave_up) == (1, False)
    progress, _ = validate([2.0, 2.1, 1.9, 2.1], patience=2)
    assert (progress.worse, progress.gave_up) == (1, False)


def test_the_last_step_is_not_stopped_early() -> None:
    progress, events = validate([2.0, 2.1, 2.2], patience=2, total=3)
    assert not progress.gave_up
    assert [event.facts()["text"][:29] for event in events] == ["the validation loss has been "]


def test_a_run_that_gave_up_counts_no_further() -> None:
    progress = Progress(step=9, best_step=1, best_loss=2.0, worse=3, gave_up=True)
    recorder = Recorder()
    EarlyStopping(3, np.arange(3), progress, recorder, GUESSING).validated(4.0, is_done=True)
    assert (progress.worse, recorder.events) == (3, [])


def test_the_best_is_judged_anew_on_other_words() -> None:
    progress, recorder = Progress(step=9), Recorder()
    early_stopping = EarlyStopping(3, np.arange(3), progress, recorder, GUESSING)
    early_stopping.resume(np.arange(4))
    assert not early_stopping.must_revalidate(), "there are no best weights yet"
    progress.best_step, progress.best_loss = 7, 2.0
    assert early_stopping.must_revalidate()
    early_stopping.revalidated(2.5)
    assert (progress.best_step, progress.best_loss) == (7, 2.5)
    assert [event.text for event in recorder.all(Notice)] == [
        "other words validate than before: on 3 of them the best weights so far, those of step 7, have loss 2.500"
    ]
    assert not early_stopping.must_revalidate()
    early_stopping.resume(np.arange(3))
    assert not early_stopping.must_revalidate()


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are validated: the second is the best, and three in a row are much worse."""
    steps: list[int] = []
    by_step = {10: 2.0, 20: 1.0, 30: 1.01, 40: 1.5, 50: 1.6, 60: 1.7, 70: 1.8}
    progress: list[Progress] = []
    init = EarlyStopping.__init__

    def noted(early_stopping: EarlyStopping, patience: int, sample: np.ndarray, of: Progress, *rest: Recorder) -> None:
        progress.append(of)
        init(early_stopping, patience, sample, of, *rest)

    def loss(*_: object) -> float:
        steps.append(progress[-1].step)
        return by_step[steps[-1]]

    monkeypatch.setattr(EarlyStopping, "__init__", noted)
    monkeypatch.setattr(Validation, "loss", loss)
    return steps


def test_a_run_that_is_stopped_early_validates_and_logs_its_last_step_once(
    file: Path, tmp_path: Path, validated: list[int]
) -> None:
    recorder = Recorder()
    result = train(small_config(file, tmp_path / "run", steps=200, patience=3), reporter=recorder)
    assert (result.finished, result.step, result.kept_step) == (True, 60, 20)
    assert checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"] == 20
    lines = metrics_of(tmp_path / "run")
    assert [line["step"] for line in lines if "val_loss" in line] == validated == [10, 20, 30, 40, 50, 60]
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    assert (lines[-1]["val_loss"], lines[-1]["kept_step"]) == (1.7, 20)
    assert lines[-1]["loss"] == pytest.approx(np.mean([loss for *_, loss in recorder.steps[56:]]))
    assert lines[-1]["words_per_second"] > 0
    assert [event.step for event in recorder.all(Sampled)] == [0, 15, 30, 45, 60]
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(Evaluating) < len(kinds) - kinds[::-1].index(Measured), "the last line has the figures"


@pytest.mark.usefixtures("validated")
def test_promise_6_a_run_that_is_stopped_as_it_ends_early_ends_as_if_it_had_not_been(
    file: Path, tmp_path: Path
) -> None:
    whole, halved = (small_config(file, tmp_path / name, steps=200, patience=3) for name in ("whole", "halved"))
    train(whole)
    recorder = Recorder()
    stopped = train(halved, reporter=recorder, should_stop=lambda: bool(recorder.all(Evaluating)))
    assert (stopped.finished, stopped.step) == (False, 60)
    assert train(halved, resume=True).finished
    assert outcome(tmp_path / "halved") == outcome(tmp_path / "whole")


@pytest.mark.usefixtures("validated")
def test_a_run_without_patience_goes_on(file: Path, tmp_path: Path) -> None:
    assert train(small_config(file, tmp_path / "run", steps=70, patience=0)).step == 70
