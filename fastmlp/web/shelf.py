"""The runs and the texts of a folder, by their names: what has no name here cannot be reached from the page."""

import contextlib
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from fastmlp.errors import ReportedError
from fastmlp.files.run_folder import RUNS, RunFolder, stem
from fastmlp.files.runs import metrics_in, runs_in, summary_of

__all__ = ["LARGEST_TEXT", "MissingError", "Shelf", "TooLargeError"]

LARGEST_TEXT = 100_000_000  # bytes
UNFIT = re.compile(r"[^\w .()-]+")  # characters of a file's name that are not kept
SAMPLES = 200_000  # characters of samples.txt, the last ones, that are shown


class MissingError(ReportedError):
    """There is no such run or text."""


class TooLargeError(ReportedError):
    """More bytes than are taken."""


class Shelf:
    """The runs in a folder's runs/, the texts in its texts/, and one run from elsewhere that was named at the start."""

    def __init__(self, folder: Path, named: Path | None = None) -> None:
        """named  a run's folder or a .safetensors file"""
        self.folder = folder
        self._runs, self._texts = folder / RUNS, folder / "texts"
        self._named: dict[str, Path] = {}
        self.first: str | None = None  # the run to show first
        if named is not None:
            self.first = named.name
            if named.resolve().parent != self._runs.resolve():
                self._named = {named.name: named}

    def _all(self) -> dict[str, Path]:
        return {**runs_in(self._runs), **{name: path for name, path in self._named.items() if path.exists()}}

    def run(self, name: str) -> Path:
        """Return a run by its name. Raise MissingError if there is none."""
        if (path := self._all().get(name)) is None:
            raise MissingError(f"there is no run {name!r} here")
        return path

    def runs(self) -> list[dict[str, Any]]:
        """Return what each run is, and has reached, the newest first."""
        return [asdict(summary_of(path)) for path in self._all().values()]

    def history(self, run: str) -> dict[str, Any]:
        """Return the lines of metrics of a run, and its samples."""
        path = self.run(run)
        texts = ""
        with contextlib.suppress(OSError):  # there are none yet, or the folder vanishes meanwhile
            texts = RunFolder(path).samples.read_text(encoding="utf-8", errors="replace")[-SAMPLES:]
        return {"metrics": metrics_in(path), "samples": texts}

    def texts(self) -> list[dict[str, Any]]:
        """Return the names and sizes of the texts."""
        return [{"name": name, "bytes": path.stat().st_size} for name, path in self._text_files().items()]

    def text(self, name: str) -> Path:
        """Return a text by its name, relative to the folder. Raise MissingError if there is none."""
        if (path := self._text_files().get(name)) is None:
            raise MissingError(f"there is no text {name!r} in texts/")
        return path.relative_to(self.folder)

    def _text_files(self) -> dict[str, Path]:
        there = self._texts.iterdir() if self._texts.is_dir() else ()
        return {path.name: path for path in sorted(there) if path.is_file() and not path.name.startswith(".")}

    async def take(self, name: str, chunks: AsyncIterator[bytes]) -> str:
        """Write a text to texts/ and return its name there: no file is replaced, and a broken one leaves nothing.

        Raise TooLargeError where it has more than LARGEST_TEXT bytes.
        """
        self._texts.mkdir(exist_ok=True)
        part, size = self._texts / f".{secrets.token_hex(8)}.part", 0
        try:
            with part.open("xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > LARGEST_TEXT:
                        raise TooLargeError(f"a text of more than {LARGEST_TEXT // 10**6} MB is not taken")
                    file.write(chunk)
            return self._place(part, UNFIT.sub("-", Path(name).name).lstrip(". -") or "text.txt")
        finally:
            part.unlink(missing_ok=True)

    def _place(self, part: Path, name: str) -> str:
        """Give a written file its name, or the next one that is free; return it."""
        wanted = Path(name)
        for number in count(1):
            free = name if number == 1 else f"{wanted.stem}-{number}{wanted.suffix}"
            with contextlib.suppress(FileExistsError):
                (self._texts / free).touch(exist_ok=False)
                part.replace(self._texts / free)
                return free
        raise AssertionError("unreachable")

    def new_run(self, text: str) -> str:
        """Return a name for a new run on a text that no run has."""
        name = stem([text])
        return next(
            free
            for number in count(1)
            if not (self._runs / (free := name if number == 1 else f"{name}-{number}")).exists()
        )
