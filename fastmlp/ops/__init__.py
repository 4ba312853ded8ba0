"""The op table: every op, forward and backward, in three back-ends behind one contract.

    ops = get_ops("cython")        # or "numba", "numpy"
    ops.tanh_forward(x, y, threads=2)

`reference` is the specification; `numba_ops` and `cython_ops` have the same functions with the same arguments.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from fastmlp.errors import ReportedError, require
from fastmlp.ops import reference
from fastmlp.ops.contract import checked

__all__ = ["BACKENDS", "OPS", "BackendUnavailableError", "Ops", "get_ops", "stem"]

BACKENDS = {"cython": "cython_ops", "numba": "numba_ops", "numpy": "reference"}


class BackendUnavailableError(ReportedError, ImportError):
    """The back-end cannot be used on this machine; the message says why, and what to do."""


@dataclass(frozen=True)
class Ops:
    """One back-end's ops. Each checks its arrays, then runs; the reference documents them."""

    backend: str
    embedding_forward: Callable[..., None]
    embedding_backward: Callable[..., int]
    context_averages_forward: Callable[..., None]
    linear_forward: Callable[..., None]
    linear_backward: Callable[..., None]
    linear_update: Callable[..., None]
    batchnorm_forward: Callable[..., None]
    batchnorm_backward: Callable[..., None]
    tanh_forward: Callable[..., None]
    tanh_backward: Callable[..., None]
    gelu_forward: Callable[..., None]
    gelu_backward: Callable[..., None]
    add: Callable[..., None]
    dropout_forward: Callable[..., None]
    dropout_backward: Callable[..., None]
    batchnorm_gelu_dropout_forward: Callable[..., None]
    batchnorm_gelu_dropout_backward: Callable[..., None]
    softmax_forward: Callable[..., None]
    softmax_backward: Callable[..., None]
    cross_entropy_forward: Callable[..., None]
    cross_entropy_backward: Callable[..., None]
    cross_entropy: Callable[..., None]
    linear_cross_entropy_forward: Callable[..., None]
    linear_cross_entropy_backward: Callable[..., None]
    linear_cross_entropy: Callable[..., None]
    linear_cross_entropy_update: Callable[..., bool]
    update_sgd: Callable[..., None]
    update_momentum: Callable[..., None]
    update_adagrad: Callable[..., None]
    update_adamw: Callable[..., None]
    update_sgd_rows: Callable[..., None]
    update_momentum_rows: Callable[..., None]
    update_adagrad_rows: Callable[..., None]
    update_adamw_rows: Callable[..., None]

    def precisions(self) -> tuple[str, ...]:
        """Return its values of fp32_precision on this CPU; the first one is "auto"."""
        return _precisions(importlib.import_module(f"fastmlp.ops.{BACKENDS[self.backend]}"))

    def precision_to_evaluate(self) -> str:
        """Return the fastest precision whose perplexities have float32's first six digits.

        A matrix unit makes three products of bf16 in less time than vectors make one of float32; dot products do not.
        """
        if self.backend != "cython":
            return "ieee"
        return "bf16x3" if importlib.import_module("fastmlp.ops.cython_ops").variant() == "amx" else "ieee"


OPS = tuple(field.name for field in fields(Ops) if field.name != "backend")


def stem(op: str) -> str:
    """Return the name of an op's files: the op's name without forward, backward or update."""
    return "update" if op.startswith("update_") else re.sub("_(forward|backward|update)$", "", op)


@cache
def get_ops(backend: str) -> Ops:
    """The ops of a back-end: "cython", "numba" or "numpy".

    Raises ValueError for another name and BackendUnavailableError if the back-end is not available; never returns
    another one in its place.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    try:
        if backend == "numba":
            require("numba", "it")
        module = importlib.import_module(f"fastmlp.ops.{BACKENDS[backend]}")
    except ImportError as error:
        raise BackendUnavailableError(f"the {backend} back-end is not available: {error}") from error
    dtype: Any = None if module is reference else np.dtype(np.float32)
    precisions, compiled = partial(_precisions, module), getattr(module, "Contract", None)
    return Ops(
        backend,
        **{op: checked(getattr(module, op), getattr(reference, op), dtype, precisions, compiled) for op in OPS},
    )


def _precisions(module: ModuleType) -> tuple[str, ...]:
    """Return a back-end's precisions: Cython's depend on the variant in use; the others have float32 only."""
    return module.precisions() if hasattr(module, "precisions") else ("ieee",)
