"""ARPA files: written as KenLM and SRILM read them, read as they write them; the perplexity survives."""

import re
from pathlib import Path

import numpy as np
import pytest

from fastmlp import KneserNey
from fastmlp.errors import CheckpointError, ModelError
from tests.runs import learnable_text

# a b a c: as in test_kneser_ney.py, by hand
BY_HAND = """\\data\\
ngram 1=6
ngram 2=3

\\1-grams:
-0.4259687\ta\t-0.30103
-0.60206\tb\t-0.30103
-0.60206\tc\t0
-0.90309\t<unk>\t0
-99\t<s>
-99\t</s>

\\2-grams:
-0.4259687\ta b
-0.4259687\ta c
-0.1627273\tb a

\\end\\
"""
# With a pruned model's gap (no `b c` beside `a b c`), an open vocabulary, blank lines and spaces for tabs.
FOREIGN = """made by hand

\\data\\
ngram 1=6
ngram 2=3
ngram 3=1

\\1-grams:
-0.6 <unk>
0\t<s>\t-0.3
-0.5\ta\t-0.2
-0.4\tb\t-0.1
-0.7\tc
-1.2\t</s>

\\2-grams:
-0.25\t<s> a\t-0.05
-0.3\ta b\t0.1
-0.35\tb a

\\3-grams:
-0.01\ta b c

\\end\\
what follows is not read
"""


def test_a_file_by_hand(tmp_path: Path) -> None:
    KneserNey(order=2, tokenizer="whitespace").fit("a b a c").to_arpa(tmp_path / "abac.arpa")
    assert (tmp_path / "abac.arpa").read_text() == BY_HAND


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
def test_the_perplexity_survives(order: int, tmp_path: Path) -> None:
    text, other = learnable_text(100), learnable_text(200)[3_000:]
    model = KneserNey(order).fit(text)
    model.to_arpa(tmp_path / "kn.arpa")
    again = KneserNey.from_arpa(tmp_path / "kn.arpa", tokenizer="words")
    assert (again.order, again.vocabulary) == (order, model.vocabulary)
    assert again.unk_trained is True  # `<unk>` has a probability
    np.testing.assert_allclose(again.log_probabilities(other), model.log_probabilities(other), rtol=1e-5)
    assert again.perplexity(other) == pytest.approx(model.perplexity(other), abs=1e-4)
    assert again.generate("anna", 20, seed=1) == model.generate("anna", 20, seed=1)
    again.to_arpa(tmp_path / "again.arpa")
    assert (tmp_path / "again.arpa").read_text().splitlines()[:9] == (tmp_path / "kn.arpa").read_text().splitlines()[:9]


def test_a_model_that_was_read_is_saved_whole_and_has_no_counts(tmp_path: Path) -> None:
    KneserNey(3).fit(learnable_text(50)).to_arpa(tmp_path / "kn.arpa")
    model = KneserNey.from_arpa(tmp_path / "kn.arpa", tokenizer="words")
    model.save(tmp_path / "kn.safetensors")
    again = KneserNey.load(tmp_path / "kn.safetensors")
    text = learnable_text(60)
    assert again.order == 3
    assert again.training_ids is None
    np.testing.assert_array_equal(again.log_probabilities(text), model.log_probabilities(text))
    for counts in (lambda: again.context_counts(text), lambda: again.cursor().context_count(0)):
        with pytest.raises(ModelError, match="from an ARPA file, which holds no counts"):
            counts()


def log10_of(model: KneserNey, text: str, before: str = "") -> list[float]:
    ids = model.vocabulary.encode(before.split())
    return (model.log_probabilities(text, ids) / np.log(10)).tolist()  # type: ignore[no-any-return]


def test_files_of_other_programs(tmp_path: Path) -> None:
    (tmp_path / "foreign.arpa").write_text(FOREIGN)
    model = KneserNey.from_arpa(tmp_path / "foreign.arpa")
    assert model.order == 3
    assert model.vocabulary.words == ("<s>", "a", "b", "c", "</s>", "<unk>")
    assert log10_of(model, "a b c a") == pytest.approx([-0.5, -0.3, -0.01, -0.5], abs=1e-6)
    assert log10_of(model, "a b a", "<s>") == pytest.approx([-0.25, -0.05 - 0.3, 0.1 - 0.35], abs=1e-6)
    assert log10_of(model, "b c") == pytest.approx([-0.4, -0.1 - 0.7], abs=1e-6)
    assert log10_of(model, "</s>") == pytest.approx([-1.2], abs=1e-6)
    assert log10_of(model, "zebra") == pytest.approx([-0.6], abs=1e-6)
    assert log10_of(model, "<s>")[0] < -30  # never predicted, though the file says 0
    place = model.cursor(model.vocabulary.encode(["a", "b"]).tolist())
    expected = [log10_of(model, word, "a b")[0] for word in model.vocabulary.words]
    np.testing.assert_allclose(place.logits() / np.log(10), expected, rtol=1e-5)


def test_a_closed_vocabulary_gets_unk_and_never_predicts_it(tmp_path: Path) -> None:
    file = tmp_path / "closed.arpa"
    file.write_text("\\data\\\nngram 1=2\n\\1-grams:\n-0.30103 a\n-0.30103 b\n\\end\\\n")
    model = KneserNey.from_arpa(file)
    assert model.vocabulary.words == ("a", "b", "<unk>")
    assert not model.unk_trained
    assert model.perplexity("a b zebra") == pytest.approx(2)
    assert np.isfinite(model.log_probabilities("zebra")).all()


def test_marks_of_sentences_in_the_text_are_words(tmp_path: Path) -> None:
    text = "<s> a b </s> <s> b a </s> " * 5
    model = KneserNey(3, tokenizer="whitespace").fit(text)
    model.to_arpa(tmp_path / "kn.arpa")
    assert (tmp_path / "kn.arpa").read_text().count("-99") == 0
    again = KneserNey.from_arpa(tmp_path / "kn.arpa")
    assert again.vocabulary == model.vocabulary
    assert again.perplexity(text) == pytest.approx(model.perplexity(text), abs=1e-4)


AC = "-0.4259687\ta c"  # in line 15
BAD = {
    "empty": ("", "it has no \\end\\"),
    "a text": ("the cat sat\n", "it has no \\end\\"),
    "binary": (b"\xff\xfe\x00\x00", "utf-8"),
    "cut short": (BY_HAND[:-8], "it has no \\end\\"),
    "a line less": (BY_HAND.replace(f"{AC}\n", ""), "expected [6, 3] n-grams of each length, as it says, got [6, 2]"),
    "a section less": (BY_HAND.replace("\\1-", "\\2-"), "line 5: expected \\1-grams:, got '\\\\2-grams:'"),
    "no number": (BY_HAND.replace(AC, "x\ta c"), "line 15: expected a 2-gram, got 'x\\ta c'"),
    "an unknown word": (BY_HAND.replace(AC, "-1\ta d"), "line 15: expected a 2-gram, got '-1\\ta d'"),
    "a word less": (BY_HAND.replace(AC, "-1\ta"), "line 15: expected a 2-gram, got '-1\\ta'"),
    "a word more": (BY_HAND.replace(AC, "-1\ta c 0 0"), "line 15: expected a 2-gram, got '-1\\ta c 0 0'"),
    "a word twice": (BY_HAND.replace("\tc\t", "\tb\t"), "line 8: expected a 1-gram, got '-0.60206\\tb\\t0'"),
    "an n-gram twice": (BY_HAND.replace(AC, "-1\ta b"), "it has a 2-gram twice"),
    "a mark in an n-gram": (BY_HAND.replace(AC, "-1\t<s> c"), "<s> or </s> comes in a 2-gram"),
    "a probability above 1": (BY_HAND.replace(AC, "1\ta c"), "log10 of the probability of a 2-gram is above 0"),
    "nan": (BY_HAND.replace(AC, "nan\ta c"), "log10 of the probability of a 2-gram is above 0, or no number"),
    "back-off beyond float32": (
        FOREIGN.replace("-0.3", "300", 1),
        "log10 of the back-off weight of a 1-gram is above 37",
    ),
    "no beginning": (FOREIGN.replace("\ta b c", "\tb c a"), "the beginning of a 3-gram is not among the 2-grams"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_arpa_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    text, message = BAD[name]
    file = tmp_path / "bad.arpa"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(
        ModelError, match=f"^{re.escape(str(file))}: not a whole ARPA file: .*{re.escape(message)}"
    ) as refused:
        KneserNey.from_arpa(file)
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    model = KneserNey(2).fit("to be or not to be.")
    with pytest.raises(ModelError, match=r"cannot read .*missing\.arpa: No such file"):
        KneserNey.from_arpa(tmp_path / "missing.arpa")
    with pytest.raises(CheckpointError, match=r"cannot write .*kn\.arpa"):
        model.to_arpa(tmp_path / "missing" / "kn.arpa")
    with pytest.raises(ValueError, match="tokenizer: expected one of"):
        KneserNey.from_arpa(tmp_path / "missing.arpa", tokenizer="word")


def test_kenlm_finds_the_same_perplexity(tmp_path: Path) -> None:
    """With contexts over sentence ends, and none before the text."""
    kenlm = pytest.importorskip("kenlm")
    text = learnable_text(200)
    model = KneserNey(5).fit(text[:6_000])
    model.to_arpa(tmp_path / "kn.arpa")
    judge, words = kenlm.Model(str(tmp_path / "kn.arpa")), model.tokenizer.split(text[6_000:])
    for begin in (True, False):
        found = 10 ** (-judge.score(" ".join(words), bos=begin, eos=False) / len(words))
        losses = -model.log_probabilities(text[6_000:])
        assert found == pytest.approx(np.exp(losses.mean()), rel=1e-5)
