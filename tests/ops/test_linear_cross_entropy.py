"""linear_cross_entropy: the last layer and its loss in one, where nearly all of the time goes."""

from dataclasses import replace
from itertools import combinations

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
from tests.updates import KEPT, rules, update_by

ONE_CALL = ("linear_cross_entropy",)
TWO_CALLS = ("linear_cross_entropy_forward", "linear_cross_entropy_backward")
# fmt: off
SIZES = [  # B, H, V
    (1, 1, 1), (1, 2, 3), (2, 3, 1), (3, 1, 2), (7, 31, 33), (31, 33, 127), (33, 7, 129), (2, 127, 31), (127, 3, 128),
    (2, 30, 31), (31, 300, 31), (33, 301, 33), (5, 129, 301), (129, 2, 7),
    (300, 31, 300), (301, 33, 33), (1, 300, 4_097), (17, 301, 1_000), (1_025, 3, 5), (3, 0, 33),
]
# fmt: on
chains = pytest.mark.parametrize("chain", [ONE_CALL, TWO_CALLS], ids=["one call", "two calls"])
smoothings = pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
WITHOUT_BIAS = {"bias": None, "dbias": None}


@pytest.fixture
def ops(ops_at_each_precision):
    return ops_at_each_precision


def powerset(names):
    """Return all non-empty subsets."""
    return (chosen for count in range(1, len(names) + 1) for chosen in combinations(names, count))


def target_rows(given):
    """Masks of dW and db: the rows of target words, and all others."""
    is_target = np.zeros(len(given["weight"]), bool)
    is_target[given["targets"][given["row_scale"] != 0]] = True
    rows = {"targets": is_target, "others": ~is_target}
    return {"dweight": rows} if given["bias"] is None else {"dweight": rows, "dbias": rows}


def assert_agrees(ops, chain, given, **options):
    assert_close_like_numpy(ops, chain, given, target_rows(given), **options)


@chains
@pytest.mark.parametrize("left_out", [{}, WITHOUT_BIAS], ids=["bias", "no bias"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_promise_1_gradient(rng, chain, left_out, label_smoothing):
    given = cast(inputs.linear_cross_entropy(rng, 6, 4, 7), np.float64) | left_out
    assert (given["row_scale"] == 0).any()
    got = run_chain(NUMPY, chain, given, label_smoothing=label_smoothing)
    gradients = {name: got[f"d{name}"] for name in ("h", "weight", "bias") if f"d{name}" in got}
    upstream = {"losses": given["row_scale"]}
    assert_gradients("linear_cross_entropy_forward", given, upstream, gradients, label_smoothing=label_smoothing)


@pytest.mark.sweep(every=3)
@chains
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_promise_2_agrees_with_float64(ops, rng, chain, sizes):
    assert_agrees(ops, chain, inputs.linear_cross_entropy(rng, *sizes), few=max(sizes) <= 3)


@pytest.mark.sweep(every=5)
@chains
@pytest.mark.parametrize("sizes", [(32, REAL.H), (128, REAL.H), (2, 301), (33, 30), (160, 30)], ids=str)
def test_promise_2_agrees_with_float64_at_real_size(ops, rng, chain, sizes):
    """Of 160 rows there are more exponentials than the caches hold, in each precision."""
    assert_agrees(ops, chain, inputs.linear_cross_entropy(rng, *sizes, REAL.V))


@chains
def test_promise_2_agrees_with_float64_of_more_rows_than_go_at_once(ops, rng, chain):
    """And of a gradient of W that is too large for the caches, to which the later rows' is added."""
    assert_agrees(ops, chain, inputs.linear_cross_entropy(rng, 301, 300, 7_001))


@pytest.mark.sweep(every=3)
@chains
@pytest.mark.parametrize("rows", [33, 301])
@pytest.mark.parametrize("unwanted", list(powerset(["dh", "dweight", "dbias"])), ids=str)
def test_gradients_that_nobody_wants(ops, rng, chain, rows, unwanted):
    """Those that are wanted have the same bits as with all."""
    given = inputs.linear_cross_entropy(rng, rows, 31, 301)
    want = run_chain(ops, chain, given, label_smoothing=0.1)
    got = run_chain(ops, chain, given | dict.fromkeys(unwanted), label_smoothing=0.1)
    assert got.keys() == want.keys() - set(unwanted)
    for name, array in got.items():
        np.testing.assert_array_equal(array, want[name], err_msg=name)


@chains
@smoothings
@pytest.mark.parametrize("rise", [0.3, 0.8, 3.0], ids=["e^38 a block", "e^102", "e^384"])
def test_promise_2_agrees_with_float64_where_logits_rise_through_the_vocabulary(ops, rng, chain, rise, label_smoothing):
    """So that what exponentials are relative to, which kernels may keep for many words, has to follow."""
    given = inputs.linear_cross_entropy(rng, 20, 8, 9_000)
    given["bias"] = (rise * np.arange(9_000) % 400).astype(np.float32)
    assert_agrees(ops, chain, given, label_smoothing=label_smoothing)


@chains
@pytest.mark.parametrize("left_out", [{}, WITHOUT_BIAS], ids=["bias", "no bias"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_promise_2_agrees_with_float64_with_options(ops, rng, chain, left_out, label_smoothing):
    given = inputs.linear_cross_entropy(rng, 33, 31, 301) | left_out
    few = label_smoothing == 1  # dW is then a difference of two sums, over p and over 1 / V, that cancel
    assert_agrees(ops, chain, given, few=few, label_smoothing=label_smoothing)


def certain(given):
    """A softmax of 1 at one word: at 40, which is the true one in every other such row, or at 41, which never is."""
    given["weight"][40, 0], given["weight"][41, 0] = 300, -300
    given["h"][::2, 0], given["h"][1::2, 0] = 1, -1
    given["targets"][given["targets"] == 41] = 42
    given["targets"][::4] = 40


def uniform(given):
    given["weight"] *= 1e-6
    given["bias"][...] = 3


def trained(given):
    given["weight"] *= 10


def at_the_end_of_exp(given):
    """exp(88.72) is the largest in float32: rows that only fill up a vector have nothing but the bias."""
    given["bias"][...] = 88.7


def high(given):
    given["bias"] += 10_000


def low(given):
    given["bias"] -= 10_000


def high_and_low(given):
    given["bias"][::3] += 10_000
    given["bias"][1::3] -= 10_000


def wide(given):
    given["weight"] *= 100


@pytest.mark.sweep(every=5)
@chains
@smoothings
@pytest.mark.parametrize("V", [129, 4_097])
@pytest.mark.parametrize("rows", [certain, uniform, trained, at_the_end_of_exp, high, low, high_and_low, wide])
def test_promise_2_agrees_with_float64_on_extreme_rows(ops, rng, chain, rows, V, label_smoothing):
    """At 10,000 the last bit of a logit is 0.001: float32 can do no better than that, and no worse."""
    given = inputs.linear_cross_entropy(rng, 33, 31, V)
    rows(given)
    assert_agrees(ops, chain, given, label_smoothing=label_smoothing, numpy_within=1e-2)


@chains
@smoothings
@pytest.mark.parametrize("word", [40, 200, 4_000])
@pytest.mark.parametrize("height", [18, 25, 35, 60])
def test_promise_2_agrees_with_float64_of_rows_certain_of_their_target(ops, rng, chain, height, word, label_smoothing):
    """Wherever it stands: nothing is lost between its logit and what exponentials are relative to."""
    given = inputs.linear_cross_entropy(rng, 33, 31, 4_097)
    given["h"][::2, 0], given["h"][1::2, 0], given["weight"][word, 0] = 1, 0, height
    given["targets"][::2] = word
    assert_agrees(ops, chain, given, label_smoothing=label_smoothing, numpy_within=1e-2)
    assert (run_chain(ops, chain, given)["losses"] >= 0).all()


@chains
@pytest.mark.parametrize("possible", [3_797, 10], ids=["the first 300", "all but ten"])
def test_promise_2_agrees_with_float64_where_words_are_impossible(ops, rng, chain, possible):
    given = inputs.linear_cross_entropy(rng, 33, 31, 4_097)
    given["bias"][:-possible] = -np.inf
    given["targets"][given["row_scale"] != 0] %= possible
    given["targets"][given["row_scale"] != 0] += 4_097 - possible
    assert_agrees(ops, chain, given)


@pytest.mark.sweep(every=7)
@chains
@smoothings
@pytest.mark.parametrize("V", [129, 4_097])
@pytest.mark.parametrize("offset", [0, *(10**power for power in range(1, 9)), -100, -(10**8)])
def test_promise_2_a_common_part_of_all_logits_costs_no_digit(ops, rng, chain, offset, V, label_smoothing):
    """At 1e8 float32 has every eighth number, so the logits are such, and exact in every precision."""
    given = inputs.linear_cross_entropy(rng, 33, 3, V)
    given["h"] = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 33)]
    given["weight"] = (8 * rng.integers(0, 2, (V, 3))).astype(np.float32)
    given["bias"][...] = offset
    assert_agrees(ops, chain, given, label_smoothing=label_smoothing)


@chains
def test_an_ignored_row_gives_no_gradient_of_words_that_cannot_come(ops, rng, chain):
    """0 times the infinite weights of such a word would be NaN."""
    if ops.fp32_precision != "ieee":
        pytest.skip("tiles have zeros where a batch ends, and infinity has no second bf16")
    given = inputs.linear_cross_entropy(rng, 33, 31, 301)
    ignored, impossible = given["row_scale"] == 0, [7, 200]
    given["h"] = np.abs(given["h"]) + 1
    given["weight"][impossible] = -np.inf
    given["targets"][np.isin(given["targets"], impossible)] = 8
    with np.errstate(all="ignore"):
        known = arguments(chain[0], given)
        getattr(ops, chain[0])(*known.values())
        if len(chain) > 1:
            known = arguments(chain[1], given | known)
            getattr(ops, chain[1])(*known.values())
    for name in ("dweight", "dbias"):
        assert np.isfinite(known[name]).all(), name
        assert not known[name][impossible].any(), name
    assert not known["dh"][ignored].any()


@chains
@pytest.mark.parametrize("number", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("left_out", [{}, WITHOUT_BIAS], ids=["bias", "no bias"])
def test_an_ignored_row_is_not_looked_at(ops, rng, chain, number, left_out):
    """Whatever its target and its h are: it has no loss and no gradient, and W and b get nothing of it."""
    given = inputs.linear_cross_entropy(rng, 33, 31, 301) | left_out
    ignored = given["row_scale"] == 0
    want = run_chain(ops, chain, given, label_smoothing=0.1)
    given["h"][ignored, ::2], given["targets"][ignored] = number, np.iinfo(np.int32).max
    got = run_chain(ops, chain, given, label_smoothing=0.1)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
    for name in ("losses", "highest", "log_sum", "dh"):
        assert not got[name][ignored].any(), name
    counted = {name: given[name][~ignored] for name in ("h", "targets", "row_scale")}
    assert_agrees(ops, chain, given | counted, label_smoothing=0.1)


@pytest.mark.sweep(every=7)
@chains
@pytest.mark.parametrize("id_type", [np.int32, np.int64])
@pytest.mark.parametrize("target", [0, 1, 15, 16, 31, 32, 119, 120, 127, 128, 239, 240, 255, 256, 299])
def test_target_at_an_edge(ops, rng, chain, target, id_type):
    given = inputs.linear_cross_entropy(rng, 2, 33, 300) | {"targets": np.full(2, target, id_type)}
    assert_agrees(ops, chain, given)


def with_forward_pass_in_bf16(
    h, weight, bias, targets, row_scale, highest, log_sum, losses, dh, dweight, dbias, **options
):
    """linear_cross_entropy in float32, but for the operands of the logits."""
    rounded = rounded_to_bf16({"h": h, "weight": weight})
    dlogits = rounded["h"] @ rounded["weight"].T + bias
    logits = dlogits.copy()
    NUMPY.cross_entropy_forward(logits, targets, row_scale, highest, log_sum, losses, **options)
    NUMPY.cross_entropy_backward(logits, targets, row_scale, highest, log_sum, dlogits, **options)
    NUMPY.linear_backward(dlogits, h, weight, dh, dweight, dbias)


def test_promise_2_a_forward_pass_in_bf16_fails(rng):
    """It would be missed if the targets' rows were not compared separately: their -1 hides all other errors."""
    given = inputs.linear_cross_entropy(rng, REAL.B, REAL.H, REAL.V)
    rounded = replace(NUMPY, linear_cross_entropy=with_forward_pass_in_bf16)
    got, want = (run(ops, *ONE_CALL, given)["dweight"] for ops in (rounded, NUMPY))
    others = target_rows(given)["dweight"]["others"]
    assert relative_norm(got, want) < 1e-5 < 1e-4 < relative_norm(got[others], want[others])
    with pytest.raises(AssertionError, match=r"dweight \(others\)"):
        assert_agrees(rounded, ONE_CALL, given)


def test_promise_2_products_of_bf16_round_their_operands_and_nothing_else(rng):
    ops = at_precision(require_ops("cython"), "bf16")
    given = inputs.linear_cross_entropy(rng, 33, 301, 1_000)
    got = run(ops, TWO_CALLS[0], given)
    want = run(NUMPY, TWO_CALLS[0], cast(rounded_to_bf16(given), np.float64))
    for name in ("highest", "log_sum", "losses"):
        assert relative_norm(got[name], want[name]) < 1e-6


@chains
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_promise_13_what_is_not_finite_reaches_the_losses(ops, rng, chain, bad):
    """In any place: no maximum may drop a NaN, and no row may affect another."""
    given = inputs.linear_cross_entropy(rng, 4, 33, 301)
    places = [("h", (2, 0)), ("h", (3, 32)), *(("weight", (word, 5)) for word in (0, 127, 128, 299, 300))]
    for name, place in places:
        spoilt = given | {name: given[name].copy()}
        spoilt[name][place] = bad
        arrays = arguments(chain[0], spoilt)
        with np.errstate(invalid="ignore"):
            getattr(ops, chain[0])(*arrays.values())
        finite = np.isfinite(arrays["losses"])
        assert not finite.all(), f"{bad} at {name}{place} does not show"
        if name == "h":
            assert finite.tolist() == [row != place[0] for row in range(4)], f"{bad} at {name}{place}"


def test_zero_rows(ops, rng):
    given = inputs.linear_cross_entropy(rng, 1, 3, 7)
    given |= {name: given[name][:0] for name in ("h", "targets", "row_scale")}
    got = run(ops, *ONE_CALL, given)
    assert got["dh"].shape == (0, 3)
    assert not got["dweight"].any()
    assert not got["dbias"].any()


@chains
@smoothings
def test_promise_3_equals_pytorch(ops, rng, torch, chain, label_smoothing):
    given = inputs.linear_cross_entropy(rng, 33, 31, 301)
    leaves = tensors(given)
    logits = torch.nn.functional.linear(leaves["h"], leaves["weight"], leaves["bias"])
    losses = torch.nn.functional.cross_entropy(
        logits, leaves["targets"], reduction="none", ignore_index=-100, label_smoothing=label_smoothing
    )
    losses.backward(leaves["row_scale"])
    want = {"losses": losses, **{f"d{name}": leaves[name].grad for name in ("h", "weight", "bias")}}
    assert_equals_pytorch(ops, chain, given, want, label_smoothing=label_smoothing)


@chains
@pytest.mark.parametrize("sizes", [(129, 33, 301), (3, 30, REAL.V)], ids=str)
def test_promise_4_same_bits_for_any_threads(ops, rng, chain, sizes):
    assert_same_bits_for_any_threads(ops, chain, inputs.linear_cross_entropy(rng, *sizes), label_smoothing=0.1)


# ------------------------------------------------------------------------------------------------------- fused update

UPDATE = "linear_cross_entropy_update"
CHANGED = ("weight", "weight_state", "weight_state2")
UPDATED_SIZES = [(2, 3, 1), (1, 1, 2), (2, 3, 7), (33, 31, 301), (5, 301, 4_097), (600, 5, 130)]
helds = pytest.mark.parametrize("with_held", [False, True], ids=["nothing held", "rows held"])


def in_training(rng, *sizes, bias=True, with_held=False):
    given = inputs.linear_cross_entropy(rng, *sizes) | ({} if bias else WITHOUT_BIAS)
    rows = {"held": inputs.held(sizes[-1])} if with_held else inputs.NOTHING_HELD
    return given | inputs.last_layer_state(rng, given) | rows


@pytest.mark.sweep(every=7)
@rules
@pytest.mark.parametrize("what", [{}, {"bias": False}, {"with_held": True}], ids=["bias", "no bias", "rows held"])
@pytest.mark.parametrize("sizes", UPDATED_SIZES, ids=str)
def test_promise_2_the_fused_update_agrees_with_float64(ops, rng, options, sizes, what):
    smoothing = 0.1 if sizes[-1] > 1 else 0.0  # of one word the gradient is 0, and (1 - 0.1) + 0.1 may be off it
    given, few = in_training(rng, *sizes, **what), min(sizes) <= 3  # rows or columns: numbers of two or three products
    parts = target_rows(given)
    if given["held"] is not None:
        parts["dheld"] = {part: mask[given["held"]] for part, mask in parts["dweight"].items()}
    assert_close_like_numpy(ops, [UPDATE], given, parts, few=few, label_smoothing=smoothing, **options)


@rules
@helds
def test_the_fused_update_is_the_op_and_then_the_update(ops, rng, options, with_held):
    given = in_training(rng, 33, 31, 301, with_held=with_held)
    fused = run(ops, UPDATE, given, **options)
    apart = run(ops, *ONE_CALL, given)
    want = update_by(ops, options, "", {"grad": apart["dweight"]}, given)
    if with_held:
        for name in want:
            want[name][given["held"]] = given[name][given["held"]]
        assert relative_norm(fused["dheld"], apart["dweight"][given["held"]]) < 1e-6
    assert relative_norm(fused["weight"] - given["weight"], want["weight"] - given["weight"]) < 1e-5
    for name in want:
        assert relative_norm(fused[name], want[name]) < 1e-6
    for name in ("highest", "log_sum", "losses", "dh", "dbias"):
        assert relative_norm(fused[name], apart[name]) < 1e-6


@pytest.mark.sweep(every=3)
@pytest.mark.parametrize("fp32_precision", ["ieee", "bf16", "bf16x3"])
def test_the_fused_update_of_a_batch_whose_exponentials_are_not_stored(rng, fp32_precision):
    """More than 256 MB: sweep two makes them again. The op alone takes the batch in pieces, whose are stored."""
    ops = at_precision(require_ops("cython"), fp32_precision)
    given = in_training(rng, 2_200, 3, 62_000)
    fused = run(ops, UPDATE, given, rule="sgd", lr=0.5, weight_decay=0.0, label_smoothing=0.1)
    apart = run(ops, *ONE_CALL, given, label_smoothing=0.1)
    change = given["weight"] - fused["weight"]
    close = {"ieee": 1e-5, "bf16x3": 1e-4, "bf16": 1e-2}[fp32_precision]
    assert relative_norm(change, 0.5 * apart["dweight"]) < close
    for name in ("highest", "log_sum", "losses", "dh", "dbias"):
        assert relative_norm(fused[name], apart[name]) < close


# fmt: off
HELD = [
    [], [0], [300], [119], [120], [127, 128], list(range(301)), list(range(1, 300)), [0, 1, 2, 118, 119, 120, 121, 300],
]
# fmt: on


@rules
@pytest.mark.parametrize("id_type", [np.int32, np.int64])
def test_the_fused_update_leaves_rows_that_are_held_as_they_are(ops, rng, options, id_type):
    """All else has the same bits as where nothing is held."""
    given = cast(in_training(rng, 33, 31, 301), id_type)
    apart = run(ops, *ONE_CALL, given)
    free = run(ops, UPDATE, given, **options)
    for held in HELD:
        places = {"held": np.array(held, id_type), "dheld": np.full((len(held), 31), np.nan, np.float32)}
        got = run(ops, UPDATE, given | places, **options)
        assert relative_norm(got.pop("dheld"), apart["dweight"][held]) < 1e-6
        for name, array in got.items():
            want = free[name].copy()
            if name in CHANGED:
                want[held] = given[name][held]
            assert array.tobytes() == want.tobytes(), f"{name}, held: {held}"


@rules
def test_the_fused_update_of_tied_weights_is_one_dense_update_with_both_gradients(ops, rng, options):
    """Three steps; the other gradient is of rows that are held, as an embedding's is, and these are updated last."""
    ours = in_training(rng, 33, 31, 301, with_held=True)
    theirs = dict(ours)
    held = ours["held"]
    for step in range(1, 4):
        also = inputs.normal(rng, len(held), 31)
        this_step = options | ({"step": step} if "step" in options else {})
        made = run(ops, UPDATE, ours, **this_step)
        ours |= {name: made[name] for name in CHANGED}
        both = {"rows": held, "drows": made["dheld"] + also}
        ours |= update_by(ops, this_step, "_rows", both, ours, only_rows=True)
        dweight = run(ops, *ONE_CALL, theirs)["dweight"]
        dweight[held] += also
        theirs |= update_by(ops, this_step, "", {"grad": dweight}, theirs)
    for name in CHANGED[: 1 + len(KEPT[options["rule"]])]:
        assert relative_norm(ours[name], theirs[name]) < 1e-6


@rules
@helds
def test_promise_4_the_fused_update_has_the_same_bits_for_any_threads(ops, rng, options, with_held):
    assert_same_bits_for_any_threads(ops, [UPDATE], in_training(rng, 33, 31, 4_097, with_held=with_held), **options)


@rules
@helds
@pytest.mark.parametrize("rows", ["none", "all ignored"])
def test_promise_2_the_fused_update_without_rows_goes_on_with_gradients_of_zero(ops, rng, options, with_held, rows):
    given = in_training(rng, 5, 31, 301, with_held=with_held)
    if rows == "none":
        given |= {name: given[name][:0] for name in ("h", "targets", "row_scale")}
    else:
        given["row_scale"] = np.zeros(5, np.float32)
    got, want = (run(each, UPDATE, given, **options) for each in (ops, NUMPY))
    for name in CHANGED:
        assert relative_norm(got[name], want[name]) < 1e-6
        if with_held:
            assert got[name][given["held"]].tobytes() == given[name][given["held"]].tobytes()
    assert not any(got[name].any() for name in ("dh", "dbias", "dheld") if name in got)


BAD = [("h", (2, 7), np.nan), ("h", (2, 7), np.inf), ("weight", (300, 5), -np.inf), ("bias", 120, np.nan)]


@pytest.mark.sweep(every=3)
@rules
@helds
@pytest.mark.parametrize(("name", "place", "bad"), BAD, ids=str)
def test_promise_13_the_fused_update_touches_nothing_when_a_loss_is_not_finite(
    ops, rng, options, name, place, bad, with_held
):
    given = in_training(rng, 5, 31, 301, with_held=with_held)
    given[name][place] = bad
    arrays = arguments(UPDATE, given)
    for gradient in (arrays[name] for name in ("dh", "dbias", "dheld") if arrays[name] is not None):
        gradient[...] = 1
    with np.errstate(all="ignore"):
        assert getattr(ops, UPDATE)(*arrays.values(), **options) is False
    for gradient in (arrays[name] for name in ("dh", "dbias", "dheld") if arrays[name] is not None):
        assert np.isnan(gradient).all()
    for name in CHANGED:
        assert arrays[name].tobytes() == given[name].tobytes()


@rules
@pytest.mark.parametrize("offset", [1_000, 10**7])
def test_promise_2_the_fused_update_loses_no_digit_of_large_logits(ops, rng, options, offset):
    given = in_training(rng, 33, 3, 301)
    given["h"] = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 33)]
    given["weight"] = (8 * rng.integers(0, 2, (301, 3))).astype(np.float32)
    given["bias"][...] = offset
    moved = run(ops, UPDATE, given, **options)["weight"] - given["weight"]
    want = run(NUMPY, UPDATE, cast(given, np.float64), **options)["weight"] - given["weight"]
    assert relative_norm(moved, want) < (2**-6 if ops.fp32_precision == "bf16" else 1e-4)  # of weights that are 8


@rules
@helds
def test_the_fused_update_does_not_look_at_an_ignored_row(ops, rng, options, with_held):
    given = in_training(rng, 33, 31, 301, with_held=with_held)
    want = run(ops, UPDATE, given, **options)
    given["h"][given["row_scale"] == 0] = np.nan
    got = run(ops, UPDATE, given, **options)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


def test_the_fused_update_refuses_a_rule_that_it_lacks_and_what_is_not_given(ops, rng):
    given = in_training(rng, 2, 3, 7, with_held=True)
    with pytest.raises(ValueError, match=r"^linear_cross_entropy_update: rule: expected one of sgd.*, got 'adam'"):
        run(ops, UPDATE, given, rule="adam", lr=0.1)
    lacking = {
        "weight_state2": "adamw needs 2 arrays of state for weight",
        "dbias": "dbias: expected an array for the gradient of bias, got None",
        "held": "held: expected an array, as dheld is one; got None",
        "dheld": "dheld: expected an array, as held is one; got None",
    }
    for name, message in lacking.items():
        arrays = arguments(UPDATE, given) | {name: None}
        with pytest.raises(ValueError, match=f"^linear_cross_entropy_update: {message}"):
            getattr(ops, UPDATE)(*arrays.values(), rule="adamw", lr=0.1, step=1)
        for changed in ("weight", "weight_state"):
            assert arrays[changed].tobytes() == given[changed].tobytes()


@rules
def test_the_fused_update_says_that_it_was_made_even_without_rows(ops, rng, options):
    given = in_training(rng, 2, 31, 301)
    without = given | {name: given[name][:0] for name in ("h", "targets", "row_scale")}
    assert all(run(ops, UPDATE, which, **options)["returned"] for which in (given, without))
