"""The losses of fastmlp.nn beside PyTorch's."""

import json
import pickle
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastmlp import nn, optim
from tests.helpers import CLOSE, SAME_LOSSES, assert_near
from tests.nn.helpers import WORDS, Array, network, train


def loss_case(rng: np.random.Generator, shape: tuple[int, ...], ignored: str) -> tuple[Array, Array]:
    """Logits (or the last hidden layer), and targets in [0, 5)."""
    targets = rng.integers(0, 5, shape[:1] + shape[2:] if len(shape) > 1 else ())
    if ignored == "some":
        targets.reshape(-1)[::3] = -100
    if ignored == "all":
        targets[...] = -100
    return rng.normal(size=shape), targets


@pytest.mark.parametrize("ignored", ["none", "some", "all"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.2},
        {"weight": [1.0, 0.5, 2.0, 0.0, 3.0]},
        {"weight": [1.0, 0.5, 2.0, 0.0, 3.0], "label_smoothing": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(7, 5), (5,), (3, 5, 2, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_promise_3_cross_entropy(
    shape: Any, options: Any, reduction: str, ignored: str, dtype: str, rng: np.random.Generator, torch: ModuleType
) -> None:
    x, y = loss_case(rng, shape, ignored)
    x, within = x.astype(dtype), CLOSE[dtype]
    theirs = torch.nn.CrossEntropyLoss(**_tensors(torch, options, dtype), reduction=reduction)
    ours = nn.CrossEntropyLoss(**options, reduction=reduction)
    tensor = torch.tensor(x, requires_grad=True)
    got, want = ours(x, y), theirs(tensor, torch.from_numpy(np.asarray(y)))
    assert_near(got, want, within, "loss")
    upstream = np.asarray(rng.normal(size=want.shape), dtype)
    want.backward(torch.from_numpy(upstream))
    assert_near(ours.backward(upstream), tensor.grad, within, "gradient")
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_promise_3_cross_entropy_of_probabilities(reduction: str, rng: np.random.Generator, torch: ModuleType) -> None:
    x, y = rng.normal(size=(2, 7, 5)).astype(np.float32)
    theirs, ours = torch.nn.CrossEntropyLoss(reduction=reduction), nn.CrossEntropyLoss(reduction=reduction)
    tensor = torch.tensor(x, requires_grad=True)
    got, want = ours(x, y), theirs(tensor, torch.from_numpy(y))
    assert_near(got, want, CLOSE["float32"], "loss")
    upstream = np.asarray(rng.normal(size=want.shape), np.float32)
    want.backward(torch.from_numpy(upstream))
    assert_near(ours.backward(upstream), tensor.grad, CLOSE["float32"], "gradient")


def _tensors(torch: ModuleType, options: dict[str, Any], dtype: str) -> dict[str, Any]:
    return {k: torch.tensor(v, dtype=getattr(torch, dtype)) if k == "weight" else v for k, v in options.items()}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": True}, {"bias": True, "label_smoothing": 0.2, "weight": [1.0, 0.5, 2.0, 0.0, 3.0]}],
    ids=str,
)
@pytest.mark.parametrize("upstream", [None, 2.5])
def test_promise_3_linear_cross_entropy(
    options: Any,
    reduction: str,
    ignored: str,
    training: bool,
    upstream: Any,
    rng: np.random.Generator,
    torch: ModuleType,
) -> None:
    if not hasattr(torch.nn, "LinearCrossEntropyLoss"):
        pytest.skip("this PyTorch has no LinearCrossEntropyLoss")
    h, y = loss_case(rng, (6, 5), ignored)
    h = h.astype(np.float32)
    theirs = torch.nn.LinearCrossEntropyLoss(5, 5, reduction=reduction, **_tensors(torch, options, "float32"))
    ours = nn.LinearCrossEntropyLoss(5, 5, reduction=reduction, **options).train(training)
    ours.load_state_dict(theirs.state_dict())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    tensor = torch.tensor(h, requires_grad=True)
    got, want = ours(h, y), theirs(tensor, torch.from_numpy(y))
    assert_near(got, want, CLOSE["float32"], "loss")
    grad = upstream if reduction != "none" else (upstream or 1.0) * np.ones(6, np.float32)
    for _ in range(2):  # a second backward pass finds the same
        dh = ours.backward(grad)
        gradients = [array.copy() for array in ours.gradients()]
        want.backward(torch.tensor(1.0 if grad is None else grad), retain_graph=True)
        assert_near(dh, tensor.grad.nan_to_num(), CLOSE["float32"], "gradient of the input")
        for (name, param), gradient in zip(theirs.named_parameters(), gradients, strict=True):
            assert_near(gradient, param.grad.nan_to_num(), CLOSE["float32"], name)
        theirs.zero_grad()
        tensor.grad = None


def test_the_fused_loss_trains_as_the_two_layers_do() -> None:
    apart, fused = network(rng=3), network(rng=3)
    body, criterion = fused[:-1], nn.LinearCrossEntropyLoss(12, WORDS, bias=True)
    criterion.linear.load_state_dict(fused[7].state_dict())
    want = train(apart, nn.CrossEntropyLoss(), optim.AdamW(apart.parameters(), lr=0.01), 10)
    got = train(body, criterion, optim.AdamW(body.parameters() + criterion.parameters(), lr=0.01), 10)
    np.testing.assert_allclose(got, want, rtol=SAME_LOSSES)


@pytest.mark.parametrize("training", [True, False])
def test_linear_cross_entropy_takes_one_row_without_a_batch(training: bool, rng: np.random.Generator) -> None:
    criterion = nn.LinearCrossEntropyLoss(4, 7, dtype="float64").train(training)
    row, target = rng.normal(size=4), 3
    alone = criterion(row, target), criterion.backward()
    in_a_batch = criterion(row[None], [target]), criterion.backward()
    assert alone[0] == pytest.approx(in_a_batch[0])
    assert alone[1].shape == (4,)
    np.testing.assert_allclose(alone[1], in_a_batch[1][0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["CrossEntropyLoss", "LinearCrossEntropyLoss", "step"])
def test_the_backward_of_pytorchs_losses_says_what_to_write(kind: str, dtype: Any) -> None:
    if kind == "CrossEntropyLoss":
        loss = nn.CrossEntropyLoss()(np.zeros((2, 4), dtype), [1, 2])
    else:
        criterion = nn.LinearCrossEntropyLoss(3, 4, dtype=np.dtype(dtype).name)
        criterion.linear.weight[...] = 0
        h, y = np.zeros((2, 3), dtype), [1, 2]
        loss = criterion.step(h, y, optim.SGD(criterion.parameters())) if kind == "step" else criterion(h, y)
    with pytest.raises(AttributeError) as told:
        loss.backward()
    assert str(told.value).endswith("instead of loss.backward() write model.backward(criterion.backward())")
    assert "\n" not in str(told.value)
    assert not hasattr(loss, "backward")
    with pytest.raises(AttributeError, match=f"^{np.dtype(dtype)} has no attribute 'grad'$"):
        loss.grad  # noqa: B018

    # in all else it is NumPy's number
    number = dtype(np.log(4))
    assert isinstance(loss, dtype)
    assert loss == pytest.approx(number)
    number = dtype(loss.item())
    assert (repr(loss), f"{loss:.3f}", hash(loss), loss.shape) == (repr(number), f"{number:.3f}", hash(number), ())
    for made in (loss + 1, -loss, loss * loss, round(loss, 2), np.mean([loss, loss]), pickle.loads(pickle.dumps(loss))):
        assert type(made) is dtype
    for array in (np.asarray(loss), np.array([loss, loss]), np.ones(2, dtype) * loss):
        assert array.dtype == dtype
    if dtype is np.float64:
        assert json.dumps({"loss": loss}) == json.dumps({"loss": float(loss)})


def test_a_loss_for_each_row_is_an_array() -> None:
    loss = nn.CrossEntropyLoss(reduction="none")(np.zeros((2, 4)), [1, 2])
    assert type(loss) is np.ndarray


@pytest.mark.parametrize(
    ("error", "options", "classes"),
    [(NotImplementedError, {"amsgrad": True}, [0, 3]), (IndexError, {}, [0, 4])],
)
def test_a_step_that_is_refused_leaves_no_gradient(error: type[Exception], options: Any, classes: list[int]) -> None:
    """The optimizer's own step, which a program may go on to, would take what lies in its array for the bias's."""
    criterion = nn.LinearCrossEntropyLoss(3, 4, bias=True, rng=1)
    optimizer = optim.AdamW(criterion.parameters(), **options)
    with pytest.raises(error):
        criterion.step(np.ones((2, 3)), classes, optimizer)
    before = {name: array.copy() for name, array in criterion.state_dict().items()}
    optimizer.step()
    for name, array in criterion.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
