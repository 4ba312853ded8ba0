"""The team of threads: slices that are a function of sizes alone, and hands that share them."""

import os
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmlp.ops import team
from fastmlp.ops.team import cut, run_slices


@given(length=st.integers(0, 10**7), smallest=st.integers(0, 10**5), multiple_of=st.sampled_from([1, 4, 128]))
def test_slices_cover_every_item_once(length, smallest, multiple_of):
    slices = cut(length, smallest, multiple_of)
    assert slices[0][0] == 0
    assert slices[-1][1] == length
    assert all(before[1] == after[0] for before, after in pairwise(slices))
    assert 1 <= len(slices) <= 32
    for first, last in slices[:-1]:
        assert last - first >= smallest
        assert (last - first) % multiple_of == 0
    assert len(slices) == 1 or slices[-1][0] < slices[-1][1]


def test_the_real_vocabulary_has_16_to_32_slices():
    assert 16 <= len(cut(27_755, 256, multiple_of=128)) <= 32


@pytest.mark.parametrize("threads", [1, 2, 3, 100])
def test_every_slice_runs_once(threads):
    done = []
    run_slices(lambda first, last: done.append((first, last)), cut(1_000, 1), threads)
    assert sorted(done) == cut(1_000, 1)


def test_hands_work_at_the_same_time():
    """Two slices that each wait for the other: one hand alone would never end."""
    both = threading.Barrier(2, timeout=20)
    run_slices(lambda first, last: both.wait(), [(0, 1), (1, 2)], threads=2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_promise_16_a_forked_child_has_hands_of_its_own():
    run_slices(lambda first, last: None, cut(100, 1), threads=2)  # the parent's workers, which the child lacks
    child = os.fork()
    if child == 0:
        status = 1
        try:
            both = threading.Barrier(2, timeout=20)
            run_slices(lambda first, last: both.wait(), [(0, 1), (1, 2)], threads=2)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_thread_is_the_calling_thread():
    names = set()
    run_slices(lambda first, last: names.add(threading.get_ident()), cut(100, 1), threads=1)
    assert names == {threading.get_ident()}


@pytest.mark.parametrize("by_caller", [True, False])
def test_what_a_slice_raises_reaches_the_caller_after_all_have_stopped(by_caller):
    caller, running = threading.get_ident(), []
    both = threading.Barrier(2, timeout=20)

    def work(first, last):
        both.wait()  # so that each hand has one of the two slices
        if (threading.get_ident() == caller) == by_caller:
            raise OSError("of a slice")
        running.append(first)
        time.sleep(0.1)
        running.remove(first)

    with pytest.raises(OSError, match="of a slice"):
        run_slices(work, [(0, 1), (1, 2)], threads=2)
    assert running == []


def test_after_an_error_of_the_caller_no_slice_is_begun():
    begun = []

    def work(first, last):
        begun.append(first)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_slices(work, cut(100, 1), threads=1)
    assert begun == [0]


def test_a_caller_that_finds_no_worker_free_works_alone():
    """As many callers at once as there are workers and one more: all end."""
    callers = (os.cpu_count() or 1) + 1
    all_in = threading.Barrier(callers, timeout=20)
    ended = []

    def call():
        all_in.wait()
        for _ in range(20):
            run_slices(lambda first, last: time.sleep(0.0001), cut(32, 1), threads=3)
        ended.append(1)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(ended) == callers


def test_fewer_hands_where_no_thread_can_be_started(monkeypatch):
    class NoThreads:
        def submit(self, work):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(team, "_pool", NoThreads())
    done = []
    run_slices(lambda first, last: done.append(first), cut(100, 1), threads=2)
    assert len(done) == len(cut(100, 1))


def test_idle_workers_use_no_cpu():
    run_slices(lambda first, last: None, cut(100, 1), threads=2)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25
