"""The optimizer of a run, from fastmlp.optim, and its state under the names of checkpoints."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.config import TrainConfig
from fastmlp.nn.module import Module, Parameters
from fastmlp.optim import SGD, Adagrad, AdamW, Optimizer

__all__ = ["load_optimizer_state", "make_optimizer", "optimizer_state", "set_learning_rate", "updates_of"]

# Checkpoints' names of the arrays that PyTorch's optimizers keep for a parameter.
SLOTS = {"momentum_buffer": "velocity", "sum": "squares", "exp_avg": "mean", "exp_avg_sq": "square"}


def make_optimizer(config: TrainConfig, layers: Module) -> Optimizer:
    """Return the optimizer that a configuration asks for, for a network's layers."""
    params, lr, decay = _groups(config, layers), config.lr, config.weight_decay
    if config.optimizer == "sgd":
        return SGD(params, lr, weight_decay=decay)
    if config.optimizer == "momentum":
        return SGD(params, lr, config.momentum, weight_decay=decay)
    if config.optimizer == "adagrad":
        return Adagrad(params, lr, weight_decay=decay)
    return AdamW(params, lr, config.betas, weight_decay=decay)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Make the next updates at this rate, of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _groups(config: TrainConfig, layers: Module) -> Parameters | list[dict[str, Any]]:
    """Return the parameters in groups: weight decay is for matrices only, or for all with a list of widths."""
    if not config.window:
        return layers.parameters()
    owners = [(module, name) for _, module, name in layers.named_owners()]
    matrices, vectors = (
        Parameters([(module, name) for module, name in owners if (getattr(module, name).ndim > 1) == are_matrices])
        for are_matrices in (True, False)
    )
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def optimizer_state(optimizer: Optimizer, layers: Module) -> tuple[dict[str, np.ndarray], int]:
    """Return the optimizer state by "slot.parameter name", and the number of updates.

    The arrays are the optimizer's own, not copies: writing to them changes its state.
    """
    arrays: dict[str, np.ndarray] = {}
    steps = 0
    for path, module, name in layers.named_owners():
        remembered = optimizer.remembered(module, name)
        steps = remembered["step"]
        arrays |= {f"{SLOTS[slot]}.{path}": array for slot, array in remembered.items() if slot != "step"}
    return arrays, steps


def updates_of(optimizer: Optimizer) -> int:
    """Return the number of updates that an optimizer has made."""
    [*_, (module, name)] = [owner for group in optimizer.param_groups for owner in group["params"].owners]
    return int(optimizer.remembered(module, name)["step"])


def load_optimizer_state(optimizer: Optimizer, layers: Module, state: Mapping[str, np.ndarray], steps: int) -> None:
    """Load the state of an optimizer with the same rule and parameters after `steps` updates.

    Raise ValueError if the state has other names.
    """
    own, _ = optimizer_state(optimizer, layers)
    if own.keys() != state.keys():
        raise ValueError(f"state: expected {', '.join(own) or 'nothing'}, got {', '.join(state) or 'nothing'}")
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, got {steps}")
    for slot, array in own.items():
        if state[slot].shape != array.shape:
            raise ValueError(f"state: {slot}: expected shape {array.shape}, got {state[slot].shape}")
        array[...] = state[slot]
    for _, module, name in layers.named_owners():
        optimizer.remembered(module, name)["step"] = steps
