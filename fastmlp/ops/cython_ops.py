"""The Cython back-end: the compiled ops of kernels/, gathered from their modules.

`variants()` are the SIMD variants that this CPU runs, `variant()` is the one in use. The import raises an
error with the reason if they are not built or do not load; nothing replaces them.
"""

from importlib import import_module
from pathlib import Path

from fastmlp import _kernels
from fastmlp.ops import OPS, stem

try:
    for module in sorted({stem(op) for op in OPS}):
        import_module(f"{_kernels.__name__}.{module}")
    from fastmlp._kernels.contract import Contract
    from fastmlp._kernels.core import precisions, use_variant, variant, variants
except ImportError as error:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(_kernels.__name__):
        problem, first = f"{error.name} is not built", ""
    elif error.path and str(Path(error.path).parent) in _kernels.__path__:
        problem, first = f"a kernel fails to load ({error})", f"remove {error.path}; "  # or it passes for up to date
    else:
        raise
    raise ImportError(
        f"{problem}; {first}with a C compiler at hand, `pip install -e .` in fastmlp's folder builds it",
        name=error.name,
        path=error.path,
    ) from error

__all__ = ["Contract", "precisions", "use_variant", "variant", "variants", *OPS]

globals().update({op: getattr(import_module(f"{_kernels.__name__}.{stem(op)}"), op) for op in OPS})
