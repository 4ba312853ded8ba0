"""fastmlp: train a neural language model of Bengio et al. (2003) on novels, fast, on an ordinary CPU.

    fastmlp.LanguageModel     train on a text, generate, evaluate, save
    fastmlp.KneserNey         the same by counting n-grams, in a second
    fastmlp.functional        the kernels on arrays, with torch.nn.functional's names and arguments
    fastmlp.nn, fastmlp.optim layers and optimizers with torch's names, for networks written line by line
    fastmlp.torch             the fused last layer for PyTorch's users; needs torch

Each is imported when it is first asked for: `import fastmlp` itself takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmlp import functional as functional
    from fastmlp import nn as nn
    from fastmlp import optim as optim
    from fastmlp import torch as torch
    from fastmlp.language_model import LanguageModel
    from fastmlp.prediction.kneser_ney import KneserNey

__version__ = "0.2.0"
__all__ = ["KneserNey", "LanguageModel", "__version__"]

_CLASSES = {"KneserNey": "prediction.kneser_ney", "LanguageModel": "language_model"}
_SUBMODULES = ("functional", "nn", "optim", "torch")

if not TYPE_CHECKING:  # for type checkers any name would be there

    def __getattr__(name: str) -> Any:
        """What is imported on demand (PEP 562)."""
        if name in _SUBMODULES:
            return importlib.import_module(f"{__name__}.{name}")
        if name in _CLASSES:
            return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
