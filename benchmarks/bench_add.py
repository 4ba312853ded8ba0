"""add: the sum of a residual block."""

from benchmarks.peers import backends
from benchmarks.setting import batch_sizes
from tests import inputs
from tests.inputs import REAL


@batch_sizes
@backends
def bench_add(measure, rng, contender, B):
    measure(contender, "add", inputs.add(rng, B, REAL.H), sizes={"B": B, "H": REAL.H})
