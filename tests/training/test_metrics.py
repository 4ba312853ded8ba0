"""The figures of a run: its metrics by step, and those of the weights that it keeps."""

import math
from pathlib import Path

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.data import RandomBatches, Windows
from fastmlp.data.corpus import read_corpus
from fastmlp.events import Finished, Measured, Notice, Sampled, TextRead
from fastmlp.files import checkpoint
from fastmlp.ops import get_ops
from fastmlp.prediction.evaluation import evaluate
from fastmlp.prediction.neural import NeuralModel
from fastmlp.trainer import train
from fastmlp.training.clock import Clock
from fastmlp.training.completion import Completion
from fastmlp.training.keeper import Memory
from fastmlp.training.metrics import Metrics
from fastmlp.training.progress import Progress
from fastmlp.training.schedule import Schedule
from tests.runs import learnable_text, metrics_of, small_config
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_a_line_is_the_mean_of_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress, keeper, recorder = Progress(lr=0.5), Memory(), Recorder()
    clock = Clock(progress)
    schedule = Schedule(TrainConfig(steps=4), RandomBatches(Windows(np.arange(9), 3), 2, 1))
    metrics = Metrics(progress, clock, Completion(schedule, clock, progress, 0), keeper, recorder)
    metrics.write_first(4.0, {"counts_val_loss": 5.0})
    for loss in (3.0, 2.0):
        now[0] += 8
        progress.advance(loss, 16)
    metrics.write_interval({"val_loss": 2.25})
    with clock.uncounted("evaluation"):
        now[0] += 30
    now[0] += 2
    progress.best_step = 2
    progress.advance(1.0, 16)
    metrics.write_interval({})
    metrics.write_interval({"kept_step": 2})  # right after a line
    common = {"lr": 0.5}
    assert keeper.metrics() == [
        {"step": 0, "words": 0, "seconds": 0, "loss": 4.0, "words_per_second": 0, "counts_val_loss": 5.0, **common},
        {"step": 2, "words": 32, "seconds": 16, "loss": 2.5, "words_per_second": 2, "val_loss": 2.25, **common},
        {"step": 3, "words": 48, "seconds": 48, "loss": 1.0, "words_per_second": 8, **common},
        {"step": 3, "words": 48, "seconds": 48, "loss": 1.0, "words_per_second": 0, "kept_step": 2, **common},
    ]
    measured = recorder.all(Measured)
    assert [event.metrics for event in measured] == keeper.metrics()
    assert [event.best_step for event in measured] == [None, None, 2, 2]
    # two steps took 16 seconds; then three took 18, and an evaluation after the second 30
    assert [event.seconds_left for event in measured[:2]] == [None, 16]
    assert measured[2].seconds_left == pytest.approx(18 / 3 + 30 / 2)


def test_metrics_have_a_line_per_log_interval_and_evaluation(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_config(file, tmp_path / "run"), reporter=recorder)
    lines = metrics_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 7, 10, 14, 20, 21, 28, 30]
    assert [line["step"] for line in lines if "val_loss" in line] == [10, 20, 30]
    losses = [loss for _, _, loss in recorder.steps]
    assert lines[0]["loss"] == losses[0]
    for before, line in zip([0, *(line["step"] for line in lines[1:])], lines[1:], strict=False):
        assert line["loss"] == pytest.approx(np.mean(losses[before : line["step"]]), rel=1e-12)
        assert line["words"] == 16 * line["step"]
        assert line["words_per_second"] > 0
    for line in lines:
        if "val_loss" in line:
            assert line["val_perplexity"] == pytest.approx(math.exp(line["val_loss"]))
    assert lines[0].keys() == {"step", "words", "seconds", "loss", "lr", "words_per_second", "training_words"}
    [read] = recorder.all(TextRead)
    assert lines[0]["training_words"] == read.words - read.validation_words
    assert [event.metrics for event in recorder.all(Measured)] == lines


def test_the_learning_rate_warms_up_and_follows_the_schedule(file: Path, tmp_path: Path) -> None:
    options = {"steps": 40, "warmup": 10, "schedule": "linear", "log_every": 1, "lr": 0.1}
    train(small_config(file, tmp_path / "run", **options))
    rates = {line["step"]: line["lr"] for line in metrics_of(tmp_path / "run")}  # of the update that led to the step
    assert rates[1] == pytest.approx(0.1 * 0.1 * 1.0)
    assert rates[11] == pytest.approx(0.1 * 1.0 * (1 - 10 / 40))
    assert rates[40] == pytest.approx(0.1 * (1 - 39 / 40))


def test_the_kept_weights_are_those_of_the_best_validation(file: Path, tmp_path: Path) -> None:
    """A rate that grows and grows: the best weights are not the last."""
    config = small_config(file, tmp_path / "run", steps=60, optimizer="sgd", lr=300, warmup=60, schedule="constant")
    result = train(config)
    lines = [line for line in metrics_of(tmp_path / "run") if "val_loss" in line]
    best = min(lines, key=lambda line: line["val_loss"])
    _, metadata = checkpoint.load(tmp_path / "run" / "model.safetensors")
    assert metadata["step"] == best["step"] == result.kept_step < 60
    assert lines[-1]["kept_val_loss"] == result.kept_val_loss
    assert result.kept_val_loss is not None
    assert result.kept_val_loss == pytest.approx(best["val_loss"], rel=0.2)
    assert result.kept_val_loss < lines[-1]["val_loss"]


@pytest.mark.parametrize("unk_trained", [True, False])
def test_the_figures_at_the_end_say_what_they_leave_out(unk_trained: bool, file: Path, tmp_path: Path) -> None:
    """<unk> may come in every part, or in those that are held out alone."""
    text = learnable_text().lower().replace("\n", " <eos> ").split(" ")
    text[-900:] = ["<unk>" if word == "old" else word for word in text[-900:]]
    if unk_trained:
        text[:900] = ["<unk>" if word == "warm" else word for word in text[:900]]
    file.write_text(" ".join(text))
    options = {"tokenizer": "whitespace", "val_fraction": 0.1, "test_fraction": 0.05}
    recorder, config = Recorder(), small_config(file, tmp_path / "run", **options)
    result = train(config, reporter=recorder)
    corpus, model = read_corpus(config), NeuralModel.load(tmp_path / "run" / "model.safetensors", get_ops("numpy"))
    assert corpus.unk_trained == unk_trained
    for part, windows in (("val", corpus.val), ("test", corpus.test)):
        assert windows is not None
        found = evaluate(model, windows.targets, windows.before)
        assert found.unknown > 0
        figures = {"loss": found.loss, "perplexity": found.perplexity, "unknown_words": found.unknown}
        if unk_trained:
            assert found.loss_with_unknown not in (None, found.loss)
            figures["loss_with_unknown"] = found.loss_with_unknown
            figures["perplexity_with_unknown"] = math.exp(found.loss_with_unknown)
        for name in ("loss", "perplexity", "unknown_words", "loss_with_unknown", "perplexity_with_unknown"):
            assert getattr(result, f"kept_{part}_{name}") == figures.get(name)
            assert recorder.all(Finished)[0].kept.get(f"kept_{part}_{name}") == figures.get(name)
            assert metrics_of(tmp_path / "run")[-1].get(f"kept_{part}_{name}") == figures.get(name)


def test_without_a_validation_part_the_last_weights_are_kept(file: Path, tmp_path: Path) -> None:
    result = train(small_config(file, tmp_path / "run", val_fraction=0, test_fraction=0.1))
    model, last = (checkpoint.load(tmp_path / "run" / name)[0] for name in ("model.safetensors", "last.safetensors"))
    assert all(model[name].tobytes() == last[name].tobytes() for name in model)
    assert (result.kept_step, result.kept_val_loss) == (30, None)
    assert result.kept_test_loss is not None


def test_the_best_step_is_told_with_each_line(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    config = small_config(file, tmp_path / "run", steps=60, optimizer="sgd", lr=300, warmup=60, schedule="constant")
    result = train(config, reporter=recorder)
    measured = [(event.metrics, event.best_step) for event in recorder.all(Measured)]
    for place, (metrics, best) in enumerate(measured):
        losses = {line["val_loss"]: line["step"] for line, _ in measured[: place + 1] if "val_loss" in line}
        assert best == (losses[min(losses)] if losses else None), metrics
    assert measured[-1][1] == result.kept_step


def test_a_validation_file_decides_which_weights_are_kept(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("anna sells warm bread in unheard of places.")
    result = train(small_config(file, tmp_path / "run", val_file=str(other)))
    assert result.kept_val_loss == pytest.approx(min(line.get("val_loss", 9) for line in metrics_of(tmp_path / "run")))


def test_an_interval_of_0_is_never(file: Path, tmp_path: Path) -> None:
    """Not on the way: the end validates and writes as ever."""
    recorder = Recorder()
    config = small_config(file, tmp_path / "run", eval_every=0, sample_every=0, patience=0)
    train(config, reporter=recorder)
    assert [line["step"] for line in metrics_of(tmp_path / "run") if "val_loss" in line] == [30]
    assert [event.step for event in recorder.all(Sampled)] == [0, 30]


@pytest.mark.parametrize("val_fraction", [0.05, 0.0])
def test_a_run_that_learned_nothing_says_so(file: Path, tmp_path: Path, val_fraction: float) -> None:
    """Its loss is above ln V, that of taking all words for equally likely."""
    said = []
    for name, lr in (("bad", 30.0), ("good", 0.02)):
        recorder = Recorder()
        train(small_config(file, tmp_path / name, lr=lr, val_fraction=val_fraction, steps=60), reporter=recorder)
        said.append([event.text for event in recorder.all(Notice) if "nothing was learned" in event.text])
    [[text], []] = said
    assert "to guess each of 41 words alike has 3.714; try a lower learning rate, such as --lr 0.002, or more" in text
