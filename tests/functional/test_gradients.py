"""The gradients of fastmlp.functional by central differences."""

import inspect

import numpy as np
import pytest

import fastmlp.functional as F
from tests.functional.helpers import Array, copied, every_function, example, gradients, in_float64, normal, run_all
from tests.helpers import central_differences


@every_function
@pytest.mark.parametrize("options", [{}, {"reduction": "none", "label_smoothing": 0.2}, {"training": False}], ids=str)
def test_promise_1_central_differences(name, options):
    known = inspect.signature(getattr(F, name)).parameters
    arguments = in_float64(example(name)) | {n: v for n, v in options.items() if n in known}
    output = getattr(F, name)(**copied(arguments))
    grad = np.random.default_rng(7).standard_normal(output.shape)

    def total() -> float:
        return float(np.vdot(grad, getattr(F, name)(**{**arguments, **statistics()})))

    def statistics() -> dict[str, Array]:
        return {s: arguments[s].copy() for s in ("running_mean", "running_var") if s in arguments}

    for leaf, gradient in gradients(name, grad, arguments, output).items():
        want = central_differences(total, arguments[leaf])
        np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-8, err_msg=leaf)


def test_a_number_is_a_gradient_of_a_loss():
    logits, target = normal(3, 4), np.array([0, 1, 2])
    want = F.cross_entropy_backward(np.array(2, np.float32), logits, target)
    for two in (2, 2.0, np.float64(2)):
        np.testing.assert_array_equal(F.cross_entropy_backward(two, logits, target), want)
    with pytest.raises(ValueError, match=r"cross_entropy_backward: grad: expected shape \(3,\), got \(\)"):
        F.cross_entropy_backward(1.0, logits, target, reduction="none")


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_options_may_be_numbers_of_numpy(number):
    for options in ({}, {"weight": np.ones(4, np.float32)}):
        smoothed = {"input": normal(3, 4), "target": np.array([0, 1, 2]), **options, "label_smoothing": number(0.25)}
        assert all(part.dtype == np.float32 for part in run_all("cross_entropy", smoothed))
    arguments = example("batch_norm") | {"eps": number(0.25)}
    assert all(part.dtype == np.float32 for part in run_all("batch_norm", arguments))
