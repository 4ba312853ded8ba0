"""A team of threads for kernels that release the GIL: fixed slices, taken by any free thread.

A problem is cut into slices by its sizes alone, never by the number of threads; the caller and the workers of one pool
take them as they come free. So no bit of a result depends on the number of threads, and a core that another program
takes away delays one slice and not the whole team.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

__all__ = ["cut", "run_slices"]

MOST_SLICES = 32

Slice = tuple[int, int]  # (first item, one past the last)


def cut(length: int, smallest: int, multiple_of: int = 1) -> list[Slice]:
    """Cut `length` items into one slice or, where there are twice as many as `smallest`, into up to 32.

    smallest     the least size of each slice but the last
    multiple_of  divides the size of each slice but the last
    """
    smallest = max(1, smallest)
    if length < 2 * smallest:
        return [(0, length)]
    step = -(-length // min(MOST_SLICES, length // smallest))
    step += -step % multiple_of
    return [(first, min(first + step, length)) for first in range(0, length, step)]


def _new_pool() -> ThreadPoolExecutor:
    """Return a pool whose threads start when first needed and sleep between calls."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fastmlp")


_pool = _new_pool()


def _renew_pool() -> None:
    """Make a new pool in a forked child, which inherits the pool without its threads."""
    global _pool
    _pool = _new_pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_pool)


def run_slices(work: Callable[[int, int], object], slices: Sequence[Slice], threads: int) -> None:
    """Call `work(first, last)` for every slice, on up to `threads` threads: the calling one and workers.

    Several Python threads may call at once: one that finds no free worker does all its slices itself. An error in
    a slice is raised in the caller after all threads have stopped.
    """
    if len(slices) == 1:
        work(*slices[0])
        return
    left = deque(slices)

    def take_slices() -> None:
        while True:
            try:
                first, last = left.popleft()
            except IndexError:
                return
            work(first, last)

    helpers = []
    with contextlib.suppress(RuntimeError):  # no new thread, as while the interpreter ends: fewer helpers
        for _ in range(min(threads, len(slices)) - 1):
            helpers.append(_pool.submit(take_slices))  # noqa: PERF401 (keeps those submitted before an error)
    try:
        take_slices()
    finally:
        left.clear()  # slices are left only if one has raised
        errors = [helper.exception() for helper in helpers if not helper.cancel()]
    for error in errors:
        if error is not None:
            raise error
