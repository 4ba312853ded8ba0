"""batchnorm: normalize each channel over the batch, with PyTorch's running estimates."""

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
    cast,
    run,
    run_chain,
    tensors,
)
from tests.inputs import REAL

CHAIN = ("batchnorm_forward", "batchnorm_backward")
# fmt: off
SIZES = [  # B, C
    (2, 33), (3, 1), (3, 31), (7, 3), (31, 2), (33, 127), (127, 7), (129, 33), (300, 129), (301, 1), (1001, 17),
    (32, REAL.H), (128, REAL.H), (512, REAL.H),
]
# fmt: on
modes = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


@modes
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_promise_1_gradient(rng, training, eps):
    given = cast(inputs.batchnorm(rng, 5, 3), np.float64)
    options = {"training": training, "eps": eps}
    got = run_chain(NUMPY, CHAIN, given, **options)
    gradients = {name: got[f"d{name}"] for name in ("x", "weight", "bias")}
    assert_gradients("batchnorm_forward", given, {"y": given["dy"]}, gradients, **options)


@pytest.mark.sweep(every=5)
@modes
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_promise_2_agrees_with_float64(ops, rng, sizes, training):
    """With two rows y is +-1 for any x: dx is the rounding error of a difference of equal numbers."""
    within = 1e-4 if sizes[0] == 2 else 1e-5
    assert_close_like_numpy(ops, CHAIN, inputs.batchnorm(rng, *sizes), training=training, numpy_within=within)


def test_promise_2_agrees_with_float64_on_one_row(ops, rng):
    """Which can be evaluated, but not trained on."""
    given = inputs.batchnorm(rng, 1, 33)
    assert_close_like_numpy(ops, CHAIN, given, training=False)
    with pytest.raises(ValueError, match="batchnorm_forward: x: expected at least 2 rows to train on, got 1"):
        run(ops, "batchnorm_forward", given)


@modes
@pytest.mark.parametrize("offset", [30, 1_000])
def test_promise_2_agrees_with_float64_far_from_zero(ops, rng, offset, training):
    """A variance made of a difference of squares would have lost its digits here."""
    given = inputs.batchnorm(rng, 129, REAL.H)
    for name in ("x", "running_mean"):
        given[name] += np.float32(offset)
    assert_close_like_numpy(ops, CHAIN, given, training=training, numpy_within=1e-2)


def test_statistics_are_over_the_batch_axis_per_channel(ops, rng):
    """The original had this axis wrong for an hour. As many rows as channels: no shape gives it away."""
    given = inputs.batchnorm(rng, 32, 32) | {"weight": np.ones(32, np.float32), "bias": np.zeros(32, np.float32)}
    got = run(ops, "batchnorm_forward", given)
    np.testing.assert_allclose(got["mean"], given["x"].mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(got["inv_std"], 1 / given["x"].std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(got["y"].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(got["y"].std(axis=0), 1, rtol=1e-4)
    assert np.abs(got["y"].mean(axis=1)).max() > 0.1, "rows are not normalized"


@modes
@pytest.mark.parametrize("sizes", [(2, 1), (33, 300), (129, 301)], ids=str)
def test_the_gradient_may_lie_in_place_of_the_one_from_above(ops, rng, sizes, training):
    given = inputs.batchnorm(rng, *sizes)
    want = run_chain(ops, CHAIN, given, training=training)
    arrays = arguments("batchnorm_backward", {**given, **want}, np.copy)
    arrays["dx"] = arrays["dy"]
    arrays["dy"].flags.writeable = True
    ops.batchnorm_backward(*arrays.values(), training=training, threads=2)
    for name in ("dx", "dweight", "dbias"):
        np.testing.assert_array_equal(arrays[name], want[name], err_msg=name)


def test_running_statistics_are_untouched_in_evaluation(ops, rng):
    given = inputs.batchnorm(rng, 7, 33)
    got = run(ops, "batchnorm_forward", given, training=False)
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(got[name], given[name])


def test_constant_channel(ops):
    """No variance at all: eps keeps the division finite, and y is the bias."""
    given = inputs.batchnorm(np.random.default_rng(0), 32, 5) | {"x": np.full((32, 5), 1.5, np.float32)}
    got = run_chain(ops, CHAIN, given)
    np.testing.assert_array_equal(got["y"], np.broadcast_to(given["bias"], (32, 5)))
    np.testing.assert_allclose(got["inv_std"], 1e-5**-0.5, rtol=1e-6)
    np.testing.assert_array_equal(got["dweight"], 0)


@modes
@pytest.mark.parametrize(("momentum", "eps"), [(0.1, 1e-5), (0.5, 1e-3)])
def test_promise_3_equals_pytorch(ops, rng, torch, training, momentum, eps):
    given = inputs.batchnorm(rng, 33, 129)
    leaves = tensors(given)
    running = {name: leaves[name].detach() for name in ("running_mean", "running_var")}
    learned = {name: leaves[name] for name in ("weight", "bias")}
    options = {"training": training, "momentum": momentum, "eps": eps}
    y = torch.nn.functional.batch_norm(leaves["x"], **running, **learned, **options)
    y.backward(leaves["dy"])
    gradients = {f"d{name}": leaves[name].grad for name in ("x", *learned)}
    assert_equals_pytorch(ops, CHAIN, given, {"y": y, **running, **gradients}, **options)


@modes
def test_promise_4_same_bits_for_any_threads(ops, rng, training):
    assert_same_bits_for_any_threads(ops, CHAIN, inputs.batchnorm(rng, 129, 301), training=training)
