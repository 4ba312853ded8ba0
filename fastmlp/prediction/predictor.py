"""What a language model is to those who only ask it for probabilities: a network, counts, or a mixture of them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from fastmlp.text.tokenizer import Tokenizer
from fastmlp.text.vocabulary import Vocabulary

__all__ = ["Cursor", "Predictor", "Watch"]

Array = np.ndarray
Watch = Callable[[int], object]  # is told of so many words more that are done; what it raises ends the work


class Cursor(Protocol):
    """A place in a text: what may come next there, and the text goes on."""

    def logits(self) -> Array:
        """The scores of every next word, (V,) float32: log-probabilities but for a constant. A new array."""

    def add(self, word: int) -> None:
        """The text goes on with this word, an id."""


class Predictor(Protocol):
    """Guesses each word of a text from those before it."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The words of the ids."""

    @property
    def tokenizer(self) -> Tokenizer:
        """How a text becomes words."""

    @property
    def unk_trained(self) -> bool:
        """Whether training saw `<unk>`, so that its probability means something."""

    def log_probabilities(self, ids: Array, before: Array, *, watch: Watch | None = None) -> Array:
        """The log-probability of each word of a text, in its order, (N,) in nats.

        ids     (N,)  in: the text
        before  (M,)  in: the words before it; none: it begins here
        """

    def cursor(self, before: Sequence[int]) -> Cursor:
        """The place after these words; none: the beginning of a text."""
