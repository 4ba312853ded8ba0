"""torch.optim's optimizers for the parameters of fastmlp.nn, with the same arguments, defaults and state_dict keys.

    optimizer = SGD(model.parameters(), lr=0.1)
    loss = criterion(model(x), y)
    model.backward(criterion.backward())
    optimizer.step()

An optimizer takes the `parameters()` of a module, several of them joined with `+`, or groups with options of their own:
[{"params": layer.parameters(), "lr": 0.01}, ...]. A step reads each gradient from the parameter's module and skips a
parameter without a gradient. Options may be changed between steps: optimizer.param_groups[0]["lr"] = 0.01, as the
schedules of `lr_scheduler` do. PyTorch's `foreach` and `fused` do not change the result of a step and have no effect;
capturable and differentiable raise NotImplementedError.
"""

from typing import TYPE_CHECKING

from fastmlp.errors import missing_name
from fastmlp.optim import lr_scheduler as lr_scheduler
from fastmlp.optim.optimizer import Optimizer
from fastmlp.optim.rules import SGD, Adagrad, Adam, AdamW

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer"]

if not TYPE_CHECKING:  # for type checkers any name would be there
    __getattr__, __dir__ = missing_name(__name__, [*__all__, "lr_scheduler"])
