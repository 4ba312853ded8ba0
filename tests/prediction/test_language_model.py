"""LanguageModel in use: its texts, predictions, figures and errors."""

import base64
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastmlp import evaluate, generate, neighbors
from fastmlp.errors import ModelError, NotTrainedError
from fastmlp.language_model import LanguageModel
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.pictures.table import html_table
from fastmlp.text import TextError
from tests.helpers import NUMPY
from tests.prediction.helpers import SMALL
from tests.runs import learnable_text, write_text


def test_generate_writes_what_the_command_writes(
    model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmlp.ops.backend.choose_backend", lambda: Backend(NUMPY, None, None))
    file = tmp_path / "model.safetensors"
    model.save(file)
    assert generate.main([str(file), "anna paints", "-n", "1", "--seed", "5", "--top-k", "9"]) == 0
    assert capsys.readouterr().out == model.generate("anna paints", seed=5, top_k=9) + "\n"
    assert neighbors.main([str(file), "red", "-n", "2"]) == 0
    near = [f"{cosine:6.3f}  {word}\n" for word, cosine in model.neighbors("red", 2)]
    assert capsys.readouterr().out == "".join(near)
    text = write_text(tmp_path, "anna sells a red door.")
    assert evaluate.main([str(file), str(text), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["perplexity"] == model.perplexity(text)


def test_it_writes_and_expects_what_it_has_learned(model: LanguageModel) -> None:
    text = model.generate("elena feeds", 5, temperature=0)
    assert text == "elena feeds six hens behind that green"
    assert model.generate("", 3, seed=1) == model.generate("", 3, seed=1)
    rng = np.random.default_rng(1)
    assert len({model.generate("", 12, seed=rng) for _ in range(4)}) > 1
    (word, probability), *_ = model.next_word("clara hides")
    assert word == "nine"
    assert probability > 0.5
    assert model.perplexity("elena feeds six hens behind that green barn.") < 3


def test_the_probabilities_are_those_that_words_are_drawn_with(model: LanguageModel) -> None:
    everything = model.next_word("anna", k=None)
    words, probabilities = zip(*everything, strict=True)
    assert sorted(words) == sorted(model.vocabulary.words[:-1])
    assert sum(probabilities) == pytest.approx(1, abs=1e-12)
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert model.next_word("anna", k=3) == everything[:3]
    rng = np.random.default_rng(2)
    drawn = [model.generate("", 1, temperature=1, seed=rng) for _ in range(1_000)]
    for word, probability in model.next_word(""):
        assert drawn.count(word) / 1_000 == pytest.approx(probability, abs=0.06)


def test_several_words_have_a_list_each_and_it_is_known_how_often_they_came(
    model: LanguageModel, window_model: LanguageModel
) -> None:
    ids = [model.vocabulary.id_of(word) for word in ("red", "anna")]
    assert model.neighbors(["red", "Anna"], 3) == [model.neighbors("red", 3), model.neighbors("anna", 3)]
    assert model.neighbors(np.array(ids), 3) == model.neighbors(tuple(ids), 3) == [model.neighbors(i, 3) for i in ids]
    assert (model.neighbors([]), model.times_seen("red")) == ([], None)  # a list of widths has no counts
    words = window_model.tokenizer.split(learnable_text(100))
    learned = words[: len(words) * 95 // 100]
    assert {word: window_model.times_seen(word) for word in words} == {word: learned.count(word) for word in words}


def test_words_that_are_not_known_are_told_and_counted(model: LanguageModel) -> None:
    with pytest.warns(UserWarning, match=r"not in the vocabulary, read as <unk>: 'paint' \(close: paints\)") as told:
        model.next_word("paint")
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="'zebra'") as told:
        model.generate("zebra", 2)
    assert told[0].filename == __file__
    found = model.evaluate("anna paints zebras.")
    assert (found.words, found.unknown) == (3, 1)
    assert model.perplexity("anna paints zebras.") == found.perplexity


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.generate("anna", -1), ValueError, "words: expected a whole number of at least 0, got -1"),
        (lambda m: m.generate("anna", 2.5), ValueError, "words: expected a whole number of at least 0, got 2.5"),
        (lambda m: m.generate("anna", temperature=-1), ValueError, "temperature: expected a number of at least 0"),
        (lambda m: m.generate("anna", top_k=0), ValueError, "top_k: expected a whole number of at least 1, got 0"),
        (lambda m: m.generate("anna", top_p=1.5), ValueError, "top_p: expected a number above 0 and at most 1"),
        (lambda m: m.generate("anna", seed=-1), ValueError, "seed: expected a whole number of at least 0, got -1"),
        (lambda m: m.generate(None), TypeError, r"prompt: expected a text \(str\) or ids; got NoneType"),
        (lambda m: m.generate(["red"]), TypeError, r"prompt: expected a text \(str\) or ids; got list of <U3"),
        (lambda m: m.next_word(Path("text.txt")), TypeError, r"prompt: expected a text \(str\) or ids; got"),
        (lambda m: m.neighbors(1.5), TypeError, "word: expected a word or its id, got 1.5"),
        (lambda m: m.next_word("anna", k=0), ValueError, "k: expected a whole number of at least 1, got 0"),
        (lambda m: m.neighbors("paint"), TextError, "word: 'paint' is not in the vocabulary; close: paints"),
        (lambda m: m.neighbors(["red", 1.5]), TypeError, "word: expected a word or its id, got 1.5"),
        (lambda m: m.times_seen("paint"), TextError, "word: 'paint' is not in the vocabulary; close: paints"),
        (lambda m: m.neighbors("red door"), TextError, "word: expected one word, got 'red door'"),
        (lambda m: m.plot_words(n=2), ValueError, "n: expected a whole number of at least 3, got 2"),
        (
            lambda m: m.plot_words("map.pdf"),
            ValueError,
            r"path: expected a file that ends in \.png or \.svg, got 'map\.pdf'",
        ),
        (lambda m: m.perplexity("zebras!"), TextError, "text: none of its words is in the model's vocabulary"),
        (lambda m: m.perplexity(""), TextError, "text is too short"),
        (lambda m: m.perplexity("hp.txt"), ValueError, r"'hp\.txt', the name of a file; .* pathlib\.Path\('hp\.txt'\)"),
        (lambda m: m.perplexity(__file__), ValueError, "text: expected a text, got .*, the name of a file"),
        (lambda m: m.perplexity(Path("no.txt")), TextError, r"no\.txt: no such file"),
        (lambda m: m.fit("\ud800 a b"), TextError, "text: expected characters, got half a surrogate pair at 0"),
        (lambda m: m.fit("a b", stepz=3), TypeError, "fit: no argument stepz; did you mean 'steps'?"),
        (lambda m: m.fit("a b", hidden=(3,)), TypeError, r"fit: hidden is an argument of the model: LanguageModel\("),
        (lambda m: m.fit("a b", steps=0), ConfigError, "steps: expected a whole number of at least 1, got 0"),
        (lambda m: m.fit("a b", resume=True), ValueError, r"resume: expected a folder beside it, as in fit\("),
        (lambda m: m.fit("a b", save_every=3), ValueError, "save_every: expected a folder beside it"),
        (lambda m: LanguageModel(seed=None), ConfigError, "seed: expected a value, such as 1, got None"),
        (
            lambda m: LanguageModel(tokenizer=None),
            ConfigError,
            r"tokenizer: expected a value, such as 'words', got None",
        ),
        (lambda m: LanguageModel(context=0), ConfigError, "context: expected a whole number of at least 1, got 0"),
        (lambda m: LanguageModel(threads=0), ConfigError, "threads: expected a whole number from 1 to 1024, got 0"),
        (lambda m: LanguageModel(tokenizer="ids"), ConfigError, "tokenizer: expected one of words, prose, whitespace"),
        (
            lambda m: LanguageModel().generate("anna"),
            NotTrainedError,
            "not trained: call its fit, or LanguageModel.load",
        ),
        (lambda m: LanguageModel().plot_words(), NotTrainedError, "not trained"),
        (lambda m: LanguageModel().save("x"), NotTrainedError, "not trained"),
        (lambda m: LanguageModel().network, NotTrainedError, "not trained"),
    ],
)
def test_promise_12_a_wrong_argument_is_named(
    call: Callable[[LanguageModel], Any], error: type[Exception], message: str, model: LanguageModel
) -> None:
    with pytest.raises(error, match=message):
        call(model)


def test_numpy_integers_are_whole_numbers(model: LanguageModel) -> None:
    assert model.generate("anna", np.int64(2), seed=np.uint8(3)) == model.generate("anna", 2, seed=3)
    assert len(model.next_word("anna", np.int16(2))) == 2
    assert LanguageModel(context=np.int64(2)).fit("to be or not to be. " * 9, steps=np.int32(2)).steps[-1] == 2


def test_it_says_what_it_is(model: LanguageModel) -> None:
    shown = "LanguageModel(context=3, embed=6, hidden=(12, 10), backend='numpy')"
    assert repr(LanguageModel(**SMALL)) == f"{shown}: not trained"
    count = model.network.parameter_count()
    assert repr(model) == f"{shown}: {len(model.vocabulary) - 1} words, {count:,} parameters"


def test_a_misspelt_argument_gets_a_suggestion() -> None:
    with pytest.raises(TypeError, match="LanguageModel: no argument contxt; did you mean 'context'"):
        LanguageModel(contxt=3)
    with pytest.raises(TypeError, match="LanguageModel: steps is an argument of its fit"):
        LanguageModel(steps=3)


def test_each_word_has_its_log_probability(model: LanguageModel) -> None:
    found = model.log_probability("anna paints a zeppelin.")
    assert [word for word, _ in found] == ["anna", "paints", "a", "<unk>", "."]
    assert [math.isnan(number) for _, number in found] == [False, False, False, True, False]
    known = [number for _, number in found if not math.isnan(number)]
    assert -np.mean(known) == pytest.approx(model.evaluate("anna paints a zeppelin.").loss, rel=1e-6)
    [(next_word, probability)] = model.next_word("anna", k=1)
    assert math.exp(model.log_probability(f"anna {next_word}")[1][1]) == pytest.approx(probability, rel=1e-2)


@pytest.mark.parametrize("name", ["nope", "damaged.safetensors"])
def test_what_cannot_be_loaded_is_one_exception(name: str, tmp_path: Path) -> None:
    (tmp_path / "damaged.safetensors").write_bytes(bytes(1_000))
    with pytest.raises(ModelError, match=f"cannot load .*{name}: ") as caught:
        LanguageModel.load(tmp_path / name)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("progress", "terminal", "shown"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_fit_shows_its_progress_on_a_terminal_unless_told_not_to(
    progress: bool | None,
    terminal: bool,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    LanguageModel(**SMALL).fit("anna paints a red door. " * 50, steps=20, progress=progress)
    told = capsys.readouterr().err
    assert ("100%" in told and "step=20" in told) if shown else told == ""


def test_a_notebook_shows_a_table() -> None:
    model = LanguageModel(context=2, embed=4, hidden=(8,), backend="numpy")
    assert "LanguageModel: not trained" in model._repr_html_()
    model.fit("to be or not to be. " * 50, steps=20)
    shown = model._repr_html_()
    assert f'<td style="text-align: left">{model.network.parameter_count():,}</td>' in shown
    assert ">5</td>" in shown  # words
    assert html_table("<a>", {"<b>": "&", "none": None}).count("&lt;") == 2
    assert "none" not in html_table("<a>", {"<b>": "&", "none": None})


def test_a_notebook_shows_a_history_with_its_picture() -> None:
    model = LanguageModel(context=2, embed=4, hidden=(8,), backend="numpy")
    history = model.fit("to be or not to be. " * 50, steps=20)
    shown = history._repr_html_()
    encoded = re.search(r'src="data:image/png;base64,([^"]+)"', shown)
    assert encoded is not None
    assert Image.open(io.BytesIO(base64.b64decode(encoded[1]))).size == (600, 450)
    assert f"{history.val_loss:.3f}, step {history.best_step:,}" in shown
