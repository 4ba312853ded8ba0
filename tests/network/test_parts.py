"""The network whose vocabulary is shared out: the losses of one process, and the bytes that its formula says."""

from typing import Any

import numpy as np
import pytest

from fastmlp.data.windows import Batch
from fastmlp.distributed.group import Alone
from fastmlp.distributed.part import Part
from fastmlp.network.network import Network
from fastmlp.network.shape import NetworkShape
from fastmlp.ops import Ops
from fastmlp.optim import SGD, Adagrad, AdamW
from tests.groups import run_ranks
from tests.helpers import relative_norm
from tests.networks import FAMILY, SHAPE, batch

Array = np.ndarray
STEPS = 10
OPTIMIZERS = {
    "sgd": lambda params: SGD(params, 0.1),
    "decay": lambda params: SGD(params, 0.1, weight_decay=0.1),
    "momentum": lambda params: SGD(params, 0.05, 0.9),
    "adagrad": lambda params: Adagrad(params, 0.05),
    "adamw": lambda params: AdamW(params, 0.01, weight_decay=0.1),
}
CLOSE = {"sgd": 1e-5, "decay": 1e-5, "momentum": 1e-5, "adagrad": 1e-4, "adamw": 1e-4}  # of the losses of ten steps


def batches(shape: NetworkShape) -> list[Batch]:
    rng = np.random.default_rng(5)
    return [batch(rng, shape) for _ in range(STEPS)]


def trained(ops: Ops, shape: NetworkShape, rule: str, group: Any = None) -> tuple[list[float], Network, Any]:
    """The losses of ten steps, the network after them, and its optimizer."""
    network = Network(shape, ops, seed=3, counts=np.arange(shape.vocabulary), group=group)
    optimizer = OPTIMIZERS[rule](network.layers.parameters())
    losses = [network.step(one, optimizer, step) for step, one in enumerate(batches(shape))]
    return losses, network, optimizer


def whole(networks: list[Network], name: str) -> Array:
    """A parameter of all words, or one that all ranks have alike."""
    of_ranks = [network.state_dict()[name] for network in networks]
    if not networks[0].is_of_part(name):
        assert len({array.tobytes() for array in of_ranks}) == 1, f"{name}: not the same on all ranks"
        return of_ranks[0]
    array = np.empty((networks[0].rows_of(name), *of_ranks[0].shape[1:]), of_ranks[0].dtype)
    for rank, rows in enumerate(of_ranks):
        array[rank :: len(networks)] = rows
    return array


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize(("shape", "ranks"), [("all", 2), ("all", 3), ("averages", 2), ("averages", 3), ("tied", 2)])
def test_promise_20_ten_losses_are_those_of_one_process(ops: Ops, rule: str, shape: str, ranks: int) -> None:
    """The vocabulary is not divisible by 2 or 3, so that parts differ in size."""
    size = FAMILY[shape]
    assert size.vocabulary == 97
    want, alone, _ = trained(ops, size, rule)
    results = run_ranks(ranks, lambda group: trained(ops, size, rule, group))
    for losses, _, _ in results:
        assert losses == results[0][0]
    np.testing.assert_allclose(results[0][0], want, rtol=CLOSE[rule])
    assert want[0] != want[-1]
    networks = [network for _, network, _ in results]
    assert networks[0].parameter_count() == alone.parameter_count()
    for name, array in alone.state_dict().items():
        assert relative_norm(whole(networks, name), array) < 1e-3, name


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("shape", ["all", "averages"])
def test_promise_20_a_group_of_one_has_the_bits_of_the_ordinary_network(ops: Ops, rule: str, shape: str) -> None:
    want, alone, _ = trained(ops, FAMILY[shape], rule)
    losses, network, _ = trained(ops, FAMILY[shape], rule, Alone())
    assert losses == want
    for name, array in alone.state_dict().items():
        assert network.state_dict()[name].tobytes() == array.tobytes(), name


def test_promise_20_the_same_ranks_give_the_same_bits_again(ops: Ops) -> None:
    first, again = (run_ranks(3, lambda group: trained(ops, FAMILY["all"], "adamw", group)) for _ in range(2))
    for (losses, network, _), (others, other, _) in zip(first, again, strict=True):
        assert losses == others
        for name, array in network.state_dict().items():
            assert other.state_dict()[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_initial_weights_are_those_of_one_process(ops: Ops, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmlp.network.network.ROWS_DRAWN", 2)
    want = Network(SHAPE, ops, seed=3, counts=np.arange(SHAPE.vocabulary))
    networks = run_ranks(
        ranks, lambda group: Network(SHAPE, ops, seed=3, counts=np.arange(SHAPE.vocabulary), group=group)
    )
    for name, array in want.state_dict().items():
        assert whole(networks, name).tobytes() == array.tobytes(), name


def test_promise_13_a_loss_that_is_no_number_changes_no_rank(ops: Ops) -> None:
    shape = FAMILY["all"]
    one = batches(shape)[0]

    def work(group: Any) -> None:
        network = Network(shape, ops, seed=3, group=group)
        optimizer = OPTIMIZERS["adamw"](network.layers.parameters())
        if group.rank == 1:
            network.parameters["output.bias"][0] = np.nan
        before = {name: array.copy() for name, array in network.parameters.items()}
        assert np.isnan(network.step(one, optimizer))
        for name, array in network.parameters.items():
            assert array.tobytes() == before[name].tobytes(), name

    with np.errstate(all="ignore"):
        run_ranks(2, work)


def bytes_received(shape: NetworkShape, one: Batch, ranks: int, rank: int) -> int:
    """The formula of benchmarks/README.md, of one step and one rank.

    24 B (n - 1) for the losses; for dh, and for the averages, an n-th of it from each other rank, and the sums of the
    other slices; and the rows of near words that others own. No term has V in it.
    """
    rows, width = len(one.targets), shape.embed if shape.projection else shape.hidden[-1]
    received = 24 * rows * (ranks - 1)
    for numbers in (rows * width, rows * len(shape.averages) * shape.embed):
        ends = [numbers * (each + 1) // ranks for each in range(ranks)]
        own = ends[rank] - ([0, *ends][rank])
        received += 4 * ((ranks - 1) * own + numbers - own)
    words = np.unique(one.near)
    return received + 4 * shape.embed * int((words % ranks != rank).sum())


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", ["all", "averages", "tied"])
def test_promise_20_a_step_receives_the_bytes_of_the_formula(ops: Ops, name: str, ranks: int) -> None:
    shape = FAMILY[name]

    def work(group: Any) -> list[int]:
        network = Network(shape, ops, seed=3, group=group)
        optimizer = OPTIMIZERS["adamw"](network.layers.parameters())
        counted = []
        for step, one in enumerate(batches(shape)):
            before = group.received
            network.step(one, optimizer, step)
            counted.append(group.received - before)
        return counted

    for rank, counted in enumerate(run_ranks(ranks, work)):
        assert counted == [bytes_received(shape, one, ranks, rank) for one in batches(shape)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("shape", [(301,), (301, 7), (3, 1), (4, 0)], ids=str)
def test_rows_go_to_rank_0_and_back_in_their_order(
    rng: np.random.Generator, ranks: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of a few rows, none of which is larger than it may be."""
    monkeypatch.setattr("fastmlp.distributed.part.PIECE", 600)
    array = rng.standard_normal(shape).astype(np.float32)

    def work(group: Any) -> None:
        part = Part(group, len(array))
        own = np.ascontiguousarray(part.of(array))
        blocks = list(part.gathered(own))
        assert all(block.nbytes <= 600 for block in blocks)
        if group.rank == 0:
            np.testing.assert_array_equal(np.concatenate(blocks), array)
        back = np.zeros_like(own)
        part.take_from_rank_0(array if group.rank == 0 else None, back)
        np.testing.assert_array_equal(back, own)

    run_ranks(ranks, work)


def test_fewer_words_than_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary: expected a word at least for each of 3 ranks, got 2"):
        run_ranks(3, lambda group: Part(group, 2))


def test_words_are_dealt_out_evenly(rng: np.random.Generator) -> None:
    """In number, and by how often they come where ids go from frequent to rare, as Zipf has it."""
    frequencies = 1 / (10 + np.arange(28_000))
    shares = run_ranks(4, lambda group: (Part(group, 28_000).words, Part(group, 28_000).of(frequencies).sum()))
    assert {words for words, _ in shares} == {7_000}
    loads = np.array([load for _, load in shares]) / frequencies.sum()
    assert loads.max() < 1.05 / 4


def test_ids_that_are_no_words_are_of_no_part() -> None:
    def work(group: Any) -> list[int]:
        local: list[int] = Part(group, 7).local(np.array([-1, 0, 1, 5, 6], np.int32)).tolist()
        return local

    assert run_ranks(2, work) == [[-1, 0, -1, -1, 3], [-1, -1, 0, 2, -1]]
