"""The schedules of the learning rate against torch.optim.lr_scheduler."""

import inspect
import pickle
from types import ModuleType
from typing import Any

import pytest

from fastmlp import nn, optim
from fastmlp.optim import lr_scheduler


class Tenth:
    """A callable object, whose attributes are part of the state."""

    def __init__(self, power: int) -> None:
        self.power = power

    def __call__(self, step: int) -> float:
        return float(0.9 ** (step * self.power))


SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 3}),
    ("StepLR", {"step_size": 1, "gamma": 0.7}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.5, "total_iters": 7}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 4}),
    ("CosineAnnealingLR", {"T_max": 5}),
    ("CosineAnnealingLR", {"T_max": 20, "eta_min": 0.01}),
    ("LambdaLR", {"lr_lambda": lambda step: 0.95**step}),
    ("LambdaLR", {"lr_lambda": [lambda step: 1 / (1 + step), Tenth(2)]}),
]
each_schedule = pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=str)


def optimizers(torch: ModuleType) -> list[Any]:
    """Two groups with rates of their own, here and in PyTorch."""
    made = []
    for modules, rules in ((nn, optim), (torch.nn, torch.optim)):
        first, second = modules.Linear(2, 3), modules.Linear(3, 1)
        groups = [{"params": first.parameters(), "lr": 0.5}, {"params": second.parameters()}]
        made.append(rules.SGD(groups, lr=0.1))
    return made


def rates(optimizer: Any) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


@each_schedule
def test_promise_3_rates_equal_pytorch(name: str, options: dict[str, Any], torch: ModuleType) -> None:
    ours, theirs = optimizers(torch)
    got = getattr(lr_scheduler, name)(ours, **options)
    want = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    seen = []
    for step in range(17):
        assert rates(ours) == pytest.approx(rates(theirs), rel=1e-9, abs=1e-12), step
        assert got.get_last_lr() == rates(ours)
        seen.append(rates(ours))
        if step == 10:  # what a user changes stays changed, or is overwritten, as in PyTorch
            ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.3
        theirs.step(), got.step(), want.step()
    assert min(map(tuple, seen)) < max(map(tuple, seen))


@each_schedule
def test_states_go_both_ways(name: str, options: dict[str, Any], torch: ModuleType) -> None:
    ours, theirs = optimizers(torch)
    scheduler = getattr(lr_scheduler, name)(ours, **options)
    want = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for _ in range(4):
        theirs.step(), scheduler.step(), want.step()
    state, state_of_torch = scheduler.state_dict(), want.state_dict()
    if name != "LambdaLR" or options["lr_lambda"] is not SCHEDULES[-2][1]["lr_lambda"]:
        pickle.dumps(state)
    assert state["base_lrs"] == state_of_torch["base_lrs"]
    again, there = optimizers(torch)
    resumed = getattr(lr_scheduler, name)(again, **options)
    back = getattr(torch.optim.lr_scheduler, name)(there, **options)
    again.load_state_dict(theirs.state_dict()), resumed.load_state_dict(state_of_torch)
    there.load_state_dict(ours.state_dict()), back.load_state_dict(state)
    assert again.param_groups[0]["initial_lr"] == 0.5
    for _ in range(8):
        theirs.step(), there.step()
        for each in (want, resumed, back):
            each.step()
        assert rates(again) == pytest.approx(rates(theirs), rel=1e-9, abs=1e-12)
        assert rates(there) == pytest.approx(rates(theirs), rel=1e-9, abs=1e-12)


@each_schedule
def test_a_scheduler_that_is_made_anew_goes_on(name: str, options: dict[str, Any], torch: ModuleType) -> None:
    """With last_epoch, from an optimizer's state alone."""
    ours, theirs = optimizers(torch)
    pairs = [(lr_scheduler, ours), (torch.optim.lr_scheduler, theirs)]
    for module, optimizer in pairs:
        scheduler = getattr(module, name)(optimizer, **options)
        for _ in range(2):
            optimizer.step(), scheduler.step()
    fresh = optimizers(torch)
    for (_, optimizer), other in zip(pairs, fresh, strict=True):
        other.load_state_dict(optimizer.state_dict())
    ours, theirs = fresh
    pairs = [(lr_scheduler, ours), (torch.optim.lr_scheduler, theirs)]
    resumed = [getattr(module, name)(optimizer, **options, last_epoch=2) for module, optimizer in pairs]
    for _ in range(4):
        assert rates(ours) == pytest.approx(rates(theirs), rel=1e-9)
        for (_, optimizer), scheduler in zip(pairs, resumed, strict=True):
            optimizer.step(), scheduler.step()


def test_the_attributes_of_a_callable_object_are_loaded(torch: ModuleType) -> None:
    ours, other = optimizers(torch)[0], optimizers(torch)[0]
    state = lr_scheduler.LambdaLR(ours, Tenth(3)).state_dict()
    scheduler = lr_scheduler.LambdaLR(other, Tenth(1))
    scheduler.load_state_dict(state)
    scheduler.step()
    assert rates(other) == pytest.approx([0.5 * 0.9**3, 0.1 * 0.9**3])


@pytest.mark.parametrize("name", ["LRScheduler", "StepLR", "LinearLR", "CosineAnnealingLR", "LambdaLR"])
def test_arguments_are_those_of_pytorch(name: str, torch: ModuleType) -> None:
    theirs = inspect.signature(getattr(torch.optim.lr_scheduler, name)).parameters.values()
    got = inspect.signature(getattr(lr_scheduler, name)).parameters.values()
    assert [(p.name, p.default, p.kind) for p in got] == [(p.name, p.default, p.kind) for p in theirs]


def test_promise_12_what_does_not_fit_is_refused_by_name(torch: ModuleType) -> None:
    optimizer, theirs = optimizers(torch)
    for error, message, call in [
        (TypeError, "optimizer: expected one of fastmlp.optim, got SGD", lambda: lr_scheduler.StepLR(theirs, 2)),
        (
            KeyError,
            r"initial_lr: expected in param_groups\[0\]",
            lambda: lr_scheduler.StepLR(optimizer, 2, last_epoch=3),
        ),
        (ValueError, "start_factor: expected a number above 0", lambda: lr_scheduler.LinearLR(optimizer, 0)),
        (ValueError, "end_factor: expected a number from 0 to 1", lambda: lr_scheduler.LinearLR(optimizer, 0.5, 2)),
        (ValueError, "lr_lambda: expected .* for each of 2, got 1", lambda: lr_scheduler.LambdaLR(optimizer, [abs])),
        (NotImplementedError, "StepLR.step: epoch", lambda: lr_scheduler.StepLR(optimizer, 2).step(3)),
    ]:
        with pytest.raises(error, match=message):
            call()
