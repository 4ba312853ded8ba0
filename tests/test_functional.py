"""fastmlp.functional: each function and its gradient beside torch.nn.functional's, and on every kind of array."""

import array
import functools
import inspect
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastmlp.functional as F
from tests.helpers import central_differences, relative_norm, require_ops

Array = np.ndarray
RNG = np.random.default_rng(2003)
START = RNG.bit_generator.state

FUNCTIONS = [name for name in F.__all__ if not name.endswith("_backward")]
DIFFERENTIABLE = {
    "embedding": ("weight",),
    "linear": ("input", "weight", "bias"),
    "batch_norm": ("input", "weight", "bias"),
    "tanh": ("input",),
    "softmax": ("input",),
    "log_softmax": ("input",),
    "cross_entropy": ("input",),
    "linear_cross_entropy": ("input", "linear_weight", "linear_bias"),
}
STATISTICS = ("running_mean", "running_var")
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def normal(*shape: int) -> Array:
    return np.asarray(RNG.standard_normal(shape), np.float32)


def example(name: str, N: int = 5, C: int = 4) -> dict[str, Any]:
    """Arguments of a function, none of them zero: float32 and int64, C-contiguous; C channels of batch_norm."""
    target = RNG.integers(0, 6, N)
    return {
        "embedding": {"input": RNG.integers(0, 6, (N, 3)), "weight": normal(6, 4)},
        "linear": {"input": normal(N, 3), "weight": normal(4, 3), "bias": normal(4)},
        "batch_norm": {
            "input": normal(N, C),
            "running_mean": normal(C),
            "running_var": np.abs(normal(C)) + 1,
            "weight": normal(C),
            "bias": normal(C),
            "training": True,
        },
        "tanh": {"input": normal(N, 4)},
        "softmax": {"input": normal(N, 4), "dim": -1},
        "log_softmax": {"input": normal(N, 4), "dim": -1},
        "cross_entropy": {"input": normal(N, 6), "target": target, "weight": np.abs(normal(6)) + 1},
        "linear_cross_entropy": {
            "input": normal(N, 3),
            "linear_weight": normal(6, 3),
            "target": target,
            "linear_bias": normal(6),
            "weight": np.abs(normal(6)) + 1,
        },
    }[name]


def copied(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value) if isinstance(value, Array) else value for name, value in arguments.items()}


def in_float64(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        n: v.astype(np.float64) if isinstance(v, Array) and v.dtype.kind == "f" else v for n, v in arguments.items()
    }


def gradients(name: str, grad: Any, arguments: dict[str, Any], output: Array | None = None) -> dict[str, Any]:
    """What `<name>_backward` gives, by the input's name."""
    backward = getattr(F, f"{name}_backward")
    arguments = {"output": output, **arguments}
    takes = [parameter for parameter in inspect.signature(backward).parameters if parameter in arguments]
    got = backward(grad, **{parameter: arguments[parameter] for parameter in takes})
    return dict(zip(DIFFERENTIABLE[name], got if isinstance(got, tuple) else (got,), strict=True))


def run_all(name: str, arguments: dict[str, Any], **extra: Any) -> list[Array]:
    """Output, what it updates, and gradients, for an upstream gradient that is the same in each call."""
    arguments = dict(arguments)
    output = getattr(F, name)(**arguments, **extra)
    grad = np.random.default_rng(7).standard_normal(output.shape).astype(output.dtype)
    found = gradients(name, grad, arguments, output)
    return [output, *(arguments[s] for s in ("running_mean", "running_var") if s in arguments), *found.values()]


def distance(got: Array, want: Array, what: str) -> float:
    """The norm of the difference, relative to that of what is wanted; for losses and zeros, at least to ones."""
    finite = np.isfinite(want)
    size, ones = np.linalg.norm(want[finite]), np.sqrt(finite.sum())
    if what.endswith("cross_entropy") or size < 1e-12:
        size = max(size, ones, 1)
    return float(np.linalg.norm((got.astype(np.float64) - want)[finite]) / size)


def assert_equal(got: Any, want: Any, close: float, what: str) -> None:
    """Shapes, NaN and infinities are equal; the rest is near."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, what
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite], err_msg=what)
    assert distance(got, want, what) <= close, what


def run_torch(name: str, arguments: dict[str, Any], options: dict[str, Any]) -> tuple[Array, dict[str, Array], dict]:
    """Output, gradients by the input's name, and running statistics, by PyTorch."""
    torch = pytest.importorskip("torch")
    tensors = {n: torch.tensor(v) if isinstance(v, Array) else v for n, v in arguments.items()}
    leaves = {n: tensors[n].requires_grad_() for n in DIFFERENTIABLE[name] if tensors.get(n) is not None}
    output = getattr(torch.nn.functional, name)(**tensors, **options)
    grad = torch.tensor(upstream(output.shape), dtype=output.dtype)
    found = torch.autograd.grad(output, list(leaves.values()), grad)
    updated = {n: tensors[n].numpy() for n in STATISTICS if tensors.get(n) is not None}
    return output.detach().numpy(), {n: g.numpy() for n, g in zip(leaves, found, strict=True)}, updated


def upstream(shape: tuple[int, ...]) -> Array:
    return np.asarray(np.random.default_rng(11).standard_normal(shape), np.float32)


def assert_equals_torch(name: str, arguments: dict[str, Any], **options: Any) -> None:
    """Promise 3: PyTorch's float64 within 1e-11; in float32 within 1e-5, or 4 x what its own float32 is off."""
    exact = in_float64(arguments)
    want, wanted, updated = run_torch(name, exact, options)
    plain, plain_wanted, _ = run_torch(name, arguments, options)
    for given_, dtype, close in ((exact, np.float64, 1e-11), (arguments, np.float32, 1e-5)):

        def bound(own: Array, truth: Array, what: str, close: float = close, dtype: type = dtype) -> float:
            return close if dtype is np.float64 else max(close, 4 * distance(own, truth, what))

        given_ = {**copied(given_), **options}
        got = getattr(F, name)(**given_)
        assert got.dtype == dtype
        assert_equal(got, want, bound(plain, want, name), name)
        found = gradients(name, upstream(want.shape).astype(dtype), given_, got)
        for leaf, gradient in wanted.items():
            assert found[leaf].dtype == dtype
            assert_equal(found[leaf], gradient, bound(plain_wanted[leaf], gradient, leaf), leaf)
        assert all(found[leaf] is None for leaf in found if leaf not in wanted)
        for statistic, value in updated.items():
            assert_equal(given_[statistic], value, close, statistic)


# ----------------------------------------------------------------------------------------------------- like PyTorch's


@every_function
def test_arguments_are_pytorchs(torch, name):
    """Names, order and defaults; what is ours alone is keyword-only."""
    ours = inspect.signature(getattr(F, name)).parameters
    if name == "linear":  # a builtin without a signature
        assert list(ours)[:3] == ["input", "weight", "bias"]
        assert torch.nn.functional.linear.__doc__.lstrip().startswith("linear(input, weight, bias=None)")
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
    np.testing.assert_allclose(getattr(F, f"{name}_backward")(dy, y), tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_promise_3_batch_norm_backward_takes_what_batch_norm_took():
    """By position too."""
    arguments = example("batch_norm")
    dy, momentum = normal(5, 4), 0.5
    by_name = F.batch_norm_backward(dy, **arguments)
    for got, want in zip(F.batch_norm_backward(dy, *arguments.values(), momentum), by_name, strict=True):
        np.testing.assert_array_equal(got, want)


@every_function
def test_promise_3_equals_pytorch_on_every_back_end(monkeypatch, ops, name):
    reference = F.ops_of(np.dtype(np.float64))
    monkeypatch.setattr(F, "ops_of", lambda dtype: ops if dtype == np.float32 else reference)
    assert_equals_torch(name, example(name))
    assert_equals_torch(name, LARGE[name]())


sizes = st.integers(1, 9)
lead = st.lists(st.integers(0, 4), max_size=3).map(tuple)
few = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


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
        assert_equal(ours["running_var"], theirs["running_var"], 1e-5, "running_var")


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
        assert_equal(got, torch.nn.functional.softmax(torch.tensor(x)), 1e-5, "softmax")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, np.float64])
def test_softmax_converts_to_dtype_first(torch, dtype):
    x = np.array([[1, 2, 4], [0, 5, 3]], dtype)
    for wanted in ("float32", "float64"):
        got = F.softmax(x, 1, dtype=wanted)
        assert got.dtype == wanted
        assert_equal(got, torch.softmax(torch.tensor(x.astype(np.float64)), 1), 1e-6, "softmax")


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
    assert_equal(got, getattr(torch, name)(torch.tensor(SPECIAL), 1), 1e-5, name)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_promise_3_cross_entropy_of_infinities(torch, smoothing):
    target = np.array([0, 0, 1, 2, 1])
    got = F.cross_entropy(SPECIAL, target, reduction="none", label_smoothing=smoothing)
    options = {"reduction": "none", "label_smoothing": smoothing}
    want = torch.nn.functional.cross_entropy(torch.tensor(SPECIAL), torch.tensor(target), **options)
    assert_equal(got, want, 1e-5, "cross_entropy")


@pytest.mark.parametrize("fp32_precision", ["auto", "ieee", "bf16x3", "bf16"])
@pytest.mark.parametrize("weighted", [False, True])
def test_precision(fp32_precision, weighted):
    """Each is within its bound of float64; what the CPU has not is refused by name."""
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
        assert relative_norm(ours, exact) <= (2**-7 if fp32_precision == "bf16" else 2e-5)


# ---------------------------------------------------------------------------------------------------------- gradients


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
    with pytest.raises(TypeError, match="cross_entropy_backward: grad: expected"):
        F.cross_entropy_backward(1.0, logits, target, reduction="none")


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_options_may_be_numbers_of_numpy(number):
    for options in ({}, {"weight": np.ones(4, np.float32)}):
        smoothed = {"input": normal(3, 4), "target": np.array([0, 1, 2]), **options, "label_smoothing": number(0.25)}
        assert all(part.dtype == np.float32 for part in run_all("cross_entropy", smoothed))
    arguments = example("batch_norm") | {"eps": number(0.25)}
    assert all(part.dtype == np.float32 for part in run_all("batch_norm", arguments))


# ------------------------------------------------------------------------------------------------- the kinds of arrays


def strided(x: Array) -> Array:
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), 99, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def unaligned(x: Array) -> Array:
    memory = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    memory[...] = x
    return memory


def read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def tensor(x: Array) -> Any:
    return pytest.importorskip("torch").tensor(x)


LAYOUTS = {
    "F-order": np.asfortranarray,
    "strided": strided,
    "backwards": lambda x: x[::-1].copy()[::-1],
    "unaligned": unaligned,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only": read_only,
    "read-only, strided": lambda x: read_only(strided(x))[...],
    "tensor": tensor,
    "buffer": lambda x: memoryview(x.copy()),
    "subclass": lambda x: x.copy().view(np.recarray),
}
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64, np.longlong]
REFUSED = {
    "object": lambda x: x.astype(object),
    "text": lambda x: x.astype(str),
    "complex": lambda x: x.astype(complex),
    "bool": lambda x: x.astype(bool),
    "masked": np.ma.masked_array,
    "list": lambda x: x.tolist(),
    "the other kind": lambda x: x.astype(np.int64 if x.dtype.kind == "f" else np.float32),
}


def array_arguments(name: str, kinds: str = "fi") -> list[str]:
    return [
        argument for argument, value in example(name).items() if getattr(value, "dtype", np.dtype(bool)).kind in kinds
    ]


def each_argument(kinds: str = "fi") -> Any:
    """Of each function each array, those of floats or of integers alone if need be."""
    pairs = [(name, argument) for name in FUNCTIONS for argument in array_arguments(name, kinds)]
    return pytest.mark.parametrize(("name", "argument"), pairs, ids=str)


@each_argument()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_promise_12_every_layout_is_converted(name, argument, layout):
    arguments = example(name)
    want = run_all(name, copied(arguments))
    given_ = copied(arguments)
    given_[argument] = LAYOUTS[layout](arguments[argument])
    if argument in STATISTICS and (layout.startswith("read-only") or layout == "byte-swapped"):
        if layout == "byte-swapped":
            getattr(F, name)(**given_)  # updated where it lies
            np.testing.assert_array_equal(given_[argument], want[1 + STATISTICS.index(argument)])
            return
        with pytest.raises(ValueError, match=f"{name}: {argument}: expected a writeable array, got a read-only one"):
            getattr(F, name)(**given_)
        getattr(F, name)(**given_ | {"training": False})
        return
    for got, wanted in zip(run_all(name, given_), want, strict=True):
        np.testing.assert_array_equal(np.asarray(got), wanted)


@each_argument()
@pytest.mark.parametrize("kind", REFUSED)
def test_promise_12_what_is_no_float_or_no_id_is_refused_by_name(name, argument, kind):
    arguments = example(name)
    arguments[argument] = REFUSED[kind](arguments[argument])
    with pytest.raises(TypeError, match=f"^{name}: {argument}: expected .*, got "):
        getattr(F, name)(**arguments)


@each_argument("f")
def test_promise_12_other_floats(name, argument):
    """float16 counts as float32; long double, and float64 beside float32, are refused."""
    arguments = example(name)
    half = arguments[argument].astype(np.float16)
    if argument not in STATISTICS:
        want = run_all(name, copied(arguments | {argument: half.astype(np.float32)}))
        for got, wanted in zip(run_all(name, copied(arguments | {argument: half})), want, strict=True):
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, wanted)
    with pytest.raises(TypeError, match=f"{name}: {argument}: expected float32.*, got {np.dtype(np.longdouble)}"):
        getattr(F, name)(**arguments | {argument: half.astype(np.longdouble)})
    if len(array_arguments(name, "f")) > 1:
        with pytest.raises(TypeError, match=f"{name}: .*: expected float(32|64).*, got float(64|32)"):
            getattr(F, name)(**arguments | {argument: half.astype(np.float64)})


@each_argument("i")
@pytest.mark.parametrize("dtype", INTEGERS)
def test_promise_12_every_integer_type_is_converted(name, argument, dtype):
    arguments = example(name)
    want = run_all(name, copied(arguments))
    for got, wanted in zip(run_all(name, arguments | {argument: arguments[argument].astype(dtype)}), want, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_promise_12_no_integer_wraps_around():
    """Of uint64, 2**64 - 100 would be the ignored -100."""
    with pytest.raises(IndexError, match="cross_entropy: target: expected numbers of int64, got 18446744073709551516"):
        F.cross_entropy(normal(1, 3), np.array([2**64 - 100], np.uint64))


def test_promise_12_buffers_and_tensors_share_their_memory(torch):
    mean, var = torch.zeros(3), array.array("f", [1, 1, 1])
    F.batch_norm(normal(4, 3) + 5, mean, var, training=True)
    assert mean.min() > 0
    assert np.all(np.asarray(var) != 1)
    with pytest.raises(TypeError, match=r"linear: weight: expected an array .* grad"):
        F.linear(normal(2, 3), torch.zeros(2, 3, requires_grad=True))
    with pytest.raises(TypeError, match="linear: input: expected"):
        F.linear(torch.zeros(2, 3, dtype=torch.bfloat16), normal(2, 3))


@every_function
def test_promise_12_zero_rows(name):
    arguments = example(name, N=0)
    assert_equals_torch(name, arguments)
    assert_equals_torch(name, arguments, **({"reduction": "none"} if "cross" in name else {}))


# --------------------------------------------------------------------------------------------------------------- out=


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
    np.testing.assert_allclose(x, want, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------- errors

X, W, IDS = np.ones((3, 4), np.float32), np.ones((5, 4), np.float32), np.array([0, 1, 2])
PROBABILITIES = np.ones((3, 5), np.float32)
ERRORS = [
    (lambda: F.embedding(np.array([5]), W), IndexError, r"embedding: input: expected ids in \[0, 5\), got 5"),
    (lambda: F.embedding(np.array([-1]), W), IndexError, r"embedding: input: expected ids in \[0, 5\), got -1"),
    (lambda: F.embedding(IDS, W[0]), ValueError, r"embedding: weight: expected shape \(V, D\), got \(4,\)"),
    (lambda: F.embedding(IDS, W, padding_idx=5), ValueError, r"padding_idx: expected None or .*, got 5"),
    (
        lambda: F.embedding(IDS, W, padding_idx=1.5),
        TypeError,
        "embedding: padding_idx: expected None or an id, got 1.5",
    ),
    (lambda: F.embedding(IDS, W, max_norm=1.0), NotImplementedError, "embedding: max_norm: expected None, got 1.0"),
    (lambda: F.embedding(IDS, W, sparse=True), NotImplementedError, "embedding: sparse: expected False"),
    (lambda: F.embedding_backward(W[:3], np.array([0, 9, 1]), W), IndexError, r"embedding_backward: input: .*got 9"),
    (lambda: F.embedding_backward(W, IDS, W), ValueError, r"embedding_backward: grad: expected shape \(3, 4\), got"),
    (lambda: F.linear(X, W[:, :3]), ValueError, r"linear: weight: expected shape .* with I = 4, got \(5, 3\)"),
    (lambda: F.linear(X, W, X[0]), ValueError, r"linear: bias: expected shape \(5,\), got \(4,\)"),
    (lambda: F.linear(X[0, 0], W), ValueError, r"linear: input: expected shape \(..., I\), got \(\)"),
    (lambda: F.linear_backward(X, X, W), ValueError, r"linear_backward: grad: expected shape \(3, 5\), got \(3, 4\)"),
    (lambda: F.batch_norm(X, None, None), ValueError, "batch_norm: running_mean: expected .* not training, got None"),
    (lambda: F.batch_norm(X, X[0], None, training=True), ValueError, "expected both or neither, got one"),
    (lambda: F.batch_norm(X, X[0], W[0, :3]), ValueError, r"running_var: expected shape \(4,\), got \(3,\)"),
    (lambda: F.batch_norm(X[0], None, None), ValueError, r"batch_norm: input: expected shape \(N, C\) or"),
    (lambda: F.batch_norm(X[:1], None, None, training=True), ValueError, "expected more than 1 value a channel"),
    (lambda: F.batch_norm(X, None, None, training=True, eps=0), ValueError, "batch_norm: eps: expected .*, got 0"),
    (lambda: F.batch_norm(X, X[0], X[0], eps=-1), ValueError, "batch_norm: eps: expected at least 0, got -1"),
    (
        lambda: F.batch_norm(X, X[0], X[0], momentum=None),
        TypeError,
        "batch_norm: momentum: expected a number, got None",
    ),
    (lambda: F.softmax(X, 2), IndexError, r"softmax: dim: expected an axis in \[-2, 2\), got 2"),
    (lambda: F.softmax(X, 0.5), TypeError, "softmax: dim: expected an integer, got 0.5"),
    (
        lambda: F.log_softmax(X, 1, dtype="int8"),
        NotImplementedError,
        "log_softmax: dtype: expected float32 or float64, got int8",
    ),
    (
        lambda: F.softmax(X, 1, dtype="no type"),
        TypeError,
        r"softmax: dtype: expected np\.float32 or np\.float64, got 'no",
    ),
    (lambda: F.softmax_backward(X, X, "last"), TypeError, "softmax_backward: dim: expected an integer, got 'last'"),
    (lambda: F.softmax_backward(X, W), ValueError, r"softmax_backward: grad: expected shape \(5, 4\), got \(3, 4\)"),
    (lambda: F.tanh_backward(X, W), ValueError, r"tanh_backward: grad: expected shape \(5, 4\), got \(3, 4\)"),
    (lambda: F.cross_entropy(X, IDS + 2), IndexError, r"cross_entropy: target: expected ids in \[0, 4\), got 4"),
    (lambda: F.cross_entropy(X, IDS - 1, X[0]), IndexError, r"cross_entropy: target: expected ids in .*, got -1"),
    (lambda: F.cross_entropy(X, IDS[:2]), ValueError, r"target: expected shape \(3,\) for classes or \(3, 4\) for"),
    (lambda: F.cross_entropy(X, X.astype(int)), TypeError, "cross_entropy: target: expected probabilities"),
    (lambda: F.cross_entropy(X, X, ignore_index=2), ValueError, "ignore_index: expected a negative one .*, got 2"),
    (lambda: F.cross_entropy(X, IDS, ignore_index=None), TypeError, "ignore_index: expected an integer, got None"),
    (lambda: F.cross_entropy(X, IDS, reduction="avg"), ValueError, "reduction: expected one of .*, got 'avg'"),
    (lambda: F.cross_entropy(X, IDS, label_smoothing=1.1), ValueError, "label_smoothing: expected .*, got 1.1"),
    (
        lambda: F.cross_entropy(X, IDS, W[0, :3]),
        ValueError,
        r"cross_entropy: weight: expected shape \(4,\), got \(3,\)",
    ),
    (lambda: F.cross_entropy(X, IDS, size_average=True), NotImplementedError, "size_average, reduce: expected None"),
    (lambda: F.cross_entropy(X[:, :0], IDS), ValueError, r"cross_entropy: input: .*one class at least, got \(3, 0\)"),
    (lambda: F.linear_cross_entropy(X, W, IDS + 3), IndexError, r"linear_cross_entropy: target: .* in \[0, 5\), got 5"),
    (
        lambda: F.linear_cross_entropy(X, W, IDS - 1, weight=W[:, 0]),
        IndexError,
        r"linear_cross_entropy: target: .* got -1",
    ),
    (lambda: F.linear_cross_entropy(X, W[:, :3], IDS), ValueError, r"linear_weight: expected .* H = 4, .*got \(5, 3\)"),
    (lambda: F.linear_cross_entropy(X, W[None], IDS), NotImplementedError, r"linear_weight: expected shape \(V, H\)"),
    (lambda: F.linear_cross_entropy(X, W, PROBABILITIES), NotImplementedError, "target: expected classes"),
    (lambda: F.linear_cross_entropy(X, W, IDS, options=1), NotImplementedError, "options: expected None, got 1"),
    (lambda: F.linear_cross_entropy(X, W, IDS, linear_bias=X[0]), ValueError, r"linear_bias: expected shape \(5,\)"),
    (lambda: F.linear_cross_entropy(X[None], W, IDS), ValueError, r"input: expected shape \(N, H\) or \(H,\)"),
    (lambda: F.tanh(X, threads=0), ValueError, "threads: expected a whole number from 1 to 1024, got 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_promise_12_errors_name_argument_expected_and_got(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ------------------------------------------------------------------------------------------------------------ threads

LARGE = {
    "embedding": lambda: {"input": RNG.integers(0, 50, (60, 20)), "weight": normal(50, 40)},
    "linear": lambda: {"input": normal(150, 120), "weight": normal(170, 120), "bias": normal(170)},
    "batch_norm": lambda: example("batch_norm", N=700, C=200),
    "tanh": lambda: {"input": normal(300, 400)},
    "softmax": lambda: {"input": normal(150, 700), "dim": 1},
    "log_softmax": lambda: {"input": normal(150, 700), "dim": 1},
    "cross_entropy": lambda: {"input": normal(150, 700), "target": RNG.integers(0, 700, 150)},
    "linear_cross_entropy": lambda: {
        "input": normal(90, 40),
        "linear_weight": normal(2_000, 40),
        "target": RNG.integers(0, 2_000, 90),
    },
}


@every_function
def test_promise_4_same_bits_for_any_threads(name):
    arguments = LARGE[name]()
    want = getattr(F, name)(**copied(arguments), threads=1).tobytes()
    assert all(getattr(F, name)(**copied(arguments), threads=threads).tobytes() == want for threads in (2, 3))
    backward = getattr(F, f"{name}_backward")
    output = getattr(F, name)(**copied(arguments))
    takes = inspect.signature(backward).parameters
    given_ = {n: v for n, v in {"output": output, **arguments}.items() if n in takes}
    found = []
    for threads in (1, 2, 3):
        got = backward(np.ones_like(output), **copied(given_), threads=threads)
        found.append([g.tobytes() for g in (got if isinstance(got, tuple) else (got,)) if g is not None])
    assert found[0] == found[1] == found[2]


def test_promise_16_two_python_threads_at_once():
    inputs = [LARGE["linear_cross_entropy"]() for _ in range(8)]
    want = [run_all("linear_cross_entropy", arguments) for arguments in inputs]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda arguments: run_all("linear_cross_entropy", arguments), inputs))
    for ours, alone in zip(got, want, strict=True):
        assert all((a is None and b is None) or a.tobytes() == b.tobytes() for a, b in zip(ours, alone, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 1, 1)], ids=str)
def test_batch_norm_does_not_train_on_one_value_a_channel(shape):
    with pytest.raises(ValueError, match=r"^batch_norm: input: expected more than 1 value a channel to train on"):
        F.batch_norm(np.ones(shape), None, None, training=True)


@pytest.mark.parametrize("target", [np.zeros((3, 1), int), np.zeros((5, 1), int), np.zeros(5, int)], ids=np.shape)
def test_classes_of_another_shape_are_not_taken_for_probabilities(target):
    h, weight = np.ones((3, 4)), np.ones((5, 4))
    with pytest.raises(ValueError, match=r"^linear_cross_entropy: target: expected shape \(3,\), got "):
        F.linear_cross_entropy(h, weight, target)
    with pytest.raises(NotImplementedError, match="probabilities are for cross_entropy"):
        F.linear_cross_entropy(h, weight, np.full((3, 5), 0.2))
