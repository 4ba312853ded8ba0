"""gelu: an activation of hidden layers, for arrays of any shape."""

import math

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

CHAIN = ("gelu_forward", "gelu_backward")
SHAPES = [(), (0,), (1,), (2,), (3,), (7,), (31,), (33,), (127, 1), (1, 129), (300, 3), (7, 3, 5, 2), (301, 301)]


def test_promise_1_gradient(rng):
    given = cast(inputs.gelu(rng, 3, 5), np.float64)
    got = run_chain(NUMPY, CHAIN, given)
    assert_gradients("gelu_forward", given, {"y": given["dy"]}, {"x": got["dx"]})


@pytest.mark.parametrize("shape", [*SHAPES, (REAL.B, REAL.H), (128, REAL.H)], ids=str)
def test_promise_2_agrees_with_float64(ops, rng, shape):
    assert_close_like_numpy(ops, CHAIN, inputs.gelu(rng, *shape))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e-3, 0.1, 0.6, 1, 5, 9, 20, 1e4, 1e30], ids="{:g}".format)
def test_promise_2_agrees_with_float64_at_any_scale(ops, rng, scale):
    """Small x: gelu x = x / 2. Large x: x or 0, and no overflow on the way."""
    x = scale * rng.uniform(0.5, 1, 1000) * rng.choice([-1, 1], 1000)
    assert_close_like_numpy(ops, CHAIN, {"x": x.astype(np.float32), "dy": np.ones(1000, np.float32)})


def test_promise_2_the_tail_keeps_its_digits(ops):
    """Of gelu(-12) = -2e-32 as many as float32 has of x^2 / 2; 1 + erf would have none from -5.4 on."""
    x = np.linspace(-12, 8, 40_001, dtype=np.float32)
    y, dx = np.full((2, x.size), np.nan, np.float32)
    ops.gelu_forward(x, y)
    ops.gelu_backward(np.ones_like(x), x, dx)
    exact = x.astype(np.float64)
    phi = np.exp(-exact * exact / 2) / math.sqrt(2 * math.pi)
    cdf = np.array([math.erfc(-each / math.sqrt(2)) / 2 for each in exact])
    rounded = 1e-6 + 6e-8 * np.where(exact < 0, exact * exact / 2, 0)
    assert (np.abs(y - exact * cdf) <= rounded * np.abs(exact * cdf)).all()
    terms = cdf + np.abs(exact) * phi  # which cancel where the slope changes its sign
    assert (np.abs(dx - (cdf + exact * phi)) <= rounded * terms).all()


def test_promise_2_limits(ops):
    x = np.array([0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38, -3e38, -14], np.float32)
    y, dx = np.empty((2, x.size), np.float32)
    ops.gelu_forward(x, y)
    np.testing.assert_allclose(y, np.array([0, np.inf, 0, np.nan, 0, 0, 3e38, 0, 0], np.float32), atol=2e-42)
    ops.gelu_backward(np.ones_like(x), x, dx)
    np.testing.assert_allclose(dx, np.array([0.5, 1, 0, np.nan, 0.5, 0.5, 1, 0, 0], np.float32), atol=2e-40)


@pytest.mark.parametrize("shape", [(7,), (33, 300), (301, 301)], ids=str)
def test_outputs_may_lie_in_place_of_inputs(ops, rng, shape):
    given = inputs.gelu(rng, *shape)
    want = run_chain(ops, CHAIN, given)
    x, y, dy = given["x"].copy(), given["x"].copy(), given["dy"].copy()
    ops.gelu_forward(y, y, threads=2)
    np.testing.assert_array_equal(y, want["y"])
    ops.gelu_backward(dy, x, dy, threads=2)
    np.testing.assert_array_equal(dy, want["dx"])
    ops.gelu_backward(given["dy"], x, x, threads=2)
    np.testing.assert_array_equal(x, want["dx"])


def test_promise_3_equals_pytorch(ops, rng, torch):
    given = inputs.gelu(rng, 33, 129)
    leaves = tensors(given)
    y = torch.nn.functional.gelu(leaves["x"])
    y.backward(leaves["dy"])
    assert_equals_pytorch(ops, CHAIN, given, {"y": y, "dx": leaves["x"].grad})


def test_promise_4_same_bits_for_any_threads(ops, rng):
    assert_same_bits_for_any_threads(ops, CHAIN, inputs.gelu(rng, 129, 301))
