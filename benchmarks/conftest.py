"""How the benchmarks measure: real shapes, warm calls, medians, and a record of the machine they ran on."""

import platform
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from benchmarks import peers
from fastmlp.ops import BackendUnavailableError, get_ops
from fastmlp.threads import default_threads
from tests.helpers import NUMPY, Inputs, arguments, module_of, require_ops, run

THREADS = default_threads()
SECONDS = 0.3  # that the rounds of one benchmark take together: many rounds of a short op, a few of a long one
ROUNDS = (5, 300)  # at least and at most


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same ones in every benchmark."""
    return np.random.default_rng(2003)


@pytest.fixture
def time_rounds(request: pytest.FixtureRequest, benchmark: Any) -> Callable[..., None]:
    """Time a call in as many rounds as fit into some seconds, after a warm-up that the rounds do not count."""

    def time_rounds(call: Callable[[], Any], seconds: float = SECONDS) -> None:
        timed(call)  # compiles what is compiled on first use
        warm = [timed(call)]
        while len(warm) < 5 and sum(warm) < seconds:
            warm.append(timed(call))
        smoke = request.config.getoption("smoke")
        benchmark.pedantic(call, rounds=1 if smoke else int(np.clip(seconds / median(warm), *ROUNDS)))

    return time_rounds


@pytest.fixture
def measure(benchmark: Any, time_rounds: Callable[..., None]) -> Callable[..., None]:
    """Time one op of a back-end, or what a peer does in its place.

    contender  "numpy", "numba", "cython", or a peer
    op         its name; a backward pass gets what its forward pass keeps
    given      its inputs, by name
    flop       floating-point operations of a call, if they are what it is about
    options    of the op; and `sizes`, the letters that tell this benchmark from others of the op
    """

    def measure(
        contender: str, op: str, given: Inputs, *, sizes: dict[str, int], flop: int = 0, **options: Any
    ) -> None:
        if op.endswith("_backward"):
            given = {**given, **run(NUMPY, op.replace("_backward", "_forward"), given)}
        if contender in peers.CALLS:
            call = peers.CALLS[contender](op, given, THREADS)
        else:
            ops = require_ops(contender)
            call = partial(getattr(ops, op), *arguments(op, given, np.copy).values(), threads=THREADS, **options)
        benchmark.group = f"{op} {', '.join(f'{letter} = {size}' for letter, size in sizes.items())}"
        benchmark.extra_info |= {"op": op, "contender": contender, "threads": THREADS, **sizes, **options}
        time_rounds(call)
        if flop:
            benchmark.extra_info["GFLOP/s"] = round(flop / benchmark.stats.stats.median / 1e9, 1)

    return measure


def timed(call: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


# --------------------------------------------------------------------------------------------- options and the machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long benchmarks too")
    parser.addoption("--smoke", action="store_true", help="run each benchmark for one round, to see that it runs")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes or gigabytes; runs with --long only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="runs with --long only"))


def machine() -> dict[str, Any]:
    """What a timing depends on, beside the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = cpu.get("flags", "").split()
    sets = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")
    try:
        kernels = module_of(get_ops("cython")).variant()
    except BackendUnavailableError:
        kernels = "not built"
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "instruction sets": [name for name in sets if name in flags],
        "kernels run on": kernels,
        "threads": THREADS,
        "versions": {name: version(name) for name in ("numpy", "numba", "cython", "torch")},
    }


def version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["fastmlp"] = machine()


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not config.getoption("benchmark_only"):
        return []
    return [f"{name}: {value}" for name, value in machine().items()]
