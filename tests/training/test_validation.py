"""The held-out words: a sample on the way, all of them at the end."""

from pathlib import Path

import numpy as np
import pytest

from fastmlp.data.corpus import read_corpus
from fastmlp.network.network import Network
from fastmlp.network.shape import NetworkShape
from fastmlp.ops import get_ops
from fastmlp.prediction.evaluation import evaluate
from fastmlp.prediction.neural import NeuralModel
from fastmlp.training.validation import StoppedError, Validation
from tests.runs import small_config, write_text


@pytest.fixture
def validation_and_model(tmp_path: Path) -> tuple[Validation, NeuralModel]:
    config = small_config(write_text(tmp_path), tmp_path / "run", test_fraction=0.1)
    corpus = read_corpus(config)
    shape = NetworkShape(len(corpus.vocabulary), config.context, config.embed, config.hidden)
    network = Network(shape, get_ops("numpy"), seed=1)
    return Validation(corpus, 50, "ieee"), NeuralModel(network, corpus.vocabulary, corpus.tokenizer, False)


def test_the_loss_is_that_of_the_sample(validation_and_model: tuple[Validation, NeuralModel]) -> None:
    validation, model = validation_and_model
    val = validation.corpus.val
    assert val is not None
    assert len(validation.sample) == 50
    losses = model.network.losses(val.take(validation.sample))
    assert validation.loss(model) == pytest.approx(losses.mean(dtype=np.float64))
    assert validation.loss(model) != evaluate(model, val.targets, val.before).loss


def test_the_figures_are_those_of_all_words(validation_and_model: tuple[Validation, NeuralModel]) -> None:
    validation, model = validation_and_model
    corpus = validation.corpus
    assert corpus.val is not None
    assert corpus.test is not None
    figures = validation.figures(model, lambda: False)
    assert figures["kept_val_loss"] == evaluate(model, corpus.val.targets, corpus.val.before).loss
    assert figures["kept_test_perplexity"] == evaluate(model, corpus.test.targets, corpus.test.before).perplexity
    assert validation.held_out == len(corpus.val) + len(corpus.test)


def test_a_trial_tells_the_seconds_of_its_second_evaluation(
    validation_and_model: tuple[Validation, NeuralModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    validation, model = validation_and_model
    assert validation.corpus.val is not None
    now, losses, takes = [0.0], model.losses, iter([5.0, 2.0])

    def timed_losses(*arguments: object) -> np.ndarray:
        now[0] += next(takes)
        return losses(*arguments)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(NeuralModel, "losses", lambda _, *arguments: timed_losses(*arguments))
    assert validation.trial(model) == (len(validation.corpus.val), 2.0)


def test_a_trial_of_nothing_takes_no_time(tmp_path: Path, validation_and_model: tuple[Validation, NeuralModel]) -> None:
    nothing = Validation(read_corpus(small_config(tmp_path / "story.txt", tmp_path, val_fraction=0)), 50, "ieee")
    assert nothing.trial(validation_and_model[1]) == (0, 0.0)


def test_the_evaluation_at_the_end_can_be_stopped(validation_and_model: tuple[Validation, NeuralModel]) -> None:
    validation, model = validation_and_model
    with pytest.raises(StoppedError):
        validation.figures(model, lambda: True)
