"""torch.optim's rules, with its arguments, defaults and state_dict keys, on the parameters of fastmlp.nn.

    optimizer = SGD(model.parameters(), lr=0.1)
    loss = criterion(model(x), y)
    model.backward(criterion.backward())
    optimizer.step()

An optimizer takes what `parameters()` of modules gives, several joined with `+`, or groups of them with options of
their own, [{"params": layer.parameters(), "lr": 0.01}, ...]. A step finds each gradient in the parameter's module, and
leaves a parameter alone that has none. Options may be changed between steps: optimizer.param_groups[0]["lr"] = 0.01.
`foreach` and `fused` say how PyTorch computes a step, not what, and change nothing here; amsgrad, maximize, capturable
and differentiable raise NotImplementedError.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fastmlp.arrays import as_floats, check_shape
from fastmlp.nn.module import Parameters
from fastmlp.ops.backend import ops_of
from fastmlp.ops.gradient import Gradient, RowGradient, dense
from fastmlp.threads import default_threads

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer"]

Array = np.ndarray
State = dict[str, Any]  # what is remembered of a parameter, by PyTorch's names
Group = dict[str, Any]  # "params", and the options by name

AT_LEAST_0 = ("lr", "momentum", "weight_decay", "eps", "lr_decay", "initial_accumulator_value")
REFUSED = ("amsgrad", "maximize", "capturable", "differentiable")  # where they are true


class Optimizer:
    """What the rules share: groups of parameters, their options, and what is remembered of each.

    param_groups  each a dictionary of "params" and the rule's options

    >>> from fastmlp import nn
    >>> first, second = nn.Linear(2, 3), nn.Linear(3, 1)
    >>> optimizer = SGD(first.parameters() + second.parameters(), lr=0.1)
    >>> optimizer.param_groups[0]["lr"] = 0.01
    >>> isinstance(optimizer, Optimizer), len(optimizer.param_groups[0]["params"])
    (True, 4)
    """

    slots: tuple[str, ...] = ()  # arrays that the rule keeps of a parameter, in the order of its op's arguments
    late_slots: tuple[str, ...] = ()  # those that may not be there after a step, until an option asks for them

    def __init__(self, params: Parameters | Iterable[Mapping[str, Any]], options: dict[str, Any]) -> None:
        """params   of modules, or groups of them
        options  of the groups that do not say otherwise
        """
        self.defaults = options
        self.param_groups: list[Group] = []
        self._states: dict[tuple[int, str], State] = {}  # by module and name
        for group in [{"params": params}] if isinstance(params, Parameters) else _groups(params):
            self.add_param_group(group)
        if not any(len(group["params"]) for group in self.param_groups):
            raise ValueError("params: expected parameters, got none")

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Take in more parameters, with options of their own where the group has any.

        Raises TypeError for parameters that are bare arrays, and ValueError for those that it has already.
        """
        group = {**self.defaults, **param_group}
        if not isinstance(group.get("params"), Parameters):
            raise _no_parameters(group.get("params"))
        if unknown := [name for name in group if name not in ("params", *self.defaults)]:
            raise TypeError(f"param_group: {type(self).__name__} has no option {', '.join(unknown)}")
        self._check(group)
        owners = [owner for known in [*self.param_groups, group] for owner in known["params"].owners]
        if len({(id(module), name) for module, name in owners}) < len(owners):
            raise ValueError("params: expected each parameter once, got one of them twice")
        self.param_groups.append(group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change each parameter by its gradient.

        closure  called before, if given: it finds the gradients; what it returns is returned
        """
        loss = None if closure is None else closure()
        for group in self.param_groups:
            self._check(group)
            for (module, name), param in zip(group["params"].owners, group["params"], strict=True):
                gradient = module.grads.get(name)
                if gradient is None:
                    continue
                if not isinstance(gradient, RowGradient):
                    gradient = as_floats(f"gradient of {name}", gradient, param.dtype)
                    check_shape(f"gradient of {name}", gradient, param.shape)
                state = self._states.setdefault((id(module), name), {"step": 0})
                state["step"] += 1
                self._update(param, gradient, state, group)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; not needed between steps, as a backward pass replaces them."""
        if not set_to_none:
            raise NotImplementedError(f"{type(self).__name__}: set_to_none: expected True, got {set_to_none!r}")
        for group in self.param_groups:
            for module, name in group["params"].owners:
                module.grads.pop(name, None)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers now, laid out as PyTorch's; the arrays are copies, so that later steps do not change it.

        {"state": {number: {...}}, "param_groups": [{..., "params": [number, ...]}]}
        """
        state, groups, number = {}, [], 0
        for group in self.param_groups:
            numbers = list(range(number, number + len(group["params"])))
            number += len(numbers)
            groups.append({**{name: value for name, value in group.items() if name != "params"}, "params": numbers})
            for at, (module, name) in zip(numbers, group["params"].owners, strict=True):
                if kept := self._states.get((id(module), name)):
                    state[at] = copy.deepcopy(kept)
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what such an optimizer, or PyTorch's of the same rule, remembered; arrays are copied.

        Raises ValueError for other groups or shapes, and NotImplementedError for options that are not supported.
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
            _refuse(self, **{name: group.get(name) for name in REFUSED})
            self._check(groups[-1])
            for number, (module, name), param in zip(group["params"], own["params"].owners, own["params"], strict=True):
                if number in state_dict["state"]:
                    states[id(module), name] = self._loaded(number, state_dict["state"][number], param, groups[-1])
        for own, group in zip(self.param_groups, groups, strict=True):
            own.update(group)
        self._states = states

    def _loaded(self, number: int, given: Mapping[str, Any], param: Array, group: Group) -> State:
        state: State = {"step": int(given.get("step", 1))}
        for slot in self._slots(group):
            name = f"state_dict: {slot} of parameter {number}"
            if given.get(slot) is None:
                if slot in self.late_slots:
                    continue
                raise ValueError(f"{name}: expected an array, got nothing")
            state[slot] = as_floats(name, given[slot], param.dtype).copy()
            check_shape(name, state[slot], param.shape)
        return state

    def _slots(self, group: Group) -> tuple[str, ...]:
        """The slots that a group's options ask for."""
        return self.slots

    def _kept(self, state: State, param: Array, group: Group, start: float = 0.0) -> list[Array]:
        """The arrays of the slots, each full of `start` before the first step that asks for it."""
        return [
            state[slot] if slot in state else state.setdefault(slot, np.full_like(param, start))
            for slot in self._slots(group)
        ]

    def _check(self, group: Group) -> None:
        """Raise ValueError for an option outside its bounds, TypeError for one that is no number."""
        for name, value in group.items():
            if name in AT_LEAST_0 and not 0 <= _number(name, value) < math.inf:
                raise ValueError(f"{name}: expected at least 0, got {value}")
        if "betas" not in group:
            return
        if not isinstance(group["betas"], tuple | list) or len(group["betas"]) != 2:
            raise ValueError(f"betas: expected two numbers in [0, 1), got {group['betas']!r}")
        for number, beta in enumerate(group["betas"]):
            if not 0 <= _number(f"betas[{number}]", beta) < 1:
                raise ValueError(f"betas[{number}]: expected a number in [0, 1), got {beta}")

    def _update(self, param: Array, gradient: Gradient, state: State, group: Group) -> None:
        raise NotImplementedError

    def _run(self, rule: str, param: Array, gradient: Gradient, kept: Iterable[Array], **options: Any) -> None:
        """The op update_<rule>, or its form for rows."""
        ops = ops_of(param.dtype)
        options["threads"] = default_threads()
        if isinstance(gradient, RowGradient):
            getattr(ops, f"update_{rule}_rows")(gradient.rows, gradient.drows, *kept, param, **options)
        else:
            getattr(ops, f"update_{rule}")(gradient, *kept, param, **options)

    def __getstate__(self) -> dict[str, Any]:
        """Modules have other ids in another process: what is remembered goes by number."""
        return {**vars(self), "_states": self.state_dict()["state"]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        owners = [owner for group in self.param_groups for owner in group["params"].owners]
        self._states = {(id(owners[number][0]), owners[number][1]): kept for number, kept in state["_states"].items()}

    def __repr__(self) -> str:
        groups = [{name: value for name, value in group.items() if name != "params"} for group in self.param_groups]
        return f"{type(self).__name__}({', '.join(map(str, groups))})"


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum as PyTorch has it: v = momentum v + (1 - dampening) g; param -= lr v.

    lr            learning rate
    momentum      share of the velocity that stays; the first velocity is the first gradient
    dampening     as above
    weight_decay  times the parameter is added to the gradient
    nesterov      param -= lr (g + momentum v); needs momentum and no dampening
    Source: Sutskever et al. (2013) for the momentum, in the form of torch.optim.SGD.

    >>> from fastmlp import nn
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> layer.weight[...] = 1
    >>> optimizer, y = SGD(layer.parameters(), lr=0.5), layer([[2.0]])
    >>> layer.backward([[1.0]]).tolist()
    [[1.0]]
    >>> optimizer.step()
    >>> layer.weight.tolist()
    [[0.0]]
    """

    late_slots = ("momentum_buffer",)

    def __init__(
        self,
        params: Parameters | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        _refuse(self, maximize=maximize, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov: expected momentum above 0 and no dampening")

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def _update(self, param: Array, gradient: Gradient, state: State, group: Group) -> None:
        lr, momentum, decay = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
        if not momentum:
            return self._run("sgd", param, gradient, (), lr=lr, weight_decay=decay)
        first = "momentum_buffer" not in state
        [velocity] = self._kept(state, param, group)
        if not group["dampening"] and not group["nesterov"]:
            return self._run("momentum", param, gradient, [velocity], lr=lr, momentum=momentum, weight_decay=decay)
        grad = dense(gradient, param) + decay * param if decay else dense(gradient, param)
        velocity *= momentum
        velocity += grad if first else (1 - float(group["dampening"])) * grad
        direction = grad + momentum * velocity if group["nesterov"] else velocity
        return self._run("sgd", param, direction, (), lr=lr)


class Adagrad(Optimizer):
    """Adagrad: s += g^2; param -= lr / (1 + (step - 1) lr_decay) g / (sqrt(s) + eps).

    lr, lr_decay  learning rate, and how fast it falls
    weight_decay  times the parameter is added to the gradient
    initial_accumulator_value  of s
    eps           as above
    Source: Duchi, Hazan and Singer (2011).

    >>> from fastmlp import nn
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> Adagrad(layer.parameters()).param_groups[0]["lr"]
    0.01
    """

    slots = ("sum",)

    def __init__(
        self,
        params: Parameters | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        _refuse(self, maximize=maximize, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "eps": eps,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
            },
        )

    def _update(self, param: Array, gradient: Gradient, state: State, group: Group) -> None:
        lr = float(group["lr"]) / (1 + (state["step"] - 1) * float(group["lr_decay"]))
        options = {"eps": float(group["eps"]), "weight_decay": float(group["weight_decay"])}
        kept = self._kept(state, param, group, start=float(group["initial_accumulator_value"]))
        self._run("adagrad", param, gradient, kept, lr=lr, **options)


class Adam(Optimizer):
    """Adam, with weight decay as PyTorch has it: added to the gradient.

    lr     learning rate
    betas  shares of the running means of the gradient and of its square that stay
    eps    added to the root of the latter
    weight_decay  times the parameter is added to the gradient; with decoupled_weight_decay it is AdamW's
    Source: Kingma and Ba (2015), algorithm 1.

    >>> from fastmlp import nn
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> Adam([{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.1}])
    Adam({'lr': 0.001, 'betas': (0.9, 0.999), 'eps': 1e-08, 'weight_decay': 0, 'decoupled_weight_decay': False}, \
{'lr': 0.1, 'betas': (0.9, 0.999), 'eps': 1e-08, 'weight_decay': 0, 'decoupled_weight_decay': False})
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Parameters | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        _refuse(self, amsgrad=amsgrad, maximize=maximize, capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def _update(self, param: Array, gradient: Gradient, state: State, group: Group) -> None:
        decay = float(group["weight_decay"])
        if decay and not group["decoupled_weight_decay"]:
            gradient, decay = dense(gradient, param) + decay * param, 0.0
        self._run(
            "adamw",
            param,
            gradient,
            self._kept(state, param, group),
            lr=float(group["lr"]),
            step=state["step"],
            beta1=float(group["betas"][0]),
            beta2=float(group["betas"][1]),
            eps=float(group["eps"]),
            weight_decay=decay,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: before its step a parameter loses lr * weight_decay of itself.

    Arguments as in Adam.
    Source: Loshchilov and Hutter (2019), algorithm 2.

    >>> from fastmlp import nn
    >>> AdamW(nn.Linear(2, 3).parameters()).param_groups[0]["weight_decay"]
    0.01
    """

    def __init__(
        self,
        params: Parameters | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        _refuse(self, amsgrad=amsgrad, maximize=maximize, capturable=capturable, differentiable=differentiable)
        super().__init__(params, lr, betas, eps, weight_decay, decoupled_weight_decay=True)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As of any optimizer; of an Adam's state it goes on with decoupled weight decay, as PyTorch's does."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True


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
    """A number, or an array or tensor of one."""
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name}: expected a number, got {value!r}")


def _refuse(optimizer: Optimizer, **arguments: Any) -> None:
    for name, value in arguments.items():
        if value:
            raise NotImplementedError(f"{type(optimizer).__name__}: {name} is not supported, got {value!r}")
