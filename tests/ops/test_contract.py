"""The contract of an op's arguments: the compiled check accepts the same arguments as the one in Python.

test_ops.py tests the refusals and their messages, for all ops.
"""

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.ops import OPS, contract
from tests.helpers import arguments, cast, contract_of, module_of, require_ops
from tests.inputs import example
from tests.ops.test_ops import FAULTS

Array = np.ndarray
every_op = pytest.mark.parametrize("op", OPS)


@pytest.fixture
def compiled() -> Any:
    """The class of the compiled checks."""
    return module_of(require_ops("cython")).Contract


def passes_in_python(op: str, arrays: list[Any]) -> bool:
    try:
        contract._check(op, tuple(contract_of(op).items()), tuple(arrays), np.dtype(np.float32))
    except (TypeError, ValueError, IndexError):
        return False
    return True


# ------------------------------------------------------------------------------------------------------ what it passes


@every_op
@pytest.mark.parametrize("id_type", [np.int32, np.int64])
@pytest.mark.parametrize("sizes", [{}, {"B": 2, "T": 1, "D": 1, "H": 1, "V": 2}, {"B": 65, "H": 33, "V": 300}], ids=str)
def test_what_fits_passes(compiled, op, id_type, sizes):
    """Otherwise each step would pay for both checks."""
    arrays = arguments(op, cast(example(op, **sizes), id_type))
    assert compiled(contract_of(op)).fits(tuple(arrays.values()), {})
    for name, want in contract_of(op).items():
        if want.optional:
            arrays[name] = None
    assert compiled(contract_of(op)).fits(tuple(arrays.values()), {})


@every_op
def test_an_empty_batch_passes(compiled, op):
    arrays = arguments(op, example(op))
    wanted = contract_of(op)
    empty = {
        name: array[tuple(slice(0 if {"B", "B*T", "U"} & {axis} else None) for axis in wanted[name].axes or ())]
        for name, array in arrays.items()
    }
    assert compiled(wanted).fits(tuple(empty.values()), {}) == passes_in_python(op, list(empty.values())) is True


# ----------------------------------------------------------------------------------------------------- what it refuses

CHANGES = {  # of an argument that fits: not all are faults of every argument
    "nothing": lambda array: array,
    **{name: spoil for name, (spoil, *_) in FAULTS.items()},
    "a row less": lambda array: array[:-1],
    "a column less": lambda array: np.ascontiguousarray(array[..., :-1]),
    "a place more": lambda array: np.concatenate([array, array[:, :1]], axis=1) if array.ndim > 1 else array,
    "transposed": lambda array: np.ascontiguousarray(array.T),
    "flat": np.ravel,
    "empty": lambda array: np.empty((0,) * array.ndim, array.dtype),
    "bytes swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "int64 for ids": lambda array: array.astype(np.int64) if array.dtype.kind == "i" else array,
    "unsigned ids": lambda array: array.view(f"u{array.itemsize}") if array.dtype.kind == "i" else array,
    "ids too large": lambda array: array + 7 if array.dtype.kind == "i" else array,
    "ids of -1": lambda array: array * 0 - 1 if array.dtype.kind == "i" else array,
    "ids below 0": lambda array: array - 7 if array.dtype.kind == "i" else array,
    "descending": lambda array: array[::-1].copy() if array.dtype.kind == "i" else array,
    "float16": lambda array: np.zeros(array.shape, np.float16),
    "zero": np.zeros_like,
    "a record": lambda array: np.zeros(array.shape, [("x", array.dtype)]),
    "a date": lambda array: np.zeros(array.shape, "M8[s]"),
    "an object": lambda array: array.astype(object),
}


@settings(max_examples=1_000)
@given(st.data())
def test_promise_12_nothing_passes_that_python_refuses(data):
    compiled = module_of(require_ops("cython")).Contract
    op = data.draw(st.sampled_from(OPS), label="op")
    arrays = arguments(op, example(op))
    for name in data.draw(st.lists(st.sampled_from([*arrays]), max_size=3, unique=True), label="arguments"):
        change = data.draw(st.sampled_from([*CHANGES]), label="change")
        if isinstance(arrays[name], np.ndarray):
            arrays[name] = CHANGES[change](arrays[name])
    if compiled(contract_of(op)).fits(tuple(arrays.values()), {}):
        assert passes_in_python(op, list(arrays.values()))


@every_op
@pytest.mark.parametrize("change", CHANGES)
def test_promise_12_each_change_of_each_argument_is_seen(compiled, op, change):
    check = compiled(contract_of(op))
    for name in contract_of(op):
        arrays = arguments(op, example(op))
        arrays[name] = CHANGES[change](arrays[name])
        assert check.fits(tuple(arrays.values()), {}) == passes_in_python(op, list(arrays.values())), name


@every_op
def test_promise_12_another_number_of_arrays_is_seen(compiled, op):
    arrays = tuple(arguments(op, example(op)).values())
    check = compiled(contract_of(op))
    assert not check.fits(arrays[:-1], {})
    assert not check.fits((*arrays, arrays[-1]), {})
    assert not check.fits((), {})


@pytest.mark.parametrize("name", contract.BOUNDS)
@pytest.mark.parametrize(
    "value", [-1, 0, 1, 2, 2**70, -(2**70), 0.0, 0.5, 1.0, 1.5, -0.1, np.nan, np.inf, True, np.float32(2), np.int8(0)]
)
def test_promise_12_options_out_of_range_are_seen(compiled, name, value):
    """Values that are not plain numbers go to the check in Python; valid plain ones pass at once."""
    low, high = contract.BOUNDS[name]
    arrays = tuple(arguments("tanh_forward", example("tanh_forward")).values())
    passes = compiled(contract_of("tanh_forward")).fits(arrays, {name: value})
    assert passes == (low <= value <= high and type(value) is (float if name in ("label_smoothing", "p") else int))


# ------------------------------------------------------ nothing is remembered: arrays change, others take their place


def make_read_only(array: Array) -> None:
    array.flags.writeable = False


def reshape_in_place(array: Array) -> None:
    array.resize(array.size, refcheck=False)


@pytest.mark.parametrize("change", [make_read_only, reshape_in_place])
def test_promise_12_an_array_that_was_accepted_and_then_changed_is_refused(ops, change):
    x, y = np.zeros((3, 5), np.float32), np.zeros((3, 5), np.float32)
    ops.tanh_forward(x, y)
    change(y)
    with pytest.raises(ValueError, match="tanh_forward: y: expected"):
        ops.tanh_forward(x, y)


def test_promise_12_ids_that_were_accepted_and_then_changed_are_refused(ops):
    weight, ids, emb = np.zeros((7, 2), np.float32), np.zeros((3, 1), np.int32), np.zeros((3, 1, 2), np.float32)
    ops.embedding_forward(weight, ids, emb)
    ids[1] = 7
    with pytest.raises(IndexError, match="ids: expected ids in"):
        ops.embedding_forward(weight, ids, emb)


def test_promise_12_an_array_in_the_place_of_one_that_is_gone_is_refused(ops):
    """Python gives the new one the address of the old one: an identity says nothing."""
    x = np.zeros((3, 5), np.float32)
    addresses = set()
    for shape in [(3, 5), (5, 3)] * 20:
        y = np.zeros(shape, np.float32)
        addresses.add(id(y))
        if shape == x.shape:
            ops.tanh_forward(x, y)
        else:
            with pytest.raises(
                ValueError, match=r"y: expected shape \(5, 3\), got \(3, 5\)|y: expected shape \(3, 5\), got \(5, 3\)"
            ):
                ops.tanh_forward(x, y)
        del y
    assert len(addresses) < 40


@every_op
@pytest.mark.parametrize("change", CHANGES)
def test_no_array_is_kept_alive(compiled, op, change):
    """Neither accepted nor refused arrays leak, at an early or a late check."""
    check, first = compiled(contract_of(op)), next(iter(contract_of(op)))
    for name in (first, *list(contract_of(op))[-1:]):
        arrays = arguments(op, example(op))
        arrays[name] = CHANGES[change](arrays[name])
        given = tuple(arrays.values())
        kept = [array for array in given if isinstance(array, np.ndarray)]
        counts = [sys.getrefcount(array) for array in kept]
        check.fits(given, {})
        assert [sys.getrefcount(array) for array in kept] == counts


def test_a_subclass_of_ndarray_is_accepted(ops, tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 3))
    x[...] = 0.5
    y = np.zeros((2, 3), np.float32)
    ops.tanh_forward(x, y)
    np.testing.assert_allclose(y, np.tanh(0.5), rtol=1e-6)
