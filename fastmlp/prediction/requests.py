"""What a user asks of a public model: a text evaluated, a prompt continued, the next word. Errors name the argument."""

import warnings

import numpy as np

from fastmlp.data.corpus import checked_ids
from fastmlp.data.given import Ids, TextOrIds, integers, source_of
from fastmlp.errors import TextError
from fastmlp.options import not_negative, positive_share, read_argument, whole
from fastmlp.prediction.evaluation import Evaluation, evaluate
from fastmlp.prediction.generation import (
    Continuation,
    complete,
    describe_unknown_words,
    random_numbers,
    softmax,
    words_of_prompt,
)
from fastmlp.prediction.predictor import Predictor
from fastmlp.text.reading import read_text
from fastmlp.text.words import IDS

__all__ = ["checked", "evaluated", "generated", "ids_of", "next_words", "prompt_words"]

Array = np.ndarray


def evaluated(model: Predictor, text: TextOrIds) -> Evaluation:
    """Return the loss and perplexity of a text. Raise TextError if it has no word of the vocabulary."""
    found = evaluate(model, ids_of(model, "text", text))
    if not found.words:
        raise TextError("text: none of its words is in the model's vocabulary")
    return found


def generated(
    model: Predictor,
    prompt: str | Ids,
    words: int,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | np.random.Generator | None,
) -> str | Array:
    """Return the prompt and more words; ids for ids. The arguments are those of `LanguageModel.generate`."""
    count = read_argument("words", whole(0), words)
    coldness = read_argument("temperature", not_negative, temperature)
    kept = None if top_k is None else read_argument("top_k", whole(1), top_k)
    share = None if top_p is None else read_argument("top_p", positive_share, top_p)
    if not isinstance(seed, np.random.Generator):
        seed = random_numbers(None if seed is None else read_argument("seed", whole(0), seed), 0)
    before = prompt_words(model, prompt)
    after = complete(model, before, count, seed, temperature=coldness, top_k=kept, top_p=share)
    if isinstance(prompt, str):
        return model.tokenizer.join([*before, *after])
    return model.vocabulary.encode([*before, *after])


def next_words(model: Predictor, prompt: str | Ids, k: int | None) -> list[tuple[int, float]]:
    """Return the ids of the k likeliest next words, None: all, with their probabilities, the likeliest first."""
    count = None if k is None else read_argument("k", whole(1), k)
    probabilities = softmax(Continuation(model, prompt_words(model, prompt)).logits())
    order = np.argsort(-probabilities, kind="stable")[: model.vocabulary.unk_id][:count].tolist()
    return [(word, float(probabilities[word])) for word in order]


def ids_of(model: Predictor, name: str, given: TextOrIds) -> Array:
    """Return the ids of a text, int32."""
    source = source_of(name, given)
    if isinstance(source, Array):
        return checked(model, name, source)
    text = read_text(source, rules=model.tokenizer.rules) if isinstance(source, tuple) else source
    for notice in text.notices:
        warnings.warn(notice, stacklevel=4)
    return model.vocabulary.encode(model.tokenizer.split(text.text))


def checked(model: Predictor, name: str, ids: Array) -> Array:
    """Return the ids if all are in the vocabulary and, for a model of ids, none is `<unk>`."""
    known = model.vocabulary.unk_id if model.tokenizer is IDS else len(model.vocabulary)
    return checked_ids(name, ids, known)


def prompt_words(model: Predictor, prompt: str | Ids) -> list[str]:
    """Return the words of a prompt."""
    if not isinstance(prompt, str):
        return model.vocabulary.decode(checked(model, "prompt", integers("prompt", prompt, "a text (str) or ids")))
    words = words_of_prompt(model, prompt)
    if unknown := describe_unknown_words(model, words):
        warnings.warn(unknown, stacklevel=4)  # at the call of the public model's method
    return words
