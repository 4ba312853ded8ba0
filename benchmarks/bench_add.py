"""add: the sum of a residual block."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL


@batch_sizes
@pytest.mark.parametrize("op", ["add"])
@backends
def bench_add(measure, rng, contender, op, B):
    measure(contender, op, inputs.add(rng, B, REAL.H), sizes={"B": B, "H": REAL.H})
