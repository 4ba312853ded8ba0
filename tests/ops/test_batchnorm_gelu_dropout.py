"""batchnorm_gelu_dropout: the bits of the three ops that it replaces in training."""

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

CHAIN = ("batchnorm_gelu_dropout_forward", "batchnorm_gelu_dropout_backward")
# fmt: off
SIZES = [  # B, C: where C is no multiple of 4, a block of the mask begins in the midst of a row
    (2, 1), (3, 5), (7, 3), (31, 2), (5, 64), (6, 65), (9, 130), (33, 127), (127, 7), (129, 33), (300, 129), (301, 1),
    (1001, 17), (32, REAL.H), (128, REAL.H), (33, 1030), (512, 301),
]
# fmt: on


def separately(ops, given, *, momentum=0.1, eps=1e-5, layer=0, p=0.0, threads=1):
    """Return the outputs of the three ops, forward in their order and backward in the opposite one."""
    of_mask = {"layer": layer, "p": p, "threads": threads}
    out = run(ops, "batchnorm_forward", given, momentum=momentum, eps=eps, threads=threads)
    z = out["y"]
    out |= run(ops, "gelu_forward", {"x": z}, threads=threads)
    out |= run(ops, "dropout_forward", {**given, "x": out["y"]}, **of_mask)
    dx = run(ops, "dropout_backward", given, **of_mask)["dx"]
    dx = run(ops, "gelu_backward", {"dy": dx, "x": z}, threads=threads)["dx"]
    return out | run(ops, "batchnorm_backward", {**given, **out, "dy": dx}, threads=threads)


def assert_same_bits(ops, given, **options):
    want, got = separately(ops, given, **options), run_chain(ops, CHAIN, given, **options)
    assert set(got) == {"y", "mean", "inv_std", "running_mean", "running_var", "dx", "dweight", "dbias"}
    for name, array in got.items():
        assert array.tobytes() == want[name].tobytes(), name


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_promise_2_gives_the_bits_of_the_three_ops(ops, rng, sizes, p):
    for threads in (1, 2, 3):
        assert_same_bits(ops, inputs.batchnorm_gelu_dropout(rng, *sizes), layer=3, p=p, threads=threads)


@pytest.mark.parametrize("p", [2.0**-34, 2.0**-32, 0.9, 1 - 2.0**-32])
def test_promise_2_gives_the_bits_of_the_three_ops_with_any_options(ops, rng, p):
    for momentum, eps, layer in ((0.1, 1e-5, 0), (0.0, 0.1, 2**32 - 1), (1.0, 1e-3, 7)):
        given = inputs.batchnorm_gelu_dropout(rng, 33, 70)
        assert_same_bits(ops, given, momentum=momentum, eps=eps, layer=layer, p=p)


def test_promise_2_gives_the_bits_of_the_three_ops_in_float64(rng):
    assert_same_bits(NUMPY, cast(inputs.batchnorm_gelu_dropout(rng, 33, 70), np.float64), layer=1, p=0.3)


def test_promise_2_gives_the_bits_of_the_three_ops_at_any_scale(ops, rng):
    """Channels far out on either side of gelu, one without any variance, and zeros of either sign."""
    given = inputs.batchnorm_gelu_dropout(rng, 65, 70)
    given["bias"][:40] = np.linspace(-40, 40, 40)
    given["x"][:, 50], given["bias"][50] = 1.5, -0.0
    given["weight"][60], given["dy"][7] = 1e-30, -0.0
    given["dy"][8] *= np.float32(1e30)
    assert_same_bits(ops, given, layer=1, p=0.3)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_gradients_of_what_is_left_out_are_not_read(ops, rng, number):
    given = inputs.batchnorm_gelu_dropout(rng, 33, 70)
    options = {"layer": 1, "p": 0.5}
    want = run_chain(ops, CHAIN, given, **options)
    left_out = run(ops, "dropout_forward", {**given, "x": np.ones((33, 70), np.float32)}, **options)["y"] == 0
    given["dy"][left_out] = number
    got = run_chain(ops, CHAIN, given, **options)
    for name in ("dx", "dweight", "dbias"):
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_promise_1_gradient(rng, p):
    given = cast(inputs.batchnorm_gelu_dropout(rng, 5, 3), np.float64)
    options = {"layer": 2, "p": p}
    got = run_chain(NUMPY, CHAIN, given, **options)
    gradients = {name: got[f"d{name}"] for name in ("x", "weight", "bias")}
    assert_gradients(CHAIN[0], given, {"y": given["dy"]}, gradients, **options)


@pytest.mark.sweep(every=4)
@pytest.mark.parametrize("sizes", [sizes for sizes in SIZES if sizes[0] > 2], ids=str)
def test_promise_2_agrees_with_float64(ops, rng, sizes):
    """With two rows batchnorm's output is +-1 for any x: dx is the rounding error of a difference of equal numbers."""
    assert_close_like_numpy(ops, CHAIN, inputs.batchnorm_gelu_dropout(rng, *sizes), layer=3, p=0.25)


def test_promise_2_one_row_is_refused(ops, rng):
    given = inputs.batchnorm_gelu_dropout(rng, 1, 33)
    with pytest.raises(ValueError, match=f"^{CHAIN[0]}: x: expected at least 2 rows to train on, got 1$"):
        run(ops, CHAIN[0], given, layer=0, p=0.5)


@pytest.mark.parametrize("sizes", [(2, 1), (33, 300), (129, 301)], ids=str)
def test_the_gradient_may_lie_in_place_of_the_one_from_above(ops, rng, sizes):
    given = inputs.batchnorm_gelu_dropout(rng, *sizes)
    want = run_chain(ops, CHAIN, given, layer=1, p=0.3)
    arrays = arguments(CHAIN[1], {**given, **want}, np.copy)
    arrays["dx"] = arrays["dy"]
    arrays["dy"].flags.writeable = True
    getattr(ops, CHAIN[1])(*arrays.values(), layer=1, p=0.3, threads=2)
    for name in ("dx", "dweight", "dbias"):
        np.testing.assert_array_equal(arrays[name], want[name], err_msg=name)


def test_promise_3_equals_pytorch(ops, rng, torch):
    """With the mask for PyTorch's."""
    given = inputs.batchnorm_gelu_dropout(rng, 33, 129)
    ones = {**given, "x": np.ones((33, 129), np.float32)}
    kept = torch.tensor(run(NUMPY, "dropout_forward", ones, layer=1, p=0.25)["y"] > 0)
    leaves = tensors(given)
    running = {name: leaves[name].detach() for name in ("running_mean", "running_var")}
    learned = {name: leaves[name] for name in ("weight", "bias")}
    z = torch.nn.functional.batch_norm(leaves["x"], **running, **learned, training=True)
    y = torch.where(kept, torch.nn.functional.gelu(z), 0) / (1 - 0.25)
    y.backward(leaves["dy"])
    gradients = {f"d{name}": leaves[name].grad for name in ("x", *learned)}
    assert_equals_pytorch(ops, CHAIN, given, {"y": y, **running, **gradients}, layer=1, p=0.25)


def test_promise_4_same_bits_for_any_threads(ops, rng):
    assert_same_bits_for_any_threads(ops, CHAIN, inputs.batchnorm_gelu_dropout(rng, 129, 301), layer=0, p=0.5)
