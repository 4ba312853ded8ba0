"""The corpus of a run: its parts, the held-out words, and the default prompt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.data.batches import EpochBatches, RandomBatches, StretchBatches
from fastmlp.data.corpus import Corpus, read_corpus
from fastmlp.data.windows import Windows
from fastmlp.text import Text, TextError


def corpus_of(text: str, **options: Any) -> Corpus:
    return read_corpus(TrainConfig(context=3, **options), Text(text, ()))


def targets_of(corpus: Corpus, windows: Windows | None) -> str:
    assert windows is not None
    return " ".join(corpus.vocabulary.decode(windows.targets))


TEXT = "one two three. four five six. seven eight nine. ten eleven twelve."  # 16 words, of which 4 are '.'


def test_every_word_is_in_one_part_and_is_predicted_there() -> None:
    corpus = corpus_of(TEXT, val_fraction=0.25, test_fraction=0.25)
    assert corpus.words == 16
    assert targets_of(corpus, corpus.train) == "one two three . four five six ."
    assert targets_of(corpus, corpus.val) == "seven eight nine ."
    assert targets_of(corpus, corpus.test) == "ten eleven twelve ."


def test_what_stands_before_a_part_is_the_text_before_it_or_sentence_ends() -> None:
    corpus = corpus_of(TEXT, val_fraction=0.25, test_fraction=0.25)
    for windows, before in ((corpus.train, ". . ."), (corpus.val, "five six ."), (corpus.test, "eight nine .")):
        assert windows is not None
        assert " ".join(corpus.vocabulary.decode(windows.take(np.array([0]))[0][0])) == before


def test_the_vocabulary_is_counted_on_the_whole_text() -> None:
    corpus = corpus_of(TEXT, val_fraction=0.25)
    assert "twelve" in corpus.vocabulary
    assert not corpus.unk_trained
    assert corpus_of(TEXT, vocab_size=5).unk_trained


def test_what_was_read_is_counted_before_the_vocabulary_is_cut() -> None:
    for options in ({}, {"vocab_size": 5}, {"min_count": 2}):
        assert corpus_of(TEXT, **options).types == 13
    assert len(corpus_of(TEXT, vocab_size=5).vocabulary) == 5
    assert corpus_of("one two <unk> <unk> one", tokenizer="whitespace").types == 2


def test_epochs_and_steps_draw_in_their_own_ways() -> None:
    original = {"hidden": (3, 3)}
    assert type(corpus_of(TEXT).batches(TrainConfig(**original))) is RandomBatches
    assert type(corpus_of(TEXT).batches(TrainConfig(**original, epochs=1))) is EpochBatches
    assert type(corpus_of(TEXT).batches(TrainConfig(batch_size=4))) is StretchBatches


def test_the_default_prompt_begins_a_whole_held_out_sentence_of_known_words() -> None:
    assert corpus_of(TEXT, val_fraction=0.5).default_prompt() == ["ten", "eleven", "twelve"]
    assert corpus_of(TEXT, val_fraction=0, test_fraction=0.25).default_prompt() == ["ten", "eleven", "twelve"]
    assert corpus_of(TEXT, val_fraction=0.25, test_fraction=0.25).default_prompt() == ["seven", "eight", "nine"]
    assert corpus_of(TEXT, val_fraction=0).default_prompt() == ["four", "five", "six"]
    assert corpus_of("a. b c. d.", val_fraction=0).default_prompt() == []
    assert corpus_of("a a a a. b c d. a a a a.", val_fraction=0, min_count=2).default_prompt() == ["a", "a", "a"]


def test_the_validation_sample_is_even_and_leaves_unknown_words_out() -> None:
    corpus = corpus_of("a b a. " * 50 + "a x b a. a y b z. ", val_fraction=0.05, min_count=2)
    known = [i for i, word in enumerate(targets_of(corpus, corpus.val).split()) if word != "<unk>"]
    assert len(known) < len(targets_of(corpus, corpus.val).split())
    assert corpus.validation_sample(1_000).tolist() == known
    assert corpus.validation_sample(2).tolist() == [known[0], known[len(known) // 2]]
    assert corpus_of(TEXT, val_fraction=0).validation_sample(10).size == 0


def test_a_validation_file_takes_the_place_of_the_held_out_part(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("seven eight unheard of.")
    corpus = corpus_of(TEXT, val_file=str(other))
    assert targets_of(corpus, corpus.val) == "seven eight <unk> <unk> ."
    assert len(corpus.train) == 16
    assert corpus.sha256 != corpus_of(TEXT).sha256
    other.write_text("unheard of")
    with pytest.raises(TextError, match=r"other\.txt: none of its words is in the vocabulary"):
        corpus_of(TEXT, val_file=str(other))
    for text, tokenizer in (("!!! ?? --", "words"), (". . .", "words"), ("!!! ?? --", "prose")):
        other.write_text(text)
        with pytest.raises(TextError, match=r"other\.txt: no words, only punctuation; name a text with words in it"):
            corpus_of(TEXT, val_file=str(other), tokenizer=tokenizer)


@pytest.mark.parametrize(("text", "options"), [("word", {}), ("one two", {}), ("one two three", {"val_fraction": 0.5})])
def test_a_text_that_is_too_short_is_refused(text: str, options: dict[str, float]) -> None:
    with pytest.raises(TextError, match="too short"):
        corpus_of(text, **options)
