"""batchnorm_gelu_dropout: a hidden layer behind its product, in training."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL


@batch_sizes
@pytest.mark.parametrize("op", ["batchnorm_gelu_dropout_forward", "batchnorm_gelu_dropout_backward"])
@backends
def bench_batchnorm_gelu_dropout(measure, rng, contender, op, B):
    given = inputs.batchnorm_gelu_dropout(rng, B, REAL.H)
    measure(contender, op, given, sizes={"B": B, "C": REAL.H}, layer=1, p=0.25)
