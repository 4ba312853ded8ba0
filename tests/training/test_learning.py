"""Training learns: on each back-end, with every optimizer and tokenizer, through epochs."""

import math
from pathlib import Path

import numpy as np
import pytest

from fastmlp.data.corpus import read_corpus
from fastmlp.events import Started
from fastmlp.ops import Ops
from fastmlp.text import get_tokenizer
from fastmlp.trainer import train
from tests.runs import learnable_text, metrics_of, small_config, unigram_entropy
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


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
