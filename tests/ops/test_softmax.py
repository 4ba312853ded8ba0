"""softmax and its logarithm: rows that are certain, far from 0 or infinite, and a gradient of either."""

import numpy as np
import pytest

from tests import inputs
from tests.helpers import (
    NUMPY,
    assert_close_like_numpy,
    assert_equals_pytorch,
    assert_gradients,
    assert_same_bits_for_any_threads,
    cast,
    run_chain,
    tensors,
)
from tests.inputs import REAL

CHAIN = ("softmax_forward", "softmax_backward")
# fmt: off
SIZES = [  # B, V
    (1, 1), (1, 2), (2, 1), (3, 7), (7, 3), (31, 33), (127, 2), (5, 128), (129, 129), (300, 301), (1, 4_097),
    (32, REAL.V),
]
# fmt: on
log_too = pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])


@log_too
def test_promise_1_gradient(rng, log):
    given = cast(inputs.softmax(rng, 3, 5), np.float64)
    got = run_chain(NUMPY, CHAIN, given, log=log)
    assert_gradients("softmax_forward", given, {"y": given["dy"]}, {"x": got["dx"]}, log=log)


@pytest.mark.sweep(every=3)
@log_too
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_promise_2_agrees_with_float64(ops, rng, sizes, log):
    assert_close_like_numpy(ops, CHAIN, inputs.softmax(rng, *sizes), log=log)


@pytest.mark.sweep(every=5)
@log_too
@pytest.mark.parametrize("offset", [-10_000, 0, 10_000])
@pytest.mark.parametrize("scale", [0, 1e-3, 20, 1_000])
def test_promise_2_agrees_with_float64_on_extreme_rows(ops, rng, offset, scale, log):
    """Near 10,000 float32 has three digits behind the point, and none of them is lost."""
    given = inputs.softmax(rng, 33, 129)
    given["x"] = given["x"] * np.float32(scale) + np.float32(offset)
    assert_close_like_numpy(ops, CHAIN, given, log=log)


@log_too
def test_infinities_and_nan(ops, log):
    infinity = np.inf
    x = np.array([[1, -infinity, 1], [np.nan, 0, 1], [infinity, 1, 2], [-infinity] * 3], np.float32)
    y = np.empty_like(x)
    ops.softmax_forward(x, y, log=log)
    half = [np.log(0.5), -infinity, np.log(0.5)] if log else [0.5, 0, 0.5]
    np.testing.assert_allclose(y, np.array([half, *[[np.nan] * 3] * 3], np.float32), rtol=1e-6)


@log_too
def test_zero_rows(ops, rng, log):
    given = {name: array[:0] for name, array in inputs.softmax(rng, 1, 7).items()}
    assert run_chain(ops, CHAIN, given, log=log)["dx"].shape == (0, 7)


@log_too
def test_promise_3_equals_pytorch(ops, rng, torch, log):
    given = inputs.softmax(rng, 33, 129)
    leaves = tensors(given)
    y = (torch.log_softmax if log else torch.softmax)(leaves["x"], 1)
    y.backward(leaves["dy"])
    assert_equals_pytorch(ops, CHAIN, given, {"y": y, "dx": leaves["x"].grad}, log=log)


@log_too
@pytest.mark.parametrize("sizes", [(20_000, 3), (129, 301), (3, REAL.V)], ids=str)
def test_promise_4_same_bits_for_any_threads(ops, rng, sizes, log):
    assert_same_bits_for_any_threads(ops, CHAIN, inputs.softmax(rng, *sizes), log=log)
