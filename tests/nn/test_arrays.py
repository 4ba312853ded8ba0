"""Promise 12: what layers and losses take for an array, and what they refuse by name."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fastmlp import nn
from tests.helpers import CLOSE, assert_near
from tests.nn.helpers import Array

VARIANTS: dict[str, Callable[[Array], Any]] = {
    "plain": lambda x: x,
    "Fortran order": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "read-only": lambda x: _read_only(x.copy()),
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "not aligned": lambda x: _not_aligned(x),
    "float64 or int16": lambda x: x.astype(np.float64 if x.dtype.kind == "f" else np.int16),
    "longdouble or uint8": lambda x: x.astype(np.longdouble if x.dtype.kind == "f" else np.uint8),
    "a list": lambda x: x.tolist(),
    "a tensor": lambda x: pytest.importorskip("torch").from_numpy(x.copy()),
}


def _read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


def _not_aligned(x: Array) -> Array:
    room = np.zeros(x.nbytes + 1, np.uint8)
    room[1:] = np.frombuffer(x.tobytes(), np.uint8)
    return room[1:].view(x.dtype).reshape(x.shape)


def layers_and_inputs() -> Iterator[tuple[str, Callable[[], Any], list[Array]]]:
    rng = np.random.default_rng(1)
    x, ids = np.round(rng.normal(size=(6, 4)) * 8).astype(np.float32) / 8, rng.integers(0, 4, (6, 4)).astype(np.int64)
    yield "Embedding", lambda: nn.Embedding(4, 3, rng=1), [ids]
    yield "Flatten", nn.Flatten, [x]
    yield "Linear", lambda: nn.Linear(4, 3, rng=1), [x]
    yield "BatchNorm1d", lambda: nn.BatchNorm1d(4), [x]
    yield "Tanh", nn.Tanh, [x]
    yield "ReLU", nn.ReLU, [x]
    yield "Dropout", lambda: nn.Dropout(rng=1), [x]
    yield "CrossEntropyLoss", nn.CrossEntropyLoss, [x, ids[:, 0]]
    yield "LinearCrossEntropyLoss", lambda: nn.LinearCrossEntropyLoss(4, 4, rng=1), [x, ids[:, 0]]


CASES = list(layers_and_inputs())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("name", "make", "inputs"), CASES, ids=[name for name, _, _ in CASES])
def test_promise_12_any_array_of_numbers_is_converted(name: str, make: Any, inputs: list[Array], variant: str) -> None:
    plain, other, change = make(), make(), VARIANTS[variant]
    want, got = plain(*inputs), other(*(change(array) for array in inputs))
    assert_near(got, want, CLOSE["float32"])
    grad = np.round(np.random.default_rng(2).normal(size=np.shape(want)) * 8).astype(np.float32) / 8
    upstream = change(grad) if np.ndim(grad) else None
    want_dx, got_dx = plain.backward(grad if np.ndim(grad) else None), other.backward(upstream)
    if want_dx is not None:
        assert_near(got_dx, want_dx, CLOSE["float32"])
    for first, second in zip(plain.gradients(), other.gradients(), strict=True):
        assert_near(second, first, CLOSE["float32"])


@pytest.mark.parametrize(("name", "make", "inputs"), CASES, ids=[name for name, _, _ in CASES])
def test_promise_12_what_are_no_numbers_is_refused_by_name(name: str, make: Any, inputs: list[Array]) -> None:
    if name == "Flatten":
        pytest.skip("flattens anything")
    for wrong in (
        inputs[0].astype(object),
        inputs[0].astype(str),
        inputs[0].astype(complex),
        inputs[0] > 0,
        [[1], [2, 3]],
    ):
        with pytest.raises(TypeError, match=f"{name}: input: expected"):
            make()(wrong, *inputs[1:])


@pytest.mark.parametrize(("name", "make", "inputs"), CASES, ids=[name for name, _, _ in CASES])
def test_promise_12_zero_rows(name: str, make: Any, inputs: list[Array]) -> None:
    layer, none = make(), [array[:0] for array in inputs]
    y = layer(*none)
    if "Loss" in name:
        assert math.isnan(y)
        assert layer.backward().shape == (0, 4)
    else:
        assert y.shape[0] == 0
        layer.backward(np.zeros(y.shape))
    assert all((gradient == 0).all() for gradient in layer.gradients())


def test_promise_12_wrong_shapes_ids_and_order_are_refused_by_name() -> None:
    x = np.zeros((6, 4), np.float32)
    for error, message, call in [
        (ValueError, r"Linear: input: expected shape \(\.\.\., 3\), got \(6, 4\)", lambda: nn.Linear(3, 2)(x)),
        (ValueError, r"BatchNorm1d: input: expected shape \(B, 3\) or \(B, 3, L\)", lambda: nn.BatchNorm1d(3)(x)),
        (ValueError, r"BatchNorm1d: input: expected more than one .* \(1, 4\); eval", lambda: nn.BatchNorm1d(4)(x[:1])),
        (IndexError, r"Embedding: input: expected ids in \[0, 4\), got 4", lambda: nn.Embedding(4, 2)([[0, 4]])),
        (IndexError, r"Embedding: input: expected ids in \[0, 4\), got -1", lambda: nn.Embedding(4, 2)([[0, -1]])),
        (IndexError, "got 9223372036854775808", lambda: nn.Embedding(4, 2)(np.array([2**63], np.uint64))),
        (TypeError, "input: expected integers, got float32", lambda: nn.Embedding(4, 2)(x)),
        (IndexError, r"target: expected ids in \[0, 4\), got 4", lambda: nn.CrossEntropyLoss()(x, [4] * 6)),
        (IndexError, r"target: expected classes in \[0, 2\)", lambda: nn.LinearCrossEntropyLoss(4, 2)(x, [2] * 6)),
        (ValueError, r"target: expected shape \(6,\) .* got \(5,\)", lambda: nn.CrossEntropyLoss()(x, [0] * 5)),
        (ValueError, r"target: .*\(6,\) .* got \(5,\)", lambda: nn.LinearCrossEntropyLoss(4, 2)(x, [0] * 5)),
        (ValueError, r"weight: expected shape \(4,\), got \(2,\)", lambda: nn.CrossEntropyLoss([1.0, 2.0])(x, [0] * 6)),
        (IndexError, "Flatten: start_dim: expected an axis", lambda: nn.Flatten(3)(x)),
        (ValueError, "Flatten: expected start_dim not behind", lambda: nn.Flatten(1, 0)(x)),
        (
            ValueError,
            "reduction: expected one of mean, sum, none, got 'avg'",
            lambda: nn.CrossEntropyLoss(reduction="avg"),
        ),
        (ValueError, "label_smoothing: expected a number", lambda: nn.LinearCrossEntropyLoss(4, 2, label_smoothing=2)),
        (TypeError, "label_smoothing: expected a number, got '0'", lambda: nn.CrossEntropyLoss(label_smoothing="0")),
        (TypeError, "ignore_index: expected an integer, got 1.5", lambda: nn.CrossEntropyLoss(ignore_index=1.5)),
        (TypeError, "ignore_index: expected an integer", lambda: nn.LinearCrossEntropyLoss(4, 2, ignore_index="no")),
        (ValueError, "p: expected a probability", lambda: nn.Dropout(1.5)),
        (ValueError, "p: expected a probability .* got 'half'", lambda: nn.Dropout("half")),
        (TypeError, "in_features: expected a whole number, got 3.0", lambda: nn.Linear(3.0, 2)),
        (
            TypeError,
            r"dtype: expected np.float32 or np.float64, got 'half-float'",
            lambda: nn.Linear(3, 2, dtype="half-float"),
        ),
        (ValueError, "out_features: expected at least 1, got 0", lambda: nn.Linear(3, 0)),
        (ValueError, "padding_idx: expected an id below 4, got 4", lambda: nn.Embedding(4, 2, padding_idx=4)),
        (ValueError, "module 1 stands in it before", lambda: nn.Sequential(layer := nn.Tanh(), layer)),
        (TypeError, "module 0: expected a Module, got ufunc", lambda: nn.Sequential(np.tanh)),
        (RuntimeError, "Tanh.backward: expected a forward pass before it", lambda: nn.Tanh().backward(x)),
    ]:
        with pytest.raises(error, match=message):
            call()
    layer = nn.Linear(4, 2)
    layer(x)
    with pytest.raises(ValueError, match=r"Linear.backward: grad: expected shape \(6, 2\), got \(6, 4\)"):
        layer.backward(x)
    criterion = nn.CrossEntropyLoss(reduction="none")
    criterion(x, [0] * 6)
    with pytest.raises(ValueError, match=r'grad: expected shape \(6,\) with reduction="none", got None'):
        criterion.backward()


def test_what_is_not_supported_says_so() -> None:
    for message, call in [
        ("Embedding: max_norm", lambda: nn.Embedding(4, 2, max_norm=1.0)),
        ("Embedding: norm_type", lambda: nn.Embedding(4, 2, norm_type=1.0)),
        ("Embedding: scale_grad_by_freq", lambda: nn.Embedding(4, 2, scale_grad_by_freq=True)),
        ("Embedding: sparse", lambda: nn.Embedding(4, 2, sparse=True)),
        ("ReLU: inplace", lambda: nn.ReLU(True)),
        ("Dropout: inplace", lambda: nn.Dropout(0.5, True)),
        ("device: expected cpu, got cuda", lambda: nn.Linear(4, 2, device="cuda")),
        ("dtype: expected float32 or float64, got float16", lambda: nn.Linear(4, 2, dtype=np.float16)),
        ("CrossEntropyLoss: size_average", lambda: nn.CrossEntropyLoss(size_average=True)),
        ("CrossEntropyLoss: reduce", lambda: nn.CrossEntropyLoss(reduce=True)),
        ("LinearCrossEntropyLoss: options", lambda: nn.LinearCrossEntropyLoss(4, 2, options=object())),
    ]:
        with pytest.raises(NotImplementedError, match=message):
            call()
