"""What suits a text: the network's size, how often to go through the text, what to leave out on the way, when to look.

A configuration may leave this open; here it is filled in once the text is known. The figures were found by training on
novels and on documentation and judging on their validation parts: benchmarks/README.md says what came of what.
"""

import math
from dataclasses import replace
from typing import Any

from fastmlp.config import LAYERS, TrainConfig

__all__ = ["filled_in"]

SHORT = 100_000  # words: of less a smaller network guesses as well
LARGE = 1_024  # units of a hidden layer: such a network wants more passes, and more dropout
PATIENCE = 6  # validations


def passes_of(words: int, width: int) -> float:
    """Return how often to go through a text of so many words, for a network of so wide hidden layers.

    A long text once, and by then a network has learned most of what it will. A short one more often, until it begins to
    be learned by heart.
    """
    enough, most = (4_000_000, 6.0) if width >= LARGE else (1_250_000, 3.5)
    return min(most, max(1.0, enough / words))


def most_passes(words: int) -> float:
    """Return after how many passes a text of so many words has nothing more to teach, but itself by heart."""
    return min(40.0, max(3.5, 3.5 * math.sqrt(words / 50_000)))


def dropout_of(passes: float, words: int, width: int) -> tuple[float, float, float]:
    """Return the shares of the input, of hidden layers and before the output: by how often a word is seen again."""
    again = 0.12 * math.log2(max(passes, 1.0)) * (1.2 if width >= LARGE else 1.0)
    share = min(0.5, again + 0.06 * max(0.0, math.log2(300_000 / words)))
    return round(share, 2), round(0.7 * share, 2), round(0.6 * share, 2)


def weight_decay_of(batch_size: int, rate: float, words: int) -> float:
    """Return AdamW's decay: over a pass at the highest rate a weight that is not trained loses 1 - 1/e of itself."""
    return round(min(4.0, batch_size / (rate * words)), 3)


def filled_in(config: TrainConfig, words: int, passes: float | None = None) -> TrainConfig:
    """Return the configuration with what it left open; one with a list of widths leaves nothing open.

    words   of the training part
    passes  how often a run with a time budget would go through them, as far as is known; where that is more than the
            text is good for the run has as many steps as it is good for, and no time budget
    """
    if not config.window:
        return config
    size: dict[str, Any] = {"embed": 128, "hidden": 512, "batch_size": 512}
    if words < SHORT:
        size = {"embed": 64, "hidden": 256, "batch_size": 128}
    config = replace(config, **{name: value for name, value in size.items() if getattr(config, name) is None})
    width, steps, in_time = config.widths[-1], config.steps, config.minutes is not None
    a_pass = words / config.batch_size
    if in_time and passes is not None and passes > most_passes(words):
        config = replace(config, minutes=None, steps=math.ceil(most_passes(words) * a_pass))
        steps, in_time = config.steps, False
    if config.epochs is not None:
        passes = float(config.epochs)
    elif steps is not None:
        passes = steps / a_pass
    elif not in_time:
        passes = passes_of(words, width)
        steps = math.ceil(passes * a_pass)
    passes = passes or 1.0
    total = steps or math.ceil(passes * a_pass)
    suits: dict[str, Any] = {
        "dropout": dropout_of(passes, words, width),
        "weight_decay": weight_decay_of(config.batch_size, config.lr, words),
        "eval_every": min(LAYERS["eval_every"], max(10, total // 20)),
        "log_every": min(LAYERS["log_every"], max(5, total // 100)),
        "sample_every": min(LAYERS["sample_every"], max(20, total // 4)),
        "patience": PATIENCE,
    }
    if not in_time and config.epochs is None:
        suits["steps"] = steps
    return replace(config, **{name: value for name, value in suits.items() if getattr(config, name) is None})
