"""Text from a trained network: one word after the other, each drawn from what the network expects next."""

from typing import TYPE_CHECKING

import numpy as np

from fastmlp.corpus import beginning
from fastmlp.text import UNK, Joiner

if TYPE_CHECKING:
    from fastmlp.language_model import LanguageModel

__all__ = [
    "beginning_with",
    "complete",
    "describe_unknown_words",
    "draw",
    "next_logits",
    "random_numbers",
    "softmax",
]

Array = np.ndarray


def complete(
    language: "LanguageModel",
    prompt: list[str],
    words: int,
    rng: np.random.Generator,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> list[str]:
    """So many words to go on with, never <unk>, nor what the tokenizer's joiner says may not come next.

    prompt       what stands before; a short one is filled on the left with the tokenizer's sentence end
    rng          random numbers, one a word
    temperature  below 1 the likely words become likelier still, above 1 less so; 0 always takes the likeliest
    top_k        draw from the k likeliest words
    top_p        draw from the fewest words that together have this probability
    """
    ids, joiner = beginning_with(language, prompt), _joiner_after(language, prompt)
    start = len(ids)
    with language.reading_unknown_words():
        for _ in range(words):
            ids.append(draw(_logits(language, ids, joiner), rng, temperature=temperature, top_k=top_k, top_p=top_p))
            joiner.add(language.vocabulary.words[ids[-1]])
    return language.vocabulary.decode(ids[start:])


def beginning_with(language: "LanguageModel", prompt: list[str]) -> list[int]:
    """The ids of a prompt, with what stands before a text's first word on its left."""
    vocabulary, context = language.vocabulary, language.network.shape.context
    return [*beginning(language.tokenizer, vocabulary, context).tolist(), *vocabulary.encode(prompt).tolist()]


def next_logits(language: "LanguageModel", prompt: list[str]) -> Array:
    """The scores (V,) of every word after a prompt; -inf for <unk> and for what the joiner says may not come next."""
    with language.reading_unknown_words():
        return _logits(language, beginning_with(language, prompt), _joiner_after(language, prompt))


def _joiner_after(language: "LanguageModel", prompt: list[str]) -> Joiner:
    """The joiner that has put a prompt together."""
    joiner = language.tokenizer.joiner()
    for word in prompt:
        joiner.add(word)
    return joiner


def _logits(language: "LanguageModel", ids: list[int], joiner: Joiner) -> Array:
    context = language.network.shape.context
    logits: Array = language.network.logits(np.array([ids[-context:]], np.int32))[0]
    logits[[language.vocabulary.id_of(word) for word in (UNK, *joiner.excluded())]] = -np.inf
    return logits


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
    """One id drawn from softmax(logits / temperature), cut to the likeliest words as in `complete`.

    logits  (V,)  in: -inf for what may not come
    """
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()
    probabilities = np.exp(scaled / temperature)
    likeliest = np.argsort(-probabilities, kind="stable")
    cumulative = np.cumsum(probabilities[likeliest])
    kept = len(likeliest) if top_k is None else min(top_k, len(likeliest))
    if top_p is not None:
        kept = min(kept, int(np.searchsorted(cumulative, top_p * cumulative[-1])) + 1)
    place = np.searchsorted(cumulative[:kept], rng.random() * cumulative[kept - 1], side="right")
    return int(likeliest[min(int(place), kept - 1)])


def random_numbers(seed: int | None, stream: int) -> np.random.Generator:
    """The random numbers of one of several texts: a function of (seed, stream), or new ones where seed is None."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(None if seed is None else (seed, stream))))


def describe_unknown_words(language: "LanguageModel", words: list[str]) -> str | None:
    """One line on the words that the vocabulary lacks, each once, with close ones; None where it has them all."""
    unknown = [word for word in dict.fromkeys(words) if word not in language.vocabulary]
    if not unknown:
        return None
    close = {word: language.vocabulary.closest(word) for word in unknown}
    described = (f"'{word}'" + (f" (close: {', '.join(near)})" if near else "") for word, near in close.items())
    return f"not in the vocabulary, read as <unk>: {', '.join(described)}"
