"""Promise 10: a run's folder is its own, and nobody's file is written over."""

from pathlib import Path

import pytest

from fastmlp.errors import CheckpointError, FolderInUseError, RunFolderError
from fastmlp.files.atomic import lock_folder
from fastmlp.text import TextError
from fastmlp.trainer import train
from tests.runs import metrics_of, small_config, write_text

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_promise_10_two_runs_cannot_write_the_same_folder(file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with lock_folder(tmp_path / "run"), pytest.raises(RunFolderError, match=r"in use by process \d+"):
        train(small_config(file, tmp_path / "run"))
    assert issubclass(FolderInUseError, CheckpointError)


def test_promise_10_a_folder_that_holds_a_run_is_refused(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run")
    train(config)
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    with pytest.raises(RunFolderError, match=r"already holds a run: go on with it \(--resume\), replace it"):
        train(config)
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before
    (tmp_path / "run" / "notes.txt").write_text("mine")
    train(small_config(file, tmp_path / "run", steps=3, seed=2), overwrite=True)
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [0, 3]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.txt", "loss.png"])
@pytest.mark.parametrize("resume", [False, True])
def test_promise_10_somebodys_own_file_is_not_written_over(name: str, resume: bool, file: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine" / name
    own.parent.mkdir()
    own.write_text("my own")
    config = small_config(file, own.parent, steps=2)
    with pytest.raises(RunFolderError, match=rf"{name} is there, and not of a run: name another folder"):
        train(config, resume=resume)
    assert own.read_text() == "my own"
    assert not (own.parent / "config.toml").exists()
    assert train(config, overwrite=True).finished


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.toml", b'title = "my site"\n'),
        ("config.toml", b"steps = 5\n"),
        ("model.safetensors", b"\x02" + bytes(7)),
    ],
)
def test_promise_10_the_files_of_other_programs_make_no_run(
    name: str, content: bytes, options: dict[str, bool], file: Path, tmp_path: Path
) -> None:
    """Nor are they replaced where a run was to be: only what a run has written is."""
    own = tmp_path / "mine" / name
    own.parent.mkdir()
    own.write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"{name} is there, and not of a run: name another folder$"):
        train(small_config(file, own.parent, steps=2), **options)
    assert own.read_bytes() == content
    assert {path.name for path in own.parent.iterdir()} == {name, ".fastmlp.lock"}


def test_the_picture_of_a_run_in_the_current_folder_has_its_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "novels").mkdir()
    monkeypatch.chdir(tmp_path / "novels")
    train(small_config(file, Path(), steps=1))
    assert Path("loss.png").read_text().startswith("novels: ")


@pytest.mark.parametrize("text", ["word", "one two", "a b c"])
def test_a_text_that_is_too_short_is_refused_and_leaves_no_folder(text: str, tmp_path: Path) -> None:
    file = write_text(tmp_path, text)
    if text == "a b c":
        assert train(small_config(file, tmp_path / "run")).finished
        return
    with pytest.raises(TextError, match="too short"):
        train(small_config(file, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_promise_14_options_that_no_checkpoint_can_hold_are_refused_before_training(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmlp.files.checkpoint.LONGEST_HEADER", (1 << 20) + 10_000)
    config = small_config(file, tmp_path / "run", prompt=["anna paints. " * 400])
    assert train(config).finished
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    config = small_config(file, tmp_path / "run", prompt=["anna paints. " * 900])
    message = r"last\.safetensors: the options take 1\d,\d+ bytes, more than a checkpoint's header holds; name fewer"
    with pytest.raises(CheckpointError, match=message):
        train(config, overwrite=True)
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before
    with pytest.raises(CheckpointError, match=message):
        train(small_config(file, tmp_path / "new", prompt=["anna paints. " * 900]))
    assert not (tmp_path / "new").exists()
