"""out=: the caller's array for the result."""

import numpy as np
import pytest

import fastmlp.functional as F
from tests.functional.helpers import (
    STATISTICS,
    assert_equal,
    copied,
    each_argument,
    every_function,
    example,
    normal,
    read_only,
    strided,
)
from tests.helpers import CLOSE


@every_function
def test_out_is_what_returns(torch, name):
    arguments = example(name)
    want = getattr(F, name)(**copied(arguments))
    outs = {
        "plain": np.full_like(want, np.nan),
        "F-order": np.full_like(want, np.nan, order="F"),
        "strided": strided(np.full_like(want, np.nan)) if want.ndim else np.full_like(want, np.nan),
        "tensor": torch.full(want.shape, np.nan),
    }
    for kind, out in outs.items():
        got = getattr(F, name)(**copied(arguments), out=out)
        assert got is out, kind
        np.testing.assert_array_equal(np.asarray(out), want, err_msg=kind)


@each_argument("f")
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_promise_12_out_may_overlap_the_inputs(name, argument, shift):
    arguments = example(name)
    if "cross" in name:
        arguments["reduction"] = "none"
    want = getattr(F, name)(**copied(arguments))
    x = arguments[argument]
    memory = np.zeros(max(x.size, want.size) + shift, np.float32)
    given_ = copied(arguments)
    given_[argument] = memory[: x.size].reshape(x.shape)
    given_[argument][...] = x
    out = memory[shift : shift + want.size].reshape(want.shape)
    assert getattr(F, name)(**given_, out=out) is out
    if argument not in STATISTICS:  # it is written too
        np.testing.assert_array_equal(out, want)


@every_function
def test_promise_12_an_out_that_does_not_fit_is_refused(name):
    arguments = example(name)
    want = getattr(F, name)(**copied(arguments))
    faults = {
        TypeError: [want.astype(np.float64), want.tolist(), want.astype(np.float32).astype(">f4")],
        ValueError: [np.empty((*want.shape, 1), np.float32), read_only(want)],
    }
    for error, outs in faults.items():
        for out in outs:
            with pytest.raises(error, match=f"^{name}: out: expected .*, got "):
                getattr(F, name)(**copied(arguments), out=out)


def test_tanh_in_place():
    x = normal(3, 4)
    want = np.tanh(x)
    assert F.tanh(x, out=x) is x
    assert_equal(x, want, CLOSE["float32"], "tanh")
