"""The prose tokenizer: words, capitals, joining a page, and the changes of a round trip."""

import difflib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp import LanguageModel
from fastmlp.config import TrainConfig
from fastmlp.data.corpus import read_corpus
from fastmlp.text import Text, get_tokenizer, read_text

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "barsetshire.txt"
PROSE = get_tokenizer("prose")

# --------------------------------------------------------------------------------------------------------------- split

SPLIT = [
    ("", ""),
    (" \n\n \n", ""),
    # words, with what is inside them
    ("don't seventeen-year-old O’Hara", "don’t seventeen-year-old O’Hara"),
    ("3.14 1,000 10:30 £5 &c AT&T 1914–18", "3.14 1,000 10:30 £5 &c AT&T 1914–18"),
    ("co\u00adoperate co\u2010operate cafe\u0301", "cooperate co-operate café"),
    ("हिन्दी में, ΟΔΟΣ\u037e 你好", "हिन्दी में , ΟΔΟΣ ; 你 好"),
    ("so _very_ good, snake_case, 6_d._", "so very good , snake_case , 6d ."),
    ("a <unk> b", "a < unk > b"),
    # stops
    ("so, so; so: so! so?! so...", "so , so ; so : so ! so ? ! so …"),
    ("a,b 1,b a,1", "a , b 1 , b a , 1"),
    # dashes, and lines for omitted words
    ("so--so---so — so – so", "so — so — so — so — so"),
    ("so ----; D----n Mr ----'s", "so —— ; D——n Mr ——’s"),
    # quotation marks
    ('"So," he said, "so."', "“ so , ” he said , “ so . ”"),
    ("“So,” ”So,” „So“ »So« «so»", "“ so , ” “ So , ” “ So ” « So » « so »"),
    ('"So--" he said, "so--so"--so', "“ so — ” he said , “ so — so ” — so"),
    ('"So--"--"so"', "“ so — ” — “ so ”"),
    ("\"'So,' she said,\" he said.", "“ ‘ so , ’ she said , ” he said ."),
    ("He said, \"She said, 'No!'\"", "he said , “ She said , ‘ No ! ’ ”"),
    ('"So.\n\n"So."', "“ so . <p> “ so . ”"),
    ("(so) [so] {so}", "( so ) [ so ] { so }"),
    # apostrophes
    ("'tis the dogs' dinner, 'ittle one", "’tis the dogs’ dinner , ’ittle one"),
    ("'So,' he said, 'don't touch the dogs.'", "‘ so , ’ he said , ‘ don’t touch the dogs . ’"),
    ("‘So,’ he said, and ’twas so", "‘ so , ’ he said , and ’twas so"),
    ("the word 'so' is 'em", "the word ‘ so ’ is ’em"),
    ("a ' b", "a ' b"),
    # paragraphs
    ("so\nso\n\nso\n \n\n\t\nso\n", "so so <p> so <p> so"),
    # full stops that end no sentence
    ("i.e. so, e.g. So", "i.e. so , e.g . so"),
    ("so, etc., so etc. and so etc. So", "so , etc. , so etc. and so etc . so"),
    ("see Mr. So and J. So, M.P., and I. So", "see Mr. So and J. So , M.P. , and I . so"),
]


@pytest.mark.parametrize(("text", "words"), SPLIT)
def test_split(text: str, words: str) -> None:
    assert PROSE.split(text) == words.split()


def test_a_quotation_is_closed_within_a_paragraph_and_not_too_far() -> None:
    assert PROSE.split("'so\n\nso.'")[0] == "’so"
    assert PROSE.split("'so " + "so " * 600 + "so.'")[0] == "‘"
    assert PROSE.split("'so " + "so " * 700 + "so.'")[0] == "’so"


# ------------------------------------------------------------------------------------------------------------ capitals

STORY = """The bishop saw Mr Slope. The Slope was long; but it was no slope that he, the bishop, liked.

"Bishop," said Mr Slope, "I like it! The bishop likes it?" Slopes, ÉTÉ and Lady Slope came. "The lady is a Lady."
"""
STORY_WORDS = """
the bishop saw Mr Slope . the Slope was long ; but it was no slope that he , the bishop , liked . <p>
“ bishop , ” said Mr Slope , “ I like it ! The bishop likes it ? ” Slopes , ÉTÉ and Lady Slope came . “ the lady is a
Lady . ”"""


def test_a_sentence_begins_in_lower_case_but_for_words_that_the_text_writes_with_a_capital() -> None:
    tokenizer, words = PROSE.fit(STORY)
    assert words == STORY_WORDS.split()
    assert tokenizer.capitalized == {"Mr", "Slope", "Slopes", "I", "Lady"}
    assert tokenizer.split(STORY) == words
    other = tokenizer.split("Mr Bishop. (Slope slopes.) No Slope. SLOPE. 'Twas.")
    assert " ".join(other) == "Mr Bishop . ( Slope slopes . ) no Slope . SLOPE . ’twas ."


def test_a_tokenizer_that_was_not_fitted_keeps_no_capital_where_a_sentence_begins() -> None:
    assert PROSE.split("I saw. I saw I.") == ["i", "saw", ".", "i", "saw", "I", "."]


def test_a_letter_that_has_no_capital_of_its_own_is_left_alone() -> None:
    prose = get_tokenizer("prose", rules=1)  # the newest have no ligatures
    for word in ("ßo", "ŉo", "İo", "ǆo", "ẖo", "iPhone"):
        assert prose.join([word]) in (word, "Ǆo")
        assert prose.split(prose.join([word])) == [word]


# ---------------------------------------------------------------------------------------------------------------- join

JOIN = [
    ("", ""),
    ("<p> so <p> <p> so <p>", "So\n\nSo\n\n"),
    ("“ so , ” he said , “ so — so ! ” <p> “ so ”", "“So,” he said, “so—so!”\n\n“So”"),
    ("so ( so ) . ( so . ) so ; [ so ] …", "So (so). (So.) So; [so]…"),
    ("‘ so ’ said the “ so ” of it , « so »", "‘So’ said the “so” of it, «so»"),
    ("so . so ? so ! so : so — so", "So. So? so! so: so—so"),
    ("the dogs’ ’tis so . ’tis so", "The dogs’ ’tis so. ’Tis so"),
    ("so —— so , —— ’s — ——", "So —— so, —— ’s— ——"),
    ("Mr. . so . . so etc. so", "Mr. . So. . So etc. so"),
    ("' so", "' so"),
]


@pytest.mark.parametrize(("words", "text"), JOIN)
def test_join(words: str, text: str) -> None:
    assert PROSE.join(words.split()) == text
    joiner = PROSE.joiner()
    assert "".join([joiner.add(word) for word in words.split()]) == text


def test_round_trip_of_a_page() -> None:
    page = STORY.replace('"B', "“B").replace(',"', ",”").replace(' "', " “").replace('?"', "?”").replace('."', ".”")
    assert PROSE.fit(STORY)[0].join(STORY_WORDS.split()) == page.rstrip()


CHARACTERS = "aBcTiI1'’‘\"“”„«»‹().,;:!?…-–—_<> \n&[]{}éÉ\u0301İß字ẖ\u00ad\u2028\u037e"
PARTS = ["The", "the", "Mr.", "H\u0331", "’tis", "'tis", "Slope", "slope", "...", "--", "----", " ", " ", "\n\n"]
TRICKY = st.lists(st.sampled_from([*CHARACTERS, *PARTS]), max_size=14).map("".join)
LEARNED = st.sampled_from([(), ("The", "Slope"), ("A", "I", "B", "É", "Mr.")])


@settings(max_examples=500)
@given(TRICKY | st.text(), LEARNED)
def test_join_and_split_give_the_same_words(text: str, learned: tuple[str, ...]) -> None:
    for tokenizer in (get_tokenizer("prose", learned), PROSE.fit(text)[0]):
        words = tokenizer.split(text)
        assert tokenizer.split(tokenizer.join(words)) == words
        assert "<unk>" not in words


@given(TRICKY)
def test_fit_gives_the_words_that_the_fitted_tokenizer_finds(text: str) -> None:
    tokenizer, words = PROSE.fit(text)
    assert tokenizer.split(text) == words


def without_named_differences(text: str) -> list[str]:
    """Paragraphs with what `Prose.joiner` names written one way."""
    text = re.sub("[“”]", '"', re.sub("[‘’]", "'", text.replace("_", "")))
    text = re.sub("----+", "——", text)
    text = re.sub("--", "—", text)
    return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]


def differing(a: str, b: str) -> int:
    codes = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return sum(max(a1 - a0, b1 - b0) for code, a0, a1, b0, b1 in codes if code != "equal")


@pytest.mark.skipif(not CORPUS.exists(), reason="the novels are not there")
def test_round_trip_of_six_novels_differs_in_one_of_ten_thousand_characters_at_most() -> None:
    text = read_text([CORPUS]).text
    tokenizer, words = PROSE.fit(text)
    before, after = without_named_differences(text), without_named_differences(joined := tokenizer.join(words))
    assert len(before) == len(after)
    count = sum(differing(a, b) for a, b in zip(before, after, strict=True) if a != b)
    print(f"{count} of {len(text):,} characters differ")
    assert count < len(text) / 10_000
    assert tokenizer.split(joined) == words


# ---------------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize(
    ("words", "may", "may_not"),
    [
        ("", "“ ‘ (", "” ’ ) <p>"),
        ("so", "“ ( <p>", "” ’ )"),
        ("so <p>", "“", "<p> ”"),
        ("so “", "‘ (", "“ ” <p>"),
        ("“ so ‘", "(", "“ ‘ ’ ” <p>"),
        ("“ so", "” ‘ (", "“ ’ ) <p>"),
        ("“ so ‘ so", "’", "” “ ‘ <p>"),
        ("“ so ‘ so ’", "” ‘", "’ “ <p>"),
        ("“ so ‘ so ”", "“ ‘ <p>", "’ ”"),
        ("so ” ( so )", "“ ( <p>", "” )"),
        ("“ so <p>", "“", "” <p>"),
    ],
)
def test_what_may_come_next(words: str, may: str, may_not: str) -> None:
    joiner = PROSE.joiner()
    for word in words.split():
        joiner.add(word)
    assert set(may_not.split()) <= set(joiner.excluded())
    assert not {*may.split(), "so", ".", ","} & set(joiner.excluded())


PAGE = """"I like it," said the bishop. "Do you like it?" (He did.)

The bishop said 'no' and went. "Well--" said Mr Slope.

"It is 'so' that I like it," said he.

"""


@pytest.fixture(scope="module")
def bishop() -> LanguageModel:
    model = LanguageModel(tokenizer="prose", context=2, embed=8, hidden=(16,), seed=3)
    model.fit(PAGE * 30, steps=150, batch_size=32)
    return model


def assert_marks_pair(text: str) -> None:
    """Marks are properly nested; only at the end of the text may some be open."""
    *paragraphs, last = text.split("\n\n")
    for paragraph in (*paragraphs, last):
        unpaired = re.sub(r"(?<=\w)’(?=\w)", "", paragraph)
        unpaired = re.sub("[^“”‘’()]", "", unpaired)
        while (paired := re.sub("“”|‘’|[(][)]", "", unpaired)) != unpaired:
            unpaired = paired
        assert unpaired == "" or (paragraph is last and not set(unpaired) & set("”’)")), paragraph


def test_marks_open_and_close_however_wild_the_text(bishop: LanguageModel) -> None:
    texts = [bishop.generate('"I', 300, temperature=5.0, seed=seed) for seed in range(5)]
    assert len(re.findall("[“‘(]", "".join(texts))) > 20
    for text in texts:
        assert text.startswith("“I")
        assert "\n\n\n" not in text
        assert_marks_pair(text)


def test_what_may_not_come_is_not_expected_either(bishop: LanguageModel) -> None:
    assert "”" in dict(bishop.next_word('"I like it,', None))
    chances = dict(bishop.next_word("the bishop", None))
    assert chances["”"] == 0 < chances["<p>"]
    assert sum(chances.values()) == pytest.approx(1)


def test_a_model_keeps_its_capitals(bishop: LanguageModel, tmp_path: Path) -> None:
    assert bishop.tokenizer.capitalized == {"I", "Mr", "Slope", "Do", "Well"}
    bishop.save(tmp_path / "bishop.safetensors")
    again = LanguageModel.load(tmp_path / "bishop.safetensors")
    assert again.tokenizer.capitalized == bishop.tokenizer.capitalized
    assert again.generate("I", 20, seed=1) == bishop.generate("I", 20, seed=1)
    assert again.perplexity(PAGE) == bishop.perplexity(PAGE)
    assert again.evaluate("I like the Bishop.").unknown == 1


def test_promise_6_a_run_that_was_stopped_resumes_with_its_capitals(tmp_path: Path) -> None:
    options = {"steps": 30, "batch_size": 16, "eval_every": 10, "save_every": 10}
    models = [LanguageModel(tokenizer="prose", context=2, embed=4, hidden=(8,)) for _ in range(2)]
    asked = iter([False] * 15)
    models[0].fit(PAGE * 10, out=tmp_path / "run", should_stop=lambda: next(asked, True), **options)
    models[0].fit(PAGE * 10, out=tmp_path / "run", resume=True, **options)
    models[1].fit(PAGE * 10, out=tmp_path / "other", **options)
    assert models[0].tokenizer.capitalized == models[1].tokenizer.capitalized == {"I", "Mr", "Slope", "Do", "Well"}
    assert models[0].generate("The bishop", 50, seed=1) == models[1].generate("The bishop", 50, seed=1)


def test_words_below_the_minimum_are_never_written() -> None:
    model = LanguageModel(tokenizer="prose", context=2, embed=4, hidden=(8,), vocab_size=12)
    model.fit(PAGE * 10, steps=10, batch_size=16)
    assert len(model.vocabulary) == 12
    assert "<" not in model.generate("The bishop", 200, temperature=3.0, seed=1)


def test_the_default_prompt_is_the_beginning_of_a_held_out_paragraph() -> None:
    text = "So it was.\n\nSo it is said.\n\nThe bishop came in.\n\nIt was good."
    corpus = read_corpus(TrainConfig(tokenizer="prose", context=4, val_fraction=0.4), Text(text, ()))
    assert corpus.tokenizer.join(corpus.default_prompt()) == "It was good."
