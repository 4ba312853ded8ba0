"""add: the sum of a residual block, for arrays of any shape."""

import numpy as np
import pytest

from tests import inputs
from tests.helpers import assert_close_like_numpy, assert_same_bits_for_any_threads

SHAPES = [(), (0,), (1,), (2,), (7,), (31,), (33,), (127, 1), (1, 129), (300, 3), (7, 3, 5, 2), (301, 301)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_promise_2_agrees_with_float64(ops, rng, shape):
    assert_close_like_numpy(ops, ["add"], inputs.add(rng, *shape))


def test_promise_2_limits(ops):
    a = np.array([np.inf, np.inf, np.nan, 1e-45, 3e38, -0.0], np.float32)
    b = np.array([1, -np.inf, 1, 1e-45, 3e38, -0.0], np.float32)
    y = np.empty_like(a)
    with np.errstate(over="ignore", invalid="ignore"):
        ops.add(a, b, y)
    np.testing.assert_array_equal(y, np.array([np.inf, np.nan, np.nan, 3e-45, np.inf, 0], np.float32))
    assert np.signbit(y[-1])


@pytest.mark.parametrize("shape", [(7,), (33, 300), (301, 301)], ids=str)
def test_the_output_may_lie_in_place_of_an_input(ops, rng, shape):
    given = inputs.add(rng, *shape)
    want = given["a"] + given["b"]
    for name in given:
        arrays = {name: array.copy() for name, array in given.items()}
        ops.add(arrays["a"], arrays["b"], arrays[name], threads=2)
        np.testing.assert_array_equal(arrays[name], want)


def test_promise_4_same_bits_for_any_threads(ops, rng):
    assert_same_bits_for_any_threads(ops, ["add"], inputs.add(rng, 129, 301))
