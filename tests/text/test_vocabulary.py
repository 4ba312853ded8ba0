"""The vocabulary: words and their ids."""

import ast
import difflib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmlp.text import TextError, Vocabulary
from tests.text.helpers import ROOT


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("b a b c a b", {}, "b a c"),
        ("b a é z A", {}, "A a b z é"),
        ("b a b c a b", {"min_count": 2}, "b a"),
        ("b a b c a b", {"max_size": 3}, "b a"),
        ("b a b c a b", {"max_size": 4}, "b a c"),
        ("b a b c a b", {"max_size": 100, "min_count": 3}, "b"),
        ("<unk> <unk> a <unk> b b", {"max_size": 2}, "b"),
        ("<unk> a", {}, "a"),
    ],
)
def test_vocabulary_is_counted(text, options, words):
    vocabulary = Vocabulary.from_words(text.split(), **options)
    assert vocabulary.words == (*words.split(), "<unk>")
    assert len(vocabulary) == len(vocabulary.words)
    assert vocabulary.unk_id == vocabulary.id_of("<unk>") == len(vocabulary) - 1


def test_encode_and_decode():
    vocabulary = Vocabulary(("the", "a", "<unk>"))
    ids = vocabulary.encode(["a", "cat", "the", "<unk>", "A"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [1, 2, 0, 2, 2]
    assert vocabulary.decode(ids) == ["a", "<unk>", "the", "<unk>", "<unk>"]
    assert vocabulary.decode([0]) == ["the"]
    assert vocabulary.encode([]).shape == (0,)
    assert vocabulary.decode([]) == []
    assert "a" in vocabulary
    assert "cat" not in vocabulary
    assert vocabulary.id_of("cat") == 2


@pytest.mark.parametrize(("ids", "wrong"), [([0, 3], 3), ([-1, 0], -1)])
def test_decode_refuses_other_ids(ids, wrong):
    with pytest.raises(IndexError, match=rf"^ids: expected ids in \[0, 3\), got {wrong}$"):
        Vocabulary(("the", "a", "<unk>")).decode(ids)


@given(st.lists(st.text(max_size=3), min_size=1).filter(lambda words: any(map(str.isalnum, "".join(words)))))
def test_every_word_has_the_id_of_its_place(words):
    vocabulary = Vocabulary.from_words(words)
    assert vocabulary.decode(vocabulary.encode(words)) == words
    counts = [words.count(word) for word in vocabulary.words[:-1]]
    assert counts == sorted(counts, reverse=True)
    assert [vocabulary.id_of(word) for word in vocabulary.words] == list(range(len(vocabulary)))


@pytest.mark.parametrize(
    ("words", "options", "error", "message"),
    [
        ([], {}, TextError, "the text has no words, only punctuation or white space; name a text with words in it"),
        ([".", "?!"], {}, TextError, "the text has no words, only punctuation"),
        (["<eos>", ",", "<unk>"], {}, TextError, "the text has no words, only punctuation"),
        (["a", "a", "b"], {"min_count": 3}, TextError, "min_count 3 leaves no word: the most frequent one occurs 2"),
        (["a"], {"min_count": 0}, ValueError, "min_count: expected at least 1, got 0"),
        (["a"], {"max_size": 1}, ValueError, "max_size: expected at least 2 (<unk> and a word), got 1"),
    ],
)
def test_promise_11_text_without_words(words, options, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}") as caught:
        Vocabulary.from_words(words, **options)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "words: expected <unk> as the last one"),
        (("<unk>", "a"), "words: expected <unk> as the last one"),
        (("a", "b", "a", "<unk>"), "words: expected different words, got 'a' twice"),
    ],
)
def test_words_that_are_no_vocabulary(words, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Vocabulary(words)


def test_closest_words():
    vocabulary = Vocabulary(("archdeacon", "archdeacons", "warden", "wardens", ".", "grantly", "unk", "a", "<unk>"))
    assert vocabulary.closest("ahrdecon") == ["archdeacon", "archdeacons", "warden"]
    assert vocabulary.closest("granty") == ["grantly"]
    assert vocabulary.closest("wardens", 1) == ["wardens"]
    assert vocabulary.closest("zzz") == []
    assert vocabulary.closest("<unk>") == ["unk"]


@given(st.text("ab", max_size=9), st.lists(st.text("ab", min_size=1, max_size=9), min_size=1))
def test_closest_words_are_those_of_difflib(word, words):
    vocabulary = Vocabulary.from_words(words)
    assert vocabulary.closest(word) == difflib.get_close_matches(word, vocabulary.words[:-1], 3, 0.7)


def test_promise_4_same_ids_in_fresh_processes():
    code = (
        "from fastmlp.text import *; import sys\n"
        "words = get_tokenizer('words').split(sys.stdin.read())\n"
        "vocabulary = Vocabulary.from_words(words, min_count=2)\n"
        "print(vocabulary.words, vocabulary.encode(words).tolist(), vocabulary.closest('dict'))"
    )
    text = "".join(str(thing.__doc__) for thing in (dict, str, ast, subprocess, re, bytes.split))
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1
    assert "'the'" in outputs.pop()


def test_a_word_in_other_capitals_is_found() -> None:
    vocabulary = Vocabulary.from_words(["Harding", "Harding", "HARDING", "will", "Will", "Will"])
    assert [vocabulary.in_its_case(word) for word in ("harding", "HARDING", "will", "WILL", "mr")] == [
        "Harding",
        "HARDING",
        "will",
        "Will",
        "mr",
    ]
