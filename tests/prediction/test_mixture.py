"""The mixture of network, counts and cache: probabilities, weights, files."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from fastmlp.errors import ModelError
from fastmlp.files import checkpoint
from fastmlp.language_model import LanguageModel
from fastmlp.ops import Ops
from fastmlp.prediction.cache import Cache
from fastmlp.prediction.kneser_ney import KneserNey
from fastmlp.prediction.mixture import (
    COUNTED,
    PREDICTORS,
    Mixture,
    Predictions,
    fit_mixture,
    fitted_weights,
    load_mixture,
)
from fastmlp.prediction.neural import NeuralModel
from tests.helpers import NUMPY
from tests.networks import small_language
from tests.prediction.helpers import WINDOW, fitted
from tests.runs import learnable_text

Array = np.ndarray
KNOWN = 8  # words of small_language without <unk>


def some_ids(rng: np.random.Generator, count: int) -> Array:
    """A text in which some words come together often, some never."""
    return np.minimum(rng.geometric(0.4, count) - 1, KNOWN - 1).astype(np.int32)


def some_mixture(rng: np.random.Generator, ops: Ops = NUMPY) -> Mixture:
    network = small_language(rng, ops)
    counts = KneserNey.of(some_ids(rng, 400), network.vocabulary, network.tokenizer, order=3)
    names = [names for size in (2, 3) for names in itertools.combinations(PREDICTORS, size)]
    weights = {each: rng.dirichlet(np.ones(len(each)), len(COUNTED) + 1) for each in names}
    return Mixture(network, counts, Cache(7, 0.3), weights)


CHOICES = [("network",), ("counts",), ("network", "counts"), ("network", "cache"), ("counts", "cache"), PREDICTORS]


@pytest.mark.parametrize("names", CHOICES, ids="+".join)
def test_a_text_and_word_by_word_agree(ops: Ops, rng: np.random.Generator, names: tuple[str, ...]) -> None:
    mixture, ids, before = some_mixture(rng, ops).only(*names), some_ids(rng, 60), some_ids(rng, 0)
    found, cursor = mixture.log_probabilities(ids, before), mixture.cursor(before.tolist())
    for here, word in enumerate(ids.tolist()):
        logits = cursor.logits()
        logits = logits - np.log(np.exp(logits.astype(float)).sum())
        assert logits[word] == pytest.approx(found[here], abs=2e-6 if ops.precision_to_evaluate() == "ieee" else 1e-4)
        cursor.add(word)


@pytest.mark.parametrize("names", CHOICES, ids="+".join)
def test_a_copied_cursor_and_its_original_go_their_own_ways(rng: np.random.Generator, names: tuple[str, ...]) -> None:
    mixture = some_mixture(rng).only(*names)
    cursor = mixture.cursor([1, 2, 3])
    cursor.copy().add(4)
    np.testing.assert_array_equal(cursor.logits(), mixture.cursor([1, 2, 3]).logits())
    other = cursor.copy()
    cursor.add(5)
    other.add(6)
    np.testing.assert_array_equal(cursor.logits(), mixture.cursor([1, 2, 3, 5]).logits())
    np.testing.assert_array_equal(other.logits(), mixture.cursor([1, 2, 3, 6]).logits())


def test_the_probability_is_the_weighted_sum(rng: np.random.Generator) -> None:
    mixture, ids, before = some_mixture(rng), some_ids(rng, 50), some_ids(rng, 9)
    each = [mixture.only(name).log_probabilities(ids, before) for name in ("network", "counts")]
    assert mixture.counts is not None
    for here, count in enumerate(mixture.counts.context_counts(ids, before)):
        bucket = sum(count >= first for first in COUNTED)
        weights = mixture.weights["network", "counts"][bucket]
        want = math.log(sum(weight * math.exp(found[here]) for weight, found in zip(weights, each, strict=True)))
        mixed = mixture.only("network", "counts").log_probabilities(ids, before)
        assert mixed[here] == pytest.approx(want, abs=2e-6)


def test_where_the_cache_is_empty_the_others_share_its_weight(rng: np.random.Generator) -> None:
    mixture, ids, nothing = some_mixture(rng), some_ids(rng, 1), some_ids(rng, 0)
    network, counts = (math.exp(mixture.only(name).log_probabilities(ids, nothing)[0]) for name in PREDICTORS[:2])
    a, b, _ = mixture.weights[PREDICTORS][0]
    assert math.exp(mixture.log_probabilities(ids, nothing)[0]) == pytest.approx((a * network + b * counts) / (a + b))


def test_tiny_probabilities_are_mixed_without_underflow() -> None:
    found = Predictions(("network", "counts"), np.array([[-500, -1], [-501, -np.inf]], np.float32), np.zeros(2, int))
    mixed = found.mixed({("network", "counts"): np.full((len(COUNTED) + 1, 2), 0.5)})
    np.testing.assert_allclose(mixed, [-500 + math.log((1 + math.exp(-1)) / 2), -1 + math.log(0.5)], rtol=1e-6)


def test_documents_reset_the_cache_alone(rng: np.random.Generator) -> None:
    mixture, ids, nothing = some_mixture(rng), some_ids(rng, 1_200), some_ids(rng, 0)
    begins = [0, 300, 700]  # the network reads 512 words at once
    found = mixture.predictions(ids, nothing, documents=begins)
    each = np.split(ids, begins[1:])
    alone = [mixture.predictions(part, nothing).of("cache").log_probabilities for part in each]
    vectors_differ = 12  # where the network still sees the document before, so the votes are others
    for begin, part in zip(begins, alone, strict=True):
        assert np.isnan(found.of("cache").log_probabilities[0, begin])
        assert np.isnan(part[0, 0])
        silent = np.isneginf(part[0, vectors_differ : vectors_differ + 100])  # words that are not remembered
        there = found.of("cache").log_probabilities[0, begin + vectors_differ : begin + vectors_differ + 100]
        np.testing.assert_array_equal(np.isneginf(there), silent)
    of_all = mixture.predictions(ids, nothing)
    np.testing.assert_array_equal(of_all.of("network").log_probabilities, found.of("network").log_probabilities)


def test_a_prompt_is_remembered(rng: np.random.Generator) -> None:
    mixture = some_mixture(rng)
    prompt = some_ids(rng, 30).tolist()
    at_once, word_by_word = mixture.cursor(prompt), mixture.cursor([])
    for word in prompt:
        word_by_word.add(word)
    np.testing.assert_allclose(at_once.logits(), word_by_word.logits(), rtol=1e-5, atol=1e-5)


def test_shares_add_up(rng: np.random.Generator) -> None:
    cursor = some_mixture(rng).cursor(some_ids(rng, 20).tolist())
    shares = cursor.shares()
    assert tuple(shares) == PREDICTORS
    assert sum(share.sum(dtype=float) for share in shares.values()) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(np.log(sum(shares.values())), cursor.logits(), rtol=1e-6)


def test_weights_by_hand_hold_in_every_context(rng: np.random.Generator) -> None:
    mixture, ids, before = some_mixture(rng), some_ids(rng, 40), some_ids(rng, 5)
    alone = mixture.weighted(0, 5, 0)
    np.testing.assert_allclose(
        alone.log_probabilities(ids, before), mixture.only("counts").log_probabilities(ids, before), atol=1e-6
    )


# --------------------------------------------------------------------------------------------------------- the weights


def drawn(rng: np.random.Generator, words: int) -> Predictions:
    """Words of which each is predicted well by one of two predictors: 70 % by the first, of frequent contexts 20 %."""
    counted = rng.integers(0, len(COUNTED) + 1, words)
    first = rng.random(words) < np.where(counted == len(COUNTED), 0.2, 0.7)
    good, bad = math.log(0.9), math.log(0.001)
    told = np.array([np.where(first, good, bad), np.where(first, bad, good)], np.float32)
    return Predictions(("network", "counts"), told, counted)


def test_the_weights_are_those_of_the_words(rng: np.random.Generator) -> None:
    weights = fitted_weights(drawn(rng, 20_000))["network", "counts"]
    np.testing.assert_allclose(weights[:, 0], [0.7, 0.7, 0.7, 0.2], atol=0.02)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_no_other_weights_are_better(rng: np.random.Generator) -> None:
    found = drawn(rng, 20_000)
    weights = fitted_weights(found)
    best = found.mixed(weights).mean(dtype=float)
    for bucket, change in itertools.product(range(len(COUNTED) + 1), (-0.03, 0.03)):
        other = weights["network", "counts"].copy()
        other[bucket] += [change, -change]
        assert found.mixed({("network", "counts"): other}).mean(dtype=float) < best


def test_words_where_the_cache_is_silent_say_nothing_of_its_weight(rng: np.random.Generator) -> None:
    found = drawn(rng, 2_000)
    told = found.log_probabilities.copy()
    silent = Predictions(("network", "cache"), np.hstack([told, [[0.0] * 500, [np.nan] * 500]]), np.tile(0, 2_500))
    heard = Predictions(("network", "cache"), told, np.tile(0, 2_000))
    assert fitted_weights(silent)["network", "cache"].tolist() == fitted_weights(heard)["network", "cache"].tolist()


def test_few_words_hardly_move_the_weights_of_a_context(rng: np.random.Generator) -> None:
    found = drawn(rng, 3_000)
    found.counted[:] = 0
    found.counted[np.flatnonzero(found.log_probabilities[0] < -1)[:3]] = 2  # three words that the first did not expect
    weights = fitted_weights(found)["network", "counts"]
    assert abs(weights[2, 0] - weights[0, 0]) < 0.05


def test_the_mixture_is_fitted_to_the_first_words_alone(rng: np.random.Generator) -> None:
    language, ids, nothing = small_language(rng, NUMPY), some_ids(rng, 600), some_ids(rng, 0)
    counts = KneserNey.of(some_ids(rng, 400), language.vocabulary, language.tokenizer, order=3)
    mixture, found = fit_mixture(language, counts, ids, nothing, 300)
    other = ids.copy()
    other[300:] = rng.integers(0, KNOWN, 300)
    again, _ = fit_mixture(language, counts, other, nothing, 300)
    assert again.metadata() == mixture.metadata()
    assert found.log_probabilities.shape == (3, 600)
    first, last = found[:300], found[300:]
    alone = max(first.of(name).mixed({}).mean(dtype=float) for name in ("network", "counts"))
    assert first.mixed(mixture.weights).mean(dtype=float) >= alone - 0.01
    assert np.isfinite(last.mixed(mixture.weights)).all()


@pytest.mark.parametrize("words", [1, 2, 5])
def test_a_few_words_are_enough(rng: np.random.Generator, words: int) -> None:
    language, nothing = small_language(rng, NUMPY), some_ids(rng, 0)
    counts = KneserNey.of(some_ids(rng, 50), language.vocabulary, language.tokenizer)
    mixture, found = fit_mixture(language, counts, some_ids(rng, words), nothing, (words + 1) // 2)
    assert np.isfinite(found.mixed(mixture.weights)).all()


def test_without_a_network_the_cache_counts_words(rng: np.random.Generator) -> None:
    language, ids, nothing = small_language(rng, NUMPY), some_ids(rng, 300), some_ids(rng, 0)
    counts = KneserNey.of(ids, language.vocabulary, language.tokenizer)
    mixture, found = fit_mixture(None, counts, ids, nothing, 150)
    assert found.names == ("counts", "cache")
    assert mixture.cache is not None
    assert mixture.cache.sharpness == 0
    assert mixture.cursor(ids.tolist()).logits().shape == (KNOWN + 1,)
    with pytest.raises(ValueError, match="network or counts"):
        Mixture(None)


# ------------------------------------------------------------------------------------------------------- LanguageModel


@pytest.fixture(scope="module")
def mixed() -> LanguageModel:
    return fitted(WINDOW, steps=60, patience=0)


def test_by_default_all_predict(mixed: LanguageModel) -> None:
    text = learnable_text(40)
    whole, network = mixed.perplexity(text), mixed.perplexity(text, mixture=False)
    assert whole == mixed.evaluate(text).perplexity == mixed.perplexity(text, mixture=PREDICTORS)
    assert mixed.perplexity(text, mixture="network") == network != whole
    assert mixed.perplexity(text, mixture=("network", "counts")) not in (whole, network)
    assert whole < network
    assert mixed.generate("anna", 5, temperature=0, mixture="counts").startswith("anna paints a red door")
    alone = dict(mixed.next_word("anna paints", k=None, mixture=False))
    assert alone != dict(mixed.next_word("anna paints", k=None))


def test_each_predictor_has_its_share(mixed: LanguageModel) -> None:
    shares = mixed.next_word_by_predictor("anna paints a", k=3)
    for (word, parts), (same, probability) in zip(shares, mixed.next_word("anna paints a", k=3), strict=True):
        assert word == same
        assert parts.keys() == set(PREDICTORS)
        assert sum(parts.values()) == pytest.approx(probability, rel=1e-5)


@pytest.mark.parametrize("names", ["cash", (), ("network", "count")])
def test_what_a_model_has_not_is_refused(mixed: LanguageModel, names: str | tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="mixture: expected some of network, counts, cache, which this model has"):
        mixed.perplexity("anna", mixture=names)
    without = fitted(WINDOW, steps=5, counts=False)
    with pytest.raises(ValueError, match="expected some of network, which"):
        without.perplexity("anna", mixture="counts")


def test_a_saved_model_has_its_counts_unless_they_are_left_out(mixed: LanguageModel, tmp_path: Path) -> None:
    text, file = learnable_text(40), tmp_path / "model.safetensors"
    mixed.save(file)
    assert LanguageModel.load(file, backend="numpy").perplexity(text) == mixed.perplexity(text)
    size = file.stat().st_size
    mixed.save(file, counts=False)
    bare = LanguageModel.load(file, backend="numpy")
    assert not any("counts" in name for name in checkpoint.load(file)[0])
    assert file.stat().st_size < size
    assert bare.perplexity(text, mixture=("network", "cache")) == mixed.perplexity(text, mixture=("network", "cache"))
    assert bare.perplexity(text, mixture=False) == mixed.perplexity(text, mixture=False)


def test_the_counts_of_another_model_are_refused(mixed: LanguageModel, tmp_path: Path) -> None:
    other: NeuralModel = small_language(np.random.default_rng(0), NUMPY)
    file = tmp_path / "mixture.safetensors"
    whole = mixed._whole()
    checkpoint.save(file, whole.tensors(), {"kind": "mixture", **whole.metadata()})
    assert load_mixture(file, mixed._parts()).weights.keys() == whole.weights.keys()
    with pytest.raises(ModelError, match="does not belong to this model"):
        load_mixture(file, other)
    checkpoint.save(file, {}, {"kind": "else"})
    with pytest.raises(ModelError, match="it holds no mixture"):
        load_mixture(file, mixed._parts())


def test_what_is_written_hears_nothing_of_itself(mixed: LanguageModel) -> None:
    """By default, since a cache of drawn words repeats them; True asks for all."""
    written = mixed.generate("anna paints", 40, seed=1)
    assert written == mixed.generate("anna paints", 40, seed=1, mixture=("network", "counts"))
    assert written != mixed.generate("anna paints", 40, seed=1, mixture=True)
    bare = fitted(WINDOW, steps=5, counts=False)
    assert bare.generate("anna", 5, seed=1) == bare.generate("anna", 5, seed=1, mixture=False)
