"""linear: the matrix products alone, forward and backward, in each precision, beside NumPy's BLAS and PyTorch.

And the forward pass of one row, a matrix-vector product, limited by reading the weights from memory.
"""

from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter

import numpy as np
import pytest

from benchmarks import ceilings, peers
from benchmarks.bench_linear_cross_entropy import precisions
from benchmarks.conftest import in_contest
from benchmarks.contest import SMOKE, Clock, Contender, Contest, Result, Turn
from benchmarks.report import markdown_table
from benchmarks.setting import batch_sizes_of, taking_part
from tests import inputs
from tests.inputs import REAL

LAYERS = {  # of the original network, and of the default one; its block is a hidden layer again
    **{"first": (REAL.T * REAL.D, REAL.H), "second": (REAL.H, REAL.H), "output": (REAL.H, REAL.V)},
    **{"hidden": (8 * 128, 1_024), "projection": (1_024, 128)},
}
BATCH_SIZES = (32, 128, 512, 1_024)
PRODUCTS = {"linear_forward": 1, "linear_backward": 2}  # of B x inputs x outputs

BLAS = "NumPy's BLAS"
PLAY = "benchmarks.bench_linear:play"
CONTENDERS = [
    Contender("fastmlp", PLAY, {"contender": "cython"}),
    Contender(BLAS, PLAY, {"contender": "blas"}, peers.NUMPY),
    Contender("PyTorch", PLAY, {"contender": "torch"}, peers.KEEP_MEMORY),
    *(
        Contender(f"fastmlp {name}", PLAY, {"contender": "cython", "fp32_precision": name})
        for name in precisions()
        if name != "ieee"
    ),
]


def play(clock: Clock, contender: str, op: str, B: int, I: int, O: int, **options: str) -> None:  # noqa: E741
    """A contender: the op without a bias."""
    given = {**inputs.linear(np.random.default_rng(2003), B, I, O), "bias": None, "dbias": None}
    peers.play_op(clock, contender, op, given, **options)


def measure_product(
    contest: Contest, op: str, layer: str, sizes: Sequence[int], *, smoke: bool = False
) -> dict[int, dict[str, Result]]:
    """Return the contenders' results by batch size."""
    rounds, turn = (1, SMOKE) if smoke else (5, Turn(seconds=0.05, least=2))
    I, O = LAYERS[layer]  # noqa: E741
    by_size = {}
    for B in sizes:
        by_size[B] = contest.run(CONTENDERS, rounds=rounds, turn=turn, op=op, B=B, I=I, O=O)
    return by_size


def assert_same_totals(results: dict[str, Result]) -> None:
    """Assert that all results agree."""
    totals = {c.name: results[c.name].values[0] for c in CONTENDERS if not results[c.name].failed}
    for name, total in totals.items():
        assert np.isclose(total, totals[BLAS], rtol=1e-3 if name.endswith("bf16") else 1e-4), totals


def describe(by_size: dict[int, dict[str, Result]], op: str, layer: str) -> str:
    """A line a batch size."""
    I, O = LAYERS[layer]  # noqa: E741
    ours, *others = (contender.name for contender in CONTENDERS)
    header = [f"{op}, {I} to {O:,}", *(f"{name}, ms" for name in (ours, *others)), "Gflop/s", "times the better"]
    rows = []
    for B, results in by_size.items():
        times = {name: result.median for name, result in results.items() if not result.failed}
        row = [f"B = {B}", *(f"{1e3 * times[name]:.3f}" if name in times else "failed" for name in results)]
        if ours in times:
            best = min(times[name] for name in others if name in times and not name.startswith("fastmlp"))
            row += [f"{PRODUCTS[op] * 2 * B * I * O / times[ours] / 1e9:.0f}", f"{best / times[ours]:.2f}"]
        rows.append(row)
    return markdown_table(header, rows)


# ------------------------------------------------------------------------------------------------------------ one row

ONE_ROW = {"op": "linear_forward", "B": 1, "I": REAL.H, "O": REAL.V}
WEIGHTS = 4 * REAL.H * REAL.V  # bytes


def measure_one_row(contest: Contest, *, smoke: bool = False) -> dict[str, Result]:
    """Measure the output layer for one row, and the machine's ceilings."""
    rounds, turn = (1, SMOKE) if smoke else (5, Turn())
    return contest.run([ceilings.CONTENDER, *CONTENDERS], rounds=rounds, turn=turn, **ONE_ROW)


def describe_one_row(results: dict[str, Result]) -> str:
    """A line a contender, in bytes of weights a second."""
    rows = [
        [
            c.name,
            results[c.name].failed or f"{1e3 * results[c.name].median:.3f}",
            f"{WEIGHTS / results[c.name].median / 1e9:.1f}",
        ]
        for c in CONTENDERS
    ]
    rows += [
        ["memory, read", "", f"{rates['read_memory'] / 1e9:.1f}"] for rates in [ceilings.highest(results)] if rates
    ]
    return markdown_table([f"linear_forward, {REAL.H} to {REAL.V:,}, one row", "ms", "GB/s"], rows)


# ------------------------------------------------------------------------------------------------------------- pytest


@pytest.fixture(scope="session")
def product_of(contest: Contest, smoke: bool, long: bool) -> Callable[[str, str], dict[int, dict[str, Result]]]:
    sizes = taking_part(BATCH_SIZES, long=long)
    return cache(lambda op, layer: measure_product(contest, op, layer, sizes, smoke=smoke))


contenders = pytest.mark.parametrize("contender", CONTENDERS, ids=attrgetter("name"))


@in_contest
@batch_sizes_of(*BATCH_SIZES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("op", PRODUCTS)
@contenders
def bench_linear(record, show, product_of, contender, op, layer, B):
    by_size = product_of(op, layer)
    if (contender, B) == (CONTENDERS[0], BATCH_SIZES[0]):
        show(describe(by_size, op, layer))
    assert_same_totals(by_size[B])
    record(contender, by_size[B][contender.name], f"{op}, {layer} layer, B = {B}", op=op, layer=layer, B=B)


@pytest.fixture(scope="session")
def one_row(contest: Contest, smoke: bool) -> dict[str, Result]:
    return measure_one_row(contest, smoke=smoke)


@in_contest
@contenders
def bench_one_row(record, show, one_row, contender):
    if contender == CONTENDERS[0]:
        show(describe_one_row(one_row))
    assert_same_totals(one_row)
    record(contender, one_row[contender.name], "linear_forward, output layer, one row", **ONE_ROW)
