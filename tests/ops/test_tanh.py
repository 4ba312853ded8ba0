"""tanh: the hidden layers' activation, for arrays of any shape."""

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

CHAIN = ("tanh_forward", "tanh_backward")
SHAPES = [(), (0,), (1,), (2,), (3,), (7,), (31,), (33,), (127, 1), (1, 129), (300, 3), (7, 3, 5, 2), (301, 301)]


def test_promise_1_gradient(rng):
    given = cast(inputs.tanh(rng, 3, 5), np.float64)
    got = run_chain(NUMPY, CHAIN, given)
    assert_gradients("tanh_forward", given, {"y": given["dy"]}, {"x": got["dx"]})


@pytest.mark.parametrize("shape", [*SHAPES, (REAL.B, REAL.H), (128, REAL.H)], ids=str)
def test_promise_2_agrees_with_float64(ops, rng, shape):
    assert_close_like_numpy(ops, CHAIN, inputs.tanh(rng, *shape))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e-3, 0.1, 0.6, 1, 5, 9, 20, 1e4, 1e30], ids="{:g}".format)
def test_promise_2_agrees_with_float64_at_any_scale(ops, rng, scale):
    """Small x: tanh x = x, to the last bits of x itself. Large x: 1, and no overflow on the way."""
    x = scale * rng.uniform(0.5, 1, 1000) * rng.choice([-1, 1], 1000)
    assert_close_like_numpy(ops, CHAIN[:1], {"x": x.astype(np.float32)})


@pytest.mark.parametrize("shape", [(7,), (33, 300), (301, 301)], ids=str)
def test_outputs_may_lie_in_place_of_inputs(ops, rng, shape):
    given = inputs.tanh(rng, *shape)
    want = run_chain(ops, CHAIN, given)
    x, dy = given["x"].copy(), given["dy"].copy()
    ops.tanh_forward(x, x, threads=2)
    np.testing.assert_array_equal(x, want["y"])
    ops.tanh_backward(dy, x, dy, threads=2)
    np.testing.assert_array_equal(dy, want["dx"])


def test_promise_2_limits(ops):
    x = np.array([0, np.inf, -np.inf, np.nan], np.float32)
    y = np.empty_like(x)
    ops.tanh_forward(x, y)
    np.testing.assert_array_equal(y, np.array([0, 1, -1, np.nan], np.float32))


def test_promise_3_equals_pytorch(ops, rng, torch):
    given = inputs.tanh(rng, 33, 129)
    leaves = tensors(given)
    y = torch.tanh(leaves["x"])
    y.backward(leaves["dy"])
    assert_equals_pytorch(ops, CHAIN, given, {"y": y, "dx": leaves["x"].grad})


def test_promise_4_same_bits_for_any_threads(ops, rng):
    assert_same_bits_for_any_threads(ops, CHAIN, inputs.tanh(rng, 129, 301))
