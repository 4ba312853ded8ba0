"""How well a language model guesses a text: loss and perplexity."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastmlp.data.corpus import beginning
from fastmlp.data.windows import Windows
from fastmlp.prediction.neural import NeuralModel

__all__ = ["Evaluation", "evaluate", "evaluate_ids", "perplexity"]

Array = np.ndarray
Watch = Callable[[int], object]
ROWS = 512  # rows at once: enough that the weights are read, and cut into tiles, seldom


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    words              words of the vocabulary that were guessed
    loss               their mean loss in nats
    unknown            words outside the vocabulary, which are left out of `loss`
    loss_with_unknown  the mean over all words; None where <unk> was not trained, so that it says nothing
    """

    words: int
    loss: float
    unknown: int
    loss_with_unknown: float | None

    @property
    def perplexity(self) -> float:
        """exp(loss): between how many equally likely words the model hesitates."""
        return perplexity(self.loss)

    def figures(self) -> dict[str, float]:
        """Loss and perplexity, how many words they leave out, and where <unk> was trained both over all words."""
        figures = {"loss": self.loss, "perplexity": self.perplexity, "unknown_words": self.unknown}
        if self.loss_with_unknown is None:
            return figures
        with_unknown = {"loss": self.loss_with_unknown, "perplexity": perplexity(self.loss_with_unknown)}
        return figures | {f"{name}_with_unknown": value for name, value in with_unknown.items()}


def perplexity(loss: float) -> float:
    """exp(loss), at most what a float holds."""
    return math.exp(min(loss, 709.0))


def evaluate_ids(model: NeuralModel, ids: Array, *, watch: Watch | None = None) -> Evaluation:
    """Guess each word of a text with the running statistics.

    ids    (N,)  in: the text, `<unk>` for words outside the vocabulary
    watch  is told of so many words more that are done
    Raises TextError where it has no word.
    """
    history = beginning(model.tokenizer, model.vocabulary, model.context)
    return evaluate(model, Windows(ids, model.context, history=history), watch=watch)


def evaluate(
    model: NeuralModel,
    windows: Windows,
    indices: Array | None = None,
    *,
    fp32_precision: str = "auto",
    watch: Watch | None = None,
) -> Evaluation:
    """Guess the next word of each window with the running statistics.

    windows         (context -> next word)
    indices         which of them; None: all
    fp32_precision  of the last layer's products, as in ops/reference; "auto": float32's
    watch           is told of so many more that are done; what it raises ends the evaluation
    """
    chosen = np.arange(len(windows)) if indices is None else indices
    known_loss = unknown_loss = 0.0
    unknown = 0
    embedding = model.unknown_embedding()
    for start in range(0, len(chosen), ROWS):
        ids, targets = windows.take(chosen[start : start + ROWS])
        losses = model.network.losses(ids, targets, unknown=embedding, fp32_precision=fp32_precision)
        outside = targets == model.vocabulary.unk_id
        known_loss += float(losses[~outside].sum(dtype=np.float64))
        unknown_loss += float(losses[outside].sum(dtype=np.float64))
        unknown += int(outside.sum())
        if watch is not None:
            watch(len(targets))
    words = len(chosen) - unknown
    return Evaluation(
        words=words,
        loss=known_loss / words if words else math.nan,
        unknown=unknown,
        loss_with_unknown=(known_loss + unknown_loss) / len(chosen) if model.unk_trained else None,
    )
