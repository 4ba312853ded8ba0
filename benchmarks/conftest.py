"""How the benchmarks measure: real shapes, warm calls, medians, and a record of the machine they ran on."""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.contest import Contender, Contest, Result, timed
from benchmarks.report import machine
from fastmlp.threads import default_threads
from tests.helpers import NUMPY, Inputs, arguments, require_ops, run
from tests.inputs import options_of

THREADS = default_threads()
SECONDS = 0.3  # of all rounds of a benchmark: many rounds of a short op, a few of a long one
ROUNDS = (3, 300)  # at least and at most


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same ones in every benchmark."""
    return np.random.default_rng(2003)


@pytest.fixture
def measure(benchmark: Any, smoke: bool) -> Callable[..., None]:
    """Time one op of a back-end.

    contender  "numpy", "numba" or "cython"
    op         its name; a backward pass gets the outputs of its forward pass
    given      its inputs, by name
    options    of the op; and `sizes`, the letters that name this benchmark of the op
    """

    def measure(contender: str, op: str, given: Inputs, *, sizes: dict[str, int], **options: Any) -> None:
        if op.endswith("_backward"):
            forward = op.replace("_backward", "_forward")
            given = {**given, **run(NUMPY, forward, given, **options_of(forward, **options))}
        ops = require_ops(contender)
        call = partial(getattr(ops, op), *arguments(op, given, np.copy).values(), threads=THREADS, **options)
        benchmark.group = f"{op} {', '.join(f'{letter} = {size}' for letter, size in sizes.items())}"
        benchmark.extra_info |= {"op": op, "contender": contender, "threads": THREADS, **sizes, **options}
        timed(call)  # compiles, if compiled on first use
        warm = [timed(call)]
        while len(warm) < 5 and sum(warm) < SECONDS:
            warm.append(timed(call))
        benchmark.pedantic(call, rounds=1 if smoke else int(np.clip(SECONDS / median(warm), *ROUNDS)))

    return measure


# ------------------------------------------------------------------------------------------------------ contests


@pytest.fixture(scope="session")
def contest() -> Iterator[Contest]:
    with Contest() as contest:
        yield contest


class Shown:
    """A clock for pytest-benchmark that replays the measurement of another clock."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


SHOWN = Shown()
in_contest = pytest.mark.benchmark(timer=SHOWN)  # for benchmarks that give `record` their result


@pytest.fixture
def record(benchmark: Any) -> Callable[..., None]:
    """Let pytest-benchmark report the measurement of a contest."""

    def record(contender: Contender, result: Result, group: str, **extra_info: Any) -> None:
        if result.failed:
            (pytest.skip if peers.missing(contender.name) else pytest.fail)(f"{contender.name}: {result.failed}")
        benchmark.group = group
        benchmark.extra_info |= {"contender": contender.name, "threads": THREADS, **extra_info}
        seconds = iter(result.seconds)
        benchmark.pedantic(SHOWN.advance, setup=lambda: ((next(seconds),), {}), rounds=len(result.seconds))

    return record


@pytest.fixture(scope="session")
def smoke(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("smoke"))


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("long"))


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print to the terminal, whatever pytest captures."""

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n\n{text}\n")

    return show


# ------------------------------------------------------------------------------------------- options and the machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long benchmarks too")
    parser.addoption("--smoke", action="store_true", help="run each benchmark for one round, to see that it runs")
    parser.addoption("--text", metavar="FILE", help="train the headline on this text, not on the standard library's")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes or gigabytes; runs with --long only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="runs with --long only"))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["fastmlp"] = machine()


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not config.getoption("benchmark_only"):
        return []
    return [f"{name}: {value}" for name, value in machine().items()]
