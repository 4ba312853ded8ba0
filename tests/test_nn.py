"""The layers against PyTorch's, weights that go both ways, and what a user may do with parameters."""

import copy
import inspect
import math
import multiprocessing
import pickle
import threading
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastmlp import nn, optim
from tests.helpers import relative_norm, require_ops
from tests.runs import process

Array = np.ndarray
WORDS, CONTEXT, ROWS = 29, 3, 16


def network(module: ModuleType = nn, **options: Any) -> Any:
    """The same network in fastmlp.nn or torch.nn."""
    return module.Sequential(
        module.Embedding(WORDS, 6, **options),
        module.Flatten(),
        module.Linear(CONTEXT * 6, 20, bias=False, **options),
        module.BatchNorm1d(20, **{name: value for name, value in options.items() if name != "rng"}),
        module.Tanh(),
        module.Linear(20, 12, **options),
        module.ReLU(),
        module.Linear(12, WORDS, **options),
    )


def batches(count: int, seed: int = 7) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, WORDS, (ROWS, CONTEXT)), rng.integers(0, WORDS, ROWS)) for _ in range(count)]


def train(model: Any, criterion: Any, optimizer: Any, count: int, seed: int = 7) -> list[float]:
    """As the documentation writes a training loop."""
    losses = []
    for x, y in batches(count, seed):
        loss = criterion(model(x), y)
        model.backward(criterion.backward())
        optimizer.step()
        losses.append(float(loss))
    return losses


def train_torch(torch: ModuleType, model: Any, criterion: Any, optimizer: Any, count: int) -> list[float]:
    losses = []
    for x, y in batches(count):
        loss = criterion(model(torch.from_numpy(x)), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def to_torch(torch: ModuleType, model: nn.Module) -> dict[str, Any]:
    return {key: torch.from_numpy(array.copy()) for key, array in model.state_dict().items()}


def close(got: Any, want: Any, within: float, name: str = "") -> None:
    want = want.detach().numpy() if hasattr(want, "detach") else np.asarray(want)
    assert np.shape(got) == want.shape, name
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=name)
    assert relative_norm(np.nan_to_num(got), np.nan_to_num(want)) <= within, name


# ------------------------------------------------------------------------------------------------------ weights go both


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_promise_3_a_network_trained_in_pytorch_gives_the_same_outputs_and_gradients(
    torch: ModuleType, dtype: str, training: bool
) -> None:
    theirs, within = network(torch.nn).to(getattr(torch, dtype)), 2e-5 if dtype == "float32" else 1e-12
    criterion = torch.nn.CrossEntropyLoss()
    train_torch(torch, theirs, criterion, torch.optim.Adam(theirs.parameters(), lr=0.05), 20)
    ours, (x, y) = network(dtype=dtype), batches(1, seed=8)[0]
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    ours.train(training), theirs.train(training)
    output, want = ours(x), theirs(torch.from_numpy(x))
    close(output, want, within)
    loss, want_loss = (own := nn.CrossEntropyLoss())(output, y), criterion(want, torch.from_numpy(y))
    close(loss, want_loss, within)
    ours.backward(own.backward()), theirs.zero_grad(), want_loss.backward()
    for (name, param), gradient in zip(theirs.named_parameters(), ours.gradients(), strict=True):
        assert param.grad.norm() > 0
        close(gradient, param.grad, within, name)
    for name, buffer in theirs.named_buffers():
        close(ours.state_dict()[name], buffer, within, name)


def test_a_network_trained_here_gives_the_same_outputs_in_pytorch(torch: ModuleType) -> None:
    ours, theirs = network(rng=1), network(torch.nn)
    train(ours, nn.CrossEntropyLoss(), optim.SGD(ours.parameters(), lr=0.5), 20)
    theirs.load_state_dict(to_torch(torch, ours))
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert [name for name, _ in theirs.named_parameters()] == [name for name, _ in ours.named_parameters()]
    x = batches(1)[0][0]
    close(ours.eval()(x), theirs.eval()(torch.from_numpy(x)), 1e-5)


def test_promise_3_ten_losses_equal_pytorch(torch: ModuleType) -> None:
    ours, theirs = network(rng=2), network(torch.nn)
    theirs.load_state_dict(to_torch(torch, ours))
    want = train_torch(
        torch, theirs, torch.nn.CrossEntropyLoss(), torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.9), 10
    )
    got = train(ours, nn.CrossEntropyLoss(), optim.SGD(ours.parameters(), lr=0.5, momentum=0.9), 10)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert got[-1] != pytest.approx(got[0], rel=1e-2)


# ----------------------------------------------------------------------------------------- each layer against PyTorch's

LAYERS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "linear": ("Linear", {"in_features": 5, "out_features": 3}, (7, 5)),
    "linear without bias": ("Linear", {"in_features": 5, "out_features": 3, "bias": False}, (7, 5)),
    "linear of one row": ("Linear", {"in_features": 5, "out_features": 3}, (5,)),
    "linear of three axes": ("Linear", {"in_features": 5, "out_features": 3}, (2, 4, 5)),
    "batchnorm": ("BatchNorm1d", {"num_features": 4}, (6, 4)),
    "batchnorm of three axes": ("BatchNorm1d", {"num_features": 4}, (3, 4, 5)),
    "batchnorm, cumulative": ("BatchNorm1d", {"num_features": 4, "momentum": None, "eps": 0.1}, (6, 4)),
    "batchnorm, not affine": ("BatchNorm1d", {"num_features": 4, "affine": False, "momentum": 0.3}, (6, 4)),
    "batchnorm without bias": ("BatchNorm1d", {"num_features": 4, "bias": False}, (6, 4)),
    "batchnorm of the batch": ("BatchNorm1d", {"num_features": 4, "track_running_stats": False}, (6, 4)),
    "tanh": ("Tanh", {}, (2, 3, 4)),
    "relu": ("ReLU", {}, (2, 3, 4)),
    "flatten": ("Flatten", {}, (2, 3, 4)),
    "flatten in the middle": ("Flatten", {"start_dim": -3, "end_dim": 2}, (2, 3, 4, 5)),
    "flatten all": ("Flatten", {"start_dim": 0}, (2, 3)),
    "no dropout": ("Dropout", {"p": 0.0}, (3, 4)),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LAYERS)
def test_promise_3_each_layer(
    layer: str, dtype: str, training: bool, rng: np.random.Generator, torch: ModuleType
) -> None:
    name, arguments, shape = LAYERS[layer]
    takes_dtype = "dtype" in inspect.signature(getattr(nn, name)).parameters
    theirs = getattr(torch.nn, name)(**arguments).to(getattr(torch, dtype)).train(training)
    ours = getattr(nn, name)(**arguments, **({"dtype": dtype} if takes_dtype else {})).train(training)
    for tensor in theirs.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    within = 2e-6 if dtype == "float32" else 1e-13
    for _ in range(3):  # running statistics go on
        x = (2 * rng.normal(size=shape) + 1).astype(dtype)
        tensor = torch.tensor(x, requires_grad=True)
        got, want = ours(x), theirs(tensor)
        upstream = rng.normal(size=want.shape).astype(dtype)
        dx = ours.backward(upstream)
        theirs.zero_grad(), want.backward(torch.from_numpy(upstream))
        assert got.dtype == dx.dtype == dtype
        close(got, want, within, "output")
        close(dx, tensor.grad, within, "gradient of the input")
        for (key, param), gradient in zip(theirs.named_parameters(), ours.gradients(), strict=True):
            close(gradient, param.grad, within, key)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, tensor in theirs.state_dict().items():
        close(ours.state_dict()[key], tensor, within, key)


@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (2, 3, 2)])
@pytest.mark.parametrize("padding", [None, 2, -1])
def test_promise_3_embedding(
    shape: tuple[int, ...], padding: int | None, rng: np.random.Generator, torch: ModuleType
) -> None:
    theirs, ours = torch.nn.Embedding(4, 3, padding), nn.Embedding(4, 3, padding)
    assert np.count_nonzero(ours.weight) == np.count_nonzero(theirs.weight.detach())
    ours.load_state_dict(theirs.state_dict())
    ids = np.asarray(rng.integers(0, 4, shape))
    got, want = ours(ids), theirs(torch.from_numpy(ids))
    upstream = np.asarray(rng.normal(size=want.shape), np.float32)
    assert ours.backward(upstream) is None
    want.backward(torch.from_numpy(upstream))
    close(got, want, 0)
    close(ours.gradients()[0], theirs.weight.grad, 1e-6)


@pytest.mark.parametrize("name", ["Embedding", "Flatten", "Linear", "BatchNorm1d", "ReLU", "Dropout"])
def test_arguments_are_those_of_pytorch(name: str, torch: ModuleType) -> None:
    _same_arguments(getattr(nn, name), getattr(torch.nn, name))


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "LinearCrossEntropyLoss"])
def test_arguments_of_the_losses_are_those_of_pytorch(name: str, torch: ModuleType) -> None:
    if not hasattr(torch.nn, name):
        pytest.skip(f"this PyTorch has no {name}")
    _same_arguments(getattr(nn, name), getattr(torch.nn, name))


def _same_arguments(ours: Any, theirs: Any) -> None:
    own = {"rng", "fp32_precision"}
    got = [(p.name, p.default, p.kind) for p in inspect.signature(ours).parameters.values() if p.name not in own]
    want = inspect.signature(theirs).parameters.values()
    assert got == [(p.name, p.default, p.kind) for p in want if not p.name.startswith("_")]


# ----------------------------------------------------------------------------------------------------------- the losses


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
    x, within = x.astype(dtype), 2e-6 if dtype == "float32" else 1e-13
    theirs = torch.nn.CrossEntropyLoss(**_tensors(torch, options, dtype), reduction=reduction)
    ours = nn.CrossEntropyLoss(**options, reduction=reduction)
    tensor = torch.tensor(x, requires_grad=True)
    got, want = ours(x, y), theirs(tensor, torch.from_numpy(np.asarray(y)))
    close(got, want, within, "loss")
    upstream = np.asarray(rng.normal(size=want.shape), dtype)
    want.backward(torch.from_numpy(upstream))
    close(ours.backward(upstream), tensor.grad, within, "gradient")
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_promise_3_cross_entropy_of_probabilities(reduction: str, rng: np.random.Generator, torch: ModuleType) -> None:
    x, y = rng.normal(size=(2, 7, 5)).astype(np.float32)
    theirs, ours = torch.nn.CrossEntropyLoss(reduction=reduction), nn.CrossEntropyLoss(reduction=reduction)
    tensor = torch.tensor(x, requires_grad=True)
    got, want = ours(x, y), theirs(tensor, torch.from_numpy(y))
    close(got, want, 2e-6, "loss")
    upstream = np.asarray(rng.normal(size=want.shape), np.float32)
    want.backward(torch.from_numpy(upstream))
    close(ours.backward(upstream), tensor.grad, 2e-6, "gradient")


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
    close(got, want, 2e-6, "loss")
    grad = upstream if reduction != "none" else (upstream or 1.0) * np.ones(6, np.float32)
    for _ in range(2):  # a second backward pass finds the same
        dh = ours.backward(grad)
        gradients = [array.copy() for array in ours.gradients()]
        want.backward(torch.tensor(1.0 if grad is None else grad), retain_graph=True)
        close(dh, tensor.grad.nan_to_num(), 1e-5, "gradient of the input")
        for (name, param), gradient in zip(theirs.named_parameters(), gradients, strict=True):
            close(gradient, param.grad.nan_to_num(), 1e-5, name)
        theirs.zero_grad()
        tensor.grad = None


def test_the_fused_loss_trains_as_the_two_layers_do() -> None:
    apart, fused = network(rng=3), network(rng=3)
    body, criterion = fused[:-1], nn.LinearCrossEntropyLoss(12, WORDS, bias=True)
    criterion.linear.load_state_dict(fused[7].state_dict())
    want = train(apart, nn.CrossEntropyLoss(), optim.AdamW(apart.parameters(), lr=0.01), 10)
    got = train(body, criterion, optim.AdamW(body.parameters() + criterion.parameters(), lr=0.01), 10)
    np.testing.assert_allclose(got, want, rtol=1e-4)


# ------------------------------------------------------------------------------------------------- parameters and state


def test_parameters_are_plain_arrays_that_may_be_read_written_and_pickled() -> None:
    model, (x, _) = network(rng=1), batches(1)[0]
    parameters = model.parameters()
    assert all(type(array) is np.ndarray and array.dtype == np.float32 for array in parameters)
    before = list(parameters)
    assert [a.tobytes() for a in pickle.loads(pickle.dumps(before))] == [a.tobytes() for a in before]
    train(model, nn.CrossEntropyLoss(), optim.Adam(parameters), 3)
    model.load_state_dict(network(rng=2).state_dict())
    assert all(now is array for now, array in zip(model.parameters(), before, strict=True))
    for array in parameters:
        array[...] = 0
    assert not model.eval()(x).any()
    model[7].bias += 3  # the same array
    assert (model(x) == 3).all()
    with pytest.raises(TypeError, match=r"Linear\.weight is a parameter: write to it in place"):
        model[7].weight = np.zeros((WORDS, 12), np.float32)


def test_models_and_optimizers_can_be_pickled_and_copied_in_the_midst_of_training() -> None:
    model = network(rng=1)
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    train(model, nn.CrossEntropyLoss(), optimizer, 3)
    pairs = [pickle.loads(pickle.dumps((model, optimizer))), copy.deepcopy((model, optimizer))]
    want = train(model, nn.CrossEntropyLoss(), optimizer, 3, seed=9)
    for other, its_optimizer in pairs:
        assert train(other, nn.CrossEntropyLoss(), its_optimizer, 3, seed=9) == want
        assert state_bytes(other) == state_bytes(model)


def state_bytes(model: nn.Module) -> bytes:
    return b"".join(array.tobytes() for array in model.state_dict().values())


def test_a_state_dict_that_does_not_fit_is_refused_and_nothing_is_copied() -> None:
    model, other = network(rng=1), network(rng=2)
    before, good = state_bytes(model), dict(other.state_dict())
    for wrong, error, message in [
        ({k: v for k, v in good.items() if k != "3.bias"}, ValueError, r"missing keys: 3\.bias; unexpected keys: none"),
        ({**good, "8.weight": np.zeros(1)}, ValueError, r"missing keys: none; unexpected keys: 8\.weight"),
        ({**good, "7.bias": np.zeros(5)}, ValueError, r"7\.bias: expected shape \(29,\), got \(5,\)"),
        ({**good, "7.bias": np.zeros(29, complex)}, TypeError, r"7\.bias: expected numbers, got complex128"),
        ({**good, "3.num_batches_tracked": np.array(1.5)}, TypeError, r"tracked: expected integers, got float64"),
    ]:
        with pytest.raises(error, match=message):
            model.load_state_dict(wrong)
        assert state_bytes(model) == before
    partial = {"7.bias": good["7.bias"], "more": np.zeros(1)}
    missing, unexpected = model.load_state_dict(partial, strict=False)
    assert (len(missing), unexpected) == (len(good) - 1, ["more"])
    assert (model[7].bias == good["7.bias"]).all()


def test_initial_weights_have_the_distributions_of_pytorch() -> None:
    linear, embedding = nn.Linear(400, 300, rng=1), nn.Embedding(500, 200, rng=1)
    for array in (linear.weight, linear.bias):
        assert array is not None
        assert abs(array).max() <= 1 / 20
        assert array.std() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.1)
    assert embedding.weight.mean() == pytest.approx(0, abs=0.02)
    assert embedding.weight.std() == pytest.approx(1, rel=0.02)
    generator = np.random.default_rng(1)
    assert (nn.Linear(4, 3, rng=generator).weight == nn.Linear(4, 3, rng=1).weight).all()
    assert (nn.Linear(4, 3, rng=generator).weight != nn.Linear(4, 3, rng=1).weight).all()
    assert (nn.Linear(4, 3).weight != nn.Linear(4, 3).weight).all()


# ------------------------------------------------------------------------------------------------------------- modules


def test_train_and_eval_reach_all_modules() -> None:
    model = nn.Sequential(nn.Sequential(nn.Dropout(), nn.Tanh()), nn.Linear(2, 2))
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.train().modules())


def test_dropout_drops_and_scales_and_its_gradient_the_same() -> None:
    layer, x = nn.Dropout(0.25, rng=1), np.full((200, 100), 3, np.float32)
    y = layer(x)
    assert set(np.unique(y).tolist()) == {0.0, 4.0}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(layer.backward(np.full_like(x, 3)), y)
    assert (layer(x) != y).any()
    assert (nn.Dropout(1.0)(x) == 0).all()
    layer.eval()
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


class Residual(nn.Module):
    """A module of a user's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.tanh = nn.Linear(width, width, rng=1), nn.Tanh()
        self.register_parameter("scale", np.full(width, 0.5, np.float32))

    def forward(self, x: Array) -> Array:
        self.h = self.tanh(self.linear(x))
        return x + self.h * self.scale

    def backward(self, grad: Array) -> Array:
        self.grads["scale"] = (grad * self.h).sum(0)
        return grad + self.linear.backward(self.tanh.backward(grad * self.scale))


def test_a_module_of_ones_own_trains_with_the_rest() -> None:
    model = nn.Sequential(OrderedDict(first=nn.Linear(3, 4, rng=1), block=Residual(4), last=nn.Linear(4, 5, rng=2)))
    assert [name for name, _ in model.named_parameters()] == [
        *("first.weight", "first.bias", "block.scale", "block.linear.weight", "block.linear.bias"),
        *("last.weight", "last.bias"),
    ]
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 3))
    y = x.argmax(1) + 2 * (x.min(1) > -0.5)
    criterion, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.5)
    before, losses = [array.copy() for array in model.parameters()], []
    for _ in range(50):
        losses.append(criterion(model(x), y))
        model.backward(criterion.backward())
        optimizer.step()
    assert losses[-1] < losses[0] / 2
    assert all((now != then).any() for now, then in zip(model.parameters(), before, strict=True))


def test_a_module_is_assigned_after_super_init() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Tanh()

    with pytest.raises(AttributeError, match=r"Forgetful\.layer: call super\(\)\.__init__\(\) before"):
        Forgetful()


def test_a_name_that_is_taken_is_refused() -> None:
    """A child called forward would be all that runs; a parameter that comes twice would be updated twice."""
    for name in ("forward", "training", "a.b", ""):
        with pytest.raises(ValueError, match=f"Sequential: expected a new name without a dot, got '{name}'"):
            nn.Sequential(OrderedDict([("first", nn.Tanh()), (name, nn.Tanh())]))
    layer = nn.Linear(2, 3)
    for register in (layer.register_parameter, layer.register_buffer):
        with pytest.raises(ValueError, match="Linear: expected a new name without a dot, got 'bias'"):
            register("bias", np.zeros(3))


def test_arguments_of_a_forward_pass_may_be_named() -> None:
    x, y = np.ones((2, 3), np.float32), np.array([0, 2])
    criterion = nn.CrossEntropyLoss()
    assert criterion(input=x, target=y) == criterion(x, target=y) == criterion(x, y)


def test_float64_stays_float64_in_whatever_holds_it(torch: ModuleType) -> None:
    x = np.linspace(-1, 1, 6).reshape(2, 3)
    for make in (
        nn.Tanh,
        nn.ReLU,
        lambda: nn.Dropout(0.0),
        lambda: Only(nn.CrossEntropyLoss(reduction="none"), [0, 1]),
    ):
        want = make()(x)
        assert want.dtype == np.float64
        for given in (x.astype(">f8"), x.astype("<f8"), torch.from_numpy(x)):
            got = make()(given)
            assert got.dtype == np.float64
            np.testing.assert_array_equal(got, want)
        assert make()(x.tolist()).dtype == make()(x.astype(np.longdouble)).dtype == np.float32


class Only:
    """A loss of inputs alone."""

    def __init__(self, criterion: nn.Module, target: Any) -> None:
        self.criterion, self.target = criterion, target

    def __call__(self, x: Any) -> Any:
        return self.criterion(x, self.target)


def test_promise_12_a_mask_is_not_lost_in_silence() -> None:
    masked = np.ma.array(np.ones((2, 3)), mask=[[0, 1, 0]] * 2)
    for call in (
        lambda: nn.Linear(3, 2)(masked),
        lambda: nn.Tanh()(masked),
        lambda: nn.CrossEntropyLoss()(np.ones((2, 3)), np.ma.array([0, 1], mask=[0, 1])),
    ):
        with pytest.raises(TypeError, match="expected an array, got a masked one, whose mask would be lost"):
            call()


def test_no_values_change_no_running_statistics(torch: ModuleType) -> None:
    for shape in [(0, 3), (0, 3, 2), (2, 3, 0)]:
        ours, theirs = nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
        assert ours(np.empty(shape)).shape == theirs(torch.empty(shape)).shape == shape
        for key, tensor in theirs.state_dict().items():
            close(ours.state_dict()[key], tensor, 0, key)


def test_promise_3_numbers_that_are_none_go_through_relu(torch: ModuleType) -> None:
    x = np.array([np.nan, -1, 0, np.inf, 2], np.float32)
    ours, theirs, tensor = nn.ReLU(), torch.nn.ReLU(), torch.tensor(x, requires_grad=True)
    np.testing.assert_array_equal(ours(x), theirs(tensor).detach().numpy())
    theirs(tensor).backward(torch.ones(5))
    np.testing.assert_array_equal(ours.backward(np.ones(5)), tensor.grad.numpy())


def test_gradients_are_replaced_and_forgotten() -> None:
    model, criterion, (x, y) = network(rng=1), nn.CrossEntropyLoss(), batches(1)[0]
    assert model.gradients() == [None] * len(model.parameters())
    found = []
    for _ in range(2):
        criterion(model(x), y)
        model.backward(criterion.backward())
        found.append([gradient.copy() for gradient in model.gradients()])
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)
    model.zero_grad()
    before = state_bytes(model)
    optim.SGD(model.parameters(), lr=1).step()
    assert state_bytes(model) == before


def test_representations_show_the_network() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 3, bias=False), nn.Tanh()), nn.Dropout(0.1))
    assert repr(model) == (
        "Sequential(\n  (0): Sequential(\n    (0): Linear(in_features=2, out_features=3, bias=False)\n"
        "    (1): Tanh()\n  )\n  (1): Dropout(p=0.1)\n)"
    )


# ---------------------------------------------------------------------------------------- promise 12: what does not fit

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
    np.testing.assert_allclose(got, want, rtol=2e-6)
    grad = np.round(np.random.default_rng(2).normal(size=np.shape(want)) * 8).astype(np.float32) / 8
    upstream = change(grad) if np.ndim(grad) else None
    want_dx, got_dx = plain.backward(grad if np.ndim(grad) else None), other.backward(upstream)
    if want_dx is not None:
        np.testing.assert_allclose(got_dx, want_dx, rtol=1e-5, atol=1e-6)
    for first, second in zip(plain.gradients(), other.gradients(), strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-6)


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
        (ValueError, r"got \(6, 4\) and \(5,\)", lambda: nn.LinearCrossEntropyLoss(4, 2)(x, [0] * 5)),
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
    x = np.zeros((6, 4), np.float32)
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
        ("class probabilities", lambda: nn.LinearCrossEntropyLoss(4, 3)(x, x)),
        ("LinearCrossEntropyLoss: out_features", lambda: nn.LinearCrossEntropyLoss(4, 2, out_features=(3,))),
        ("LinearCrossEntropyLoss: options", lambda: nn.LinearCrossEntropyLoss(4, 2, options=object())),
    ]:
        with pytest.raises(NotImplementedError, match=message):
            call()


# ------------------------------------------------------------------------- promises 4, 15 and 16: threads, memory, fork


@pytest.fixture(params=["numpy", "numba", "cython"])
def each_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """nn and optim on each back-end."""
    ops = require_ops(request.param)
    monkeypatch.setattr(nn, "ops_of", lambda _: ops)
    monkeypatch.setattr(optim, "ops_of", lambda _: ops)
    return str(request.param)


@pytest.mark.usefixtures("each_backend")
def test_promise_3_ten_losses_on_each_backend(torch: ModuleType) -> None:
    test_promise_3_ten_losses_equal_pytorch(torch)


def trained(seed: int, steps: int = 30) -> bytes:
    """What a network is after some steps; its last layer is wide enough for several threads."""
    model = network(rng=seed)[:-1]
    criterion = nn.LinearCrossEntropyLoss(12, 2_000, bias=True, rng=seed)
    train(model, criterion, optim.AdamW(model.parameters() + criterion.parameters(), lr=0.01), steps, seed)
    return state_bytes(model) + state_bytes(criterion)


def test_promise_4_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    require_ops("cython")
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("FASTMLP_NUM_THREADS", threads)
        found.append(trained(1))
    assert found[0] == found[1] == found[2]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the threads that Linux lists")
def test_what_the_tests_of_threads_train_is_work_for_several() -> None:
    require_ops("cython")
    code = """if True:
        import os
        from tests.test_nn import trained
        before = len(os.listdir("/proc/self/task"))
        trained(1, steps=1)
        print(len(os.listdir("/proc/self/task")) - before)"""
    with process("-c", code, env={"FASTMLP_NUM_THREADS": "3"}) as child:
        assert child.communicate() == ("2\n", "")


def test_promise_15_memory_does_not_grow_with_the_steps() -> None:
    model = network(rng=1)
    criterion, optimizer = nn.CrossEntropyLoss(), optim.AdamW(model.parameters())
    train(model, criterion, optimizer, 20)
    tracemalloc.start()
    try:
        train(model, criterion, optimizer, 20)
        before = tracemalloc.get_traced_memory()[0]
        train(model, criterion, optimizer, 20)
        assert tracemalloc.get_traced_memory()[0] < before + 20_000  # one batch's activations are 60,000
    finally:
        tracemalloc.stop()


def test_promise_15_the_fused_loss_keeps_one_gradient_of_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = require_ops("cython")
    monkeypatch.setattr(nn, "ops_of", lambda _: ops)
    criterion, h = nn.LinearCrossEntropyLoss(64, 4_000, rng=1), np.ones((4, 64), np.float32)
    tracemalloc.start()
    try:
        for _ in range(3):
            criterion(h, [0, 1, 2, 3])
            criterion.backward()
        assert tracemalloc.get_traced_memory()[1] < 1.3 * criterion.linear.weight.nbytes
    finally:
        tracemalloc.stop()


def test_promise_16_two_threads_train_two_models_with_the_bits_of_one_after_the_other() -> None:
    alone = [trained(seed) for seed in (1, 2)]
    together: list[Any] = [None, None]

    def work(at: int) -> None:
        together[at] = trained(at + 1)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_promise_16_a_forked_child_trains() -> None:
    want = trained(1)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=lambda: results.put(trained(1)))
    child.start()
    try:
        assert results.get(timeout=60) == want
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("training", [True, False])
def test_linear_cross_entropy_takes_one_row_without_a_batch(training: bool, rng: np.random.Generator) -> None:
    criterion = nn.LinearCrossEntropyLoss(4, 7, dtype="float64").train(training)
    row, target = rng.normal(size=4), 3
    alone = criterion(row, target), criterion.backward()
    in_a_batch = criterion(row[None], [target]), criterion.backward()
    assert alone[0] == pytest.approx(in_a_batch[0])
    assert alone[1].shape == (4,)
    np.testing.assert_allclose(alone[1], in_a_batch[1][0])
