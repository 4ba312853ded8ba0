"""Fixtures that every test may ask for."""

import signal
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from fastmlp.ops import Ops, get_ops
from tests.helpers import require_ops


@pytest.fixture(params=["numpy", "numba", "cython"])
def ops(request: pytest.FixtureRequest) -> Ops:
    """The ops of each back-end in turn."""
    return require_ops(request.param)


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
def torch() -> ModuleType:
    """PyTorch, or the test is skipped."""
    return pytest.importorskip("torch")


def pytest_configure() -> None:
    """Let Ctrl-C reach the commands that tests start, also where a shell has its background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
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
