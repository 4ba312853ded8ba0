"""A resumed run goes on as it was, or says why it cannot."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fastmlp.config import TrainConfig, to_dict
from fastmlp.errors import RunFolderError
from fastmlp.events import Finished, Notice
from fastmlp.files import checkpoint
from fastmlp.ops import Ops
from fastmlp.options import ConfigError
from fastmlp.text import Text, TextFile
from fastmlp.trainer import open_run, train
from fastmlp.training.progress import Progress
from fastmlp.training.state import checked_progress
from tests.runs import (
    learnable_text,
    metrics_of,
    outcome,
    small_config,
    small_options,
    stop_after,
    window_config,
    write_text,
)
from tests.training.helpers import Clock, Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_kept_weights_that_are_lost_are_made_again(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(13))
    (tmp_path / "run" / "model.safetensors").unlink()
    recorder = Recorder()
    result = train(small_config(file, tmp_path / "run"), resume=True, reporter=recorder)
    assert any("is not that of step 10 any more" in event.text for event in recorder.all(Notice))
    assert checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"] == result.kept_step


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_promise_6_a_run_with_dropout_goes_on_with_the_same_bits(
    tied: bool, ops: Ops, file: Path, tmp_path: Path
) -> None:
    """The masks follow from seed and step, and the optimizer's state is that of the one table."""
    whole, parts = (window_config(file, tmp_path / name, backend=ops.backend, tied=tied) for name in ("whole", "parts"))
    assert train(whole).finished
    assert train(parts, should_stop=stop_after(15)).step == 15
    assert train(parts, resume=True).finished
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_what_a_resumed_run_leaves_open_is_as_it_was(file: Path, tmp_path: Path) -> None:
    """Also where more steps are asked for, which another dropout would suit."""
    left_open = dict.fromkeys(("dropout", "weight_decay", "patience", "eval_every", "log_every"))
    config = window_config(file, tmp_path / "run", **left_open, steps=40)
    train(config, should_stop=stop_after(15))
    kept = checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["config"]
    assert None not in [kept[name] for name in left_open]
    longer = replace(config, steps=4_000)
    with open_run(longer, resume=True) as run:
        assert {name: value for name, value in to_dict(run.config).items() if kept[name] != value} == {"steps": 4_000}
    with open_run(replace(config, steps=None), resume=True) as run:
        assert run.config.steps == 40  # the longer one was not begun
    with pytest.raises(ConfigError, match=r"^dropout: a run that is resumed keeps what it began with: "):
        train(replace(config, dropout=0.5), resume=True)


def test_resuming_a_finished_run_changes_nothing(file: Path, tmp_path: Path) -> None:
    config, recorder = small_config(file, tmp_path / "run"), Recorder()
    first, before = train(config), outcome(tmp_path / "run")
    again = train(config, resume=True, reporter=recorder)
    assert again == first
    assert outcome(tmp_path / "run") == before
    assert recorder.steps == []
    assert len(recorder.all(Finished)) == 1


def test_a_run_that_went_on_after_its_end_is_not_finished_where_it_was_stopped(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run", steps=10))
    longer = small_config(file, tmp_path / "run", steps=30)
    stopped = train(longer, resume=True, should_stop=stop_after(10))
    assert (stopped.finished, stopped.step, stopped.kept_step, stopped.kept_val_loss) == (False, 20, None, None)
    ended = train(small_config(file, tmp_path / "run", steps=20), resume=True)
    assert ended.finished
    assert ended.kept_step == checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"] > 10
    assert metrics_of(tmp_path / "run")[-1]["kept_step"] == ended.kept_step


def test_resuming_a_finished_run_of_minutes_changes_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    config = small_config(file, tmp_path / "run", steps=None, minutes=0.5)
    first = train(config)
    before = outcome(tmp_path / "run")
    assert train(config, resume=True) == first
    assert outcome(tmp_path / "run") == before
    assert train(small_config(file, tmp_path / "run", steps=None, minutes=1), resume=True).step > first.step > 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"steps": 30}, "it was finished before, after 30 steps: nothing is trained"),
        ({"steps": 20}, "it was finished before, after 30 steps: nothing is trained"),
        (
            {"steps": None, "minutes": 1e-9},
            "it was finished before, after 30 steps: nothing is trained; minutes count over all sittings",
        ),
    ],
)
def test_a_finished_run_of_which_no_more_is_asked_says_so_and_stays(
    asked: dict[str, Any], said: str, file: Path, tmp_path: Path
) -> None:
    first = train(small_config(file, tmp_path / "run"))
    before, recorder = outcome(tmp_path / "run"), Recorder()
    assert train(small_config(file, tmp_path / "run", **asked), resume=True, reporter=recorder) == first
    assert outcome(tmp_path / "run") == before
    assert [notice.text for notice in recorder.all(Notice)] == [said]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"steps": 10}, "it has made 17 of 10 steps: nothing is trained"),
        ({"steps": 17}, "it has made 17 of 17 steps: nothing is trained"),
        (
            {"steps": None, "minutes": 1e-9},
            "its 1e-09 minutes, which count over all sittings, are over: nothing is trained",
        ),
    ],
)
def test_a_stopped_run_of_which_no_more_is_asked_says_so_and_ends(
    asked: dict[str, Any], said: str, file: Path, tmp_path: Path
) -> None:
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(17))
    recorder = Recorder()
    result = train(small_config(file, tmp_path / "run", **asked), resume=True, reporter=recorder)
    assert (result.finished, result.step, recorder.steps) == (True, 17, [])
    assert [notice.text for notice in recorder.all(Notice)] == [said]


def test_a_run_whose_checkpoint_is_lost_does_not_begin_again(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run")
    train(config)
    (tmp_path / "run" / "last.safetensors").unlink()
    lines = metrics_of(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"last\.safetensors is missing, .*--overwrite"):
        train(config, resume=True)
    assert metrics_of(tmp_path / "run") == lines
    assert train(config, overwrite=True).finished


def test_a_run_with_nothing_to_go_on_from_says_that_it_begins(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_config(file, tmp_path / "run", steps=2), resume=True, reporter=recorder)
    assert recorder.all(Notice)[0].text == f"{tmp_path / 'run'} holds nothing to go on from: the run begins at step 0"


def test_a_run_that_cannot_go_on_keeps_its_options(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    before = (tmp_path / "run" / "config.toml").read_bytes()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(RunFolderError, match="lacks lines"):
        train(small_config(file, tmp_path / "run", steps=777), resume=True)
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


def test_a_finished_run_goes_on_where_more_steps_are_asked_for(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    result = train(small_config(file, tmp_path / "run", steps=40), resume=True)
    assert (result.finished, result.step) == (True, 40)
    assert [line["step"] for line in metrics_of(tmp_path / "run")][-2:] == [35, 40]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": (12, 11)}, "hidden: a run that is resumed keeps what it began with: 12,10"),
        ({"seed": 9}, "seed: a run that is resumed keeps what it began with: 1"),
        ({"optimizer": "sgd"}, "optimizer: a run that is resumed keeps what it began with: adamw"),
        ({"steps": None, "epochs": 3}, "epochs: a run by steps cannot go on by epochs"),
    ],
)
def test_a_resumed_run_cannot_become_another(change: dict[str, Any], message: str, file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    before = (tmp_path / "run" / "config.toml").read_bytes()
    with pytest.raises(ConfigError) as refused:
        train(small_config(file, tmp_path / "run", **change), resume=True)
    assert str(refused.value) == message
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


def test_a_resumed_run_takes_its_text_from_elsewhere_but_no_other_text(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(5))
    moved = tmp_path / "moved.txt"
    moved.write_bytes(file.read_bytes())
    assert train(small_config(moved, tmp_path / "run"), should_stop=stop_after(5), resume=True).step == 10
    file.write_text(learnable_text().replace("red", "blue"))
    with pytest.raises(RunFolderError, match=r"was trained on another text \(.*moved\.txt\): name that one"):
        train(small_config(file, tmp_path / "run"), resume=True)
    moved.write_text(learnable_text() + "more")
    with pytest.raises(RunFolderError, match=r"another text \(.*moved\.txt\): it has changed since; put it back"):
        train(small_config(moved, tmp_path / "run"), resume=True)


def test_a_resumed_run_takes_its_validation_file_from_elsewhere_but_no_other(file: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    for place in (one, other):
        place.write_text("anna sells warm bread.")
    train(small_config(file, tmp_path / "run", val_file=str(one)), should_stop=stop_after(5))
    moved = small_config(file, tmp_path / "run", val_file=str(other))
    assert train(moved, should_stop=stop_after(5), resume=True).step == 10
    one.write_text("boris paints a door.")
    for config, message in (
        (small_config(file, tmp_path / "run", val_file=str(one)), f"keeps what it began with: {other}"),
        (small_config(file, tmp_path / "run"), f"keeps what it began with: {other}"),
        (moved, f"{other} has changed since the run began: put it back as it was"),
    ):
        if config == moved:
            other.write_text("boris paints a door.")
        with pytest.raises(ConfigError, match=rf"^val_file: .*{re.escape(message)}$"):
            train(config, resume=True)


def test_a_text_of_many_files_is_named_shortly(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a run on the standard library's documentation."""
    library = Text(learnable_text(), tuple(TextFile(f"module{number}.py", 1, "") for number in range(99)))
    monkeypatch.setattr("fastmlp.text.standard_library.standard_library_text", lambda: library)
    train(TrainConfig(out=str(tmp_path / "run"), **small_options(steps=2)))
    file.write_text(learnable_text(100))
    with pytest.raises(RunFolderError) as refused:
        train(small_config(file, tmp_path / "run"), resume=True)
    assert str(refused.value) == (
        f"{tmp_path / 'run'} was trained on another text (documentation of Python's standard library): name that one,"
        " or another folder"
    )


@pytest.mark.parametrize(("windows", "more"), [((1, 10_000), 300), ((10_000, 1), 300), ((1, 10_000), 0)])
def test_a_resumed_run_may_validate_on_other_words(windows: tuple[int, int], more: int, tmp_path: Path) -> None:
    """Whichever weights are kept, they are the best on the words that validate now."""
    file = write_text(tmp_path, learnable_text(100))
    before, now = (small_config(file, tmp_path / "run", eval_windows=count, eval_every=20) for count in windows)
    train(replace(before, steps=41), should_stop=stop_after(40))
    best = checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"]
    config, recorder = replace(now, steps=41 + more, lr=0.02 if more else 9.0), Recorder()
    with open_run(config, resume=True, reporter=recorder) as run:
        loss_before = run.progress.best_loss
        expected = run.validation.loss(run.best_model())
        result = run.train()
    notice = next(event.text for event in recorder.all(Notice))
    words = len(run.validation.sample)
    assert notice == (
        f"other words validate than before: on {words:,} of them the best weights so far, those of step {best},"
        f" have loss {expected:.3f}"
    )
    assert expected != loss_before
    lines = [line for line in metrics_of(tmp_path / "run") if line["step"] > 40 and "val_loss" in line]
    losses = {best: expected} | {line["step"]: line["val_loss"] for line in lines}
    assert result.kept_step == min(losses, key=lambda step: losses[step])
    assert checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"] == result.kept_step
    again = Recorder()
    train(replace(config, steps=config.steps + 1), resume=True, reporter=again)
    assert again.all(Notice) == []


def test_a_resumed_run_may_have_other_prompts(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run", prompt=("anna",)), should_stop=stop_after(5))
    result = train(small_config(file, tmp_path / "run", prompt=("boris", "anna")), resume=True)
    assert list(result.before) == ["anna"]
    assert list(result.after) == ["boris", "anna"]


def test_the_state_of_another_version_is_refused(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    last = tmp_path / "run" / "last.safetensors"
    tensors, metadata = checkpoint.load(last)
    metadata["progress"]["mood"] = "good"
    checkpoint.save(last, tensors, {**metadata, "fastmlp": "9.9"})
    with pytest.raises(RunFolderError, match=r"is of fastmlp 9\.9, which kept other things"):
        train(small_config(file, tmp_path / "run"), resume=True)
    checkpoint.save(last, tensors, {**metadata, "kind": "model"})
    with pytest.raises(RunFolderError, match="is not the state of a training run"):
        train(small_config(file, tmp_path / "run"), resume=True)


def test_a_damaged_checkpoint_is_refused_and_kept(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    last = tmp_path / "run" / "last.safetensors"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    with pytest.raises(RunFolderError, match=r"cannot load .*last\.safetensors"):
        train(small_config(file, tmp_path / "run"), resume=True)
    assert last.read_bytes() == data


def test_lost_metrics_are_noticed(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(20))
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl lacks lines that last\.safetensors counts on"):
        train(small_config(file, tmp_path / "run"), resume=True)


def test_another_back_end_goes_on_with_a_notice(ops: Ops, file: Path, tmp_path: Path) -> None:
    if ops.backend == "numpy":
        pytest.skip("the run begins on it")
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(20))
    recorder = Recorder()
    config = small_config(file, tmp_path / "run", backend=ops.backend)
    assert train(config, resume=True, reporter=recorder).finished
    assert any("it ran on numpy in ieee before" in event.text for event in recorder.all(Notice))


def test_a_resumed_run_of_minutes_is_not_measured_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that is faster now the text would be too short for its minutes: the run keeps its budget."""
    speeds = iter([10.0, 1e9])
    monkeypatch.setattr("fastmlp.training.setup.words_per_second", lambda *_: next(speeds))
    config = window_config(file, tmp_path / "run", steps=None, minutes=1)
    train(config, should_stop=stop_after(3))
    with open_run(config, resume=True) as run:
        assert (run.config.minutes, run.schedule.total) == (1, None)
    assert next(speeds) == 1e9


@pytest.mark.parametrize(
    "changes",
    [{"step": "x"}, {"step": -1}, {"words": 1.5}, {"lr": None}, {"kept": []}, {"gave_up": 1}, {"best_step": 2.5}],
)
def test_promise_8_progress_that_no_run_has_is_refused(changes: dict[str, Any]) -> None:
    saved = asdict(Progress(step=3, best_step=2, best_loss=1.5))
    assert checked_progress(saved) == Progress(step=3, best_step=2, best_loss=1.5)
    with pytest.raises(ValueError, match=f"progress: {next(iter(changes))}: "):
        checked_progress({**saved, **changes})
