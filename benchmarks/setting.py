"""What every contender of a training benchmark trains: the description's network on one text, batch by batch."""

from typing import Any

import numpy as np

from fastmlp.config import TrainConfig
from fastmlp.text import Text
from tests.inputs import REAL

RARE = 10**9  # steps: of what a timing shall not hold


def config(**options: Any) -> TrainConfig:
    """SGD at the description's sizes, without what a run does between its steps."""
    quiet = dict.fromkeys(("eval_every", "log_every", "sample_every", "save_every"), RARE)
    sgd = {"tokenizer": "whitespace", "val_fraction": 0, "optimizer": "sgd", "schedule": "constant", "warmup": 0}
    return TrainConfig.layered({**quiet, **sgd, "steps": RARE}, options)


def text(vocabulary: int = REAL.V) -> Text:
    """Words drawn as a text has them, the r-th most frequent 1 / r as often as the first; each comes at least once.

    vocabulary  V, with the tokenizer's <unk>, which is not in the text
    """
    words = np.arange(vocabulary - 1)
    drawn = np.random.default_rng(2003).choice(words, 5 * vocabulary, p=1 / (words + 1) / np.sum(1 / (words + 1)))
    return Text(" ".join(f"w{word}" for word in (*words, *drawn)), ())
