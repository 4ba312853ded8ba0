"""Run by mpiexec: the command `train` on a rank to which something happens.

    faulty.py RANK WHAT ARGUMENT ...

raises    an exception in a step
full      the disk is full from the second checkpoint on
kills     the process kills itself in a step
version   it is of another version
"""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fastmlp import train
from fastmlp.files import atomic
from fastmlp.launcher import launched
from fastmlp.training import ranks, trainee

WHEN = 24  # the step, after the first checkpoint


def misbehave(what: str) -> None:
    step, sync = trainee.Trainee.step, os.fsync
    saved = [0]

    def faulty_step(self: Any, batch: Any, number: int, rate: float) -> float:
        if number == WHEN:
            if what == "kills":
                os.kill(os.getpid(), signal.SIGKILL)
            raise MemoryError("none is left")
        return step(self, batch, number, rate)

    def full(descriptor: int) -> None:
        if atomic.TEMPORARY.partition("*")[0] in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            saved[0] += 1
            if saved[0] > 4:  # the configuration, the probe of the folder, and the first checkpoint with its model
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    if what in ("raises", "kills"):
        trainee.Trainee.step = faulty_step  # type: ignore[method-assign]
    elif what == "full":
        os.fsync = full
    elif what == "version":
        ranks.__version__ = "0.0.1"  # type: ignore[attr-defined]


if __name__ == "__main__":
    rank, what, *arguments = sys.argv[1:]
    if launched()[0] == int(rank):
        misbehave(what)
    sys.exit(train.main(arguments))
