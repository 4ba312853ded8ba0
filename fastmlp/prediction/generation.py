"""Generate text one word after the other, each drawn from the model's probabilities."""

from collections.abc import Iterator
from itertools import islice
from typing import TypedDict, Unpack

import numpy as np

from fastmlp.prediction.predictor import Predictor
from fastmlp.text.vocabulary import UNK

__all__ = [
    "Continuation",
    "Limits",
    "complete",
    "continuation",
    "describe_unknown_words",
    "draw",
    "drawing_probabilities",
    "random_numbers",
    "softmax",
    "words_of_prompt",
]

Array = np.ndarray
MOST_DESCRIBED = 5  # unknown words that a message describes
LONGEST_DESCRIBED = 40  # characters of one of them
COLDEST, HOTTEST = 1e-30, 1e30  # temperatures; beyond these, scores become 0 or infinite in float32


class Limits(TypedDict, total=False):
    """The options of `draw`."""

    temperature: float
    top_k: int | None
    top_p: float | None


def complete(
    model: Predictor, prompt: list[str], words: int, rng: np.random.Generator, **limits: Unpack[Limits]
) -> list[str]:
    """Return `words` words that continue a prompt; the arguments are those of `continuation`."""
    return list(islice(continuation(model, prompt, rng, **limits), words))


def continuation(
    model: Predictor, prompt: list[str], rng: np.random.Generator, **limits: Unpack[Limits]
) -> Iterator[str]:
    """Yield the words of an endless continuation, each drawn on demand from the words that may come next.

    prompt  the words before; empty: the beginning of a text
    rng     random numbers, one per word
    limits  the options of `draw`
    """
    place = Continuation(model, prompt)
    while True:
        yield place.add(draw(place.logits(), rng, **limits))


class Continuation:
    """A text in progress: the model's place in it, and the words that may come next."""

    def __init__(self, model: Predictor, prompt: list[str]) -> None:
        """prompt  the words so far"""
        self._vocabulary, self._joiner = model.vocabulary, model.tokenizer.joiner()
        self._cursor = model.cursor(model.vocabulary.encode(prompt).tolist())
        for word in prompt:
            self._joiner.add(word)

    def logits(self) -> Array:
        """Return the logits (V,) of the next word; -inf for <unk> and for words that the joiner excludes.

        If that excludes the whole vocabulary, such as a paragraph mark alone, only <unk> is excluded.
        """
        vocabulary, logits = self._vocabulary, self._cursor.logits()
        excluded = {vocabulary.id_of(word) for word in (UNK, *self._joiner.excluded())}
        logits[list(excluded) if len(excluded) < len(vocabulary) else vocabulary.unk_id] = -np.inf
        return logits

    def add(self, word: int) -> str:
        """Append a word by its id and return the word."""
        written = self._vocabulary.words[word]
        self._cursor.add(word)
        self._joiner.add(written)
        return written


def words_of_prompt(model: Predictor, prompt: str) -> list[str]:
    """Return the words of a prompt, capitalized as in the vocabulary."""
    return [model.vocabulary.in_its_case(word) for word in model.tokenizer.split(prompt)]


def softmax(logits: Array) -> Array:
    """Return the probabilities (V,) of logits, float64."""
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
    """Draw one id from softmax(logits / temperature).

    logits       (V,)  in: -inf for words that may not come
    rng          random numbers, of which one is used
    temperature  below 1 makes likely words more likely, above 1 less likely; 0 always takes the likeliest word
    top_k        draw from the k likeliest words
    top_p        draw from the fewest words that together have this probability
    """
    probabilities = _at_temperature(logits, temperature)
    if probabilities is None:
        return int(logits.argmax())
    words = None if top_k is None and top_p is None else _likeliest(probabilities, top_k or len(logits), top_p or 1.0)
    cumulative = np.cumsum(probabilities if words is None else probabilities[words], dtype=np.float64)
    place = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return place if words is None else int(words[place])


def drawing_probabilities(
    logits: Array, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Array:
    """Return the probability (V,) with which `draw` takes each word, float64. The arguments are those of `draw`."""
    drawn = np.zeros(len(logits))
    probabilities = _at_temperature(logits, temperature)
    if probabilities is None:
        drawn[logits.argmax()] = 1
        return drawn
    words = _likeliest(probabilities, top_k or len(logits), top_p or 1.0)
    drawn[words] = probabilities[words] / probabilities[words].sum(dtype=np.float64)
    return drawn


def _at_temperature(logits: Array, temperature: float) -> Array | None:
    """Return the probabilities (V,) at a temperature up to a factor; None: only the likeliest word is taken."""
    highest = logits.max()
    if temperature == 0 or not np.isfinite(highest):  # after divergence there is nothing to draw from
        return None
    scores = logits - highest  # float32: exp is four times as fast, and its error is below the network's
    if temperature != 1:
        with np.errstate(over="ignore"):  # minus infinity is right for a temperature near 0
            scores /= min(max(temperature, COLDEST), HOTTEST)
    return np.exp(scores, out=scores)  # type: ignore[no-any-return]


def _likeliest(probabilities: Array, count: int, share: float) -> Array:
    """Return the ids of the `count` likeliest words, or of fewer that together have `share` of all probability.

    The likeliest come first, equally likely words in the order of their ids. Sorting all V words would take longer than
    the network. So words below the count-th probability are not sorted, nor words below (1 - share) / V, which together
    have less than 1 - share.
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
    """Return the random numbers of one of several texts: a function of (seed, stream); new ones without a seed."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(None if seed is None else (seed, stream))))


def describe_unknown_words(model: Predictor, words: list[str]) -> str | None:
    """Return one line on words outside the vocabulary; None if all are known.

    The first few are there with similar words, each once, of the others the number.
    """
    unknown = [word for word in dict.fromkeys(words) if word not in model.vocabulary]
    if not unknown:
        return None
    close = {word: model.vocabulary.closest(word) for word in unknown[:MOST_DESCRIBED]}
    described = [
        f"'{shorten(word)}'" + (f" (close: {', '.join(near)})" if near else "") for word, near in close.items()
    ]
    more = f" and {len(unknown) - len(close):,} more" if len(unknown) > len(close) else ""
    return f"not in the vocabulary, read as <unk>: {', '.join(described)}{more}"


def shorten(word: str) -> str:
    """Return a word, or the beginning of one that is too long for a message."""
    return word if len(word) <= LONGEST_DESCRIBED else f"{word[: LONGEST_DESCRIBED - 1]}…"
