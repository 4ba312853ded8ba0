"""gelu: a hidden layer's activation."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL


@batch_sizes
@pytest.mark.parametrize("op", ["gelu_forward", "gelu_backward"])
@backends
def bench_gelu(measure, rng, contender, op, B):
    measure(contender, op, inputs.gelu(rng, B, REAL.H), sizes={"B": B, "H": REAL.H})
