"""The number of threads: one setting for the whole program."""

import operator
import os
from typing import Any

from fastmlp.errors import ThreadsError

__all__ = ["MOST_THREADS", "VARIABLE", "default_threads"]

VARIABLE = "FASTMLP_NUM_THREADS"
MOST_THREADS = 1024


def default_threads(threads: int | None = None) -> int:
    """Return the argument if given, else FASTMLP_NUM_THREADS, else the cores that this process may use (its affinity).

    Raises ThreadsError for what is not a whole number from 1 to 1,024.
    """
    if threads is not None:
        return _checked("threads", threads)
    if named := os.environ.get(VARIABLE, "").strip():
        return _checked(VARIABLE, int(named) if named.isdecimal() else named)
    return min(usable_cores(), MOST_THREADS)


def usable_cores() -> int:
    """Return how many cores this process may use: under taskset or a batch system fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked(name: str, threads: Any) -> int:
    whole = hasattr(threads, "__index__") and not isinstance(threads, bool)  # NumPy's integers too
    if not whole or not 1 <= operator.index(threads) <= MOST_THREADS:
        raise ThreadsError(f"{name}: expected a whole number from 1 to {MOST_THREADS}, got {threads!r}")
    return operator.index(threads)
