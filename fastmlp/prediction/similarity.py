"""Which words are used alike: directions of their embeddings in the output layer."""

import numpy as np

from fastmlp.errors import TextError
from fastmlp.network.network import Network
from fastmlp.prediction.generation import words_of_prompt
from fastmlp.prediction.neural import NeuralModel
from fastmlp.text.vocabulary import UNK

Array = np.ndarray


def directions(network: Network) -> Array:
    """Each word's embedding in the output layer (V, H), of length 1: alike for words that follow the same words.

    Each of them is trained in every step (Press and Wolf 2017, "Using the Output Embedding to Improve Language
    Models"). Those of the first layer begin as large random numbers and are trained only where their word is seen:
    near in them is what was near by chance. What lies along the mean of all words is left out: it says how rare a
    word is, and would make all rare ones alike (Mu and Viswanath 2018, "All-but-the-Top").
    """
    weight = network.layers.output.weight
    common = _unit(weight.mean(axis=0, keepdims=True))
    return _unit(weight - weight @ common.T * common)


def word_id(model: NeuralModel, word: str) -> int:
    """The id of a word as its user writes it. Raises TextError where it is not one word of the vocabulary."""
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


def _unit(vectors: Array) -> Array:
    """The directions of vectors (N, D): each divided by its length; a vector of zeros stays that."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30))
