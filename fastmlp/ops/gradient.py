"""Gradients that are 0 outside a few rows, and the optimizers' rules that have ops."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["FusedRule", "FusingOptimizer", "Gradient", "RowGradient", "dense"]

Array = np.ndarray


@dataclass(frozen=True)
class RowGradient:
    """A gradient that is 0 outside a few rows.

    rows   (U,)    unique ids, ascending
    drows  (U, D)  the gradient's rows at those ids
    """

    rows: Array
    drows: Array


Gradient = Array | RowGradient


def dense(gradient: Gradient, param: Array) -> Array:
    """Return a parameter's gradient as an array of the parameter's shape."""
    return dense_gradient(gradient.rows, gradient.drows, param) if isinstance(gradient, RowGradient) else gradient


# The optimizers' rules, and the number of state arrays that each has for a parameter.
RULES = {"sgd": 0, "momentum": 1, "adagrad": 1, "adamw": 2}
States = tuple[Array | None, ...]


class FusedRule(NamedTuple):
    """An optimizer's next step of one parameter, as the ops know it.

    name     of the rule: the op is update_<name>
    states   what the rule remembers of the parameter, in the op's order of arguments
    options  of the op
    """

    name: str
    states: tuple[Array, ...]
    options: dict[str, Any]


class FusingOptimizer(Protocol):
    """What a layer whose op makes the update asks of an optimizer."""

    def fused(self, module: Any, name: str) -> FusedRule:
        """The next step of a module's parameter."""

    def count_step(self, module: Any, name: str) -> None:
        """That step was made."""


def rule_of(
    rule: str, updates: Mapping[str, Any], weight_states: States, bias_states: States | None
) -> tuple[Callable[..., None], list[Array], list[Array]]:
    """Return the op update_<rule> and its arrays of state for weight and bias; bias_states is None without a bias."""
    if rule not in RULES:
        raise ValueError(f"linear_cross_entropy_update: rule: expected one of {', '.join(RULES)}, got {rule!r}")
    kept = RULES[rule]
    wanted = [[state for state in states[:kept] if state is not None] for states in (weight_states, bias_states or ())]
    if [len(states) for states in wanted] != [kept, 0 if bias_states is None else kept]:
        raise ValueError(f"linear_cross_entropy_update: {rule} needs {kept} arrays of state for each parameter")
    return updates[f"update_{rule}"], wanted[0], wanted[1]


def dense_gradient(rows: Array, drows: Array, like: Array) -> Array:
    """Return a sparse gradient as a dense array."""
    grad = np.zeros_like(like)
    grad[rows] = drows
    return grad
