"""Text from a network: how a word is drawn, what stands before the first, and that <unk> is never written."""

import numpy as np
import pytest

from fastmlp.generation import complete, describe_unknown_words, draw, random_numbers
from fastmlp.language_model import LanguageModel
from fastmlp.ops import Ops
from tests.helpers import NUMPY
from tests.networks import small_language

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def shares(count: int = 20_000, logits: np.ndarray = LOGITS, **options: float | int | None) -> list[float]:
    """How often each word is drawn."""
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
    np.testing.assert_allclose(shares(**options), want, atol=0.015)


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
    """Greedy text is what the logits of the last three words say, one after the other."""
    language = small_language(rng, ops)
    ids = [0, 1, 2]
    for _ in range(8):
        logits = language.network.logits(np.array([ids[-3:]], np.int32))[0]
        ids.append(int(logits[:-1].argmax()))
    words = complete(language, [".", "the", "cat"], 8, random_numbers(1, 0), temperature=0)
    assert words == language.vocabulary.decode(ids[3:])


def test_an_unknown_word_is_read_as_the_mean_of_all_others(rng: np.random.Generator) -> None:
    language = small_language(rng, NUMPY)
    embedding = language.network.parameters["embedding.weight"]
    own = embedding[-1].copy()
    embedding[-1] = embedding[:-1].mean(axis=0)
    as_it_is = LanguageModel.from_network(language.network, language.vocabulary, language.tokenizer, unk_trained=True)
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
