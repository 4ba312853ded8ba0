"""linear: the matrix product y = x W^T + b, and its three products and sums backwards."""

import numpy as np
import pytest

from tests import inputs
from tests.helpers import (
    NUMPY,
    arguments,
    assert_close_like_numpy,
    assert_equals_pytorch,
    assert_gradients,
    assert_same_bits_for_any_threads,
    at_precision,
    cast,
    relative_norm,
    require_ops,
    rounded_to_bf16,
    run,
    run_chain,
    tensors,
)
from tests.inputs import REAL
from tests.updates import rules, update_by

CHAIN = ("linear_forward", "linear_backward")
# fmt: off
SIZES = [  # B, inputs, outputs
    (1, 1, 1), (1, 2, 3), (2, 1, 7), (3, 7, 1), (7, 31, 33), (31, 33, 127), (33, 129, 31), (127, 3, 2), (129, 127, 129),
    (300, 301, 7), (301, 7, 300), (2, 301, 300), (64, 64, 64), (513, 5, 17),
    (32, 120, 300), (32, 300, 300), (128, 120, 300), (128, 300, 300), (5, 300, 33),
    (3, 9_000, 31), (9_000, 7, 9), (33, 30, 9_001),  # deep sums are made in parts
    (9, 61, 2_500), (1_100, 50, 9),  # a turned product of packed rows in several chunks of the depth
    (37, 1_024, 51), (53, 40, 1_024),  # rows whole pages apart, copied as they are multiplied
    (520, 530, 610),  # panels that the second cache does not keep: slices of many rows, fewer for few threads
]
# fmt: on
WITHOUT = [{}, {"bias": None, "dbias": None}, {"dx": None}, {"bias": None, "dbias": None, "dx": None}]
without = pytest.mark.parametrize("left_out", WITHOUT, ids=lambda names: f"without {', '.join(names) or 'nothing'}")


@pytest.fixture
def ops(ops_at_each_precision):
    return ops_at_each_precision


@without
def test_promise_1_gradient(rng, left_out):
    given = cast(inputs.linear(rng, 3, 4, 5), np.float64) | left_out
    got = run_chain(NUMPY, CHAIN, given)
    gradients = {name: got[f"d{name}"] for name in ("x", "weight", "bias") if f"d{name}" in got}
    assert_gradients("linear_forward", given, {"y": given["dy"]}, gradients)


@pytest.mark.sweep(every=3)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_promise_2_agrees_with_float64(ops, rng, sizes):
    assert_close_like_numpy(ops, CHAIN, inputs.linear(rng, *sizes), few=min(sizes) <= 3)


def test_promise_2_agrees_with_float64_of_sums_made_in_parts(ops, rng):
    assert_close_like_numpy(ops, CHAIN, inputs.linear(rng, 9, 9_000, 31))


@without
def test_promise_2_agrees_with_float64_without(ops, rng, left_out):
    assert_close_like_numpy(ops, CHAIN, inputs.linear(rng, 33, 31, 129) | left_out)


def test_promise_2_agrees_with_float64_as_the_last_layer(ops, rng):
    assert_close_like_numpy(ops, CHAIN, inputs.linear(rng, REAL.B, REAL.H, REAL.V))


@pytest.mark.parametrize("sizes", [(33, 301, 95), (513, 1_025, 287)], ids=str)
def test_promise_2_products_of_bf16_round_their_operands_and_nothing_else(rng, sizes):
    ops, given = at_precision(require_ops("cython"), "bf16"), inputs.linear(rng, *sizes)
    got = run_chain(ops, CHAIN, given)
    want = run_chain(NUMPY, CHAIN, cast(rounded_to_bf16(given), np.float64))
    want["dbias"] = given["dy"].sum(axis=0, dtype=np.float64)
    for name, array in want.items():
        assert relative_norm(got[name], array) < 1e-6, name


def test_a_few_rows_are_computed_in_float32(ops, rng):
    given = inputs.linear(rng, 7, 129, 65)
    want, got = (run_chain(each, CHAIN, given) for each in (at_precision(ops, "ieee"), ops))
    for name, array in want.items():
        assert got[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_promise_13_what_is_not_finite_stays_in_its_row(ops, rng, bad):
    given = inputs.linear(rng, 33, 65, 47)
    for name, place, axis in (("x", (32, 64), 0), ("weight", (46, 64), 1)):
        spoilt = given | {name: given[name].copy()}
        spoilt[name][place] = bad
        arrays = arguments(CHAIN[0], spoilt)
        with np.errstate(invalid="ignore"):
            getattr(ops, CHAIN[0])(*arrays.values())
        finite = np.isfinite(arrays["y"])
        assert not finite.take(-1, axis).any()
        assert finite[: 32 if axis == 0 else None, : 46 if axis == 1 else None].all()


def test_zero_rows(ops, rng):
    """No rows: nothing comes out, and the sums over the batch are 0."""
    given = inputs.linear(rng, 1, 7, 5)
    got = run_chain(ops, CHAIN, given | {"x": given["x"][:0], "dy": given["dy"][:0]})
    assert got["y"].shape == (0, 5)
    assert got["dx"].shape == (0, 7)
    assert not got["dweight"].any()
    assert not got["dbias"].any()


def test_promise_3_equals_pytorch(ops, rng, torch):
    given = inputs.linear(rng, 33, 120, 301)
    leaves = tensors(given)
    y = torch.nn.functional.linear(leaves["x"], leaves["weight"], leaves["bias"])
    y.backward(leaves["dy"])
    want = {"y": y, **{f"d{name}": leaves[name].grad for name in ("x", "weight", "bias")}}
    assert_equals_pytorch(ops, CHAIN, given, want)


@pytest.mark.parametrize("sizes", [(129, 120, 301), (32, 30, 4_999), (300, 515, 290), (520, 530, 610)], ids=str)
def test_promise_4_same_bits_for_any_threads(ops, rng, sizes):
    assert_same_bits_for_any_threads(ops, CHAIN, inputs.linear(rng, *sizes))


@without
@pytest.mark.parametrize("sizes", [(3, 0, 5), (130, 0, 301), (3, 4, 0), (3, 0, 0)], ids=str)
def test_sums_of_nothing(ops, rng, sizes, left_out):
    """Without inputs y is the bias, without outputs dx is 0."""
    B, count, outputs = sizes
    given = {
        "x": inputs.normal(rng, B, count),
        "weight": inputs.normal(rng, outputs, count),
        "bias": inputs.normal(rng, outputs),
        "dy": inputs.normal(rng, B, outputs),
    } | left_out
    got = run_chain(ops, CHAIN, given)
    bias = np.float32(0) if given["bias"] is None else given["bias"]
    np.testing.assert_array_equal(got["y"], np.broadcast_to(bias, (B, outputs)))
    assert got["dweight"].shape == (outputs, count)
    if "dx" in got:
        assert not got["dx"].any()
    if "dbias" in got:
        np.testing.assert_allclose(got["dbias"], given["dy"].sum(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- fused update

UPDATE = "linear_update"


def in_training(rng, *sizes, left_out=()):
    """A step changes the weights by a small part of them, as in training."""
    given = inputs.linear(rng, *sizes)
    given["dy"] *= np.float32(0.1 * sizes[0] ** -0.5)
    return given | inputs.last_layer_state(rng, given) | dict.fromkeys(left_out)


@pytest.mark.sweep(every=5)
@rules
@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 31, 33), (300, 301, 70), (64, 64, 64), (9_000, 7, 9)], ids=str)
def test_promise_2_the_fused_update_agrees_with_float64(ops, rng, options, sizes):
    assert_close_like_numpy(ops, [UPDATE], in_training(rng, *sizes), few=min(sizes) <= 3, **options)


@rules
@pytest.mark.parametrize("left_out", [(), ("dx",), ("dbias",), ("dx", "dbias")], ids=str)
@pytest.mark.parametrize("sizes", [(33, 65, 47), (300, 130, 70), (9_000, 7, 9)], ids=str)
def test_the_fused_update_is_the_backward_pass_and_then_the_update(ops, rng, options, left_out, sizes):
    """To the bit; so dx is that of the weight before."""
    assert_updates_as_apart(ops, in_training(rng, *sizes, left_out=left_out), options)


@pytest.mark.parametrize("sizes", [(290, 40, 513), (9, 2_060, 513), (520, 530, 610)], ids=str)
def test_the_fused_update_of_many_rows_and_of_wide_ones(ops, rng, sizes):
    """With tiles a slice has whole rows of the weight, if they are many and not too wide."""
    assert_updates_as_apart(ops, in_training(rng, *sizes), {"rule": "adamw", "lr": 0.01, "step": 3})


def assert_updates_as_apart(ops, given, options):
    fused, apart = run(ops, UPDATE, given, **options), run(ops, CHAIN[1], given)
    want = apart | update_by(ops, options, "", {"grad": apart["dweight"]}, given)
    left_out = {name for name, array in given.items() if array is None}
    assert fused.keys() == {"weight", "weight_state", "weight_state2", "dx", "dbias"} - left_out
    for name, array in fused.items():
        assert array.tobytes() == want.get(name, given.get(name)).tobytes(), name


@rules
def test_promise_4_the_fused_update_has_the_same_bits_for_any_threads(ops, rng, options):
    assert_same_bits_for_any_threads(ops, [UPDATE], in_training(rng, 130, 70, 65), **options)


@rules
@pytest.mark.parametrize("sizes", [(0, 7, 5), (3, 0, 5), (3, 7, 0), (3, 0, 0)], ids=str)
def test_the_fused_update_of_nothing(ops, rng, options, sizes):
    """Without rows the gradient is 0: what the rule remembers goes on."""
    given = in_training(rng, 1, 7, 5)
    B, count, outputs = sizes
    given = {
        **{"x": inputs.normal(rng, B, count), "dy": inputs.normal(rng, B, outputs)},
        **{name: given[name][:outputs, :count].copy() for name in ("weight", "weight_state", "weight_state2")},
    }
    fused, apart = run(ops, UPDATE, given, **options), run(ops, CHAIN[1], given)
    want = apart | update_by(ops, options, "", {"grad": apart["dweight"]}, given)
    for name, array in fused.items():
        assert relative_norm(array, want.get(name, given.get(name))) < 1e-6, name


def test_the_fused_update_refuses_a_rule_that_it_lacks_and_what_is_not_given(ops, rng):
    given = in_training(rng, 3, 4, 5)
    with pytest.raises(ValueError, match=r"^linear_update: rule: expected one of sgd, .*, got 'lion'"):
        run(ops, UPDATE, given, rule="lion", lr=1)
    with pytest.raises(ValueError, match=r"^linear_update: adamw needs 2 arrays of state for weight"):
        run(ops, UPDATE, given | {"weight_state2": None}, rule="adamw", lr=1, step=1)
