"""What a run is made of, and what it reports, before its first step."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fastmlp import __version__
from fastmlp.config import TrainConfig, to_dict
from fastmlp.data.corpus import Corpus
from fastmlp.events import Compiled, Compiling, Event, NetworkMade, Notice, Reporter, Running, Writing
from fastmlp.network.network import Network
from fastmlp.ops.backend import Backend
from fastmlp.prediction.neural import NeuralModel
from fastmlp.training.optimizer import make_optimizer
from fastmlp.training.ranks import Leader
from fastmlp.training.recipe import filled_in
from fastmlp.training.samples import Samples
from fastmlp.training.schedule import Schedule
from fastmlp.training.trainee import make_network, training_precision

__all__ = [
    "checkpoint_facts",
    "compile_ops",
    "make_network",
    "notice_of_other_bits",
    "option_notices",
    "passes_over",
    "setup_events",
    "training_precision",
    "words_per_second",
]


def words_per_second(
    config: TrainConfig, corpus: Corpus, backend: Backend, threads: int, leader: Leader | None = None
) -> float:
    """Return how fast a network of this configuration trains here: the last of three steps of one that is discarded."""
    config = filled_in(config, len(corpus.train), 1.0)
    batch, seconds = corpus.batches(config).batch(0), 0.0
    if leader is None:
        network = make_network(config, corpus, backend, threads)
        step = partial(network.step, batch, make_optimizer(config, network.layers))
    else:
        leader.begin(config, corpus, backend, threads)
        step = partial(leader.step, batch, 0, config.lr)
    for _ in range(3):
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
    return len(batch.targets) / max(seconds, 1e-9)


def checkpoint_facts(config: TrainConfig, corpus: Corpus, backend: Backend, precision: str) -> dict[str, Any]:
    """Return what each checkpoint says of the configuration, the text and the back-end."""
    return {
        "config": to_dict(config),
        # a folder may hold names that are not UTF-8, which JSON cannot hold
        "files": [file.name.encode(errors="backslashreplace").decode() for file in corpus.files],
        "sha256": corpus.sha256,
        "backend": backend.ops.backend,
        "precision": precision,
        "fastmlp": __version__,
    }


def passes_over(corpus: Corpus, schedule: Schedule) -> float | None:
    """Return how often a run goes through its text; None where time decides."""
    if schedule.total is None:
        return None
    return schedule.total * schedule.config.batch_size / len(corpus.train)


def setup_events(
    network: Network,
    passes: float | None,
    backend: Backend,
    precision: str,
    folder: Path | None,
    leader: Leader | None = None,
) -> Iterator[Event]:
    """Yield what is reported of the network, what it runs on, and where it is kept."""
    shape = network.shape
    yield NetworkMade(
        vocabulary=shape.vocabulary,
        context=shape.context,
        embed=shape.embed,
        hidden=[*shape.hidden, *[shape.hidden[-1]] * shape.blocks],
        parameters=network.parameter_count(),
        averages=list(shape.averages),
        reach=shape.reach,
        activation=shape.activation,
        projection=shape.projection,
        tied=shape.tied,
        dropout=list(shape.dropout),
        passes=passes,
    )
    ranks, hosts = (1, 1) if leader is None else (leader.group.size, leader.hosts)
    yield Running(backend.ops.backend, backend.simd, precision, network.threads, ranks, hosts)
    if backend.notice:
        yield Notice(backend.notice)
    for notice in () if leader is None else leader.notices():
        yield Notice(notice)
    if folder is not None:
        yield Writing(str(folder))


def option_notices(config: TrainConfig, schedule: Schedule, samples: Samples, model: NeuralModel) -> Iterator[Notice]:
    """Yield what is odd in the options."""
    if schedule.total is not None and schedule.warmup > schedule.total:
        yield Notice(
            f"the learning rate grows over {schedule.warmup:,} steps, and the run has {schedule.total:,}: it does not"
            f" reach {config.lr:g}"
        )
    if len(samples.prompts) < len(config.prompt):
        given, sampled = len(config.prompt), len(samples.prompts)
        yield Notice(f"prompts with the same words are one: {given} given, {sampled} sampled")
    if unknown := samples.unknown_words(model):
        yield Notice(unknown)


def notice_of_other_bits(metadata: dict[str, Any], backend: Backend, precision: str) -> Notice | None:
    """Return the notice that a checkpoint is of another back-end or precision; None where it is of this one."""
    # of before there were precisions: float32
    before = metadata["backend"], str(metadata.get("precision", "ieee"))
    now = backend.ops.backend, precision
    if before == now:
        return None
    return Notice(f"it ran on {' in '.join(before)} before: {' in '.join(now)} goes on with other bits")


def compile_ops(backend: Backend, reporter: Reporter) -> None:
    """Let a back-end that compiles on first use do it now, where it is seen."""
    if backend.compile_ops is None:
        return
    reporter.report(Compiling(backend.ops.backend))
    began = time.perf_counter()
    backend.compile_ops()
    reporter.report(Compiled(time.perf_counter() - began))
