"""The counts beside a run's network: made before it trains, and mixed with it and a cache at the end."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastmlp.config import TrainConfig
from fastmlp.data.corpus import Corpus
from fastmlp.events import Counted, Notice, Reporter
from fastmlp.prediction.evaluation import evaluate, evaluation_of
from fastmlp.prediction.kneser_ney import KneserNey
from fastmlp.prediction.mixture import CHOICE, Mixture, Predictions, fit_mixture
from fastmlp.prediction.neural import NeuralModel
from fastmlp.training.recipe import MOST_COUNTED
from fastmlp.training.validation import stop_if

__all__ = ["Mixing"]

REPORTED = (("network",), ("counts",), ("network", "counts"), ("network", "cache"), ("network", "counts", "cache"))
DEARER = 1.4  # an evaluation of all predictors takes so many times as long as one of the network


class Mixing:
    """Counts the training text, and fits the mixture to the validation part.

    counts  None: none are asked for, or nothing is held out by which they could be mixed
    """

    def __init__(self, config: TrainConfig, corpus: Corpus, reporter: Reporter) -> None:
        self._config, self._corpus, self._reporter = config, corpus, reporter
        self.counts: KneserNey | None = None
        self.figures: dict[str, float] = {}  # of the counts, for the first line of metrics
        self.wanted = bool(config.counts)

    def count(self) -> None:
        """Count the n-grams of the training text, and report how well they alone predict the validation part."""
        val, words = self._corpus.val, len(self._corpus.train)
        if not self.wanted:
            if self._config.window and words > MOST_COUNTED:
                self._reporter.report(
                    Notice(f"{words:,} words are not counted, which would take gigabytes: --counts yes")
                )
            return
        if val is None:
            self._reporter.report(Notice("nothing is held out for validation: no counts, as nothing could weigh them"))
            return
        began, corpus = time.perf_counter(), self._corpus
        counts = KneserNey.of(corpus.train.targets, corpus.vocabulary, corpus.tokenizer, order=self._config.order)
        found = evaluate(counts, val.targets, val.before)
        if not found.words:
            return
        self.counts, self.figures = counts, {"counts_val_loss": found.loss}
        self._reporter.report(Counted(counts.order, found.loss, found.perplexity, time.perf_counter() - began))

    def words_at_end(self, held_out: int) -> int:
        """Return how many words of the network alone take as long as the evaluation of the mixture."""
        return int(DEARER * held_out) + 2 * min(CHOICE, held_out) if self.wanted else held_out

    def evaluate(self, model: NeuralModel, should_stop: Callable[[], bool]) -> tuple[Mixture, dict[str, Any]]:
        """Return the mixture, and its figures for the last line of metrics: on words to which it was not fitted.

        Without a test part it is fitted to the first half of the validation part, and the figures are of the second.
        Raise StoppedError when `should_stop`, which is called again and again, says so.
        """
        corpus, watch = self._corpus, stop_if(should_stop)
        val, test = corpus.val, corpus.test
        assert val is not None
        fitted = len(val) if test is not None else (len(val) + 1) // 2
        mixture, found = fit_mixture(model, self.counts, val.targets, val.before, fitted, watch=watch)
        figures, targets, part = self._kept("val", model, found, val.targets), val.targets[fitted:], "val"
        found_there = found[fitted:]
        if test is not None:
            found_there, targets, part = (
                mixture.predictions(test.targets, test.before, watch=watch),
                test.targets,
                "test",
            )
            figures |= self._kept("test", model, found_there, targets)
        evaluations = {
            "+".join(names): evaluation_of(model, -found_there.of(*names).mixed(mixture.weights), targets)
            for names in REPORTED
        }
        if words := evaluations["network"].words:
            perplexities = {names: evaluation.perplexity for names, evaluation in evaluations.items()}
            figures["mixture"] = {"part": part, "words": words, **perplexities}
        return mixture, figures

    def _kept(self, part: str, model: NeuralModel, found: Predictions, targets: np.ndarray) -> dict[str, Any]:
        alone = evaluation_of(model, -found.of("network").mixed({}), targets)
        return {f"kept_{part}_{name}": value for name, value in alone.figures().items()} if alone.words else {}
