"""The folder of a run: its name, its files, and the journals that grow line by line."""

import contextlib
import difflib
import os
import shlex
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Self

from fastmlp.config import is_config
from fastmlp.errors import CheckpointError, ModelError, RunFolderError
from fastmlp.files.atomic import LOCK_FILE, check_writable
from fastmlp.files.checkpoint import is_checkpoint
from fastmlp.options import system_path
from fastmlp.text.formats import PACKED

__all__ = ["Journal", "RunFolder", "find_folder", "mixture_file", "model_file"]

STANDARD_LIBRARY, STANDARD_INPUT = "standard-library", "stdin"


class RunFolder:
    """The files of a run.

    config   the complete configuration
    model    the best weights so far
    next     better ones, until the checkpoint that counts on them is written: then they become `model`
    last     the checkpoint to resume from
    metrics  a line of JSON per log interval and evaluation
    samples  texts written before, during and after training
    plot     the loss over the steps
    mixture  the counted text, and the weights that mix the best weights with it

    run_files those that identify a run
    files     all of them
    is_new    whether the folder was made for this run
    """

    def __init__(self, path: str | Path, *, is_new: bool = False) -> None:
        self.path, self.is_new = Path(path), is_new
        self.config = self.path / "config.toml"
        self.model = self.path / MODEL_FILE
        self.next = self.path / NEXT_FILE
        self.last = self.path / LAST_FILE
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples.txt"
        self.plot = self.path / "loss.png"
        self.mixture = self.path / MIXTURE_FILE
        self.run_files = (self.last, self.model, self.config)
        self.files = (*self.run_files, self.next, self.metrics, self.samples, self.plot, self.mixture)

    def holds_run(self) -> bool:
        """Whether a run has written here, not another program to files of the same names."""
        return is_config(self.config) or is_checkpoint(self.model) or is_checkpoint(self.last)

    def foreign_files(self, *, overwrite: bool = False) -> list[Path]:
        """Return files with a run's names in a folder that holds no run: they belong to the user.

        overwrite  return only those that would identify a run: the user has asked to replace the rest, whose owner
                   nobody can tell
        """
        if self.holds_run():
            return []
        return [file for file in (self.run_files if overwrite else self.files) if file.exists()]

    def clear(self) -> None:
        """Remove the files of a run, and nothing else."""
        for file in self.files:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise RunFolderError(f"cannot remove {file}: {error.strerror}; choose another folder") from error

    def discard(self) -> None:
        """Remove the files of a run that could not begin; a failure here must not hide the reason for that."""
        with contextlib.suppress(RunFolderError, OSError):
            self.clear()
            if self.is_new:
                (self.path / LOCK_FILE).unlink(missing_ok=True)
                self.path.rmdir()


def find_folder(out: str | None, files: Sequence[str], *, overwrite: bool = False) -> RunFolder:
    """Return the folder to write to, made and writable: `out`, or runs/<stem of the first file>, if taken with -2, ...

    overwrite  use runs/<stem> even if it is taken
    Raises RunFolderError if it cannot be made or written to.
    """
    folder = Path(system_path(str(RUNS / stem(files)) if out is None else out))
    is_new = not folder.exists()
    if out is None and not overwrite:
        folder, is_new = _make_new(folder), True
    try:
        check_writable(folder)
    except CheckpointError as error:
        raise RunFolderError(str(error)) from error
    return RunFolder(folder, is_new=is_new)


def stem(files: Sequence[str]) -> str:
    """Return the name of a run on these files."""
    if not files:
        return STANDARD_LIBRARY
    if files[0] == "-":
        return STANDARD_INPUT
    name = Path(system_path(files[0])).resolve().name
    for packed in PACKED:
        name = name.removesuffix(packed)
    return Path(name.encode("utf-8", "surrogateescape").decode(errors="ignore")).stem or "text"


def _make_new(folder: Path) -> Path:
    """Make the first of folder, folder-2, ... that does not exist."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
            try:
                candidate.mkdir()
            except FileExistsError:
                continue
            return candidate
    except OSError as error:
        raise RunFolderError(f"cannot make the folder {folder}: {error.strerror}; choose another with --out") from error
    raise AssertionError("unreachable")


class Journal:
    """A text file that grows by whole lines; if writing fails it stays as long as before."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open the file and cut it to `length` bytes, its length at the last checkpoint.

        Raises RunFolderError where the file is shorter than that, CheckpointError where it cannot be written.
        """
        self.path, self.length = path, length
        try:
            with contextlib.ExitStack() as cleanup:
                self._file = cleanup.enter_context(path.open("ab", buffering=0))
                if self._file.tell() < length:
                    raise RunFolderError(
                        f"{path} lacks lines that {LAST_FILE} counts on; put it back, or use --overwrite"
                    )
                self._file.truncate(length)
                cleanup.pop_all()
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error.strerror}") from error

    def write(self, text: str) -> None:
        """Add whole lines. Raises CheckpointError where they cannot be written."""
        data = text.encode()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):  # resuming cuts off the rest of a line that stays
                self._file.truncate(self.length)
            raise CheckpointError(f"cannot write {self.path} ({len(data):,} bytes): {error.strerror}") from error
        self.length += len(data)

    def sync(self) -> None:
        """Flush the lines to the disk, before a checkpoint relies on them."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CheckpointError(f"cannot write {self.path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


MODEL_FILE, LAST_FILE, MIXTURE_FILE = "model.safetensors", "last.safetensors", "mixture.safetensors"
NEXT_FILE = "model.next.safetensors"
RUNS = Path("runs")  # of the runs without --out


def model_file(run: str | os.PathLike[str]) -> Path:
    """Return the model file of a run: the .safetensors file itself, or in a folder the best, else the last model.

    Raises ModelError if there is none.
    """
    path = Path(run)
    if not path.is_dir():
        _refuse_other_files(path)
        return path
    for name in (MODEL_FILE, LAST_FILE):
        if (path / name).is_file():
            return path / name
    if is_config(RunFolder(path).config):
        go_on = f"python -m fastmlp.train --resume {shlex.quote(str(path))}"
        raise ModelError(f"{path}: nothing of this run is saved yet; wait for it, or go on with it: {go_on}")
    raise ModelError(f"{path}: a folder without {MODEL_FILE}; name a run's folder or a .safetensors file")


def mixture_file(run: str | os.PathLike[str]) -> Path | None:
    """Return the file of what a run's best weights are mixed with; None if there is none."""
    file = Path(run) / MIXTURE_FILE
    return file if file.is_file() and (Path(run) / MODEL_FILE).is_file() else None


def _refuse_other_files(path: Path) -> None:
    """Raise ModelError for a text, and for a missing file if a run has a similar name."""
    if path.is_file():
        if path.suffix != ".safetensors" and _is_text(path):
            train = f"python -m fastmlp.train {shlex.quote(str(path))}"
            raise ModelError(f"cannot load {path}: it is a text, not a trained model; train on it first: {train}")
    elif not path.exists() and (near := _similar_run(path)):
        raise ModelError(f"cannot load {path}: there is no such file; did you mean {near}?")


def _is_text(path: Path) -> bool:
    """Whether a file begins with printable text."""
    try:
        with path.open("rb") as file:
            head = "".join(file.read(1_000).decode(errors="ignore").split())
    except OSError:
        return False
    return head.isprintable() and head != ""


def _similar_run(path: Path) -> Path | None:
    """Return a folder or model with a similar name, beside the path or among the runs."""
    there: dict[str, Path] = {}
    for folder in (RUNS, path.parent):
        with contextlib.suppress(OSError):
            there |= {file.name: file for file in folder.iterdir() if file.is_dir() or file.suffix == ".safetensors"}
    near = difflib.get_close_matches(path.name, there, n=1)
    return there[near[0]] if near else None
