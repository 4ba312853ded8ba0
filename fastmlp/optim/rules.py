"""The optimizers, each with its rule: torch.optim's SGD, Adagrad, Adam and AdamW."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastmlp.nn.module import Module, Parameters
from fastmlp.ops.gradient import Gradient, dense
from fastmlp.optim.optimizer import Group, Optimizer, Rule, State, refuse, run

__all__ = ["SGD", "Adagrad", "Adam", "AdamW"]

Array = np.ndarray


class SGD(Optimizer):
    """Stochastic gradient descent with PyTorch's momentum: v = momentum v + (1 - dampening) g; param -= lr v.

    lr            learning rate
    momentum      share of the velocity that is kept; the first velocity is the first gradient
    dampening     as above
    weight_decay  weight_decay * param is added to the gradient
    nesterov      param -= lr (g + momentum v); needs momentum and no dampening
    maximize      step uphill: the gradient is negated first
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
        refuse(self, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov: expected momentum above 0 and no dampening")

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def _rule(self, group: Group, step: int) -> Rule | None:
        options = {"lr": float(group["lr"]), "weight_decay": float(group["weight_decay"])}
        if not group["momentum"]:
            return "sgd", options
        if group["dampening"] or group["nesterov"]:
            return None
        return "momentum", {**options, "momentum": float(group["momentum"])}

    def _update(self, module: Module, param: Array, gradient: Gradient, state: State, group: Group) -> None:
        momentum, decay = float(group["momentum"]), float(group["weight_decay"])
        first = "momentum_buffer" not in state
        [velocity] = self._kept(state, param, group)
        grad = dense(gradient, param) + decay * param if decay else dense(gradient, param)
        velocity *= momentum
        velocity += grad if first else (1 - float(group["dampening"])) * grad
        direction = grad + momentum * velocity if group["nesterov"] else velocity
        run(("sgd", {"lr": float(group["lr"])}), module, direction, (), param)


class Adagrad(Optimizer):
    """Adagrad: s += g^2; param -= lr / (1 + (step - 1) lr_decay) g / (sqrt(s) + eps).

    lr, lr_decay  learning rate, and how fast it falls
    weight_decay  weight_decay * param is added to the gradient
    initial_accumulator_value  initial value of s
    eps           as above
    maximize      step uphill: the gradient is negated first
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
        refuse(self, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "eps": eps,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "maximize": maximize,
            },
        )

    def _start(self, group: Group) -> float:
        return float(group["initial_accumulator_value"])

    def _rule(self, group: Group, step: int) -> Rule:
        return "adagrad", {
            "lr": float(group["lr"]) / (1 + (step - 1) * float(group["lr_decay"])),
            "eps": float(group["eps"]),
            "weight_decay": float(group["weight_decay"]),
        }


class Adam(Optimizer):
    """Adam with PyTorch's weight decay, which is added to the gradient.

    lr     learning rate
    betas  decay rates of the running means of the gradient and of its square
    eps    added to the square root of the latter
    weight_decay  weight_decay * param is added to the gradient; with decoupled_weight_decay as in AdamW
    amsgrad  divide by the highest mean of the square so far
    maximize  step uphill: the gradient is negated first
    Source: Kingma and Ba (2015), algorithm 1; Reddi, Kale and Kumar (2018) for amsgrad.

    >>> from fastmlp import nn
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> Adam([{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.1}])
    Adam({'lr': 0.001, 'betas': (0.9, 0.999), 'eps': 1e-08, 'weight_decay': 0, 'amsgrad': False, 'maximize': False, \
'decoupled_weight_decay': False}, {'lr': 0.1, 'betas': (0.9, 0.999), 'eps': 1e-08, 'weight_decay': 0, \
'amsgrad': False, 'maximize': False, 'decoupled_weight_decay': False})
    """

    slots = ("exp_avg", "exp_avg_sq")
    late_slots = ("max_exp_avg_sq",)

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
        refuse(self, capturable=capturable, differentiable=differentiable)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def _slots(self, group: Group) -> tuple[str, ...]:
        return (*self.slots, *self.late_slots) if group.get("amsgrad") else self.slots

    def _rule(self, group: Group, step: int) -> Rule | None:
        if group.get("amsgrad") or (group["weight_decay"] and not group["decoupled_weight_decay"]):
            return None
        return self._decoupled(group, step, float(group["weight_decay"]))

    def _update(self, module: Module, param: Array, gradient: Gradient, state: State, group: Group) -> None:
        gradient, decay = dense(gradient, param), float(group["weight_decay"])
        if not group["decoupled_weight_decay"]:
            gradient, decay = gradient + decay * param, 0.0
        rule, states = self._decoupled(group, state["step"], decay), self._kept(state, param, group)
        if group.get("amsgrad"):
            mean, square, highest = states
            _amsgrad(gradient, mean, square, highest, param, **rule[1])
        else:
            run(rule, module, gradient, states, param)

    @staticmethod
    def _decoupled(group: Group, step: int, decay: float) -> Rule:
        beta1, beta2 = group["betas"]
        return "adamw", {
            "lr": float(group["lr"]),
            "step": step,
            "beta1": float(beta1),
            "beta2": float(beta2),
            "eps": float(group["eps"]),
            "weight_decay": decay,
        }


class AdamW(Adam):
    """Adam with decoupled weight decay: param *= 1 - lr * weight_decay before each update.

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
        refuse(self, capturable=capturable, differentiable=differentiable)
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load as in Optimizer; weight decay stays decoupled after loading an Adam's state, as in PyTorch."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True


def _amsgrad(
    gradient: Array,
    mean: Array,
    square: Array,
    highest: Array,
    param: Array,
    *,
    lr: float,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Make one step as the op update_adamw does, but divide by the highest mean of the square so far."""
    param *= 1 - lr * weight_decay
    mean += (1 - beta1) * (gradient - mean)
    square *= beta2
    square += (1 - beta2) * gradient * gradient
    np.maximum(highest, square, out=highest)
    param -= lr / (1 - beta1**step) * mean / (np.sqrt(highest) / math.sqrt(1 - beta2**step) + eps)
