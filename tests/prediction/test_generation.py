"""Text from a network: how a word is drawn, what stands before the first, and that <unk> is never written."""

import time
from dataclasses import replace
from itertools import islice, product
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from fastmlp.language_model import LanguageModel
from fastmlp.ops import Ops
from fastmlp.prediction.generation import (
    complete,
    continuation,
    describe_unknown_words,
    draw,
    drawing_probabilities,
    random_numbers,
)
from fastmlp.text import Vocabulary
from tests.helpers import NUMPY
from tests.networks import small_language

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def shares(count: int = 10_000, logits: np.ndarray = LOGITS, **options: float | int | None) -> list[float]:
    """Return how often each word is drawn."""
    rng = np.random.default_rng(1)
    drawn = [draw(logits, rng, **options) for _ in range(count)]  # type: ignore[arg-type]
    return (np.bincount(drawn, minlength=len(logits)) / count).tolist()


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        ({"temperature": 0}, [0, 1, 0, 0]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.3}, [0, 1, 0, 0]),
        ({"top_p": 0.6}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.85}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 3, "top_p": 0.6}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_words_are_drawn_as_often_as_expected(options: dict[str, float], want: list[float]) -> None:
    np.testing.assert_allclose(shares(**options), want, atol=0.02)
    np.testing.assert_allclose(drawing_probabilities(LOGITS, **options), want, atol=1e-6)  # type: ignore[arg-type]


def always(number: float) -> Any:
    """Return a generator whose numbers all equal this one."""
    return SimpleNamespace(random=lambda: number)


def drawn_from_all_sorted(logits: np.ndarray, number: float, *, top_k: int | None, top_p: float | None) -> int:
    """The definition of `draw`, without its shortcuts."""
    probabilities = np.exp(logits.astype(np.float64) - logits.max())
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    cumulative = np.cumsum(probabilities[order])
    if top_p is not None:
        order = order[: np.searchsorted(cumulative, top_p * probabilities.sum()) + 1]
    return int(order[np.searchsorted(cumulative[: len(order)], number * cumulative[len(order) - 1], side="right")])


@pytest.mark.parametrize("levels", [1, 4, 10_000], ids=["all equal", "ties", "no ties"])
def test_limits_keep_the_likeliest_words_and_of_equal_ones_the_first(levels: int, rng: np.random.Generator) -> None:
    logits = (rng.integers(0, levels, 300) * (8 / levels)).astype(np.float32)
    logits[[7, 299]] = -np.inf
    limits = list(product([None, 1, 3, 40, 299, 300, 1_000], [None, 0.01, 0.5, 0.9, 0.999, 1.0]))[1:]  # not without any
    for top_k, top_p in limits:
        for number in (0, 0.1, 0.4, 0.7, 0.95, np.nextafter(1, 0)):
            want = drawn_from_all_sorted(logits, number, top_k=top_k, top_p=top_p)
            assert draw(logits, always(number), top_k=top_k, top_p=top_p) == want


@pytest.mark.parametrize("number", [0.0, np.nextafter(1, 0)])
def test_the_ends_of_the_random_numbers_draw_words_that_may_come(number: float) -> None:
    logits = np.array([-np.inf, 0, 1, 0, -np.inf, -1e4], np.float32)
    assert draw(logits, always(number)) == (1 if number == 0 else 3)


def test_a_temperature_near_0_is_as_good_as_0_and_says_nothing() -> None:
    assert shares(10, temperature=1e-320) == shares(10, temperature=0)


def test_a_temperature_without_end_makes_all_words_equal_and_draws_none_that_may_not_come() -> None:
    logits = np.array([-np.inf, 0, 10, 20], np.float32)
    for limits in ({}, {"top_k": 3}, {"top_p": 1.0}):
        np.testing.assert_allclose(shares(logits=logits, temperature=1e40, **limits), [0, *3 * [1 / 3]], atol=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"temperature": 0.5, "top_k": 2}, {"top_p": 0.5}])
def test_scores_that_are_no_numbers_give_an_id_all_the_same(value: float, options: dict[str, float]) -> None:
    """Of weights that have grown beyond measure: training finds that in the loss of the next step."""
    assert shares(5, np.full(4, value, np.float32), **options) == [1, 0, 0, 0]


def test_where_all_words_are_excluded_they_come_all_the_same(rng: np.random.Generator) -> None:
    """One-word paragraphs, of which a small vocabulary keeps the mark between them, which may not begin a text."""
    text = "\n\n".join(f"word{number}" for number in range(40))
    language = LanguageModel(context=2, embed=4, hidden=(8,), tokenizer="prose", vocab_size=2, backend="numpy")
    language.fit(text, steps=2, batch_size=4)
    assert language.vocabulary.words == ("<p>", "<unk>")
    assert complete(language._parts(), [], 3, random_numbers(1, 0)) == ["<p>"] * 3
    assert language.next_word("", k=None) == [("<p>", 1.0)]


def test_what_may_not_come_never_comes_and_huge_logits_do_no_harm() -> None:
    assert shares(1_000, np.array([-np.inf, 1e4, -np.inf, 1e4 - 1e3], np.float32)) == [0, 1, 0, 0]


def test_unk_is_never_written_even_where_the_network_is_sure_of_it(ops: Ops, rng: np.random.Generator) -> None:
    language = small_language(rng, ops, unk_trained=True)
    language.network.parameters["output.bias"][-1] = 50
    for temperature in (0.0, 1.0, 100.0):
        words = complete(language, ["the"], 40, random_numbers(1, 0), temperature=temperature)
        assert len(words) == 40
        assert "<unk>" not in words


def test_a_text_is_a_function_of_seed_and_number(rng: np.random.Generator) -> None:
    language = small_language(rng, NUMPY)
    texts = [complete(language, ["the"], 20, random_numbers(seed, number)) for seed, number in ((1, 0), (1, 0), (1, 1))]
    assert texts[0] == texts[1] != texts[2]
    assert len({tuple(complete(language, [], 20, random_numbers(None, 0))) for _ in range(5)}) > 1


def test_a_short_prompt_is_filled_with_sentence_ends_and_a_long_one_is_cut(rng: np.random.Generator) -> None:
    language = small_language(rng, NUMPY)

    def likeliest(prompt: str) -> list[str]:
        return complete(language, prompt.split(), 10, random_numbers(1, 0), temperature=0)

    assert likeliest("cat") == likeliest(". . cat")
    assert likeliest("") == likeliest(". . .")
    assert likeliest("saw a bird and sang") == likeliest("bird and sang")
    assert likeliest("cat") != likeliest("the the cat")


def test_the_words_are_those_of_the_networks_own_probabilities(ops: Ops, rng: np.random.Generator) -> None:
    """Each greedy word is the likeliest by the logits after the last three words."""
    language = small_language(rng, ops)
    ids = [0, 1, 2]
    for _ in range(8):
        logits = language.network.logits(np.array([ids[-3:]], np.int32))[0]
        ids.append(int(logits[:-1].argmax()))
    words = complete(language, [".", "the", "cat"], 8, random_numbers(1, 0), temperature=0)
    assert words == language.vocabulary.decode(ids[3:])


def test_words_come_one_by_one_and_between_them_the_model_is_as_it_was(rng: np.random.Generator) -> None:
    language = small_language(rng, NUMPY)
    before = {name: array.copy() for name, array in language.network.state_dict().items()}
    words = continuation(language, ["zebra", "saw"], random_numbers(1, 0))
    first = next(words)
    assert all((array == before[name]).all() for name, array in language.network.state_dict().items())
    assert [first, *islice(words, 9)] == complete(language, ["zebra", "saw"], 10, random_numbers(1, 0))


def test_sampling_never_uses_batch_statistics(ops: Ops, rng: np.random.Generator) -> None:
    """The scores are those of the running statistics, which no text changes; a batch's own would make of its only row
    nothing but the bias."""
    language = small_language(rng, ops)
    network = language.network
    before = {name: array.copy() for name, array in network.statistics.items()}
    words = complete(language, ["the"], 40, random_numbers(1, 0))
    assert len(set(words)) > 1
    for name, array in network.statistics.items():
        np.testing.assert_array_equal(array, before[name])
    ids = [1, 2, 3]
    network.statistics["hidden.0.batchnorm.running_mean"][:] += 1
    moved = language.cursor(ids).logits()
    network.statistics["hidden.0.batchnorm.running_mean"][:] -= 1
    alone = language.cursor(ids).logits()
    assert np.abs(moved[:-1] - alone[:-1]).max() > 0.1
    beside_others = network.logits(np.array([[4, 5, 6], ids, [7, 0, 1]], np.int32))[1]
    np.testing.assert_allclose(alone[:-1], beside_others[:-1], rtol=1e-5, atol=1e-5)


def test_an_unknown_word_is_read_as_the_mean_of_all_others(rng: np.random.Generator) -> None:
    language = small_language(rng, NUMPY)
    embedding = language.network.parameters["embedding.weight"]
    own = embedding[-1].copy()
    embedding[-1] = embedding[:-1].mean(axis=0)
    as_it_is = replace(language, unk_trained=True)
    want = complete(as_it_is, ["zebra", "saw"], 10, random_numbers(1, 0))
    embedding[-1] = own
    assert complete(as_it_is, ["zebra", "saw"], 10, random_numbers(1, 0)) != want
    assert complete(language, ["zebra", "saw"], 10, random_numbers(1, 0)) == want
    assert (embedding[-1] == own).all()


def test_unknown_words_are_named_once_with_close_ones(rng: np.random.Generator) -> None:
    language = small_language(rng, NUMPY)
    assert describe_unknown_words(language, ["the", "cat"]) is None
    assert describe_unknown_words(language, ["cats", "zebra", "cats", "the"]) == (
        "not in the vocabulary, read as <unk>: 'cats' (close: cat), 'zebra'"
    )


def test_of_many_unknown_words_the_first_few_are_described(rng: np.random.Generator) -> None:
    language = small_language(rng, NUMPY)
    with mock.patch.object(Vocabulary, "closest", return_value=["cat"]) as closest:
        note = describe_unknown_words(language, [f"q{number}" for number in range(2_000)])
    assert closest.call_count == 5
    assert note == (
        "not in the vocabulary, read as <unk>: "
        + ", ".join(f"'q{number}' (close: cat)" for number in range(5))
        + " and 1,995 more"
    )
    long = describe_unknown_words(language, ["z" * 10_000])
    assert long == f"not in the vocabulary, read as <unk>: '{'z' * 39}…'"


def test_capitals_of_unknown_words_are_looked_up_fast(rng: np.random.Generator) -> None:
    vocabulary = Vocabulary(("Anna", "anna", "ANNA", *(f"word{number}" for number in range(30_000)), "<unk>"))
    assert (vocabulary.in_its_case("aNNa"), vocabulary.in_its_case("zebra")) == ("Anna", "zebra")
    began = time.perf_counter()
    for number in range(2_000):
        vocabulary.in_its_case(f"zebra{number}")
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("temperature", [0.1, 0.8, 0.95, 1.0, 1.05, 1.5, 20.0])
def test_the_temperature_divides_the_scores_to_three_digits(temperature: float, rng: np.random.Generator) -> None:
    """Which word a random number draws changes where the sum of softmax(logits / temperature) passes that number."""
    logits = rng.normal(size=300).astype(np.float32)
    probabilities = np.exp(logits.astype(np.float64) / temperature)
    ends = np.cumsum(probabilities / probabilities.sum())
    for word in range(300):
        if probabilities[word] / probabilities.sum() > 1e-4:
            assert draw(logits, always(ends[word] - 2e-5), temperature=temperature) == word
            assert draw(logits, always(ends[word] + 2e-5), temperature=temperature) > word


@pytest.mark.parametrize("temperature", [0.5, 0.95, 1.05, 1.5])
def test_the_limits_are_on_what_the_temperature_makes_of_the_scores(
    temperature: float, rng: np.random.Generator
) -> None:
    logits = rng.normal(size=300).astype(np.float32)
    for top_k, top_p in product([None, 3, 40], [0.2, 0.5, 0.9]):
        for number in (0.1, 0.4, 0.7, 0.95):
            want = drawn_from_all_sorted(logits / np.float64(temperature), number, top_k=top_k, top_p=top_p)
            assert draw(logits, always(number), temperature=temperature, top_k=top_k, top_p=top_p) == want
