"""Arguments of each function, its gradients by name, and PyTorch's."""

import inspect
from typing import Any

import numpy as np
import pytest

import fastmlp.functional as F
from tests.helpers import CLOSE, allowed

Array = np.ndarray
RNG = np.random.default_rng(2003)
START = RNG.bit_generator.state
FUNCTIONS = [name for name in F.__all__ if not name.endswith("_backward")]
DIFFERENTIABLE = {
    "embedding": ("weight",),
    "linear": ("input", "weight", "bias"),
    "batch_norm": ("input", "weight", "bias"),
    "tanh": ("input",),
    "relu": ("input",),
    "gelu": ("input",),
    "dropout": ("input",),
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
        "relu": {"input": normal(N, 4)},
        "gelu": {"input": normal(N, 4)},
        "dropout": {"input": normal(N, 4), "p": 0.25, "seed": 7},
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
    """Return the results of `<name>_backward` by the input's name."""
    backward = getattr(F, f"{name}_backward")
    arguments = {"output": output, **arguments}
    takes = [parameter for parameter in inspect.signature(backward).parameters if parameter in arguments]
    got = backward(grad, **{parameter: arguments[parameter] for parameter in takes})
    return dict(zip(DIFFERENTIABLE[name], got if isinstance(got, tuple) else (got,), strict=True))


def run_all(name: str, arguments: dict[str, Any], **extra: Any) -> list[Array]:
    """Return output, updated arrays and gradients, for an upstream gradient that is the same in each call."""
    arguments = dict(arguments)
    output = getattr(F, name)(**arguments, **extra)
    grad = np.random.default_rng(7).standard_normal(output.shape).astype(output.dtype)
    found = gradients(name, grad, arguments, output)
    return [output, *(arguments[s] for s in ("running_mean", "running_var") if s in arguments), *found.values()]


def distance(got: Array, want: Array, what: str) -> float:
    """Return the norm of the difference relative to the wanted norm; for losses and zeros at least to that of ones."""
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
    function = dropout_with_our_mask if name == "dropout" else getattr(torch.nn.functional, name)
    output = function(**tensors, **options)
    grad = torch.tensor(upstream(output.shape), dtype=output.dtype)
    found = torch.autograd.grad(output, list(leaves.values()), grad)
    updated = {n: tensors[n].numpy() for n in STATISTICS if tensors.get(n) is not None}
    return output.detach().numpy(), {n: g.numpy() for n, g in zip(leaves, found, strict=True)}, updated


def dropout_with_our_mask(input: Any, p: float, seed: int, training: bool = True) -> Any:
    """What PyTorch makes of a mask, which it would draw by itself."""
    ones = np.ones(tuple(input.shape), input.detach().numpy().dtype)
    return input * input.new_tensor(F.dropout(ones, p, training, seed=seed))


def upstream(shape: tuple[int, ...]) -> Array:
    return np.asarray(np.random.default_rng(11).standard_normal(shape), np.float32)


def assert_equals_torch(name: str, arguments: dict[str, Any], **options: Any) -> None:
    """Promise 3: PyTorch's float64 within 1e-11; in float32 within what its own float32 is off, as promise 2 has it."""
    exact = in_float64(arguments)
    want, wanted, updated = run_torch(name, exact, options)
    plain, plain_wanted, _ = run_torch(name, arguments, options)
    for given_, dtype, close in ((exact, np.float64, 1e-11), (arguments, np.float32, CLOSE["float32"])):

        def bound(own: Array, truth: Array, what: str, close: float = close, dtype: type = dtype) -> float:
            return close if dtype is np.float64 else allowed(distance(own, truth, what))

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


def array_arguments(name: str, kinds: str = "fi") -> list[str]:
    return [
        argument for argument, value in example(name).items() if getattr(value, "dtype", np.dtype(bool)).kind in kinds
    ]


def each_argument(kinds: str = "fi") -> Any:
    """Return each array of each function, optionally only those of floats or integers."""
    pairs = [(name, argument) for name in FUNCTIONS for argument in array_arguments(name, kinds)]
    return pytest.mark.parametrize(("name", "argument"), pairs, ids=str)


LARGE = {
    "embedding": lambda: {"input": RNG.integers(0, 50, (60, 20)), "weight": normal(50, 40)},
    "linear": lambda: {"input": normal(150, 120), "weight": normal(170, 120), "bias": normal(170)},
    "batch_norm": lambda: example("batch_norm", N=700, C=200),
    "tanh": lambda: {"input": normal(300, 400)},
    "relu": lambda: {"input": normal(300, 400)},
    "gelu": lambda: {"input": normal(300, 400)},
    "dropout": lambda: {"input": normal(300, 400), "p": 0.5, "seed": 7},
    "softmax": lambda: {"input": normal(150, 700), "dim": 1},
    "log_softmax": lambda: {"input": normal(150, 700), "dim": 1},
    "cross_entropy": lambda: {"input": normal(150, 700), "target": RNG.integers(0, 700, 150)},
    "linear_cross_entropy": lambda: {
        "input": normal(90, 40),
        "linear_weight": normal(2_000, 40),
        "target": RNG.integers(0, 2_000, 90),
    },
}
