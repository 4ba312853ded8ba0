"""Several ranks: what a step costs and receives on this machine, and what a model says of machines that are not here.

    python -m benchmarks.bench_ranks              # the tables of README.md
    pytest --benchmark-only benchmarks/bench_ranks.py

Measured are steps of the default network with 1 and 2 ranks of one thread, the bytes that they receive, and the
collectives alone. The model: a step takes

    t(n) = body + words V / n + rounds latency + bytes(n) / bandwidth

`body` is the time of the hidden layers, which every rank computes alike, and `words` that of the last layer and its
update for each word; both are found from two vocabularies with one process. `bytes` is the formula that the tests count
against (tests/network/test_parts.py). A collective has ceil(log2 n) rounds. It leaves out that messages and arithmetic
can get into each other's way, and that ranks wait for the slowest; so it is an upper bound of the speed.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from benchmarks.report import machine_line, markdown_table
from fastmlp.config import PRESETS, TrainConfig
from fastmlp.data.corpus import Corpus, read_corpus
from fastmlp.distributed import Alone, Group
from fastmlp.ops.backend import choose_backend
from fastmlp.training.recipe import filled_in
from fastmlp.training.trainee import Trainee

B = 1_024
COLLECTIVES = 7  # of a step: the order; the near words' rows; averages, 2; the statistics; dh, 2
VOCABULARIES = (28_000, 250_000, 1_000_000)
RANKS = (1, 2, 4, 8, 16, 32, 64)
NETWORKS = {"1 Gbit/s": (50e-6, 125e6), "10 Gbit/s": (20e-6, 1.25e9), "100 Gbit/s": (5e-6, 12.5e9)}  # seconds, bytes/s


@dataclass(frozen=True)
class Sizes:
    """Of the default network: words, rows of a batch, and the widths that the bytes depend on."""

    V: int
    B: int = B
    D: int = PRESETS["small"]["embed"]
    hidden: int = PRESETS["small"]["hidden"]

    def corpus(self) -> tuple[TrainConfig, Corpus]:
        """Return a configuration, and ids drawn by Zipf's law."""
        given = {"vocab_size": self.V, "embed": self.D, "hidden": self.hidden, "batch_size": self.B, "val_fraction": 0}
        config = TrainConfig.layered({**given, "counts": False, "steps": 1_000})
        weights = 1 / (1 + np.arange(self.V - 1))
        drawn = np.random.default_rng(2003).choice(self.V - 1, 40 * self.B, p=weights / weights.sum())
        corpus = read_corpus(config, drawn.astype(np.int32))
        return filled_in(config, len(corpus.train)), corpus


def bytes_of_step(sizes: Sizes, averages: int, near: float, ranks: int) -> float:
    """Return what a rank receives in a step, on average over the ranks.

    near  how many different words a batch reads just before its targets
    """
    added_up = 4 * sizes.B * sizes.D * (1 + averages)
    others = ranks - 1
    return 24 * sizes.B * others + 2 * added_up * others / ranks + 4 * near * sizes.D * others / ranks + 32 * others


class Timed:
    """A group that counts the seconds of its collectives."""

    def __init__(self, group: Group) -> None:
        self.group, self.seconds = group, 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.group, name)
        return partial(self._timed, found) if name in ("allgather", "allreduce", "exchange", "share") else found

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.seconds += time.perf_counter() - began


def measure(group: Group, sizes: Sizes, threads: int, steps: int) -> dict[str, Any]:
    """Return what steps of a rank take and receive, and what single collectives take."""
    config, corpus = sizes.corpus()
    timed = Timed(group)
    trainee = Trainee(config, corpus.to_train(), choose_backend(), threads, timed)  # type: ignore[arg-type]
    seconds, in_collectives, received, near = [], [], [], []
    for step in range(steps + 2):
        batch = trainee.batches.batch(step)
        before, timed.seconds = group.received, 0.0
        began = time.perf_counter()
        timed.allgather(np.zeros((1, 4)))
        trainee.step(batch, step, 0.001)
        if step >= 2:
            seconds.append(time.perf_counter() - began)
            in_collectives.append(timed.seconds)
            received.append(group.received - before)
            near.append(len(np.unique(batch.near)))
    small = [_seconds(partial(group.allgather, np.zeros(1))) for _ in range(100)]
    block = np.zeros(1 << 22, np.uint8)
    large = [_seconds(partial(group.exchange, [block] * group.size, [len(block)] * group.size)) for _ in range(5)]
    return {
        "seconds": median(seconds),
        "collectives": median(in_collectives),
        "received": np.mean(received),
        "near": np.mean(near),
        "averages": len(config.averages),
        "latency": median(small),
        "bandwidth": len(block) * (group.size - 1) / median(large),
    }


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measured(ranks: int, sizes: Sizes, *, threads: int = 1, steps: int = 9) -> dict[str, Any]:
    """Return the results of `measure` on rank 0 of so many."""
    worker = [sys.executable, "-m", "benchmarks.bench_ranks", "--worker", json.dumps([asdict(sizes), threads, steps])]
    command = worker if ranks == 1 else [launcher(), "-n", str(ranks), *worker]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def launcher() -> str:
    """Return mpiexec of this environment."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("mpiexec is not available: pip install 'fastmlp[mpi]' mpich")
    return found


@dataclass(frozen=True)
class Model:
    """What a step takes, from two measurements: seconds of the body, and of each word of the last layer."""

    body: float
    word: float

    @classmethod
    def of(cls, less: tuple[int, float], more: tuple[int, float]) -> "Model":
        """Fit to (V, seconds) of two vocabularies."""
        word = (more[1] - less[1]) / (more[0] - less[0])
        return cls(less[1] - word * less[0], word)

    def seconds(self, sizes: Sizes, ranks: int, latency: float, bandwidth: float, averages: int, near: float) -> float:
        """Return the seconds of a step with so many ranks."""
        rounds = COLLECTIVES * math.ceil(math.log2(ranks)) if ranks > 1 else 0
        messages = rounds * latency + bytes_of_step(sizes, averages, near, ranks) / bandwidth if ranks > 1 else 0.0
        return self.body + self.word * sizes.V / ranks + messages


def sharing_rows_pays(sizes: Sizes, body: float, parameters: int, ranks: int, latency: float, bandwidth: float) -> bool:
    """Return whether hidden layers that share out a batch's rows would be faster than on every rank alike.

    They would save body (1 - 1 / n), and have to add up their gradients and the sums of their batch normalizations.
    """
    saved = body * (1 - 1 / ranks)
    norms = 2
    rounds = (2 + 4 * norms) * math.ceil(math.log2(ranks))
    messages = 2 * 4 * (parameters + 4 * norms * sizes.hidden) * (ranks - 1) / ranks / bandwidth
    return saved > rounds * latency + messages


def tables(steps: int = 9) -> Iterator[str]:
    """Yield the tables: first what was measured, then what is computed."""
    small, large = Sizes(28_000), Sizes(250_000)
    yield f"Measured on {machine_line()} Milliseconds a step, medians of {steps}, B = {B}:"
    one = {sizes.V: measured(1, sizes, steps=steps) for sizes in (small, large)}
    two = {sizes.V: measured(2, sizes, steps=steps) for sizes in (small, large)}
    alone = Model.of(*((V, one[V]["seconds"]) for V in one))
    rows = []
    for sizes in (small, large):
        found = two[sizes.V]
        line = found["latency"], found["bandwidth"], found["averages"], found["near"]
        rows.append(
            [
                f"{sizes.V:,}",
                f"{1e3 * one[sizes.V]['seconds']:.0f}",
                f"{1e3 * found['seconds']:.0f}",
                f"{1e3 * alone.seconds(sizes, 2, *line):.0f}",
                f"{1e3 * found['collectives']:.1f}",
                f"{found['received'] / 1e6:.2f}",
                f"{bytes_of_step(sizes, found['averages'], found['near'], 2) / 1e6:.2f}",
            ]
        )
    head = [
        "V",
        "1 rank, 1 thread",
        "2 ranks, 1 thread each",
        "computed",
        "in collectives",
        "MB received",
        "by formula",
    ]
    yield markdown_table(head, rows)
    found = two[small.V]
    yield (
        f"Between two processes of this machine a small collective takes {1e6 * found['latency']:.0f} us, and"
        f" {found['bandwidth'] / 1e9:.1f} GB/s go through a large one. One thread: body {1e3 * alone.body:.0f} ms,"
        f" {1e9 * alone.word:.0f} ns a word."
    )
    pair = {sizes.V: measured(1, sizes, threads=2, steps=steps) for sizes in (small, large)}
    model = Model.of(*((V, pair[V]["seconds"]) for V in pair))
    parameters = 2 * small.hidden**2 + small.hidden * 2 * small.D
    yield (
        f"Computed, for ranks of two such cores (measured: {1e3 * pair[small.V]['seconds']:.0f} and"
        f" {1e3 * pair[large.V]['seconds']:.0f} ms a step with one rank, so body {1e3 * model.body:.0f} ms and"
        f" {1e9 * model.word:.0f} ns a word): words a second, in thousands."
    )
    rows = []
    for V in VOCABULARIES:
        for name, (latency, bandwidth) in NETWORKS.items():
            line = latency, bandwidth, found["averages"], found["near"]
            speeds = [B / model.seconds(Sizes(V), ranks, *line) / 1e3 for ranks in RANKS]
            rows.append([f"{V:,}", name, *(f"{speed:.1f}" for speed in speeds)])
    yield markdown_table(["V", "network", *(f"{ranks} rank{'s' * (ranks > 1)}" for ranks in RANKS)], rows)
    for name, line in NETWORKS.items():
        pays = [ranks for ranks in RANKS[1:] if sharing_rows_pays(small, model.body, parameters, ranks, *line)]
        yield f"Over {name}, hidden layers that share a batch's rows out too would be faster with {pays or 'no'} ranks."


@pytest.mark.parametrize("ranks", [1, 2])
def bench_a_step_of_ranks(benchmark: Any, smoke: bool, ranks: int) -> None:
    """A step, its bytes held against the formula."""
    sizes = Sizes(301, B=32, D=8, hidden=16) if smoke else Sizes(28_000)
    found = benchmark.pedantic(partial(measured, ranks, sizes, steps=1 if smoke else 9), rounds=1)
    benchmark.group = f"a step of the default network, V = {sizes.V}"
    benchmark.extra_info |= {"ranks": ranks, **found}
    formula = bytes_of_step(sizes, found["averages"], found["near"], ranks)
    assert found["received"] == pytest.approx(formula, rel=0.1)  # the near words of rank 0 are not just a share of all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=9)
    options = parser.parse_args()
    if options.worker is None:
        for table in tables(options.steps):
            print(table, end="\n\n")
        return
    sizes, threads, steps = json.loads(options.worker)
    from fastmlp.launcher import launched

    if launched()[1] > 1:
        from fastmlp.distributed import mpi_group

        group: Group = mpi_group()
    else:
        group = Alone()
    found = measure(group, Sizes(**sizes), threads, steps)
    if group.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
