"""cross_entropy: softmax and negative log-likelihood, where the -1 at the target must not hide all other entries."""

import numpy as np
import pytest

from tests import inputs
from tests.helpers import (
    NUMPY,
    assert_close_like_numpy,
    assert_equals_pytorch,
    assert_gradients,
    assert_same_bits_for_any_threads,
    cast,
    run_chain,
    tensors,
)
from tests.inputs import REAL

CHAIN = ("cross_entropy_forward", "cross_entropy_backward")
# fmt: off
SIZES = [  # B, V
    (1, 1), (1, 2), (2, 1), (3, 7), (7, 3), (31, 33), (33, 31), (2, 127), (127, 2), (5, 128), (129, 129), (7, 255),
    (300, 301), (301, 300), (1, 4_097), (32, REAL.V), (128, REAL.V),
]
# fmt: on
chains = pytest.mark.parametrize("chain", [CHAIN, ("cross_entropy",)], ids=["apart", "in one"])
smoothings = pytest.mark.parametrize("label_smoothing", [0.0, 0.1])


def target_entries(given):
    """Masks of dlogits: the entries of the true words, and all others."""
    is_target = np.zeros(given["logits"].shape, bool)
    counted = np.flatnonzero(given["row_scale"])
    is_target[counted, given["targets"][counted]] = True
    return {"dlogits": {"targets": is_target, "others": ~is_target}}


def assert_agrees(ops, given, **options):
    """Forward and then backward; and both in one."""
    for chain in (CHAIN, ("cross_entropy",)):
        assert_close_like_numpy(ops, chain, given, target_entries(given), **options)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_promise_1_gradient(rng, label_smoothing):
    given = cast(inputs.cross_entropy(rng, 6, 7), np.float64)
    assert (given["row_scale"] == 0).any()
    got = run_chain(NUMPY, CHAIN, given, label_smoothing=label_smoothing)
    upstream, gradients = {"losses": given["row_scale"]}, {"logits": got["dlogits"]}
    assert_gradients("cross_entropy_forward", given, upstream, gradients, label_smoothing=label_smoothing)


@pytest.mark.sweep(every=3)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_promise_2_agrees_with_float64(ops, rng, sizes):
    assert_agrees(ops, inputs.cross_entropy(rng, *sizes))


@pytest.mark.parametrize("sizes", [(3, 7), (33, 129), (32, REAL.V)], ids=str)
@pytest.mark.parametrize("label_smoothing", [0.1, 1.0])
def test_promise_2_agrees_with_float64_smoothed(ops, rng, sizes, label_smoothing):
    assert_agrees(ops, inputs.cross_entropy(rng, *sizes), label_smoothing=label_smoothing)


def certain(logits, targets):
    """A softmax of 1 at one word: the true one in every other row."""
    logits[::2, 40] += 200
    logits[np.arange(1, len(logits), 2), np.maximum(targets[1::2], 0)] += 200


def uniform(logits, targets):
    logits[...] = 3


def high(logits, targets):
    logits += 10_000


def low(logits, targets):
    logits -= 10_000


def high_and_low(logits, targets):
    logits[:, ::3] += 10_000
    logits[:, 1::3] -= 10_000


def rising(logits, targets):
    """The maximum is found anew in every block."""
    logits.sort(axis=1)
    logits *= 20


@pytest.mark.sweep(every=5)
@smoothings
@pytest.mark.parametrize("V", [129, 4_097])
@pytest.mark.parametrize("rows", [certain, uniform, high, low, high_and_low, rising])
def test_promise_2_agrees_with_float64_on_extreme_rows(ops, rng, rows, V, label_smoothing):
    given = inputs.cross_entropy(rng, 33, V)
    rows(given["logits"], given["targets"])
    assert_agrees(ops, given, label_smoothing=label_smoothing)


@pytest.mark.sweep(every=5)
@smoothings
@pytest.mark.parametrize("offset", [0, *(10**power for power in range(1, 9)), -100, -(10**8)])
def test_promise_2_a_common_part_of_all_logits_costs_no_digit(ops, rng, offset, label_smoothing):
    """At 1e8 float32 has every eighth number: rounded like this, the logits are what float64 is given too."""
    given = inputs.cross_entropy(rng, 33, 301)
    given["logits"] = (8 * given["logits"] + offset).astype(np.float32)
    assert_agrees(ops, given, label_smoothing=label_smoothing)


@pytest.mark.parametrize("id_type", [np.int32, np.int64])
@pytest.mark.parametrize("target", [0, 1, 127, 128, 255, 256, 299])
def test_target_at_an_edge(ops, rng, target, id_type):
    given = inputs.cross_entropy(rng, 2, 300) | {"targets": np.full(2, target, id_type)}
    assert_agrees(ops, given)


@chains
@pytest.mark.parametrize("logit", [0, np.nan, np.inf, -np.inf, 1e38])
def test_an_ignored_row_is_not_looked_at(ops, rng, chain, logit):
    """An ignored row has no loss and no gradient for any target and logits; the other rows are unchanged."""
    given = inputs.cross_entropy(rng, 3, 129)
    given["targets"][1], given["row_scale"][1] = np.iinfo(np.int32).max, 0
    given["logits"][1, ::2] = logit
    got = run_chain(ops, chain, given, label_smoothing=0.1)
    assert [got[name][1] for name in ("losses", "highest", "log_sum")] == [0, 0, 0]
    assert not got["dlogits"][1].any()
    others = run_chain(ops, chain, {name: array[[0, 2]] for name, array in given.items()}, label_smoothing=0.1)
    for name, array in others.items():
        np.testing.assert_array_equal(got[name][[0, 2]], array, err_msg=name)


@chains
def test_zero_rows(ops, rng, chain):
    given = {name: array[:0] for name, array in inputs.cross_entropy(rng, 1, 7).items()}
    assert run_chain(ops, chain, given)["dlogits"].shape == (0, 7)


@chains
@smoothings
def test_promise_3_equals_pytorch(ops, rng, torch, label_smoothing, chain):
    given = inputs.cross_entropy(rng, 33, 301)
    leaves = tensors(given)
    losses = torch.nn.functional.cross_entropy(
        leaves["logits"], leaves["targets"], reduction="none", ignore_index=-100, label_smoothing=label_smoothing
    )
    losses.backward(leaves["row_scale"])
    highest, counted = leaves["logits"].amax(dim=1), leaves["row_scale"] != 0
    statistics = {"highest": highest, "log_sum": leaves["logits"].logsumexp(dim=1) - highest}
    want = {"losses": losses, "dlogits": leaves["logits"].grad}
    want |= {name: torch.where(counted, statistic, 0) for name, statistic in statistics.items()}
    assert_equals_pytorch(ops, chain, given, want, label_smoothing=label_smoothing)


@chains
@pytest.mark.parametrize("sizes", [(129, 301), (3, REAL.V)], ids=str)
def test_promise_4_same_bits_for_any_threads(ops, rng, sizes, chain):
    assert_same_bits_for_any_threads(ops, chain, inputs.cross_entropy(rng, *sizes), label_smoothing=0.1)
