"""context_averages: a hundred words before each context, of windows from anywhere and of neighbours in the text."""

import pytest

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL

K, D = 100, 128  # of the new networks


@batch_sizes
@pytest.mark.parametrize("stretch", [1, 16], ids=["scattered", "stretches"])
@backends
def bench_context_averages(measure, rng, contender, stretch, B):
    given = inputs.context_averages(rng, B, K, D, REAL.V, stretch=stretch)
    sizes = {"B": B, "K": K, "D": D, "V": REAL.V, "stretch": stretch}
    measure(contender, "context_averages_forward", given, sizes=sizes)
