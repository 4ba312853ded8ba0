"""The loss and perplexity of a language model on a text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmlp.data.windows import as_ids
from fastmlp.pictures.table import html_table
from fastmlp.prediction.predictor import Predictor, Watch

__all__ = ["Evaluation", "evaluate", "evaluation_of", "perplexity"]

Array = np.ndarray
ROWS = 512  # losses that are summed at once


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    words              number of predicted words that are in the vocabulary
    loss               their mean loss in nats
    unknown            number of words outside the vocabulary, which `loss` leaves out
    loss_with_unknown  mean loss over all words; None if <unk> was not trained, as its probability means nothing
    """

    words: int
    loss: float
    unknown: int
    loss_with_unknown: float | None

    @property
    def perplexity(self) -> float:
        """exp(loss): the model is as uncertain as between so many equally likely words."""
        return perplexity(self.loss)

    def _repr_html_(self) -> str:
        """The figures as a table, for notebooks."""
        with_unknown = self.loss_with_unknown if self.unknown else None
        return html_table(
            "Evaluation",
            {
                "perplexity": f"{self.perplexity:,.2f}",
                "loss": f"{self.loss:.4f} nats per word",
                "words": f"{self.words:,}",
                "outside the vocabulary": f"{self.unknown:,}" if self.unknown else None,
                "perplexity with them": None if with_unknown is None else f"{perplexity(with_unknown):,.2f}",
            },
        )

    def figures(self) -> dict[str, float]:
        """Return loss, perplexity and number of unknown words; if <unk> was trained, both also over all words."""
        figures = {"loss": self.loss, "perplexity": self.perplexity, "unknown_words": self.unknown}
        if self.loss_with_unknown is None:
            return figures
        with_unknown = {"loss": self.loss_with_unknown, "perplexity": perplexity(self.loss_with_unknown)}
        return figures | {f"{name}_with_unknown": value for name, value in with_unknown.items()}


def perplexity(loss: float) -> float:
    """Return exp(loss), limited to what a float holds."""
    return math.exp(min(loss, 709.0))


def evaluate(
    model: Predictor, ids: Array, before: Array | Sequence[int] = (), *, watch: Watch | None = None
) -> Evaluation:
    """Evaluate how well a model predicts each word of a text from the words before it.

    ids     (N,)  in: the text, `<unk>` for words outside the vocabulary
    before  (M,)  in: the words before the text; empty: the text begins here
    watch   is called with the number of words just done; an exception that it raises ends the evaluation
    Raise TextError if the text has no words.
    """
    ids = as_ids("ids", ids)
    losses = -model.log_probabilities(ids, as_ids("before", np.asarray(before, np.int32)), watch=watch)
    return evaluation_of(model, losses, ids)


def evaluation_of(model: Predictor, losses: Array, targets: Array) -> Evaluation:
    """Return the evaluation for losses (N,) of target words (N,)."""
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
