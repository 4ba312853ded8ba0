"""What a run reports while it trains, and its pictures."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastmlp.events import Evaluating, Notice, TextRead
from fastmlp.text import get_tokenizer
from fastmlp.trainer import train
from tests.runs import QuickPicture, learnable_text, metrics_of, small_config
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_the_text_is_told_as_it_was_read(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_config(file, tmp_path / "run", steps=1, vocab_size=10), reporter=recorder)
    read = recorder.all(TextRead)[0]
    assert (read.types, read.kept) == (len(set(get_tokenizer("words").split(learnable_text()))), 9)
    assert read.validation_file is None
    other = tmp_path / "other.txt"
    other.write_text("anna paints")
    train(small_config(file, tmp_path / "other", steps=1, val_file=str(other)), reporter=recorder)
    read = recorder.all(TextRead)[1]
    assert (read.validation_words, read.validation_file) == (2, str(other))


def test_events_are_plain_data(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_config(file, tmp_path / "run"), reporter=recorder)
    for event in recorder.events:
        facts = json.loads(json.dumps(event.facts(), allow_nan=False))
        assert facts["event"] == type(event).__name__
    assert {type(event).__name__ for event in recorder.events} >= {"TextRead", "NetworkMade", "Running", "Writing"}
    assert [event.words for event in recorder.all(Evaluating)] == [recorder.all(TextRead)[0].validation_words]


def test_a_picture_that_fails_loses_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where it fails first, and at the end."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("fastmlp.pictures.plot.draw_loss", broken)
    monkeypatch.setattr("fastmlp.training.keeper.FIRST_PICTURE", 0.0)
    recorder = Recorder()
    assert train(small_config(file, tmp_path / "run"), reporter=recorder).finished
    assert ["loss.png is not drawn: no fonts" in event.text for event in recorder.all(Notice)] == [True, True]


def test_pictures_on_the_way_take_a_hundredth_of_the_time_and_are_not_in_words_per_second(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step takes a second and a picture an eighth of one."""
    now, drawn = 0.0, []

    def before_a_step() -> bool:
        nonlocal now
        now += 1
        return False

    def draw_loss(metrics: list[dict[str, Any]], title: str) -> QuickPicture:
        nonlocal now
        now += 0.125
        drawn.append(metrics[-1]["step"])
        return QuickPicture(metrics, title)

    monkeypatch.setattr("fastmlp.pictures.plot.draw_loss", draw_loss)
    monkeypatch.setattr("time.perf_counter", lambda: now)
    options = {"steps": 50, "log_every": 1, "save_every": 1}
    train(small_config(file, tmp_path / "run", **options), should_stop=before_a_step)
    assert drawn == [10, 23, 36, 49, 50]  # after ten seconds, then 12.375 seconds from the end of one to the next
    assert {line["words_per_second"] for line in metrics_of(tmp_path / "run")[1:]} == {16.0}
