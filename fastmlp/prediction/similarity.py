"""Find words that are used alike, by the directions of their embeddings in the output layer."""

from collections.abc import Sequence

import numpy as np

from fastmlp.errors import ModelError, TextError
from fastmlp.network.network import Network
from fastmlp.options import FEWEST_ON_MAP
from fastmlp.prediction.generation import words_of_prompt
from fastmlp.prediction.neural import NeuralModel
from fastmlp.text.vocabulary import UNK, is_word
from fastmlp.text.words import IDS

__all__ = ["directions", "nearest", "word_id", "words_on_map"]

Array = np.ndarray


def directions(network: Network) -> Array:
    """Return each word's embedding in the output layer (V, H), of length 1: similar if words follow the same words.

    Every step trains all of them (Press and Wolf 2017, "Using the Output Embedding to Improve Language Models"). If
    weights are not tied, the first layer's embeddings start as large random numbers and are trained only when their
    word is seen: they are close mostly by chance. The component along the mean of all words is removed: it says how
    rare a word is, and would make all rare words similar (Mu and Viswanath 2018, "All-but-the-Top").
    """
    weight = network.layers.output.weight
    common = _unit(weight.mean(axis=0, keepdims=True))
    return _unit(weight - weight @ common.T * common)


def word_id(model: NeuralModel, word: str) -> int:
    """Return the id of a word as a user writes it. Raise TextError if it is not one word of the vocabulary."""
    vocabulary = model.vocabulary
    if word in vocabulary and word != UNK:
        return vocabulary.id_of(word)
    words = words_of_prompt(model, word)
    if len(words) != 1:
        raise TextError(f"word: expected one word, got {word!r}")
    if words[0] not in vocabulary:
        close = ", ".join(vocabulary.closest(words[0]))
        raise TextError(f"word: '{words[0]}' is not in the vocabulary" + (f"; close: {close}" if close else ""))
    return vocabulary.id_of(words[0])


def nearest(model: NeuralModel, words: Sequence[int], count: int | None) -> list[list[tuple[int, float]]]:
    """Return for each word the ids of those that are used most like it, with their cosines to it, the nearest first.

    words  their ids; neither a word itself nor `<unk>` is among those returned for it
    count  how many; None: all
    """
    vectors, found = directions(model.network), []
    for word in words:
        cosines = np.clip(vectors @ vectors[word], -1, 1)
        order = [i for i in np.argsort(-cosines, kind="stable").tolist() if i not in (word, model.vocabulary.unk_id)]
        found.append([(i, float(cosines[i])) for i in order[:count]])
    return found


def words_on_map(model: NeuralModel, count: int) -> tuple[list[str], Array]:
    """Return the most frequent words, without punctuation, and their directions (N, H). Raise ModelError for too few.

    count  how many words, if there are so many
    """
    if model.tokenizer is IDS:
        raise ModelError("a model of ids has no words to draw")
    words = model.vocabulary.words
    shown = [i for i, word in enumerate(words) if is_word(word)][:count]
    if len(shown) < FEWEST_ON_MAP:
        raise ModelError(f"a vocabulary of {len(shown)} words is too small for a map")
    return [words[i] for i in shown], directions(model.network)[shown]


def _unit(vectors: Array) -> Array:
    """Return vectors (N, D), each divided by its length; a zero vector stays zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30))
