"""softmax: over the words of the vocabulary, and its logarithm."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL


@batch_sizes
@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize("op", ["softmax_forward", "softmax_backward"])
@backends
def bench_softmax(measure, rng, contender, op, log, B):
    measure(contender, op, inputs.softmax(rng, B, REAL.V), sizes={"B": B, "V": REAL.V}, log=log)
