"""One setting governs the threads: argument, then FASTMLP_NUM_THREADS, then the cores this process may use."""

import os
from typing import Any

import pytest

from fastmlp.threads import default_threads


def test_the_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "5")
    assert default_threads(3) == 3
    assert default_threads() == 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_without_either_it_is_the_cores_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTMLP_NUM_THREADS", raising=False)
    allowed = os.sched_getaffinity(0)
    assert default_threads() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert default_threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_what_is_no_number_of_threads_is_refused(threads: Any) -> None:
    with pytest.raises(ValueError, match="threads: expected a whole number from 1 to 1024, got"):
        default_threads(threads)


@pytest.mark.parametrize("named", ["0", "-2", "two", "1.5", "²"])
def test_the_environment_is_held_to_the_same(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMLP_NUM_THREADS", named)
    with pytest.raises(ValueError, match="FASTMLP_NUM_THREADS: expected a whole number from 1 to 1024, got"):
        default_threads()


@pytest.mark.parametrize(("count", "threads"), [(3, 3), (None, 1), (5_000, 1_024)])
def test_where_there_is_no_affinity_it_is_all_cores_and_one_where_nobody_knows(
    count: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTMLP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert default_threads() == threads
