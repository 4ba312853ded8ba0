"""linear_cross_entropy: the last layer and its loss, 98.5 % of a step's arithmetic."""

import pytest

from benchmarks.peers import backends, backends_and_peers
from tests import inputs
from tests.inputs import REAL, batch_sizes, mean_over_batch

# Of B x H x V: one for the logits, two for the gradients; the backward pass alone makes the logits again.
PRODUCTS = {"linear_cross_entropy_forward": 1, "linear_cross_entropy_backward": 3, "linear_cross_entropy": 3}


def bench(measure, rng, contender, op, B, H, V):
    given = mean_over_batch(inputs.linear_cross_entropy(rng, B, H, V))
    measure(contender, op, given, sizes={"B": B, "H": H, "V": V}, flop=PRODUCTS[op] * 2 * B * H * V)


@batch_sizes
@pytest.mark.parametrize("op", PRODUCTS)
@backends_and_peers
def bench_linear_cross_entropy(measure, rng, contender, op, B):
    bench(measure, rng, contender, op, B, REAL.H, REAL.V)


@batch_sizes
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
@backends
def bench_linear_cross_entropy_update(measure, rng, contender, rule, B):
    given = mean_over_batch(inputs.linear_cross_entropy(rng, B, REAL.H, REAL.V))
    given |= inputs.last_layer_state(rng, given)
    op = "linear_cross_entropy_update"
    options = {"rule": rule, "lr": 1e-3} | ({"step": 1} if rule == "adamw" else {})
    measure(contender, op, given, sizes={"B": B, "H": REAL.H, "V": REAL.V}, flop=6 * B * REAL.H * REAL.V, **options)


@pytest.mark.long
@backends_and_peers
def bench_large_batch_and_vocabulary(measure, rng, contender):
    bench(measure, rng, contender, "linear_cross_entropy", B=4_096, H=REAL.H, V=100_000)
