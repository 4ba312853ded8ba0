"""context_averages: the words before the context, averaged by decays; neighbours in a text share their words."""

import numpy as np
import pytest

from tests import inputs
from tests.helpers import (
    NUMPY,
    assert_close_like_numpy,
    assert_equals_pytorch,
    assert_same_bits_for_any_threads,
    cast,
    run,
)
from tests.inputs import REAL

CHAIN = ("context_averages_forward",)
# fmt: off
SIZES = [  # B, K, D, V
    (1, 1, 1, 1), (1, 5, 2, 3), (2, 2, 3, 2), (3, 4, 7, 31), (7, 5, 31, 127), (16, 7, 33, 33), (17, 100, 127, 301),
    (33, 127, 16, 7), (50, 128, 64, 31), (50, 129, 65, 31), (129, 300, 1, 300), (301, 4, 30, 129), (7, 0, 3, 5),
]
# fmt: on
id_types = pytest.mark.parametrize("id_type", [np.int32, np.int64], ids=["int32", "int64"])


def average(ops, given, **options):
    return run(ops, CHAIN[0], given, **options)["emb"]


@id_types
@pytest.mark.parametrize("sizes", [*SIZES, (128, 100, 128, REAL.V)], ids=str)
@pytest.mark.parametrize("stretch", [1, 10, 64])
def test_promise_2_agrees_with_float64(ops, rng, sizes, stretch, id_type):
    assert_close_like_numpy(ops, CHAIN, cast(inputs.context_averages(rng, *sizes, stretch=stretch), id_type))


@pytest.mark.parametrize("decays", [[0.5], [0.999], [1e-3], [0.9, 0.1, 0.5], [0.95, 0.7, 0.99, 0.2, 0.8]], ids=str)
@pytest.mark.parametrize("stretch", [1, 64])
def test_promise_2_agrees_with_float64_for_any_decays(ops, rng, decays, stretch):
    given = inputs.context_averages(rng, 65, 40, 21, 127, stretch=stretch)
    assert_close_like_numpy(ops, CHAIN, given | {"decays": np.array(decays, np.float32)})


def test_promise_2_each_row_of_a_stretch_agrees_with_float64(ops, rng):
    """No error that grows from row to row hides behind the others: after 15 of them, and for words of unlike size."""
    given = inputs.context_averages(rng, 160, 30, 64, 127, stretch=160)
    given["weight"] *= np.float32(10) ** rng.integers(-2, 3, (127, 1)).astype(np.float32)
    got, want = average(ops, given), average(NUMPY, cast(given, np.float64))
    highest = average(NUMPY, given | {"weight": np.abs(given["weight"]), "decays": np.float32([0.95, 0.99])})
    assert (np.abs(got - want) <= 1e-5 * highest.max(axis=(1, 2), keepdims=True)).all()


def test_promise_2_by_hand(ops):
    """Of the words 2, 1 with a half: sqrt(1/2) (e(1) + e(2) / 2); where nothing is, nothing is added."""
    weight = np.array([[1e9, 1e9], [1, 2], [4, 8]], np.float32)
    far = np.array([[2, 1], [-1, 1], [2, -1], [-1, -1]], np.int32)
    got = average(ops, {"weight": weight, "far": far, "decays": np.array([0.5], np.float32)})
    np.testing.assert_allclose(got[:, 0], np.sqrt(0.5) * np.array([[3, 6], [1, 2], [2, 4], [0, 0]]), rtol=1e-6)


def test_a_text_that_has_not_begun(ops, rng):
    """Its first windows one after the other: what is not there drops out, too."""
    text = np.concatenate([np.full(20, -1), rng.integers(0, 9, 40)]).astype(np.int32)
    given = {"weight": inputs.normal(rng, 9, 5), "far": np.lib.stride_tricks.sliding_window_view(text, 20).copy()}
    assert_close_like_numpy(ops, CHAIN, given | {"decays": np.array([0.7, 0.95], np.float32)})
    assert not average(ops, given | {"decays": np.array([0.7], np.float32)})[0].any()


@pytest.mark.parametrize("place", [0, 7, 18, 19])
def test_windows_that_are_nearly_shifted_are_no_neighbours(ops, rng, place):
    """A single word makes them others: the first, the last but one, or one between."""
    text = rng.permutation(200).astype(np.int32)
    far = np.lib.stride_tricks.sliding_window_view(text, 20)[:64].copy()
    far[5::7, place] = 199
    given = {"weight": inputs.normal(rng, 200, 5), "far": far, "decays": np.array([0.95], np.float32)}
    assert_close_like_numpy(ops, CHAIN, given)


@id_types
def test_other_places_of_a_row_are_left_alone(ops, rng, id_type):
    given = cast(inputs.context_averages(rng, 37, 9, 5, 31), id_type)
    want = average(ops, given)
    emb = np.full((37, 5, 5), 0.5, np.float32)
    ops.context_averages_forward(given["weight"], given["far"], given["decays"], emb, threads=2)
    np.testing.assert_array_equal(emb[:, 3:], want)
    np.testing.assert_array_equal(emb[:, :3], np.float32(0.5))


def test_a_word_that_is_not_finite_is_gone_after_sixteen_rows(ops, rng):
    text = rng.permutation(100).astype(np.int32)
    far = np.lib.stride_tricks.sliding_window_view(text, 8)[:64].copy()
    weight = inputs.normal(rng, 100, 3)
    weight[far[0, 0]] = np.nan
    weight[far[20, 0]] = np.inf
    y = np.empty((64, 1, 3), np.float32)
    ops.context_averages_forward(weight, far, np.array([0.9], np.float32), y)
    assert np.isnan(y[0]).all()
    assert not np.isfinite(y[13:21]).any()
    assert np.isfinite(y[32:]).all()


def test_zero_rows_and_widths(ops, rng):
    given = inputs.context_averages(rng, 4, 3, 2, 7)
    assert average(ops, given | {"far": given["far"][:0]}).shape == (0, 2, 2)
    assert average(ops, given | {"decays": given["decays"][:0]}).shape == (4, 0, 2)
    assert average(ops, given | {"weight": given["weight"][:, :0].copy()}).shape == (4, 2, 0)
    assert not average(ops, given | {"far": np.full_like(given["far"], -1)}).any()


def test_promise_3_equals_pytorch(ops, rng, torch):
    given = inputs.context_averages(rng, 65, 40, 30, 301)
    far, decays = torch.tensor(given["far"]).long(), torch.tensor(given["decays"]).double()
    words = torch.nn.functional.embedding(far.clamp(min=0), torch.tensor(given["weight"]).double())
    powers = decays[:, None] ** torch.arange(39, -1, -1)
    emb = torch.einsum("ak,bkd->bad", powers, words * (far >= 0)[..., None]) * (1 - decays).sqrt()[:, None]
    assert_equals_pytorch(ops, CHAIN, given, {"emb": emb})


@pytest.mark.parametrize("stretch", [1, 10, 64])
def test_promise_4_same_bits_for_any_threads(ops, rng, stretch):
    assert_same_bits_for_any_threads(ops, CHAIN, inputs.context_averages(rng, 515, 100, 33, 999, stretch=stretch))


def test_promise_4_a_row_does_not_depend_on_those_before_its_sixteen(ops, rng):
    given = inputs.context_averages(rng, 64, 20, 33, 99, stretch=64)
    whole = average(ops, given)
    np.testing.assert_array_equal(average(ops, given | {"far": given["far"][16:]}), whole[16:])
