"""fastmlp.functional on every kind of array, and the errors that name an argument."""

import array

import numpy as np
import pytest

import fastmlp.functional as F
from tests.functional.helpers import (
    STATISTICS,
    array_arguments,
    assert_equals_torch,
    copied,
    each_argument,
    every_function,
    example,
    gradients,
    normal,
    read_only,
    run_all,
    strided,
    tensor,
    unaligned,
)

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
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(x.tolist()),
}
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64, np.longlong]
REFUSED = {
    "object": lambda x: x.astype(object),
    "text": lambda x: x.astype(str),
    "complex": lambda x: x.astype(complex),
    "bool": lambda x: x.astype(bool),
    "masked": np.ma.masked_array,
    "ragged list": lambda x: [*x.tolist(), [[0], 0]],
    "the other kind": lambda x: x.astype(np.int64 if x.dtype.kind == "f" else np.float32),
}


@each_argument()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_promise_12_every_layout_is_converted(name, argument, layout):
    arguments = example(name)
    want = run_all(name, copied(arguments))
    given_ = copied(arguments)
    given_[argument] = LAYOUTS[layout](arguments[argument])
    if argument in STATISTICS and layout in ("list", "tuple"):  # what is written to must be an array
        with pytest.raises(TypeError, match=f"{name}: {argument}: expected an array"):
            getattr(F, name)(**given_)
        return
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
    """float16 beside float32 counts as that; long double, and float64 beside float32, are refused."""
    arguments = example(name)
    half = arguments[argument].astype(np.float16)
    if argument not in STATISTICS and len(array_arguments(name, "f")) > 1:
        want = run_all(name, copied(arguments | {argument: half.astype(np.float32)}))
        for got, wanted in zip(run_all(name, copied(arguments | {argument: half})), want, strict=True):
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, wanted)
    with pytest.raises(TypeError, match=f"{name}: {argument}: expected float32.*, got {np.dtype(np.longdouble)}"):
        getattr(F, name)(**arguments | {argument: half.astype(np.longdouble)})
    if len(array_arguments(name, "f")) > 1:
        with pytest.raises(TypeError, match=f"{name}: .*: expected float(32|64).*, got float(64|32)"):
            getattr(F, name)(**arguments | {argument: half.astype(np.float64)})


@every_function
@pytest.mark.parametrize("half", ["<f2", ">f2"])
def test_float16_keeps_its_type(name, half):
    """Output, gradients and what is changed in place are those of float32, rounded once."""
    arguments, floats = example(name), array_arguments(name, "f")
    arguments |= {argument: arguments[argument].astype(half) for argument in floats}
    wide = arguments | {argument: arguments[argument].astype(np.float32) for argument in floats}
    output, wanted = getattr(F, name)(**arguments), getattr(F, name)(**wide)
    statistics = [argument for argument in STATISTICS if argument in arguments]
    grad = output.astype(np.float32)
    found = [output, *gradients(name, output, arguments, output).values()]
    want = [wanted, *gradients(name, grad, wide, grad).values()]
    assert {result.dtype for result in found} == {np.dtype(np.float16)}
    found, want = ([*results, *map(of.get, statistics)] for results, of in ((found, arguments), (want, wide)))
    for result, expected in zip(found, want, strict=True):
        np.testing.assert_array_equal(result, expected.astype(np.float16))


def test_float16_is_changed_in_place_and_refused_where_it_is_too_narrow(torch):
    x, out = np.array([-1, 0.3, 2], np.float16), np.empty(3, np.float16)
    assert F.relu(x, out=out) is out
    assert F.relu(x, inplace=True) is x
    assert x.tolist() == out.tolist() == [0, np.float16(0.3), 2]
    memory = np.arange(8, dtype=np.float16)
    assert F.tanh(memory[:6], out=memory[2:]).tolist() == np.tanh(np.arange(6, dtype=np.float32)).astype("f2").tolist()
    tensor = torch.tensor([-1.0, 2.0], dtype=torch.float16)
    assert F.relu(tensor, inplace=True) is tensor
    assert tensor.tolist() == [0, 2]
    assert F.dropout(np.ones((), np.float16)[()], 0.0).dtype == np.float16
    with pytest.raises(TypeError, match="linear: out: expected float32, got float16"):
        F.linear(x, np.ones((3, 3), np.float32), out=out)
    with pytest.raises(ValueError, match="relu: out: expected a writeable array, got a read-only one"):
        F.relu(x, out=read_only(out))
    assert F.linear(x, np.ones((3, 3), np.float16), out=np.empty(3, np.float32)).dtype == np.float32
    with pytest.raises(TypeError, match="linear: weight: expected float64, as the other floats are, got float16"):
        F.linear(np.ones(3), np.ones((3, 3), np.float16))


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


def test_lists_and_numbers_are_of_the_type_of_the_floats_before_them():
    weight = normal(3, 2).astype(np.float64)
    assert F.embedding([[0, 2]], weight).dtype == np.float64
    assert F.linear(weight, [[1.0, 2.0]]).dtype == np.float64
    assert F.tanh([0.5, 1.0]).dtype == F.tanh(0.5).dtype == np.float32
    assert F.cross_entropy(weight, [0, 1, 0]) == F.cross_entropy(weight, np.array([0, 1, 0]))
    half = [[0.5, 0.5]] * 3
    assert F.cross_entropy(weight, half) == F.cross_entropy(weight, np.array(half))
