"""Run by mpiexec: ten losses of each optimizer and kind of network, on rank 0 as a line of JSON."""

import json
import sys
from typing import Any

from fastmlp.config import OPTIMIZERS, TrainConfig
from fastmlp.data.corpus import read_corpus
from fastmlp.distributed import mpi_group
from fastmlp.ops.backend import choose_backend
from fastmlp.text import Text
from fastmlp.training.recipe import filled_in
from fastmlp.training.trainee import Trainee
from tests.runs import learnable_text

STEPS = 10
RATES = {"adamw": 0.002, "sgd": 0.1, "momentum": 0.02, "adagrad": 0.02}
KINDS: dict[str, dict[str, Any]] = {
    "window": {"embed": 16, "hidden": 24, "reach": 20, "batch_size": 32, "weight_decay": 0.01},
    "layers": {"embed": 8, "hidden": (24, 24), "batch_size": 32},
}


def config_of(kind: str, rule: str) -> TrainConfig:
    given = {**KINDS[kind], "optimizer": rule, "lr": RATES[rule], "precision": "ieee", "backend": "auto"}
    return TrainConfig.layered(given)


def losses(group: Any, kind: str, rule: str) -> list[float]:
    """The losses of a rank."""
    config = config_of(kind, rule)
    corpus = read_corpus(config, Text(learnable_text(), ()))
    config = filled_in(config, len(corpus.train))
    trainee = Trainee(config, corpus.to_train(), choose_backend(config.backend), 1, group)
    found = [trainee.step(trainee.batches.batch(step), step, config.lr) for step in range(STEPS)]
    assert {None} != {trainee.rows(name) for name in trainee.names}
    return found


def main() -> None:
    group = mpi_group()
    found = {f"{kind} {rule}": losses(group, kind, rule) for kind in KINDS for rule in OPTIMIZERS}
    everyones = group.share(found)
    assert all(other == found for other in everyones)
    if group.rank == 0:
        json.dump({"size": group.size, "received": group.received, "losses": found}, sys.stdout)


if __name__ == "__main__":
    main()
