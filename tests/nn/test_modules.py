"""Modules: parameters and state, layers of one's own, what each keeps between forward and backward."""

import copy
import pickle
from collections import OrderedDict
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastmlp import nn, optim
from tests.helpers import assert_near
from tests.nn.helpers import WORDS, Array, batches, network, state_bytes, train

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
    assert (len(missing), unexpected) == (len(good) - 2, ["more"])  # num_batches_tracked may be missing
    assert (model[7].bias == good["7.bias"]).all()


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_follows_from_its_seed(dtype: str) -> None:
    x = np.ones((50, 20), dtype)
    first, again, other = (nn.Dropout(0.3, rng=seed) for seed in (1, 1, 2))
    for _ in range(3):
        assert first(x).tobytes() == again(x).tobytes() != other(x).tobytes()
    given = np.random.default_rng(1)
    assert nn.Dropout(0.3, rng=given)(x).tobytes() == nn.Dropout(0.3, rng=1)(x).tobytes()
    assert nn.Dropout(0.3, rng=given)(x).tobytes() != nn.Dropout(0.3, rng=1)(x).tobytes()  # it has gone on


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_mask_of_a_dropout_with_a_counter_is_that_of_seed_step_and_layer(dtype: str) -> None:
    counter, x = np.zeros(2, np.int64), np.ones((50, 20), dtype)
    layers = [nn.Dropout(0.3, rng=seed) for seed in (1, 2, 3)]
    for layer, dropout in zip((0, 0, 1), layers, strict=True):
        dropout.counter, dropout.layer = counter, layer
    seen = set()
    for seed, step in ((0, 0), (0, 1), (1, 0)):
        counter[...] = seed, step
        first, same, other = (dropout(x).tobytes() for dropout in layers)
        assert first == same == layers[0](x).tobytes() == layers[0].backward(x).tobytes()
        seen |= {first, other}
    assert len(seen) == 6


def test_without_dropout_nothing_is_copied_and_numbers_go_through_as_they_are() -> None:
    x = np.array([np.nan, np.inf, -0.0, 1.5], np.float32)
    for layer in (nn.Dropout(0.0), nn.Dropout(0.5).eval(), nn.Dropout(1.0).eval()):
        assert layer(x).tobytes() == layer.backward(x).tobytes() == x.tobytes()
    assert nn.Dropout(1.0)(x).tobytes() == bytes(16)


@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan, "0.5", None])
def test_promise_12_a_share_that_is_none_is_refused(p: Any) -> None:
    with pytest.raises(ValueError, match=r"^p: expected a probability from 0 to 1, got "):
        nn.Dropout(p)


def test_a_residual_block_takes_any_floats_as_its_modules_do(rng: np.random.Generator) -> None:
    layer = nn.Residual(nn.Linear(6, 6, rng=1))
    x, dy = rng.standard_normal((2, 8, 6))
    y, dx = layer(x), layer.backward(dy)
    assert y.dtype == dx.dtype == np.float32
    want = nn.Residual(nn.Linear(6, 6, rng=1))
    np.testing.assert_array_equal(y, want(x.astype(np.float32)))
    np.testing.assert_array_equal(dx, want.backward(dy.astype(np.float32)))


def test_modules_that_change_the_shape_cannot_be_added_to_their_input() -> None:
    with pytest.raises(ValueError, match=r"^Residual: expected modules that keep the shape \(4, 3\), got \(4, 2\)$"):
        nn.Residual(nn.Linear(3, 2))(np.ones((4, 3)))
    with pytest.raises(NotImplementedError, match=r"^GELU: approximate is not supported, got 'tanh'$"):
        nn.GELU("tanh")


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
            assert_near(ours.state_dict()[key], tensor, 0, key)


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


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_softmax_of_pytorchs_choice_warns_the_caller(name: str) -> None:
    with pytest.warns(UserWarning, match="Implicit dimension choice") as warned:
        got = getattr(nn, name)()(np.zeros((1, 2)))
    assert warned[0].filename == __file__
    np.testing.assert_allclose(got, [[0.5, 0.5]] if name == "Softmax" else np.log([[0.5, 0.5]]))


def test_a_state_from_before_batches_were_counted_loads(torch: Any) -> None:
    """As in PyTorch: where the state says no version of the layer, or one below 2."""
    theirs, ours = torch.nn.Sequential(torch.nn.BatchNorm1d(3)), nn.Sequential(nn.BatchNorm1d(3))
    ours(np.ones((4, 3)) * [[1], [2], [3], [4]])
    for version, loads in ((None, True), (1, True), (2, False)):
        state = theirs.state_dict()
        del state["0.num_batches_tracked"]
        if version is None:
            state = dict(state)
        else:
            state._metadata["0"]["version"] = version
        if not loads:
            with pytest.raises(RuntimeError, match="num_batches_tracked"):
                theirs.load_state_dict(state)
            with pytest.raises(ValueError, match=r"missing keys: 0\.num_batches_tracked"):
                ours.load_state_dict(state)
            continue
        state["0.running_mean"] = torch.ones(3) * 7
        assert ours.load_state_dict(state) == tuple(theirs.load_state_dict(state)) == ([], [])
        np.testing.assert_array_equal(ours[0].running_mean, [7] * 3)
        assert ours[0].num_batches_tracked == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_tensors_of_narrow_floats_are_converted(dtype: str, torch: Any) -> None:
    kind = getattr(torch, dtype)
    theirs, ours = torch.nn.Linear(3, 2).to(kind), nn.Linear(3, 2)
    ours.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(ours.weight, theirs.weight.detach().float().numpy())
    x = torch.randn(4, 3).to(kind)
    np.testing.assert_array_equal(nn.Tanh()(x), nn.Tanh()(x.float()))
    loss = theirs(x).sum()
    loss.backward()
    optimizer = torch.optim.AdamW(theirs.parameters())
    optimizer.step()
    resumed = optim.AdamW(ours.parameters())
    resumed.load_state_dict(optimizer.state_dict())
    kept, tensors = resumed.state_dict()["state"][0], optimizer.state_dict()["state"][0]
    for slot in ("exp_avg", "exp_avg_sq"):
        np.testing.assert_array_equal(kept[slot], tensors[slot].float().numpy())


def test_a_transposed_weight_is_named_as_such() -> None:
    with pytest.raises(ValueError, match=r"state_dict: weight: expected .* got \(3, 2\): transposed\? Its .T has"):
        nn.Linear(3, 2).load_state_dict({"weight": np.ones((3, 2)), "bias": np.ones(2)})
    with pytest.raises(ValueError, match=r"got \(4, 2\)$"):
        nn.Linear(3, 2).load_state_dict({"weight": np.ones((4, 2)), "bias": np.ones(2)})
