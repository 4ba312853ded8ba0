"""The optimizers against torch.optim: many steps, every option, states exchanged in both directions."""

import inspect
import pickle
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastmlp import nn, optim
from tests.helpers import CLOSE, assert_near

Array = np.ndarray
STEPS = 40
WORDS = 7


def make(module: ModuleType) -> Any:
    """An embedding, whose gradient here is of rows, and a layer."""
    options = {"rng": 2003} if module is nn else {}
    return module.Sequential(module.Embedding(WORDS, 3, **options), module.Linear(3, 4, **options))


def batches(steps: int = STEPS) -> Iterator[tuple[Array, Array]]:
    """Ids, some of which are missing in most batches, and gradients from above."""
    rng = np.random.default_rng(5)
    for _ in range(steps):
        yield rng.integers(0, WORDS, 3), rng.normal(size=(3, 4)).astype(np.float32)


def step(ours: Any, optimizer: Any, ids: Array, grad: Array) -> None:
    ours(ids)
    ours.backward(grad)
    optimizer.step()


def step_torch(torch: ModuleType, theirs: Any, optimizer: Any, ids: Array, grad: Array) -> None:
    optimizer.zero_grad()
    theirs(torch.from_numpy(ids)).backward(torch.from_numpy(grad))
    optimizer.step()


def pair(torch: ModuleType) -> tuple[Any, Any]:
    ours, theirs = make(nn), make(torch.nn)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def assert_same(ours: Any, theirs: Any) -> None:
    for (name, param), tensor in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_near(param, tensor, CLOSE["float32"], name)


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 1.0, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.1, "weight_decay": 0.1, "lr_decay": 0.02, "initial_accumulator_value": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.3}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.3, "decoupled_weight_decay": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "maximize": True}),
    ("Adagrad", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.3, "maximize": True, "eps": 1e-2}),
    ("AdamW", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.3, "betas": (0.5, 0.6)}),
    ("AdamW", {"lr": 0.01, "maximize": True, "weight_decay": 0.3}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.3}),
]


@pytest.mark.parametrize(("rule", "options"), OPTIONS, ids=str)
def test_promise_3_many_steps_equal_pytorch(rule: str, options: dict[str, Any], torch: ModuleType) -> None:
    ours, theirs = pair(torch)
    before = [param.copy() for param in ours.parameters()]
    optimizer = getattr(optim, rule)(ours.parameters(), **options)
    want = getattr(torch.optim, rule)(theirs.parameters(), **options)
    for ids, grad in batches():
        step(ours, optimizer, ids, grad)
        step_torch(torch, theirs, want, ids, grad)
    assert_same(ours, theirs)
    assert all((now != then).all() for now, then in zip(ours.parameters(), before, strict=True))


@pytest.mark.parametrize("rule", ["SGD", "Adagrad", "Adam", "AdamW"])
def test_arguments_are_those_of_pytorch(rule: str, torch: ModuleType) -> None:
    theirs = inspect.signature(getattr(torch.optim, rule)).parameters
    if rule == "Adam" and "decoupled_weight_decay" not in theirs:
        pytest.skip("an older PyTorch")
    got = [(p.name, p.default, p.kind) for p in inspect.signature(getattr(optim, rule)).parameters.values()]
    assert got == [(p.name, p.default, p.kind) for p in theirs.values()]


def test_promise_3_groups_and_options_changed_on_the_way(torch: ModuleType) -> None:
    ours, theirs = pair(torch)
    optimizer = optim.SGD([{"params": ours[0].parameters(), "lr": 0.5}, {"params": ours[1].parameters()}], lr=0.1)
    want = torch.optim.SGD([{"params": theirs[0].parameters(), "lr": 0.5}, {"params": theirs[1].parameters()}], lr=0.1)
    for number, (ids, grad) in enumerate(batches()):
        if number == 10:
            for each in (optimizer, want):
                each.param_groups[0]["lr"] = 0.01
                each.param_groups[1].update(momentum=0.9, dampening=0.5)  # the first velocity is not dampened
        step(ours, optimizer, ids, grad)
        step_torch(torch, theirs, want, ids, grad)
    assert_same(ours, theirs)


@pytest.mark.parametrize(("rule", "options"), [OPTIONS[at] for at in (1, 4, 6, 11, 14, 16, 18, 20, 21, -1)], ids=str)
def test_states_go_both_ways(rule: str, options: dict[str, Any], torch: ModuleType) -> None:
    """Training begun in PyTorch, continued here and ended in PyTorch equals training in PyTorch alone."""
    whole = make(torch.nn)
    theirs = make(torch.nn)
    theirs.load_state_dict(whole.state_dict())
    rule_of = getattr(torch.optim, rule)
    uninterrupted, first = rule_of(whole.parameters(), **options), rule_of(theirs.parameters(), **options)
    for number, (ids, grad) in enumerate(batches(30)):
        step_torch(torch, whole, uninterrupted, ids, grad)
        if number == 10:
            ours = make(nn)
            ours.load_state_dict(theirs.state_dict())
            optimizer = getattr(optim, rule)(ours.parameters())  # the options come with the state
            optimizer.load_state_dict(first.state_dict())
        if number == 20:
            theirs.load_state_dict({key: torch.from_numpy(array) for key, array in ours.state_dict().items()})
            state = optimizer.state_dict()
            last = rule_of(theirs.parameters())
            last.load_state_dict({**state, "state": {at: tensors(torch, kept) for at, kept in state["state"].items()}})
        if 10 <= number < 20:
            step(ours, optimizer, ids, grad)
        else:
            step_torch(torch, theirs, first if number < 10 else last, ids, grad)
    for one, other in zip(theirs.parameters(), whole.parameters(), strict=True):
        assert_near(one, other, CLOSE["float32"], "a parameter")


def tensors(torch: ModuleType, state: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.tensor(value) for name, value in state.items()}


def test_an_optimizer_goes_on_with_the_same_bits_from_its_state() -> None:
    for rule, options in OPTIONS:
        whole, halves = make(nn), make(nn)
        halves.load_state_dict(whole.state_dict())
        uninterrupted = getattr(optim, rule)(whole.parameters(), **options)
        optimizer = getattr(optim, rule)(halves.parameters(), **options)
        for number, (ids, grad) in enumerate(batches(12)):
            step(whole, uninterrupted, ids, grad)
            if number == 5:
                state = optimizer.state_dict()
                optimizer = getattr(optim, rule)(halves.parameters())
                optimizer.load_state_dict(state)
            step(halves, optimizer, ids, grad)
        assert [p.tobytes() for p in whole.parameters()] == [p.tobytes() for p in halves.parameters()], (rule, options)


@pytest.mark.parametrize("rule", ["SGD", "Adagrad", "Adam", "AdamW"])
def test_a_state_dict_is_of_the_moment_it_was_taken(rule: str) -> None:
    """Otherwise the state would hold a later step's moments with this step's number."""
    model = make(nn)
    options = {"momentum": 0.9} if rule == "SGD" else {}
    optimizer = getattr(optim, rule)(model.parameters(), lr=0.1, **options)
    (first, second) = batches(2)
    step(model, optimizer, *first)
    state = optimizer.state_dict()
    kept = pickle.dumps(state)
    step(model, optimizer, *second)
    assert pickle.dumps(state) == kept
    assert pickle.dumps(optimizer.state_dict()) != kept


def test_adamw_goes_on_from_adam_as_adamw(torch: ModuleType) -> None:
    for module, rules in ((nn, optim), (torch.nn, torch.optim)):
        model = make(module)
        adamw = rules.AdamW(model.parameters(), weight_decay=0.1)
        adamw.load_state_dict(rules.Adam(model.parameters(), weight_decay=0.1).state_dict())
        assert adamw.param_groups[0]["decoupled_weight_decay"] is True


def test_momentum_that_began_later_is_loaded_before_its_first_step() -> None:
    model = make(nn)
    optimizer, (ids, grad) = optim.SGD(model.parameters(), lr=0.1), next(batches())
    step(model, optimizer, ids, grad)
    optimizer.param_groups[0]["momentum"] = 0.9
    optimizer.load_state_dict(optimizer.state_dict())
    step(model, optimizer, ids, grad)
    np.testing.assert_allclose(optimizer.state_dict()["state"][2]["momentum_buffer"], grad.sum(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("rule", "options"), [("SGD", {}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("Adam", {"weight_decay": 0.1})]
)
def test_promise_12_a_gradient_of_another_shape_changes_nothing(rule: str, options: dict[str, Any]) -> None:
    layer = nn.Linear(3, 4)
    optimizer, before = getattr(optim, rule)(layer.parameters(), lr=0.1, **options), layer.weight.copy()
    layer.grads["weight"] = np.ones(3, np.float32)  # NumPy would take it for all rows
    with pytest.raises(ValueError, match=r"gradient of weight: expected shape \(4, 3\), got \(3,\)"):
        optimizer.step()
    assert (layer.weight == before).all()
    assert optimizer.state_dict()["state"] == {}


def test_a_parameter_without_gradient_is_left_alone() -> None:
    model = make(nn)
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model[1](np.ones((2, 3)))
    model[1].backward(np.ones((2, 4)))
    before = [param.copy() for param in model.parameters()]
    optimizer.step()
    changed = [bool((now != then).any()) for now, then in zip(model.parameters(), before, strict=True)]
    assert changed == [False, True, True]
    optimizer.zero_grad()
    assert model.gradients() == [None] * 3


def test_the_closure_is_called_first() -> None:
    model = make(nn)
    optimizer, (ids, grad) = optim.SGD(model.parameters(), lr=1), next(batches())
    before = model[1].bias.copy()

    def closure() -> float:
        model(ids)
        model.backward(grad)
        return 3.5

    assert optimizer.step(closure) == 3.5
    np.testing.assert_allclose(model[1].bias, before - grad.sum(0), rtol=1e-5, atol=1e-6)


def test_promise_12_what_does_not_fit_is_refused_by_name() -> None:
    model = make(nn)
    parameters = model.parameters()
    state = optim.Adam(parameters).state_dict()
    group = state["param_groups"][0]
    wrong_shape = {"step": 1, "exp_avg": np.zeros(5), "exp_avg_sq": np.zeros((WORDS, 3))}
    for error, message, call in [
        (TypeError, r"expected model\.parameters\(\).* got list: bare arrays", lambda: optim.SGD(list(parameters))),
        (TypeError, r"expected model\.parameters\(\).* got generator", lambda: optim.SGD(a for a in parameters)),
        (TypeError, r"expected model\.parameters\(\).* got Sequential", lambda: optim.SGD(model)),
        (TypeError, r"got list: bare arrays", lambda: optim.SGD([{"params": list(parameters)}])),
        (TypeError, "SGD has no option betas", lambda: optim.SGD([{"params": parameters, "betas": (0, 0)}])),
        (ValueError, "params: expected parameters, got none", lambda: optim.SGD(nn.Tanh().parameters())),
        (ValueError, "got one of them twice", lambda: optim.SGD(parameters + parameters[:1])),
        (ValueError, "got one of them twice", lambda: optim.SGD([{"params": parameters}, {"params": parameters[1:]}])),
        (ValueError, "lr: expected at least 0, got -1", lambda: optim.SGD(parameters, lr=-1)),
        (ValueError, "lr: expected at least 0, got nan", lambda: optim.SGD(parameters, lr=float("nan"))),
        (ValueError, r"betas\[1\]: expected a number in \[0, 1\), got 1", lambda: optim.Adam(parameters, betas=(0, 1))),
        (TypeError, "lr: expected a number, got '0.1'", lambda: optim.SGD(parameters, lr="0.1")),
        (TypeError, r"betas\[0\]: expected a number, got None", lambda: optim.Adam(parameters, betas=(None, 0.9))),
        (ValueError, r"betas: expected two numbers .* got \(0.9,\)", lambda: optim.Adam(parameters, betas=(0.9,))),
        (ValueError, "betas: expected two numbers .* got 0.9", lambda: optim.Adam(parameters, betas=0.9)),
        (ValueError, "state, param_groups missing", lambda: optim.Adam(parameters).load_state_dict(model.state_dict())),
        (ValueError, "nesterov: expected momentum above 0", lambda: optim.SGD(parameters, nesterov=True)),
        (
            ValueError,
            r"expected groups of \[2\] parameters, got \[3\]",
            lambda: optim.Adam(model[1].parameters()).load_state_dict(state),
        ),
        (
            ValueError,
            r"exp_avg of parameter 0: expected shape \(7, 3\), got \(5,\)",
            lambda: optim.Adam(parameters).load_state_dict({**state, "state": {0: wrong_shape}}),
        ),
        (
            ValueError,
            "exp_avg of parameter 0: expected an array, got nothing",
            lambda: optim.Adam(parameters).load_state_dict({**state, "state": {0: {"step": 1}}}),
        ),
        (
            NotImplementedError,
            "Adam: capturable is not supported",
            lambda: optim.Adam(parameters).load_state_dict(
                {"state": {}, "param_groups": [{**group, "capturable": True}]}
            ),
        ),
    ]:
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("rule", "refused"),
    [
        ("SGD", ("differentiable",)),
        ("Adagrad", ("differentiable",)),
        ("Adam", ("capturable", "differentiable")),
        ("AdamW", ("capturable", "differentiable")),
    ],
)
def test_what_is_not_supported_says_so(rule: str, refused: tuple[str, ...]) -> None:
    for name in refused:
        with pytest.raises(NotImplementedError, match=f"{rule}: {name} is not supported"):
            getattr(optim, rule)(make(nn).parameters(), **{name: True})
    getattr(optim, rule)(make(nn).parameters(), foreach=True, fused=True)


@pytest.mark.parametrize("options", [{"maximize": True}, {"amsgrad": True}], ids=str)
def test_what_no_op_implements_is_not_fused(options: dict[str, Any]) -> None:
    layer = nn.Linear(3, 4)
    with pytest.raises(NotImplementedError, match="AdamW: no op makes its step with"):
        optim.AdamW(layer.parameters(), **options)._next_rule(layer, "weight")


def test_float64_parameters_take_float64_steps(torch: ModuleType) -> None:
    ours = nn.Linear(3, 4, dtype=np.float64)
    theirs = torch.nn.Linear(3, 4, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    optimizer, want = optim.Adam(ours.parameters(), lr=0.1), torch.optim.Adam(theirs.parameters(), lr=0.1)
    for _, grad in batches():
        ours(grad[:, :3]), ours.backward(grad), optimizer.step()
        want.zero_grad(), theirs(torch.from_numpy(grad[:, :3]).double()).backward(torch.from_numpy(grad).double())
        want.step()
    np.testing.assert_allclose(ours.weight, theirs.weight.detach().numpy(), rtol=1e-12)
