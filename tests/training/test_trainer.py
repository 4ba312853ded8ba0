"""The training loop: it learns, resumes with the same bits wherever it is killed, and never loses what it saved."""

import json
import math
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp import trainer
from fastmlp.config import TrainConfig
from fastmlp.data.corpus import read_corpus
from fastmlp.errors import CheckpointError, DivergedError, FolderInUseError, RunFolderError
from fastmlp.events import (
    Compiled,
    Compiling,
    Evaluating,
    Event,
    Finished,
    Measured,
    Notice,
    Reporter,
    Running,
    Sampled,
    Saved,
    Started,
    TextRead,
    Writing,
)
from fastmlp.files import atomic, checkpoint, run_folder
from fastmlp.files.atomic import lock_folder
from fastmlp.language_model import LanguageModel
from fastmlp.network.network import MLP
from fastmlp.ops import Ops, get_ops
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.prediction.evaluation import evaluate
from fastmlp.text import Text, TextError, TextFile, get_tokenizer, standard_library_text
from fastmlp.trainer import open_run, train
from fastmlp.training import keeper
from fastmlp.training import run as loop
from tests.helpers import require_ops
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


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_text(tmp_path)


@pytest.fixture(autouse=True)
def quick_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture itself is test_plot.py's; here it is enough that it is asked for."""

    def plot_loss(metrics: list[dict[str, Any]], path: Path, *, title: str) -> None:
        path.write_text(f"{title}: {len(metrics)} lines")

    monkeypatch.setattr("fastmlp.training.keeper.plot_loss", plot_loss)


class Recorder(Reporter):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.steps: list[tuple[int, float, float]] = []

    def report(self, event: Event) -> None:
        self.events.append(event)

    def step(self, step: int, share: float, loss: float) -> None:
        self.steps.append((step, share, loss))

    def all(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


# ------------------------------------------------------------------------------------------------------------ learning


def test_validation_on_the_way_has_trainings_precision_and_kept_weights_are_judged_in_float32(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ops = get_ops("numpy")

    def forward(*arguments: Any, fp32_precision: str, **options: Any) -> None:
        asked.append(fp32_precision)
        ops.linear_cross_entropy_forward(*arguments, **options)

    watched = Backend(replace(ops, linear_cross_entropy_forward=forward), None, None)
    monkeypatch.setattr("fastmlp.trainer.choose_backend", lambda _: watched)
    train(small_config(file, tmp_path / "run", precision="ieee"))
    # two trials tell how long the end will take; then steps 10, 20 and 30, and the end
    assert asked == ["auto"] * 2 + ["ieee"] * 3 + ["auto"] * (len(asked) - 5)
    assert len(asked) > 5


def test_a_short_training_reaches_what_only_a_learning_network_reaches(ops: Ops, file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run", steps=150, batch_size=32, backend=ops.backend, threads=2)
    result = train(config)
    words = get_tokenizer("words").split(learnable_text())
    assert metrics_of(tmp_path / "run")[0]["loss"] == pytest.approx(math.log(len(set(words)) + 1), rel=0.01)
    assert result.kept_val_loss is not None
    assert result.kept_val_loss < 0.25 * unigram_entropy(words)


def test_the_back_ends_follow_the_same_curve(ops: Ops, file: Path, tmp_path: Path) -> None:
    options = {"steps": 80, "batch_size": 32, "log_every": 5, "precision": "ieee"}
    train(small_config(file, tmp_path / "reference", **options))
    train(small_config(file, tmp_path / ops.backend, **options, backend=ops.backend))
    want, got = ([line["loss"] for line in metrics_of(tmp_path / run)] for run in ("reference", ops.backend))
    assert want[-1] < 0.5 * want[0]
    np.testing.assert_allclose(got, want, rtol=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adagrad"])
@pytest.mark.parametrize("tokenizer", ["words", "whitespace"])
def test_every_optimizer_and_tokenizer_learns(optimizer: str, tokenizer: str, file: Path, tmp_path: Path) -> None:
    rate = {"sgd": 0.5, "momentum": 0.1, "adagrad": 0.1}[optimizer]
    options = {"steps": 200, "optimizer": optimizer, "lr": rate, "tokenizer": tokenizer, "schedule": "linear"}
    train(small_config(file, tmp_path / "run", **options))
    losses = [line["loss"] for line in metrics_of(tmp_path / "run")]
    assert losses[-1] < 0.5 * losses[0]


# --------------------------------------------------------------------------------------------------- what a run leaves


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
    assert lines[0].keys() == {"step", "words", "seconds", "loss", "lr", "words_per_second"}
    assert [event.metrics for event in recorder.all(Measured)] == lines


def test_the_learning_rate_warms_up_and_follows_the_schedule(file: Path, tmp_path: Path) -> None:
    options = {"steps": 40, "warmup": 10, "schedule": "linear", "log_every": 1, "lr": 0.1}
    train(small_config(file, tmp_path / "run", **options))
    rates = {line["step"]: line["lr"] for line in metrics_of(tmp_path / "run")}  # of the update that led to the step
    assert rates[1] == pytest.approx(0.1 * 0.1 * 1.0)
    assert rates[11] == pytest.approx(0.1 * 1.0 * (1 - 10 / 40))
    assert rates[40] == pytest.approx(0.1 * (1 - 39 / 40))


def test_samples_are_written_before_on_the_way_and_at_the_end(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    prompts = ("anna paints", "clara hides nine")
    result = train(small_config(file, tmp_path / "run", prompt=prompts), reporter=recorder)
    samples = recorder.all(Sampled)
    assert [(event.step, event.prompt) for event in samples] == [(s, p) for s in (0, 15, 30) for p in prompts]
    assert [event.before for event in samples[-2:]] == [event.text for event in samples[:2]]
    assert result.before == {event.prompt: event.text for event in samples[:2]}
    assert result.after == {event.prompt: event.text for event in samples[-2:]}
    assert all(event.text.startswith(event.prompt) for event in samples)
    text = (tmp_path / "run" / "samples.txt").read_text(encoding="utf-8")
    assert [text.count(f"step {step}\n") for step in (0, 15, 30)] == [2, 2, 2]
    assert all(event.text in text for event in samples)


def test_a_prompt_is_read_as_generate_reads_it(file: Path, tmp_path: Path) -> None:
    """In the capitals that the vocabulary has; prompts with the same words are one, and one without words is none."""
    recorder, options = Recorder(), {"steps": 1, "tokenizer": "prose", "context": 2}
    text = Text("We met Anna Barchester there. " * 60, ())
    prompts = ("anna barchester", "Anna  Barchester", "we met")
    config = TrainConfig(out=str(tmp_path / "run"), **small_options(**options, prompt=prompts))
    train(config, text=text, reporter=recorder)
    notices = [notice.text for notice in recorder.all(Notice)]
    assert notices == ["prompts with the same words are one: 3 given, 2 sampled"]
    assert {event.prompt for event in recorder.all(Sampled)} == {"Anna Barchester", "We met"}
    with pytest.raises(ConfigError, match=r"^prompt: expected a text with words in it, got '!!!'$"):
        train(small_config(file, tmp_path / "none", prompt=("anna", "!!!")))
    assert not (tmp_path / "none").exists()


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
    corpus, model = read_corpus(config), LanguageModel.load(tmp_path / "run", backend="numpy")
    assert corpus.unk_trained == unk_trained
    for part, windows in (("val", corpus.val), ("test", corpus.test)):
        assert windows is not None
        found = evaluate(model, windows)
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


def test_epochs_visit_each_window_once(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run", steps=None, epochs=2, batch_size=100)
    corpus = read_corpus(config)
    result = train(config)
    per_epoch = math.ceil(len(corpus.train) / 100)
    assert result.step == 2 * per_epoch
    assert metrics_of(tmp_path / "run")[-1]["words"] == 2 * len(corpus.train)


def test_epochs_and_as_many_steps_agree_in_all_but_the_windows(file: Path, tmp_path: Path) -> None:
    recorders = {name: Recorder() for name in ("epochs", "steps")}
    options = {"batch_size": 100, "log_every": 10, "eval_every": 40, "schedule": "linear"}
    config = small_config(file, tmp_path / "epochs", **{**options, "steps": None, "epochs": 2})
    total = train(config, reporter=recorders["epochs"]).step
    train(small_config(file, tmp_path / "steps", **{**options, "steps": total}), reporter=recorders["steps"])
    windows, batches = len(read_corpus(config).train), total // 2
    assert batches > 30
    by_epochs, by_steps = (metrics_of(tmp_path / name) for name in recorders)
    for one, other in zip(by_epochs, by_steps, strict=True):
        assert one.keys() == other.keys()
        assert (one["step"], one["lr"]) == (other["step"], other["lr"])
        epochs, steps = divmod(one["step"], batches)
        assert one["words"] == epochs * windows + 100 * steps
        assert other["words"] == 100 * other["step"]
    started = {name: recorder.all(Started)[0] for name, recorder in recorders.items()}
    assert started == {"epochs": Started(0, total, 0.0, 2), "steps": Started(0, total, 0.0, None)}
    kinds = ([type(event) for event in recorder.events] for recorder in recorders.values())
    assert next(kinds) == next(kinds)


class Clock:
    """A clock that only moves when a step, an evaluation or a sample takes its time."""

    STEP, WORD, SAMPLE = 0.5, 0.02, 0.25  # seconds

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)
        monkeypatch.setattr(loop, "TRIAL", 5)
        evaluate, complete, make_optimizer = loop.evaluate, loop.complete, loop.make_optimizer

        def timed_evaluate(language: Any, windows: Any, indices: Any = None, **options: Any) -> Any:
            self.now += self.WORD * len(windows if indices is None else indices)
            return evaluate(language, windows, indices, **options)

        def timed_complete(*arguments: Any) -> Any:
            self.now += self.SAMPLE
            return complete(*arguments)

        def timed_optimizer(*arguments: Any, **options: Any) -> Any:
            optimizer = make_optimizer(*arguments, **options)
            step = optimizer.step

            def timed_step(*arguments: Any) -> Any:
                self.now += self.STEP
                return step(*arguments)

            optimizer.step = timed_step
            return optimizer

        monkeypatch.setattr(loop, "evaluate", timed_evaluate)
        monkeypatch.setattr(loop, "complete", timed_complete)
        monkeypatch.setattr(loop, "make_optimizer", timed_optimizer)


class TimesLeft(Recorder):
    """When the run will end, as each line of metrics says it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.ends: dict[int, float | None] = {}

    def report(self, event: Event) -> None:
        super().report(event)
        if isinstance(event, Measured):
            left = event.seconds_left
            self.ends[event.metrics["step"]] = None if left is None else self.clock.now + left


def test_the_time_left_has_all_that_will_come(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watch = TimesLeft(clock)
    options = dict.fromkeys(("eval_every", "sample_every", "save_every"), 40)
    options |= {"steps": 400, "log_every": 10, "prompt": ("anna", "boris")}
    train(small_config(file, tmp_path / "run", **options), reporter=watch)
    ends = watch.ends
    assert ends.pop(0) is None
    assert ends.pop(400) == pytest.approx(clock.now, abs=1)
    between = 50 * clock.WORD + 2 * clock.SAMPLE
    for step, end in ends.items():
        assert end is not None
        ahead = clock.now - end
        # known from the start: steps, the evaluation of all at the end; once it has come: what comes between
        if step != 40:  # the first samples follow this line
            assert ahead == pytest.approx(10 * between if step < 40 else 0, abs=2 * between), step


def test_the_time_left_of_a_resumed_run_is_of_this_sitting(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    config = small_config(file, tmp_path / "run", steps=100, log_every=10, eval_every=100, sample_every=100)
    clock.STEP = 7.0
    train(config, should_stop=stop_after(50))
    clock.STEP = 0.5
    watch = TimesLeft(clock)
    train(config, resume=True, reporter=watch)
    assert watch.ends[60] == pytest.approx(clock.now, abs=2)


def test_a_time_budget_covers_the_evaluation_at_the_end(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    watch = TimesLeft(clock)
    options: dict[str, Any] = {"steps": None, "minutes": 1, "log_every": 1, "schedule": "linear", "save_every": 9_999}
    result = train(small_config(file, tmp_path / "run", **options), reporter=watch)
    assert (result.finished, watch.all(Started)[0].total) == (True, None)
    words = len(read_corpus(small_config(file, tmp_path / "run")).val or ())
    assert words * clock.WORD > 4
    assert clock.now - 1_000 == pytest.approx(60, abs=2 * clock.STEP)
    assert all(end == pytest.approx(1_060, abs=2 * clock.STEP) for end in watch.ends.values())
    lines = metrics_of(tmp_path / "run")
    assert lines[-1]["lr"] < 0.02 * 0.02  # of its height
    highest = max(lines, key=lambda line: line["lr"])
    assert 5 < highest["seconds"] < 7  # a tenth of the time warms up, which is less than 500 steps
    steps, minutes = (small_config(file, tmp_path / "run", **{**options, "warmup": warmup}) for warmup in (0, 5))
    for config, first in ((steps, 1.0), (minutes, 0.2)):
        train(config, overwrite=True)
        rates = [line["lr"] / 0.02 for line in metrics_of(tmp_path / "run")]
        assert rates[0] == pytest.approx(first, rel=0.05)


def test_a_time_that_the_evaluation_needs_leaves_half_for_training(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    clock.WORD = 1.0
    result = train(small_config(file, tmp_path / "run", steps=None, minutes=0.5, save_every=9_999, eval_every=9_999))
    before = clock.SAMPLE + 2 * 5 * clock.WORD  # and a trial of how long an evaluation takes
    assert result.step == pytest.approx((15 - before) / clock.STEP, abs=1)


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


def test_text_in_memory_and_the_same_text_in_a_file_give_the_same_bits(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "file"))
    text = Text(learnable_text(), ())
    train(TrainConfig(out=str(tmp_path / "memory"), **small_options()), text=text)
    assert outcome(tmp_path / "file") == outcome(tmp_path / "memory")


# ----------------------------------------------------------------------------------------------------------- same bits


def test_promise_4_the_same_bits_for_any_number_of_threads(ops: Ops, tmp_path: Path) -> None:
    """Of a text with so many words that the last layer is work for several."""
    options = small_options(steps=12, batch_size=33, hidden=(40, 70), backend=ops.backend)
    text = Text(" ".join(f"w{number * number % 2_003}" for number in range(6_000)), ())
    if ops.backend == "numpy":
        pytest.skip("promised at an equal number of BLAS threads only")
    for threads in (1, 2, 3):
        train(TrainConfig(out=str(tmp_path / str(threads)), **options, threads=threads), text=text)
    one, two, three = (checkpoint.load(tmp_path / name / "last.safetensors")[0] for name in "123")
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes() == three[name].tobytes(), name


def test_the_seed_decides(file: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(small_config(file, tmp_path / name, steps=10, seed=seed))
    a, b, c = (metrics_of(tmp_path / name)[-1]["loss"] for name in "abc")
    assert a == b != c


# ---------------------------------------------------------------------------------------------------- never loses work


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(small_config(write_text(folder), folder / "run"))
    return outcome(folder / "run")


@pytest.mark.parametrize("steps", [[0], [1], [9, 1], [13, 4, 5], [30]])
def test_promise_6_a_run_that_was_stopped_ends_with_the_same_bits(
    steps: list[int], file: Path, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    config, done = small_config(file, tmp_path / "run", save_every=None), 0
    for sitting in steps:
        done += sitting
        result = train(config, should_stop=stop_after(sitting), resume=True)
        assert (result.step, result.finished) == (done, False)
        assert checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["step"] == done
    assert train(config, resume=True).finished
    assert without_config(outcome(tmp_path / "run")) == without_config(uninterrupted)


def without_config(found: dict[str, Any]) -> dict[str, Any]:
    for name in ("model.safetensors", "last.safetensors"):
        found[name][1].pop("config", None)
    return found


class KilledError(BaseException):
    """What no code catches, as no code catches SIGKILL."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """kill_at(n) lets the n-th write of the process do half its work and ends it there; lists the writes so far."""
    writes: list[str] = []
    last = [0]

    def count(what: str) -> bool:
        writes.append(what)
        return len(writes) == last[0]

    whole_write, whole_file = run_folder.Journal.write, atomic.write_atomically

    def write(journal: run_folder.Journal, text: str) -> None:
        if count(journal.path.name):
            whole_write(journal, text[: len(text) // 2])
            raise KilledError
        whole_write(journal, text)

    def write_atomically(path: Path, data: bytes) -> None:
        if count(Path(path).name):
            (Path(path).parent / ".fastmlp-0000.tmp").write_bytes(data[: len(data) // 2])
            raise KilledError
        whole_file(path, data)

    def arm(at: int) -> list[str]:
        writes.clear()
        last[0] = at
        return writes

    monkeypatch.setattr(run_folder.Journal, "write", write)
    monkeypatch.setattr(checkpoint, "write_atomically", write_atomically)
    monkeypatch.setattr(trainer, "write_atomically", write_atomically)
    monkeypatch.setattr(keeper, "write_atomically", write_atomically)
    return arm


def test_promise_6_killed_at_every_write_the_run_resumes_with_the_same_bits(
    file: Path, tmp_path: Path, kill_at: Callable[[int], list[str]], uninterrupted: dict[str, Any]
) -> None:
    count = len_of_writes = 0
    while count == len_of_writes:  # until a run ends before it is killed
        count += 1
        config = small_config(file, tmp_path / f"run{count}")
        writes = kill_at(count)
        try:
            train(config)
        except KilledError:
            len_of_writes = len(writes)
            kill_at(0)
            train(config, resume=True)
        folder = tmp_path / f"run{count}"
        assert without_config(outcome(folder)) == without_config(uninterrupted), f"killed at {writes[-1]}"
        assert not list(folder.glob("*.tmp"))
        assert len(metrics_of(folder)) == 8
    assert count > 20


def test_promise_6_the_kept_weights_are_of_the_history_that_went_on(
    file: Path, tmp_path: Path, kill_at: Callable[[int], list[str]]
) -> None:
    """Killed at every write and resumed with a rate that finds nothing better."""
    options = {"save_every": 8, "eval_windows": 10_000, "log_every": 10}
    count = len_of_writes = 0
    while count == len_of_writes:
        count += 1
        folder = tmp_path / f"run{count}"
        writes = kill_at(count)
        try:
            train(small_config(file, folder, **options))
            break
        except KilledError:
            len_of_writes = len(writes)
        kill_at(0)
        result = train(small_config(file, folder, **options, lr=3.0, eval_every=13), resume=True)
        assert checkpoint.load(folder / "model.safetensors")[1]["step"] == result.kept_step
        measured = {line["step"]: line["val_loss"] for line in metrics_of(folder) if "val_loss" in line}
        assert result.kept_step is not None
        assert measured[result.kept_step] == min(measured.values()), f"killed at {writes[-1]}"
        assert result.kept_val_loss == pytest.approx(measured[result.kept_step], rel=1e-5), f"killed at {writes[-1]}"
    assert count > 10


def test_kept_weights_that_are_lost_are_made_again(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(13))
    (tmp_path / "run" / "model.safetensors").unlink()
    recorder = Recorder()
    result = train(small_config(file, tmp_path / "run"), resume=True, reporter=recorder)
    assert any("is not that of step 10 any more" in event.text for event in recorder.all(Notice))
    assert checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"] == result.kept_step


def test_promise_7_a_write_that_fails_leaves_the_last_checkpoint(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Any]
) -> None:
    config = small_config(file, tmp_path / "run")
    save = checkpoint.save

    def full_disk(path: Path, tensors: Any, metadata: dict[str, Any]) -> None:
        if metadata["step"] >= 20:
            raise CheckpointError(f"cannot write {path} (12,345 bytes): No space left on device")
        save(path, tensors, metadata)

    monkeypatch.setattr(checkpoint, "save", full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        train(config)
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["step"] == 16
    monkeypatch.undo()
    train(config, resume=True)
    assert without_config(outcome(tmp_path / "run")) == without_config(uninterrupted)


def test_a_line_that_does_not_fit_on_the_disk_is_not_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A file on a disk that takes three bytes more."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 3

        def write(self, data: memoryview) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            written, self.room = self.file.write(data[: self.room]), 0
            return int(written)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    with run_folder.Journal(tmp_path / "metrics.jsonl") as journal:
        journal.write("first line\n")
        monkeypatch.setattr(journal, "_file", Full(journal._file))
        with pytest.raises(
            CheckpointError, match=r"cannot write .*metrics\.jsonl \(12 bytes\): No space left on device"
        ):
            journal.write("second line\n")
    assert (tmp_path / "metrics.jsonl").read_text() == "first line\n"


def test_promise_10_two_runs_cannot_write_the_same_folder(file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with lock_folder(tmp_path / "run"), pytest.raises(RunFolderError, match=r"in use by process \d+"):
        train(small_config(file, tmp_path / "run"))
    assert issubclass(FolderInUseError, CheckpointError)


def test_promise_10_a_folder_that_holds_a_run_is_refused(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run")
    train(config)
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    with pytest.raises(RunFolderError, match=r"already holds a run: go on with it \(--resume\), replace it"):
        train(config)
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before
    (tmp_path / "run" / "notes.txt").write_text("mine")
    train(small_config(file, tmp_path / "run", steps=3, seed=2), overwrite=True)
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [0, 3]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.txt", "loss.png"])
@pytest.mark.parametrize("resume", [False, True])
def test_promise_10_somebodys_own_file_is_not_written_over(name: str, resume: bool, file: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine" / name
    own.parent.mkdir()
    own.write_text("my own")
    config = small_config(file, own.parent, steps=2)
    with pytest.raises(RunFolderError, match=rf"{name} is there, and not of a run: name another folder"):
        train(config, resume=resume)
    assert own.read_text() == "my own"
    assert not (own.parent / "config.toml").exists()
    assert train(config, overwrite=True).finished


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.toml", b'title = "my site"\n'),
        ("config.toml", b"steps = 5\n"),
        ("model.safetensors", b"\x02" + bytes(7)),
    ],
)
def test_promise_10_the_files_of_other_programs_make_no_run(
    name: str, content: bytes, options: dict[str, bool], file: Path, tmp_path: Path
) -> None:
    """Nor are they replaced where a run was to be: only what a run has written is."""
    own = tmp_path / "mine" / name
    own.parent.mkdir()
    own.write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"{name} is there, and not of a run: name another folder$"):
        train(small_config(file, own.parent, steps=2), **options)
    assert own.read_bytes() == content
    assert {path.name for path in own.parent.iterdir()} == {name, ".fastmlp.lock"}


@pytest.mark.parametrize("bad", ["the loss is nan at step 18", "the validation loss is nan at step 20"])
def test_promise_13_a_loss_that_is_no_number_stops_before_the_weights(
    bad: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(file, tmp_path / "run")
    with open_run(config) as run:
        step = run.optimizer.step
        kept: dict[str, bytes] = {}

        def poisoned(network: MLP, ids: np.ndarray, targets: np.ndarray, lr: float) -> float:
            if "validation" in bad or run.progress.step != 18:
                loss = step(network, ids, targets, lr)
                if "validation" in bad and run.progress.step == 19:
                    network.parameters["output.bias"][0] = math.nan
                return loss
            network.parameters["output.bias"][0] = math.nan
            kept.update({name: array.tobytes() for name, array in network.parameters.items()})
            return step(network, ids, targets, lr)

        monkeypatch.setattr(run.optimizer, "step", poisoned)
        with pytest.raises(DivergedError, match=bad) as diverged:
            run.train()
        assert "with learning rate 0.0" in str(diverged.value)
        assert "try a lower one, such as --lr 0.002" in str(diverged.value)
        assert f"{tmp_path / 'run' / 'last.safetensors'} holds step 16" in str(diverged.value)
        assert all(kept[name] == run.network.parameters[name].tobytes() for name in kept)
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["step"] == 16
    assert (tmp_path / "run" / "loss.png").read_text() == f"run: {len(metrics_of(tmp_path / 'run'))} lines"


def test_promise_13_weights_that_are_no_numbers_are_never_saved(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run", val_fraction=0)
    with open_run(config) as run:
        run.train(stop_after(5))
        run.optimizer.state["square.output.bias"][0] = math.inf  # from now on that bias does not move
        with pytest.raises(DivergedError, match=r"square\.output\.bias is no longer finite at step 8"):
            run.train()
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["step"] == 5


def test_a_hopeless_learning_rate_stops_the_run_or_is_survived(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run", optimizer="sgd", lr=1e30, schedule="constant", warmup=0)
    with pytest.raises(DivergedError, match=r"with learning rate 1e\+30: try a lower one"):
        train(config)


def test_promise_15_memory_does_not_grow_and_keeps_to_its_formula(file: Path, tmp_path: Path) -> None:
    class Watch(Reporter):
        def __init__(self) -> None:
            self.held: dict[int, int] = {}

        def step(self, step: int, share: float, loss: float) -> None:
            if step in (150, 600):
                self.held[step] = tracemalloc.get_traced_memory()[0]

    watch = Watch()
    options: dict[str, Any] = {
        "eval_every": 100,
        "log_every": 50,
        "sample_every": 200,
        "save_every": 250,
        "hidden": (400, 300),
    }
    train(small_config(file, tmp_path / "first", steps=3))  # what is imported and kept once
    tracemalloc.start()
    try:
        train(small_config(file, tmp_path / "run", steps=601, **options), reporter=watch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert watch.held[600] - watch.held[150] < 20_000
    parameters = sum(a.size for a in checkpoint.load(tmp_path / "run" / "model.safetensors")[0].values())
    training, saving = 4 * parameters * (1 + 1 + 2), 2 * 4 * parameters * (1 + 2)
    batch = 4 * 256 * (3 * sum(options["hidden"]) + 3 * 3 * 6) + 8 * 256 * 42
    text = 2_500_000  # its bytes are read in pieces of a million
    assert peak < training + saving + batch + text < 1.5 * peak


MEASURE_PEAK = """
import sys
from pathlib import Path
from fastmlp.text import Text
from fastmlp.trainer import train
from tests.runs import learnable_text, small_options
from fastmlp.config import TrainConfig

def peak():
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])  # not ru_maxrss, which begins with that of the parent

def run(words, name, **options):
    text = Text(" ".join(f"w{i % words}" for i in range(20_000)), ())
    options = small_options(steps=3, optimizer="sgd", val_fraction=0, backend="cython", threads=2, **options)
    options["precision"] = "ieee"
    train(TrainConfig(out=str(Path(sys.argv[1]) / name), **options), text=text)

run(50, "first")
before = peak()
run(6_000, "wide", hidden=(16, 1_000), batch_size=2_048)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_promise_15_the_compiled_kernels_keep_to_the_formula_where_the_last_layer_is_wide(tmp_path: Path) -> None:
    """What C takes tracemalloc does not see, so it is the process that is measured."""
    require_ops("cython")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_PEAK, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    peak = int(done.stdout)
    V, H, R, slices, block, threads = 6_001, 1_000, 2_048, 32, 120, 2
    L = R + 16  # whole vectors, an odd number of cache lines
    parameters = sum(a.size for a in checkpoint.load(tmp_path / "wide" / "model.safetensors")[0].values())
    training, saving = 4 * parameters * (1 + 1), 2 * 4 * parameters
    activations = 4 * R * (3 * (H + 16) + 3 * 3 * 6)
    work = H * L + (slices * (3 + block) + threads * block) * L + H * R + slices * H * L + V * L
    assert peak < training + saving + activations + 4 * work + 5_000_000 < 1.5 * peak


# ----------------------------------------------------------------------------------------------------------- precision


@pytest.fixture(scope="module", params=[("sgd", 0.3), ("adamw", 0.002)], ids=["SGD", "AdamW"])
def rule(request: pytest.FixtureRequest) -> tuple[str, float]:
    """An optimizer and its learning rate."""
    return request.param


@pytest.fixture(scope="module")
def float32_run(rule: tuple[str, float], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], float]:
    """What a network of a real vocabulary learns of real text with products of float32."""
    return learned("ieee", rule, tmp_path_factory.mktemp("ieee"))


def learned(precision: str, rule: tuple[str, float], folder: Path) -> tuple[list[float], float]:
    """The training loss, a mean over each 100 steps, and the validation loss at the end."""
    optimizer, lr = rule
    options: dict[str, Any] = {
        "steps": 1_500,
        "batch_size": 64,
        "hidden": (64, 64),
        "log_every": 100,
        "eval_every": 1_500,
    }
    options |= {"optimizer": optimizer, "lr": lr, "backend": "cython", "precision": precision}
    result = train(TrainConfig(out=str(folder / "run"), **options), text=standard_library_text())
    assert result.kept_val_loss is not None
    return [line["loss"] for line in metrics_of(result.folder) if "loss" in line], result.kept_val_loss


@pytest.mark.parametrize("precision", ["bf16x3", "bf16"])
def test_every_precision_trains_to_the_same_loss(
    precision: str, rule: tuple[str, float], float32_run: tuple[list[float], float], tmp_path: Path
) -> None:
    """The curves lie on each other, to a third of a percent of the perplexity: "auto" may take the fastest."""
    if precision not in require_ops("cython").precisions():
        pytest.skip(f"no {precision} products here")
    losses, val_loss = learned(precision, rule, tmp_path)
    want, want_val_loss = float32_run
    assert len(losses) == len(want) >= 15
    assert want[0] - want[-1] > 1.5, "nothing was learned that could be lost"
    np.testing.assert_allclose(losses, want, rtol=5e-4)
    assert val_loss == pytest.approx(want_val_loss, rel=5e-4)


def test_auto_takes_the_fastest_precision_and_says_so(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    config = small_config(file, tmp_path / "run", steps=1, backend="cython")
    precisions = require_ops("cython").precisions()
    train(config, reporter=recorder)
    assert recorder.all(Running)[0].precision == ("bf16" if "bf16" in precisions else precisions[0])


def test_a_precision_that_the_back_end_lacks_is_refused_before_anything_is_written(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run", precision="bf16")
    with pytest.raises(ConfigError, match=r"^precision: expected auto or ieee, which numpy has, got 'bf16'$"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_in_another_precision_says_so(file: Path, tmp_path: Path) -> None:
    if "bf16" not in require_ops("cython").precisions():
        pytest.skip("no bf16 products here")
    train(small_config(file, tmp_path / "run", backend="cython", precision="ieee"))
    recorder, config = Recorder(), small_config(file, tmp_path / "run", backend="cython", precision="bf16", steps=31)
    train(config, resume=True, reporter=recorder)
    assert "it ran on cython in ieee before: cython in bf16 goes on with other bits" in [
        notice.text for notice in recorder.all(Notice)
    ]


def test_a_run_of_before_there_were_precisions_goes_on(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run")
    tensors, metadata = checkpoint.load(train(config).folder / "last.safetensors")
    del metadata["precision"]
    checkpoint.save(tmp_path / "run" / "last.safetensors", tensors, metadata)
    assert train(config, resume=True).step == config.steps


# ------------------------------------------------------------------------------------------------------------ resuming


def test_resuming_a_finished_run_changes_nothing(file: Path, tmp_path: Path) -> None:
    config, recorder = small_config(file, tmp_path / "run"), Recorder()
    first, before = train(config), outcome(tmp_path / "run")
    again = train(config, resume=True, reporter=recorder)
    assert again == first
    assert outcome(tmp_path / "run") == before
    assert recorder.steps == []
    assert len(recorder.all(Finished)) == 1


def test_a_run_that_went_on_after_its_end_is_not_finished_where_it_was_stopped(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run", steps=10))
    longer = small_config(file, tmp_path / "run", steps=30)
    stopped = train(longer, resume=True, should_stop=stop_after(10))
    assert (stopped.finished, stopped.step, stopped.kept_step, stopped.kept_val_loss) == (False, 20, None, None)
    ended = train(small_config(file, tmp_path / "run", steps=20), resume=True)
    assert ended.finished
    assert ended.kept_step == checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"] > 10
    assert metrics_of(tmp_path / "run")[-1]["kept_step"] == ended.kept_step


def test_resuming_a_finished_run_of_minutes_changes_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    config = small_config(file, tmp_path / "run", steps=None, minutes=0.5)
    first = train(config)
    before = outcome(tmp_path / "run")
    assert train(config, resume=True) == first
    assert outcome(tmp_path / "run") == before
    assert train(small_config(file, tmp_path / "run", steps=None, minutes=1), resume=True).step > first.step > 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"steps": 30}, "it was finished before, after 30 steps: nothing is trained"),
        ({"steps": 20}, "it was finished before, after 30 steps: nothing is trained"),
        (
            {"steps": None, "minutes": 1e-9},
            "it was finished before, after 30 steps: nothing is trained; minutes count over all sittings",
        ),
    ],
)
def test_a_finished_run_of_which_no_more_is_asked_says_so_and_stays(
    asked: dict[str, Any], said: str, file: Path, tmp_path: Path
) -> None:
    first = train(small_config(file, tmp_path / "run"))
    before, recorder = outcome(tmp_path / "run"), Recorder()
    assert train(small_config(file, tmp_path / "run", **asked), resume=True, reporter=recorder) == first
    assert outcome(tmp_path / "run") == before
    assert [notice.text for notice in recorder.all(Notice)] == [said]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"steps": 10}, "it has made 17 of 10 steps: nothing is trained"),
        ({"steps": 17}, "it has made 17 of 17 steps: nothing is trained"),
        (
            {"steps": None, "minutes": 1e-9},
            "its 1e-09 minutes, which count over all sittings, are over: nothing is trained",
        ),
    ],
)
def test_a_stopped_run_of_which_no_more_is_asked_says_so_and_ends(
    asked: dict[str, Any], said: str, file: Path, tmp_path: Path
) -> None:
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(17))
    recorder = Recorder()
    result = train(small_config(file, tmp_path / "run", **asked), resume=True, reporter=recorder)
    assert (result.finished, result.step, recorder.steps) == (True, 17, [])
    assert [notice.text for notice in recorder.all(Notice)] == [said]


def test_a_run_whose_checkpoint_is_lost_does_not_begin_again(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run")
    train(config)
    (tmp_path / "run" / "last.safetensors").unlink()
    lines = metrics_of(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"last\.safetensors is missing, .*--overwrite"):
        train(config, resume=True)
    assert metrics_of(tmp_path / "run") == lines
    assert train(config, overwrite=True).finished


def test_a_run_with_nothing_to_go_on_from_says_that_it_begins(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_config(file, tmp_path / "run", steps=2), resume=True, reporter=recorder)
    assert recorder.all(Notice)[0].text == f"{tmp_path / 'run'} holds nothing to go on from: the run begins at step 0"


def test_a_run_that_cannot_go_on_keeps_its_options(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    before = (tmp_path / "run" / "config.toml").read_bytes()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(RunFolderError, match="lacks lines"):
        train(small_config(file, tmp_path / "run", steps=777), resume=True)
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


def test_a_finished_run_goes_on_where_more_steps_are_asked_for(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    result = train(small_config(file, tmp_path / "run", steps=40), resume=True)
    assert (result.finished, result.step) == (True, 40)
    assert [line["step"] for line in metrics_of(tmp_path / "run")][-2:] == [35, 40]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": (12, 11)}, "hidden: a run that is resumed keeps what it began with: 12,10"),
        ({"seed": 9}, "seed: a run that is resumed keeps what it began with: 1"),
        ({"optimizer": "sgd"}, "optimizer: a run that is resumed keeps what it began with: adamw"),
        ({"steps": None, "epochs": 3}, "epochs: a run by steps cannot go on by epochs"),
    ],
)
def test_a_resumed_run_cannot_become_another(change: dict[str, Any], message: str, file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    before = (tmp_path / "run" / "config.toml").read_bytes()
    with pytest.raises(ConfigError) as refused:
        train(small_config(file, tmp_path / "run", **change), resume=True)
    assert str(refused.value) == message
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


def test_a_resumed_run_takes_its_text_from_elsewhere_but_no_other_text(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(5))
    moved = tmp_path / "moved.txt"
    moved.write_bytes(file.read_bytes())
    assert train(small_config(moved, tmp_path / "run"), should_stop=stop_after(5), resume=True).step == 10
    file.write_text(learnable_text().replace("red", "blue"))
    with pytest.raises(RunFolderError, match=r"was trained on another text \(.*moved\.txt\): name that one"):
        train(small_config(file, tmp_path / "run"), resume=True)
    moved.write_text(learnable_text() + "more")
    with pytest.raises(RunFolderError, match=r"another text \(.*moved\.txt\): it has changed since; put it back"):
        train(small_config(moved, tmp_path / "run"), resume=True)


def test_a_resumed_run_takes_its_validation_file_from_elsewhere_but_no_other(file: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    for place in (one, other):
        place.write_text("anna sells warm bread.")
    train(small_config(file, tmp_path / "run", val_file=str(one)), should_stop=stop_after(5))
    moved = small_config(file, tmp_path / "run", val_file=str(other))
    assert train(moved, should_stop=stop_after(5), resume=True).step == 10
    one.write_text("boris paints a door.")
    for config, message in (
        (small_config(file, tmp_path / "run", val_file=str(one)), f"keeps what it began with: {other}"),
        (small_config(file, tmp_path / "run"), f"keeps what it began with: {other}"),
        (moved, f"{other} has changed since the run began: put it back as it was"),
    ):
        if config == moved:
            other.write_text("boris paints a door.")
        with pytest.raises(ConfigError, match=rf"^val_file: .*{re.escape(message)}$"):
            train(config, resume=True)


def test_a_text_of_many_files_is_named_shortly(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a run on the standard library's documentation."""
    library = Text(learnable_text(), tuple(TextFile(f"module{number}.py", 1, "") for number in range(99)))
    monkeypatch.setattr("fastmlp.data.corpus.standard_library_text", lambda: library)
    train(TrainConfig(out=str(tmp_path / "run"), **small_options(steps=2)))
    file.write_text(learnable_text(100))
    with pytest.raises(RunFolderError) as refused:
        train(small_config(file, tmp_path / "run"), resume=True)
    assert str(refused.value) == (
        f"{tmp_path / 'run'} was trained on another text (documentation of Python's standard library): name that one,"
        " or another folder"
    )


def test_a_warmup_that_is_longer_than_the_run_is_told(file: Path, tmp_path: Path) -> None:
    for warmup, said in (
        (31, ["the learning rate grows over 31 steps, and the run has 30: it does not reach 0.02"]),
        (30, []),
    ):
        recorder = Recorder()
        train(small_config(file, tmp_path / str(warmup), warmup=warmup, log_every=1), reporter=recorder)
        assert [notice.text for notice in recorder.all(Notice)] == said


def test_the_picture_of_a_run_in_the_current_folder_has_its_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "novels").mkdir()
    monkeypatch.chdir(tmp_path / "novels")
    train(small_config(file, Path(), steps=1))
    assert Path("loss.png").read_text().startswith("novels: ")


@pytest.mark.parametrize(("windows", "more"), [((1, 10_000), 300), ((10_000, 1), 300), ((1, 10_000), 0)])
def test_a_resumed_run_may_validate_on_other_words(windows: tuple[int, int], more: int, tmp_path: Path) -> None:
    """Whichever weights are kept, they are the best on the words that validate now."""
    file = write_text(tmp_path, learnable_text(100))
    before, now = (small_config(file, tmp_path / "run", eval_windows=count, eval_every=20) for count in windows)
    train(replace(before, steps=41), should_stop=stop_after(40))
    best = checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"]
    config, recorder = replace(now, steps=41 + more, lr=0.02 if more else 9.0), Recorder()
    with open_run(config, resume=True, reporter=recorder) as run:
        loss_before = run.progress.best_loss
        expected = run._validation_loss(run.kept_model())
        result = run.train()
    notice = next(event.text for event in recorder.all(Notice))
    words = len(run.val_sample)
    assert notice == (
        f"other words validate than before: on {words:,} of them the best weights so far, those of step {best},"
        f" have loss {expected:.3f}"
    )
    assert expected != loss_before
    lines = [line for line in metrics_of(tmp_path / "run") if line["step"] > 40 and "val_loss" in line]
    losses = {best: expected} | {line["step"]: line["val_loss"] for line in lines}
    assert result.kept_step == min(losses, key=lambda step: losses[step])
    assert checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["step"] == result.kept_step
    again = Recorder()
    train(replace(config, steps=config.steps + 1), resume=True, reporter=again)
    assert again.all(Notice) == []


def test_a_resumed_run_may_have_other_prompts(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run", prompt=("anna",)), should_stop=stop_after(5))
    result = train(small_config(file, tmp_path / "run", prompt=("boris", "anna")), resume=True)
    assert list(result.before) == ["anna"]
    assert list(result.after) == ["boris", "anna"]


def test_the_state_of_another_version_is_refused(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    last = tmp_path / "run" / "last.safetensors"
    tensors, metadata = checkpoint.load(last)
    metadata["progress"]["mood"] = "good"
    checkpoint.save(last, tensors, {**metadata, "fastmlp": "9.9"})
    with pytest.raises(RunFolderError, match=r"is of fastmlp 9\.9, which kept other things"):
        train(small_config(file, tmp_path / "run"), resume=True)
    checkpoint.save(last, tensors, {**metadata, "kind": "model"})
    with pytest.raises(RunFolderError, match="is not the state of a training run"):
        train(small_config(file, tmp_path / "run"), resume=True)


def test_a_damaged_checkpoint_is_refused_and_kept(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"))
    last = tmp_path / "run" / "last.safetensors"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    with pytest.raises(RunFolderError, match=r"cannot load .*last\.safetensors"):
        train(small_config(file, tmp_path / "run"), resume=True)
    assert last.read_bytes() == data


def test_lost_metrics_are_noticed(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(20))
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl lacks lines that last\.safetensors counts on"):
        train(small_config(file, tmp_path / "run"), resume=True)


def test_another_back_end_goes_on_with_a_notice(ops: Ops, file: Path, tmp_path: Path) -> None:
    if ops.backend == "numpy":
        pytest.skip("the run begins on it")
    train(small_config(file, tmp_path / "run"), should_stop=stop_after(20))
    recorder = Recorder()
    config = small_config(file, tmp_path / "run", backend=ops.backend)
    assert train(config, resume=True, reporter=recorder).finished
    assert any("it ran on numpy in ieee before" in event.text for event in recorder.all(Notice))


# ------------------------------------------------------------------------------------------------------------ the rest


def test_a_checkpoint_is_saved_as_often_as_asked(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_config(file, tmp_path / "run"), reporter=recorder)
    saved = [event.step for event in recorder.all(Saved) if event.file.endswith("last.safetensors")]
    # at 10, 20 and 30 there were new best weights; at 30 it is saved before all held-out words are guessed, and after
    assert saved == [4, 8, 10, 12, 16, 20, 24, 28, 30, 30]


def test_a_checkpoint_is_saved_after_a_while(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr("fastmlp.training.keeper.SAVE_SECONDS", 0.0)
    train(small_config(file, tmp_path / "run", save_every=None, steps=3), reporter=recorder)
    saved = [event.step for event in recorder.all(Saved) if event.file.endswith("last.safetensors")]
    assert saved == [1, 2, 3, 3]


def test_the_text_is_told_as_it_was_read(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_config(file, tmp_path / "run", steps=1, vocab_size=10), reporter=recorder)
    read = recorder.all(TextRead)[0]
    assert (read.types, read.kept) == (len(set(get_tokenizer("words").split(learnable_text()))), 9)
    assert read.validation_file is None
    other = tmp_path / "other.txt"
    other.write_text("anna paints")
    train(small_config(file, tmp_path / "other", steps=1, val_file=str(other)), reporter=recorder)
    read = recorder.all(TextRead)[1]
    assert (read.validation_words, read.validation_file) == (2, str(other))


def test_events_are_plain_data(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_config(file, tmp_path / "run"), reporter=recorder)
    for event in recorder.events:
        facts = json.loads(json.dumps(event.facts(), allow_nan=False))
        assert facts["event"] == type(event).__name__
    assert {type(event).__name__ for event in recorder.events} >= {"TextRead", "NetworkMade", "Running", "Writing"}
    assert [event.words for event in recorder.all(Evaluating)] == [recorder.all(TextRead)[0].validation_words]


def test_a_picture_that_fails_loses_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where it fails first, and at the end."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("fastmlp.training.keeper.plot_loss", broken)
    monkeypatch.setattr("fastmlp.training.run.FIRST_PICTURE", 0.0)
    recorder = Recorder()
    assert train(small_config(file, tmp_path / "run"), reporter=recorder).finished
    assert ["loss.png is not drawn: no fonts" in event.text for event in recorder.all(Notice)] == [True, True]


def test_pictures_on_the_way_take_a_hundredth_of_the_time_and_are_not_in_words_per_second(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step takes a second and a picture an eighth of one."""
    now, drawn = 0.0, []

    def before_a_step() -> bool:
        nonlocal now
        now += 1
        return False

    def plot_loss(metrics: list[dict[str, Any]], *_: Any, **__: Any) -> None:
        nonlocal now
        now += 0.125
        drawn.append(metrics[-1]["step"])

    monkeypatch.setattr("fastmlp.training.keeper.plot_loss", plot_loss)
    monkeypatch.setattr("time.perf_counter", lambda: now)
    options = {"steps": 50, "log_every": 1, "save_every": 1}
    train(small_config(file, tmp_path / "run", **options), should_stop=before_a_step)
    assert drawn == [10, 23, 36, 49, 50]  # after ten seconds, then 12.375 seconds from the end of one to the next
    assert {line["words_per_second"] for line in metrics_of(tmp_path / "run")[1:]} == {16.0}


@pytest.mark.parametrize("text", ["word", "one two", "a b c"])
def test_a_text_that_is_too_short_is_refused_and_leaves_no_folder(text: str, tmp_path: Path) -> None:
    file = write_text(tmp_path, text)
    if text == "a b c":
        assert train(small_config(file, tmp_path / "run")).finished
        return
    with pytest.raises(TextError, match="too short"):
        train(small_config(file, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_compiling_is_a_phase_of_its_own(file: Path, tmp_path: Path) -> None:
    require_ops("numba")
    recorder = Recorder()
    train(small_config(file, tmp_path / "run", steps=2, backend="numba"), reporter=recorder)
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(Writing) < kinds.index(Compiling) < kinds.index(Compiled) < kinds.index(Sampled)
    assert recorder.all(Compiled)[0].seconds > 0
