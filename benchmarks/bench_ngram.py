"""Kneser-Ney: counting a text as long as six novels, reading another, the next word, and the model's file.

On words drawn by Zipf's law, which has more different n-grams than prose, or with `--text` on FILE.
"""

from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import setting
from fastmlp import KneserNey
from fastmlp.text import Vocabulary, get_tokenizer, read_text

WORDS = 1_350_000  # that are counted
READ = 67_000  # words of the text that is read: 5 % of six novels
ORDERS = pytest.mark.parametrize("order", [3, 5, 8])


@pytest.fixture(scope="session")
def model(pytestconfig: pytest.Config, smoke: bool) -> KneserNey:
    """Return the model of the text but its end."""
    tokenizer = get_tokenizer("words")
    if given := pytestconfig.getoption("text"):
        words = tokenizer.split(read_text([given]).text)
    else:
        words = setting.words_of_a_text(READ if smoke else WORDS)
    vocabulary = Vocabulary.from_words(words)
    return KneserNey.of(vocabulary.encode(words), vocabulary, tokenizer)


@pytest.fixture
def clock(benchmark: Any, smoke: bool) -> Callable[..., None]:
    """Time a call; `words` are those of one call, for the speed."""

    def clock(group: str, call: Callable[[], object], words: int = 1, rounds: int = 5) -> None:
        benchmark.group = group
        benchmark.pedantic(call, rounds=1 if smoke else rounds, warmup_rounds=0 if smoke else 1)
        benchmark.extra_info["words_per_second"] = words / benchmark.stats.stats.median

    return clock


@ORDERS
def bench_counting(clock: Callable[..., None], model: KneserNey, order: int) -> None:
    ids = model.training_ids
    assert ids is not None
    clock("counting a text", partial(KneserNey.of, ids, model.vocabulary, model.tokenizer, order=order), len(ids))


@pytest.mark.parametrize("what", ["log_probabilities", "context_counts"])
def bench_reading(clock: Callable[..., None], model: KneserNey, what: str) -> None:
    """On words in another order than those that were counted: most contexts of more than two words are new."""
    ids = model.training_ids
    assert ids is not None
    text = np.concatenate(np.array_split(ids[-READ:], READ // 4)[::-1])
    clock("reading a text", partial(getattr(model, what), text, ids[:100]), len(text))


@pytest.mark.parametrize("what", ["probabilities", "logits"])
def bench_next_word(clock: Callable[..., None], model: KneserNey, what: str) -> None:
    ids = model.training_ids
    assert ids is not None
    place, words = model.cursor(), cycle(ids[:10_000].tolist())

    def next_word() -> None:
        place.add(next(words))
        getattr(place, what)()

    clock(f"the next word of {len(model.vocabulary):,}", next_word, rounds=1_000)


def bench_loading(clock: Callable[..., None], model: KneserNey, tmp_path: Path) -> None:
    model.save(tmp_path / "kn.safetensors")
    clock("loading a file", partial(KneserNey.load, tmp_path / "kn.safetensors"))
