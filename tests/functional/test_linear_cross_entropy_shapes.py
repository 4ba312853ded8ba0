"""linear_cross_entropy of each shape that PyTorch's own takes, in its three places: functional, nn and torch."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

import fastmlp.functional as F
from fastmlp import nn, optim
from tests.functional.helpers import assert_equals_torch
from tests.helpers import CLOSE, assert_near

Array = np.ndarray
H, V = 4, 5
BATCHES = [(), (0,), (1,), (3,)]
PLACES = [(), (1,), (2,), (2, 3), (0,)]
SHAPES = [(batch, places) for batch, places in itertools.product(BATCHES, PLACES) if batch or not places]
EXTRAS = [{}, {"bias": True}, {"weighted": True}, {"bias": True, "weighted": True}]
each_shape = pytest.mark.parametrize(("batch", "places"), SHAPES, ids=str)
of_each_kind = pytest.mark.parametrize("probable", [False, True], ids=["classes", "probabilities"])
each_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def example(
    batch: tuple[int, ...], places: tuple[int, ...], probable: bool, *, bias: bool = False, weighted: bool = False
) -> dict[str, Any]:
    rng = np.random.default_rng(16)

    def normal(*shape: int) -> Array:
        return np.asarray(rng.standard_normal(shape), np.float32)

    classes = np.asarray(rng.integers(0, V, (*batch, *places)))
    if classes.size > 2:
        classes.reshape(-1)[1] = -100
    return {
        "input": normal(*batch, H),
        "linear_weight": normal(V, *places, H),
        "target": np.abs(normal(*batch, V, *places)) if probable else classes,
        "linear_bias": normal(V, *places) if bias else None,
        "weight": np.abs(normal(V)) + np.float32(0.5) if weighted else None,
    }


@each_shape
@of_each_kind
@each_reduction
def test_promise_3_every_shape(batch: tuple[int, ...], places: tuple[int, ...], probable: bool, reduction: str) -> None:
    for extra, smoothing in itertools.product(EXTRAS, (0.0, 0.2)):
        arguments = example(batch, places, probable, **extra)
        assert_equals_torch("linear_cross_entropy", arguments, reduction=reduction, label_smoothing=smoothing)
        if not probable:
            arguments["target"] = np.where(arguments["target"] == -100, 2, arguments["target"])
            assert_equals_torch("linear_cross_entropy", arguments, reduction=reduction, ignore_index=2)


@pytest.mark.parametrize(("batch", "places"), [shape for shape in SHAPES if 0 not in shape[1]], ids=str)
@of_each_kind
@each_reduction
def test_promise_3_every_shape_as_a_module(
    batch: tuple[int, ...], places: tuple[int, ...], probable: bool, reduction: str, torch: Any
) -> None:
    given = example(batch, places, probable)
    options: dict[str, Any] = {"out_features": places, "bias": True, "reduction": reduction, "label_smoothing": 0.1}
    theirs, ours = torch.nn.LinearCrossEntropyLoss(H, V, **options), nn.LinearCrossEntropyLoss(H, V, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.tensor(given["input"], requires_grad=True)
    want = theirs(x, torch.tensor(given["target"]))
    upstream = np.asarray(np.random.default_rng(3).standard_normal(want.shape), np.float32)
    want.backward(torch.tensor(upstream))
    for training in (True, False):
        got = ours.train(training)(given["input"], given["target"])
        assert np.shape(got) == tuple(want.shape)
        assert_near(got, want, CLOSE["float32"], "loss")
        assert_near(ours.backward(upstream), x.grad, CLOSE["float32"], "gradient of the input")
        for gradient, (name, parameter) in zip(ours.gradients(), theirs.named_parameters(), strict=True):
            assert_near(gradient, parameter.grad, CLOSE["float32"], name)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@each_shape
@of_each_kind
@each_reduction
def test_promise_3_every_shape_of_tensors(
    batch: tuple[int, ...], places: tuple[int, ...], probable: bool, reduction: str, dtype: str, torch: Any
) -> None:
    door = pytest.importorskip("fastmlp.torch")
    given = example(batch, places, probable, bias=True, weighted=True)
    found = []
    for module in (door.linear_cross_entropy, torch.nn.functional.linear_cross_entropy):
        kind = getattr(torch, dtype if module is door.linear_cross_entropy else "float64")
        tensors = {name: torch.tensor(value) for name, value in given.items()}
        tensors = {
            name: tensor.to(getattr(torch, dtype)).to(kind) if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
        leaves = [tensors[name].requires_grad_() for name in ("input", "linear_weight", "linear_bias")]
        loss = module(**tensors, reduction=reduction, label_smoothing=0.1, options=None)
        assert loss.dtype == kind
        loss.backward(torch.linspace(-1, 2, loss.numel(), dtype=kind).reshape(loss.shape))
        found.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        assert_near(one, other, {"float64": 1e-11, "bfloat16": 0.03}.get(dtype, CLOSE["float32"]))


def test_the_module_of_tensors_takes_several_losses_a_row(torch: Any) -> None:
    door = pytest.importorskip("fastmlp.torch")
    options = {"out_features": (2, 3), "bias": True, "label_smoothing": 0.1}
    theirs, ours = torch.nn.LinearCrossEntropyLoss(H, V, **options), door.LinearCrossEntropyLoss(H, V, **options)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    given = example((3,), (2, 3), False)
    for module in (ours, theirs):
        module(torch.tensor(given["input"]), torch.tensor(given["target"])).backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_near(one.grad, other.grad, CLOSE["float32"])


def test_what_the_fused_step_does_not_take_is_refused() -> None:
    for places, probable in (((2,), False), ((), True)):
        given, layer = example((3,), places, probable), nn.LinearCrossEntropyLoss(H, V, out_features=places)
        optimizer = optim.SGD(layer.parameters())
        with pytest.raises(NotImplementedError, match="step: not with out_features, nor with probabilities"):
            layer.step(given["input"], given["target"], optimizer)


def test_probabilities_do_not_go_with_an_ignored_class(torch: Any) -> None:
    given = example((3,), (), True)
    arrays = given["input"], given["linear_weight"], given["target"]
    door = pytest.importorskip("fastmlp.torch").linear_cross_entropy
    for refused in (
        lambda: F.linear_cross_entropy(*arrays, ignore_index=-100),
        lambda: nn.LinearCrossEntropyLoss(H, V, ignore_index=-100)(arrays[0], arrays[2]),
        lambda: door(*map(torch.tensor, arrays), ignore_index=-100),
    ):
        with pytest.raises(ValueError, match="ignore_index: expected None with probabilities, got -100"):
            refused()


def test_probabilities_of_0_and_1_equal_classes() -> None:
    """The sizes of the table are small; this one goes through several slices of the kernels."""
    rng = np.random.default_rng(5)
    x, weight = rng.standard_normal((30, 20), np.float32), rng.standard_normal((3000, 20), np.float32) / 5
    classes = rng.integers(0, 3000, 30)
    truth = np.zeros((30, 3000), np.float32)
    truth[np.arange(30), classes] = 1
    assert math.isclose(
        F.linear_cross_entropy(x, weight, truth), F.linear_cross_entropy(x, weight, classes), rel_tol=1e-5
    )
