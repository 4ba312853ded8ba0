"""The counts beside a run: made first, mixed at the end, kept, reported, and left out on request."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fastmlp.data.corpus import read_corpus
from fastmlp.events import Counted, Finished, NetworkMade, Notice, Sampled
from fastmlp.files import checkpoint
from fastmlp.language_model import LanguageModel
from fastmlp.prediction.evaluation import evaluate
from fastmlp.prediction.kneser_ney import KneserNey
from fastmlp.trainer import train
from tests.runs import metrics_of, outcome, stop_after, window_config
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")
FILE = "mixture.safetensors"


def run(file: Path, out: Path, **options: Any) -> Recorder:
    recorder = Recorder()
    train(window_config(file, out, **options), reporter=recorder)
    return recorder


def test_the_counts_come_first_and_are_those_of_the_training_part(file: Path, tmp_path: Path) -> None:
    recorder = run(file, tmp_path / "run", order=3)
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(NetworkMade) < kinds.index(Counted) < kinds.index(Sampled)
    corpus = read_corpus(window_config(file, tmp_path / "other"))
    assert corpus.val is not None
    counts = KneserNey.of(corpus.train.targets, corpus.vocabulary, corpus.tokenizer, order=3)
    want = evaluate(counts, corpus.val.targets, corpus.val.before)
    [counted] = recorder.all(Counted)
    assert (counted.order, counted.loss, counted.perplexity) == (3, want.loss, want.perplexity)
    first, *others = metrics_of(tmp_path / "run")
    assert first["counts_val_loss"] == want.loss
    assert not any("counts_val_loss" in line for line in others)


def test_the_figures_are_of_words_to_which_no_weight_was_fitted(file: Path, tmp_path: Path) -> None:
    options = {"val_fraction": 0.2}
    [finished] = run(file, tmp_path / "run", **options).all(Finished)
    corpus, figures = read_corpus(window_config(file, tmp_path / "other", **options)), finished.kept["mixture"]
    assert corpus.val is not None
    half = (len(corpus.val) + 1) // 2
    assert (figures["part"], figures["words"]) == ("val", len(corpus.val) - half)
    model = LanguageModel.load(tmp_path / "run", backend="numpy")._whole()
    found = model.predictions(corpus.val.targets, corpus.val.before)
    for names in ("network", "counts", "network+counts", "network+counts+cache"):
        of_all = found.of(*names.split("+")).mixed(model.weights)
        assert figures[names] == pytest.approx(math.exp(-of_all[half:].mean(dtype=float)), rel=1e-6)
    alone = -found.of("network").mixed({}).mean(dtype=float)
    assert finished.kept["kept_val_loss"] == pytest.approx(alone, rel=1e-6)
    assert metrics_of(tmp_path / "run")[-1]["mixture"] == figures


def test_with_a_test_part_the_figures_are_of_that(file: Path, tmp_path: Path) -> None:
    options = {"val_fraction": 0.1, "test_fraction": 0.1}
    [finished] = run(file, tmp_path / "run", **options).all(Finished)
    corpus, figures = read_corpus(window_config(file, tmp_path / "other", **options)), finished.kept["mixture"]
    assert corpus.test is not None
    assert (figures["part"], figures["words"]) == ("test", len(corpus.test))
    model = LanguageModel.load(tmp_path / "run", backend="numpy")._whole()
    found = model.predictions(corpus.test.targets, corpus.test.before).mixed(model.weights)
    assert figures["network+counts+cache"] == pytest.approx(math.exp(-found.mean(dtype=float)), rel=1e-6)
    assert finished.kept["kept_test_perplexity"] == pytest.approx(figures["network"], rel=1e-6)


def test_the_weights_do_not_change_the_network(file: Path, tmp_path: Path) -> None:
    run(file, tmp_path / "with")
    recorder = run(file, tmp_path / "without", counts=False)
    assert not recorder.all(Counted)
    assert not (tmp_path / "without" / FILE).exists()
    assert "mixture" not in metrics_of(tmp_path / "without")[-1]
    weights = [checkpoint.load(tmp_path / name / "model.safetensors")[0] for name in ("with", "without")]
    assert weights[0].keys() == weights[1].keys()
    assert all(array.tobytes() == weights[1][name].tobytes() for name, array in weights[0].items())
    [finished] = recorder.all(Finished)
    assert finished.mixture is None


def test_the_file_is_named_and_holds_the_text_alone(file: Path, tmp_path: Path) -> None:
    [finished] = run(file, tmp_path / "run").all(Finished)
    assert finished.mixture == str(tmp_path / "run" / FILE)
    tensors, metadata = checkpoint.load(tmp_path / "run" / FILE)
    corpus = read_corpus(window_config(file, tmp_path / "other"))
    assert [*tensors] == ["counts.ids"]
    assert tensors["counts.ids"].tolist() == corpus.train.targets.tolist()
    assert tensors["counts.ids"].nbytes == 2 * len(corpus.train)
    assert json.loads(json.dumps(metadata)) == metadata


def test_a_stopped_run_has_no_mixture_and_ends_with_the_same_one(file: Path, tmp_path: Path) -> None:
    run(file, tmp_path / "whole")
    config = window_config(file, tmp_path / "run")
    train(config, should_stop=stop_after(13))
    assert not (tmp_path / "run" / FILE).exists()
    assert LanguageModel.load(tmp_path / "run", backend="numpy")._whole().names == ("network",)
    recorder = Recorder()
    train(config, resume=True, reporter=recorder)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert (tmp_path / "run" / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    recorder = Recorder()
    train(config, resume=True, reporter=recorder)  # it was finished
    [finished] = recorder.all(Finished)
    assert finished.kept["mixture"] == metrics_of(tmp_path / "run")[-1]["mixture"]


def test_a_run_that_replaces_another_has_no_counts_of_that(file: Path, tmp_path: Path) -> None:
    run(file, tmp_path / "run")
    train(window_config(file, tmp_path / "run", counts=False), overwrite=True)
    assert not (tmp_path / "run" / FILE).exists()


def test_without_validation_nothing_is_counted_and_that_is_said(file: Path, tmp_path: Path) -> None:
    recorder = run(file, tmp_path / "run", val_fraction=0)
    assert not recorder.all(Counted)
    assert any("nothing is held out for validation: no counts" in notice.text for notice in recorder.all(Notice))
    assert not (tmp_path / "run" / FILE).exists()


def test_the_list_of_widths_has_no_counts_unless_asked(file: Path, tmp_path: Path) -> None:
    assert not run(file, tmp_path / "widths", hidden=(12,), blocks=0, reach=None).all(Counted)
    assert run(file, tmp_path / "asked", hidden=(12,), blocks=0, reach=None, counts=True).all(Counted)


def test_a_stop_is_heard_in_the_evaluation_of_the_mixture(file: Path, tmp_path: Path) -> None:
    config = window_config(file, tmp_path / "run", val_fraction=0.3)
    asked = iter([False] * config.steps + [False, True] + [True] * 1_000)
    result = train(config, should_stop=lambda: next(asked))
    assert not result.finished
    assert result.step == config.steps
    assert train(config, resume=True).mixture is not None


def test_a_text_that_is_not_counted_for_its_size_is_told(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("recipe", "mixing"):
        monkeypatch.setattr(f"fastmlp.training.{module}.MOST_COUNTED", 500)
    recorder = run(file, tmp_path / "run")
    assert not recorder.all(Counted)
    assert any("words are not counted, which would take gigabytes" in notice.text for notice in recorder.all(Notice))
    assert run(file, tmp_path / "asked", counts=True).all(Counted)
