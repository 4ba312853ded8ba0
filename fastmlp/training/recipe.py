"""Defaults that depend on the text: network size, number of passes, dropout, weight decay and intervals.

A configuration may leave these options open; they are filled in once the text is known. The figures come from training
on novels and documentation and comparing validation losses: benchmarks/README.md has the results.
"""

import math
from dataclasses import replace
from typing import Any

from fastmlp.config import LAYERS, TrainConfig

__all__ = ["MOST_COUNTED", "filled_in"]

SHORT = 150_000  # words; below this a smaller network predicts as well
NOVELS = 1_200_000  # words
USUAL, LARGE = 128 * 1_024, 256 * 1_024  # sizes of a network: width of the embedding times that of the hidden layers
PATIENCE = 6  # validations
MOST_COUNTED = 20_000_000  # words: to count more takes gigabytes


def passes_of(words: int, size: int) -> float:
    """Return the number of passes over a text of `words` words, for a network of this size.

    One pass over a long text teaches a network most of what it can learn. A short text gets more passes, until the
    network begins to learn it by heart.
    """
    enough, most = (4_000_000, 6.0) if size >= LARGE else (900_000, 3.5)
    return min(most, max(1.0, enough / words))


def most_passes(words: int) -> float:
    """Return the number of passes after which a network only learns the text by heart."""
    return min(40.0, max(3.5, 3.5 * math.sqrt(words / 50_000)))


def batch_size_of(words: int, size: int) -> int:
    """Return the number of windows of a batch: some 400 batches a pass, at least 128 windows, at most 512 or 1,024."""
    return int(min(1_024 if size >= LARGE else 512, max(128, 2 ** round(math.log2(words / 400)))))


def dropout_of(passes: float, words: int, size: int) -> tuple[float, float, float]:
    """Return the dropout of input, hidden layers and output: more for more passes and for a shorter text.

    A network of the usual size does not learn novels by heart, however often it reads them: it needs a third as much
    for more passes as with a text of a fourth of their length.
    """
    again = 0.08 * math.log2(passes / 2) * max(0.5, 1 + 0.25 * math.log2(size / USUAL))
    if size <= USUAL and passes > 2:
        again *= min(1.0, max(0.35, 0.35 + 0.36 * math.log2(NOVELS / words)))
    share = min(0.5, max(0.0, again + 0.045 * math.log2(NOVELS / words)))
    return round(share, 2), round(0.7 * share, 2), round(0.6 * share, 2)


def weight_decay_of(passes: float, rate: float, words: int) -> float:
    """Return AdamW's decay: more for a shorter text and for more passes; at most 0.8."""
    return round(min(0.8, 775 / (rate * words) * math.sqrt(max(passes, 1.0))), 3)


def filled_in(config: TrainConfig, words: int, passes: float | None = None) -> TrainConfig:
    """Return the configuration with its open options filled in; a list of widths leaves none open.

    words   number of words of the training part
    passes  expected number of passes of a run with a time budget, if known; more than most_passes become so many steps
    """
    if not config.window:
        return config
    config = _with(config, {"embed": 96, "hidden": 384} if words < SHORT else {"embed": 128, "hidden": 1_024})
    size = config.embed * config.widths[-1]
    config = _with(config, {"batch_size": batch_size_of(words, size)})
    steps, in_time = config.steps, config.minutes is not None
    a_pass = words / config.batch_size
    if in_time and passes is not None and passes > most_passes(words):
        config = replace(config, minutes=None, steps=math.ceil(most_passes(words) * a_pass))
        steps, in_time = config.steps, False
    if config.epochs is not None:
        passes = float(config.epochs)
    elif steps is not None:
        passes = steps / a_pass
    elif not in_time:
        passes = passes_of(words, size)
        steps = math.ceil(passes * a_pass)
    passes = passes or 1.0
    total = steps or math.ceil(passes * a_pass)
    suits: dict[str, Any] = {
        "dropout": dropout_of(passes, words, size),
        "weight_decay": weight_decay_of(passes, config.lr, words),
        "eval_every": min(LAYERS["eval_every"], max(10, total // 20)),
        "log_every": min(LAYERS["log_every"], max(5, total // 100)),
        "sample_every": min(LAYERS["sample_every"], max(20, total // 4)),
        "patience": PATIENCE,
        "counts": words <= MOST_COUNTED,
    }
    if not in_time and config.epochs is None:
        suits["steps"] = steps
    return _with(config, suits)


def _with(config: TrainConfig, suits: dict[str, Any]) -> TrainConfig:
    """Return the configuration with these values for the options that are open."""
    return replace(config, **{name: value for name, value in suits.items() if getattr(config, name) is None})
