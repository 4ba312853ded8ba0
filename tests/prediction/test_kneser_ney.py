"""Kneser-Ney: its probabilities are those of the definition, its perplexities the published ones."""

import copy
import math
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastmlp
from fastmlp import KneserNey
from fastmlp.errors import CheckpointError, ModelError, NotTrainedError, TextError
from fastmlp.prediction import kneser_ney
from fastmlp.prediction.generation import complete, random_numbers, softmax
from fastmlp.prediction.kneser_ney import FALLBACK, discounts, estimate
from fastmlp.text import IDS, Vocabulary, get_tokenizer
from tests.prediction.slow_kneser_ney import SlowKneserNey
from tests.runs import learnable_text
from tests.text.helpers import CORPORA, WHITESPACE

WORDS = 6
TEXTS = st.lists(
    st.integers(0, WORDS),  # `<unk>` too
    min_size=1,
    max_size=80,
)
CONTEXTS = st.lists(st.integers(0, WORDS), max_size=9)
ORDERS = st.integers(1, 8)


def fitted(text: list[int], order: int, words: int = WORDS) -> KneserNey:
    return KneserNey.of(np.array(text), Vocabulary.of_ids(words), WHITESPACE, order=order)


def uneven_text(rng: np.random.Generator, length: int, words: int = WORDS) -> list[int]:
    """Return a text with frequent and rare words."""
    return np.minimum(rng.zipf(1.5, length) - 1, words - 1).tolist()  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------------------------- the probabilities


@given(TEXTS, ORDERS, CONTEXTS)
def test_promise_18_a_distribution_sums_to_one_and_is_that_of_the_definition(
    text: list[int], order: int, context: list[int]
) -> None:
    """In any context: seen or not, with words that never came, at the beginning of a text."""
    found = fitted(text, order).cursor(context).probabilities()
    np.testing.assert_allclose(found, SlowKneserNey(text, WORDS + 1, order).probabilities(context), rtol=2e-6)
    assert found.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert found.min() > 0


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_estimated_discounts_give_the_distribution_of_the_definition(order: int, rng: np.random.Generator) -> None:
    text = uneven_text(rng, 2_000, 60)
    slow, model = SlowKneserNey(text, 61, order), fitted(text, order, 60)
    assert [0, *FALLBACK] not in slow.discounts[max(1, order - 1) : order + 1]
    for end in (0, 1, 2, 3, 500, 1_999):
        for before in (text[:end], [*text[:end], 60], [60, *text[: end or 1]]):
            found = model.cursor(before).probabilities()
            np.testing.assert_allclose(found, slow.probabilities(before), rtol=2e-6)
            assert found.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)


@given(TEXTS, ORDERS, TEXTS, CONTEXTS)
def test_a_text_has_the_probabilities_that_a_cursor_gives_word_by_word(
    text: list[int], order: int, read: list[int], before: list[int]
) -> None:
    model = fitted(text, order)
    place = model.cursor(before)
    expected, counts = [], []
    for word in read:
        logits = place.logits()
        assert logits.dtype == np.float32
        expected.append(logits[word])
        counts.append(place.context_count())
        place.add(word)
    found = model.log_probabilities(read, before)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(model.context_counts(read, before), counts)


@given(TEXTS, st.integers(2, 6), TEXTS, CONTEXTS)
def test_contexts_are_counted_as_a_dictionary_counts_them(
    text: list[int], order: int, read: list[int], before: list[int]
) -> None:
    model, slow = fitted(text, order), SlowKneserNey(text, WORDS + 1, order)
    for length in range(order):
        found, place = model.context_counts(read, before, length=length), model.cursor(before)
        for i, word in enumerate(read):
            context = [*before, *read[:i]][max(0, len(before) + i - length) :] if length else []
            expected = slow.counts[length][tuple(context)] if length else len(text)
            expected *= len(context) == length
            assert found[i] == place.context_count(length) == expected
            place.add(word)
    np.testing.assert_array_equal(
        model.context_counts(read, before), model.context_counts(read, before, length=order - 1)
    )


def test_a_text_is_read_in_blocks_that_see_the_words_before(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    text, read = uneven_text(rng, 500), uneven_text(rng, 100)
    model = fitted(text, 5)
    whole, counts = model.log_probabilities(read, text), model.context_counts(read, text)
    for block in (1, 3, 7, 50):
        monkeypatch.setattr(kneser_ney, "BLOCK", block)
        done: list[int] = []
        np.testing.assert_array_equal(model.log_probabilities(read, text, watch=done.append), whole)
        np.testing.assert_array_equal(model.context_counts(read, text), counts)
        assert sum(done) == 100
        assert max(done) <= block


def test_nothing_to_read_is_nothing() -> None:
    model = fitted([0, 1, 2], 3)
    assert model.log_probabilities([]).shape == model.context_counts([]).shape == (0,)


def test_by_hand() -> None:
    """a b a c: the bigrams ab, ba, ac; before a came the beginning and b, before b and c a. Of 1 it takes 1/2."""
    model = KneserNey(order=2, tokenizer="whitespace").fit("a b a c")
    a, b, c, unk = model.cursor([0]).probabilities().tolist()
    assert model.vocabulary.words == ("a", "b", "c", "<unk>")
    held = (1 + 0.5 + 0.5) / 4  # discounts of 2, 1, 1
    single = [(2 - 1) / 4 + held / 4, 0.5 / 4 + held / 4, 0.5 / 4 + held / 4, held / 4]
    assert [a, b, c, unk] == pytest.approx(
        [0.5 * single[0], 0.25 + 0.5 * single[1], 0.25 + 0.5 * single[2], 0.5 * single[3]]
    )


def test_contexts_go_on_over_the_ends_of_sentences() -> None:
    model = KneserNey(order=3).fit("one two. three four. " * 20)
    assert model.next_word("two.", k=1)[0][0] == "three"
    assert model.next_word("four.", k=1)[0][0] == "one"


# -------------------------------------------------------------------------------------------------------- the discounts


def test_discounts_are_those_of_the_counts_of_counts() -> None:
    """Chen & Goodman (1999), equation 26, for n1 to n4 of 40, 20, 12, 8."""
    counts = np.repeat([0, 1, 2, 3, 4, 5, 90], [7, 40, 20, 12, 8, 3, 1])
    y = 40 / (40 + 2 * 20)
    assert discounts(counts) == pytest.approx((1 - 2 * y * 20 / 40, 2 - 3 * y * 12 / 20, 3 - 4 * y * 8 / 12))


@pytest.mark.parametrize(
    "times",
    [[0, 9, 9, 9], [9, 0, 9, 9], [9, 9, 0, 9], [10, 5, 90, 9], [9, 5, 1, 90], [2, 1, 4 / 3 * 1, 0], [0, 0, 0, 0]],
    ids=["no n1", "no n2", "no n3", "D2 below 0", "D3 below 0", "D2 of 0", "nothing"],
)
def test_short_texts_have_the_usual_discounts(times: list[float]) -> None:
    if times == [2, 1, 4 / 3 * 1, 0]:
        times = [6, 3, 4, 0]  # y = 1/2, D2 = 2 - 3/2 * 4/3 = 0: a context of counts of 2 would leave nothing for others
    assert discounts(np.repeat([1, 2, 3, 4], np.array(times, int))) == FALLBACK == (0.5, 1.0, 1.5)


def test_no_count_of_four_is_no_obstacle() -> None:
    assert discounts(np.repeat([1, 2, 3], [40, 20, 12]))[2] == 3


# ------------------------------------------------------------------------------------------------------- on real texts


@pytest.mark.parametrize(("order", "valid", "test"), [(3, 104.4, 118.0), (5, 100.6, 114.2)])
def test_the_perplexities_are_the_published_ones(order: int, valid: float, test: float) -> None:
    file = CORPORA / "barsetshire.tokens.txt"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    words = file.read_text().split()
    vocabulary = Vocabulary.from_words(words)
    ids = vocabulary.encode(words)
    ends = len(ids) * 90 // 100, len(ids) * 95 // 100
    model = KneserNey.of(ids[: ends[0]], vocabulary, WHITESPACE, order=order)
    for begin, end, expected in ((*ends, valid), (ends[1], len(ids), test)):
        losses = -model.log_probabilities(ids[begin:end], ids[:begin])
        assert math.exp(losses.mean(dtype=np.float64)) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("words", [20_000, 80_000])
@pytest.mark.parametrize("order", [3, 5, 8])
def test_promise_15_memory_is_that_of_the_formula(words: int, order: int, rng: np.random.Generator) -> None:
    """30 bytes for each word and each n-gram, half of it kept: so for any number of words, 50 million too."""
    ids = np.minimum(rng.zipf(1.2, words), 5_000).astype(np.int32) - 1
    tracemalloc.start()
    try:
        model = estimate(ids, 5_000, order)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    ngrams = sum(len(level.key) for level in model.levels)
    assert most < 30 * (words + ngrams) + 200_000
    assert kept < 20 * ngrams + 20_000


# ----------------------------------------------------------------------------------------------------- as a user has it


@pytest.fixture(scope="module")
def model() -> KneserNey:
    return KneserNey(order=4).fit(learnable_text(100))


def test_it_is_imported_when_it_is_asked_for() -> None:
    assert fastmlp.KneserNey is KneserNey
    assert "KneserNey" in dir(fastmlp)


def test_fit_returns_the_model_and_knows_the_words(model: KneserNey) -> None:
    again = KneserNey(order=4)
    assert again.fit(learnable_text(100)) is again
    assert again.vocabulary == model.vocabulary
    assert again.tokenizer is get_tokenizer("words")
    assert not again.unk_trained
    assert repr(again).startswith("KneserNey(order=4): ")
    assert repr(KneserNey(3)) == "KneserNey(order=3): not fitted"


def test_a_text_files_and_ids_give_the_same_model(model: KneserNey, tmp_path: Path) -> None:
    text = learnable_text(100)
    (tmp_path / "text.txt").write_text(text)
    ids = model.vocabulary.encode(get_tokenizer("words").split(text))
    expected = model.log_probabilities(ids)
    np.testing.assert_array_equal(KneserNey(4).fit(tmp_path / "text.txt").log_probabilities(text), expected)
    np.testing.assert_array_equal(KneserNey(4).fit([tmp_path / "text.txt"]).log_probabilities(ids), expected)
    of_ids = KneserNey(4, vocab_size=len(model.vocabulary) - 1).fit(ids.astype(np.uint8)[::1])
    np.testing.assert_array_equal(of_ids.log_probabilities(ids.tolist()), expected)
    assert of_ids.tokenizer is IDS


def test_the_callers_ids_may_change_afterwards() -> None:
    ids = np.array([0, 1, 2, 0, 1, 2])
    model = KneserNey.of(ids, Vocabulary.of_ids(3), IDS)
    before = model.log_probabilities([0, 1, 2])
    ids[:] = 0
    assert model.training_ids is not None
    assert model.training_ids.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).log_probabilities([0, 1, 2]), before)
    np.testing.assert_array_equal(copy.deepcopy(model).log_probabilities([0, 1, 2]), before)


def test_words_outside_the_vocabulary_are_left_out_and_counted() -> None:
    model = KneserNey(order=2, min_count=2).fit("to be or not to be. to be a cat.")
    assert model.unk_trained
    assert model.vocabulary.words == ("be", "to", ".", "<unk>")
    found = model.evaluate("to be a zebra.")
    assert (found.words, found.unknown) == (3, 2)
    losses = -model.log_probabilities("to be a zebra.")
    assert found.loss == pytest.approx(losses[[0, 1, 4]].mean())
    assert found.loss_with_unknown == pytest.approx(losses.mean())
    assert model.perplexity("to be a zebra.") == found.perplexity == pytest.approx(math.exp(found.loss))


def test_the_most_frequent_words_are_kept() -> None:
    model = KneserNey(order=2, vocab_size=3).fit("to be or not to be.")
    assert model.vocabulary.words == ("be", "to", "<unk>")
    assert model.unk_trained


def test_words_are_drawn_from_the_models_distribution(model: KneserNey) -> None:
    place = model.cursor(model.vocabulary.encode(["the"]).tolist())
    words = complete(model, ["the"], 5, random_numbers(3, 0), temperature=0.7)
    assert model.generate("the", 5, seed=3) == f"the {' '.join(words)}".replace(" .", ".")
    expected = softmax(np.append(place.logits()[:-1], -np.inf))
    found = dict(model.next_word("the", k=None))
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1)
    assert found == pytest.approx(dict(zip(model.vocabulary.words[:-1], expected.tolist(), strict=False)))
    assert [word for word, _ in model.next_word("the", k=3)] == list(found)[:3]
    assert "<unk>" not in model.generate("", 300, temperature=50)
    likeliest = model.generate("the", 9, temperature=0)
    assert model.generate("the", 9, top_k=1) == model.generate("the", 9, top_p=0.01) == likeliest
    assert model.generate("the", 9, temperature=50) != likeliest


def test_numbers_come_back_for_numbers() -> None:
    model = KneserNey(order=3).fit(np.tile([3, 1, 4], 50))
    assert model.generate([3], 4, temperature=0).tolist() == [3, 1, 4, 3, 1]
    assert model.next_word([3, 1], k=1)[0][0] == 4
    assert [number for number, _ in model.next_word([], k=None)] == [3, 1, 4, 0, 2]  # 3 came after 4 and nothing


def test_an_unknown_word_of_the_prompt_is_told_where_the_model_is_called(model: KneserNey) -> None:
    with pytest.warns(UserWarning, match="not in the vocabulary, read as <unk>: 'zebra'") as told:
        model.generate("the zebra", 1)
    assert told[0].filename == __file__


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.perplexity("to be"),
        lambda model: model.log_probabilities([0]),
        lambda model: model.context_counts([0]),
        lambda model: model.cursor(),
        lambda model: model.next_word("to"),
        lambda model: model.generate("to"),
        lambda model: model.vocabulary,
        lambda model: model.save("be"),
        lambda model: model.to_arpa("be"),
    ],
)
def test_before_fit_there_is_one_error(ask) -> None:
    with pytest.raises(NotTrainedError, match=r"^this KneserNey is not fitted: call its fit, or KneserNey\.load$"):
        ask(KneserNey())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 0}, "order: expected a whole number from 1 to 8, got 0"),
        ({"order": 9}, "order: expected a whole number from 1 to 8, got 9"),
        ({"order": 2.5}, "order: expected a whole number from 1 to 8, got 2.5"),
        (
            {"tokenizer": "word"},
            "tokenizer: expected one of words, prose, whitespace, got 'word'; did you mean 'words'?",
        ),
        ({"min_count": 0}, "min_count: expected a whole number of at least 1, got 0"),
        ({"vocab_size": 0}, "vocab_size: expected a whole number of at least 1, got 0"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        KneserNey(**arguments)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("", {}, TextError, "the text has no words"),
        (" ... ", {}, TextError, "the text has no words"),
        ([], {}, TextError, "the text has no words; name a longer text"),
        ([0, -1], {}, IndexError, r"text: expected ids in \[0, 1\), got -1"),
        ([0, 7], {"vocab_size": 7}, IndexError, r"text: expected ids in \[0, 7\), got 7"),
        ([0.5], {}, TypeError, "text: expected a text .* integers; got list of float64"),
        (np.zeros((2, 2), int), {}, ValueError, r"text: expected shape \(N,\), got \(2, 2\)"),
        ([0, 1], {"min_count": 2}, ValueError, "min_count: expected 1, since ids are counted, got 2"),
        ("novel.txt", {}, ValueError, "the name of a file"),
        (Path("/nonexistent/novel.txt"), {}, TextError, "/nonexistent/novel.txt"),
    ],
)
def test_texts_that_cannot_be_counted_are_refused_and_the_model_stays(text, options, error, message: str) -> None:
    model = KneserNey(**{"order": 2, **options})
    with pytest.raises(error, match=message):
        model.fit(text)
    with pytest.raises(NotTrainedError):
        model.perplexity("to be")


def test_what_is_asked_wrongly_is_refused(model: KneserNey) -> None:
    size = len(model.vocabulary)
    for text, before, error in (
        ([size], [], rf"text: expected ids in \[0, {size}\), got {size}"),
        ([0], [-1], rf"before: expected ids in \[0, {size}\), got -1"),
    ):
        with pytest.raises(IndexError, match=error):
            model.log_probabilities(text, before)
        with pytest.raises(IndexError, match=error):
            model.context_counts(text, before)
    for length in (-1, 4):
        with pytest.raises(ValueError, match=f"length: expected 0 to 3 words before the next, got {length}"):
            model.context_counts([0], length=length)
        with pytest.raises(ValueError, match=f"length: expected 0 to 3 words before the next, got {length}"):
            model.cursor().context_count(length)
    for word in (-1, size):
        with pytest.raises(IndexError, match=rf"word: expected an id in \[0, {size}\), got {word}"):
            model.cursor([word])
    with pytest.raises(TextError, match="none of its words is in the model's vocabulary"):
        model.perplexity("zebra")
    with pytest.raises(ValueError, match="temperature: expected a number of at least 0, got -1"):
        model.generate("the", temperature=-1)
    with pytest.raises(ValueError, match="k: expected a whole number of at least 1, got 0"):
        model.next_word("the", k=0)


# ------------------------------------------------------------------------------------------------------------ its files


@pytest.mark.parametrize("size", [300, (1 << 16) + 1, (1 << 16) + 2])
def test_a_file_gives_the_same_bits_and_takes_few_bytes_a_word(
    size: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    ids = [*uneven_text(rng, 3_000, 200), size - 2]
    model = KneserNey.of(np.array(ids), Vocabulary.of_ids(size - 1), IDS, order=3)
    model.save(tmp_path / "kn.safetensors")
    again = KneserNey.load(tmp_path / "kn.safetensors")
    assert (again.order, again.vocabulary, again.tokenizer) == (3, model.vocabulary, IDS)
    np.testing.assert_array_equal(again.log_probabilities(ids), model.log_probabilities(ids))
    np.testing.assert_array_equal(again.context_counts(ids), model.context_counts(ids))
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "kn.safetensors").read_bytes()
    empty = KneserNey.of(np.array(ids[:1]), Vocabulary.of_ids(size - 1), IDS, order=3)
    empty.save(tmp_path / "empty.safetensors")
    bytes_of_ids = (tmp_path / "kn.safetensors").stat().st_size - (tmp_path / "empty.safetensors").stat().st_size
    assert bytes_of_ids <= (2 if size - 2 < 1 << 16 else 4) * 3_000 + 16


def test_capitals_and_unknown_words_come_back(tmp_path: Path) -> None:
    model = KneserNey(tokenizer="prose", min_count=2).fit(
        "Mary saw Tom. Then Tom saw Mary. They saw a cat. Tom ran. " * 2 + "Ha!"
    )
    model.save(tmp_path / "kn.safetensors")
    again = KneserNey.load(tmp_path / "kn.safetensors")
    assert again.tokenizer.capitalized == model.tokenizer.capitalized != frozenset()
    assert again.unk_trained
    assert model.unk_trained


def test_files_that_are_no_such_model_are_refused(model: KneserNey, tmp_path: Path) -> None:
    file = tmp_path / "kn.safetensors"
    with pytest.raises(ModelError, match="there is no such file"):
        KneserNey.load(file)
    model.save(file)
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        KneserNey.load(file)
    network = fastmlp.LanguageModel(context=1, embed=2, hidden=(4,), backend="numpy")
    network.fit(learnable_text(20), steps=1)
    network.save(file)
    with pytest.raises(ModelError, match="it holds no Kneser-Ney model"):
        KneserNey.load(file)
    model.save(file)
    with pytest.raises(ModelError, match="it holds no language model"):
        fastmlp.LanguageModel.load(file)
    with pytest.raises(CheckpointError, match="cannot write"):
        model.save(tmp_path / "missing" / "kn.safetensors")
