"""Fixtures that every test may ask for."""

from types import ModuleType

import numpy as np
import pytest

from fastmlp.ops import Ops
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
def torch() -> ModuleType:
    """PyTorch, or the test is skipped."""
    return pytest.importorskip("torch")
