"""The Cython back-end: the compiled ops of kernels/, gathered from their modules.

`variants()` are the SIMD variants that this CPU runs, `variant()` is the one in use. Importing the module fails with
the reason where they are not built or do not load; nothing else takes their place.
"""

from pathlib import Path

from fastmlp import _kernels

try:
    from fastmlp._kernels.batchnorm import batchnorm_backward, batchnorm_forward
    from fastmlp._kernels.contract import Contract
    from fastmlp._kernels.core import precisions, use_variant, variant, variants
    from fastmlp._kernels.cross_entropy import cross_entropy, cross_entropy_backward, cross_entropy_forward
    from fastmlp._kernels.embedding import embedding_backward, embedding_forward
    from fastmlp._kernels.linear import linear_backward, linear_forward
    from fastmlp._kernels.linear_cross_entropy import (
        linear_cross_entropy,
        linear_cross_entropy_backward,
        linear_cross_entropy_forward,
        linear_cross_entropy_update,
    )
    from fastmlp._kernels.softmax import softmax_backward, softmax_forward
    from fastmlp._kernels.tanh import tanh_backward, tanh_forward
    from fastmlp._kernels.update import (
        update_adagrad,
        update_adagrad_rows,
        update_adamw,
        update_adamw_rows,
        update_momentum,
        update_momentum_rows,
        update_sgd,
        update_sgd_rows,
    )
except ImportError as error:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(_kernels.__name__):
        problem, first = f"{error.name} is not built", ""
    elif error.path and str(Path(error.path).parent) in _kernels.__path__:
        problem, first = (
            f"a kernel fails to load ({error})",
            f"remove {error.path}; ",
        )  # or it would pass for up to date
    else:
        raise
    raise ImportError(
        f"{problem}; {first}with a C compiler at hand, `pip install -e .` in fastmlp's folder builds it",
        name=error.name,
        path=error.path,
    ) from error

__all__ = [
    "Contract",
    "batchnorm_backward",
    "batchnorm_forward",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "embedding_backward",
    "embedding_forward",
    "linear_backward",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "linear_cross_entropy_forward",
    "linear_cross_entropy_update",
    "linear_forward",
    "precisions",
    "softmax_backward",
    "softmax_forward",
    "tanh_backward",
    "tanh_forward",
    "update_adagrad",
    "update_adagrad_rows",
    "update_adamw",
    "update_adamw_rows",
    "update_momentum",
    "update_momentum_rows",
    "update_sgd",
    "update_sgd_rows",
    "use_variant",
    "variant",
    "variants",
]
