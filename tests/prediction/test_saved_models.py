"""Model files, pickles and copies: a model comes back as it was."""

import copy
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.config import TrainConfig, to_toml
from fastmlp.errors import ModelError
from fastmlp.files import checkpoint
from fastmlp.files.run_folder import model_file
from fastmlp.language_model import LanguageModel, load_language_model
from fastmlp.network.network import Network
from fastmlp.network.shape import NetworkShape
from fastmlp.ops import Ops
from fastmlp.ops.backend import Backend
from fastmlp.prediction.kneser_ney import KneserNey
from fastmlp.prediction.mixture import load_predictor, times_seen
from fastmlp.text.vocabulary import Vocabulary
from fastmlp.text.words import IDS
from tests.helpers import NUMPY
from tests.networks import small_language
from tests.prediction.helpers import QUICK, SMALL, WINDOW, fitted, state_of
from tests.runs import learnable_text

# ---------------------------------------------------------------------------------------------------------- model files

OF_SMALL = {"context": 3, "embed": 4, "hidden": [6]}  # the network of small_language


def save(path: Path, rng: np.random.Generator, **changes: Any) -> None:
    language = small_language(rng, NUMPY)
    metadata = {**language.metadata(), "vocabulary": list(language.vocabulary.words), **changes}
    checkpoint.save(path, language.network.state_dict(), {k: v for k, v in metadata.items() if v is not None})


def test_a_model_comes_back_as_it_was(ops: Ops, rng: np.random.Generator, tmp_path: Path) -> None:
    language = small_language(rng, ops, unk_trained=True)
    extra = {"optimizer.mean.output.bias": np.ones(3, np.float32)}
    file = tmp_path / "model.safetensors"
    checkpoint.save(file, {**language.tensors(), **extra}, language.metadata())
    loaded = load_language_model(file, ops)
    assert (loaded.vocabulary, loaded.tokenizer.name, loaded.unk_trained) == (language.vocabulary, "words", True)
    assert loaded.network.shape == language.network.shape
    for name, array in language.network.state_dict().items():
        assert loaded.network.state_dict()[name].tobytes() == array.tobytes()


def test_a_vocabulary_is_saved_whatever_its_size(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header of a file has a limit, and nothing in it grows with the words."""
    monkeypatch.setattr(checkpoint, "LONGEST_HEADER", 10_000)
    monkeypatch.setattr(checkpoint, "ROOM", 5_000)
    text = " ".join(f"{word} é{word}" for word in range(2_000)) + ". A"
    for tokenizer in ("words", "prose"):
        model = LanguageModel(context=1, embed=2, hidden=(2,), tokenizer=tokenizer, backend="numpy")
        model.fit(text, steps=2, out=tmp_path / tokenizer)
        model.save(tmp_path / "model.safetensors")
        for saved in (tmp_path / tokenizer, tmp_path / "model.safetensors"):
            again = LanguageModel.load(saved, backend="numpy")
            assert again.vocabulary == model.vocabulary
            assert again.tokenizer.capitalized == model.tokenizer.capitalized
        counts = KneserNey(tokenizer=tokenizer).fit(text)
        counts.save(tmp_path / "counts.safetensors")
        assert KneserNey.load(tmp_path / "counts.safetensors").vocabulary == counts.vocabulary


def test_a_model_without_rules_splits_by_rules_1(rng: np.random.Generator, tmp_path: Path) -> None:
    language = small_language(rng, NUMPY)
    metadata = language.metadata()
    assert metadata["rules"] == 2
    for rules, words in ((2, ["dont"]), (1, ["don", "t"])):
        checkpoint.save(tmp_path / "model.safetensors", language.tensors(), metadata)
        assert load_language_model(tmp_path / "model.safetensors", NUMPY).tokenizer.split("don´t") == words
        assert load_language_model(tmp_path / "model.safetensors", NUMPY).tokenizer.rules == rules
        metadata.pop("rules", None)
    checkpoint.save(tmp_path / "model.safetensors", language.tensors(), {**metadata, "rules": 3})
    with pytest.raises(ModelError, match="rules: expected one of 1 to 2, got 3; upgrade fastmlp"):
        load_language_model(tmp_path / "model.safetensors", NUMPY)


def test_a_folder_stands_for_its_best_model_else_for_its_last(rng: np.random.Generator, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a folder without model\.safetensors; name a run's folder"):
        load_language_model(tmp_path, NUMPY)
    (tmp_path / "config.toml").write_text(to_toml(TrainConfig()))
    with pytest.raises(
        ModelError, match=r"nothing of this run is saved yet; wait for it, or go on with it: .*--resume"
    ):
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
        ({"network": {**OF_SMALL, "mixture": 3, "gates": 1}}, "its network has gates, mixture, not known to this fast"),
        ({"network": {**OF_SMALL, "tied": True}}, "projection: expected one where the weights are tied"),
        ({"network": {**OF_SMALL, "averages": [0.5]}}, "reach: expected at least 1 with averages and 0 without, got 0"),
        ({"network": [3, 4]}, "its network is not described by names"),
        ({"network": {**OF_SMALL, "embed": "4"}}, "embed: not of the type that it has in a network: '4'"),
        ({"network": {**OF_SMALL, "hidden": [True]}}, "hidden: not of the type that it has in a network: (True,)"),
        ({"network": {**OF_SMALL, "x\ny": 1}}, r"its network has x\ny"),
        ({"vocabulary": "ab"}, "expected a list of words as JSON"),
        ({"mixture": 3}, "its mixture does not belong to this model"),
        ({"config": 3}, "not as fastmlp writes it (TypeError: "),
        ({"network": {**OF_SMALL, "activation": "sine"}}, "activation: expected one of tanh, gelu, relu, got 'sine'"),
    ],
)
def test_what_is_no_model_is_refused(changes: Any, message: str, rng: np.random.Generator, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save(file, rng, **changes)
    with pytest.raises(ModelError, match=r"cannot load|model\.safetensors: ") as refused:
        load_language_model(file, NUMPY)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_promise_8_a_file_does_not_decide_how_much_memory_is_taken(rng: np.random.Generator, tmp_path: Path) -> None:
    """The sizes of its network are compared with its tensors before there is a network."""
    file = tmp_path / "model.safetensors"
    for changes in ({"embed": 1 << 40}, {"hidden": [1 << 40]}, {"blocks": 1 << 40}, {"context": 1 << 40}):
        save(file, rng, network={**OF_SMALL, **changes})
        tracemalloc.start()
        try:
            with pytest.raises(ModelError, match=r"state: (fewer tensors|.*expected shape|missing)"):
                load_language_model(file, NUMPY)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
    save(file, rng, network={**OF_SMALL, "averages": [0.5], "reach": 1_000_001})
    with pytest.raises(ModelError, match="reach: expected at most 1,000,000 words"):
        load_language_model(file, NUMPY)


def test_promise_15_loading_takes_the_memory_that_is_stated(tmp_path: Path) -> None:
    shape = NetworkShape(vocabulary=1_001, context=1, embed=1_000, hidden=(1_000,), projection=True, tied=True)
    network = Network(shape, NUMPY, seed=1)
    LanguageModel.from_network(network, Vocabulary.of_ids(1_000), IDS, unk_trained=True).save(
        tmp_path / "model.safetensors"
    )
    tracemalloc.start()
    try:
        load_language_model(tmp_path / "model.safetensors", NUMPY)
        assert tracemalloc.get_traced_memory()[1] < 3.1 * (tmp_path / "model.safetensors").stat().st_size
    finally:
        tracemalloc.stop()


def changed(path: Path, tensors: dict[str, Any] | None = None, **metadata: Any) -> None:
    """Change a model's file, whose digest is right again."""
    before, said = checkpoint.load(path)
    checkpoint.save(path, {**before, **(tensors or {})}, {**said, **metadata})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"1.key": np.arange(3, dtype=np.int64)}, "n-grams: those of 1"),
        ({"2.key": np.array([1 << 40] * 9, np.int64)}, "n-grams: those of 2"),
        ({"2.probability": np.array([0.5], np.float32)}, "n-grams: those of 2"),
        ({"1.backoff": np.array(np.nan, np.float32)}, "n-grams: those of 1"),
        ({"3.count": np.zeros(1, np.int64)}, "n-grams: those of 3"),
        ({"4.key": np.zeros(1, np.int64)}, "n-grams: keys or probabilities are missing"),
        ({"vocabulary": np.frombuffer(b"[" * 100_000, np.uint8)}, "expected a list of words as JSON"),
        ({"vocabulary": np.frombuffer(b"[1]", np.uint8)}, "expected a list of words as JSON"),
    ],
)
def test_promise_8_ngrams_that_no_model_has_are_refused(tensors: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "counts.safetensors"
    KneserNey(3).fit(learnable_text(20)).to_arpa(tmp_path / "counts.arpa")
    KneserNey.from_arpa(tmp_path / "counts.arpa").save(file)
    assert KneserNey.load(file).order == 3
    changed(file, tensors)
    with pytest.raises(ModelError, match=message):
        KneserNey.load(file)


@pytest.mark.parametrize(
    "weights",
    [{}, {"network+cache": [[0.5, 0.5]]}, {"network+cache": [[-1, 2]] * 4}, {"network+cache": [["a", 1]] * 4}],
)
def test_promise_8_weights_that_no_mixture_has_are_refused(
    weights: Any, rng: np.random.Generator, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    mixture = {"order": None, "cache": {"size": 10, "sharpness": 1.0}}
    save(file, rng, mixture={**mixture, "weights": {"network+cache": [[0.5, 0.5]] * 4}})
    assert load_predictor(file, NUMPY).names == ("network", "cache")
    save(file, rng, mixture={**mixture, "weights": weights})
    with pytest.raises(ModelError, match="its mixture"):
        load_predictor(file, NUMPY)


def test_promise_8_counted_words_that_a_model_does_not_have_are_refused(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """They would decide the memory that their counts take."""
    file = tmp_path / "model.safetensors"
    save(file, rng)
    changed(file, {"counts.ids": np.array([1, 4_000_000_000], np.uint32)})
    with pytest.raises(ModelError, match=r"counts.ids: expected ids in"):
        times_seen(file, 10)


def test_a_text_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "hp.txt").write_text("It was a dark and stormy night.")
    with pytest.raises(ModelError, match=r"cannot load .*hp\.txt: "):
        load_language_model(tmp_path / "hp.txt", NUMPY)
    with pytest.raises(ModelError, match="there is no such file"):
        load_language_model(tmp_path / "nothing", NUMPY)


# ---------------------------------------------------------------------------------------------- saved, pickled, copied


def outputs_of(model: LanguageModel) -> tuple[Any, ...]:
    return (
        state_of(model),
        model.generate("anna", 20, seed=1),
        model.next_word("in the", k=None),
        model.perplexity(learnable_text(20)),
        model.neighbors("red", k=None),
    )


@pytest.mark.parametrize("which", ["model", "window_model"])
@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy"])
def test_promise_4_a_model_that_was_saved_gives_the_same_bits(
    way: str, which: str, ops: Ops, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: LanguageModel = request.getfixturevalue(which)
    own = LanguageModel.from_network(
        Network(model.network.shape, ops, parameters=model.network.state_dict()),
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
    assert again.network.shape == own.network.shape


@pytest.mark.parametrize("way", ["fitted", "file", "pickle", "deepcopy", "before training"])
def test_a_model_with_tied_weights_has_one_table(way: str, window_model: LanguageModel, tmp_path: Path) -> None:
    model = window_model
    if way == "file":
        model.save(tmp_path / "model.safetensors")
        assert "output.weight" not in checkpoint.load(tmp_path / "model.safetensors")[0]
        model = LanguageModel.load(tmp_path / "model.safetensors", backend="numpy")
    elif way == "pickle":
        model = pickle.loads(pickle.dumps(model))
    elif way == "deepcopy":
        model = copy.deepcopy(model)
    elif way == "before training":
        model = pickle.loads(pickle.dumps(LanguageModel(**WINDOW)))
        model.fit(learnable_text(100), **QUICK)
        assert state_of(model) == state_of(fitted(WINDOW))
    network = model.network
    assert network.shape.tied
    assert network.layers.output.weight is network.layers.embedding.weight
    assert network.parameters["embedding.weight"] is network.layers.embedding.weight
    assert "output.weight" not in network.state_dict()


def test_neighbors_map_and_figures_are_of_the_one_table(window_model: LanguageModel, tmp_path: Path) -> None:
    """As it is now: another embedding is another neighbor, and another loss, and another map."""
    model, text = copy.deepcopy(window_model), learnable_text(20)
    table = model.network.parameters["embedding.weight"]
    likeness = {word: cosine for cosine, word in [(b, a) for a, b in model.neighbors("red", k=None)]}
    common = table.mean(axis=0) / np.linalg.norm(table.mean(axis=0))
    directions = table - np.outer(table @ common, common)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    red = directions[model.vocabulary.id_of("red")]
    for word, cosine in likeness.items():
        assert cosine == pytest.approx(float(directions[model.vocabulary.id_of(word)] @ red), abs=1e-5)
    perplexity, drawn = model.perplexity(text), []
    for name in ("before.svg", "after.svg"):
        model.plot_words(tmp_path / name, 20)
        drawn.append((tmp_path / name).read_text(encoding="utf-8"))
        table[model.vocabulary.id_of("bread")] = table[model.vocabulary.id_of("red")]
    assert model.neighbors("red", k=1)[0] == ("bread", pytest.approx(1, abs=1e-6))
    assert drawn[0] != drawn[1]
    assert model.perplexity(text) > perplexity


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
    monkeypatch.setattr("fastmlp.ops.backend.choose_backend", lambda name: slow)
    with pytest.warns(UserWarning, match="the kernels are not built") as told:
        LanguageModel.load(tmp_path / "model.safetensors")
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="the kernels are not built"):
        fitted(steps=2)
