"""Injected faults: commands run in processes of their own, and their writes are counted.

Every call that changes the run's folder, or flushes it to the disk, is a step: open, write (and again when half of
it is written), truncate, fsync, replace, unlink, mkdir. At the step with a given number something happens to the
process. Other calls can be hit too: evaluating, drawing. The program contains no code for this.

The processes are forked from a server that has imported everything, so that hundreds of them take seconds.
For the same reason their picture is a line of text; test_plot.py looks at the real one.
"""

import contextlib
import errno
import functools
import importlib
import io
import itertools
import multiprocessing.connection
import os
import pkgutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.runs import QuickPicture

__all__ = ["NOTHING", "Done", "Fault", "program", "started", "train", "wait"]

IMPORTED = [
    "__main__",
    "tests.faults",
    "fastmlp.train",
    "fastmlp.trainer",
    "fastmlp.training.keeper",
    "fastmlp.console",
]
TEMPORARY = ".fastmlp-"  # how the names of temporary files begin


@dataclass(frozen=True)
class Fault:
    """A fault: what happens, and when.

    what    "SIGKILL" or another signal; or "ENOSPC" or another error, which the call raises
    at      the number of the step; 0: none
    times   at how many steps, one after the other; ENOSPC only at those that need room
    within  happen within this function or method, such as "fastmlp.training.samples.Samples.texts", at its at-th call
            instead
    """

    what: str = "SIGKILL"
    at: int = 0
    times: int = 1
    within: str | None = None

    def happen(self) -> None:
        if self.what.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[self.what])
            return
        number = getattr(errno, self.what)
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True)
class Done:
    """The outcome of a process.

    status  as a shell has it: 128 + number of the signal that ended it
    steps   those that were reached, as "write last.safetensors"; a temporary file is named after its final file
    """

    status: int
    out: str
    err: str
    steps: list[str]


NOTHING = Fault()
NEEDS_ROOM = ("open", "write", "half written", "fsync", "mkdir")


class Steps:
    """Counts the steps and triggers the fault."""

    def __init__(self, folder: Path, fault: Fault, log: Path) -> None:
        self.folder, self.fault = str(folder.resolve()), fault
        self.count = 0
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __contains__(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.realpath(path).startswith(self.folder)

    def reach(self, call: str, path: Any) -> None:
        """One more step."""
        self.count += 1
        os.write(self.log, f"{call} {Path(path).name}\n".encode())
        hit = self.fault.at and self.fault.within is None and 0 <= self.count - self.fault.at < self.fault.times
        if hit and (self.fault.what != "ENOSPC" or call in NEEDS_ROOM):
            self.fault.happen()

    def call(self, function: Callable[..., Any], path: Any, *arguments: Any, **options: Any) -> Any:
        """A function of `os` that changes what is at a path."""
        if path in self:
            to = "".join(f" {Path(other).name}" for other in arguments if isinstance(other, str | os.PathLike))
            self.reach(f"{function.__name__}{to}", path)
        return function(path, *arguments, **options)

    def fsync(self, function: Callable[[int], None], descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path in self:
            self.reach("fsync", path)
        function(descriptor)

    def open(self, function: Callable[..., Any], path: Any, mode: str = "r", buffering: int = -1, *others: Any) -> Any:
        if path not in self or not set(mode) & set("wax+"):
            return function(path, mode, buffering, *others)
        assert "b" in mode
        self.reach("open", path)
        file = WatchedFile(self, path, mode)
        if buffering == 0:
            return file
        return io.BufferedWriter(file)


class WatchedFile(io.FileIO):
    """A file whose writes are steps, and again when each is half done."""

    def __init__(self, steps: Steps, path: Any, mode: str) -> None:
        super().__init__(path, mode.replace("b", ""))
        self.steps, self.path = steps, path

    def write(self, data: Any) -> int:
        data = memoryview(data)
        self.steps.reach("write", self.path)
        half = super().write(data[: len(data) // 2])
        self.steps.reach("half written", self.path)
        return half + super().write(data[half:])

    def truncate(self, size: int | None = None) -> int:
        self.steps.reach("truncate", self.path)
        return super().truncate(size)


def watch(folder: Path, fault: Fault, log: Path) -> None:
    """Count the steps of this process from now on."""
    steps = Steps(folder, fault, log)
    for name in ("replace", "unlink", "mkdir"):
        setattr(os, name, functools.partial(steps.call, getattr(os, name)))
    os.fsync = functools.partial(steps.fsync, os.fsync)
    io.open = functools.partial(steps.open, io.open)
    if fault.within is not None:
        place, name = fault.within.rsplit(".", 1)
        owner = pkgutil.resolve_name(place)
        setattr(owner, name, _hit(getattr(owner, name), fault))


def _hit(function: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    """The function or method, before whose fault.at-th call the fault happens."""
    calls = itertools.count(1)

    @functools.wraps(function)
    def hit(*arguments: Any, **options: Any) -> Any:
        if next(calls) == fault.at:
            fault.happen()
        return function(*arguments, **options)

    return hit


def _train(arguments: list[str], folder: Path, fault: Fault, told: Path) -> None:
    """Run the command in the process, with its steps counted."""
    _begin(told)
    watch(folder, fault, told / "steps")
    sys.exit(importlib.import_module("fastmlp.train").main(arguments))


def _program(arguments: list[str], folder: Path, stdin: bytes, told: Path) -> None:
    """Run the command in the process without faults."""
    _begin(told)
    (told / "in").write_bytes(stdin)
    os.dup2(os.open(told / "in", os.O_RDONLY), 0)
    sys.stdin = open(0)  # multiprocessing has closed it  # noqa: SIM115
    os.chdir(folder)
    sys.exit(importlib.import_module("fastmlp.cli").main(arguments))


def _begin(told: Path) -> None:
    """Redirect all output to files in this folder, and replace pictures by quick ones."""
    importlib.import_module("fastmlp.pictures.plot").draw_loss = QuickPicture  # type: ignore[attr-defined]
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(told / name, os.O_WRONLY | os.O_CREAT), descriptor)


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def train(arguments: list[str], folder: Path, fault: Fault = NOTHING) -> Done:
    """Run `train` with these arguments; its steps are those in `folder`. Nothing happens unless a fault says so."""
    with started(arguments, folder, fault) as (process, told):
        return _done(process, told)


def program(arguments: list[str], folder: Path, stdin: bytes = b"") -> Done:
    """Run `fastmlp` with these arguments in this folder."""
    with _started(_program, arguments, folder, stdin) as (process, told):
        return _done(process, told)


def started(
    arguments: list[str], folder: Path, fault: Fault = NOTHING
) -> contextlib.AbstractContextManager[tuple[Any, Path]]:
    """Yield the process that trains and the folder of its output; the process ends with the block at the latest."""
    return _started(_train, arguments, folder, fault)


@contextlib.contextmanager
def _started(work: Callable[..., None], *arguments: Any) -> Iterator[tuple[Any, Path]]:
    with tempfile.TemporaryDirectory() as told:
        process = _server().Process(target=work, args=(*arguments, Path(told)))
        with _one_thread:
            process.start()
        try:
            yield process, Path(told)
        finally:
            process.kill()
            wait(process)


_one_thread = threading.Lock()


def wait(process: Any, seconds: float | None = None) -> int | None:
    """Wait for its end up to a limit; return its exit code, None if it still runs.

    Not by Process.join: another thread that starts a process reads all exit codes, and each can be read only once.
    """
    multiprocessing.connection.wait([process.sentinel], seconds)
    with _one_thread:
        code: int | None = process.exitcode
        return code


def _done(process: Any, told: Path) -> Done:
    exitcode = wait(process, 300)
    assert exitcode is not None, "five minutes have passed"
    out, err, steps = ((told / name).read_text() if (told / name).exists() else "" for name in ("out", "err", "steps"))
    return Done(exitcode if exitcode >= 0 else 128 - exitcode, out, err, _named(steps.splitlines()))


def _named(steps: list[str]) -> list[str]:
    """Return the steps, with each temporary file named after its final file."""
    becomes = {}
    for call, *names in map(str.split, reversed(steps)):
        if call == "replace":
            becomes[names[1]] = names[0]
    return [" ".join(becomes.get(word, word) for word in step.split()) for step in steps]
