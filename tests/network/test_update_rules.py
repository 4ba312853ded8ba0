"""The trainer's rules against PyTorch's, dense and sparse gradients alike, and the learning-rate schedules."""

import math
from typing import Any

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.network.shape import NetworkShape
from fastmlp.ops import Ops
from fastmlp.ops.gradient import RowGradient
from fastmlp.training.schedule import learning_rate
from fastmlp.training.update_rules import SGD, Adagrad, AdamW, Momentum, make_optimizer
from tests.helpers import NUMPY, assert_near
from tests.networks import batch, make_model, nonzero_state, torch_model

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
        (Momentum, "SGD", {}, {"momentum": 0.9}),
        (Momentum, "SGD", {"momentum": 0.5, "weight_decay": 0.1}, {"momentum": 0.5, "weight_decay": 0.1}),
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
    optimizer = rule(parameters, ops, threads=2, **options)
    for gradient in gradients:
        optimizer.update(gradient, 0.05)
    for name, param in parameters.items():
        np.testing.assert_allclose(param, want[name], rtol=2e-6, atol=2e-7, err_msg=name)


@pytest.mark.parametrize("rule", [SGD, Momentum, Adagrad, AdamW])
def test_an_optimizer_goes_on_with_the_same_bits_from_its_state(rule: Any, rng: np.random.Generator) -> None:
    parameters, gradients = initial(rng), random_gradients(rng)
    whole = {name: param.copy() for name, param in parameters.items()}
    uninterrupted = rule(whole, NUMPY)
    first = rule(parameters, NUMPY)
    for step, gradient in enumerate(gradients):
        uninterrupted.update(gradient, 0.05)
        if step == 2:
            second = rule(parameters, NUMPY)
            second.load_state({name: array.copy() for name, array in first.state.items()}, first.steps)
            first = second
        first.update(gradient, 0.05)
    for name, param in parameters.items():
        assert param.tobytes() == whole[name].tobytes(), name


def test_the_state_of_another_rule_is_refused(rng: np.random.Generator) -> None:
    parameters = initial(rng)
    with pytest.raises(ValueError, match=r"expected velocity\.weight.*got nothing"):
        Momentum(parameters, NUMPY).load_state(SGD(parameters, NUMPY).state, 3)


@pytest.mark.parametrize(
    ("options", "rule", "used"),
    [
        ({}, AdamW, {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "eps": 1e-8}),
        (
            {"betas": (0.8, 0.99), "weight_decay": 0.1},
            AdamW,
            {"beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1, "eps": 1e-8},
        ),
        ({"optimizer": "sgd"}, SGD, {"weight_decay": 0.0}),
        ({"optimizer": "momentum", "momentum": 0.5}, Momentum, {"momentum": 0.5, "weight_decay": 0.0}),
        ({"optimizer": "adagrad", "weight_decay": 0.2}, Adagrad, {"eps": 1e-10, "weight_decay": 0.2}),
    ],
)
def test_the_configuration_chooses_the_rule_and_its_options(
    options: Any, rule: Any, used: Any, rng: np.random.Generator
) -> None:
    optimizer = make_optimizer(TrainConfig(**options), initial(rng), NUMPY, threads=1)
    assert type(optimizer) is rule
    assert optimizer.options == used


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("step", [1, 1, 0.1, 0.1, 0.1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
    ],
)
def test_schedules(schedule: str, rates: list[float]) -> None:
    got = [learning_rate(0.1, schedule, progress=progress) for progress in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(got, [0.1 * rate for rate in rates], atol=1e-17)


def test_the_warmup_grows_linearly_and_ends() -> None:
    rates = [learning_rate(0.1, "constant", progress=0, step=step, warmup=4) for step in range(6)]
    np.testing.assert_allclose(rates, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_the_warmup_is_over_after_its_steps_or_its_share_of_the_run() -> None:
    def rate(progress: float, step: int) -> float:
        return learning_rate(0.1, "constant", progress=progress, step=step, warmup=4, warmup_share=0.1)

    assert rate(0.0, 1) == pytest.approx(0.05)
    assert rate(0.075, 1) == pytest.approx(0.075)
    assert rate(0.5, 1) == rate(0.0, 3) == 0.1


# ---------------------------------------------------------------------------- ten steps of the trainer's network

NETWORK = NetworkShape(vocabulary=509, context=4, embed=6, hidden=(31, 23))


def ten_steps_by_torch(
    state: dict[str, Array], batches: list[tuple[Array, Array]], rule: str, options: dict[str, Any]
) -> tuple[list[float], dict[str, Array]]:
    """Losses, and the parameters after them, in float64."""
    torch = pytest.importorskip("torch")
    model = torch_model(state, NETWORK, "float64")
    optimizer = getattr(torch.optim, rule)(model.parameters(), **options)
    losses = []
    for ids, targets in batches:
        logits = model(torch.from_numpy(ids).long())
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: param.detach().numpy() for name, param in model.named_parameters()}


@pytest.mark.parametrize("weight_decay", [None, 0.1], ids=["default", "decay"])
@pytest.mark.parametrize(
    ("optimizer", "torch_rule", "taken_over"),
    [
        ("sgd", "SGD", []),
        ("momentum", "SGD", ["momentum"]),
        ("adagrad", "Adagrad", []),
        ("adamw", "AdamW", ["betas"]),
    ],
)
def test_promise_3_ten_steps_of_the_trainers_network_equal_pytorch(
    ops: Ops, rng: np.random.Generator, optimizer: str, torch_rule: str, taken_over: list[str], weight_decay: float
) -> None:
    """The losses, and what ten steps made of every parameter, the output layer's among them: its update is fused.

    What a step adds to a parameter is judged, not the parameter, of which it is a thousandth. The bound is ten times
    what float32 PyTorch itself is off; a wrong number of the step in AdamW's update shows at 3e-2.
    """
    config = TrainConfig(optimizer=optimizer, weight_decay=weight_decay)
    options = {name: getattr(config, name) for name in ("lr", "weight_decay", *taken_over)}
    state = {name: array.astype(np.float32) for name, array in nonzero_state(rng, NETWORK).items()}
    batches = [batch(rng, NETWORK, rows=32) for _ in range(10)]
    want_losses, want = ten_steps_by_torch(state, batches, torch_rule, options)

    model = make_model(ops, state, NETWORK, threads=2)
    rule = make_optimizer(config, model.parameters, ops, threads=2)
    losses = [rule.step(model, ids, targets, config.lr) for ids, targets in batches]

    np.testing.assert_allclose(losses, want_losses, rtol=1e-5)
    for name, param in model.parameters.items():
        start = state[name].astype(np.float64)
        assert_near(param - start, want[name] - start, 5e-4, name)
