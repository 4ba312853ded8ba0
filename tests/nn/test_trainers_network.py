"""The trainer's network built with fastmlp.nn and trained with fastmlp.optim gives the trainer's bits."""

from collections.abc import Callable

import numpy as np
import pytest

from fastmlp import nn, optim
from fastmlp.config import OPTIMIZERS, TrainConfig
from fastmlp.ops import Ops
from fastmlp.text import Text
from fastmlp.trainer import run_in_memory
from fastmlp.training.run import Run
from tests.runs import learnable_text, small_options

STEPS = 25


def trained(backend: str, rule: str) -> tuple[Run, dict[str, np.ndarray]]:
    """A run, and the weights before its first step."""
    options = small_options(steps=STEPS, backend=backend, optimizer=rule, schedule="constant", warmup=0)
    run = run_in_memory(TrainConfig(**options), text=Text(learnable_text(), ()))
    start = {name: array.copy() for name, array in run.network.state_dict().items()}
    run.train()
    return run, start


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_ten_lines_give_the_trainers_bits(rule: str, ops: Ops, library_runs: Callable[[Ops], None]) -> None:
    run, start = trained(ops.backend, rule)
    library_runs(ops)
    config, V = run.config, run.network.shape.vocabulary

    precision = {"fp32_precision": run.precision}
    body = nn.Sequential(
        *(nn.Embedding(V, 6), nn.Flatten()),
        *(nn.Linear(18, 12, bias=False, **precision), nn.BatchNorm1d(12), nn.Tanh()),
        *(nn.Linear(12, 10, bias=False, **precision), nn.BatchNorm1d(10), nn.Tanh()),
    )
    criterion = nn.LinearCrossEntropyLoss(10, V, bias=True, **precision)
    kinds = {"sgd": optim.SGD, "momentum": optim.SGD, "adagrad": optim.Adagrad, "adamw": optim.AdamW}
    options = {"momentum": {"momentum": config.momentum}, "adamw": {"betas": config.betas}}.get(rule, {})
    parameters = body.parameters() + criterion.parameters()
    optimizer = kinds[rule](parameters, lr=config.lr, weight_decay=config.weight_decay, **options)
    layers = [*body.state_dict().values(), *criterion.state_dict().values()]
    for array, name in zip(layers, run.network.layers.state_dict(), strict=True):
        array[...] = start[name]
    for step in range(STEPS):
        ids, _, targets = run.batches.batch(step)
        criterion.step(body(ids), targets, optimizer)
        body.backward(criterion.backward())
        optimizer.step()

    for array, (name, own) in zip(layers, run.network.layers.state_dict().items(), strict=True):
        assert array.tobytes() == own.tobytes(), name


def test_a_loss_that_is_no_number_changes_nothing(ops: Ops, library_runs: Callable[[Ops], None]) -> None:
    library_runs(ops)
    criterion = nn.LinearCrossEntropyLoss(3, 5, bias=True, rng=1)
    optimizer = optim.AdamW(criterion.parameters())
    before = {name: array.copy() for name, array in criterion.state_dict().items()}
    loss = criterion.step(np.full((2, 3), np.nan, np.float32), [0, 1], optimizer)
    assert np.isnan(loss)
    assert np.isnan(criterion.backward()).all()
    optimizer.step()
    for name, array in criterion.state_dict().items():
        assert array.tobytes() == before[name].tobytes(), name
