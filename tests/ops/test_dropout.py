"""dropout: a mask that every back-end makes alike, of a seed, a step, a layer and an element's number."""

import math
from itertools import combinations

import numpy as np
import pytest

from fastmlp.ops.reference.dropout import philox
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

CHAIN = ("dropout_forward", "dropout_backward")
SHAPES = [(), (0,), (1,), (2,), (3,), (7,), (31,), (33,), (127, 1), (1, 129), (300, 3), (7, 3, 5, 2), (301, 301)]


def mask(ops, size, *, seed=0, step=0, layer=0, p=0.5):
    """Which of so many elements are kept."""
    y = np.full(size, np.nan, np.float32)
    ops.dropout_forward(np.ones(size, np.float32), np.array([seed, step]), y, layer=layer, p=p, threads=2)
    assert set(y.tolist()) <= {0, float(np.float32(1 / (1 - p)))}
    return y > 0


def test_promise_1_gradient(rng):
    given = cast(inputs.dropout(rng, 3, 5), np.float64)
    got = run_chain(NUMPY, CHAIN, given, layer=2, p=0.3)
    assert_gradients("dropout_forward", given, {"y": given["dy"]}, {"x": got["dx"]}, layer=2, p=0.3)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("shape", [*SHAPES, (REAL.B, REAL.H), (128, REAL.H)], ids=str)
def test_promise_2_agrees_with_float64(ops, rng, shape, p):
    assert_close_like_numpy(ops, CHAIN, inputs.dropout(rng, *shape), layer=3, p=p)


@pytest.mark.parametrize("p", [2.0**-20, 2.0**-16, 0.01, 0.25, 1 / 3, 0.9, 1 - 2.0**-16, math.nextafter(1, 0)])
def test_promise_2_masks_are_those_of_the_reference(ops, rng, p):
    for layer in (0, 1, 2**31, 2**32 - 1):
        seed, step = rng.integers(-(2**63), 2**63, 2)
        got, want = (mask(each, 5_003, seed=seed, step=step, layer=layer, p=p) for each in (ops, NUMPY))
        np.testing.assert_array_equal(got, want)


KNOWN = {  # Philox4x32-10 of count and key, as published with Random123
    (0, 0, 0, 0, 0, 0): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    (0xFFFFFFFF,) * 6: (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0): (
        *(0xD16CFE09, 0x94FDCCEB),
        *(0x5001E420, 0x24126EA1),
    ),
}


@pytest.mark.parametrize("given", KNOWN)
def test_words_are_the_published_ones(given):
    count = [np.array([word], np.uint64) for word in given[:4]]
    assert tuple(int(word[0]) for word in philox(count, given[4:])) == KNOWN[given]


def test_promise_2_the_first_numbers_are_the_published_ones(ops):
    """Each is the largest threshold at which its element is kept; the low half of a word comes first."""
    for element in range(8):
        number = KNOWN[0, 0, 0, 0, 0, 0][element // 2] >> 16 * (element % 2) & 0xFFFF
        assert mask(ops, 8, p=number / 2**16)[element]
        assert not mask(ops, 8, p=(number + 1) / 2**16)[element]


def test_promise_2_a_mask_does_not_depend_on_what_lies_behind(ops):
    """Whichever vector, block or slice an element falls into."""
    whole = mask(ops, 70_000, seed=7, step=9, layer=1)
    for size in [*range(1, 140), 16_383, 16_384, 16_385, 65_537]:
        np.testing.assert_array_equal(mask(ops, size, seed=7, step=9, layer=1), whole[:size])


def test_masks_differ_and_keep_their_share(ops):
    """By seed, in either half of it, by step and by layer; beside each other they are independent."""
    size, p, unlike = 50_000, 0.3, [{}, {"seed": 1}, {"seed": 2**32}, {"seed": -1}, {"step": 1}, {"layer": 1}]
    masks = [mask(ops, size, p=p, **each) for each in unlike]
    for one in masks:
        assert abs(one.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / size)
    for one, other in combinations(masks, 2):
        both = (1 - p) ** 2
        assert abs((one & other).mean() - both) < 5 * math.sqrt(both * (1 - both) / size)


def test_both_passes_have_one_mask(ops, rng):
    x, counter = np.ones((33, 47), np.float32), np.array([3, 5])
    y, dx = np.full((2, 33, 47), np.nan, np.float32)
    ops.dropout_forward(x, counter, y, layer=4, p=0.4)
    ops.dropout_backward(x, counter, dx, layer=4, p=0.4)
    np.testing.assert_array_equal(dx, y)
    assert 0 < np.count_nonzero(y) < y.size


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_left_out_is_0_whatever_it_was(ops, number):
    x = np.full(1_001, number, np.float32)
    y = np.empty_like(x)
    ops.dropout_forward(x, np.array([0, 0]), y, layer=0, p=0.5)
    kept = mask(ops, 1_001)
    np.testing.assert_array_equal(y[kept], x[kept])
    assert (y[~kept] == 0).all()


@pytest.mark.parametrize("in_place", [False, True])
def test_nothing_left_out_is_a_copy(ops, rng, in_place):
    x = inputs.normal(rng, 301)
    x[:3] = np.nan, np.inf, -0.0
    y = x.copy() if in_place else np.empty_like(x)
    ops.dropout_forward(y if in_place else x, np.array([1, 2]), y, layer=0, p=0.0)
    assert y.tobytes() == x.tobytes()


@pytest.mark.parametrize("shape", [(7,), (33, 300), (301, 301)], ids=str)
def test_outputs_may_lie_in_place_of_inputs(ops, rng, shape):
    given = inputs.dropout(rng, *shape)
    want = run_chain(ops, CHAIN, given, layer=0, p=0.5)
    x, dy = given["x"].copy(), given["dy"].copy()
    ops.dropout_forward(x, given["counter"], x, layer=0, p=0.5, threads=2)
    np.testing.assert_array_equal(x, want["y"])
    ops.dropout_backward(dy, given["counter"], dy, layer=0, p=0.5, threads=2)
    np.testing.assert_array_equal(dy, want["dx"])


def test_promise_3_equals_pytorch(ops, rng, torch):
    """With the mask for PyTorch's: it draws another one from the same seed."""
    given = inputs.dropout(rng, 33, 129)
    seed, step = given["counter"]
    kept = torch.tensor(mask(NUMPY, 33 * 129, seed=seed, step=step, layer=1, p=0.25).reshape(33, 129))
    leaves = tensors(given)
    y = torch.where(kept, leaves["x"], 0) / (1 - 0.25)
    y.backward(leaves["dy"])
    assert_equals_pytorch(ops, CHAIN, given, {"y": y, "dx": leaves["x"].grad}, layer=1, p=0.25)


def test_promise_4_same_bits_for_any_threads(ops, rng):
    assert_same_bits_for_any_threads(ops, CHAIN, inputs.dropout(rng, 129, 301), layer=0, p=0.5)
