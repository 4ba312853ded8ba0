"""How well a language model guesses a text: loss and perplexity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmlp.data.windows import as_ids
from fastmlp.prediction.predictor import Predictor, Watch

__all__ = ["Evaluation", "evaluate", "evaluation_of", "perplexity"]

Array = np.ndarray
ROWS = 512  # losses that are added up at once


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


def evaluate(
    model: Predictor, ids: Array, before: Array | Sequence[int] = (), *, watch: Watch | None = None
) -> Evaluation:
    """Guess each word of a text from those before it.

    ids     (N,)  in: the text, `<unk>` for words outside the vocabulary
    before  (M,)  in: the words before it; none: it begins here
    watch   is told of so many words more that are done; what it raises ends the evaluation
    Raises TextError where the text has no word.
    """
    ids = as_ids("ids", ids)
    losses = -model.log_probabilities(ids, as_ids("before", np.asarray(before, np.int32)), watch=watch)
    return evaluation_of(model, losses, ids)


def evaluation_of(model: Predictor, losses: Array, targets: Array) -> Evaluation:
    """What the losses (N,) of words (N,) come to."""
    known_loss = unknown_loss = 0.0
    outside = targets == model.vocabulary.unk_id
    for start in range(0, len(losses), ROWS):
        part, unknown = losses[start : start + ROWS], outside[start : start + ROWS]
        known_loss += float(part[~unknown].sum(dtype=np.float64))
        unknown_loss += float(part[unknown].sum(dtype=np.float64))
    words = len(losses) - int(outside.sum())
    return Evaluation(
        words=words,
        loss=known_loss / words if words else math.nan,
        unknown=len(losses) - words,
        loss_with_unknown=(known_loss + unknown_loss) / len(losses) if model.unk_trained else None,
    )
