"""Fixtures that every test may ask for."""

import signal
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from fastmlp.ops import Ops, get_ops
from fastmlp.ops.backend import Backend, ops_of
from tests.helpers import OpsAt, at_precision, require_ops
from tests.runs import QuickPicture

# Hypothesis tries the same examples in every run and lets a busy machine take its time: no test hangs on luck. With
# `--hypothesis-profile random` the examples are new ones.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("random"), derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(params=["numpy", "numba", "cython"])
def ops(request: pytest.FixtureRequest) -> Ops:
    """The ops of each back-end in turn."""
    return require_ops(request.param)


@pytest.fixture(params=["numpy", "numba", "cython", "cython bf16x3", "cython bf16"])
def ops_at_each_precision(request: pytest.FixtureRequest) -> OpsAt:
    """The ops of each back-end in turn, and of the one that has them each kind of products."""
    backend, _, fp32_precision = request.param.partition(" ")
    return at_precision(require_ops(backend), fp32_precision or "ieee")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same ones in every test."""
    return np.random.default_rng(2003)


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there was no compiler."""
    get_ops.cache_clear()
    monkeypatch.setitem(sys.modules, "fastmlp.ops.cython_ops", None)


@pytest.fixture
def library_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Ops], None]]:
    """library_runs(ops): functional, nn and optim run these on float32, in place of the best that there are."""

    def choose(ops: Ops) -> None:
        monkeypatch.setattr("fastmlp.ops.backend.choose_backend", lambda: Backend(ops, None, None))
        ops_of.cache_clear()

    yield choose
    ops_of.cache_clear()


@pytest.fixture
def quick_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is enough that the picture of a run is asked for."""
    monkeypatch.setattr("fastmlp.pictures.plot.draw_loss", QuickPicture)


@pytest.fixture
def torch() -> ModuleType:
    """PyTorch, its random numbers the same ones in every test; or the test is skipped."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(2003)
    return torch


def pytest_configure() -> None:
    """Undo what a shell does to its background jobs: they ignore Ctrl-C, and so would what tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--endurance", action="store_true", help="test_endurance.py in its long form, with figures")


@pytest.fixture(scope="session")
def endurance(pytestconfig: pytest.Config) -> bool:
    """Whether hundreds of accidents are asked for, where a few do in daily life."""
    return bool(pytestconfig.getoption("endurance"))


@pytest.fixture
def tell(endurance: bool, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a figure to the terminal, whatever pytest captures; not a word in daily life."""

    def tell(text: str) -> None:
        if endurance:
            with capsys.disabled():
                print(f"\n    {text}", flush=True)

    return tell
