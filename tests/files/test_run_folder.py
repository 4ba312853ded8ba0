"""The folder of a run, and files that grow by whole lines."""

import os
from pathlib import Path

import numpy as np
import pytest

from fastmlp.config import TrainConfig, to_toml
from fastmlp.errors import RunFolderError
from fastmlp.files import checkpoint
from fastmlp.files.run_folder import Journal, find_folder, stem


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ((), "standard-library"),
        (("-",), "stdin"),
        (("hp.txt",), "hp"),
        (("novels/hp.txt.gz", "b.txt"), "hp"),
        (("a.b.txt",), "a.b"),
        (("novels/",), "novels"),
        ((".hidden",), ".hidden"),
        (("caf\udce9.txt",), "caf"),
    ],
)
def test_a_run_is_called_after_its_text(files: tuple[str, ...], name: str) -> None:
    assert stem(files) == name


def test_the_folder_that_is_run_in_has_a_name_too(tmp_path: Path) -> None:
    assert stem((".",)) == tmp_path.name


def test_a_name_that_is_taken_gets_a_number() -> None:
    names = [str(find_folder(None, ("hp.txt",)).path) for _ in range(3)]
    assert names == [os.path.join("runs", name) for name in ("hp", "hp-2", "hp-3")]  # noqa: PTH118
    assert find_folder(None, ("hp.txt",), overwrite=True).path == Path("runs/hp")


def test_a_folder_that_was_named_is_made() -> None:
    assert find_folder("deep/down", ()).path.is_dir()


def test_promise_14_a_folder_that_cannot_be_written_is_found_at_once() -> None:
    Path("file").write_text("in the way")
    for out in ("file", "file/below"):
        with pytest.raises(RunFolderError, match=r"cannot write to the folder file"):
            find_folder(out, ())
    Path("runs").write_text("in the way")
    with pytest.raises(RunFolderError, match=r"cannot make the folder runs.hp: .*--out"):
        find_folder(None, ("hp.txt",))


def test_only_the_files_of_a_run_are_removed() -> None:
    folder = find_folder("run", ())
    assert {path for path in vars(folder).values() if isinstance(path, Path)} == {folder.path, *folder.files}
    for file in folder.files:
        file.write_text("old")
    folder.config.write_text(to_toml(TrainConfig()))
    (folder.path / "mine.txt").write_text("kept")
    assert folder.holds_run()
    folder.clear()
    assert not folder.holds_run()
    assert [file.name for file in folder.path.iterdir()] == ["mine.txt"]


def test_promise_10_a_run_is_known_by_its_own_files() -> None:
    """Other programs have a config.toml and a model.safetensors too."""
    folder = find_folder("run", ())
    saved, others = {"weight": np.zeros(3, np.float32)}, b'\x10\0\0\0\0\0\0\0{"__metadata__":{}'
    for file, foreign, own in (
        (folder.config, b'title = "my site"\n', to_toml(TrainConfig()).encode()),
        (folder.model, others[:-2] + b'"":""}}', None),
        (folder.last, b"", None),
    ):
        file.write_bytes(foreign)
        assert not folder.holds_run()
        assert folder.foreign_files() == folder.foreign_files(overwrite=True) == [file]
        if own is None:
            checkpoint.save(file, saved, {})
            file.write_bytes(file.read_bytes()[:-1])  # a damaged one is still ours
        else:
            file.write_bytes(own)
        assert folder.holds_run()
        assert folder.foreign_files() == []
        file.unlink()
    folder.plot.write_bytes(b"")
    assert (folder.foreign_files(), folder.foreign_files(overwrite=True)) == ([folder.plot], [])


def test_a_journal_is_cut_to_what_is_known_and_goes_on() -> None:
    path = Path("journal")
    with Journal(path) as journal:
        journal.write("first\n")
        kept = journal.length
        journal.write("zweite Zeile: ä\n")
        assert journal.length == path.stat().st_size
    with Journal(path, kept) as journal:
        journal.write("second\n")
    assert path.read_text() == "first\nsecond\n"
    with pytest.raises(RunFolderError, match="journal lacks lines"):
        Journal(path, 1_000)


@pytest.mark.parametrize("there_before", [False, True])
def test_of_a_run_that_could_not_begin_stays_the_folder_that_was_there(there_before: bool) -> None:
    path = Path("out")
    if there_before:
        path.mkdir()
    folder = find_folder("out", ())
    folder.config.write_text(to_toml(TrainConfig()))
    folder.discard()
    assert path.exists() == there_before
    assert not there_before or not any(file.suffix == ".toml" for file in path.iterdir())
