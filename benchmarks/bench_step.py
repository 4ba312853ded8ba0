"""The whole training step of the trainer, with SGD: batch, forward, backward, update; beside PyTorch at its best.

The contenders take turns, each in a process of its own (contest.py). For each batch size a table says how long a step
takes, how many times faster that is than the best of PyTorch's modes in the same class of accuracy, and how near it is
to the roofline: the time of the step's arithmetic or memory traffic at the machine's own rates, measured meanwhile.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

import numpy as np
import pytest

from benchmarks import ceilings, peers, training
from benchmarks.conftest import in_contest
from benchmarks.contest import SMOKE, Contender, Contest, Result, Turn
from benchmarks.report import markdown_table, milliseconds
from benchmarks.setting import batch_sizes, batch_sizes_of
from benchmarks.training import accuracy, variant
from tests.inputs import REAL

UNITS = {  # the ceilings of a variant, in float32 and in bf16
    "amx": ("vectors_of_64_bytes", "tiles_of_bf16"),
    "avx512_bf16": ("vectors_of_64_bytes", "dot_products_of_bf16"),
    "avx512": ("vectors_of_64_bytes", ""),
    "avx2": ("vectors_of_32_bytes", ""),
    "neon": ("vectors_of_16_bytes", ""),
    "portable": ("vectors_of_16_bytes", ""),
}
PRODUCTS = {"bf16": 1, "bf16x3": 3}  # of bf16 for one of float32
NEAR, COMPARED = 0.01, 30  # nats by which the losses of a step may differ; number of steps compared, at most
ADAMW, ADAMW_B = {"optimizer": "adamw", "lr": 0.001}, (128, 512)


@dataclass(frozen=True)
class Steps:
    """The measurements at one batch size: the contenders' results by name, the ceilings among them."""

    B: int
    contenders: Sequence[Contender]
    results: dict[str, Result]

    @property
    def ceilings(self) -> dict[str, float]:
        return ceilings.highest(self.results)

    def times_pytorch(self, contender: Contender) -> float:
        """How many times faster than the best of PyTorch in its class; NaN without PyTorch."""
        best = training.best_of_pytorch(contender, self.contenders, self.results)
        return self.results[best.name].median / self.results[contender.name].median if best else np.nan

    def assert_same_training(self) -> None:
        """Assert that all have the same losses in their common steps."""
        curves = {c.name: self.results[c.name].values for c in self.contenders if not self.results[c.name].failed}
        common = min([COMPARED, *map(len, curves.values())])
        expected = next(iter(curves.values()))[:common] if curves else []
        for name, losses in curves.items():
            furthest = np.abs(np.subtract(losses[:common], expected)).max()
            assert furthest <= NEAR, f"{name}: losses {losses[:common]}, others' are {expected}"

    def floors(self, contender: Contender) -> tuple[float, float]:
        """Return the least seconds of a step's arithmetic and memory traffic; NaN without ceilings.

        Arithmetic: three products a layer: forward, for the input's gradient, for the weights'. Memory: the output
        weights are read in the forward pass, and read and written in the update.
        """
        rates = defaultdict(lambda: np.nan, self.ceilings)
        float32_unit, bf16_unit = UNITS[variant(contender)]
        hidden, output = (6 * self.B * REAL.H * size for size in (REAL.T * REAL.D + REAL.H, REAL.V))
        products = PRODUCTS.get(contender.arguments["precision"])
        output_seconds = products * output / rates[bf16_unit] if products else output / rates[float32_unit]
        memory = ceilings.WEIGHTS / rates["read_memory"] + 2 * ceilings.WEIGHTS / rates["rewrite_memory"]
        return hidden / rates[float32_unit] + output_seconds, memory


def measure_steps(contest: Contest, contenders: Sequence[Contender], B: int, *, smoke: bool = False) -> Steps:
    """Measure the ceilings and all contenders in rounds."""
    rounds, turn = (1, Turn(seconds=0)) if smoke else (5, Turn(seconds=0.3, least=2))
    taking_part = [ceilings.CONTENDER, *contenders, *training.clocked()]
    return Steps(B, contenders, contest.run(taking_part, rounds=rounds, turn=turn, batch_size=B))


def describe(steps: Steps) -> str:
    """A table with a line for each contender, or why it failed, and the ceilings in a sentence."""
    header = [f"B = {steps.B}", "accuracy", "ms", "words/s", "times PyTorch", "arithmetic, ms", "memory, ms", "reached"]
    rows = []
    for contender in steps.contenders:
        result = steps.results[contender.name]
        rows.append([contender.name, accuracy(contender), result.failed])
        if not result.failed:
            rows[-1][-1:] = [f"{1e3 * result.median:.1f}", f"{steps.B / result.median:,.0f}"]
            if variant(contender):
                floors = steps.floors(contender)
                rows[-1] += [f"{steps.times_pytorch(contender):.2f}", *(f"{1e3 * floor:.1f}" for floor in floors)]
                rows[-1] += [f"{max(floors) / result.median:.0%}"]
    return f"{markdown_table(header, rows)}\n\n{describe_rest(steps)}\n{describe_ceilings(steps)}"


def describe_python(clocked: Result, B: int) -> str:
    """Describe the time of a step outside the kernels: Python, and the batch."""
    if clocked.failed:
        return f"Python between the kernels: not measured, {clocked.failed}."
    rest, step = median(clocked.values), clocked.median
    return f"Python between the kernels at B = {B}: {1e3 * rest:.2f} ms, {rest / step:.1%} of {1e3 * step:.1f} ms."


def describe_rest(steps: Steps) -> str:
    return describe_python(steps.results.get(training.CLOCKED, Result(failed="they are not built")), steps.B)


def describe_ceilings(steps: Steps) -> str:
    rates = [f"{name.replace('_', ' ')} {rate / 1e9:,.0f}" for name, rate in steps.ceilings.items()]
    measured = f"{', '.join(rates)} (Gflop/s, GB/s)" if rates else steps.results[ceilings.CONTENDER.name].failed
    return f"Ceilings at B = {steps.B}: {measured}."


# ----------------------------------------------------------------------------------------------------------- AdamW


def adamw_pairs(*, long: bool) -> list[tuple[Contender, ...]]:
    """The best kernels and eager PyTorch, each with SGD and with AdamW; if long, in each precision and mode."""
    ours, theirs = (some[: None if long else 1] for some in (training.best_kernels(), peers.pytorch(compiled=False)))
    return [
        tuple(
            replace(contender, name=f"{contender.name} {optimizer}", arguments={**contender.arguments, **options})
            for optimizer, options in (("SGD", {}), ("AdamW", ADAMW))
        )
        for contender in (*ours, *theirs)
    ]


def adamw_contenders(*, long: bool) -> list[Contender]:
    """All that are in these pairs."""
    return [contender for pair in adamw_pairs(long=long) for contender in pair]


def measure_adamw(
    contest: Contest, B: int, pairs: Sequence[Sequence[Contender]], *, smoke: bool = False
) -> dict[str, Result]:
    """AdamW and SGD in turn."""
    rounds, turn = (1, SMOKE) if smoke else (5, Turn(seconds=0.3, least=2))
    return contest.run([each for pair in pairs for each in pair], rounds=rounds, turn=turn, batch_size=B)


def describe_adamw(results: dict[str, Result], B: int) -> str:
    """A line a pair."""
    rows = []
    for name in results:
        if name.endswith(" AdamW"):
            pair = [results[name.replace("AdamW", "SGD")], results[name]]
            ratio = f"{pair[1].median / pair[0].median:.2f}"
            rows.append([name.removesuffix(" AdamW"), *map(milliseconds, pair), ratio])
    return markdown_table([f"B = {B}", "SGD, ms", "AdamW, ms", "AdamW / SGD"], rows)


# ------------------------------------------------------------------------------------------------------- in pytest


@pytest.fixture(scope="session")
def steps_at(contest: Contest, smoke: bool, long: bool) -> Callable[[int], Steps]:
    """Return the measurements of a batch size; with --long of all contenders."""
    return cache(lambda B: measure_steps(contest, training.contenders(long=long), B, smoke=smoke))


def each(contenders: Callable[..., list[Contender]]) -> pytest.MarkDecorator:
    """A benchmark of each of them, those that come with --long marked so."""
    usual = contenders(long=False)
    marked = [pytest.param(c, marks=() if c in usual else pytest.mark.long, id=c.name) for c in contenders(long=True)]
    return pytest.mark.parametrize("contender", marked)


@in_contest
@batch_sizes
@each(training.contenders)
def bench_step(record, show, steps_at, contender, B):
    steps = steps_at(B)
    if contender == steps.contenders[0]:
        show(describe(steps))
    steps.assert_same_training()
    record(contender, steps.results[contender.name], f"training step, SGD, B = {B}", B=B)


@pytest.fixture(scope="session")
def adamw_at(contest: Contest, smoke: bool, long: bool) -> Callable[[int], dict[str, Result]]:
    return cache(lambda B: measure_adamw(contest, B, adamw_pairs(long=long), smoke=smoke))


@in_contest
@batch_sizes_of(*ADAMW_B)
@each(adamw_contenders)
def bench_adamw(record, show, adamw_at, contender, B):
    results = adamw_at(B)
    if contender.name == next(iter(results)):
        show(describe_adamw(results, B))
    record(contender, results[contender.name], f"training step, B = {B}", B=B)
