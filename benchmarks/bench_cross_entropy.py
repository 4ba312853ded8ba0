"""cross_entropy: softmax and loss over every word of the vocabulary, from given logits."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL, mean_over_batch


@batch_sizes
@pytest.mark.parametrize("op", ["cross_entropy_forward", "cross_entropy_backward", "cross_entropy"])
@backends
def bench_cross_entropy(measure, rng, contender, op, B):
    given = mean_over_batch(inputs.cross_entropy(rng, B, REAL.V))
    measure(contender, op, given, sizes={"B": B, "V": REAL.V})
