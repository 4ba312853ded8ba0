"""tanh: a hidden layer's activation."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL


@batch_sizes
@pytest.mark.parametrize("op", ["tanh_forward", "tanh_backward"])
@backends
def bench_tanh(measure, rng, contender, op, B):
    measure(contender, op, inputs.tanh(rng, B, REAL.H), sizes={"B": B, "H": REAL.H})
