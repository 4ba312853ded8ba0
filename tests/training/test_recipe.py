"""What suits a text is filled in where it is left open."""

import dataclasses
import math
from itertools import pairwise
from typing import Any

import pytest

from fastmlp.config import TrainConfig
from fastmlp.training.recipe import SHORT, filled_in

BUDGETS = ("steps", "epochs", "minutes")
MAY_BE_OPEN = {"out", "rules", "vocab_size", "val_file", "warmup", "save_every", "threads", *BUDGETS}
OF_THE_TEXT: dict[str, Any] = {
    **{"embed": 11, "hidden": 13, "batch_size": 17, "dropout": (0.0, 0.0, 0.6), "weight_decay": 0.0, "patience": 0},
    **{"counts": False},
    **{"eval_every": 3, "log_every": 4, "sample_every": 5},
}
SMALL, LARGE = {"embed": 128, "hidden": 512}, {"embed": 256, "hidden": 1_024}
LENGTHS = (2, 500, SHORT - 1, SHORT, 341_500, 2_000_000, 50_000_000)


def open_options(config: TrainConfig) -> set[str]:
    return {field.name for field in dataclasses.fields(config) if getattr(config, field.name) is None}


@pytest.mark.parametrize("words", LENGTHS)
@pytest.mark.parametrize("budget", [{}, {"steps": 7}, {"epochs": 2}, {"minutes": 0.5}], ids=str)
def test_nothing_is_left_open(budget: dict[str, Any], words: int) -> None:
    config = filled_in(TrainConfig(**budget), words, 1.5 if "minutes" in budget else None)
    assert open_options(config) <= MAY_BE_OPEN
    assert [name for name in BUDGETS if getattr(config, name) is not None] == [*budget, "steps"][:1]
    assert {name: getattr(config, name) for name in budget} == budget
    assert filled_in(config, words, 1.5) == config
    assert open_options(TrainConfig(**budget)) > set(OF_THE_TEXT)  # here it was


@pytest.mark.parametrize("name", OF_THE_TEXT)
def test_what_is_said_stays(name: str) -> None:
    given = {name: OF_THE_TEXT[name]}
    for words in LENGTHS:
        assert getattr(filled_in(TrainConfig(**given), words), name) == given[name]


def test_the_rest_is_left_alone() -> None:
    config = TrainConfig(lr=0.1, context=2, blocks=3, seed=9, epochs=2, vocab_size=500, warmup=5)
    changed = dataclasses.asdict(filled_in(config, 10_000))
    assert {name for name, value in dataclasses.asdict(config).items() if changed[name] != value} == set(OF_THE_TEXT)
    of_rule = filled_in(TrainConfig(optimizer="momentum"), 10_000)
    assert of_rule.weight_decay == 0


def test_a_list_of_widths_leaves_nothing_open() -> None:
    config = TrainConfig(hidden=(300, 300))
    assert open_options(config) <= MAY_BE_OPEN
    for words in LENGTHS:
        assert filled_in(config, words) is config


def test_batches_grow_with_the_text() -> None:
    """Some 400 a pass."""
    for size, sizes in ((SMALL, (128, 128, 256, 512, 512)), (LARGE, (128, 128, 256, 512, 1_024))):
        found = [filled_in(TrainConfig(**size), words) for words in (2, 50_000, 100_000, 200_000, 10**7)]
        assert tuple(config.batch_size for config in found) == sizes


def test_a_short_text_has_a_smaller_network() -> None:
    short, long = (filled_in(TrainConfig(), words) for words in (SHORT - 1, SHORT))
    assert (short.embed, short.hidden, short.batch_size) == (96, 384, 512)
    assert (long.embed, long.hidden, long.batch_size) == (128, 1_024, 512)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=str)
def test_a_shorter_text_has_more_passes_more_dropout_and_more_decay(size: dict[str, Any]) -> None:
    lengths = (10_000, 30_000, 150_000, 600_000, 2_400_000, 9_600_000)
    found = [filled_in(TrainConfig(**size, batch_size=512), words) for words in lengths]
    passes = [config.steps * 512 / words for config, words in zip(found, lengths, strict=True)]
    assert passes[0] > passes[-1]
    for (shorter, more), (longer, fewer) in pairwise(zip(found, passes, strict=True)):
        assert more > fewer * 0.99  # a whole number of batches
        assert shorter.weight_decay >= longer.weight_decay
        assert all(share >= other for share, other in zip(shorter.dropout, longer.dropout, strict=True))
    assert found[0].dropout > found[-1].dropout == (0, 0, 0)
    assert found[1].weight_decay > found[-1].weight_decay > 0
    at_least_once = [config.steps * 512 >= words for config, words in zip(found, lengths, strict=True)]
    assert all(at_least_once)


def test_more_passes_have_more_dropout_however_they_are_asked_for() -> None:
    words, a_pass = 409_600, 800
    by_epochs = [filled_in(TrainConfig(epochs=passes), words) for passes in (1, 2, 4, 8, 16, 64)]
    for fewer, more in pairwise(by_epochs[:-1]):
        assert all(share > other for share, other in zip(more.dropout, fewer.dropout, strict=True))
    assert max(by_epochs[-1].dropout) <= 0.5
    for config in by_epochs:
        by_steps = filled_in(TrainConfig(steps=config.epochs * a_pass), words)
        assert by_steps.dropout == config.dropout
        assert by_steps.eval_every == config.eval_every
        in_time = filled_in(TrainConfig(minutes=5), words, float(config.epochs))
        if in_time.minutes is not None:
            assert in_time.dropout == config.dropout
            assert in_time.eval_every == config.eval_every
    assert filled_in(TrainConfig(minutes=5), words).dropout == by_epochs[0].dropout  # nothing known: once


def test_a_time_budget_beyond_what_a_short_text_is_good_for_becomes_steps() -> None:
    for words, most in ((10_000, 3.5), (200_000, 7), (100_000_000, 40)):
        within, beyond = (filled_in(TrainConfig(minutes=5), words, passes) for passes in (most, most + 0.1))
        assert (within.minutes, within.steps) == (5, None)
        assert beyond.minutes is None
        assert beyond.steps * beyond.batch_size == pytest.approx(most * words, abs=beyond.batch_size)


def test_a_large_network_has_more_passes_and_more_dropout() -> None:
    small, large = (filled_in(TrainConfig(**size), 341_500) for size in (SMALL, LARGE))
    assert small.steps * small.batch_size < large.steps * large.batch_size
    assert small.dropout < large.dropout
    small, large = (filled_in(TrainConfig(**size, epochs=3), 341_500) for size in (SMALL, LARGE))
    assert small.dropout < large.dropout


def test_a_long_text_that_is_read_often_has_little_dropout() -> None:
    """Ten passes over novels: a perplexity of 66.7 with shares of .07 .05 .04, 70.5 with .18 .13 .11."""
    novels, quarter = (
        filled_in(TrainConfig(embed=128, hidden=1_024, epochs=10), words) for words in (1_280_000, 320_000)
    )
    assert 0.05 < novels.dropout[0] < 0.08
    assert 0.2 < quarter.dropout[0] < 0.3


def test_all_shares_can_be_used() -> None:
    for words in LENGTHS:
        for epochs in (1, 10, 1_000_000):
            config = filled_in(TrainConfig(epochs=epochs, **LARGE), words)
            assert all(0 <= share <= 0.5 for share in config.dropout)
            assert 0 <= config.weight_decay <= 4
            assert config.lr * config.weight_decay < 1  # a step shrinks a weight, and does not turn it round


def test_a_run_is_looked_at_twenty_times_and_a_long_one_more_often() -> None:
    for steps, every in ((10, (10, 5, 20)), (2_000, (100, 20, 500)), (10**6, (1_000, 100, 2_500))):
        config = filled_in(TrainConfig(steps=steps), 341_500)
        assert (config.eval_every, config.log_every, config.sample_every) == every
    epochs = filled_in(TrainConfig(epochs=3), 341_500)
    assert epochs.eval_every == math.ceil(3 * 341_500 / 512) // 20


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, {"steps": 1_758, "dropout": (0.11, 0.08, 0.07), "weight_decay": 0.737}),
        (LARGE, {"steps": 2_001, "dropout": (0.24, 0.17, 0.14), "weight_decay": 0.8}),
    ],
)
def test_what_suits_the_documentation_of_the_standard_library_is_known(options: Any, want: dict[str, Any]) -> None:
    """Who changes the recipe says so here, and has measured."""
    config = filled_in(TrainConfig(**options), 341_500)
    assert {name: getattr(config, name) for name in want} == want


def test_a_text_of_more_than_20_million_words_is_counted_on_request_only() -> None:
    most = 20_000_000
    assert [filled_in(TrainConfig(), words).counts for words in (2, most, most + 1)] == [True, True, False]
    assert filled_in(TrainConfig(counts=True), most + 1).counts is True
