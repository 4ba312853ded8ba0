"""linear_cross_entropy: the last layer and its loss, 98.5 % of a step's arithmetic, in each precision; its memory."""

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers, training
from benchmarks.conftest import in_contest
from benchmarks.contest import SMOKE, Clock, Contender, Contest, Result, Turn
from benchmarks.report import markdown_table, milliseconds
from benchmarks.setting import BATCH_SIZES, batch_sizes, taking_part
from fastmlp.ops import BackendUnavailableError, get_ops
from fastmlp.threads import default_threads
from tests import inputs
from tests.helpers import arguments, module_of, require_ops
from tests.inputs import REAL, mean_over_batch


def precisions() -> tuple[str, ...]:
    """Return the precisions of the compiled kernels on this CPU."""
    try:
        return module_of(get_ops("cython")).precisions()
    except BackendUnavailableError:
        return ("ieee",)  # the benchmark says why it is skipped


OP = "linear_cross_entropy"
PRODUCTS = 3  # of B x H x V: the logits, and two gradients
ADAMW = ", AdamW included"
PLAY = "benchmarks.bench_linear_cross_entropy:play"


def contenders() -> list[Contender]:
    """Return the contenders: the best kernels in each precision, with and without AdamW's update, and the peers."""
    ours = [
        Contender(
            best.name, PLAY, {"contender": "cython", "fp32_precision": best.arguments["precision"]}, best.environment
        )
        for best in training.best_kernels()
    ]
    updates = [
        replace(contender, name=contender.name + ADAMW, arguments={**contender.arguments, "rule": "adamw"})
        for contender in ours
    ]
    return [
        *ours,
        *updates,
        Contender("fastmlp Numba", PLAY, {"contender": "numba"}),
        Contender("fastmlp NumPy", PLAY, {"contender": "numpy"}, peers.NUMPY),
        Contender("PyTorch", PLAY, {"contender": "torch"}, peers.KEEP_MEMORY),
    ]


def play(clock: Clock, contender: str, B: int, V: int, rule: str = "", **options: object) -> None:
    """A contender: the last layer and its gradients; with a rule, the update of its weights instead of these."""
    rng = np.random.default_rng(2003)
    given = mean_over_batch(inputs.linear_cross_entropy(rng, B, REAL.H, V))
    if rule:
        given |= inputs.last_layer_state(rng, given) | inputs.NOTHING_HELD
        peers.play_op(clock, contender, f"{OP}_update", given, rule=rule, lr=1e-3, step=1, **options)
    peers.play_op(clock, contender, OP, given, **options)


def measure(contest: Contest, sizes: Sequence[int], *, smoke: bool = False) -> dict[int, dict[str, Result]]:
    """Return the contenders' results by batch size."""
    rounds, turn = (1, SMOKE) if smoke else (5, Turn(seconds=0.2, least=2))
    return {B: contest.run(contenders(), rounds=rounds, turn=turn, B=B, V=REAL.V) for B in sizes}


def describe(by_size: dict[int, dict[str, Result]]) -> str:
    """A line a contender."""
    rows = [
        [name, *(milliseconds(results[name]) for results in by_size.values())] for name in next(iter(by_size.values()))
    ]
    return markdown_table([f"{OP}, ms", *(f"B = {B}" for B in by_size)], rows)


def assert_same_gradients(results: dict[str, Result]) -> None:
    """Assert that all results agree; contenders that update the weights have no gradients to compare."""
    for updates in (False, True):
        ran = {name: result for name, result in results.items() if not result.failed}
        totals = {name: result.values[0] for name, result in ran.items() if name.endswith(ADAMW) == updates}
        assert np.allclose(list(totals.values()), next(iter(totals.values()), 0), rtol=0.01), totals


@pytest.fixture(scope="session")
def by_size(contest: Contest, smoke: bool, long: bool) -> dict[int, dict[str, Result]]:
    return measure(contest, taking_part(BATCH_SIZES, long=long), smoke=smoke)


everybody = pytest.mark.parametrize("contender", contenders(), ids=attrgetter("name"))


@in_contest
@batch_sizes
@everybody
def bench_linear_cross_entropy(record, show, by_size, contender, B):
    if (contender, B) == (contenders()[0], BATCH_SIZES[0]):
        show(describe(by_size))
    assert_same_gradients(by_size[B])
    result = by_size[B][contender.name]
    rate = round(PRODUCTS * 2 * B * REAL.H * REAL.V / result.median / 1e9, 1)
    record(contender, result, f"{OP}, B = {B}", B=B, **{"GFLOP/s": rate})


LARGE_B, LARGE_V = 4_096, 100_000


@pytest.fixture(scope="session")
def large(contest: Contest) -> dict[str, Result]:
    return contest.run(contenders(), rounds=1, turn=Turn(seconds=0, least=2, warm=0), warm_up=1, B=LARGE_B, V=LARGE_V)


@in_contest
@pytest.mark.long
@everybody
def bench_large_batch_and_vocabulary(record, large, contender):
    record(contender, large[contender.name], f"{OP}, B = {LARGE_B}, V = {LARGE_V}", B=LARGE_B, V=LARGE_V)


# ------------------------------------------------------------------------------------------------------------- memory

PLANES = {"ieee": 0, "bf16": 1, "bf16x3": 2}  # of bf16 in a number


def update_large_layer(clock: Clock, fp32_precision: str, **_task: object) -> None:
    """A contender: the update by SGD of a large layer; each tick reports its peak memory in bytes."""
    rng = np.random.default_rng(2003)
    given = mean_over_batch(inputs.linear_cross_entropy(rng, LARGE_B, REAL.H, LARGE_V))
    arrays = arguments("linear_cross_entropy_update", given | inputs.NOTHING_HELD, np.copy)
    while True:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current use
        before = status("VmRSS")
        get_ops("cython").linear_cross_entropy_update(
            *arrays.values(), rule="sgd", lr=1e-3, fp32_precision=fp32_precision, threads=default_threads()
        )
        assert np.isfinite(arrays["losses"]).all()
        clock.tick(status("VmHWM") - before)


def status(name: str) -> int:
    """Return a memory size of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def stated_bytes(fp32_precision: str) -> int:
    """The formula of kernels/linear_cross_entropy.pyx for an update whose exponentials are not stored."""
    B, H, S, n, P = LARGE_B, REAL.H, 32, default_threads(), PLANES[fp32_precision]
    if not P:
        L, block = (-(-B // 16) | 1) * 16, 120
        return 4 * ((H + 3 * S + n * block + 11) * L + n * H * B + (S * H + S + n) * L + n * block * H)
    L, H, block = -(-B // 32) * 32, -(-H // 32) * 32, 128
    forward = (P * H / 2 + 3 * S + 11) * L + n * block * (P * H / 2 + 32)
    return int(4 * (forward + (S * H + S + n * P * (block + H / 2 + 8) + 2 * n) * L + 32 * n * (H + 16)))


def assert_memory_as_stated(results: dict[str, Result]) -> None:
    """Return the formula plus a margin for partly filled pages and for Python itself."""
    for name, result in results.items():
        assert not result.failed, f"{name}: {result.failed}"
        assert result.values[0] <= 1.02 * stated_bytes(name) + 4e6, f"{name}: {result.values[0]:,} bytes"


def measure_memory(contest: Contest, *, smoke: bool = False) -> dict[str, Result]:
    """Return the memory by precision, for smoke of one; only the first call counts, which allocates it."""
    play = "benchmarks.bench_linear_cross_entropy:update_large_layer"
    contenders = [Contender(precision, play, {"fp32_precision": precision}) for precision in precisions()]
    return contest.run(contenders[: 1 if smoke else None], rounds=0, warm_up=1)


def describe_memory(results: dict[str, Result]) -> str:
    """A line a precision, in megabytes."""
    header = [f"B = {LARGE_B:,}, H = {REAL.H}, V = {LARGE_V:,}", "peak, MB", "stated, MB", "B V floats, MB"]
    rows = [
        [
            name,
            result.failed or f"{result.values[0] / 1e6:.0f}",
            f"{stated_bytes(name) / 1e6:.0f}",
            f"{4e-6 * LARGE_B * LARGE_V:,.0f}",
        ]
        for name, result in results.items()
    ]
    return markdown_table(header, rows)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is not to be had here")
def bench_memory(benchmark, contest, show, smoke):
    require_ops("cython")
    results = benchmark.pedantic(measure_memory, args=(contest,), kwargs={"smoke": smoke})
    show(describe_memory(results))
    assert_memory_as_stated(results)
