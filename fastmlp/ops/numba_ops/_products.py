"""Matrix products: NumPy's BLAS, one thread of it in each slice."""

import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from fastmlp.ops import team

Array = np.ndarray
SMALLEST_PRODUCT = 2**23  # multiplications of a slice of a product, at least: less is not worth a thread
NARROWEST = 128  # rows or columns of such a slice, at least: BLAS copies the whole of the other operand for each


class _OneThread:
    """While somebody is inside, BLAS works in the thread that calls it, and there alone.

    The number of its threads is one setting for the process: the first one in sets it, the last one out restores it. So
    products of other Python threads have one thread meanwhile. macOS's BLAS has no such setting, and divides its work
    itself.
    """

    def __init__(self) -> None:
        self.inside = 0
        self.limit: Any = None
        self.lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self.lock.acquire, after_in_parent=self.lock.release, after_in_child=self._leave_in_child
            )

    def _leave_in_child(self) -> None:
        """A forked child has none of the threads that were inside."""
        self.lock.release()
        while self.inside:
            self.__exit__()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.limit = _blas().limit(limits=1)
            self.inside += 1

    def __exit__(self, *_error: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.limit.restore_original_limits()


@cache
def _blas() -> Any:
    """The BLAS libraries that the process has loaded, NumPy's among them."""
    return ThreadpoolController().select(user_api="blas")


one_thread = _OneThread()


def run_products(work: Callable[[int, int], object], slices: Sequence[team.Slice], threads: int) -> None:
    """Run slices whose work has products in it. NaN and infinity come without a warning, as in kernels."""

    def quietly(first: int, last: int) -> None:
        with np.errstate(all="ignore"):
            work(first, last)

    with one_thread:
        team.run_slices(quietly, slices, threads)


def multiply(a: Array, b: Array, c: Array, threads: int, added: Array | None = None) -> None:
    """c = a b + added, sliced over the longer side of c.

    a (I, K), b (K, J)   in:  either may be a transposed view
    c (I, J)             out
    added (J,) or None   in
    """
    rows, columns = c.shape
    by_rows = rows >= columns

    def work(first: int, last: int) -> None:
        part = np.s_[first:last] if by_rows else np.s_[:, first:last]
        np.matmul(a[part] if by_rows else a, b if by_rows else b[part], out=c[part])
        if added is not None:
            c[part] += added if by_rows else added[first:last]

    smallest = max(NARROWEST, SMALLEST_PRODUCT // max(1, a.shape[1] * min(rows, columns)))
    run_products(work, team.cut(max(rows, columns), smallest), threads)
