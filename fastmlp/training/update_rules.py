"""The trainer's optimizers, whose step has the output layer's update fused into its op, and learning-rate schedules.

An optimizer changes a model's parameters in place. What it remembers is in `state`, arrays by "slot.parameter name",
and `steps`, the number of updates made: both go into a checkpoint. Rules and defaults are PyTorch's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.config import TrainConfig
from fastmlp.network.network import MLP, OUTPUT
from fastmlp.ops import Ops
from fastmlp.ops.gradient import Gradient, RowGradient

__all__ = ["SGD", "Adagrad", "AdamW", "Momentum", "Optimizer", "make_optimizer"]

Array = np.ndarray
MOST_SLOTS = 2  # arrays that any rule keeps of a parameter


class Optimizer:
    """What all rules share: one op for dense gradients, one for gradients of rows, arrays of state."""

    rule = ""  # the op is update_<rule>
    slots: tuple[str, ...] = ()  # what the rule remembers of each parameter, in the op's order of arguments

    def __init__(self, parameters: Mapping[str, Array], ops: Ops, *, threads: int = 1, **options: float) -> None:
        """Remember nothing yet.

        parameters  by name; changed in place by `update`
        ops         the back-end
        options     of the rule's op, the same at every step
        """
        self.parameters, self.threads, self.options = parameters, threads, options
        self.steps = 0
        self.state = {
            f"{slot}.{name}": np.zeros_like(param) for name, param in parameters.items() for slot in self.slots
        }
        self._update = getattr(ops, f"update_{self.rule}")
        self._update_rows = getattr(ops, f"update_{self.rule}_rows")
        self._changed = {  # by a step: what the rule remembers of a parameter, then itself
            name: [*(self.state[f"{slot}.{name}"] for slot in self.slots), param] for name, param in parameters.items()
        }

    def step(self, network: MLP, ids: Array, targets: Array, lr: float) -> float:
        """One training step of a network whose parameters these are, the output layer's update fused into its op.

        ids      (B, T)  in: the words of the context
        targets  (B,)    in: the true next words
        Returns the mean loss before the step; where it is infinite or no number nothing is updated.
        """
        state: list[Array | None] = []
        for name in OUTPUT:
            *kept, _ = self._changed[name]
            state += [*kept, None, None][:MOST_SLOTS]
        loss = network.loss_and_output_update(
            ids, targets, state, rule=self.rule, lr=lr, **self.step_options(self.steps + 1)
        )
        if network.gradients:
            self.update(network.gradients, lr)
        return loss

    def update(self, gradients: Mapping[str, Gradient], lr: float) -> None:
        """One step down the gradients, by parameter name, at learning rate `lr`."""
        self.steps += 1
        options = {"lr": lr, "threads": self.threads, **self.step_options(self.steps)}
        for name, gradient in gradients.items():
            if isinstance(gradient, RowGradient):
                self._update_rows(gradient.rows, gradient.drows, *self._changed[name], **options)
            else:
                self._update(gradient, *self._changed[name], **options)

    def step_options(self, step: int) -> dict[str, Any]:
        """The op's options at a step, the first being 1."""
        return self.options

    def load_state(self, state: Mapping[str, Array], steps: int) -> None:
        """Go on from what another optimizer of the same rule and parameters remembered after so many steps."""
        if state.keys() != self.state.keys():
            raise ValueError(
                f"state: expected {', '.join(self.state) or 'nothing'}, got {', '.join(state) or 'nothing'}"
            )
        for name, array in self.state.items():
            array[...] = state[name]
        self.steps = steps


class SGD(Optimizer):
    """Stochastic gradient descent."""

    rule = "sgd"

    def __init__(
        self, parameters: Mapping[str, Array], ops: Ops, *, weight_decay: float = 0.0, threads: int = 1
    ) -> None:
        super().__init__(parameters, ops, threads=threads, weight_decay=weight_decay)


class Momentum(Optimizer):
    """SGD with momentum, not Nesterov's."""

    rule = "momentum"
    slots = ("velocity",)

    def __init__(
        self,
        parameters: Mapping[str, Array],
        ops: Ops,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        threads: int = 1,
    ) -> None:
        super().__init__(parameters, ops, threads=threads, momentum=momentum, weight_decay=weight_decay)


class Adagrad(Optimizer):
    """Adagrad: rarely used words keep a high rate."""

    rule = "adagrad"
    slots = ("squares",)

    def __init__(
        self,
        parameters: Mapping[str, Array],
        ops: Ops,
        *,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        threads: int = 1,
    ) -> None:
        super().__init__(parameters, ops, threads=threads, eps=eps, weight_decay=weight_decay)


class AdamW(Optimizer):
    """Adam with decoupled weight decay."""

    rule = "adamw"
    slots = ("mean", "square")

    def __init__(
        self,
        parameters: Mapping[str, Array],
        ops: Ops,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        threads: int = 1,
    ) -> None:
        super().__init__(
            parameters, ops, threads=threads, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=weight_decay
        )

    def step_options(self, step: int) -> dict[str, Any]:
        """The op corrects the bias of its means by the number of the step."""
        return {**self.options, "step": step}


def make_optimizer(config: TrainConfig, parameters: Mapping[str, Array], ops: Ops, *, threads: int) -> Optimizer:
    """The optimizer that a configuration asks for."""
    decay = config.weight_decay
    if config.optimizer == "sgd":
        return SGD(parameters, ops, weight_decay=decay, threads=threads)
    if config.optimizer == "momentum":
        return Momentum(parameters, ops, momentum=config.momentum, weight_decay=decay, threads=threads)
    if config.optimizer == "adagrad":
        return Adagrad(parameters, ops, weight_decay=decay, threads=threads)
    return AdamW(parameters, ops, betas=config.betas, weight_decay=decay, threads=threads)
