"""torch.optim.lr_scheduler's schedules of the learning rate that are common with small networks.

    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = CosineAnnealingLR(optimizer, T_max=1000)
    ...                     # in the loop, after optimizer.step():
    scheduler.step()

A scheduler sets "lr" of each group of its optimizer, at once and at each `step()`; the initial rate stays in the group
as "initial_lr". States go both ways between fastmlp and PyTorch; load the optimizer's beside the scheduler's.
"""

import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastmlp.errors import missing_name
from fastmlp.optim.optimizer import Optimizer

__all__ = ["CosineAnnealingLR", "LRScheduler", "LambdaLR", "LinearLR", "StepLR"]

if not TYPE_CHECKING:  # for type checkers any name would be there
    __getattr__, __dir__ = missing_name(__name__, __all__)


class LRScheduler:
    """The base class of the schedulers; a subclass defines `get_lr`.

    optimizer   whose learning rates it sets
    last_epoch  the number of steps made before; -1: none, and the rates of the optimizer are the initial ones
    Raise KeyError for another last_epoch if a group lacks "initial_lr", which an earlier scheduler sets.

    >>> from fastmlp import nn, optim
    >>> class Halve(LRScheduler):
    ...     def get_lr(self):
    ...         return [base / 2**self.last_epoch for base in self.base_lrs]
    >>> optimizer = optim.SGD(nn.Linear(2, 3).parameters(), lr=0.8)
    >>> scheduler = Halve(optimizer)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.4]
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected one of fastmlp.optim, got {type(optimizer).__name__}")
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"initial_lr: expected in param_groups[{number}] as last_epoch is {last_epoch}, got none"
                )
        self.optimizer, self.last_epoch = optimizer, last_epoch
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._step_count = 0
        self.step()

    def get_lr(self) -> list[float]:
        """Return the rates of step `last_epoch`, one a group; `get_last_lr` has the present ones."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr")

    def get_last_lr(self) -> list[float]:
        """Return the present learning rates, one a group."""
        return self._last_lr

    def step(self, epoch: None = None) -> None:
        """Set the next learning rates; call it after the optimizer's step.

        epoch  deprecated in PyTorch; any value raises NotImplementedError
        """
        if epoch is not None:
            raise NotImplementedError(f"{type(self).__name__}.step: epoch: expected None, got {epoch!r}")
        self._step_count += 1
        self.last_epoch += 1
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer, by PyTorch's keys."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of the same scheduler of fastmlp or PyTorch; the learning rates are the optimizer's state."""
        vars(self).update(state_dict)

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    @property
    def _begins(self) -> bool:
        return self._step_count == 1


class LambdaLR(LRScheduler):
    """initial rate * lr_lambda(step).

    lr_lambda  a function of the number of the step, from 0, or one for each group
    `state_dict` holds the attributes of a callable object; a function is not part of the state.

    >>> from fastmlp import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 3).parameters(), lr=0.5)
    >>> scheduler = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    >>> scheduler.step()
    >>> optimizer.param_groups[0]["lr"]
    0.25
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(getattr(optimizer, "param_groups", ()))
        self.lr_lambdas: list[Any] = list(lr_lambda) if isinstance(lr_lambda, list | tuple) else [lr_lambda] * groups
        if len(self.lr_lambdas) != groups:
            raise ValueError(
                f"lr_lambda: expected one function, or one for each of {groups}, got {len(self.lr_lambdas)}"
            )
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates of step `last_epoch`, one a group."""
        return [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer and functions, by PyTorch's keys."""
        kept = [None if isinstance(f, types.FunctionType) else dict(vars(f)) for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": kept}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of a LambdaLR of fastmlp or PyTorch."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "lr_lambdas"})
        for factor, kept in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if kept is not None:
                vars(factor).update(kept)


class StepLR(LRScheduler):
    """The rate times gamma after each step_size steps.

    >>> from fastmlp import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 3).parameters(), lr=0.5)
    >>> scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    >>> scheduler.step()
    >>> optimizer.param_groups[0]["lr"]
    0.25
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates of step `last_epoch`, one a group."""
        due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [rate * self.gamma for rate in self._rates()] if due else self._rates()


class LinearLR(LRScheduler):
    """The rate times a factor that goes in a straight line from start_factor to end_factor, in total_iters steps.

    start_factor  in (0, 1]
    end_factor    in [0, 1]

    >>> from fastmlp import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 3).parameters(), lr=0.5)
    >>> scheduler = LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> scheduler.step()
    >>> optimizer.param_groups[0]["lr"]
    0.375
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor: expected a number above 0, at most 1, got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"end_factor: expected a number from 0 to 1, got {end_factor}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates of step `last_epoch`, one a group."""
        if self.last_epoch == 0:
            return [rate * self.start_factor for rate in self._rates()]
        if self._begins or self.last_epoch > self.total_iters:
            return self._rates()
        change = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * change
        return [rate * (1 + change / before) for rate in self._rates()]


class CosineAnnealingLR(LRScheduler):
    """The rate falls along half a cosine, from the initial rate to eta_min in T_max steps, and rises again after them.

    Source: Loshchilov and Hutter (2017), "SGDR", without its restarts.

    >>> from fastmlp import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 3).parameters(), lr=0.5)
    >>> scheduler = CosineAnnealingLR(optimizer, T_max=2)
    >>> scheduler.step()
    >>> round(optimizer.param_groups[0]["lr"], 6)
    0.25
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates of step `last_epoch`, one a group: from those before, which a user may have changed."""
        if self._begins:
            return self._rates()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # the step before was at eta_min
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [
                rate + (base - self.eta_min) * rise for rate, base in zip(self._rates(), self.base_lrs, strict=True)
            ]
        now, before = (1 + math.cos(math.pi * step / self.T_max) for step in (self.last_epoch, self.last_epoch - 1))
        return [(rate - self.eta_min) * now / before + self.eta_min for rate in self._rates()]
