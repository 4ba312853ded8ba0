"""Gradients that are 0 outside a few rows, and the optimizers' rules that have ops."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["Between", "FusingOptimizer", "Gradient", "RowGradient", "dense"]

Array = np.ndarray
Between = Callable[[Array, Array, Array], object]  # of linear_cross_entropy: (highest, sum, target_logits), in place


class RowGradient(NamedTuple):
    """A gradient that is 0 outside a few rows.

    rows   (U,)    unique ids, ascending
    drows  (U, D)  the gradient's rows at those ids
    alone  whether only these rows are to be updated: an op has updated the others on its way
    """

    rows: Array
    drows: Array
    alone: bool = False


Gradient = Array | RowGradient


def dense(gradient: Gradient, param: Array) -> Array:
    """Return a parameter's gradient as an array of the parameter's shape."""
    return dense_gradient(gradient.rows, gradient.drows, param) if isinstance(gradient, RowGradient) else gradient


# The optimizers' rules, and the number of state arrays that each has for a parameter.
RULES = {"sgd": 0, "momentum": 1, "adagrad": 1, "adamw": 2}


class FusingOptimizer(Protocol):
    """What a layer whose op makes the update asks of an optimizer: fastmlp.optim.Optimizer says more."""

    def step_with(
        self,
        op: str,
        module: Any,
        name: str,
        before: tuple[Array | None, ...],
        after: tuple[Array | None, ...],
        *,
        finishes: bool = True,
        again: bool = False,
        **options: Any,
    ) -> Any:
        """Make the next step of a module's parameter by an op that multiplies too."""


def rule_of(
    op: str, rule: str, updates: Mapping[str, Any], states: tuple[Array | None, ...]
) -> tuple[Callable[..., None], list[Array]]:
    """The op update_<rule> of a back-end, and those of the arrays of state that it takes. `op` is named in errors."""
    if rule not in RULES:
        raise ValueError(f"{op}: rule: expected one of {', '.join(RULES)}, got {rule!r}")
    wanted = [state for state in states[: RULES[rule]] if state is not None]
    if len(wanted) != RULES[rule]:
        raise ValueError(f"{op}: {rule} needs {RULES[rule]} arrays of state for weight")
    return updates[f"update_{rule}"], wanted


def check_places(bias: Array | None, dbias: Array | None, held: Array | None, dheld: Array | None) -> None:
    """That an update of the last layer has a place for the gradients that it hands back."""
    if bias is not None and dbias is None:
        raise ValueError("linear_cross_entropy_update: dbias: expected an array for the gradient of bias, got None")
    if (held is None) != (dheld is None):
        given, lacking = ("dheld", "held") if held is None else ("held", "dheld")
        raise ValueError(f"linear_cross_entropy_update: {lacking}: expected an array, as {given} is one; got None")


def dense_gradient(rows: Array, drows: Array, like: Array) -> Array:
    """Return a sparse gradient as a dense array."""
    grad = np.zeros_like(like)
    grad[rows] = drows
    return grad
