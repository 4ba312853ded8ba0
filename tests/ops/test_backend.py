"""Which back-end runs: never another than asked for, never a slower one in silence."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from fastmlp import functional, nn
from fastmlp.ops import BackendUnavailableError, backend
from fastmlp.ops.backend import Backend, choose_backend, ops_of
from tests.helpers import module_of, require_ops


def test_auto_is_the_compiled_kernels() -> None:
    variants = module_of(require_ops("cython")).variants()
    chosen = choose_backend()
    assert chosen.ops.backend == "cython"
    assert chosen.simd in variants
    assert chosen.notice is None


@pytest.mark.usefixtures("no_kernels")
def test_promise_17_without_a_compiler_numba_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTMLP_SIMD", raising=False)
    require_ops("numba")
    chosen = choose_backend()
    assert chosen.ops.backend == "numba"
    assert chosen.notice is not None
    assert "the cython back-end is not available" in chosen.notice
    assert "Until then Numba runs" in chosen.notice


@pytest.mark.usefixtures("no_kernels")
def test_a_back_end_that_is_asked_for_has_no_substitute() -> None:
    with pytest.raises(BackendUnavailableError, match="the cython back-end is not available"):
        choose_backend("cython")


def test_the_reference_chooses_no_instructions() -> None:
    assert choose_backend("numpy").simd is None


def test_what_compiles_on_first_use_can_be_compiled_before() -> None:
    assert choose_backend("numpy").compile_ops is None
    require_ops("numba")
    assert choose_backend("numba").compile_ops is not None


@pytest.mark.usefixtures("no_kernels")
def test_a_variant_that_is_asked_for_has_no_substitute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMLP_SIMD", "portable")
    with pytest.raises(BackendUnavailableError, match="the cython back-end is not available"):
        choose_backend()


@pytest.mark.parametrize(
    "call", [lambda: functional.tanh(np.ones(2, np.float32)), lambda: nn.Linear(2, 2)([[1.0, 2.0]])], ids=["F", "nn"]
)
def test_the_library_warns_of_a_slower_one_once(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    slower = Backend(require_ops("numpy"), None, None, "the kernels are not built. Until then Numba runs")
    monkeypatch.setattr(backend, "choose_backend", lambda: slower)
    ops_of.cache_clear()
    try:
        with pytest.warns(UserWarning, match="fastmlp: the kernels are not built"):
            call()
        with warnings.catch_warnings(action="error"):
            call()
    finally:
        ops_of.cache_clear()
