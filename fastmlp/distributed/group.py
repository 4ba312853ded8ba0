"""A group of ranks: what a rank of a training asks of the others."""

import pickle
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

__all__ = ["Alone", "Collectives", "Group"]

Array = np.ndarray


class Group(Protocol):
    """Ranks that make the same calls in the same order, each with its own arrays.

    rank      which one this is, from 0
    size      how many there are
    received  bytes that have come from other ranks so far
    """

    rank: int
    size: int
    received: int

    def allgather(self, array: Array, rows: Sequence[int] | None = None) -> list[Array]:
        """Return the array of every rank, in rank order.

        rows  the length of each one's first axis, where they differ; all else is alike
        """

    def allreduce(self, array: Array) -> None:
        """Replace the array by the sum over all ranks, added up in rank order: each gets the same bits, every time."""

    def exchange(self, arrays: Sequence[Array], rows: Sequence[int]) -> list[Array]:
        """Send one array to each rank, and return what each has sent here.

        rows  the length of the first axis of what each sends here; all else is alike
        """

    def share(self, value: Any) -> list[Any]:
        """Return the value of every rank, in rank order: anything that can be pickled."""

    def abort(self, status: int) -> None:
        """End the processes of all ranks at once, wherever they are, with an exit status."""


class Collectives:
    """The calls of a group that are made of `allgather` and `exchange`."""

    rank: int
    size: int
    received = 0

    def allgather(self, array: Array, rows: Sequence[int] | None = None) -> list[Array]:
        """As in Group."""
        raise NotImplementedError

    def exchange(self, arrays: Sequence[Array], rows: Sequence[int]) -> list[Array]:
        """As in Group."""
        raise NotImplementedError

    def allreduce(self, array: Array) -> None:
        """As in Group: rank i adds up slice i.

        MPI's own sum may take another order with another number of hosts, and other bits with it.
        """
        if self.size == 1:
            return
        flat = array.reshape(-1)
        ends = [len(flat) * (rank + 1) // self.size for rank in range(self.size)]
        slices = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
        lengths = [each.stop - each.start for each in slices]
        first, *others = self.exchange([flat[each] for each in slices], [lengths[self.rank]] * self.size)
        total = first.copy()
        for part in others:
            total += part
        for each, part in zip(slices, self.allgather(total, lengths), strict=True):
            flat[each] = part

    def share(self, value: Any) -> list[Any]:
        """As in Group. Pickled, which would not do for files: ranks are processes of one command, of one user."""
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        lengths = [int(length[0]) for length in self.allgather(np.array([len(data)]))]
        return [pickle.loads(part.tobytes()) for part in self.allgather(data, lengths)]


class Alone(Collectives):
    """A group of one: the ordinary run."""

    rank = 0
    size = 1

    def allgather(self, array: Array, rows: Sequence[int] | None = None) -> list[Array]:
        """Return the array itself."""
        return [array]

    def exchange(self, arrays: Sequence[Array], rows: Sequence[int]) -> list[Array]:
        """Return the array itself."""
        return [*arrays]

    def abort(self, status: int) -> None:
        """End this process."""
        raise SystemExit(status)
