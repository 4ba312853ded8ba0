"""The interface of a language model that gives probabilities: a network, counts, or a mixture of them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from fastmlp.text.tokenizer import Tokenizer
from fastmlp.text.vocabulary import Vocabulary

__all__ = ["Cursor", "Predictor", "Watch"]

Array = np.ndarray
Watch = Callable[[int], object]  # gets the number of words just done; an exception ends the work


class Cursor(Protocol):
    """A place in a text: it predicts the next word and moves on."""

    def logits(self) -> Array:
        """Return the logits of the next word in a new array (V,), float32: log-probabilities up to a constant."""

    def add(self, word: int) -> None:
        """Append a word by its id."""


class Predictor(Protocol):
    """A model that predicts each word of a text from the words before it."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The words of the ids."""

    @property
    def tokenizer(self) -> Tokenizer:
        """How a text becomes words."""

    @property
    def unk_trained(self) -> bool:
        """Whether training saw `<unk>`, so that its probability has a meaning."""

    def log_probabilities(self, ids: Array, before: Array, *, watch: Watch | None = None) -> Array:
        """Return the log-probability of each word of a text, in order, (N,) in nats.

        ids     (N,)  in: the text
        before  (M,)  in: the words before the text; empty: the text begins here
        """

    def cursor(self, before: Sequence[int]) -> Cursor:
        """Return the place after these words; empty: the beginning of a text."""
