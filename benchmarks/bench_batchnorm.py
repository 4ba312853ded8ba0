"""batchnorm: a hidden layer's normalization over the batch, in training."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL


@batch_sizes
@pytest.mark.parametrize("op", ["batchnorm_forward", "batchnorm_backward"])
@backends
def bench_batchnorm(measure, rng, contender, op, B):
    measure(contender, op, inputs.batchnorm(rng, B, REAL.H), sizes={"B": B, "C": REAL.H})
