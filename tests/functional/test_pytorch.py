"""fastmlp.functional: each function and its gradient beside torch.nn.functional's."""

import functools
import inspect
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastmlp.functional as F
from tests.functional.helpers import (
    LARGE,
    RNG,
    START,
    Array,
    assert_equal,
    assert_equals_torch,
    copied,
    every_function,
    example,
    in_float64,
    normal,
    run_torch,
)
from tests.helpers import CLOSE, relative_norm, require_ops


@every_function
def test_arguments_are_pytorchs(torch, name):
    """Names, order and defaults; arguments that PyTorch lacks are keyword-only."""
    ours = inspect.signature(getattr(F, name)).parameters
    if name in ("linear", "gelu"):  # builtins without a signature
        takes = {"linear": ["input", "weight", "bias"], "gelu": ["input", "approximate"]}[name]
        assert list(ours)[: len(takes)] == takes
        written = {"linear": "linear(input, weight, bias=None)", "gelu": "gelu(input, approximate = 'none')"}[name]
        assert getattr(torch.nn.functional, name).__doc__.lstrip().startswith(written)
        return
    theirs = inspect.signature(getattr(torch.nn.functional, name)).parameters
    assert list(theirs) == list(ours)[: len(theirs)]
    for parameter, their in theirs.items():
        assert (ours[parameter].default, ours[parameter].kind) == (their.default, their.kind), parameter
    for parameter in list(ours)[len(theirs) :]:
        assert ours[parameter].kind == inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (2, 3, 2, 2)], ids=str)
def test_promise_3_the_dim_that_is_left_out_is_the_same_both_ways(torch, name, shape):
    x, dy = normal(*shape), normal(*shape)
    tensor = torch.tensor(x, requires_grad=True)
    with warnings.catch_warnings(action="ignore"):
        y = getattr(F, name)(x)
        getattr(torch.nn.functional, name)(tensor).backward(torch.tensor(dy))
    assert_equal(getattr(F, f"{name}_backward")(dy, y), tensor.grad, CLOSE["float32"], name)


def test_promise_3_batch_norm_backward_takes_what_batch_norm_took():
    """By position too."""
    arguments = example("batch_norm")
    dy, momentum = normal(5, 4), 0.5
    by_name = F.batch_norm_backward(dy, **arguments)
    for got, want in zip(F.batch_norm_backward(dy, *arguments.values(), momentum), by_name, strict=True):
        np.testing.assert_array_equal(got, want)


@every_function
def test_promise_3_equals_pytorch_on_every_back_end(library_runs, ops, name):
    library_runs(ops)
    assert_equals_torch(name, example(name))
    assert_equals_torch(name, LARGE[name]())


sizes = st.integers(1, 9)
lead = st.lists(st.integers(0, 4), max_size=3).map(tuple)
few = settings(max_examples=40)


def quick(test: Any) -> Any:
    """A few examples, each from the same random numbers."""
    inner = test.hypothesis.inner_test

    @functools.wraps(inner)
    def from_the_start(*args: Any, **options: Any) -> None:
        RNG.bit_generator.state = START
        inner(*args, **options)

    test.hypothesis.inner_test = from_the_start
    return few(test)


@quick
@given(lead, sizes, sizes, st.none() | st.integers(-5, 4), st.booleans())
def test_promise_3_embedding(shape, V, D, padding_idx, scale):
    if padding_idx is not None and not -V <= padding_idx < V:
        padding_idx = None
    arguments = {"input": RNG.integers(0, V, shape), "weight": normal(V, D)}
    assert_equals_torch("embedding", arguments, padding_idx=padding_idx, scale_grad_by_freq=scale)


@quick
@given(lead, st.integers(0, 9), sizes, st.booleans())
def test_promise_3_linear(shape, inputs, outputs, bias):
    arguments = {"input": normal(*shape, inputs), "weight": normal(outputs, inputs)}
    assert_equals_torch("linear", arguments | {"bias": normal(outputs)} if bias else arguments)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3)])
def test_promise_3_linear_with_a_weight_of_one_dimension(shape):
    assert_equals_torch("linear", {"input": normal(*shape), "weight": normal(3)})


@quick
@given(
    st.integers(2, 6), sizes, st.lists(sizes, max_size=2), st.booleans(), st.booleans(), st.booleans(), st.booleans()
)
def test_promise_3_batch_norm(N, C, more, training, weight, bias, tracked):
    arguments = {"input": 2 * normal(N, C, *more) + normal(C).reshape(C, *[1] * len(more)), "training": training}
    if tracked or not training:
        arguments |= {"running_mean": normal(C), "running_var": np.abs(normal(C)) + 0.5}
    else:
        arguments |= {"running_mean": None, "running_var": None}
    arguments |= {"weight": normal(C) if weight else None, "bias": normal(C) if bias else None}
    assert_equals_torch("batch_norm", arguments, eps=1e-3)
    output = F.batch_norm(**copied(arguments), momentum=0.7)
    assert output.flags.c_contiguous
    if arguments["running_mean"] is not None:
        torch = pytest.importorskip("torch")
        ours, theirs = (
            copied(arguments),
            {n: torch.tensor(v) if isinstance(v, Array) else v for n, v in arguments.items()},
        )
        F.batch_norm(**ours, momentum=0.7)
        torch.nn.functional.batch_norm(**theirs, momentum=0.7)
        assert_equal(ours["running_var"], theirs["running_var"], CLOSE["float32"], "running_var")


@quick
@given(st.sampled_from(["softmax", "log_softmax"]), lead, st.data())
def test_promise_3_softmax(name, shape, data):
    dim = data.draw(st.none() | st.integers(-max(len(shape), 1), max(len(shape), 1) - 1))
    if dim is None:
        with pytest.warns(UserWarning, match="Implicit dimension choice"):
            F.softmax(normal(*shape))
        dim = 0 if len(shape) in (0, 1, 3) else 1
    assert_equals_torch(name, {"input": np.asarray(3 * normal(*shape)), "dim": dim})


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (2, 3, 4), (2, 3, 4, 5)])
def test_the_implicit_dim_is_pytorchs(torch, shape):
    x = np.asarray(normal(*shape))
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        got = F.softmax(x)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        assert_equal(got, torch.nn.functional.softmax(torch.tensor(x)), CLOSE["float32"], "softmax")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, np.float64])
def test_softmax_converts_to_dtype_first(torch, dtype):
    x = np.array([[1, 2, 4], [0, 5, 3]], dtype)
    for wanted in ("float32", "float64"):
        got = F.softmax(x, 1, dtype=wanted)
        assert got.dtype == wanted
        assert_equal(got, torch.softmax(torch.tensor(x.astype(np.float64)), 1), CLOSE[wanted], "softmax")


reductions = st.sampled_from(["mean", "sum", "none"])
smoothings = st.sampled_from([0.0, 0.1, 1.0])


@quick
@given(
    st.integers(0, 6), sizes, st.none() | st.lists(sizes, max_size=2), st.booleans(), reductions, smoothings, st.data()
)
def test_promise_3_cross_entropy_of_classes(N, C, more, weighted, reduction, smoothing, data):
    batch = () if more is None else (N,)
    if C == 1 and not batch:
        C = 2  # PyTorch takes a target of the input's shape for probabilities
    arguments = {"input": np.asarray(2 * normal(*batch, C, *(more or ())))}
    target = RNG.integers(0, C, (*batch, *(more or ())))
    ignored = data.draw(st.sampled_from([-100, 0, -1]))
    if target.shape == arguments["input"].shape:
        return
    target = np.asarray(np.where(RNG.random(target.shape) < 0.3, ignored, target))
    arguments |= {"target": target, "weight": np.abs(normal(C)) + 0.1 if weighted else None}
    assert_equals_torch(
        "cross_entropy", arguments, reduction=reduction, label_smoothing=smoothing, ignore_index=ignored
    )


@quick
@given(st.integers(0, 6), sizes, st.none() | st.lists(sizes, max_size=2), st.booleans(), reductions, smoothings)
def test_promise_3_cross_entropy_of_probabilities(N, C, more, weighted, reduction, smoothing):
    shape = (C,) if more is None else (N, C, *more)
    truth = np.abs(normal(*shape))
    arguments = {"input": 2 * normal(*shape), "target": truth, "weight": np.abs(normal(C)) if weighted else None}
    assert_equals_torch("cross_entropy", arguments, reduction=reduction, label_smoothing=smoothing)


@quick
@given(st.none() | st.integers(0, 6), sizes, st.integers(2, 40), st.booleans(), st.booleans(), reductions, smoothings)
def test_promise_3_linear_cross_entropy(N, H, V, bias, weighted, reduction, smoothing):
    batch = () if N is None else (N,)
    target = np.asarray(np.where(RNG.random(batch) < 0.3, -100, RNG.integers(0, V, batch)))
    # logits of about 1: of a row that is certain of its target, p - 1 is left with few digits, and by chance
    # PyTorch's with more of them; promise 2 judges such rows
    arguments = {"input": normal(*batch, H), "linear_weight": normal(V, H) * np.float32(H**-0.5), "target": target}
    arguments |= {"linear_bias": normal(V) if bias else None, "weight": np.abs(normal(V)) + 0.1 if weighted else None}
    assert_equals_torch("linear_cross_entropy", arguments, reduction=reduction, label_smoothing=smoothing)
    arguments["target"] = np.asarray(np.abs(target) % V)
    assert_equals_torch("linear_cross_entropy", arguments, ignore_index=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, np.ones(6, np.float32), np.zeros(6, np.float32)])
@pytest.mark.parametrize("target", [[-100] * 3, [0, -100, 1]], ids=str)
def test_promise_3_nothing_counts(target, weight, smoothing):
    """Means are NaN as PyTorch's, and gradients of ignored rows 0."""
    arguments = {"input": normal(3, 6), "target": np.array(target), "weight": weight}
    assert_equals_torch("cross_entropy", arguments, label_smoothing=smoothing)


@pytest.mark.parametrize("offset", [1e4, -1e4, 100])
def test_promise_3_large_logits_keep_their_probabilities(torch, offset):
    """A logarithm of float32 near 10,000 is off by up to 5e-4."""
    x = normal(3, 50) + np.float32(offset)
    x[1] = 300 * normal(50)
    assert_equals_torch("softmax", {"input": x, "dim": 1})
    assert_equals_torch("log_softmax", {"input": x, "dim": 1})
    target = x.argmax(axis=1)
    assert_equals_torch("cross_entropy", {"input": x, "target": target}, reduction="none")
    assert_equals_torch("cross_entropy", {"input": x, "target": target}, label_smoothing=0.1)


SPECIAL = np.array([[1, -np.inf, 2], [np.nan, 0, 1], [np.inf, 1, 2], [-np.inf] * 3, [0, 1, 2]], np.float32)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_promise_3_infinities_and_nan(torch, name):
    got = getattr(F, name)(SPECIAL, 1)
    assert_equal(got, getattr(torch, name)(torch.tensor(SPECIAL), 1), CLOSE["float32"], name)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_promise_3_cross_entropy_of_infinities(torch, smoothing):
    target = np.array([0, 0, 1, 2, 1])
    got = F.cross_entropy(SPECIAL, target, reduction="none", label_smoothing=smoothing)
    options = {"reduction": "none", "label_smoothing": smoothing}
    want = torch.nn.functional.cross_entropy(torch.tensor(SPECIAL), torch.tensor(target), **options)
    assert_equal(got, want, CLOSE["float32"], "cross_entropy")


precisions = pytest.mark.parametrize("fp32_precision", ["auto", "ieee", "bf16x3", "bf16"])


@precisions
def test_precision_of_linear(fp32_precision):
    """Each is within its bound of float64, and no better; a precision that the CPU lacks is refused by name."""
    x, w, dy = normal(33, 64), normal(40, 64), normal(33, 40)
    if fp32_precision not in ("auto", *require_ops("cython").precisions()):
        for call in (lambda **how: F.linear(x, w, **how), lambda **how: F.linear_backward(dy, x, w, **how)):
            with pytest.raises(ValueError, match="fp32_precision: expected"):
                call(fp32_precision=fp32_precision)
        return
    how = {"fp32_precision": fp32_precision}
    got = F.linear(x, w, **how), *F.linear_backward(dy, x, w, **how)[:2]
    x, w, dy = x.astype(float), w.astype(float), dy.astype(float)
    least, most = {"bf16x3": (1e-6, 1e-5), "bf16": (1e-3, 2**-7)}.get(fp32_precision, (0, 1e-6))
    for ours, exact in zip(got, (x @ w.T, dy @ w, dy.T @ x), strict=True):
        assert least <= relative_norm(ours, exact) <= most


@precisions
@pytest.mark.parametrize("weighted", [False, True])
def test_precision(fp32_precision, weighted):
    """Each is within its bound of float64; a precision that the CPU lacks is refused by name."""
    h, w, target = normal(33, 64), normal(200, 64) / 8, RNG.integers(0, 200, 33)
    options = {"weight": np.abs(normal(200)) + 0.1} if weighted else {}
    if fp32_precision not in ("auto", *require_ops("cython").precisions()):
        with pytest.raises(ValueError, match="fp32_precision: expected"):
            F.linear_cross_entropy(h, w, target, fp32_precision=fp32_precision, **options)
        return
    got = [F.linear_cross_entropy(h, w, target, fp32_precision=fp32_precision, **options)]
    got += F.linear_cross_entropy_backward(1.0, h, w, target, fp32_precision=fp32_precision, **options)[:2]
    h, w, options = h.astype(float), w.astype(float), in_float64(options)
    want = [F.linear_cross_entropy(h, w, target, **options)]
    want += F.linear_cross_entropy_backward(1.0, h, w, target, **options)[:2]
    for ours, exact in zip(got, want, strict=True):
        assert relative_norm(ours, exact) <= CLOSE["ieee" if fp32_precision == "auto" else fp32_precision]


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2), (2, 3, 0), (0, 3, 0), (2, 0), (0, 0), (2, 0, 3), (1, 0)], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_promise_3_batch_norm_without_any_element(shape, training, tracked):
    """PyTorch's result, or an error where it has one."""
    channels = np.ones(shape[1], np.float32)
    statistics = dict.fromkeys(("running_mean", "running_var"), channels if tracked else None)
    arguments = {"input": np.zeros(shape, np.float32), **statistics, "weight": channels, "training": training}
    if shape[1]:
        return assert_equals_torch("batch_norm", arguments)
    with pytest.raises((IndexError, ValueError)):
        run_torch("batch_norm", arguments, {})
    with pytest.raises(ValueError, match=r"batch_norm: input: expected .* channel"):
        F.batch_norm(**arguments)
    return None
