"""What suits a text: how often to go through it, how much to leave out on the way, how often to look.

A configuration may leave this open; here it is filled in once the text is known. The figures were found by training on
novels and on documentation, on their validation parts: benchmarks/README.md has what came of what.
"""

import math
from dataclasses import replace
from typing import Any

from fastmlp.config import LAYERS, TrainConfig

__all__ = ["filled_in", "passes_of"]

MOST_PASSES = 40.0
WORDS = 2_500_000  # to train on where the text is long
PATIENCE = 6  # validations


def passes_of(words: int, width: int) -> float:
    """How often a network goes through a text by default.

    words  of the training part
    width  of the hidden layers: a larger network gains more from each
    """
    return max(1.0, min(MOST_PASSES, WORDS * max(1.0, width / 512) / words))


def dropout_of(passes: float, width: int) -> tuple[float, float, float]:
    """Shares to leave out of the input, of hidden layers and before the output, for so many passes over the text."""
    size = 1.0 if width >= 1024 else 0.7
    share = max(0.0, min(0.5, 0.1 * math.log2(max(passes, 1.0)) * size))
    return round(share, 2), round(share * 0.8, 2), round(share * 0.8, 2)


def weight_decay_of(passes: float) -> float:
    """How hard matrices are pulled towards 0, for so many passes over the text."""
    return round(min(1.0, 0.1 + 0.06 * passes), 3)


def filled_in(config: TrainConfig, words: int, passes: float | None = None) -> TrainConfig:
    """The configuration with what it left open.

    words   of the training part
    passes  how often a run with a time budget will go through them, as far as is known
    """
    if not config.window:
        return config
    width = config.widths[-1]
    open_: dict[str, Any] = {}
    batch_size = config.batch_size or (512 if words >= 200_000 else 256)
    steps, in_time = config.steps, config.minutes is not None
    if config.epochs is not None:
        passes = float(config.epochs)
    elif steps is not None:
        passes = steps * batch_size / words
    elif not in_time:
        passes = passes_of(words, width)
        steps = math.ceil(passes * words / batch_size)
    passes = passes or 1.0
    total = steps or math.ceil(passes * words / batch_size)
    open_ = {
        "batch_size": batch_size,
        "dropout": dropout_of(passes, width),
        "weight_decay": weight_decay_of(passes),
        "eval_every": min(LAYERS["eval_every"], max(10, total // 20)),
        "log_every": min(LAYERS["log_every"], max(5, total // 100)),
        "sample_every": min(LAYERS["sample_every"], max(20, total // 4)),
        "patience": PATIENCE,
    }
    if not in_time and config.epochs is None:
        open_["steps"] = steps
    return replace(config, **{name: value for name, value in open_.items() if getattr(config, name) is None})
