"""LanguageModel.fit: on a text, its files and ids; its history, its figures, its folder."""

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.config import MODEL_OPTIONS, NETWORK_OPTIONS, TrainConfig, TrainingOptions, options
from fastmlp.console import Console
from fastmlp.errors import DivergedError, RunFolderError
from fastmlp.events import Event, Finished, Reporter
from fastmlp.language_model import LanguageModel
from fastmlp.ops import Ops
from fastmlp.options import ConfigError
from fastmlp.text import TextError, get_tokenizer
from fastmlp.trainer import train
from tests.prediction.helpers import QUICK, SMALL, fit_options, fitted, state_of
from tests.runs import learnable_text, metrics_of, outcome, small_config, stop_after, unigram_entropy, write_text

# ------------------------------------------------------------------------------------------------------------- fitting


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


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fitted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick_picture")
def test_in_a_folder_it_is_the_run_of_the_command(tmp_path: Path) -> None:
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
    """A rate grows until it ruins the network: the best weights before are kept, as if training had ended there."""
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
    """TrainConfig has all defaults; each option belongs to the model, to fit, or to the text."""
    default, arguments = TrainConfig(), dict(inspect.signature(LanguageModel).parameters)
    assert arguments.pop("unknown").kind is inspect.Parameter.VAR_KEYWORD  # for a suggestion
    assert tuple(arguments) == MODEL_OPTIONS
    assert {name: item.default for name, item in arguments.items()} == {
        name: None if name in NETWORK_OPTIONS else getattr(default, name) for name in MODEL_OPTIONS
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


@pytest.mark.usefixtures("quick_picture")
def test_a_run_on_ids_is_resumed_with_the_same_bits_and_no_other_ids(tmp_path: Path) -> None:
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
