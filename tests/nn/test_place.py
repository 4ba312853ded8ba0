"""Modules that are bound to arrays of their own: a replayed pass is a pass, and no array is written over too soon."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastmlp import nn
from fastmlp.network.network import Network
from fastmlp.network.shape import NetworkShape
from fastmlp.nn.place import AT_ONCE, Bound
from fastmlp.ops import Ops
from fastmlp.optim import SGD, AdamW
from tests.helpers import NUMPY
from tests.networks import batch

Array = np.ndarray
WIDTH = 7


class Apart(Bound):
    """Each result has an array of its own."""

    def over(self, module: object, name: str, x: Array) -> Array:
        return self.array(module, name, x.shape, x.dtype)


class Counted(nn.Sequential):
    """Layers of every kind, their dropout by a counter."""

    def __init__(self, counter: Array) -> None:
        super().__init__(
            nn.Linear(5, WIDTH, rng=1),
            nn.BatchNorm1d(WIDTH),
            nn.Tanh(),
            nn.Dropout(0.3, rng=0),
            nn.Residual(nn.Linear(WIDTH, WIDTH, bias=False, rng=2), nn.BatchNorm1d(WIDTH), nn.GELU(), nn.Dropout(0.2)),
            nn.Residual(nn.GELU(), nn.Residual(nn.Tanh(), nn.Dropout(0.0)), nn.Dropout(0.1)),
            nn.Linear(WIDTH, WIDTH, rng=3),
            nn.ReLU(),
            nn.Dropout(0.5, rng=0),
            nn.Linear(WIDTH, 4, rng=4),
            nn.GELU(),
        )
        dropouts = [module for module in self.modules() if isinstance(module, nn.Dropout)]
        for layer, module in enumerate(dropouts):
            module.counter, module.layer = counter, layer


class Runner:
    """The layers in one place, and the passes of a batch."""

    def __init__(self, place: Any, *, replays: bool = True) -> None:
        self.counter = np.array([3, 0])
        self.layers, self.place, self.replays = Counted(self.counter).run_in(place), place, replays
        self.optimizer = AdamW(self.layers.parameters(), 0.05)

    def run(self, name: str, x: Array, run: Any, *, of: str) -> Array:
        if not self.replays:
            return run(x)
        own = self.place.array(self, of, x.shape, x.dtype)
        own[...] = x
        return self.place.replay(name, len(x), lambda: run(own))

    def passes(self, step: int, x: Array, dy: Array, *, update: bool = True) -> dict[str, bytes]:
        """A step of training, then an evaluation: all that they compute."""
        self.counter[1] = step
        self.layers.train()
        found = {"y": self.run("train", x, self.layers, of="x").tobytes()}
        found["dx"] = self.run("backward", dy, self.layers.backward, of="dy").tobytes()
        names = [name for name, _ in self.layers.named_parameters()]
        for name, gradient in zip(names, self.layers.gradients(), strict=True):
            found[f"d{name}"] = b"" if gradient is None else gradient.tobytes()
        if update:
            self.optimizer.step()
        found |= {name: array.tobytes() for name, array in self.layers.state_dict().items()}
        self.layers.eval()
        return {**found, "y of evaluation": self.run("eval", x, self.layers, of="x").tobytes()}


def batches(rng: np.random.Generator) -> Iterator[tuple[int, Array, Array]]:
    """Sizes change, also to one that was there before; some come several times in a row, and are replayed.

    Arrays of 300 rows are large, and begin at a cache line.
    """
    for step, rows in enumerate((13, 13, 5, 5, 13, 300, 300, 300, 30, 5)):
        yield step, rng.normal(size=(rows, 5)).astype(np.float32), rng.normal(size=(rows, 4)).astype(np.float32)


def test_promise_4_a_replayed_pass_gives_the_bits_of_one_that_is_run_at_once(
    ops: Ops, rng: np.random.Generator, library_runs: Any
) -> None:
    """Nothing is replayed, nothing is shared and nothing is bound in what it is compared with."""
    library_runs(ops)
    bound, at_once = Runner(Bound(ops, threads=2)), Runner(AT_ONCE, replays=False)
    for step, x, dy in batches(rng):
        got, want = bound.passes(step, x, dy), at_once.passes(step, x, dy)
        assert [name for name, value in want.items() if value != got[name]] == [], step


def test_no_array_that_a_backward_pass_reads_is_written_over(ops: Ops, rng: np.random.Generator) -> None:
    shared, apart = Runner(Bound(ops, threads=1)), Runner(Apart(ops, threads=1))
    for step, x, dy in batches(rng):
        assert shared.passes(step, x, dy) == apart.passes(step, x, dy), step


class OneMore(nn.Module):
    """Writes over its input wherever it may."""

    def forward(self, x: Array) -> Array:
        y = self.place.over(self, "y", x)
        self.place.call(np.add, x, np.float32(1), out=y)
        return y


@pytest.mark.parametrize("rows", [9, 300])
@pytest.mark.parametrize("kind", ["Linear", "BatchNorm1d", "Tanh", "ReLU", "GELU", "Residual"])
def test_what_a_module_keeps_no_other_one_writes_over(kind: str, rows: int, rng: np.random.Generator) -> None:
    """Its input, which another module reads too, and its output."""
    width = {"Linear": {"rng": 1}, "BatchNorm1d": {}}
    module = getattr(nn, kind)(*([6] * (2 if kind == "Linear" else 1)), **width[kind]) if kind in width else None
    module = module or (nn.Residual(nn.Linear(6, 6, rng=1), nn.Tanh()) if kind == "Residual" else getattr(nn, kind)())
    given, dy = (rng.normal(size=(rows, 6)).astype(np.float32) for _ in range(2))
    want = [module(given).copy(), module.backward(dy).copy(), *(gradient.copy() for gradient in module.gradients())]
    place = Bound(NUMPY, threads=1)
    x = place.array(place, "x", (rows, 6), np.float32)
    x[...] = given
    others = [OneMore().run_in(place) for _ in range(2)]
    module.run_in(place)

    def both() -> tuple[Array, Array, Array]:
        y = module(x)
        kept = y.copy()
        return kept, others[0](x), others[1](y)

    got = [place.replay("train", rows, both)[0], module.backward(dy), *module.gradients()]
    for array, wanted in zip(got, want, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [13, 300])
def test_results_share_arrays_where_nobody_needs_them_any_more(rows: int, rng: np.random.Generator) -> None:
    """Else the test above would say nothing."""
    made = []
    for kind in (Bound, Apart):
        place = kind(NUMPY, threads=1)
        x, dy = next((x, dy) for _, x, dy in batches(rng) if len(x) == rows)
        Runner(place).passes(0, x, dy)
        made.append(len(place._arrays))
    assert made[0] < made[1] - 5


def test_the_input_of_a_pass_is_the_callers(rng: np.random.Generator) -> None:
    place = Bound(NUMPY, threads=1)
    layers = nn.Sequential(nn.Dropout(0.5, rng=1), nn.GELU(), nn.Residual(nn.Tanh(), nn.Dropout(0.5))).run_in(place)
    x, dy = (rng.normal(size=(6, 3)).astype(np.float32) for _ in range(2))
    before = x.copy(), dy.copy()
    place.replay("train", 6, lambda: layers(x))
    place.replay("backward", 6, lambda: layers.backward(dy))
    np.testing.assert_array_equal((x, dy), before)


def test_after_zero_grad_a_replayed_backward_pass_leaves_gradients_again(ops: Ops, rng: np.random.Generator) -> None:
    runner, reference = (Runner(Bound(ops, threads=1)) for _ in range(2))
    x, dy = rng.normal(size=(13, 5)).astype(np.float32), rng.normal(size=(13, 4)).astype(np.float32)
    for step in range(3):
        got, want = (one.passes(step, x, dy, update=False) for one in (runner, reference))
        assert got == want
        runner.layers.zero_grad()
        assert runner.layers.gradients() == [None] * len(runner.layers.parameters())
        before = {name: array.tobytes() for name, array in runner.layers.state_dict().items()}
        runner.optimizer.step()  # of nothing
        assert {name: array.tobytes() for name, array in runner.layers.state_dict().items()} == before


def test_a_step_is_made_by_the_gradients_of_its_own_batch(rng: np.random.Generator, library_runs: Any) -> None:
    """The optimizer's calls are bound too; rates change, and the rule where there is no momentum any more."""
    library_runs(NUMPY)
    runner, at_once = Runner(Bound(NUMPY, threads=1)), Runner(AT_ONCE, replays=False)
    for one in (runner, at_once):
        one.optimizer = SGD(one.layers.parameters(), 0.1, momentum=0.9)
    for step, x, dy in batches(rng):
        assert runner.passes(step, x, dy) == at_once.passes(step, x, dy), step
        for one in (runner, at_once):
            one.optimizer.param_groups[0] |= {"lr": 0.1 / (step + 1), "momentum": 0.9 if step < 5 else 0.0}


def test_large_arrays_begin_at_cache_lines_and_at_different_places_of_their_pages() -> None:
    """The network's, and what its optimizer keeps: vectors that lie across two lines cost a tenth of a step."""
    network = Network(NetworkShape(500, 3, 8, hidden=(40, 40)), NUMPY, seed=1)
    optimizer = AdamW(network.layers.parameters())
    network.step(batch(np.random.default_rng(1), network.shape, rows=200), optimizer)
    states = [state for kept in optimizer._states.values() for state in kept.values() if isinstance(state, np.ndarray)]
    gradients = [room for module in network.layers.modules() for room in module._room.values()]
    arrays = [*network.parameters.values(), *states, *gradients, *network._place._arrays.values()]
    large = [array.ctypes.data for array in arrays if array.nbytes >= 4096]
    assert len(large) > 12
    assert [address % 64 for address in large] == [0] * len(large)
    assert len({address % 4096 for address in large}) > len(large) / 2


def test_a_pass_that_fails_is_not_replayed() -> None:
    place, tried = Bound(NUMPY, threads=1), []

    def fail() -> None:
        tried.append(1)
        raise ValueError("not now")

    for _ in range(2):
        with pytest.raises(ValueError, match="not now"):
            place.replay("train", 3, fail)
    assert tried == [1, 1]
    assert place.replay("train", 3, lambda: "made") == place.replay("train", 3, lambda: "made anew") == "made"
    assert place.replay("train", 4, lambda: "made anew") == "made anew"


def test_a_smaller_batch_uses_the_leading_rows_of_the_same_array() -> None:
    place, module = Bound(NUMPY, threads=1), object()
    large = place.array(module, "y", (9, 2), np.float32)
    assert np.shares_memory(place.array(module, "y", (4, 2), np.float32), large)
    for shape, dtype in (((10, 2), np.float32), ((4, 3), np.float32), ((4, 3), np.float64)):
        other = place.array(module, "y", shape, dtype)
        assert (other.shape, other.dtype) == (shape, dtype)
        assert not np.shares_memory(other, large)
    assert not np.shares_memory(place.array(module, "dx", (9, 2), np.float32), large)
    assert not np.shares_memory(place.array(object(), "y", (9, 2), np.float32), large)
