"""Promises 6 to 17 the hard way: runs that are killed, stopped, starved and moved, and what is left of them.

    pytest tests/test_endurance.py                a shortened form of each
    pytest tests/test_endurance.py --endurance    all of it, with figures

The processes are real; faults.py says how something happens to one at a moment that is chosen.
"""

import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fastmlp import checkpoint
from fastmlp.checkpoint import LOCK_FILE
from tests import faults
from tests.faults import NOTHING, Done, Fault
from tests.runs import flags, outcome, small_options, write_text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, signals and fork")

Tell = Callable[[str], None]
OPTIONS = small_options(steps=16, save_every=5, eval_every=8, log_every=6, sample_every=12)
SAVED = [5, 8, 10, 15, 16]  # the steps at which the run with these options writes last.safetensors
EVER = 1_000
LAST = "replace last.safetensors last.safetensors"


@pytest.fixture(scope="module", autouse=True)
def _one_blas_thread() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        yield


@dataclass(frozen=True)
class Sound:
    """A run that nothing happened to."""

    file: Path
    steps: list[str]  # of writing
    outcome: dict[str, Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    folder = tmp_path_factory.mktemp("sound")
    file = write_text(folder)
    done = train(file, folder / "run")
    assert (done.status, done.err) == (0, "")
    assert done.steps.count(LAST) == len(SAVED)
    return Sound(file, done.steps, outcome(folder / "run"))


def train(file: Path, folder: Path, *arguments: str, fault: Fault = NOTHING) -> Done:
    return faults.train([str(file), *flags(OPTIONS), "--out", str(folder), *arguments], folder, fault)


def saved_step(folder: Path) -> int | None:
    """The step of the checkpoint to resume from, which must be whole."""
    file = folder / "last.safetensors"
    return checkpoint.load(file)[1]["step"] if file.exists() else None


def temporaries(folder: Path) -> list[str]:
    return [file.name for file in folder.glob(".*") if file.name != LOCK_FILE]


def at_once(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Do it for all of them, as many at a time as there are cores; the first failure is raised."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, items):
            pass


# --------------------------------------------------------------------------------- promises 6, 7 and 9: at every write

ACCIDENTS = {
    "killed": Fault("SIGKILL"),
    "disk full": Fault("ENOSPC", times=EVER),
    "one error": Fault("EIO"),
    "read-only from then on": Fault("EROFS", times=EVER),
    "Ctrl-C": Fault("SIGINT"),
    "Ctrl-C twice": Fault("SIGINT", times=2),
    "SIGTERM": Fault("SIGTERM"),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_promises_6_7_and_9_at_every_write_step(
    accident: str, sound: Sound, tmp_path: Path, endurance: bool, tell: Tell
) -> None:
    """Something happens at each numbered step of writing; what was saved is whole, and the run goes on from there.

    The short form takes of each step with the same name the first one, and shares them between the accidents.
    """
    steps = [*range(1, len(sound.steps) + 1)]
    if not endurance:
        first = {name: step for step, name in reversed([*enumerate(sound.steps, start=1)])}
        steps = sorted(first.values())[list(ACCIDENTS).index(accident) :: len(ACCIDENTS)]
    began = time.perf_counter()
    kind = ACCIDENTS[accident]

    def happens(step: int) -> None:
        folder = tmp_path / f"run{step}"
        done = train(sound.file, folder, fault=replace(kind, at=step))
        where = f"{accident} at step {step}, {sound.steps[step - 1]}: {done.status} {done.err}"
        judge(done, step, kind, folder, sound, where)
        done = train(sound.file, folder, "--resume")
        assert (done.status, done.err) == (0, ""), where
        assert outcome(folder) == sound.outcome, where
        assert temporaries(folder) == [], where

    at_once(happens, steps)
    seconds = time.perf_counter() - began
    tell(f"{accident}: at {len(steps)} of {len(sound.steps)} steps of writing, all resumed, {seconds:.0f} s")


def judge(done: Done, step: int, kind: Fault, folder: Path, sound: Sound, where: str) -> None:
    """What the process left when this had happened at this step."""
    name = sound.steps[step - 1]
    prevented = name == LAST and kind.what != "ENOSPC"  # a renaming needs no room
    saves = sound.steps[:step].count(LAST) - prevented
    saved = SAVED[saves - 1] if saves else None
    assert "Traceback" not in done.err, where
    if kind.what == "SIGKILL":
        assert (done.status, saved_step(folder)) == (137, saved), where
    elif kind.what.startswith("SIG"):
        judge_stopped(done, kind, folder, saved, where)
        # a signal can come while what another one left is removed
        cleaning = "before training began" in done.err and (kind.times > 1 or "unlink" in name)
        assert cleaning or temporaries(folder) == [], where
    else:
        judge_failed(done, step, kind, folder, sound, where)
        assert saved_step(folder) == saved, where
        assert kind.what == "EROFS" or "unlink" in name or temporaries(folder) == [], where


def judge_stopped(done: Done, kind: Fault, folder: Path, before: int | None, where: str) -> None:
    """Stopped by a signal: what was saved last is no older than before, and the command that resumes was printed."""
    ended = done.status == 0  # the signal came when there were no more steps to come
    assert ended or done.status == {"SIGINT": 130, "SIGTERM": 143}[kind.what], where
    saved = saved_step(folder)
    assert (saved or 0) >= (before or 0), where
    assert ended or f"--resume --out {folder}" in done.out + done.err or "nothing to save" in done.err, where
    if "stopped after step" in done.out:
        assert f"stopped after step {saved};" in done.out, where


def judge_failed(done: Done, step: int, kind: Fault, folder: Path, sound: Sound, where: str) -> None:
    """A write failed: one line says which and why."""
    if step == len(sound.steps):  # letting go of the lock
        assert (done.status, done.err) == (0, ""), where
    elif step > sound.steps.index("open loss.png"):  # the run is done, but for its picture
        assert (done.status, done.err) == (0, ""), where
        assert "is not drawn: " in done.out, where
    else:
        probing = step <= sound.steps.index("open config.toml")  # whether the folder can be written to
        assert done.status == (2 if probing else 1), where
        assert done.err.count("\n") == 1, where
        assert done.err.startswith("python -m fastmlp.train: cannot "), where
        assert os.strerror(getattr(errno, kind.what)) in done.err, where
