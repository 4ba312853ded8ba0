"""Promises 6 and 7: killed at any write or with a full disk, a run ends with the bits of one left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastmlp.errors import CheckpointError
from fastmlp.events import Saved
from fastmlp.files import atomic, checkpoint, run_folder
from fastmlp.trainer import train
from fastmlp.training.keeper import Folder
from tests.runs import metrics_of, outcome, small_config, stop_after, write_text
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(small_config(write_text(folder), folder / "run"))
    return outcome(folder / "run")


@pytest.mark.parametrize("steps", [[0], [1], [9, 1], [13, 4, 5], [30]])
def test_promise_6_a_run_that_was_stopped_ends_with_the_same_bits(
    steps: list[int], file: Path, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    config, done = small_config(file, tmp_path / "run", save_every=None), 0
    for sitting in steps:
        done += sitting
        result = train(config, should_stop=stop_after(sitting), resume=True)
        assert (result.step, result.finished) == (done, False)
        assert checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["step"] == done
    assert train(config, resume=True).finished
    assert without_config(outcome(tmp_path / "run")) == without_config(uninterrupted)


def without_config(found: dict[str, Any]) -> dict[str, Any]:
    for name in ("model.safetensors", "last.safetensors"):
        found[name][1].pop("config", None)
    return found


class KilledError(BaseException):
    """What no code catches, as no code catches SIGKILL."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """kill_at(n) lets the n-th write of the process do half its work and ends it there; lists the writes so far."""
    writes: list[str] = []
    last = [0]

    def count(what: str) -> bool:
        writes.append(what)
        return len(writes) == last[0]

    whole_write, whole_file, whole_move = run_folder.Journal.write, atomic._write, atomic.move

    def write(journal: run_folder.Journal, text: str) -> None:
        if count(journal.path.name):
            whole_write(journal, text[: len(text) // 2])
            raise KilledError
        whole_write(journal, text)

    def write_file(path: Path, data: bytes | Callable[[Any], None]) -> None:
        if count(path.name):
            with (path.parent / ".fastmlp-0000.tmp").open("wb+") as file:
                file.write(data) if isinstance(data, bytes) else data(file)
                file.truncate(file.tell() // 2)
            raise KilledError
        whole_file(path, data)

    def move(path: Path, to: Path) -> None:
        if count(f"{path.name} to {to.name}"):
            raise KilledError
        whole_move(path, to)

    def arm(at: int) -> list[str]:
        writes.clear()
        last[0] = at
        return writes

    monkeypatch.setattr(run_folder.Journal, "write", write)
    monkeypatch.setattr(atomic, "_write", write_file)
    monkeypatch.setattr("fastmlp.training.keeper.move", move)
    return arm


@pytest.fixture(params=["best weights at once", "best weights held"])
def saving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save new best weights at once, or with the next of the checkpoints that are due anyway."""
    if request.param == "best weights held":
        monkeypatch.setattr(Folder, "save_is_due", lambda _keeper, step, *, is_best: step % 4 == 0)


@pytest.mark.usefixtures("saving")
def test_promise_6_killed_at_every_write_the_run_resumes_with_the_same_bits(
    file: Path, tmp_path: Path, kill_at: Callable[[int], list[str]], uninterrupted: dict[str, Any]
) -> None:
    count = len_of_writes = 0
    while count == len_of_writes:  # until a run ends before it is killed
        count += 1
        config = small_config(file, tmp_path / f"run{count}")
        writes = kill_at(count)
        try:
            train(config)
        except KilledError:
            len_of_writes = len(writes)
            kill_at(0)
            train(config, resume=True)
        folder = tmp_path / f"run{count}"
        assert without_config(outcome(folder)) == without_config(uninterrupted), f"killed at {writes[-1]}"
        assert not list(folder.glob("*.tmp")) + list(folder.glob("*.next.*"))
        assert len(metrics_of(folder)) == 8
    assert count > 20


@pytest.mark.usefixtures("saving")
def test_promise_6_the_kept_weights_are_of_the_history_that_went_on(
    file: Path, tmp_path: Path, kill_at: Callable[[int], list[str]]
) -> None:
    """Killed at every write and resumed with a rate that finds nothing better."""
    options = {"save_every": 8, "eval_windows": 10_000, "log_every": 10}
    count = len_of_writes = 0
    while count == len_of_writes:
        count += 1
        folder = tmp_path / f"run{count}"
        writes = kill_at(count)
        try:
            train(small_config(file, folder, **options))
            break
        except KilledError:
            len_of_writes = len(writes)
        kill_at(0)
        result = train(small_config(file, folder, **options, lr=3.0, eval_every=13), resume=True)
        assert checkpoint.load(folder / "model.safetensors")[1]["step"] == result.kept_step
        measured = {line["step"]: line["val_loss"] for line in metrics_of(folder) if "val_loss" in line}
        assert result.kept_step is not None
        assert measured[result.kept_step] == min(measured.values()), f"killed at {writes[-1]}"
        assert result.kept_val_loss == pytest.approx(measured[result.kept_step], rel=1e-5), f"killed at {writes[-1]}"
    assert count > 10


def test_promise_7_a_write_that_fails_leaves_the_last_checkpoint(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Any]
) -> None:
    config = small_config(file, tmp_path / "run")
    save = checkpoint.save

    def full_disk(path: Path, tensors: Any, metadata: dict[str, Any]) -> None:
        if metadata["step"] >= 20:
            raise CheckpointError(f"cannot write {path} (12,345 bytes): No space left on device")
        save(path, tensors, metadata)

    monkeypatch.setattr(checkpoint, "save", full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        train(config)
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["step"] == 16
    monkeypatch.undo()
    train(config, resume=True)
    assert without_config(outcome(tmp_path / "run")) == without_config(uninterrupted)


def test_a_line_that_does_not_fit_on_the_disk_is_not_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A file on a disk that takes three bytes more."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 3

        def write(self, data: memoryview) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            written, self.room = self.file.write(data[: self.room]), 0
            return int(written)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    with run_folder.Journal(tmp_path / "metrics.jsonl") as journal:
        journal.write("first line\n")
        monkeypatch.setattr(journal, "_file", Full(journal._file))
        with pytest.raises(
            CheckpointError, match=r"cannot write .*metrics\.jsonl \(12 bytes\): No space left on device"
        ):
            journal.write("second line\n")
    assert (tmp_path / "metrics.jsonl").read_text() == "first line\n"


def test_a_checkpoint_is_saved_as_often_as_asked(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_config(file, tmp_path / "run"), reporter=recorder)
    saved = [event.step for event in recorder.all(Saved) if event.file.endswith("last.safetensors")]
    # at 10, 20 and 30 there were new best weights; at 30 it is saved before all held-out words are guessed, and after
    assert saved == [4, 8, 10, 12, 16, 20, 24, 28, 30, 30]


def test_a_checkpoint_is_saved_after_a_while(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr("fastmlp.training.keeper.SAVE_SECONDS", 0.0)
    train(small_config(file, tmp_path / "run", save_every=None, steps=3), reporter=recorder)
    saved = [event.step for event in recorder.all(Saved) if event.file.endswith("last.safetensors")]
    assert saved == [1, 2, 3, 3]
