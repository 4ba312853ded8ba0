"""dropout: numbers of a hidden layer left out at random, the mask made anew in each pass."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL


@batch_sizes
@pytest.mark.parametrize("op", ["dropout_forward", "dropout_backward"])
@backends
def bench_dropout(measure, rng, contender, op, B):
    given = inputs.dropout(rng, B, REAL.H)
    measure(contender, op, given, sizes={"B": B, "H": REAL.H}, layer=1, p=0.25)
