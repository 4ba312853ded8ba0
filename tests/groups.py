"""Ranks that are threads of one process, so that what they do together can be tested without MPI."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastmlp.distributed.group import Collectives

Array = np.ndarray


class AbortedError(Exception):
    """A rank has ended all of them."""


class ThreadRank(Collectives):
    """One of the ranks; what one sends is copied, as if it had travelled."""

    def __init__(self, rank: int, size: int, board: dict[tuple[int, int], Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self._board, self._barrier = rank, size, board, barrier
        self.calls: list[str] = []

    def exchange(self, arrays: Sequence[Array], rows: Sequence[int]) -> list[Array]:
        self.calls.append("exchange")
        return self._swap(arrays, rows)

    def allgather(self, array: Array, rows: Sequence[int] | None = None) -> list[Array]:
        self.calls.append("allgather")
        return self._swap([array] * self.size, [len(array)] * self.size if rows is None else rows)

    def _swap(self, arrays: Sequence[Array], rows: Sequence[int]) -> list[Array]:
        assert len(arrays) == len(rows) == self.size
        for other, array in enumerate(arrays):
            self._board[self.rank, other] = np.array(array)
        self._barrier.wait()
        found = [self._board[other, self.rank] for other in range(self.size)]
        self._barrier.wait()
        assert [len(array) for array in found] == list(rows)
        self.received += sum(array.nbytes for other, array in enumerate(found) if other != self.rank)
        return found

    def abort(self, status: int) -> None:
        self._barrier.abort()
        raise AbortedError(status)


def run_ranks(size: int, work: Callable[[ThreadRank], Any]) -> list[Any]:
    """Return what `work` returns on each of so many ranks; raise what it raises on the first that fails."""
    board: dict[tuple[int, int], Any] = {}
    barrier = threading.Barrier(size, timeout=120)
    ranks = [ThreadRank(rank, size, board, barrier) for rank in range(size)]
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: ThreadRank) -> None:
        try:
            results[rank.rank] = work(rank)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return results
