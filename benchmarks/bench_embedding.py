"""embedding: look up a batch's contexts, and sum up the gradient of each word in them."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL


@batch_sizes
@pytest.mark.parametrize("op", ["embedding_forward", "embedding_backward"])
@backends
def bench_embedding(measure, rng, contender, op, B):
    given = inputs.embedding(rng, B, REAL.T, REAL.D, REAL.V)
    measure(contender, op, given, sizes={"B": B, "T": REAL.T, "D": REAL.D, "V": REAL.V})
