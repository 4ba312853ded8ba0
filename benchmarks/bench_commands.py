"""The commands' times: help, a usage error, the first step; evaluation, saving and generation.

On a generated text as long as six novels, or with `--text` on FILE, with the default options.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from benchmarks import setting
from benchmarks.conftest import in_contest
from benchmarks.contest import Contender, Result, timed
from fastmlp import cli
from fastmlp.config import SAVE_SECONDS, TrainConfig
from fastmlp.events import Event, Reporter, Saved, Started
from fastmlp.files.run_folder import LAST_FILE, MODEL_FILE
from fastmlp.prediction.generation import continuation, random_numbers
from fastmlp.text import Text, read_text
from fastmlp.trainer import run_in_memory, train
from fastmlp.training.keeper import SAVING_SHARE
from fastmlp.training.recipe import filled_in
from fastmlp.training.run import Run
from tests.helpers import require_ops

WORDS = 1_350_000  # of the generated text
SENTENCE = 20  # words
ROUNDS = 5
LIMITS = {
    "all words": {},
    "top-k 40": {"top_k": 40},
    "top-p 0.9": {"top_p": 0.9},
    "temperature 0": {"temperature": 0.0},
}
Record = Callable[..., None]
Show = Callable[[str], None]


@pytest.fixture(scope="session")
def novels(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, smoke: bool) -> Path:
    """Return the text; for smoke one with each word once."""
    if given := pytestconfig.getoption("text"):
        return Path(given)
    words = iter(setting.words_of_a_text(0 if smoke else WORDS))
    sentences = iter(lambda: " ".join(islice(words, SENTENCE)), "")
    file = tmp_path_factory.mktemp("text") / "novels.txt"
    file.write_text("".join(f"{sentence}.\n" for sentence in sentences))
    return file


@pytest.fixture(scope="session")
def text(novels: Path) -> Text:
    return read_text([str(novels)])


# ---------------------------------------------------------------------------------------------------- until it answers


def answer(command: str, argument: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-m", f"fastmlp.{command}", argument], capture_output=True, check=False)
    assert done.returncode == status


@pytest.mark.parametrize("command", cli.COMMANDS)
@pytest.mark.parametrize(("argument", "status"), [("--help", cli.DONE), ("--bogus", cli.UNUSABLE)])
def bench_answer(benchmark: Any, smoke: bool, command: str, argument: str, status: int) -> None:
    benchmark.group = f"python -m fastmlp.COMMAND {argument}"
    benchmark.pedantic(answer, args=(command, argument, status), rounds=1 if smoke else ROUNDS)


def until_first_step(*arguments: str) -> float:
    """Return the seconds from the command to the end of the first step, which writes the first line of metrics."""
    began = perf_counter()
    command = [sys.executable, "-m", "fastmlp.train", *arguments, "--json", "--backend", "cython"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        measured = (json.loads(line)["event"] == "Measured" for line in process.stdout)
        came = any(measured)
        seconds = perf_counter() - began
        process.kill()
    assert came
    return seconds


@in_contest
def bench_first_step(record: Record, novels: Path, tmp_path: Path, smoke: bool) -> None:
    require_ops("cython")
    start = partial(until_first_step, str(novels), "--out", str(tmp_path / "run"), "--overwrite")
    result = Result([start() for _ in range(1 if smoke else ROUNDS)])
    record(Contender("fastmlp", ""), result, "from the command to the end of the first step")


# ------------------------------------------------------------------------------------------------ saving and evaluation


class Saves(Reporter):
    """Clocks each step, and each file that is saved right after it."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {"training": [], LAST_FILE: [], MODEL_FILE: []}
        self.last = 0.0

    def step(self, step: int, share: float, loss: float) -> None:
        self.clock("training")

    def report(self, event: Event) -> None:
        if isinstance(event, Started):
            self.last = perf_counter()
        elif isinstance(event, Saved):
            self.clock(Path(event.file).name)

    def clock(self, what: str) -> None:
        now = perf_counter()
        self.seconds[what].append(now - self.last)
        self.last = now


@pytest.fixture(scope="session")
def saving(text: Text, tmp_path_factory: pytest.TempPathFactory, smoke: bool) -> dict[str, Result]:
    """Run with a save after each step; without validation the last weights are also saved as the best."""
    clock = Saves()
    often = {"save_every": 1, "steps": 2 if smoke else 2 * ROUNDS, "val_fraction": 0.0}
    train(TrainConfig(out=str(tmp_path_factory.mktemp("run")), **often), text=text, reporter=clock)
    return {what: Result(seconds[:-1]) for what, seconds in clock.seconds.items()}  # the end does more


def describe_saving(saving: dict[str, Result]) -> str:
    """A table with shares of the training time of a default run."""
    step, last, model = (saving[what].median for what in ("training", LAST_FILE, MODEL_FILE))
    every_best = (last + model) / (filled_in(TrainConfig(), WORDS).eval_every * step)
    return (
        f"Saving: {LAST_FILE} {last:.2f} s, once in {SAVE_SECONDS:.0f} s {last / SAVE_SECONDS:.1%} of the time; with "
        f"{MODEL_FILE}, {model:.2f} s, after each validation it would be {every_best:.1%} where each is the best so"
        f" far; by default it is {SAVING_SHARE:.1%} at most."
    )


@in_contest
@pytest.mark.parametrize("what", ["training", LAST_FILE, MODEL_FILE])
def bench_saving(record: Record, show: Show, saving: dict[str, Result], what: str) -> None:
    if what == "training":
        show(describe_saving(saving))
    record(Contender(what, ""), saving[what], "a step, and the files that are saved")


@pytest.fixture(scope="session")
def run(text: Text) -> Run:
    """Return a run of default options whose network has learned the words' frequencies only."""
    run = run_in_memory(TrainConfig(), text=text)
    counts = np.bincount(run.corpus.held_out, minlength=len(run.corpus.vocabulary))
    run.network.parameters["output.bias"][:] = np.log(counts + 0.1)
    return run


@pytest.fixture(scope="session")
def judging(run: Run, smoke: bool) -> dict[str, Result]:
    """Measure the seconds a word of training and of evaluation during training, in turn."""
    assert run.corpus.val is not None
    batch = run.batches.batch(0)
    run.optimizer.param_groups[0]["lr"] = 1e-6
    step = partial(run.network.step, batch, run.optimizer)
    judge = partial(run.model.losses, run.corpus.val, run.validation.sample, fp32_precision=run.precision)
    seconds: dict[str, list[float]] = {"training": [], "evaluation": []}
    for _ in range(1 + (1 if smoke else ROUNDS)):
        seconds["training"].append(median(timed(step) for _ in range(5)) / len(batch.targets))
        seconds["evaluation"].append(timed(judge) / len(run.validation.sample))
    return {what: Result(figures[1:]) for what, figures in seconds.items()}


@in_contest
@pytest.mark.parametrize("what", ["training", "evaluation"])
def bench_evaluation(record: Record, show: Show, judging: dict[str, Result], what: str) -> None:
    if what == "training":
        training, evaluation = judging["training"].median, judging["evaluation"].median
        show(
            f"Training {1 / training:,.0f} words/s, evaluation {1 / evaluation:,.0f}: "
            f"{training / evaluation:.1f} times as many."
        )
    record(Contender(what, ""), judging[what], "a word of training, and of evaluation")


# ----------------------------------------------------------------------------------------------------------- generation


@pytest.fixture(scope="session")
def writing(run: Run, smoke: bool) -> dict[str, Result]:
    """Measure the seconds between generated words, each kind of limits in turn."""
    texts: dict[str, Iterator[str]] = {
        name: continuation(run.model, [], random_numbers(1, 0), **limits) for name, limits in LIMITS.items()
    }
    results = {name: Result() for name in texts}
    for _ in range(1 if smoke else ROUNDS):
        for name, words in texts.items():
            next(words)
            results[name].seconds += [timed(partial(next, words)) for _ in range(1 if smoke else 30)]
    return results


@in_contest
@pytest.mark.parametrize("limits", LIMITS)
def bench_generation(record: Record, show: Show, writing: dict[str, Result], limits: str) -> None:
    if limits == next(iter(LIMITS)):
        speeds = [f"{name} {1 / result.median:,.0f}" for name, result in writing.items()]
        show(f"Words a second of one text: {', '.join(speeds)}.")
    record(Contender(limits, ""), writing[limits], "from word to word of one text")
