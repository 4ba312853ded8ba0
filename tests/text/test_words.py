"""The tokenizers words and whitespace: splitting a text into words, and joining them."""

import re
import sys
import unicodedata
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastmlp.text.reading
import fastmlp.text.tokenizer
from fastmlp.text import TOKENIZERS, Vocabulary, get_tokenizer, read_text
from tests.text.helpers import CORPORA, WHITESPACE, WORDS

# ------------------------------------------------------------------------------------------------------------- `words`


SPLIT_WORDS = [
    ("", []),
    (" \n\t", []),
    ("?! ,;:", []),
    ("The Rev. Septimus Harding was,", ["the", "rev", ".", "septimus", "harding", "was"]),
    # apostrophes and hyphens inside a word vanish; elsewhere they are white space
    ("don't", ["dont"]),
    ("o’clock O‘Brien Oʼahu", ["oclock", "obrien", "oahu"]),
    ("seventeen-year-old", ["seventeenyearold"]),
    ("co‐operate co‑operate co\u00adoperate", ["cooperate"] * 3),
    ("x-'-y", ["xy"]),
    ("'tis the dogs' 'n' - ' -", ["tis", "the", "dogs", "n"]),
    ("‘He said’", ["he", "said"]),
    ("line-\nend", ["line", "end"]),
    ("می\u200cخواهم", ["میخواهم"]),
    # dashes separate
    ("word--word", ["word", "word"]),
    ("a---b----c", ["a", "b", "c"]),
    ("a‒b–c—d―e", ["a", "b", "c", "d", "e"]),
    ("don'--t", ["don", "t"]),
    ("the town of ----; let", ["the", "town", "of", "let"]),
    # '.' is a word wherever it stands, and no other mark is one
    ("3.14", ["3", ".", "14"]),
    ("e.g. x", ["e", ".", "g", ".", "x"]),
    ("...", [".", ".", "."]),
    ("wait… 。", ["wait", "."]),
    # all else is white space
    ("_so_ snake_case", ["so", "snake", "case"]),
    ("AT&T 50%", ["at", "t", "50"]),
    ("a\u00a0b\u2028c\u200bd\ufffde", ["a", "b", "c", "d", "e"]),
    ("I ❤\ufe0f you 😀", ["i", "you"]),
    # letters and digits of any script, with their marks
    ("CAFÉ cafe\u0301", ["café", "café"]),
    ("हिन्दी में क्षत्रिय", ["हिन्दी", "में", "क्षत्रिय"]),
    ("עִבְרִית", ["עִבְרִית"]),
    (unicodedata.normalize("NFD", "한국어"), ["한국어"]),
    ("你好，世界！", ["你", "好", "世", "界"]),
    ("ΟΔΟΣ. ΣΑΣ", ["οδος", ".", "σας"]),
    ("ΑΣ-Β", ["ασβ"]),
    ("İstanbul Straße", ["i\u0307stanbul", "straße"]),
    ("½ ² Ⅷ ٣ 𐐀", ["½", "²", "viii", "٣", "𐐨"]),
    ("\u0301a \u0301 .\u0301b", ["a", ".", "b"]),
]


@pytest.mark.parametrize(("text", "words"), SPLIT_WORDS)
def test_words_split(text, words):
    assert WORDS.split(text) == words


def plain_words(text):
    """The `words` rule read out literally, a character at a time."""

    def is_inner(place):
        return 0 <= place < len(text) and text[place] in "'’‘ʼ-‐‑\u00ad\u200c\u200d\u2060\ufeff"

    def is_word(place):
        return (
            0 <= place < len(text)
            and not is_inner(place)
            and (text[place].isalnum() or unicodedata.category(text[place])[0] == "M")
        )

    text = re.sub("-{2,}", " ", text)
    spaced = ""
    place = 0
    while place < len(text):
        start = place
        while is_inner(place):
            place += 1
        if place > start:
            spaced += "" if is_word(start - 1) and is_word(place) else " "
            continue
        spaced += text[place] if is_word(place) else " . " if text[place] == "." else " "
        place += 1
    words = [word if word == "." else re.sub(r"^\W+", "", word) for word in spaced.split()]
    return [unicodedata.normalize("NFC", word.lower()) for word in words if word]


TRICKY = st.text(st.sampled_from("aBz1éÉ\u0301\u0323ि'’-‐\u00ad\u200d..  \n_—–,Σσßİ字😀가\u00a0"), max_size=30)


@given(TRICKY | st.text())
def test_words_split_is_the_rule_read_out_literally(text):
    assert get_tokenizer("words", rules=1).split(text) == plain_words(text)
    text = "".join(character for character in text if character < "\x80" or character in "éÉ\u0301\u0323’‐—–Σσßİ가")
    assert WORDS.split(text) == plain_words(text)


@given(TRICKY | st.text())
def test_words_join_and_split_give_the_same_words(text):
    words = WORDS.split(text)
    assert WORDS.split(WORDS.join(words)) == words


def test_words_of_every_character_are_stable():
    words = WORDS.split(" ".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000))
    assert len(words) > 130_000
    assert WORDS.split(WORDS.join(words)) == words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["he", "said", ".", "then", "he", "left", "."], "he said. then he left."),
        ([".", "a", ".", ".", ".", "b"], ". a... b"),
    ],
)
def test_words_join(words, text):
    assert WORDS.join(words) == text


# -------------------------------------------------------------------------------------------------------- `whitespace`


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("\n", []),
        ("  \n", []),
        ("a b", ["a", "b"]),
        ("a b\n", ["a", "b"]),
        (" a  b \n c \n", ["a", "b", "<eos>", "c"]),
        ("a\nb", ["a", "<eos>", "b"]),
        ("a\n\nb\n\n", ["a", "<eos>", "<eos>", "b", "<eos>"]),
        ("a\r\nb\r\n", ["a", "<eos>", "b"]),
        ("a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\u00a0h", list("abcdefgh")),
        ("N <unk> don't 'Tis . <eos> x", ["N", "<unk>", "don't", "'Tis", ".", "<eos>", "x"]),
    ],
)
def test_whitespace_split(text, words):
    assert WHITESPACE.split(text) == words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["a", "b", "<eos>", "c", "."], "a b\nc ."),
        (["<eos>", "a", "<eos>", "<eos>", "b", "<eos>"], "\na\n\nb\n"),
    ],
)
def test_whitespace_join(words, text):
    assert WHITESPACE.join(words) == text


@given(st.text(st.sampled_from("ab<. \n\t\u2028")) | st.text())
def test_whitespace_join_and_split_give_the_same_words(text):
    words = WHITESPACE.split(text)
    again = WHITESPACE.split(WHITESPACE.join(words))
    assert again == (words[:-1] if words[-1:] == ["<eos>"] else words)


# ------------------------------------------------------------------------------------------------------ all tokenizers


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=TRICKY | st.text(), size=st.integers(1, 5))
def test_words_do_not_depend_on_where_the_text_is_cut(name, text, size):
    tokenizer = get_tokenizer(name)
    whole = tokenizer.split(text)
    with mock.patch.object(fastmlp.text.tokenizer, "PIECE", size):
        assert tokenizer.split(text) == whole


@pytest.mark.parametrize("name", TOKENIZERS)
def test_equal_words_are_one_object(name):
    words = get_tokenizer(name).split("Some word and some word\n" * 100)
    assert len({id(word) for word in words}) == len(set(words))


@pytest.mark.parametrize(("name", "end"), [("words", "."), ("prose", "<p>"), ("whitespace", "<eos>")])
def test_sentence_end_is_a_word_of_the_tokenizer(name, end):
    tokenizer = get_tokenizer(name)
    assert (tokenizer.name, tokenizer.sentence_end) == (name, end)
    assert tokenizer.split(tokenizer.join(["a", end, "b"])) == ["a", end, "b"]


def test_unknown_tokenizer_lists_the_names():
    with pytest.raises(ValueError, match=r"^tokenizer: expected one of words, prose, whitespace, got 'word'$"):
        get_tokenizer("word")


@pytest.mark.parametrize(
    ("file", "tokenizer", "words", "types"),
    [
        ("barsetshire.txt", "words", 1_346_919, 22_401),
        ("barsetshire.tokens.txt", "whitespace", 1_339_610, 28_303),
    ],
)
def test_counts_of_the_corpora(file, tokenizer, words, types):
    if not (CORPORA / file).exists():
        pytest.skip(f"{CORPORA / file} is not there")
    found = get_tokenizer(tokenizer).split(read_text([CORPORA / file]).text)
    vocabulary = Vocabulary.from_words(found)
    assert (len(found), len(vocabulary)) == (words, types + 1)
    assert vocabulary.decode(vocabulary.encode(found)) == found
