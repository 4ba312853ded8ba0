"""The task of all training benchmarks, the description's network on one text, and the batch sizes of all benchmarks.

A run shows the smaller sizes, in minutes; with --long all.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.text import Text
from tests.inputs import REAL

RARE = 10**9  # steps between actions that a timing should not include
BATCH_SIZES = (32, 128, 512)


def taking_part(sizes: Sequence[int], *, long: bool) -> list[int]:
    """Return the batch sizes of a run; the largest take most of the time."""
    return [B for B in sizes if long or B <= 128]


def batch_sizes_of(*sizes: int) -> pytest.MarkDecorator:
    """Parametrize a benchmark by these sizes."""
    usual = taking_part(sizes, long=False)
    marked = [pytest.param(B, marks=() if B in usual else pytest.mark.long, id=f"B={B}") for B in sizes]
    return pytest.mark.parametrize("B", marked)


batch_sizes = batch_sizes_of(*BATCH_SIZES)


def config(**options: Any) -> TrainConfig:
    """Return a configuration for SGD at the description's sizes, without work between the steps."""
    quiet = dict.fromkeys(("eval_every", "log_every", "sample_every", "save_every"), RARE)
    # The rate is so high that a few losses show whether a contender trains.
    sgd = {"optimizer": "sgd", "lr": 0.5, "schedule": "constant", "warmup": 0}
    text = {"tokenizer": "whitespace", "val_fraction": 0, "hidden": (300, 300)}
    return TrainConfig.layered({**quiet, **sgd, **text, "steps": RARE}, options)


def text(config: TrainConfig) -> Text | None:
    """Return a text with the description's vocabulary.

    None if the configuration names a real text, which is then read.
    """
    return Text(" ".join(words_of_a_text(5 * REAL.V)), ()) if config.tokenizer == "whitespace" else None


def words_of_a_text(count: int) -> list[str]:
    """Return each word once, then words drawn by Zipf's law: the r-th most frequent 1 / r as often as the first."""
    words = np.arange(REAL.V - 1)  # the last of the vocabulary is <unk>, which is not in the text
    drawn = np.random.default_rng(2003).choice(words, count, p=1 / (words + 1) / np.sum(1 / (words + 1)))
    return [f"w{word}" for word in (*words, *drawn)]
