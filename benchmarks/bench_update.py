"""update: the optimizers, on the last layer's weights and on the few rows of the embedding that a batch uses."""

import pytest

from benchmarks.peers import backends
from tests import inputs
from tests.inputs import REAL

# A low rate and slow decays: after thousands of updates by one gradient the numbers are still ordinary.
RULES = {
    "update_sgd": {"lr": 1e-6},
    "update_momentum": {"lr": 1e-6, "momentum": 0.999},
    "update_adagrad": {"lr": 1e-6},
    "update_adamw": {"lr": 1e-6, "beta1": 0.999, "step": 100},
}
rules = pytest.mark.parametrize("op", RULES)


@rules
@backends
def bench_update(measure, rng, contender, op):
    given = inputs.update(rng, REAL.V, REAL.H)
    measure(contender, op, given, sizes={"V": REAL.V, "H": REAL.H}, **RULES[op])


@rules
@backends
def bench_update_rows(measure, rng, contender, op):
    given = inputs.update_rows(rng, REAL.V, REAL.D, U=100)
    measure(contender, f"{op}_rows", given, sizes={"V": REAL.V, "D": REAL.D, "U": 100}, **RULES[op])
