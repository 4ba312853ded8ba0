"""The trainer's optimizers against PyTorch's, dense and sparse gradients alike, and what checkpoints hold of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastmlp.config import OPTIMIZERS, TrainConfig
from fastmlp.data.windows import Batch
from fastmlp.network.shape import NetworkShape
from fastmlp.nn.module import Module
from fastmlp.nn.place import Bound
from fastmlp.ops import Ops
from fastmlp.ops.gradient import RowGradient
from fastmlp.optim import SGD, Adagrad, AdamW, Optimizer
from fastmlp.training.optimizer import load_optimizer_state, make_optimizer, optimizer_state, set_learning_rate
from tests.helpers import NUMPY, assert_near
from tests.networks import batch, make_model, nonzero_state, torch_loss, torch_model

Array = np.ndarray
STEPS = 5


def random_gradients(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Of a dense parameter (7, 3), a vector (7,) and a sparse one (7, 3) whose rows change from step to step."""
    gradients = []
    for step in range(STEPS):
        rows = np.array([[0, 3, 6], [1, 3], [6], [0, 1, 2], [3]][step], np.int32)
        gradients.append(
            {
                "weight": rng.normal(size=(7, 3)).astype(np.float32),
                "bias": rng.normal(size=7).astype(np.float32),
                "embedding": RowGradient(rows, rng.normal(size=(rows.size, 3)).astype(np.float32)),
            }
        )
    return gradients


def initial(rng: np.random.Generator) -> dict[str, Array]:
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in (("weight", (7, 3)), ("bias", (7,)), ("embedding", (7, 3)))
    }


def module_of(parameters: dict[str, Array], ops: Ops = NUMPY) -> Module:
    """A module of these parameters, which it changes in place, on a back-end."""
    module = Module()
    for name, array in parameters.items():
        module.register_parameter(name, array)
    return module.run_in(Bound(ops, threads=2))


def step(optimizer: Optimizer, module: Module, gradients: dict[str, Any]) -> None:
    module.grads.update(gradients)
    optimizer.step()


def by_torch(
    rule: str, parameters: dict[str, Array], gradients: list[dict[str, Any]], **options: Any
) -> dict[str, Array]:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(param, requires_grad=True) for name, param in parameters.items()}
    optimizer = getattr(torch.optim, rule)(tensors.values(), **options)
    for step in gradients:
        for name, gradient in step.items():
            full = gradient
            if isinstance(gradient, RowGradient):
                full = np.zeros_like(parameters[name])
                full[gradient.rows] = gradient.drows
            tensors[name].grad = torch.from_numpy(full)
        optimizer.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("rule", "torch_rule", "options", "torch_options"),
    [
        (SGD, "SGD", {}, {}),
        (SGD, "SGD", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
        (SGD, "SGD", {"momentum": 0.9}, {"momentum": 0.9}),
        (SGD, "SGD", {"momentum": 0.5, "weight_decay": 0.1}, {"momentum": 0.5, "weight_decay": 0.1}),
        (Adagrad, "Adagrad", {}, {}),
        (Adagrad, "Adagrad", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
        (AdamW, "AdamW", {}, {}),
        (AdamW, "AdamW", {"betas": (0.8, 0.9), "weight_decay": 0.3}, {"betas": (0.8, 0.9), "weight_decay": 0.3}),
    ],
)
def test_optimizers_equal_pytorch(
    ops: Ops, rng: np.random.Generator, rule: Any, torch_rule: str, options: Any, torch_options: Any
) -> None:
    parameters, gradients = initial(rng), random_gradients(rng)
    want = by_torch(
        torch_rule, {name: param.copy() for name, param in parameters.items()}, gradients, lr=0.05, **torch_options
    )
    module = module_of(parameters, ops)
    optimizer = rule(module.parameters(), 0.05, **options)
    for gradient in gradients:
        step(optimizer, module, gradient)
    for name, param in parameters.items():
        np.testing.assert_allclose(param, want[name], rtol=2e-6, atol=2e-7, err_msg=name)


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_an_optimizer_goes_on_with_the_same_bits_from_its_state(rule: str, rng: np.random.Generator) -> None:
    config, gradients = TrainConfig(hidden=(1,), optimizer=rule, lr=0.05), random_gradients(rng)
    parameters = initial(rng)
    whole, parts = (module_of({name: param.copy() for name, param in parameters.items()}) for _ in range(2))
    uninterrupted, first = make_optimizer(config, whole), make_optimizer(config, parts)
    for number, gradient in enumerate(gradients):
        step(uninterrupted, whole, gradient)
        if number == 2:
            state, steps = optimizer_state(first, parts)
            first = make_optimizer(config, parts)
            load_optimizer_state(first, parts, {name: array.copy() for name, array in state.items()}, steps)
        step(first, parts, gradient)
    for name, array in whole.state_dict().items():
        assert array.tobytes() == parts.state_dict()[name].tobytes(), name


def test_the_state_of_another_rule_is_refused(rng: np.random.Generator) -> None:
    module = module_of(initial(rng))
    of_sgd = optimizer_state(make_optimizer(TrainConfig(hidden=(1,), optimizer="sgd"), module), module)
    momentum = make_optimizer(TrainConfig(hidden=(1,), optimizer="momentum"), module)
    with pytest.raises(ValueError, match=r"expected velocity\.weight.*got nothing"):
        load_optimizer_state(momentum, module, *of_sgd)


@pytest.mark.parametrize(
    ("rule", "slots"),
    [("sgd", []), ("momentum", ["velocity"]), ("adagrad", ["squares"]), ("adamw", ["mean", "square"])],
)
def test_a_checkpoint_before_the_first_step_has_every_slot(
    rule: str, slots: list[str], rng: np.random.Generator
) -> None:
    module = module_of(initial(rng))
    state, steps = optimizer_state(make_optimizer(TrainConfig(hidden=(1,), optimizer=rule), module), module)
    assert list(state) == [f"{slot}.{name}" for name in ("weight", "bias", "embedding") for slot in slots]
    assert not any(array.any() for array in state.values())
    assert steps == 0


@pytest.mark.parametrize(
    ("options", "rule", "used"),
    [
        ({}, "adamw", {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "eps": 1e-8, "step": 1, "lr": 0.002}),
        (
            {"betas": (0.8, 0.99), "weight_decay": 0.1},
            "adamw",
            {"beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1, "eps": 1e-8, "step": 1, "lr": 0.002},
        ),
        ({"optimizer": "sgd"}, "sgd", {"weight_decay": 0.0, "lr": 0.1}),
        (
            {"optimizer": "momentum", "momentum": 0.5, "lr": 1},
            "momentum",
            {"momentum": 0.5, "weight_decay": 0, "lr": 1},
        ),
        (
            {"optimizer": "adagrad", "weight_decay": 0.2, "lr": 1},
            "adagrad",
            {"eps": 1e-10, "weight_decay": 0.2, "lr": 1},
        ),
    ],
)
def test_the_configuration_chooses_the_rule_and_its_options(
    options: Any, rule: str, used: Any, rng: np.random.Generator
) -> None:
    module = module_of(initial(rng))
    optimizer = make_optimizer(TrainConfig(hidden=(1,), **options), module)
    assert optimizer._next_rule(module, "weight") == (rule, used)


def test_the_learning_rate_is_that_of_matrices_and_vectors(rng: np.random.Generator) -> None:
    """Which the default network has in groups of their own."""
    optimizer = make_optimizer(TrainConfig(hidden=512, weight_decay=0.1), module_of(initial(rng)))
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


# ---------------------------------------------------------------------------- ten steps of the trainer's network

NETWORK = NetworkShape(vocabulary=509, context=4, embed=6, hidden=(31, 23))


def ten_steps_by_torch(
    state: dict[str, Array], batches: list[Batch], rule: str, options: dict[str, Any], shape: NetworkShape = NETWORK
) -> tuple[list[float], dict[str, Array]]:
    """Losses, and the parameters after them, in float64; of other networks than NETWORK vectors do not decay."""
    torch = pytest.importorskip("torch")
    model = torch_model(state, shape, "float64")
    groups = [{"params": [param for param in model.parameters() if shape is NETWORK or param.ndim > 1]}]
    if shape is not NETWORK:
        groups.append({"params": [param for param in model.parameters() if param.ndim == 1], "weight_decay": 0.0})
    optimizer = getattr(torch.optim, rule)(groups, **options)
    losses = []
    for one in batches:
        loss = torch_loss(model, one)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: param.detach().numpy() for name, param in model.named_parameters()}


each_rule = pytest.mark.parametrize(
    ("optimizer", "torch_rule", "taken_over"),
    [
        ("sgd", "SGD", []),
        ("momentum", "SGD", ["momentum"]),
        ("adagrad", "Adagrad", []),
        ("adamw", "AdamW", ["betas"]),
    ],
)


@pytest.mark.parametrize("weight_decay", [None, 0.1], ids=["default", "decay"])
@each_rule
def test_promise_3_ten_steps_of_the_trainers_network_equal_pytorch(
    ops: Ops, rng: np.random.Generator, optimizer: str, torch_rule: str, taken_over: list[str], weight_decay: float
) -> None:
    """The losses, and what ten steps made of every parameter, the output layer's among them: its update is fused.

    What a step adds to a parameter is judged, not the parameter, of which it is a thousandth. The bound is ten times
    what float32 PyTorch itself is off; a wrong number of the step in AdamW's update shows at 3e-2.
    """
    config = TrainConfig(hidden=(1,), optimizer=optimizer, weight_decay=weight_decay)
    options = {name: getattr(config, name) for name in ("lr", "weight_decay", *taken_over)}
    state = {name: array.astype(np.float32) for name, array in nonzero_state(rng, NETWORK).items()}
    batches = [batch(rng, NETWORK, rows=32) for _ in range(10)]
    want_losses, want = ten_steps_by_torch(state, batches, torch_rule, options)

    model = make_model(ops, state, NETWORK, threads=2)
    rule = make_optimizer(config, model.layers)
    losses = [model.step(one, rule) for one in batches]

    np.testing.assert_allclose(losses, want_losses, rtol=1e-5)
    for name, param in model.parameters.items():
        start = state[name].astype(np.float64)
        assert_near(param - start, want[name] - start, 5e-4, name)


WINDOW = NetworkShape(
    **{"vocabulary": 509, "context": 4, "embed": 6, "hidden": (31,), "averages": (0.7, 0.95), "reach": 9, "blocks": 2},
    **{"residual": True, "activation": "gelu", "projection": True},
)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1], ids=["no decay", "decay"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@each_rule
def test_promise_3_ten_steps_of_a_window_network_equal_pytorch(
    ops: Ops,
    rng: np.random.Generator,
    optimizer: str,
    torch_rule: str,
    taken_over: list[str],
    tied: bool,
    weight_decay: float,
) -> None:
    """As above: averages without a gradient, residual blocks, a projection, one table or two; only matrices decay."""
    config, shape = TrainConfig(hidden=31, optimizer=optimizer, weight_decay=weight_decay), replace(WINDOW, tied=tied)
    options = {name: getattr(config, name) for name in ("lr", "weight_decay", *taken_over)}
    state = {name: array.astype(np.float32) for name, array in nonzero_state(rng, shape).items()}
    batches = [batch(rng, shape, rows=32) for _ in range(10)]
    want_losses, want = ten_steps_by_torch(state, batches, torch_rule, options, shape)

    model = make_model(ops, state, shape, threads=2)
    rule = make_optimizer(config, model.layers)
    losses = [model.step(one, rule, number) for number, one in enumerate(batches)]

    np.testing.assert_allclose(losses, want_losses, rtol=1e-4)
    assert model.parameters.keys() == want.keys()
    for name, param in model.parameters.items():
        start = state[name].astype(np.float64)
        assert_near(param - start, want[name] - start, 5e-4, name)
