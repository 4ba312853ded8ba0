"""Commands under mpiexec; where that or mpi4py is missing tests are skipped, or fail if FASTMLP_REQUIRE_MPI is 1."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.runs import ROOT

SECONDS = 240  # after which a test that would hang ends; a busy machine takes its time
CROWDED = r"note: \d+ ranks share \d+ cores? of .*\n"


def mpiexec() -> str:
    """Return the launcher of this environment's MPI."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        found = None
    if found is None:
        reason = "mpi4py or mpiexec is not available: pip install 'fastmlp[mpi]' mpich"
        if os.environ.get("FASTMLP_REQUIRE_MPI") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def environment(**others: str) -> dict[str, str]:
    """Return that of the ranks: one thread for BLAS, and the sources at hand."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **others}


@contextlib.contextmanager
def ranks(*arguments: object, folder: Path, **others: str) -> Iterator[subprocess.Popen[str]]:
    """Start mpiexec with these arguments, in a session of its own, which ends with the block at the latest."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    command = [mpiexec(), *map(str, arguments)]
    with subprocess.Popen(command, cwd=folder, env=environment(**others), start_new_session=True, **pipes) as child:
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def finished(*arguments: object, folder: Path, **others: str) -> tuple[int, str, str]:
    """Return status, standard output and standard error of mpiexec with these arguments.

    A note that there are more ranks than cores is left out: that depends on the machine.
    """
    with ranks(*arguments, folder=folder, **others) as child:
        out, err = child.communicate(timeout=SECONDS)
        return child.returncode, out, re.sub(CROWDED, "", err)


def python(count: int, *arguments: object) -> list[object]:
    """Return the arguments of mpiexec that start Python in so many ranks."""
    return ["-n", count, sys.executable, *arguments]


def train(count: int, *arguments: object) -> list[object]:
    """Return those that train."""
    return python(count, "-m", "fastmlp.train", *arguments)


def pids(folder: Path, count: int) -> list[int]:
    """Return the process ids of the ranks that mpiexec has started in a folder, as soon as there are all of them."""
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    found: dict[int, int] = {}

    def look() -> bool:
        found.clear()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                variables = dict(each.split(b"=", 1) for each in (entry / "environ").read_bytes().split(b"\0") if each)
                if (entry / "cwd").readlink() == folder and b"PMI_RANK" in variables:
                    found[int(variables[b"PMI_RANK"])] = int(entry.name)
        return len(found) == count

    until(look)
    return [found[rank] for rank in range(count)]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the limit only ends a test that would hang."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
