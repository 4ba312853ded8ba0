"""What all optimizers have: groups of parameters, their options and their state."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastmlp.arrays import as_floats, check_shape, empty
from fastmlp.nn.module import Module, Parameters
from fastmlp.nn.place import Bound
from fastmlp.ops.gradient import Gradient, RowGradient

__all__ = ["Group", "Optimizer", "Rule", "State", "refuse", "run"]

Array = np.ndarray
State = dict[str, Any]  # the optimizer state of one parameter, by PyTorch's names
Group = dict[str, Any]  # "params", and the options by name
Rule = tuple[str, dict[str, Any]]  # the name of the op update_<name>, and its options

AT_LEAST_0 = ("lr", "momentum", "weight_decay", "eps", "lr_decay", "initial_accumulator_value")
SCHEDULED = ("initial_lr",)  # options that a scheduler adds to a group
REFUSED = ("capturable", "differentiable")  # if true


class Call(NamedTuple):
    """One parameter's update, bound to its arrays; looking them up again would take a tenth of a small step."""

    source: Array | tuple[Array | None, ...]  # the gradient, or what an op makes it from: the call is bound to these
    rule: str
    update: Callable[..., Any]  # takes the rule's options


class Optimizer:
    """The base class of the optimizers: groups of parameters, their options and the optimizer state.

    param_groups  dictionaries, each of "params" and the optimizer's options

    >>> from fastmlp import nn
    >>> first, second = nn.Linear(2, 3), nn.Linear(3, 1)
    >>> from fastmlp.optim import SGD
    >>> optimizer = SGD(first.parameters() + second.parameters(), lr=0.1)
    >>> optimizer.param_groups[0]["lr"] = 0.01
    >>> isinstance(optimizer, Optimizer), len(optimizer.param_groups[0]["params"])
    (True, 4)
    """

    slots: tuple[str, ...] = ()  # state arrays of a parameter, in the order of the op's arguments
    late_slots: tuple[str, ...] = ()  # slots that may be missing after a step, until an option needs them

    def __init__(self, params: Parameters | Iterable[Mapping[str, Any]], options: dict[str, Any]) -> None:
        """params   parameters of modules, or groups of them
        options  defaults for the options that a group does not set
        """
        self.defaults = options
        self.param_groups: list[Group] = []
        self._states: dict[tuple[int, str], State] = {}  # by id of the module, and name
        self._group_by_owner: dict[tuple[int, str], Group] = {}
        self._calls: dict[tuple[int, str], Call] = {}
        for group in [{"params": params}] if isinstance(params, Parameters) else _groups(params):
            self.add_param_group(group)
        if not any(len(group["params"]) for group in self.param_groups):
            raise ValueError("params: expected parameters, got none")

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group of parameters, with its own options if it sets any.

        Raise TypeError for bare arrays or an unknown option, ValueError for parameters that the optimizer already has.
        """
        group = {**self.defaults, **param_group}
        if not isinstance(group.get("params"), Parameters):
            raise _no_parameters(group.get("params"))
        if unknown := [name for name in group if name not in ("params", *SCHEDULED, *self.defaults)]:
            raise TypeError(f"param_group: {type(self).__name__} has no option {', '.join(unknown)}")
        self._check(group)
        owners = [owner for known in [*self.param_groups, group] for owner in known["params"].owners]
        if len({(id(module), name) for module, name in owners}) < len(owners):
            raise ValueError("params: expected each parameter once, got one of them twice")
        self.param_groups.append(group)
        self._group_by_owner |= {(id(module), name): group for module, name in group["params"].owners}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update each parameter by its gradient.

        closure  called first, if given, to compute the gradients; its result is returned
        """
        loss = None if closure is None else closure()
        for group in self.param_groups:
            self._check(group)
            rules: dict[int, Rule | None] = {}  # by the number of the step, which most parameters share
            for module, name in group["params"].owners:
                gradient = module.grads.get(name)
                if gradient is None:
                    continue
                if group.get("maximize"):  # not in groups of older pickles
                    gradient = _negative(gradient)
                state = self._states.get((id(module), name)) or self._state(module, name)
                step = state["step"] + 1
                rule = rules[step] if step in rules else rules.setdefault(step, self._rule(group, step))
                call = self._calls.get((id(module), name))
                if call is not None and rule is not None and call.source is gradient and call.rule == rule[0]:
                    state["step"] = step
                    call.update(**rule[1])
                elif rule is not None and isinstance(gradient, RowGradient):
                    state["step"], param = step, getattr(module, name)
                    run(rule, module, gradient, self._kept(state, param, group), param)
                else:
                    self._step_of(module, name, gradient, group, rule)
        return loss

    def _step_of(self, module: Module, name: str, gradient: Any, group: Group, rule: Rule | None) -> None:
        """Update one parameter; keep the call if the module's place is bound."""
        param, state = getattr(module, name), self._state(module, name)
        if not isinstance(gradient, RowGradient):
            gradient = as_floats(f"gradient of {name}", gradient, param.dtype)
            check_shape(f"gradient of {name}", gradient, param.shape)
        state["step"] += 1
        if rule is None:
            self._update(module, param, gradient, state, group)
            return
        states, place = self._kept(state, param, group), module.place
        run(rule, module, gradient, states, param)
        if isinstance(place, Bound):
            again = place.again(f"update_{rule[0]}", gradient, *states, param)
            self._calls[id(module), name] = Call(gradient, rule[0], again)

    def _next_rule(self, module: Module, name: str) -> Rule:
        """Return the rule, and its options, of the next step of the parameter `name` of a module.

        Raise ValueError for a parameter of no group, NotImplementedError if no op implements the group's options.
        """
        group = self._group_of(module, name)
        rule = self._rule(group, self._state(module, name)["step"] + 1)
        if rule is None or group.get("maximize"):
            raise NotImplementedError(f"{type(self).__name__}: no op makes its step with {_options(group)}")
        return rule

    def step_with(
        self,
        op: str,
        module: Module,
        name: str,
        before: tuple[Array | None, ...],
        after: tuple[Array | None, ...],
        *,
        finishes: bool = True,
        again: bool = False,
        **options: Any,
    ) -> Any:
        """Make the next step of one parameter by an op that multiplies too; return what the op returns.

        op        takes `before`, two arrays of state, None for each that the rule lacks, `after`, the options, and
                  `rule` with the rule's own. If it returns False, it has updated nothing
        name      of the parameter in its module; `step` leaves it alone as long as it has no gradient
        finishes  False: the op leaves rows to `step`, which also counts the step
        again     whether steps to come pass the same tuple `before`: in a bound place they then repeat this call, with
                  its op, arrays and options, which are not checked again; only the rule's options are new
        Raise ValueError for a parameter of no group, NotImplementedError if no op implements the group's options.
        """
        rule, state = self._next_rule(module, name), self._state(module, name)
        call = self._calls.get((id(module), name)) if again else None
        if call is not None and call.source is before and call.rule == rule[0]:
            updated = call.update(**rule[1])
        else:
            states = [*self._kept(state, getattr(module, name), self._group_of(module, name)), None, None][:2]
            arrays, options = (*before, *states, *after), {"rule": rule[0], **options}
            updated = module.place.run(op, *arrays, **options, **rule[1])
            if again and isinstance(module.place, Bound):
                self._calls[id(module), name] = Call(before, rule[0], module.place.again(op, *arrays, **options))
        if finishes and updated is not False:
            state["step"] += 1
        return updated

    def _group_of(self, module: Module, name: str) -> Group:
        try:
            return self._group_by_owner[id(module), name]
        except KeyError:
            raise ValueError(
                f"{type(self).__name__}: {name} of {type(module).__name__} is none of its parameters"
            ) from None

    def _state(self, module: Module, name: str) -> State:
        return self._states.setdefault((id(module), name), {"step": 0})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients. This is not needed between steps, because a backward pass replaces them."""
        if not set_to_none:
            raise NotImplementedError(f"{type(self).__name__}: set_to_none: expected True, got {set_to_none!r}")
        for group in self.param_groups:
            for module, name in group["params"].owners:
                module.grads.pop(name, None)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer state in PyTorch's layout; the arrays are copies, which later steps do not change.

        {"state": {number: {...}}, "param_groups": [{..., "params": [number, ...]}]}
        """
        state, groups, number = {}, [], 0
        for group in self.param_groups:
            numbers = list(range(number, number + len(group["params"])))
            number += len(numbers)
            groups.append({**_options(group), "params": numbers})
            for at, (module, name) in zip(numbers, group["params"].owners, strict=True):
                if (kept := self._states.get((id(module), name))) and kept["step"]:
                    state[at] = copy.deepcopy(kept)
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of the same optimizer of fastmlp or PyTorch; arrays are copied.

        Raise ValueError for other groups or shapes, and NotImplementedError for options that are not supported.
        """
        if missing := [key for key in ("state", "param_groups") if key not in state_dict]:
            raise ValueError(f"state_dict: expected that of an optimizer; {', '.join(missing)} missing")
        given = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in self.param_groups]
        if (got := [len(group["params"]) for group in given]) != sizes:
            raise ValueError(f"state_dict: expected groups of {sizes} parameters, got {got}")
        groups: list[Group] = []
        states: dict[tuple[int, str], State] = {}
        for own, group in zip(self.param_groups, given, strict=True):
            groups.append({name: group.get(name, value) for name, value in own.items()} | {"params": own["params"]})
            groups[-1] |= {name: group[name] for name in SCHEDULED if name in group}
            refuse(self, **{name: group.get(name) for name in REFUSED})
            self._check(groups[-1])
            for number, (module, name), param in zip(group["params"], own["params"].owners, own["params"], strict=True):
                if number in state_dict["state"]:
                    states[id(module), name] = self._loaded(number, state_dict["state"][number], param, groups[-1])
        for own, group in zip(self.param_groups, groups, strict=True):
            own.update(group)
        self._states = states
        self._calls.clear()

    def _loaded(self, number: int, given: Mapping[str, Any], param: Array, group: Group) -> State:
        state: State = {"step": int(given.get("step", 1))}
        for slot in self._slots(group):
            name = f"state_dict: {slot} of parameter {number}"
            if given.get(slot) is None:
                if slot in self.late_slots:
                    continue
                raise ValueError(f"{name}: expected an array, got nothing")
            array = as_floats(name, given[slot], param.dtype)
            check_shape(name, array, param.shape)
            state[slot] = empty(param.shape, param.dtype)
            state[slot][...] = array
        return state

    def _slots(self, group: Group) -> tuple[str, ...]:
        """Return the slots that a group's options need."""
        return self.slots

    def remembered(self, module: Module, name: str) -> State:
        """Return the state of a parameter, not copied: "step" and arrays, by PyTorch's names."""
        state = self._state(module, name)
        self._kept(state, getattr(module, name), self._group_of(module, name))
        return state

    def _kept(self, state: State, param: Array, group: Group) -> tuple[Array, ...]:
        """Return the arrays of the slots; make them before the first step that needs them."""
        slots = self._slots(group)
        for slot in slots:
            if slot not in state:
                state[slot] = empty(param.shape, param.dtype)
                state[slot].fill(self._start(group))
        return tuple([state[slot] for slot in slots])

    def _start(self, group: Group) -> float:
        """Return the initial value of the slots."""
        return 0.0

    def _check(self, group: Group) -> None:
        """Raise ValueError for an option outside its bounds, TypeError for one that is not a number."""
        for name, value in group.items():
            if type(value) is float and 0 <= value < math.inf:
                continue
            if name in AT_LEAST_0 and not 0 <= _number(name, value) < math.inf:
                raise ValueError(f"{name}: expected at least 0, got {value}")
        if "betas" not in group:
            return
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas: expected two numbers in [0, 1), got {betas!r}")
        for number, beta in enumerate(betas):
            if type(beta) is float and 0 <= beta < 1:
                continue
            if not 0 <= _number(f"betas[{number}]", beta) < 1:
                raise ValueError(f"betas[{number}]: expected a number in [0, 1), got {beta}")

    def _rule(self, group: Group, step: int) -> Rule | None:
        """Return name and options of the op for a step; None if no op implements it, and `_update` must."""
        raise NotImplementedError

    def _update(self, module: Module, param: Array, gradient: Gradient, state: State, group: Group) -> None:
        """Update one parameter if no op implements the group's options."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes with states by number, because module ids differ in another process."""
        return {**vars(self), "_states": self.state_dict()["state"], "_group_by_owner": {}, "_calls": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._group_by_owner = {
            (id(module), name): group for group in self.param_groups for module, name in group["params"].owners
        }
        owners = [owner for group in self.param_groups for owner in group["params"].owners]
        self._states = {(id(owners[number][0]), owners[number][1]): kept for number, kept in state["_states"].items()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(str(_options(group)) for group in self.param_groups)})"


def run(rule: Rule, module: Module, gradient: Gradient, states: Sequence[Array], param: Array) -> None:
    """Make one step with the op update_<rule>, or with its form for rows."""
    name, options = rule
    if isinstance(gradient, RowGradient):
        arrays = gradient.rows, gradient.drows, *states, param
        module.place.run(f"update_{name}_rows", *arrays, only_rows=gradient.alone, **options)
    else:
        module.place.run(f"update_{name}", gradient, *states, param, **options)


def _negative(gradient: Any) -> Any:
    if isinstance(gradient, RowGradient):
        return RowGradient(gradient.rows, -gradient.drows, alone=gradient.alone)
    return np.negative(gradient)


def _options(group: Group) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _groups(params: Any) -> list[Mapping[str, Any]]:
    try:
        groups = list(params)
    except TypeError:
        raise _no_parameters(params) from None
    for group in groups:
        if not isinstance(group, Mapping):
            raise _no_parameters(params)
    return groups


def _no_parameters(params: Any) -> TypeError:
    return TypeError(
        "params: expected model.parameters(), several joined with +, or groups of them;"
        f" got {type(params).__name__}: bare arrays do not say where their gradients are"
    )


def _number(name: str, value: Any) -> float:
    """Return a number, or an array or tensor of one number, as a float."""
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name}: expected a number, got {value!r}")


def refuse(optimizer: Optimizer, **arguments: Any) -> None:
    """Raise NotImplementedError if one of these arguments of PyTorch is set."""
    for name, value in arguments.items():
        if value:
            raise NotImplementedError(f"{type(optimizer).__name__}: {name} is not supported, got {value!r}")
