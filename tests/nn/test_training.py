"""Training with fastmlp.nn: PyTorch's losses, any number of threads, memory, a forked child."""

import gc
import multiprocessing
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastmlp import nn, optim
from fastmlp.ops import Ops
from tests.helpers import SAME_LOSSES, require_ops
from tests.nn.helpers import network, state_bytes, to_torch, train, train_torch
from tests.runs import process


def test_promise_3_ten_losses_equal_pytorch(torch: ModuleType) -> None:
    ours, theirs = network(rng=2), network(torch.nn)
    theirs.load_state_dict(to_torch(torch, ours))
    want = train_torch(
        torch, theirs, torch.nn.CrossEntropyLoss(), torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.9), 10
    )
    got = train(ours, nn.CrossEntropyLoss(), optim.SGD(ours.parameters(), lr=0.5, momentum=0.9), 10)
    np.testing.assert_allclose(got, want, rtol=SAME_LOSSES)
    assert got[-1] != pytest.approx(got[0], rel=1e-2)


@pytest.fixture(params=["numpy", "numba", "cython"])
def each_backend(request: pytest.FixtureRequest, library_runs: Callable[[Ops], None]) -> str:
    """nn and optim on each back-end."""
    library_runs(require_ops(request.param))
    return str(request.param)


@pytest.mark.usefixtures("each_backend")
def test_promise_3_ten_losses_on_each_backend(torch: ModuleType) -> None:
    test_promise_3_ten_losses_equal_pytorch(torch)


def trained(seed: int, steps: int = 30) -> bytes:
    """What a network is after some steps; its last layer is wide enough for several threads."""
    model = network(rng=seed)[:-1]
    criterion = nn.LinearCrossEntropyLoss(12, 2_000, bias=True, rng=seed)
    train(model, criterion, optim.AdamW(model.parameters() + criterion.parameters(), lr=0.01), steps, seed)
    return state_bytes(model) + state_bytes(criterion)


def test_promise_4_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    require_ops("cython")
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("FASTMLP_NUM_THREADS", threads)
        found.append(trained(1))
    assert found[0] == found[1] == found[2]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the threads that Linux lists")
def test_what_the_tests_of_threads_train_is_work_for_several() -> None:
    require_ops("cython")
    code = """if True:
        import os
        from tests.nn.test_training import trained
        before = len(os.listdir("/proc/self/task"))
        trained(1, steps=1)
        print(len(os.listdir("/proc/self/task")) - before)"""
    with process("-c", code, env={"FASTMLP_NUM_THREADS": "3"}) as child:
        assert child.communicate() == ("2\n", "")


def test_promise_15_memory_does_not_grow_with_the_steps() -> None:
    model = network(rng=1)
    criterion, optimizer = nn.CrossEntropyLoss(), optim.AdamW(model.parameters())
    train(model, criterion, optimizer, 20)
    tracemalloc.start()
    try:
        train(model, criterion, optimizer, 20)
        gc.collect()  # Python's own lists of objects to use again, which fill up by and by
        before = tracemalloc.get_traced_memory()[0]
        train(model, criterion, optimizer, 20)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < before + 20_000  # one batch's activations are 60,000
    finally:
        tracemalloc.stop()


def test_promise_15_the_fused_loss_keeps_one_gradient_of_its_weight(library_runs: Callable[[Ops], None]) -> None:
    library_runs(require_ops("cython"))
    criterion, h = nn.LinearCrossEntropyLoss(64, 4_000, rng=1), np.ones((4, 64), np.float32)
    tracemalloc.start()
    try:
        for _ in range(3):
            criterion(h, [0, 1, 2, 3])
            criterion.backward()
        assert tracemalloc.get_traced_memory()[1] < 1.3 * criterion.linear.weight.nbytes
    finally:
        tracemalloc.stop()


def test_promise_16_two_threads_train_two_models_with_the_bits_of_one_after_the_other() -> None:
    alone = [trained(seed) for seed in (1, 2)]
    together: list[Any] = [None, None]

    def work(at: int) -> None:
        together[at] = trained(at + 1)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_promise_16_a_forked_child_trains() -> None:
    want = trained(1)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=lambda: results.put(trained(1)))
    child.start()
    try:
        assert results.get(timeout=60) == want
    finally:
        child.kill()
        child.join()
