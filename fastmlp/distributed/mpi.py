"""Ranks that are processes which MPI has started, by mpi4py: on one machine or on several."""

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmlp.distributed.group import Collectives
from fastmlp.errors import GroupError
from fastmlp.launcher import launched

__all__ = ["MPIGroup", "mpi_group"]

Array = np.ndarray
# A rank that waits for the others looks again at once for SPIN seconds, and lets others have its core between looks for
# YIELD seconds. Then it sleeps for ever longer: a tenth of what it has waited, between SHORTEST and a limit. A small
# message (in bytes) is there or is not, and rank 0 may write for minutes before it sends the next; a large one moves on
# only while somebody looks.
SPIN, YIELD, SHORTEST, SMALL = 0.0005, 0.01, 0.00005, 4096
LONGEST, LONGEST_IF_LARGE = 0.02, 0.0002


def mpi_group() -> "MPIGroup":
    """Return all ranks that MPI has started; mpi4py is imported here.

    Raise GroupError if it is missing, or of another MPI than the launcher.
    """
    size = launched()[1]
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library
        named = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("mpi4py")
        why = "mpi4py is not installed" if named else f"mpi4py does not load ({error})"
        raise GroupError(
            f"MPI has started {size} ranks, but {why}: pip install 'fastmlp[mpi]'"
            if size > 1
            else f"{why}: pip install 'fastmlp[mpi]'"
        ) from error
    world = MPI.COMM_WORLD
    if world.Get_size() == 1 < size:
        raise GroupError(
            f"the launcher has started {size} ranks, but each finds itself alone: mpi4py runs {MPI.get_vendor()[0]},"
            " whose own mpiexec is to start them"
        )
    return MPIGroup(world, MPI)


class MPIGroup(Collectives):
    """The ranks of an MPI communicator.

    Waiting is polite: ranks that share a machine do not take each other's cores, and Ctrl-C gets through.
    """

    def __init__(self, communicator: Any, mpi: Any) -> None:
        """mpi  the module mpi4py.MPI"""
        self._communicator, self._byte = communicator, mpi.BYTE
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()

    def allgather(self, array: Array, rows: Sequence[int] | None = None) -> list[Array]:
        """As in Group."""
        sent = np.ascontiguousarray(array)
        received, counts = self._room(sent, [len(sent)] * self.size if rows is None else rows)
        call = self._communicator.Iallgatherv
        self._wait(call([_bytes(sent), self._byte], [_bytes(received), counts, self._byte]), received.nbytes)
        return self._parts(received, counts)

    def exchange(self, arrays: Sequence[Array], rows: Sequence[int]) -> list[Array]:
        """As in Group."""
        sent = np.concatenate(arrays)
        received, counts = self._room(sent, rows)
        lengths = [array.nbytes for array in arrays]
        call = self._communicator.Ialltoallv
        request = call([_bytes(sent), lengths, self._byte], [_bytes(received), counts, self._byte])
        self._wait(request, max(sent.nbytes, received.nbytes))
        return self._parts(received, counts)

    def _room(self, like: Array, rows: Sequence[int]) -> tuple[Array, list[int]]:
        """Return the array for the rows of all ranks, and the bytes of each."""
        received = np.empty((sum(rows), *like.shape[1:]), like.dtype)
        row = like.dtype.itemsize * int(np.prod(like.shape[1:], dtype=np.int64))
        return received, [length * row for length in rows]

    def _parts(self, received: Array, counts: list[int]) -> list[Array]:
        self.received += sum(counts) - counts[self.rank]
        row = max(received.dtype.itemsize * int(np.prod(received.shape[1:], dtype=np.int64)), 1)
        ends = np.cumsum([count // row for count in counts])
        return np.split(received, ends[:-1])

    def _wait(self, request: Any, size: int) -> None:
        """Wait until a request is done that receives so many bytes."""
        began, small = time.perf_counter(), size <= SMALL
        while not request.Test():
            waited = time.perf_counter() - began
            if waited > YIELD or (small and waited > SPIN):
                time.sleep(min(max(waited / 10, SHORTEST), LONGEST if small else LONGEST_IF_LARGE))
            elif waited > SPIN:
                _yield_core()

    def abort(self, status: int) -> None:
        """As in Group."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        with contextlib.suppress(OSError):  # MPI's own line says less than what was said before
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        self._communicator.Abort(status)


def _yield_core() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)


def _bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)
