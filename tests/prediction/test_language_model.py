"""The language model as a library: it trains as the command does, its files are the command's, its errors say why."""

import contextlib
import copy
import hashlib
import inspect
import json
import math
import os
import pickle
import select
import signal
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp import evaluate, generate, neighbors
from fastmlp.config import MODEL_OPTIONS, TrainConfig, TrainingOptions, options
from fastmlp.console import Console
from fastmlp.errors import DivergedError, ModelError, NotTrainedError, RunFolderError
from fastmlp.events import Event, Finished, Reporter
from fastmlp.files import checkpoint
from fastmlp.files.run_folder import model_file
from fastmlp.language_model import LanguageModel, load_language_model
from fastmlp.network.network import MLP
from fastmlp.ops import Ops
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.text import TextError, get_tokenizer
from fastmlp.trainer import train
from tests.helpers import NUMPY
from tests.networks import small_language
from tests.runs import (
    learnable_text,
    metrics_of,
    outcome,
    small_config,
    small_options,
    stop_after,
    unigram_entropy,
    write_text,
)

# ---------------------------------------------------------------------------------------------------------- model files


def save(path: Path, rng: np.random.Generator, **changes: Any) -> None:
    language = small_language(rng, NUMPY)
    metadata = {**language.metadata(), **changes}
    checkpoint.save(path, language.network.state_dict(), {k: v for k, v in metadata.items() if v is not None})


def test_a_model_comes_back_as_it_was(ops: Ops, rng: np.random.Generator, tmp_path: Path) -> None:
    language = small_language(rng, ops, unk_trained=True)
    extra = {"optimizer.mean.output.bias": np.ones(3, np.float32)}
    file = tmp_path / "model.safetensors"
    checkpoint.save(file, {**language.network.state_dict(), **extra}, language.metadata())
    loaded = load_language_model(file, ops)
    assert (loaded.vocabulary, loaded.tokenizer.name, loaded.unk_trained) == (language.vocabulary, "words", True)
    assert loaded.network.shape == language.network.shape
    for name, array in language.network.state_dict().items():
        assert loaded.network.state_dict()[name].tobytes() == array.tobytes()


def test_a_folder_stands_for_its_best_model_else_for_its_last(rng: np.random.Generator, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a folder without model\.safetensors; name a run's folder"):
        load_language_model(tmp_path, NUMPY)
    save(tmp_path / "last.safetensors", rng)
    assert model_file(tmp_path).name == "last.safetensors"
    save(tmp_path / "model.safetensors", rng)
    assert model_file(tmp_path).name == "model.safetensors"
    assert load_language_model(tmp_path, NUMPY).network.shape.context == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": None}, "it holds no language model: vocabulary missing"),
        ({"tokenizer": "syllables"}, "its tokenizer 'syllables' is not known to this fastmlp"),
        ({"network": {"context": 3, "embed": 4, "hidden": [7]}}, "expected shape"),
        ({"network": {"context": 3, "embed": 4, "hidden": [6, 6]}}, "missing: hidden.1"),
        ({"vocabulary": ["a", "b"]}, "expected <unk> as the last one"),
    ],
)
def test_what_is_no_model_is_refused(changes: Any, message: str, rng: np.random.Generator, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save(file, rng, **changes)
    with pytest.raises(ModelError, match=r"cannot load|model\.safetensors: ") as refused:
        load_language_model(file, NUMPY)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_text_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "hp.txt").write_text("It was a dark and stormy night.")
    with pytest.raises(ModelError, match=r"cannot load .*hp\.txt: "):
        load_language_model(tmp_path / "hp.txt", NUMPY)
    with pytest.raises(ModelError, match="there is no such file"):
        load_language_model(tmp_path / "nothing", NUMPY)


# ------------------------------------------------------------------------------------------------------------- fitting

SMALL: dict[str, Any] = {"context": 3, "embed": 6, "hidden": (12, 10), "backend": "numpy"}
QUICK: dict[str, Any] = {"steps": 60, "batch_size": 32, "lr": 0.02, "log_every": 20, "eval_every": 20}


def fitted(**options: Any) -> LanguageModel:
    model = LanguageModel(**SMALL)
    model.fit(learnable_text(100), **{**QUICK, **options})
    return model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """It knows the sentences of tests/runs.py by heart."""
    return fitted(steps=250)


def state_of(model: LanguageModel) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.network.state_dict().items()}


def test_fit_learns_on_every_back_end(ops: Ops) -> None:
    model = LanguageModel(**{**SMALL, "backend": ops.backend, "threads": 2})
    history = model.fit(learnable_text(100), **{**QUICK, "steps": 150})
    assert history.losses[0] == pytest.approx(math.log(len(model.vocabulary)), rel=0.02)
    assert history.val_loss is not None
    assert history.val_loss < 0.25 * unigram_entropy(get_tokenizer("words").split(learnable_text(100)))
    assert model.network.ops.backend == ops.backend
    assert model.network.threads == 2


def test_a_text_its_file_and_its_folder_give_the_same_bits_as_the_command(tmp_path: Path) -> None:
    file = write_text(tmp_path)
    train(small_config(file, tmp_path / "run"))
    want = state_of(LanguageModel.load(tmp_path / "run", backend="numpy"))
    windows_text = "\ufeff" + learnable_text().replace("\n", "\r\n")
    for text in (learnable_text(), windows_text, file, [str(file)], (file,), tmp_path):
        model = LanguageModel(**SMALL)
        model.fit(text, **fit_options())
        assert state_of(model) == want


def fit_options(**options: Any) -> dict[str, Any]:
    """small_options without what belongs to the model and to a folder."""
    kept = {name: value for name, value in small_options().items() if name not in MODEL_OPTIONS}
    kept.pop("save_every")
    return {**kept, **options}


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fitted()
    assert list(tmp_path.iterdir()) == []


def test_in_a_folder_it_is_the_run_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmlp.training.keeper.plot_loss", lambda *_, **__: None)
    file = write_text(tmp_path)
    train(small_config(file, tmp_path / "command"))
    model = LanguageModel(**SMALL)
    history = model.fit(file, out=tmp_path / "fit", **fit_options(save_every=4))
    assert outcome(tmp_path / "fit") == outcome(tmp_path / "command")
    assert list(history.metrics) == metrics_of(tmp_path / "fit")
    assert state_of(model) == state_of(LanguageModel.load(tmp_path / "fit", backend="numpy"))
    with pytest.raises(RunFolderError, match="already holds a run"):
        model.fit(file, out=tmp_path / "fit", **fit_options())
    again = LanguageModel(**SMALL).fit(file, out=tmp_path / "fit", resume=True, **fit_options(save_every=4))
    assert again.metrics == history.metrics


@pytest.mark.parametrize("val_fraction", [0.05, 0.0])
def test_the_history_has_what_a_run_of_the_command_writes(val_fraction: float, tmp_path: Path) -> None:
    file = write_text(tmp_path)
    result = train(small_config(file, tmp_path / "run", val_fraction=val_fraction))
    lines = metrics_of(tmp_path / "run")
    history = LanguageModel(**SMALL).fit(file, **fit_options(val_fraction=val_fraction))
    assert history.steps.tolist() == [line["step"] for line in lines]
    assert history.losses.tolist() == [line["loss"] for line in lines]
    assert history.val_losses.tolist() == [line["val_loss"] for line in lines if "val_loss" in line]
    assert history.val_steps.tolist() == ([10, 20, 30] if val_fraction else [])
    assert history.finished
    assert (history.best_step, history.val_loss) == (result.kept_step, result.kept_val_loss)
    assert (history.val_loss is None) == (val_fraction == 0)
    assert history.test_perplexity is None


def test_the_model_has_the_weights_of_the_best_validation() -> None:
    """A rate that grows until it ruins the network: what was best before is kept, as if training had ended there."""
    ruinous = {**QUICK, "schedule": "constant", "optimizer": "sgd", "lr": 200.0, "warmup": 60, "eval_every": 1}
    model = LanguageModel(**SMALL)
    history = model.fit(learnable_text(100), **ruinous)
    assert history.best_step is not None
    assert 0 < history.best_step == history.val_steps[history.val_losses.argmin()] < 60
    stopped = LanguageModel(**SMALL)
    stopped.fit(learnable_text(100), should_stop=stop_after(history.best_step), **ruinous)
    assert state_of(stopped) == state_of(model)


def test_a_training_that_is_stopped_leaves_a_model() -> None:
    model = LanguageModel(**SMALL)
    history = model.fit(learnable_text(100), should_stop=stop_after(7), **QUICK)
    assert not history.finished
    assert (history.best_step, history.val_loss) == (None, None)
    assert model.network.statistics["hidden.0.batchnorm.num_batches_tracked"] == 7


def test_it_can_be_watched_as_the_command_is(capsys: pytest.CaptureFixture[str]) -> None:
    model = LanguageModel(**SMALL)
    with Console(bar=False) as console:
        model.fit(learnable_text(100), reporter=console, **QUICK)
        model.fit(learnable_text(100), reporter=console, should_stop=stop_after(7), **QUICK)
    out = capsys.readouterr().out
    assert out.startswith("text      text in memory: ")
    assert "running   numpy, precision ieee, " in out
    assert "\ndone: 60 steps in " in out
    assert out.endswith("stopped after step 7\n")
    assert "None" not in out
    assert "writing" not in out


def test_a_run_in_memory_says_how_long_it_took() -> None:
    class Watch(Reporter):
        def report(self, event: Event) -> None:
            if isinstance(event, Finished):
                seconds.append(event.seconds)

    seconds: list[float] = []
    history = LanguageModel(**SMALL).fit(learnable_text(100), reporter=Watch(), **QUICK)
    assert seconds[0] >= history.metrics[-1]["seconds"] - 0.001 > 0


def test_a_training_that_fails_changes_nothing(model: LanguageModel) -> None:
    before = state_of(model)
    with pytest.raises(DivergedError, match=r"try a lower one, such as lr=0.1; nothing is kept"):
        model.fit(learnable_text(100), **{**QUICK, "optimizer": "sgd", "lr": 1e30, "schedule": "constant", "warmup": 0})
    with pytest.raises(TextError, match="too short"):
        model.fit("king")
    assert state_of(model) == before


def test_fit_begins_anew_each_time() -> None:
    model = fitted()
    before = state_of(model)
    model.fit(learnable_text(100), **QUICK)
    assert state_of(model) == before


def test_the_picture_is_matplotlibs_and_may_be_written(tmp_path: Path) -> None:
    history = LanguageModel(**SMALL).fit(learnable_text(100), **QUICK)
    figure = history.plot(tmp_path / "loss.png", title="sentences")
    assert figure.axes[0].get_title() == "sentences"
    assert figure.axes[0].lines[0].get_xdata().tolist() == history.steps.tolist()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.png, got '.*loss\.jpg'"):
        history.plot(tmp_path / "loss.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_a_history_shows_what_matters() -> None:
    history = LanguageModel(**SMALL).fit(learnable_text(100), **QUICK)
    best = f"validation loss {history.val_loss:.3f}, perplexity {history.val_perplexity:.1f}, step {history.best_step}"
    assert repr(history) == (
        f"History({history.steps[-1]} steps, loss {history.losses[0]:.3f} to {history.losses[-1]:.3f}; {best})"
    )
    assert repr(LanguageModel(**SMALL).fit(learnable_text(100), should_stop=lambda: True)) == "History(no steps)"


def test_words_of_a_kind_lie_together_on_the_map(model: LanguageModel, tmp_path: Path) -> None:
    """The five names, after which all else differs, follow the same word."""
    figure = model.plot_words(tmp_path / "map.svg", title="sentences")
    words = [word for word in model.vocabulary.words if word not in (".", "<unk>")]
    assert figure.axes[0].get_title() == f"sentences: the {len(words)} most frequent words"
    points = dict(zip(words, figure.axes[0].lines[0].get_xydata(), strict=True))
    names = {"anna", "boris", "clara", "david", "elena"}
    nearest = sorted(words, key=lambda word: np.linalg.norm(points[word] - points["anna"]))[:5]
    assert set(nearest) == names
    assert {word for word, _ in model.neighbors("anna", 4)} == names - {"anna"}
    assert (tmp_path / "map.svg").exists()
    few = model.plot_words(n=7).axes[0]
    assert few.get_title() == "language model: the 7 most frequent words"
    assert {text.get_text() for text in few.texts} <= set(words[:7])


def test_the_arguments_are_those_of_the_configuration() -> None:
    """One dataclass has all defaults; every option is the model's, of its training, or says where the text is."""
    default, arguments = TrainConfig(), inspect.signature(LanguageModel).parameters
    assert tuple(arguments) == MODEL_OPTIONS
    assert {name: item.default for name, item in arguments.items()} == {
        name: getattr(default, name) for name in MODEL_OPTIONS
    }
    assert {*MODEL_OPTIONS, *TrainingOptions.__annotations__, "files", "out"} == {*options(), "preset"}
    described = inspect.getdoc(LanguageModel.fit) or ""
    assert all(name in described for name in TrainingOptions.__annotations__)


# ----------------------------------------------------------------------------------------------------------------- ids


def test_ids_of_any_integer_type_and_layout_are_trained_on() -> None:
    ids = np.tile(np.arange(5), 100)
    read_only = ids.astype(np.uint8)
    read_only.flags.writeable = False
    want = None
    for given in (ids.tolist(), ids, read_only, np.repeat(ids, 2)[::2], ids.astype(">i2"), ids.astype(np.uint64)):
        model = LanguageModel(**SMALL, vocab_size=5)
        history = model.fit(given, **QUICK)
        want = want or state_of(model)
        assert state_of(model) == want
    assert history.losses[0] == pytest.approx(math.log(6), rel=0.02)
    assert model.network.shape.vocabulary == 6
    continued = model.generate([3, 4], 5, temperature=0)
    assert (continued.dtype, continued.tolist()) == (np.int32, [3, 4, 0, 1, 2, 3, 4])
    assert model.generate("3 4", 2, temperature=0) == "3 4 0 1"
    (first, probability), *_ = model.next_word([1, 2])
    assert (first, type(first)) == (3, int)
    assert 0.5 < probability < 1
    assert sorted(number for number, _ in model.neighbors(2, k=None)) == [0, 1, 3, 4]
    assert model.perplexity(ids) == model.perplexity(" ".join(map(str, ids))) < 2


def test_a_run_on_ids_is_resumed_with_the_same_bits_and_no_other_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmlp.training.keeper.plot_loss", lambda *_, **__: None)
    ids = np.tile(np.arange(5), 100)
    model, out = LanguageModel(**SMALL, vocab_size=5), tmp_path / "run"
    assert not model.fit(ids, out=out, should_stop=stop_after(25), **QUICK).finished
    with pytest.raises(RunFolderError, match=r"was trained on another text \(ids in memory\)"):
        model.fit(ids[1:], out=out, resume=True, **QUICK)
    assert model.fit(ids, out=out, resume=True, **QUICK).finished
    in_one_go = LanguageModel(**SMALL, vocab_size=5)
    in_one_go.fit(ids, **QUICK)
    assert state_of(model) == state_of(in_one_go)


@pytest.mark.parametrize(
    ("given", "vocab_size", "error", "message"),
    [
        ([0, 1, 5], 5, IndexError, r"text: expected ids in \[0, 5\), got 5"),
        ([0, -1, 1], 5, IndexError, r"text: expected ids in \[0, 5\), got -1"),
        ([0, 1 << 40], 5, IndexError, r"text: expected ids in \[0, 5\), got 1099511627776"),
        ([[0, 1], [1, 0]], 5, ValueError, r"text: expected shape \(N,\), got \(2, 2\)"),
        ([], 5, TextError, "text is too short"),
        ([0, 1] * 50, None, ConfigError, "vocab_size: expected how many different ids there are"),
        ([0.0, 1.0], 5, TypeError, r"text: expected a text \(str\), a file .*; got list of float64"),
        ([True, False], 5, TypeError, "got list of bool"),
        ([[0, 1], [1]], 5, TypeError, "got list of object"),
        (["hp.txt", 1], 5, TypeError, "got list of <U"),
        (b"to be or not to be", 5, TypeError, "integers; got bytes"),
        (None, 5, TypeError, "got NoneType"),
        (3, 5, ValueError, r"text: expected shape \(N,\), got \(\)"),
    ],
)
def test_promise_12_what_is_no_text_is_refused_by_name(
    given: Any, vocab_size: int | None, error: type[Exception], message: str
) -> None:
    model = LanguageModel(**SMALL, vocab_size=vocab_size)
    with pytest.raises(error, match=message):
        model.fit(given, **QUICK)


def test_promise_12_ids_that_a_model_does_not_have_are_refused_everywhere() -> None:
    model = LanguageModel(**SMALL, vocab_size=5)
    model.fit([0, 1, 2, 3, 4] * 50, **QUICK)
    for call in (model.generate, model.next_word, model.perplexity):
        with pytest.raises(IndexError, match=r"(prompt|text): expected ids in \[0, 5\), got 5"):
            call([5])
    with pytest.raises(IndexError, match=r"word: expected ids in \[0, 5\), got 9"):
        model.neighbors(9)


# ------------------------------------------------------------------------------------------------------------ using it


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
    drawn = [model.generate("", 1, seed=rng) for _ in range(1_000)]
    for word, probability in model.next_word(""):
        assert drawn.count(word) / 1_000 == pytest.approx(probability, abs=0.06)


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
            lambda m: LanguageModel(hidden=None),
            ConfigError,
            r"hidden: expected a value, such as \(300, 300\), got None",
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
    count = model.network.shape.parameter_count()
    assert repr(model) == f"{shown}: {len(model.vocabulary) - 1} words, {count:,} parameters"


# ---------------------------------------------------------------------------------------------- saved, pickled, copied


def outputs_of(model: LanguageModel) -> tuple[Any, ...]:
    return (
        state_of(model),
        model.generate("anna", 20, seed=1),
        model.next_word("in the", k=None),
        model.perplexity(learnable_text(20)),
        model.neighbors("red", k=None),
    )


@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy"])
def test_promise_4_a_model_that_was_saved_gives_the_same_bits(
    way: str, ops: Ops, model: LanguageModel, tmp_path: Path
) -> None:
    own = LanguageModel.from_network(
        MLP(model.network.shape, ops, parameters=model.network.state_dict()),
        model.vocabulary,
        model.tokenizer,
        unk_trained=False,
    )
    if way == "file":
        own.save(tmp_path / "model.safetensors")
        again = LanguageModel.load(tmp_path / "model.safetensors", backend=ops.backend, threads=1)
    else:
        again = pickle.loads(pickle.dumps(own)) if way == "pickle" else copy.deepcopy(own)
    assert outputs_of(again) == outputs_of(own)
    assert repr(again) == repr(own)
    assert not np.shares_memory(again.network.parameters["output.bias"], own.network.parameters["output.bias"])


def test_what_was_asked_for_survives_saving(tmp_path: Path) -> None:
    model = LanguageModel(**SMALL, vocab_size=20, min_count=2, seed=7)
    model.fit(learnable_text(100), **QUICK)
    model.save(tmp_path / "model.safetensors")
    again = LanguageModel.load(tmp_path / "model.safetensors", backend="numpy")
    again.fit(learnable_text(100), **QUICK)
    assert state_of(again) == state_of(model)
    numbers = LanguageModel(**SMALL, vocab_size=5)
    numbers.fit([0, 1, 2, 3, 4] * 50, **QUICK)
    numbers.save(tmp_path / "numbers.safetensors")
    again = LanguageModel.load(tmp_path / "numbers.safetensors", backend="numpy")
    assert repr(again) == repr(numbers)
    assert again.generate([1], 9, seed=1).tolist() == numbers.generate([1], 9, seed=1).tolist()


def test_a_model_that_is_not_trained_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(LanguageModel(**SMALL)))
    assert repr(again) == repr(LanguageModel(**SMALL))
    again.fit(learnable_text(100), **QUICK)
    assert state_of(again) == state_of(fitted())


def test_a_missing_back_end_is_told_not_hidden(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path / "model.safetensors")
    slow = Backend(NUMPY, None, None, "the kernels are not built")
    monkeypatch.setattr("fastmlp.language_model.choose_backend", lambda name: slow)
    with pytest.warns(UserWarning, match="the kernels are not built") as told:
        LanguageModel.load(tmp_path / "model.safetensors")
    assert told[0].filename == __file__
    monkeypatch.setattr("fastmlp.trainer.choose_backend", lambda name: slow)
    with pytest.warns(UserWarning, match="the kernels are not built"):
        fitted(steps=2)


# ----------------------------------------------------------------------------------------------- threads and processes


def train_two(ops: Ops, *, at_once: bool) -> list[dict[str, bytes]]:
    """Two models of different sizes, large enough for two hands, each trained by a Python thread of its own."""
    ids = np.random.default_rng(3).integers(0, 1_500, 4_000)
    models = [
        LanguageModel(context=3, embed=6, hidden=(width,), vocab_size=1_500, backend=ops.backend, threads=2)
        for width in (64, 40)
    ]
    options = {**QUICK, "steps": 20, "val_fraction": 0.0}
    threads = [threading.Thread(target=model.fit, args=(ids,), kwargs=options) for model in models]
    for thread in threads:
        thread.start()
        if not at_once:
            thread.join()
    for thread in threads:
        thread.join()
    return [state_of(model) for model in models]


def test_promise_16_two_threads_that_train_at_once_get_the_bits_of_one_after_the_other(ops: Ops) -> None:
    want = train_two(ops, at_once=False)
    for _ in range(3):
        assert train_two(ops, at_once=True) == want


def test_promise_16_threads_that_use_one_model_get_its_own_answers(model: LanguageModel) -> None:
    """The network has one set of buffers, and <unk> another embedding while it is read."""

    def answers(seed: int) -> list[Any]:
        text = learnable_text(20) + "zebra"
        return [
            model.generate("anna paints", 20, seed=seed),
            model.perplexity(text),
            model.next_word("in", 2),
            pickle.dumps(model),
        ]

    want = [answers(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(answers, range(4))) == want


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_promise_16_a_forked_child_trains_and_writes_the_same(ops: Ops) -> None:
    """Though another thread of the parent is using the model."""
    model = LanguageModel(**{**SMALL, "backend": ops.backend, "threads": 2})
    model.fit(learnable_text(100), **QUICK)
    want = [model.generate("anna", 10, seed=1), hashlib.sha256(repr(state_of(model)).encode()).hexdigest()]
    child_reads, child_writes = os.pipe()
    in_use, forked = threading.Event(), threading.Event()

    def use() -> None:
        with model._lock:
            in_use.set()
            forked.wait()

    other = threading.Thread(target=use)
    other.start()
    in_use.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of threads, which is what is tested
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            text = model.generate("anna", 10, seed=1)
            model.fit(learnable_text(100), **QUICK)
            found = [text, hashlib.sha256(repr(state_of(model)).encode()).hexdigest()]
            os.write(child_writes, json.dumps(found).encode())
        os._exit(0)
    forked.set()
    other.join()
    os.close(child_writes)
    ready, _, _ = select.select([child_reads], [], [], 60)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert ready, "the child hangs"
    assert json.loads(os.read(child_reads, 10_000) or b"null") == want
    os.close(child_reads)
