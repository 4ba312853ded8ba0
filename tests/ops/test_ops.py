"""The op table: three back-ends with the same functions, arguments refused with a reason, the rule of stems."""

import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from fastmlp.ops import BACKENDS, OPS, BackendUnavailableError, get_ops, reference, stem
from tests.helpers import arguments, contract_of, module_of, require_ops, run
from tests.inputs import example, options_of

ROOT = Path(__file__).parents[2]
STEMS = sorted({stem(op) for op in OPS})
every_op = pytest.mark.parametrize("op", OPS)


def call(ops, op, arrays, **options):
    return getattr(ops, op)(*arrays.values(), **options_of(op), **options)


# ------------------------------------------------------------------------------------------------------ the back-ends


def declaration(op):
    """An op's arguments, its options and the defaults of these.

    Not inspect.signature, which trusts a fused Cython function's __defaults__: those are its options', not its arrays'.
    """
    code = op.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    arrays, options = names[: code.co_argcount], names[code.co_argcount :]
    defaults = op.__kwdefaults__ or dict(zip(options[::-1], (op.__defaults__ or ())[::-1], strict=False))
    return arrays, options, defaults


@every_op
def test_back_ends_have_the_same_arguments_and_defaults(ops, op):
    assert declaration(getattr(module_of(ops), op)) == declaration(getattr(reference, op))


def test_back_ends_have_no_other_ops(ops):
    functions = {name for name, value in vars(module_of(ops)).items() if callable(value)}
    assert {name for name in functions if re.match(f"({'|'.join(STEMS)})(_|$)", name)} == set(OPS)


@every_op
def test_back_ends_take_the_number_of_threads(ops, op):
    call(ops, op, arguments(op, example(op)), threads=2)


def test_unknown_back_end():
    with pytest.raises(ValueError, match="backend: expected one of cython, numba, numpy, got 'nonsense'"):
        get_ops("nonsense")


def test_unavailable_back_end_is_an_error(monkeypatch):
    """Never another back-end in its place."""
    monkeypatch.setitem(BACKENDS, "unbuilt", "unbuilt_ops")
    with pytest.raises(BackendUnavailableError, match=r"the unbuilt back-end is not available: .*unbuilt_ops"):
        get_ops("unbuilt")


PLACES = {  # where an op's stem is, and what else is in a folder of ops: files with "_" before their names, and these
    "fastmlp/ops/reference/{}.py": set(),
    "fastmlp/ops/numba_ops/{}.py": set(),
    "fastmlp/functional/{}.py": {"relu"},
    "kernels/{}.pyx": {"contract", "core"},
    "tests/ops/test_{}.py": None,  # and tests of whole back-ends
    "benchmarks/bench_{}.py": None,
}
# in public these are fastmlp.optim, NumPy's + and three modules of nn in sequence; the last is the trainer's alone
WITHOUT_FUNCTION = {"update", "add", "batchnorm_gelu_dropout", "context_averages"}


@pytest.mark.parametrize("place", PLACES)
def test_rule_of_stems(place):
    """An op's stem is in each of these folders, or it is not an op."""
    before, after = Path(place).name.split("{}")
    found = {path.name.removeprefix(before).removesuffix(after) for path in ROOT.glob(place.format("*"))}
    wanted = set(STEMS) - (WITHOUT_FUNCTION if "functional" in place else set())
    assert wanted <= found
    if PLACES[place] is not None:
        assert {name for name in found - wanted if not name.startswith("_")} == PLACES[place]


# ------------------------------------------------------------------------------------------ what is refused, and how


def as_type(dtype):
    return lambda array: np.zeros(array.shape, dtype)


def strided(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


def unaligned(array):
    return np.frombuffer(b"?" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def is_float(want):
    return want.holds == "float"


def is_id(want):
    return want.holds == "id"


def is_int64(want):
    return want.holds == "int64"


def is_matrix(want):
    return want.axes is None or len(want.axes) > 1


def has_axes(want):
    return want.axes is not None


def is_written(want):
    return want.written


def is_any(want):
    return True


# fmt: off
FAULTS = {  # the change of an argument, the error, its message, and the arguments for which it is a fault
    "a list": (np.ndarray.tolist, TypeError, "{name}: expected a NumPy array, got list", is_any),
    "None": (lambda _: None, TypeError, "{name}: expected a NumPy array, got NoneType", lambda want: not want.optional),
    "float32 for ids": (as_type(np.float32), TypeError, "{name}: expected int.*, got float32", is_id),
    "int16 for ids": (as_type(np.int16), TypeError, "{name}: expected int.*, got int16", is_id),
    "float32 for int64": (as_type(np.float32), TypeError, "{name}: expected int64, got float32", is_int64),
    "int32 for int64": (as_type(np.int32), TypeError, "{name}: expected int64, got int32", is_int64),
    "int32 for floats": (as_type(np.int32), TypeError, "{name}: expected .*float.*, got int32", is_float),
    "bool for floats": (as_type(bool), TypeError, "{name}: expected .*float.*, got bool", is_float),
    "mixed floats": (as_type(np.float64), TypeError, r"\w+: expected float(32|64), got float(32|64)", is_float),
    "an axis more": (lambda array: array[None], ValueError, r"{name}: expected shape \(.*\).*, got \(1, ", has_axes),
    "strides": (strided, ValueError, "{name}: expected a C-contiguous array, got strides", is_any),
    "Fortran order": (np.asfortranarray, ValueError, "{name}: expected a C-contiguous array, got strides", is_matrix),
    "unaligned": (unaligned, ValueError, "{name}: expected an aligned array, got address", is_any),
    "read-only": (read_only, ValueError, "{name}: expected a writeable array, got a read-only one", is_written),
}
# fmt: on


def assert_refused(ops, op, arrays, error, message):
    """With the op, the argument, what was expected and what came, and before anything is written."""
    before = {name: np.copy(array) for name, array in arrays.items()}
    with pytest.raises(error, match=f"^{op}: {message}"):
        call(ops, op, arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


@every_op
@pytest.mark.parametrize("fault", FAULTS)
def test_promise_12_refuses_what_does_not_fit(ops, op, fault):
    spoil, error, message, is_fault = FAULTS[fault]
    for name in (name for name, want in contract_of(op).items() if is_fault(want)):
        arrays = arguments(op, example(op))
        assert_refused(ops, op, arrays | {name: spoil(arrays[name])}, error, message.format(name=name))


@every_op
def test_promise_12_refuses_sizes_that_disagree(ops, op):
    wanted = contract_of(op)
    axes = [axis for want in wanted.values() for axis in want.axes or ["..."]]
    letters = [letter for axis in axes for letter in axis.rstrip("+").split("*")]
    for name, want in wanted.items():
        for position, axis in enumerate(want.axes or ["..."]):
            if letters.count(axis.rstrip("+")) != 1 or axis.isdigit():  # else it is free
                arrays = arguments(op, example(op))
                other = np.insert(arrays[name], 0, 1, axis=position)
                if axis.endswith("+"):  # which may be longer
                    other = np.delete(arrays[name], 0, axis=position)
                assert_refused(ops, op, arrays | {name: other}, ValueError, r"\w+: expected shape .*, got \(\d+,")


@every_op
def test_promise_12_refuses_ids_out_of_range(ops, op):
    for name in (name for name, want in contract_of(op).items() if want.holds == "id" and not want.written):
        bounded, lowest = contract_of(op)[name].below is not None, contract_of(op)[name].lowest
        expected = rf"ids in \[{lowest}, 7\)" if bounded else f"ids of at least {lowest}"
        for bad in (lowest - 1, 7) if bounded else (lowest - 1,):
            given = example(op)
            given[name].flat[1] = bad
            assert_refused(ops, op, arguments(op, given), IndexError, f"{name}: expected {expected}, got {bad}$")


@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op in OPS for name, want in contract_of(op).items() if want.ascending]
)
@pytest.mark.parametrize("order", [[0, 0], [1, 0]], ids=["twice", "descending"])
def test_promise_12_refuses_rows_out_of_order(ops, op, name, order):
    given = example(op)
    given[name][:2] = given[name][order]
    assert_refused(ops, op, arguments(op, given), ValueError, f"{name}: expected ascending ids without duplicates")


@every_op
def test_promise_12_refuses_another_number_of_arrays(ops, op):
    *arrays, _ = arguments(op, example(op)).values()
    with pytest.raises(TypeError, match=rf"^{op}: expected {len(arrays) + 1} arrays \(.*\), got {len(arrays)}"):
        getattr(ops, op)(*arrays, **options_of(op))


@every_op
def test_promise_12_refuses_no_threads(ops, op):
    with pytest.raises(ValueError, match=f"^{op}: threads: expected at least 1, got 0"):
        call(ops, op, arguments(op, example(op)), threads=0)


@pytest.mark.parametrize(
    ("op", "name", "value"),
    [
        ("update_adamw", "step", 0),
        ("cross_entropy_forward", "label_smoothing", 1.5),
        ("tanh_forward", "threads", -1),
        ("dropout_forward", "p", 1.0),
        ("dropout_forward", "p", -0.1),
        ("dropout_backward", "p", np.nan),
        ("dropout_forward", "layer", -1),
        ("dropout_backward", "layer", 2**32),
    ],
)
def test_promise_12_refuses_options_out_of_range(ops, op, name, value):
    options = {**options_of(op), name: value}
    with pytest.raises(ValueError, match=f"^{op}: {name}: expected .*, got {value}"):
        getattr(ops, op)(*arguments(op, example(op)).values(), **options)


def test_promise_12_ids_of_ignored_rows_are_not_looked_at(ops):
    for op in (op for op in OPS if "row_scale" in contract_of(op)):
        given = example(op) | {"targets": np.array([-(2**31), 2**31 - 1, 7, -1, 6], np.int32)}
        given["row_scale"] = np.array([0, 0, 0, 0, 1], np.float32)
        run(ops, op, given, **options_of(op))


def test_promise_12_ids_that_are_of_no_row_are_looked_at_whatever_is_ignored(ops):
    """Even where there are as many of them as rows."""
    op = "linear_cross_entropy_update"
    given = example(op) | {"held": np.array([0, 1, 2, 3, 7], np.int32), "row_scale": np.zeros(5, np.float32)}
    assert_refused(ops, op, arguments(op, given), IndexError, r"held: expected ids in \[0, 7\), got 7$")
    given["held"][3:] = 5
    assert_refused(ops, op, arguments(op, given), ValueError, "held: expected ascending ids without duplicates")


def in_a_new_process(*arguments, **environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.parametrize("flush", ["before", "behind"])
def test_promise_12_stays_inside_its_arrays(ops, flush, as_thorough):
    """Every array of every op lies against a page that may not be touched."""
    done = in_a_new_process("-m", "tests.guard_pages", ops.backend, flush, *as_thorough)
    assert done.returncode == 0, f"status {done.returncode} at {done.stdout.splitlines()[-1:]}\n{done.stderr}"


@pytest.mark.parametrize(("flush", "outside"), [("before", -1), ("behind", 12)])
def test_guard_pages_kill_who_touches_them(flush, outside):
    fence = f"array = fenced(np.zeros(3, np.float32), {flush!r})"
    touch = f"ctypes.string_at(array.ctypes.data + {outside}, 1)"
    done = in_a_new_process("-c", f"from tests.guard_pages import *; {fence}; print('fenced', flush=True); {touch}")
    assert done.returncode == -signal.SIGSEGV
    assert done.stdout == "fenced\n"


@pytest.mark.parametrize("variant", ["amx", "avx512_bf16", "avx512", "avx2", "neon", "portable"])
def test_promise_2_and_12_hold_for_every_simd_variant(variant, as_thorough):
    """The tests of the ops once more, on the compiled back-end made to use another instruction set."""
    require_ops("cython")
    compiled = import_module("fastmlp.ops.cython_ops")
    if variant == compiled.variant() or variant not in compiled.variants():
        pytest.skip(f"{variant} is what all tests run on, or not for this CPU: it runs {compiled.variants()}")
    files = [f"tests/ops/test_{op}.py" for op in STEMS]
    chosen = "cython and (promise_2 or promise_3 or promise_4 or promise_13 or edge or fused_update or stays_inside)"
    done = in_a_new_process("-m", "pytest", "-qx", *as_thorough, "-k", chosen, *files, __file__, FASTMLP_SIMD=variant)
    assert done.returncode == 0, done.stdout
