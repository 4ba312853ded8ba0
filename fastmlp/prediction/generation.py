"""Text from a trained network: one word after the other, each drawn from what the network expects next."""

from collections.abc import Iterator
from itertools import islice
from typing import TypedDict, Unpack

import numpy as np

from fastmlp.prediction.predictor import Predictor
from fastmlp.text.vocabulary import UNK

__all__ = [
    "Continuation",
    "complete",
    "continuation",
    "describe_unknown_words",
    "draw",
    "random_numbers",
    "softmax",
    "words_of_prompt",
]

Array = np.ndarray
TEMPERATURE = 0.7  # at which texts read best: at 1 every tenth word is out of place
COLDEST, HOTTEST = 1e-30, 1e30  # temperatures: what lies beyond is 0 or infinite in float32


class Limits(TypedDict, total=False):
    """The options of `draw`."""

    temperature: float
    top_k: int | None
    top_p: float | None


def complete(
    model: Predictor, prompt: list[str], words: int, rng: np.random.Generator, **limits: Unpack[Limits]
) -> list[str]:
    """So many words to go on with; the arguments are those of `continuation`."""
    return list(islice(continuation(model, prompt, rng, **limits), words))


def continuation(
    model: Predictor, prompt: list[str], rng: np.random.Generator, **limits: Unpack[Limits]
) -> Iterator[str]:
    """The words to go on with, without end, each drawn when it is asked for; none that may not come next.

    prompt  what stands before; none: the beginning of a text
    rng     random numbers, one a word
    limits  what is drawn from, as in `draw`
    """
    place = Continuation(model, prompt)
    while True:
        yield place.add(draw(place.logits(), rng, **limits))


class Continuation:
    """A text that is being written: the model's place in it, and what may stand there."""

    def __init__(self, model: Predictor, prompt: list[str]) -> None:
        """prompt  the words so far"""
        self._vocabulary, self._joiner = model.vocabulary, model.tokenizer.joiner()
        self._cursor = model.cursor(model.vocabulary.encode(prompt).tolist())
        for word in prompt:
            self._joiner.add(word)

    def logits(self) -> Array:
        """The scores (V,) of every next word; -inf for <unk> and for what the joiner says may not come next.

        A vocabulary may have nothing else, such as a paragraph mark alone: then all but <unk> may come.
        """
        vocabulary, logits = self._vocabulary, self._cursor.logits()
        excluded = {vocabulary.id_of(word) for word in (UNK, *self._joiner.excluded())}
        logits[list(excluded) if len(excluded) < len(vocabulary) else vocabulary.unk_id] = -np.inf
        return logits

    def add(self, word: int) -> str:
        """The text goes on with this word, an id. Returns the word."""
        written = self._vocabulary.words[word]
        self._cursor.add(word)
        self._joiner.add(written)
        return written


def words_of_prompt(model: Predictor, prompt: str) -> list[str]:
    """The words of a prompt, in the capitals in which the vocabulary has them."""
    return [model.vocabulary.in_its_case(word) for word in model.tokenizer.split(prompt)]


def softmax(logits: Array) -> Array:
    """The probabilities (V,) of scores, float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(exponentials / exponentials.sum())


def draw(
    logits: Array,
    rng: np.random.Generator,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """One id drawn from softmax(logits / temperature).

    logits       (V,)  in: -inf for what may not come
    rng          random numbers, of which it takes one
    temperature  below 1 the likely words become likelier still, above 1 less so; 0 always takes the likeliest
    top_k        draw from the k likeliest words
    top_p        draw from the fewest words that together have this probability
    """
    highest = logits.max()
    if temperature == 0 or not np.isfinite(highest):  # weights that have grown beyond measure tell nothing more
        return int(logits.argmax())
    scores = logits - highest  # float32: its exp is four times as fast, and off by less than the network is
    if temperature != 1:
        with np.errstate(over="ignore"):  # of a temperature near 0: minus infinity is right
            scores /= min(max(temperature, COLDEST), HOTTEST)
    probabilities = np.exp(scores, out=scores)  # but for a factor
    words = None if top_k is None and top_p is None else _likeliest(probabilities, top_k or len(logits), top_p or 1.0)
    cumulative = np.cumsum(probabilities if words is None else probabilities[words], dtype=np.float64)
    place = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return place if words is None else int(words[place])


def _likeliest(probabilities: Array, count: int, share: float) -> Array:
    """The ids of the `count` likeliest words, or of the fewest that together have a share of all probability.

    The likeliest first, equally likely ones in the order of their ids. Not all V are sorted, which would take longer
    than the network: the words below the count-th probability are not among them, nor are those below (1 - share) / V,
    which all together have less than 1 - share.
    """
    size, total = len(probabilities), probabilities.sum(dtype=np.float64)
    least = (1 - share) * total / size
    if count < size:
        least = max(least, np.partition(probabilities, -count)[-count])
    words = np.flatnonzero(probabilities >= least)
    words = words[np.argsort(-probabilities[words], kind="stable")][:count]
    enough = np.searchsorted(np.cumsum(probabilities[words], dtype=np.float64), share * total)
    return np.asarray(words[: enough + 1])


def random_numbers(seed: int | None, stream: int) -> np.random.Generator:
    """The random numbers of one of several texts: a function of (seed, stream), or new ones where seed is None."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(None if seed is None else (seed, stream))))


def describe_unknown_words(model: Predictor, words: list[str]) -> str | None:
    """One line on the words that the vocabulary lacks, each once, with close ones; None where it has them all."""
    unknown = [word for word in dict.fromkeys(words) if word not in model.vocabulary]
    if not unknown:
        return None
    close = {word: model.vocabulary.closest(word) for word in unknown}
    described = (f"'{word}'" + (f" (close: {', '.join(near)})" if near else "") for word, near in close.items())
    return f"not in the vocabulary, read as <unk>: {', '.join(described)}"
