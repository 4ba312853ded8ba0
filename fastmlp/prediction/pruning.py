"""Fewer n-grams for a back-off model: those are left out without which its predictions change least.

Without an n-gram its probability would be backed off. What that costs is how often it came, times the logarithm of how
much likelier the n-gram makes its word (Seymore and Rosenfeld 1996, "Scalable backoff language models").
"""

from itertools import pairwise

import numpy as np

from fastmlp.prediction.ngram import BackoffModel, Level

__all__ = ["pruned"]

Array = np.ndarray


def pruned(model: BackoffModel, keep: int) -> BackoffModel:
    """Return the model with at most `keep` n-grams of two words or more; probabilities still sum to one.

    model  of counts: where an n-gram is known, so is it without its first and without its last word
    An n-gram stays if one stays that it begins or ends.
    """
    suffixes = _suffixes(model)
    costs = _costs(model, suffixes)
    chosen = np.argsort(-np.concatenate([np.empty(0), *costs]), kind="stable")[:keep]
    ends = np.cumsum([0, *map(len, costs)])
    kept = np.zeros(ends[-1], bool)
    kept[chosen] = True
    levels = [model.levels[0]]
    new = np.arange(model.size)  # the new number of each n-gram of the level before; -1: left out
    for (begin, end), level, suffix in zip(pairwise(ends), model.levels[1:], suffixes, strict=True):
        stays = kept[begin:end]
        context, word = np.divmod(level.key[stays], model.size)
        context, of_suffix = new[context], new[suffix[stays]]
        probability = level.probability[stays]
        before = levels[-1]
        levels[-1] = _backed_off(before, context, probability, before.probability[of_suffix])
        rest = (array if array is None else array[stays] for array in (level.backoff, level.count))
        levels.append(Level(context * model.size + word, probability, *rest))
        new = np.where(stays, np.cumsum(stays) - 1, -1)
    return BackoffModel(model.size, tuple(levels))


def _suffixes(model: BackoffModel) -> list[Array]:
    """Return for n = 2, 3, ... the numbers of the n-grams without their first word, (M,) each."""
    found: list[Array] = []
    for shorter, level in pairwise(model.levels):
        context, word = np.divmod(level.key, model.size)
        found.append(shorter.find(found[-1][context] * model.size + word) if found else word)
    return found


def _costs(model: BackoffModel, suffixes: list[Array]) -> list[Array]:
    """Return for n = 2, 3, ... what it costs to leave an n-gram out, and with it all that it begins or ends, (M,)."""
    costs = []
    for n, (shorter, level) in enumerate(pairwise(model.levels), 2):
        assert shorter.backoff is not None
        backed_off = shorter.backoff[level.key // model.size] * shorter.probability[suffixes[n - 2]]
        costs.append(model.counts(n) * np.log(level.probability / backed_off))
    for n in range(len(costs) - 1, 0, -1):
        np.maximum.at(costs[n - 1], model.levels[n + 1].key // model.size, costs[n])
        np.maximum.at(costs[n - 1], suffixes[n], costs[n])
    return costs


def _backed_off(level: Level, context: Array, probability: Array, of_suffix: Array) -> Level:
    """Return a level with the back-off weights that are right for the n-grams one word longer.

    context      (M,)  of the longer n-grams: their numbers in this level
    probability  (M,)  of the longer n-grams
    of_suffix    (M,)  what their words have without the first word of the context
    """
    size = len(level.key)
    left = 1 - np.bincount(context, probability.astype(np.float64), size)
    shared = 1 - np.bincount(context, of_suffix.astype(np.float64), size)
    backoff = np.maximum(left, 0) / np.maximum(shared, 1e-12)  # both are 0 where every word follows
    return Level(level.key, level.probability, backoff.astype(np.float32), level.count)
