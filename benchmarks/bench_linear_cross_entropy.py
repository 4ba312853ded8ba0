"""linear_cross_entropy: the last layer and its loss, 98.5 % of a step's arithmetic, in each precision; its memory."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.contest import Clock, Contender, Contest, Result
from benchmarks.report import markdown_table
from fastmlp.ops import BackendUnavailableError, get_ops
from fastmlp.threads import default_threads
from tests import inputs
from tests.helpers import arguments, module_of, require_ops
from tests.inputs import REAL, batch_sizes, mean_over_batch


def precisions() -> tuple[str, ...]:
    """Those of the compiled kernels on this CPU."""
    try:
        return module_of(get_ops("cython")).precisions()
    except BackendUnavailableError:
        return ("ieee",)  # the benchmark says why it is skipped


# Of B x H x V: one for the logits, two for the gradients; the backward pass alone makes the logits again.
PRODUCTS = {"linear_cross_entropy_forward": 1, "linear_cross_entropy_backward": 3, "linear_cross_entropy": 3}
OURS = [("numpy", "ieee"), ("numba", "ieee"), *(("cython", precision) for precision in precisions())]
backends = pytest.mark.parametrize(("contender", "fp32_precision"), OURS)
backends_and_torch = pytest.mark.parametrize(("contender", "fp32_precision"), [*OURS, ("torch", "ieee")])


def bench(measure, rng, contender, op, B, H, V, fp32_precision):
    given = mean_over_batch(inputs.linear_cross_entropy(rng, B, H, V))
    flop = PRODUCTS[op] * 2 * B * H * V
    measure(contender, op, given, sizes={"B": B, "H": H, "V": V}, flop=flop, fp32_precision=fp32_precision)


@batch_sizes
@pytest.mark.parametrize("op", PRODUCTS)
@backends_and_torch
def bench_linear_cross_entropy(measure, rng, contender, fp32_precision, op, B):
    bench(measure, rng, contender, op, B, REAL.H, REAL.V, fp32_precision)


@batch_sizes
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
@backends
def bench_linear_cross_entropy_update(measure, rng, contender, fp32_precision, rule, B):
    given = mean_over_batch(inputs.linear_cross_entropy(rng, B, REAL.H, REAL.V))
    given |= inputs.last_layer_state(rng, given)
    op = "linear_cross_entropy_update"
    options = {"rule": rule, "lr": 1e-3, "fp32_precision": fp32_precision} | ({"step": 1} if rule == "adamw" else {})
    measure(contender, op, given, sizes={"B": B, "H": REAL.H, "V": REAL.V}, flop=6 * B * REAL.H * REAL.V, **options)


LARGE_B, LARGE_V = 4_096, 100_000


@pytest.mark.long
@backends_and_torch
def bench_large_batch_and_vocabulary(measure, rng, contender, fp32_precision):
    bench(measure, rng, contender, "linear_cross_entropy", LARGE_B, REAL.H, LARGE_V, fp32_precision)


# ------------------------------------------------------------------------------------------------------------- memory

PLANES = {"ieee": 0, "bf16": 1, "bf16x3": 2}  # of bf16 in a number


def update_large_layer(clock: Clock, fp32_precision: str, **_task: object) -> None:
    """A contender: the update by SGD of a large layer; with each tick go the bytes that were in use at once for it."""
    rng = np.random.default_rng(2003)
    given = mean_over_batch(inputs.linear_cross_entropy(rng, LARGE_B, REAL.H, LARGE_V))
    arrays = arguments("linear_cross_entropy_update", given, np.copy)
    while True:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
        before = status("VmRSS")
        get_ops("cython").linear_cross_entropy_update(
            *arrays.values(), rule="sgd", lr=1e-3, fp32_precision=fp32_precision, threads=default_threads()
        )
        assert np.isfinite(arrays["losses"]).all()
        clock.tick(status("VmHWM") - before)


def status(name: str) -> int:
    """A size of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def stated_bytes(fp32_precision: str) -> int:
    """The formula of kernels/linear_cross_entropy.pyx for an update whose exponentials are not kept."""
    B, H, S, n, P = LARGE_B, REAL.H, 32, default_threads(), PLANES[fp32_precision]
    if not P:
        L, block = (-(-B // 16) | 1) * 16, 120
        return 4 * ((H + 3 * S + n * block + 9) * L + H * B + (S * H + n) * L + n * block * (H + 1))
    L, H, block = -(-B // 32) * 32, -(-H // 32) * 32, 128
    forward = (P * H / 2 + 3 * S + 9) * L + n * block * (P * H / 2 + 32)
    return int(4 * (forward + (P * H / 2 + S * H + n * P * block + n) * L + n * (32 * H + block)))


def measure_memory(contest: Contest) -> dict[str, Result]:
    """By precision; the first call alone counts, whose memory is not there yet."""
    play = "benchmarks.bench_linear_cross_entropy:update_large_layer"
    contenders = [Contender(precision, play, {"fp32_precision": precision}) for precision in precisions()]
    return contest.run(contenders, rounds=0, warm_up=1)


def describe_memory(results: dict[str, Result]) -> str:
    """A line a precision, in megabytes."""
    header = [f"B = {LARGE_B:,}, H = {REAL.H}, V = {LARGE_V:,}", "peak, MB", "stated, MB", "B V floats, MB"]
    rows = [
        [name, f"{result.values[0] / 1e6:.0f}", f"{stated_bytes(name) / 1e6:.0f}", f"{4e-6 * LARGE_B * LARGE_V:,.0f}"]
        for name, result in results.items()
    ]
    return markdown_table(header, rows)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is not to be had here")
def bench_memory(benchmark, contest, show):
    require_ops("cython")
    results = benchmark.pedantic(measure_memory, args=(contest,))
    for name, result in results.items():
        assert not result.failed, f"{name}: {result.failed}"
        assert result.values[0] < LARGE_B * LARGE_V, f"{name}: a quarter of the logits' size and more"
    show(describe_memory(results))
