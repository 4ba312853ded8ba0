"""The choice of the back-end: never another one than asked for, and never a slower one without a notice."""

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
    """The chosen ops, and a notice for the user.

    ops          the op table
    simd         the variant of its kernels in use; None: it has only one
    compile_ops  compiles all kernels now; None: nothing is compiled on first use
    notice       why it is not the fastest one, and what to do; None: it is, or was asked for
    """

    ops: Ops
    simd: str | None
    compile_ops: Callable[[], None] | None
    notice: str | None = None


def choose_backend(name: str = "auto") -> Backend:
    """Return the back-end of that name; "auto" is Cython's compiled kernels, or Numba if they are not available.

    FASTMLP_SIMD asks for a variant of the compiled kernels: Numba does not replace them then.
    Raises BackendUnavailableError if the back-end is missing.
    """
    if name == "auto" and "FASTMLP_SIMD" in os.environ:
        name = "cython"
    if name != "auto":
        return _backend(name)
    try:
        return _backend("cython")
    except BackendUnavailableError as error:
        try:
            return _backend("numba", f"{error}. Until then Numba runs, which is slower.")
        except BackendUnavailableError as other:
            raise BackendUnavailableError(f"{error}; {other}") from other


@functools.cache
def ops_of(dtype: np.dtype[Any]) -> Ops:
    """Return the library's ops for a float type: the best back-end for float32, the reference for float64.

    Warns, once, if the best available back-end is not the fastest one.
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
