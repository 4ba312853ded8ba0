"""How many threads may work: one setting for the whole program."""

import os

__all__ = ["VARIABLE", "ThreadsError", "default_threads"]

VARIABLE = "FASTMLP_NUM_THREADS"


class ThreadsError(ValueError):
    """No number of threads; the message is one complete line for the user."""


def default_threads(threads: int | None = None) -> int:
    """The argument where given, else FASTMLP_NUM_THREADS, else the cores that this process may use (its affinity).

    Raises ThreadsError for what is not a whole number above 0.
    """
    if threads is not None:
        return _at_least_one("threads", threads)
    if named := os.environ.get(VARIABLE, "").strip():
        return _at_least_one(VARIABLE, int(named) if named.isdecimal() else named)
    return usable_cores()


def usable_cores() -> int:
    """The cores that this process may use: fewer than the machine has under taskset or a batch system."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _at_least_one(name: str, threads: int | str) -> int:
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ThreadsError(f"{name}: expected a whole number of at least 1, got {threads!r}")
    return threads
