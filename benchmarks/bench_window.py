"""A training step of the default network and of `--preset large`: AdamW, dropout on; beside PyTorch at its best.

The contenders take turns, each in a process of its own (contest.py), and between two turns the machine's ceilings are
measured: the rate of a matrix unit changes by a factor of three within seconds. With one, only turns count between two
moments at which it reached at least 85 % of its best.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import nan
from statistics import median
from typing import Any

import pytest

from benchmarks import ceilings, peers, training
from benchmarks.bench_step import describe_python
from benchmarks.conftest import in_contest
from benchmarks.contest import SMOKE, Contender, Contest, Result, Turn
from benchmarks.report import markdown_table
from benchmarks.setting import batch_sizes_of
from benchmarks.training import accuracy, variant
from fastmlp.config import PRESETS, WINDOW

BATCH_SIZES = (128, 512, 1_024)
OPTIONS: dict[str, Any] = {
    **WINDOW,
    **{"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.1, "dropout": 0.1, "patience": 0, "counts": False},
}
NETWORKS = {name: {**OPTIONS, **PRESETS[name], "lr": 0.001} for name in ("small", "large")}
ROUNDS, FEWEST = 12, 7  # turns of a contender, and those that must be left for a figure
STEADY = 0.85  # of the matrix unit's best rate
UNIT = "tiles_of_bf16"
APART, COMPARED = 0.3, 10  # nats by which mean losses may differ: each contender has dropout masks of its own


@dataclass
class Turns:
    """What came of a contender: the median seconds of each turn, and the ceilings before and after it."""

    seconds: list[float] = field(default_factory=list)
    before: list[Mapping[str, float]] = field(default_factory=list)
    after: list[Mapping[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    failed: str = ""

    def counted(self, best: float | None) -> list[float]:
        """Return the seconds of the turns that count; best  rate of the matrix unit, None: there is none"""
        if best is None:
            return self.seconds
        around = zip(self.seconds, self.before, self.after, strict=True)
        return [one for one, *rates in around if all(rate[UNIT] >= STEADY * best for rate in rates)]

    def figure(self, best: float | None, fewest: int) -> float:
        """Return the median of the turns that count; NaN if they are fewer than `fewest`."""
        counted = self.counted(best)
        return median(counted) if len(counted) >= fewest else nan


@dataclass(frozen=True)
class Measured:
    """The turns of all contenders at one batch size, by name."""

    network: str
    B: int
    contenders: Sequence[Contender]
    turns: Mapping[str, Turns]
    fewest: int
    clocked: Result = field(default_factory=lambda: Result(failed="they are not built"))  # a step outside its kernels

    @property
    def best(self) -> float | None:
        """The highest rate of the matrix unit; None: there is none."""
        seen = [rates for turns in self.turns.values() for rates in turns.before if UNIT in rates]
        return max((rates[UNIT] for rates in seen), default=None)

    def figure(self, contender: Contender) -> float:
        return self.turns[contender.name].figure(self.best, self.fewest)

    def times_pytorch(self, contender: Contender) -> float:
        """How many times faster than the best of PyTorch that is at least as accurate; NaN without a figure."""
        rivals = training.rivals(contender, self.contenders)
        figures = [figure for figure in map(self.figure, rivals) if figure == figure]
        return min(figures, default=nan) / self.figure(contender)

    def assert_same_training(self) -> None:
        """Assert that the losses of all fall alike."""
        means = {name: sum(t.losses[:COMPARED]) / COMPARED for name, t in self.turns.items() if not t.failed}
        assert max(means.values(), default=0) - min(means.values(), default=0) <= APART, means


def measure(
    contest: Contest, network: str, contenders: Sequence[Contender], B: int, *, smoke: bool = False
) -> Measured:
    """Measure all contenders in turn, and the ceilings between two turns."""
    rounds, turn = (1, SMOKE) if smoke else (ROUNDS, Turn(seconds=0.3, least=2))
    task = {**NETWORKS[network], "batch_size": B}
    results = contest.run([ceilings.CONTENDER, *contenders], rounds=0, warm_up=2, **task)
    turns = {contender.name: Turns(failed=results[contender.name].failed) for contender in contenders}
    rates = results[ceilings.CONTENDER.name].values
    for _ in range(rounds):
        for contender in contenders:
            mine, result = turns[contender.name], results[contender.name]
            if not rates:  # nothing was measured before the first turn
                contest.go_on([ceilings.CONTENDER], results, SMOKE)
            before, done = dict(rates[-1]) if rates else {}, len(result.seconds)
            contest.go_on([contender, ceilings.CONTENDER], results, turn)
            if len(result.seconds) > done:
                mine.seconds.append(median(result.seconds[done:]))
                mine.before.append(before)
                mine.after.append(dict(rates[-1]) if rates else {})
            mine.failed = result.failed
    for name, mine in turns.items():
        mine.losses = list(results[name].values)
    clocked = contest.run(training.clocked(), rounds=min(rounds, 3), turn=turn, **task)
    return Measured(network, B, contenders, turns, 1 if smoke else FEWEST, *clocked.values())


def describe(measured: Measured) -> str:
    """A table with a line for each contender, and how many turns were dropped."""
    header = [f"{measured.network}, B = {measured.B}", "accuracy", "ms", "words/s", "times PyTorch", "turns dropped"]
    rows = []
    for contender in measured.contenders:
        turns, seconds = measured.turns[contender.name], measured.figure(contender)
        if turns.failed:
            rows.append([contender.name, accuracy(contender), turns.failed])
            continue
        dropped = len(turns.seconds) - len(turns.counted(measured.best))
        times = f"{measured.times_pytorch(contender):.2f}" if variant(contender) else ""
        figures = [f"{1e3 * seconds:.1f}", f"{measured.B / seconds:,.0f}", times]
        rows.append([contender.name, accuracy(contender), *figures, f"{dropped} of {len(turns.seconds)}"])
    return f"{markdown_table(header, rows)}\n\n{describe_python(measured.clocked, measured.B)}"


def contenders(*, long: bool) -> list[Contender]:
    """The best kernels in each precision, and PyTorch's modes; if long, every variant and PyTorch compiled."""
    ours = training.kernels() if long else training.best_kernels()
    avx2 = any(variant(contender) == "avx2" for contender in ours)
    return [*ours, *peers.pytorch(compiled=long, held_to_avx2=avx2)]


@pytest.fixture(scope="session")
def measured_at(contest: Contest, smoke: bool, long: bool) -> Callable[[str, int], Measured]:
    """Return the measurements of a network at a batch size."""
    return cache(lambda network, B: measure(contest, network, contenders(long=long), B, smoke=smoke))


def each() -> pytest.MarkDecorator:
    usual = contenders(long=False)
    marked = [pytest.param(c, marks=() if c in usual else pytest.mark.long, id=c.name) for c in contenders(long=True)]
    return pytest.mark.parametrize("contender", marked)


@in_contest
@batch_sizes_of(*BATCH_SIZES)
@pytest.mark.parametrize("network", ["small", pytest.param("large", marks=pytest.mark.long)])
@each()
def bench_window(record, show, measured_at, contender, network, B):
    measured = measured_at(network, B)
    if contender == measured.contenders[0]:
        show(describe(measured))
        measured.assert_same_training()
    turns = measured.turns[contender.name]
    result = Result(turns.counted(measured.best) or turns.seconds, turns.losses, turns.failed)
    record(contender, result, f"training step, {network}, AdamW, B = {B}", B=B)
