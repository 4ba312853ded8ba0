"""A command as one of several processes that MPI has started: rank 0 speaks for all, and all end together."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmlp import cli
from fastmlp.errors import GroupError
from fastmlp.launcher import launched

if TYPE_CHECKING:
    from fastmlp.distributed.mpi import MPIGroup
    from fastmlp.training.ranks import Leader

__all__ = ["Crew", "are_wanted", "run"]

TURN = 1.0  # seconds that the others give rank 0 to report what befell all
NEXT_TURN = 0.05  # and more for each further rank


def are_wanted(arguments: Sequence[str]) -> bool:
    """Return whether this process is one of several ranks: a launcher says so, or --mpi."""
    return launched()[1] > 1 or "--mpi" in arguments


class Crew:
    """The ranks that a command runs in.

    group    of all of them
    orderly  whether what has happened leaves the others waiting for orders, so that an order can end them
    """

    def __init__(self, group: "MPIGroup") -> None:
        self.group = group
        self.orderly = True
        self._leader: Leader | None = None
        self._ended = False
        self._reported = False

    def lead(self, options: Mapping[str, Any]) -> "Leader":
        """Return what leads the others; raise GroupError if they do not fit together."""
        from fastmlp.training.ranks import Leader, meet

        self._leader = Leader(self.group, meet(self.group, options))
        return self._leader

    def follow(self, options: Mapping[str, Any], signaled: Callable[[], int]) -> int:
        """Do what rank 0 says until its end; return its exit status."""
        from fastmlp.training.ranks import follow, meet

        ended = follow(self.group, meet(self.group, options), signaled)
        self._ended = True
        return ended.status

    def report(self, line: str) -> None:
        """Print why this rank ends all of them: after rank 0, which may say the same and end this one before."""
        rank = self.group.rank
        if rank:
            time.sleep(TURN + NEXT_TURN * rank)
            line = f"rank {rank} on {platform.node()}: {line}"
        self._reported = True
        cli.say(line)

    def end(self, status: int) -> None:
        """End all ranks with this exit status, if rank 0 has not ended them."""
        if self._leader is not None and self.orderly:
            self._leader.end(status)
        elif status != cli.DONE and not self._ended:
            if self.group.rank and not self._reported:
                time.sleep(TURN + NEXT_TURN * self.group.rank)
            self.group.abort(status)


def run(command: Callable[[argparse.Namespace, Crew], int], parser: cli.Parser, arguments: Sequence[str] | None) -> int:
    """Run a command as `cli.run` does, as one rank of several."""
    from fastmlp.distributed.mpi import mpi_group

    try:
        crew = Crew(mpi_group())
    except GroupError as error:  # on all ranks alike
        if launched()[0] == 0:
            cli.say(f"{parser.prog}: {error}")
        return error.status
    if crew.group.rank:  # rank 0 prints for all, --help too
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    status = cli.run(lambda parsed: command(parsed, crew), parser, arguments, crew.report)
    crew.end(status)
    return status
