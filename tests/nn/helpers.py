"""One network in fastmlp.nn and in torch.nn, and loops that train it."""

from types import ModuleType
from typing import Any

import numpy as np

from fastmlp import nn

Array = np.ndarray
WORDS, CONTEXT, ROWS = 29, 3, 16


def network(module: ModuleType = nn, **options: Any) -> Any:
    """The same network in fastmlp.nn or torch.nn."""
    return module.Sequential(
        module.Embedding(WORDS, 6, **options),
        module.Flatten(),
        module.Linear(CONTEXT * 6, 20, bias=False, **options),
        module.BatchNorm1d(20, **{name: value for name, value in options.items() if name != "rng"}),
        module.Tanh(),
        module.Linear(20, 12, **options),
        module.ReLU(),
        module.Linear(12, WORDS, **options),
    )


def batches(count: int, seed: int = 7) -> list[tuple[Array, Array]]:
    """With the seeds of these tests no input of the ReLU is so near to 0 that its last digits would decide."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, WORDS, (ROWS, CONTEXT)), rng.integers(0, WORDS, ROWS)) for _ in range(count)]


def train(model: Any, criterion: Any, optimizer: Any, count: int, seed: int = 7) -> list[float]:
    """As the documentation writes a training loop."""
    losses = []
    for x, y in batches(count, seed):
        loss = criterion(model(x), y)
        model.backward(criterion.backward())
        optimizer.step()
        losses.append(float(loss))
    return losses


def train_torch(torch: ModuleType, model: Any, criterion: Any, optimizer: Any, count: int) -> list[float]:
    losses = []
    for x, y in batches(count):
        loss = criterion(model(torch.from_numpy(x)), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def to_torch(torch: ModuleType, model: nn.Module) -> dict[str, Any]:
    return {key: torch.from_numpy(array.copy()) for key, array in model.state_dict().items()}


def state_bytes(model: nn.Module) -> bytes:
    return b"".join(array.tobytes() for array in model.state_dict().values())
