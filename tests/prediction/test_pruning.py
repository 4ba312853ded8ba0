"""Pruned counts: still a distribution, the n-grams that matter most, nothing lost where all are kept."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from fastmlp import KneserNey
from fastmlp.prediction.ngram import BackoffModel
from fastmlp.prediction.pruning import pruned
from tests.runs import learnable_text


@pytest.fixture(scope="module")
def counts() -> KneserNey:
    return KneserNey(order=4).fit(learnable_text(200))


def ngrams(model: BackoffModel) -> list[set[tuple[int, ...]]]:
    """The n-grams of each length as words."""
    levels: list[list[tuple[int, ...]]] = []
    for level in model.levels:
        context, word = np.divmod(level.key, model.size)
        before = levels[-1] if levels else [()]
        levels.append([(*before[c], w) for c, w in zip(context.tolist(), word.tolist(), strict=True)])
    return [set(level) for level in levels]


@pytest.mark.parametrize("keep", [0, 1, 7, 50, 200, 10**6])
def test_probabilities_sum_to_one(counts: KneserNey, keep: int, rng: np.random.Generator) -> None:
    model = pruned(counts.backoff_model(), keep)
    assert sum(len(level.key) for level in model.levels[1:]) <= keep
    ids = counts.vocabulary.encode(learnable_text(5).replace(".", " .").split())
    random = rng.integers(0, model.size, 20)
    for before in (*(ids[:end] for end in range(30)), random):
        found = model.cursor(before.tolist()).probabilities()
        assert found.sum(dtype=np.float64) == pytest.approx(1, abs=1e-5)
        assert (found > 0).all()


def test_all_kept_is_the_same_model(counts: KneserNey) -> None:
    whole = counts.backoff_model()
    model = pruned(whole, 10**6)
    for level, want in zip(model.levels, whole.levels, strict=True):
        np.testing.assert_array_equal(level.key, want.key)
        np.testing.assert_array_equal(level.probability, want.probability)
        if want.backoff is not None and level.backoff is not None:
            np.testing.assert_allclose(level.backoff, want.backoff, rtol=1e-3, atol=1e-5)


def test_what_an_ngram_begins_and_ends_with_stays(counts: KneserNey) -> None:
    for keep in (5, 40, 150):
        model = pruned(counts.backoff_model(), keep)
        levels = ngrams(model)
        for shorter, level in pairwise(levels):
            assert {ngram[:-1] for ngram in level} | {ngram[1:] for ngram in level} <= shorter


def test_more_ngrams_predict_better(counts: KneserNey) -> None:
    text = counts.vocabulary.encode(learnable_text(30).replace(".", " .").split())
    losses = [-pruned(counts.backoff_model(), keep).log_probabilities(text).mean() for keep in (0, 20, 60, 100, 10**6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[3] - losses[4] < (losses[0] - losses[4]) / 5


def test_an_ngram_costs_how_often_it_came_times_how_much_likelier_it_makes_its_word() -> None:
    """A rare pair that is sure of its word goes before a frequent one that is less so."""
    text = "the man saw the dog and the man saw the cat and a queer bird saw the dog . " * 3 + "an odd fish ."
    model = KneserNey(order=2).fit(text)
    came = Counter(pairwise(model.vocabulary.encode(text.split()).tolist()))
    words, pairs = model.backoff_model().levels
    assert words.backoff is not None
    costs, gains = {}, {}
    for key, probability in zip(pairs.key.tolist(), pairs.probability.tolist(), strict=True):
        before, word = divmod(key, model.backoff_model().size)
        gains[before, word] = np.log(probability / (words.backoff[before] * words.probability[word]))
        costs[before, word] = came[before, word] * gains[before, word]
    ranked = sorted(costs, key=lambda pair: -costs[pair])
    assert ranked != sorted(costs, key=lambda pair: -gains[pair])
    gaps = [keep for keep in range(1, len(ranked)) if costs[ranked[keep - 1]] > costs[ranked[keep]] * 1.001]
    assert len(gaps) > 3
    for keep in gaps:  # where no two cost the same
        assert ngrams(pruned(model.backoff_model(), keep))[1] == set(ranked[:keep])


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("a b " * 9 + "c d " * 5 + "b a d c", ("a", "b")),  # as sure as the other, and more often
        ("a b a c " * 9 + "d e " * 9 + "f g h", ("d", "e")),  # as often as the other, and surer
    ],
)
def test_the_ngram_that_matters_most_is_the_last_to_go(text: str, best: tuple[str, ...]) -> None:
    model = KneserNey(order=2).fit(text)
    [ngram] = ngrams(pruned(model.backoff_model(), 1))[1]
    assert tuple(model.vocabulary.decode(ngram)) == best
