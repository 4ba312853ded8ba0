"""fastmlp.nn and PyTorch: weights go both ways, each layer is like its own, and its initial weights."""

import inspect
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastmlp import nn, optim
from tests.helpers import CLOSE, assert_near
from tests.nn.helpers import batches, network, to_torch, train, train_torch


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_promise_3_a_network_trained_in_pytorch_gives_the_same_outputs_and_gradients(
    torch: ModuleType, dtype: str, training: bool
) -> None:
    theirs, within = network(torch.nn).to(getattr(torch, dtype)), CLOSE[dtype]
    criterion = torch.nn.CrossEntropyLoss()
    train_torch(torch, theirs, criterion, torch.optim.Adam(theirs.parameters(), lr=0.05), 20)
    ours, (x, y) = network(dtype=dtype), batches(1, seed=8)[0]
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    ours.train(training), theirs.train(training)
    output, want = ours(x), theirs(torch.from_numpy(x))
    assert_near(output, want, within)
    loss, want_loss = (own := nn.CrossEntropyLoss())(output, y), criterion(want, torch.from_numpy(y))
    assert_near(loss, want_loss, within)
    ours.backward(own.backward()), theirs.zero_grad(), want_loss.backward()
    for (name, param), gradient in zip(theirs.named_parameters(), ours.gradients(), strict=True):
        assert param.grad.norm() > 0
        assert_near(gradient, param.grad, within, name)
    for name, buffer in theirs.named_buffers():
        assert_near(ours.state_dict()[name], buffer, within, name)


def test_a_network_trained_here_gives_the_same_outputs_in_pytorch(torch: ModuleType) -> None:
    ours, theirs = network(rng=1), network(torch.nn)
    train(ours, nn.CrossEntropyLoss(), optim.SGD(ours.parameters(), lr=0.5), 20)
    theirs.load_state_dict(to_torch(torch, ours))
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert [name for name, _ in theirs.named_parameters()] == [name for name, _ in ours.named_parameters()]
    x = batches(1)[0][0]
    assert_near(ours.eval()(x), theirs.eval()(torch.from_numpy(x)), CLOSE["float32"])


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
    "gelu": ("GELU", {}, (2, 3, 4)),
    "softmax": ("Softmax", {"dim": 1}, (2, 3, 4)),
    "log_softmax": ("LogSoftmax", {"dim": -1}, (2, 3, 4)),
    "log_softmax of one row": ("LogSoftmax", {"dim": 0}, (5,)),
    "flatten": ("Flatten", {}, (2, 3, 4)),
    "flatten in the middle": ("Flatten", {"start_dim": -3, "end_dim": 2}, (2, 3, 4, 5)),
    "flatten all": ("Flatten", {"start_dim": 0}, (2, 3)),
    "no dropout": ("Dropout", {"p": 0.0}, (3, 4)),
    "all dropped": ("Dropout", {"p": 1.0}, (3, 4)),
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
    within = CLOSE[dtype]
    for _ in range(3):  # running statistics go on
        x = (2 * rng.normal(size=shape) + 1).astype(dtype)
        tensor = torch.tensor(x, requires_grad=True)
        got, want = ours(x), theirs(tensor)
        upstream = rng.normal(size=want.shape).astype(dtype)
        dx = ours.backward(upstream)
        theirs.zero_grad(), want.backward(torch.from_numpy(upstream))
        assert got.dtype == dx.dtype == dtype
        assert_near(got, want, within, "output")
        assert_near(dx, tensor.grad, within, "gradient of the input")
        for (key, param), gradient in zip(theirs.named_parameters(), ours.gradients(), strict=True):
            assert_near(gradient, param.grad, within, key)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, tensor in theirs.state_dict().items():
        assert_near(ours.state_dict()[key], tensor, within, key)


def layers_in_blocks(module: Any, block: Any, **options: Any) -> Any:
    """Blocks that are added to their inputs, one of them within the other, in fastmlp.nn or torch.nn."""

    def linear() -> Any:
        return module.Linear(6, 6, **options)

    inner = block(linear(), module.GELU())
    outer = block(linear(), module.Tanh(), module.BatchNorm1d(6, **options), inner)
    return module.Sequential(linear(), outer, linear())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_promise_3_modules_whose_input_is_added(
    dtype: str, training: bool, rng: np.random.Generator, torch: ModuleType
) -> None:
    class Residual(torch.nn.Sequential):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x + super().forward(x)

    theirs = layers_in_blocks(torch.nn, Residual).to(getattr(torch, dtype)).train(training)
    ours, within = layers_in_blocks(nn, nn.Residual, dtype=dtype).train(training), CLOSE[dtype]
    ours.load_state_dict(theirs.state_dict())
    for _ in range(3):
        x, upstream = rng.normal(size=(9, 6)).astype(dtype), rng.normal(size=(9, 6)).astype(dtype)
        tensor = torch.tensor(x, requires_grad=True)
        given, sent = x.copy(), upstream.copy()
        got, want = ours(x), theirs(tensor)
        dx = ours.backward(upstream)
        theirs.zero_grad(), want.backward(torch.from_numpy(sent))
        assert got.dtype == dx.dtype == dtype
        assert_near(got, want, within, "output")
        assert_near(dx, tensor.grad, within, "gradient of the input")
        for (key, param), gradient in zip(theirs.named_parameters(), ours.gradients(), strict=True):
            assert_near(gradient, param.grad, within, key)
        assert (x.tobytes(), upstream.tobytes()) == (given.tobytes(), sent.tobytes())  # they are the caller's


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_promise_3_dropout_is_pytorchs_but_for_the_mask(
    p: float, dtype: str, rng: np.random.Generator, torch: ModuleType
) -> None:
    """What is kept is scaled alike, as many are kept, and the gradient goes where the output came from."""
    ours, theirs = nn.Dropout(p, rng=3), torch.nn.Dropout(p)
    x, upstream = (rng.uniform(1, 2, (300, 40)).astype(dtype) for _ in range(2))
    shares = []
    for _ in range(2):
        tensor = torch.tensor(x, requires_grad=True)
        got, want = ours(x), theirs(tensor)
        dx = ours.backward(upstream)
        want.backward(torch.from_numpy(upstream))
        assert got.dtype == dx.dtype == dtype
        kept, kept_there = got != 0, want.detach().numpy() != 0
        both = kept & kept_there
        assert_near(got[both], want.detach().numpy()[both], CLOSE[dtype])
        assert_near(dx[both], tensor.grad.numpy()[both], CLOSE[dtype])
        np.testing.assert_array_equal(dx != 0, kept)
        for share in (kept.mean(), kept_there.mean()):
            assert share == pytest.approx(1 - p, abs=5 * (p * (1 - p) / x.size) ** 0.5)
        shares.append(kept)
    assert (shares[0] != shares[1]).any()


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
    assert_near(got, want, 0)
    assert_near(ours.gradients()[0], theirs.weight.grad, CLOSE["float32"])


@pytest.mark.parametrize("name", ["Embedding", "Flatten", "Linear", "BatchNorm1d", "ReLU", "GELU", "Dropout"])
def test_arguments_are_those_of_pytorch(name: str, torch: ModuleType) -> None:
    _same_arguments(getattr(nn, name), getattr(torch.nn, name))


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "LinearCrossEntropyLoss"])
def test_arguments_of_the_losses_are_those_of_pytorch(name: str, torch: ModuleType) -> None:
    if not hasattr(torch.nn, name):
        pytest.skip(f"this PyTorch has no {name}")
    _same_arguments(getattr(nn, name), getattr(torch.nn, name))


def _same_arguments(ours: Any, theirs: Any) -> None:
    own = {"rng", "fp32_precision", "group"}
    got = [(p.name, p.default, p.kind) for p in inspect.signature(ours).parameters.values() if p.name not in own]
    want = inspect.signature(theirs).parameters.values()
    assert got == [(p.name, p.default, p.kind) for p in want if not p.name.startswith("_")]


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
