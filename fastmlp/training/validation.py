"""The held-out words of a run: a sample of them that is guessed on the way, and all of them at its end."""

import time
from collections.abc import Callable
from typing import Any

from fastmlp.data.corpus import Corpus
from fastmlp.data.windows import evenly_spaced
from fastmlp.prediction.evaluation import evaluate, evaluation_of
from fastmlp.prediction.neural import NeuralModel
from fastmlp.prediction.predictor import Watch

__all__ = ["StoppedError", "Validation", "stop_if"]

TRIAL = 512  # words of an evaluation that only tells how long evaluations take


class StoppedError(Exception):
    """An evaluation was asked to stop."""


def stop_if(should_stop: Callable[[], bool]) -> Watch:
    """Return what an evaluation calls now and then: it raises StoppedError when `should_stop` says so."""

    def watch(_words: int) -> None:
        if should_stop():
            raise StoppedError

    return watch


class Validation:
    """How well a model guesses the words that are held out.

    sample    windows of the validation part, fixed and evenly spaced, all of whose words are in the vocabulary
    held_out  how many words all of the held-out parts have
    """

    def __init__(self, corpus: Corpus, words: int, fp32_precision: str) -> None:
        """words           of the sample, at most
        fp32_precision  training's, for the sample; the figures at the end have float32's
        """
        self.corpus, self.fp32_precision = corpus, fp32_precision
        self.sample = corpus.validation_sample(words)
        self.held_out = len(corpus.val or ()) + len(corpus.test or ())

    def loss(self, model: NeuralModel) -> float:
        """The mean loss on the sample."""
        assert self.corpus.val is not None
        losses = model.losses(self.corpus.val, self.sample, fp32_precision=self.fp32_precision)
        return evaluation_of(model, losses, self.corpus.val.targets[self.sample]).loss

    def trial(self, model: NeuralModel) -> tuple[int, float]:
        """Return how many words were guessed, only to see how long that takes, and the seconds."""
        windows = self.corpus.test if self.corpus.val is None else self.corpus.val
        if windows is None:
            return 0, 0.0
        chosen, seconds = evenly_spaced(windows, TRIAL), 0.0
        for _ in range(2):  # the first one makes room in memory, the second tells
            began = time.perf_counter()
            model.losses(windows, chosen)
            seconds = time.perf_counter() - began
        return len(chosen), seconds

    def figures(self, model: NeuralModel, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Loss and perplexity over all held-out words, without and with unknown ones.

        Raises StoppedError where `should_stop`, which is called again and again, says so.
        """

        figures: dict[str, Any] = {}
        watch = stop_if(should_stop)
        for part, windows in (("val", self.corpus.val), ("test", self.corpus.test)):
            if windows is not None and (found := evaluate(model, windows.targets, windows.before, watch=watch)).words:
                figures |= {f"kept_{part}_{name}": value for name, value in found.figures().items()}
        return figures
