"""The last layer's step on more cores: measured on those that are here, computed for those that are not.

The slices of the vocabulary are taken by the next free core, so the last ones may leave some idle: that is computed
from their sizes. What a second core gains less than twice is called serial, though most of it is memory, of which
machines with more cores have more: so the last column, computed from both and run by nobody, is a lower bound.
"""

import heapq
from collections.abc import Sequence
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.report import markdown_table
from fastmlp.threads import usable_cores
from tests import inputs
from tests.helpers import arguments, require_ops

V, D, B = 27_755, 128, 512  # the default network's
BLOCK, SLICES = 128, 32  # of kernels/linear_cross_entropy.pyx with tiles
ROUNDS = 15
MORE = (4, 8, 12, 14, 16, 24, 32, 48, 64)


def balance(cores: int) -> float:
    """Return the share of the time in which the average core has a slice."""
    blocks = -(-V // BLOCK)
    busy_until = [0] * cores
    for slice_ in range(SLICES):
        blocks_of_slice = (slice_ + 1) * blocks // SLICES - slice_ * blocks // SLICES
        heapq.heapreplace(busy_until, busy_until[0] + blocks_of_slice)
    return blocks / (cores * max(busy_until))


def measure(cores: Sequence[int], *, rounds: int) -> dict[int, float]:
    """Return the median seconds of a step of the last layer, by the number of threads, measured in turn."""
    ops, rng = require_ops("cython"), np.random.default_rng(1)
    precision = "bf16" if "bf16" in ops.precisions() else "ieee"
    given = inputs.linear_cross_entropy(rng, B, D, V)
    states = {name: np.zeros((V, D), np.float32) for name in ("weight_state", "weight_state2")}
    arrays = arguments("linear_cross_entropy_update", given | states | inputs.NOTHING_HELD)
    options = {"rule": "adamw", "lr": 1e-4, "step": 1, "fp32_precision": precision}
    seconds: dict[int, list[float]] = {threads: [] for threads in cores}
    for _ in range(rounds + 1):  # the first round warms up
        for threads in cores:
            began = perf_counter()
            ops.linear_cross_entropy_update(*arrays.values(), **options, threads=threads)
            seconds[threads].append(perf_counter() - began)
    return {threads: median(times[1:] or times) for threads, times in seconds.items()}


def describe(seconds: dict[int, float]) -> str:
    """A table with a line for each number of cores."""
    serial = max(0.0, 2 * seconds[2] / seconds[1] - 1) if 2 in seconds else None
    rows = []
    for cores in sorted({*seconds, *MORE}):
        line = [f"{cores}", f"{1e3 * seconds[cores]:.1f}" if cores in seconds else ""]
        line.append(f"{seconds[1] / seconds[cores] / cores:.2f}" if cores in seconds else "")
        line.append(f"{balance(cores):.2f}")
        if serial is not None:
            line.append(f"{1 / (cores * serial + (1 - serial) / balance(cores)):.2f}")
        rows.append(line)
    header = ["cores", "ms", "measured efficiency", "balance of slices, computed", "efficiency at least, computed"]
    share = "" if serial is None else f"\n\nSerial by one and two threads: {100 * serial:.1f} %."
    return markdown_table(header, rows) + share


def bench_cores(benchmark, show, smoke):
    cores = range(1, min(usable_cores(), 16) + 1)
    seconds = benchmark.pedantic(measure, args=(cores,), kwargs={"rounds": 1 if smoke else ROUNDS})
    show(describe(seconds))
    assert set(seconds) == set(cores)
