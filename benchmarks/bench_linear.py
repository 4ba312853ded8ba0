"""linear: the hidden layers' matrix product, forward and backward."""

import pytest

from benchmarks.peers import backends_and_peers
from tests import inputs
from tests.inputs import REAL, batch_sizes

LAYERS = {"first": (REAL.T * REAL.D, REAL.H), "second": (REAL.H, REAL.H)}
PRODUCTS = {"linear_forward": 1, "linear_backward": 2}  # of B x inputs x outputs


@batch_sizes
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("op", PRODUCTS)
@backends_and_peers
def bench_linear(measure, rng, contender, op, layer, B):
    I, O = LAYERS[layer]  # noqa: E741
    measure(
        contender,
        op,
        inputs.linear(rng, B, I, O),
        sizes={"B": B, "I": I, "O": O},
        flop=PRODUCTS[op] * 2 * B * I * O,
    )
