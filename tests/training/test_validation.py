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
from fastmlp.training.validation import Validation
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
    corpus, seen = validation.corpus, []
    assert corpus.val is not None
    assert corpus.test is not None
    figures = validation.figures(model, seen.append)
    assert figures["kept_val_loss"] == evaluate(model, corpus.val.targets, corpus.val.before).loss
    assert figures["kept_test_perplexity"] == evaluate(model, corpus.test.targets, corpus.test.before).perplexity
    assert sum(seen) == validation.held_out == len(corpus.val) + len(corpus.test)
    assert 0 < validation.trial(model) <= len(corpus.val)


def test_what_watches_can_end_it(validation_and_model: tuple[Validation, NeuralModel]) -> None:
    validation, model = validation_and_model

    def stop(_words: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validation.figures(model, stop)
