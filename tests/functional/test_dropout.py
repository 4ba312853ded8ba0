"""fastmlp.functional.dropout: what a mask follows from, and the options that PyTorch's has."""

import numpy as np
import pytest

import fastmlp.functional as F
from tests.functional.helpers import read_only, strided, tensor

ONES = np.ones(1_000, np.float32)


def test_the_mask_follows_from_the_seed():
    first = F.dropout(ONES, seed=7)
    np.testing.assert_array_equal(F.dropout(ONES, seed=7), first)
    np.testing.assert_array_equal(F.dropout(ONES.astype(np.float64), seed=7), first)
    assert (F.dropout(ONES, seed=8) != first).any()
    assert (F.dropout(ONES, seed=-7) != first).any()


def test_without_a_seed_each_call_has_another_mask():
    assert (F.dropout(ONES) != F.dropout(ONES)).any()
    np.random.seed(0)  # noqa: NPY002 (it has no say)
    first = F.dropout(ONES)
    np.random.seed(0)  # noqa: NPY002
    assert (F.dropout(ONES) != first).any()


def test_the_gradient_goes_where_the_input_went():
    np.testing.assert_array_equal(F.dropout_backward(ONES, 0.3, seed=7), F.dropout(ONES, 0.3, seed=7))
    np.testing.assert_array_equal(F.dropout_backward(2 * ONES, 0.3, False, seed=7), 2 * ONES)
    assert not F.dropout_backward(ONES, 1, seed=7).any()
    with pytest.raises(TypeError, match="seed"):
        F.dropout_backward(ONES)


def test_half_of_the_numbers_are_left_out_and_the_mean_stays():
    y = F.dropout(np.ones(100_000, np.float32), seed=1)
    assert set(y.tolist()) == {0, 2}
    assert abs(y.mean() - 1) < 0.02


@pytest.mark.parametrize("p", [0, 0.0, 1, 1.0, np.float32(0.5), np.float64(0.25)])
def test_any_probability(p):
    y = F.dropout(ONES, p, seed=3)
    assert y.dtype == np.float32
    assert abs(np.count_nonzero(y) / y.size - (1 - p)) < 0.1
    np.testing.assert_array_equal(F.dropout(ONES, p, training=False), ONES)


@pytest.mark.parametrize("layout", [np.copy, strided, tensor, np.asfortranarray])
def test_in_place(layout):
    x = layout(np.arange(1, 13, dtype=np.float32).reshape(3, 4))
    want = F.dropout(np.asarray(x).copy(), seed=3)
    assert F.dropout(x, inplace=True, seed=3) is x
    np.testing.assert_array_equal(np.asarray(x), want)


def test_promise_12_in_place_needs_a_place():
    with pytest.raises(ValueError, match=r"^dropout: out: expected a writeable array, got a read-only one"):
        F.dropout(read_only(ONES), inplace=True)
    with pytest.raises(ValueError, match=r"^dropout: out: expected None where inplace is True"):
        F.dropout(ONES.copy(), inplace=True, out=np.empty_like(ONES))
