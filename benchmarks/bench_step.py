"""The whole training step, SGD: forward, backward and update of the network of the description, in words per second.

Beside the three back-ends: PyTorch eager, the same network from the same weights, if it is installed.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.conftest import THREADS
from benchmarks.peers import BACKENDS
from fastmlp.model import MLP, NetworkShape
from fastmlp.optim import SGD
from tests.helpers import require_ops
from tests.inputs import REAL, batch_sizes
from tests.networks import torch_model

SHAPE = NetworkShape(vocabulary=REAL.V, context=REAL.T, embed=REAL.D, hidden=(REAL.H, REAL.H))
RATE = 0.1
BATCHES = 8  # taken in turn, so that no batch's words stay in the cache
SECONDS = 4.0  # of each benchmark


def batches(B: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(2003)
    words = rng.zipf(1.3, (BATCHES, B, SHAPE.context + 1)) % SHAPE.vocabulary  # some often, most of them never
    return [(np.ascontiguousarray(w[:, :-1], np.int32), np.ascontiguousarray(w[:, -1], np.int32)) for w in words]


def fastmlp_step(backend: str) -> Callable[[np.ndarray, np.ndarray], Any]:
    ops = require_ops(backend)
    network = MLP(SHAPE, ops, threads=THREADS, seed=1)
    optimizer = SGD(network.parameters, ops, threads=THREADS)

    def step(ids: np.ndarray, targets: np.ndarray) -> float:
        return optimizer.step(network, ids, targets, RATE)

    return step


def torch_step() -> Callable[[Any, Any], Any]:
    """PyTorch as its documentation has it: fresh gradients each step are faster here than zeroed ones."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(THREADS)
    network = torch_model(MLP(SHAPE, require_ops("numpy"), seed=1).state_dict(), SHAPE)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)

    def step(ids: Any, targets: Any) -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(ids), targets)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


@batch_sizes
@pytest.mark.parametrize("contender", [*BACKENDS, "torch"])
def bench_step(benchmark, time_rounds, contender, B):
    given = batches(B)
    if contender == "torch":
        torch = pytest.importorskip("torch")
        step = torch_step()
        given = [(torch.from_numpy(ids).long(), torch.from_numpy(targets).long()) for ids, targets in given]
    else:
        step = fastmlp_step(contender)
    turn = itertools.cycle(given)

    def call() -> float:
        return step(*next(turn))

    assert np.isfinite([call() for _ in given]).all()
    benchmark.group = f"training step, SGD, B = {B}"
    benchmark.extra_info |= {"contender": contender, "threads": THREADS, "B": B}
    time_rounds(call, SECONDS)
    benchmark.extra_info["words/s"] = round(B / benchmark.stats.stats.median)
