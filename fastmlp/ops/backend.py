"""Which back-end runs, and what to say of it: never another than asked for, and never a slower one in silence."""

import functools
import importlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp.ops import BACKENDS, BackendUnavailableError, Ops, get_ops

__all__ = ["Backend", "choose_backend", "ops_of"]


@dataclass(frozen=True)
class Backend:
    """The ops that run, and what the user should know.

    ops          the op table
    simd         the variant of its kernels that runs; None where it has but one
    compile_ops  compiles all kernels now; None where nothing is compiled on first use
    notice       why it is not the fastest one, and what to do; None where it is, or was asked for
    """

    ops: Ops
    simd: str | None
    compile_ops: Callable[[], None] | None
    notice: str | None = None


def choose_backend(name: str = "auto") -> Backend:
    """The back-end of that name; "auto" is Cython's compiled kernels, and Numba where they cannot be had.

    Who chooses a variant of the kernels by FASTMLP_SIMD has asked for them: Numba does not take their place then.
    Raises BackendUnavailableError where it is missing.
    """
    if name == "auto" and "FASTMLP_SIMD" in os.environ:
        name = "cython"
    if name != "auto":
        return _backend(name)
    try:
        return _backend("cython")
    except BackendUnavailableError as error:
        return _backend("numba", f"{error}. Until then Numba runs, which is slower.")


@functools.cache
def ops_of(dtype: np.dtype[Any]) -> Ops:
    """The ops of the library's layers for a float type: the best back-end for float32, the reference for float64.

    Warns, once, where the best back-end is not the fastest one there could be.
    """
    if dtype != np.float32:
        return get_ops("numpy")
    backend = choose_backend()
    if backend.notice:
        warnings.warn(f"fastmlp: {backend.notice}", stacklevel=2)
    return backend.ops


def _backend(name: str, notice: str | None = None) -> Backend:
    ops = get_ops(name)
    module = importlib.import_module(f"fastmlp.ops.{BACKENDS[name]}")
    return Backend(ops, module.variant() if name == "cython" else None, getattr(module, "compile_ops", None), notice)
