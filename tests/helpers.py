"""Helpers of the ops' tests: calling an op, and checking its outputs."""

import functools
import importlib
import inspect
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastmlp.ops import BACKENDS, OPS, BackendUnavailableError, Ops, get_ops, reference

Array = np.ndarray
Inputs = Mapping[str, Array | None]

NUMPY = get_ops("numpy")

# ------------------------------------------------------------------------------------------------------ the back-ends


def require_ops(backend: str) -> Ops:
    """Return a back-end's ops; without it the test is skipped, or fails if the kernels are required."""
    try:
        return get_ops(backend)
    except BackendUnavailableError as error:
        if backend == "cython" and os.environ.get("FASTMLP_REQUIRE_KERNELS") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@dataclass(frozen=True)
class OpsAt(Ops):
    """Return a back-end's ops, with its products in one precision."""

    fp32_precision: str


def at_precision(ops: Ops, fp32_precision: str) -> OpsAt:
    """Skip the test if the back-end has no such products on this CPU."""
    if fp32_precision not in ops.precisions():
        pytest.skip(f"no {fp32_precision} products here: {', '.join(ops.precisions())}")
    table = {field.name: getattr(ops, field.name) for field in fields(Ops)}
    for name, op in table.items():
        if name.startswith("linear_"):
            table[name] = partial(op, fp32_precision=fp32_precision)
    return OpsAt(**table, fp32_precision=fp32_precision)


def module_of(ops: Ops) -> ModuleType:
    """Return the module whose functions `ops` checks and calls."""
    return importlib.import_module(f"fastmlp.ops.{BACKENDS[ops.backend]}")


def clocked_ops(backend: str) -> tuple[Ops, Callable[[], float]]:
    """A back-end's ops, and the seconds that its kernels have taken so far.

    The rest of a training step's time is Python between the kernels. That includes the checks of arguments and the
    clock's own half a microsecond for each op, but not the access to an array's memory in a compiled op.
    """
    module, spent = module_of(require_ops(backend)), [0.0]

    def clocked(op: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(op)
        def clocked_op(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return op(*args, **options)
            finally:
                spent[0] += time.perf_counter() - began

        return clocked_op

    with pytest.MonkeyPatch.context() as patch:
        for op in OPS:
            patch.setattr(module, op, clocked(getattr(module, op)))
        return get_ops.__wrapped__(backend), lambda: spent[0]


# -------------------------------------------------------------------------------------------------------- calling ops

MARGIN = 17  # odd, so that an array inside a frame is not aligned


def unwritten(dtype: np.dtype) -> float:
    """Return the value of an unwritten output: NaN, or an id that no op returns."""
    return math.nan if dtype.kind == "f" else -(2**31)


def count_unwritten(array: Array) -> int:
    return int(np.isnan(array).sum() if array.dtype.kind == "f" else (array == unwritten(array.dtype)).sum())


def framed(array: Array) -> Array:
    """Return a copy framed by `unwritten`, so that reads past its ends give NaN and writes are detected."""
    frame = np.full(array.size + 2 * MARGIN, unwritten(array.dtype), array.dtype)
    frame[MARGIN:-MARGIN] = array.ravel()
    return frame[MARGIN:-MARGIN].reshape(array.shape)


NO_IDS = ("counter",)  # of integers that are int64 whatever the ids are


def cast(given: Inputs, dtype: type) -> dict[str, Array | None]:
    """The same inputs, with the float arrays in a float `dtype` or the id arrays in an integer one."""
    kind = np.dtype(dtype).kind
    return {
        name: array.astype(dtype) if array is not None and array.dtype.kind == kind and name not in NO_IDS else array
        for name, array in given.items()
    }


def contract_of(op: str) -> dict[str, Any]:
    """Return the declarations of an op's arrays, in its order of arguments."""
    return getattr(reference, op).arrays


def arguments(op: str, given: Inputs, place: Callable[[Array], Array] = framed) -> dict[str, Array | None]:
    """Return an op's arrays: the given inputs read-only, copies of its in/out arrays, its outputs full of NaN.

    given  by name, may hold more than the op takes; a written argument among them is in/out, or left out if None
    place  copies an array to the memory to test
    """
    wanted = contract_of(op)
    known = {name: given[name] for name in wanted if given.get(name) is not None}
    dtypes = {wanted[name].holds: array.dtype for name, array in known.items()}
    any_shape = next(iter(known.values())).shape
    sizes = {axis: size for name in known for axis, size in zip(wanted[name].axes or (), known[name].shape)}  # noqa: B905

    def empty(want: Any) -> Array:
        axes = want.axes and [math.prod(sizes[letter] for letter in axis.rstrip("+").split("*")) for axis in want.axes]
        return np.full(any_shape if axes is None else axes, unwritten(dtypes[want.holds]), dtypes[want.holds])

    arrays = {name: given[name] if name in given else empty(want) for name, want in wanted.items()}
    arrays = {name: None if array is None else place(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array is not None and not wanted[name].written:
            array.flags.writeable = False
    return arrays


def run(ops: Ops, op: str, given: Inputs, **options: Any) -> dict[str, Array]:
    """Call an op and return all its outputs by name; its return value, if any, is "returned".

    Asserts that outputs are completely written, and nothing outside them.
    """
    arrays = arguments(op, given)
    returned = getattr(ops, op)(*arrays.values(), **options)
    written = {name: arrays[name] for name, want in contract_of(op).items() if want.written}
    written = {name: array for name, array in written.items() if array is not None}
    for name, array in written.items():
        assert count_unwritten(array) == 0, f"{op} left entries of {name} unwritten, or NaN"
        assert count_unwritten(array.base) == 2 * MARGIN, f"{op} wrote outside {name}"
    return written if returned is None else {**written, "returned": np.asarray(returned)}


def run_chain(ops: Ops, chain: Sequence[str], given: Inputs, **options: Any) -> dict[str, Array]:
    """Run ops in turn, each on the given arrays and the outputs before it, with those options that it has."""
    outputs: dict[str, Array] = {}
    for op in chain:
        known = inspect.signature(getattr(reference, op)).parameters
        takes = known | options if "options" in known else known
        outputs |= run(ops, op, {**given, **outputs}, **{name: options[name] for name in options if name in takes})
    return outputs


# ------------------------------------------------------------------------------------------------------------ judging

# Tolerances relative to the norm of the true result, by its type or the precision of its products: for float32 a
# hundred roundings, and where sums cancel a multiple of the own error of float32 NumPy or PyTorch (promise 2), since
# no fixed number holds on every CPU; for bf16 two roundings.
CLOSE = {"float64": 1e-12, "float32": 1e-5, "ieee": 1e-5, "bf16x3": 2e-5, "bf16": 2**-7}
WORSE_THAN_NUMPY = {"ieee": 4, "bf16x3": 16}
SAME_LOSSES = 1e-4  # promise 3: of each loss, over the steps of a training


def allowed(own_error: float, fp32_precision: str = "ieee") -> float:
    """Promise 2: return the tolerance of a result, given the own error of float32 NumPy or PyTorch."""
    return max(CLOSE["float32"], WORSE_THAN_NUMPY[fp32_precision] * own_error)


def relative_norm(got: Array, want: Array) -> float:
    """|got - want| / |want|, in float64; 0 where both are 0 or there is nothing to compare."""
    want = np.asarray(want, np.float64)
    distance = np.linalg.norm((np.asarray(got, np.float64) - want).ravel())
    return float(distance / np.linalg.norm(want.ravel())) if distance else 0.0


def assert_close_like_numpy(
    ops: Ops,
    chain: Sequence[str],
    given: Inputs,
    parts: Mapping[str, Mapping[str, Array]] | None = None,
    *,
    numpy_within: float = CLOSE["float32"],
    few: bool = False,
    **options: Any,
) -> None:
    """Promise 2: each output is close to the float64 reference.

    The relative norm of the difference is at most what float32 NumPy's own error allows; for products of bf16
    max(2^-7, 4 x the error of the reference with its operands rounded).

    parts         for some outputs, masks of the entries that are compared separately, by name
    numpy_within  what float32 NumPy's own error may be, a bound on the tolerance; for the NumPy back-end
                  that is the whole test
    few           two or three products make a number, or two sums: where they cancel, less is left than each is off in
                  bf16
    """
    exact = run_chain(NUMPY, chain, cast(given, np.float64), **options)
    plain = run_chain(NUMPY, chain, given, **options)
    fp32_precision = getattr(ops, "fp32_precision", "ieee")
    if fp32_precision == "bf16":
        rounded = run_chain(NUMPY, chain, cast(rounded_to_bf16(given), np.float64), **options)
    got = run_chain(ops, chain, given, **options)
    failures = []
    for name, want in exact.items():
        if want.dtype.kind in "ib":
            np.testing.assert_array_equal(got[name], want, err_msg=name)
            continue
        assert got[name].dtype == np.float32
        for part, mask in ((parts or {}).get(name) or {"all": ...}).items():
            error, own_error = (relative_norm(outputs[name][mask], want[mask]) for outputs in (got, plain))
            if ops.backend == "numpy":
                bound = numpy_within
            elif fp32_precision == "bf16":
                bound = max(CLOSE["bf16"], 4 * relative_norm(rounded[name][mask], want[mask]))
            else:
                bound = allowed(own_error, fp32_precision)
            if few and fp32_precision != "ieee":
                bound *= 10
            if not (error <= bound and own_error <= numpy_within):
                failures.append(f"{name} ({part}): {error:.2g} off, float32 NumPy {own_error:.2g}")
    assert not failures, "\n".join(failures)


def rounded_to_bf16(given: Inputs) -> Inputs:
    """Return the operands of products rounded to bf16, to the nearest, halves to even."""
    operands = {name: given[name].view(np.uint32) for name in ("h", "weight", "x", "dy") if name in given}
    return {**given} | {
        name: ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
        for name, bits in operands.items()
    }


def assert_gradients(
    op: str, given: dict[str, Array], upstream: Inputs, gradients: Mapping[str, Array], **options: Any
) -> None:
    """Promise 1: gradients equal central differences of the reference's forward pass in float64.

    given      inputs in float64; they are perturbed in place and put back
    upstream   for the outputs that count, the gradient of the total with respect to them
    gradients  the outputs of the backward pass, by the input's name
    """

    def total() -> float:
        outputs = run(NUMPY, op, given, **options)
        return float(sum(np.vdot(gradient, outputs[name]) for name, gradient in upstream.items()))

    for name, gradient in gradients.items():
        want = central_differences(total, given[name])
        np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-8, err_msg=f"gradient of {name}")


def central_differences(total: Callable[[], float], x: Array, eps: float = 1e-6) -> Array:
    """Return the numerical gradient of total() with respect to an array that it reads."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + eps
        above = total()
        x[index] = kept - eps
        below = total()
        x[index] = kept
        gradient[index] = (above - below) / (2 * eps)
    return gradient


def tensors(given: Inputs) -> dict[str, Any]:
    """Return the arrays as PyTorch tensors: floats in float64 that require gradients, ids in int64."""
    torch = pytest.importorskip("torch")
    return {
        name: array
        if array is None
        else torch.tensor(array, dtype=torch.float64, requires_grad=True)
        if array.dtype.kind == "f"
        else torch.tensor(array, dtype=torch.int64)
        for name, array in given.items()
    }


def precision(ops: Ops) -> tuple[type, float]:
    """Return the float type in which a back-end is compared with PyTorch's float64, and the tolerance."""
    if ops.backend == "numpy":
        return np.float64, CLOSE["float64"]
    return np.float32, CLOSE[getattr(ops, "fp32_precision", "ieee")]


def assert_equals_pytorch(
    ops: Ops, chain: Sequence[str], given: Inputs, want: Mapping[str, Any], **options: Any
) -> None:
    """Promise 3: outputs equal PyTorch's in float64.

    want  PyTorch's tensors by the names of the outputs
    """
    dtype, close = precision(ops)
    got = run_chain(ops, chain, cast(given, dtype), **options)
    for name, tensor in want.items():
        assert_near(got[name], tensor, close, name)


def assert_near(got: Any, want: Any, close: float, name: str = "") -> None:
    """Assert that an array or tensor is near the wanted one, with the same shape and the same NaN."""
    got, want = (np.asarray(each.detach().double() if hasattr(each, "detach") else each) for each in (got, want))
    assert got.shape == want.shape, name
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=name)
    error = relative_norm(np.nan_to_num(got), np.nan_to_num(want))
    assert error <= close, f"{name} is {error:.2g} off"


def assert_same_bits_for_any_threads(ops: Ops, chain: Sequence[str], given: Inputs, **options: Any) -> None:
    """Promise 4: no result depends on the number of threads."""
    alone = run_chain(ops, chain, given, threads=1, **options)
    for threads in (2, 3):
        together = run_chain(ops, chain, given, threads=threads, **options)
        for name, want in alone.items():
            assert together[name].tobytes() == want.tobytes(), f"{name}: {threads} threads give other bits than 1"
