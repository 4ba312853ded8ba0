"""A mixture of predictors: a network, counts and a cache, each with a weight for how often the context was counted.

The probability of a word is the weighted sum of theirs. The weights are fitted by expectation-maximization to held-out
words: Jelinek and Mercer (1980), and for a network with a trigram Bengio et al. (2003).
"""

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from fastmlp.data.corpus import checked_ids
from fastmlp.data.given import Ids
from fastmlp.files import checkpoint
from fastmlp.files.run_folder import mixture_file, model_file
from fastmlp.ops import Ops
from fastmlp.options import read_argument, whole
from fastmlp.prediction.cache import Cache, CacheReader
from fastmlp.prediction.kneser_ney import KneserNey
from fastmlp.prediction.neural import NeuralModel, load_errors
from fastmlp.prediction.predictor import Watch
from fastmlp.prediction.requests import prompt_words
from fastmlp.text.tokenizer import Tokenizer
from fastmlp.text.vocabulary import Vocabulary

__all__ = [
    "MIXTURE",
    "PREDICTORS",
    "WRITERS",
    "Mixture",
    "MixtureCursor",
    "Predictions",
    "Weights",
    "fit_mixture",
    "fitted_weights",
    "load_mixture",
    "load_predictor",
    "predictor_of",
    "shares_of_next_words",
]

Array = np.ndarray
NOTHING = np.float32(-np.inf)
PREDICTORS = ("network", "counts", "cache")
WRITERS = ("network", "counts")  # of generated text: a cache that hears its own words repeats them
MIXTURE = "mixture"  # the kind that its file states, and its key in the metadata of a model
IDS = "counts.ids"  # the name of their array in a file
COUNTED = (1, 5, 50)  # of the longest context, from which the next weights hold: never, 1 to 4, 5 to 49, 50 and more
ROUNDS = 40  # of expectation-maximization
PRIOR = 100  # words that a count's weights begin with, at the weights of all: rare counts must not overfit
CHOICE = 8_192  # words by which size and sharpness of the cache are chosen
SIZES, SHARPNESSES = (500, 2_000), (5.0, 10.0, 20.0)  # those to choose from; sharpness is divided by the mean of |h|^2
WORTH_ITS_TIME = 0.99  # of the perplexity: a larger cache must be better than that
Weights = Mapping[tuple[str, ...], Array]  # by the predictors that are mixed: (len(COUNTED) + 1, their number)


@dataclass(frozen=True)
class Predictions:
    """What several predictors say of each word of a text.

    names              of the predictors
    log_probabilities  (K, N)  of the words, float32; NaN where a predictor says nothing
    counted            (N,)    which weights hold, by how often the context was counted
    """

    names: tuple[str, ...]
    log_probabilities: Array
    counted: Array

    def of(self, *names: str) -> "Predictions":
        """Return the predictions of some of the predictors."""
        return replace(
            self, names=names, log_probabilities=self.log_probabilities[[self.names.index(name) for name in names]]
        )

    def __getitem__(self, words: slice) -> "Predictions":
        return replace(self, log_probabilities=self.log_probabilities[:, words], counted=self.counted[words])

    def mixed(self, weights: Weights) -> Array:
        """Return the log-probability of each word in the mixture of all the predictors (N,), float32."""
        if len(self.names) == 1:
            return np.asarray(self.log_probabilities[0])
        silent, each = np.isnan(self.log_probabilities), weights[self.names].T[:, self.counted]
        told, each = np.where(silent, NOTHING, self.log_probabilities), np.where(silent, 0, each)
        highest = told.max(axis=0)
        mixed = (each * np.exp(told - highest)).sum(axis=0) / each.sum(axis=0)
        return np.asarray(highest + np.log(mixed), np.float32)


class Mixture:
    """Network, counts and a cache as one predictor; each of them may be missing."""

    def __init__(
        self,
        network: NeuralModel | None,
        counts: KneserNey | None = None,
        cache: Cache | None = None,
        weights: Weights | None = None,
        only: Sequence[str] = PREDICTORS,
    ) -> None:
        """network, counts  of the same vocabulary; at least one of them
        cache            its settings
        weights          of every choice of two or more of them
        only             which of them to mix
        """
        given: dict[str, Any] = {"network": network, "counts": counts, "cache": cache}
        self.network, self.counts, self.cache = network, counts, cache
        self.names = tuple(name for name in PREDICTORS if given[name] is not None and name in only)
        self.weights: Weights = weights or {}
        source = network or counts
        if source is None or not self.names:
            raise ValueError("expected a network or counts, got neither")
        self._words: NeuralModel | KneserNey = source

    @property
    def vocabulary(self) -> Vocabulary:
        """The words of the ids."""
        return self._words.vocabulary

    @property
    def tokenizer(self) -> Tokenizer:
        """How a text becomes words."""
        return self._words.tokenizer

    @property
    def unk_trained(self) -> bool:
        """Whether training saw `<unk>`."""
        return self._words.unk_trained

    def metadata(self) -> dict[str, Any]:
        """Return what a file needs beside `tensors` and the network to restore this mixture."""
        return {
            "order": self.counts and self.counts.order,
            "cache": self.cache and asdict(self.cache),
            "weights": {"+".join(names): weights.tolist() for names, weights in self.weights.items()},
        }

    def tensors(self) -> dict[str, Array]:
        """Return the arrays that a file needs: the counted text, as ids, from which the counts are made anew."""
        return {} if self.counts is None or self.counts.training_ids is None else {IDS: self.counts.training_ids}

    @classmethod
    def restored(cls, network: NeuralModel, tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> "Mixture":
        """Restore a mixture from its metadata and tensors; other tensors are ignored.

        Raise KeyError, TypeError or ValueError if something is missing or does not match.
        """
        counts, cache = None, metadata["cache"]
        if metadata["order"] is not None:
            counts = KneserNey.of(tensors[IDS], network.vocabulary, network.tokenizer, order=metadata["order"])
        mixture = cls(network, counts, cache and Cache(**cache))
        choices = (names for count in range(2, len(PREDICTORS) + 1) for names in combinations(mixture.names, count))
        weights = {names: _checked_weights(metadata["weights"]["+".join(names)], len(names)) for names in choices}
        return cls(network, counts, mixture.cache, weights)

    def neural(self) -> NeuralModel:
        """Return the network, of a mixture that has one."""
        if self.network is None:
            raise ValueError("expected a mixture with a network, got one without")
        return self.network

    def without_counts(self) -> "Mixture":
        """Return the mixture of the rest."""
        rest = {names: weights for names, weights in self.weights.items() if "counts" not in names}
        return Mixture(self.network, None, self.cache, rest)

    def only(self, *names: str) -> "Mixture":
        """Return the mixture of some of its predictors."""
        return Mixture(self.network, self.counts, self.cache, self.weights, names)

    def weighted(self, *weights: float) -> "Mixture":
        """Return the mixture with one weight for each of its predictors, whatever the context."""
        by_hand = np.tile(np.array(weights) / math.fsum(weights), (len(COUNTED) + 1, 1))
        return Mixture(self.network, self.counts, self.cache, {**self.weights, self.names: by_hand}, self.names)

    def log_probabilities(self, ids: Array, before: Array, *, watch: Watch | None = None) -> Array:
        """Return the log-probability of each word of a text, as in `Predictor`. The cache begins empty."""
        return self.predictions(ids, before, watch=watch).mixed(self.weights)

    def predictions(
        self, ids: Array, before: Array, *, documents: Sequence[int] = (), watch: Watch | None = None
    ) -> Predictions:
        """Return what each predictor says of each word of a text.

        ids        (N,)  in: the text
        before     (M,)  in: the words before it
        documents  where in the text others begin: the cache forgets
        watch      is called with the number of words just done; an exception that it raises ends the work
        """
        return self.timed_predictions(ids, before, documents=documents, watch=watch)[0]

    def timed_predictions(
        self, ids: Array, before: Array, *, documents: Sequence[int] = (), watch: Watch | None = None
    ) -> tuple[Predictions, dict[str, float]]:
        """Return what `predictions` returns, and the seconds of each predictor."""
        told: dict[str, Array] = {}
        seconds = dict.fromkeys(PREDICTORS, 0.0)
        began = time.perf_counter()
        if self.network is not None and {"network", "cache"} & set(self.names):
            told["network"], told["cache"], seconds["cache"] = self._read(ids, before, documents, watch)
            seconds["network"] = time.perf_counter() - began - seconds["cache"]
        elif "cache" in self.names:
            told["cache"] = _log(_unigrams(self._reader(), ids, documents))
            seconds["cache"] = time.perf_counter() - began
        counted, began = np.zeros(len(ids), np.int64), time.perf_counter()
        if self.counts is not None and "counts" in self.names:
            told["counts"] = self.counts.log_probabilities(ids, before)
            counted = _weights_for(self.counts.context_counts(ids, before))
            seconds["counts"] = time.perf_counter() - began
        return Predictions(self.names, np.array([told[name] for name in self.names], np.float32), counted), seconds

    def _read(
        self, ids: Array, before: Array, documents: Sequence[int], watch: Watch | None
    ) -> tuple[Array, Array, float]:
        """Return the network's and the cache's log-probabilities (N,), and the seconds of the cache."""
        losses, found = np.empty(len(ids), np.float32), np.full(len(ids), np.nan, np.float32)
        reader, seconds, network = self._reader() if "cache" in self.names else None, 0.0, self.neural()
        precision = network.network.ops.precision_to_evaluate()
        for rows, of_rows, vectors in network.read(network.windows(ids, before), fp32_precision=precision, watch=watch):
            losses[rows] = of_rows
            if reader is not None:
                began, words, parts = (
                    time.perf_counter(),
                    ids[rows],
                    _parts(rows.start, len(vectors), documents, reader),
                )
                found[rows] = np.concatenate([reader.read(vectors[part], words[part]) for part in parts])
                seconds += time.perf_counter() - began
        return -losses, _log(found), seconds

    def _reader(self) -> CacheReader:
        assert self.cache is not None
        if self.network is None:
            return CacheReader(self.cache, 0, np.inner)
        shape = self.network.network.shape
        width = shape.embed if shape.projection else shape.hidden[-1]
        return CacheReader(self.cache, width, self.network.network.product)

    def _remember(self, reader: CacheReader, before: Sequence[int]) -> None:
        """Let the cache read the end of the words before a place."""
        ids = np.asarray(before, np.int32)
        earlier, ids = ids[: -reader.cache.size], ids[-reader.cache.size :]
        if self.network is None:
            reader.read(np.empty((len(ids), 0), np.float32), ids)
            return
        for rows, _, vectors in self.network.read(self.network.windows(ids, earlier)):
            reader.read(vectors, ids[rows])

    def cursor(self, before: Sequence[int]) -> "MixtureCursor":
        """Return the place after these words, which the cache remembers."""
        return MixtureCursor(self, before)


def _parts(start: int, count: int, documents: Sequence[int], reader: CacheReader) -> Iterator[slice]:
    """Yield the rows of each document among the `count` words from `start` on; the reader forgets in between."""
    begins = [begin - start for begin in documents if start < begin < start + count]
    for begin, end in zip([0, *begins], [*begins, count], strict=True):
        if begin or start in documents:
            reader.forget()
        yield slice(begin, end)


def _unigrams(reader: CacheReader, ids: Array, documents: Sequence[int]) -> Array:
    """Return the probabilities (N,) of a cache without a network."""
    parts = _parts(0, len(ids), documents, reader)
    return np.concatenate([reader.read(np.empty((len(ids[part]), 0), np.float32), ids[part]) for part in parts])


class MixtureCursor:
    """A place in a text that a mixture continues."""

    def __init__(self, mixture: Mixture, before: Sequence[int]) -> None:
        self._mixture, names = mixture, mixture.names
        self._reader = mixture._reader() if "cache" in names else None
        if self._reader is not None and len(before):
            mixture._remember(self._reader, before)
        needs_network = "network" in names or self._reader is not None
        self._network = mixture.network.cursor(before) if mixture.network is not None and needs_network else None
        self._counts = mixture.counts.cursor(before) if mixture.counts is not None and "counts" in names else None
        self._here: Array | None = None  # what enters the network's output layer, once it is computed

    def copy(self) -> "MixtureCursor":
        """Return another cursor at the same place, which moves on without this one."""
        other = copy(self)  # theirs are shallow too: a cursor that moves on replaces its lists and arrays
        other._reader, other._network, other._counts = copy(self._reader), copy(self._network), copy(self._counts)
        return other

    def logits(self) -> Array:
        """Return the logarithms of the probabilities of the next word in a new array (V,), float32."""
        shares = self.shares()
        if tuple(shares) == ("network",):
            assert self._network is not None
            return self._network.logits_after(self._vector())
        mixed = np.sum(list(shares.values()), axis=0)
        return _log(mixed)

    def shares(self) -> dict[str, Array]:
        """Return each predictor's part of the probability of the next word (V,), float32; together they are all."""
        told = {name: found for name in self._mixture.names if (found := self._told(name)) is not None}
        if len(told) == 1:
            return told
        names, count = self._mixture.names, 0 if self._counts is None else self._counts.context_count()
        of_all = dict(zip(names, self._mixture.weights[names][_weights_for(count)], strict=True))
        total = math.fsum(of_all[name] for name in told)
        return {name: found * np.float32(of_all[name] / total) for name, found in told.items()}

    def _told(self, name: str) -> Array | None:
        """Return what a predictor says of the next word (V,); None: nothing."""
        if name == "counts":
            assert self._counts is not None
            return self._counts.probabilities()
        if name == "cache":
            assert self._reader is not None
            return self._reader.probabilities(self._vector(), len(self._mixture.vocabulary))
        assert self._network is not None
        logits = self._network.logits_after(self._vector())
        exponentials = np.exp(logits - logits.max())
        return np.asarray(exponentials / exponentials.sum(dtype=np.float64), np.float32)

    def _vector(self) -> Array:
        if self._here is None:
            self._here = np.empty(0, np.float32) if self._network is None else self._network.vector()
        return self._here

    def add(self, word: int) -> None:
        """Append a word by its id; the cache remembers it."""
        if self._reader is not None:
            self._reader.add(self._vector(), word)
        for cursor in (self._network, self._counts):
            if cursor is not None:
                cursor.add(word)
        self._here = None


def shares_of_next_words(model: Mixture, prompt: str | Ids, k: int | None) -> list[tuple[int, dict[str, float]]]:
    """Return the ids of the k likeliest next words, None: all, with each predictor's part of their probabilities."""
    count = None if k is None else read_argument("k", whole(1), k)
    words, unk = model.vocabulary.encode(prompt_words(model, prompt)).tolist(), model.vocabulary.unk_id
    shares = {name: share[:unk].astype(np.float64) for name, share in model.cursor(words).shares().items()}
    total = np.sum(list(shares.values()), axis=0)
    order = np.argsort(-total, kind="stable")[:count].tolist()
    return [(word, {name: float(share[word] / total.sum()) for name, share in shares.items()}) for word in order]


# --------------------------------------------------------------------------------------------------------------- files


def load_mixture(file: str | os.PathLike[str], network: NeuralModel) -> Mixture:
    """Load what a network is mixed with from a run's mixture.safetensors; raise ModelError if it cannot be read."""
    with load_errors(file):
        tensors, metadata = checkpoint.load(file)
        if metadata.get("kind") != MIXTURE:
            raise ValueError("it holds no mixture")
        return _restored(network, tensors, metadata)


def load_predictor(run: str | os.PathLike[str], ops: Ops, *, threads: int = 1) -> Mixture:
    """Load the model of a run's folder or a .safetensors file, with what it is mixed with, if there is something.

    Raise ModelError if it cannot be read or is no model.
    """
    path = model_file(run)
    with load_errors(path):
        model = predictor_of(*checkpoint.load(path), ops, threads=threads)
    beside = mixture_file(run)
    return model if beside is None else load_mixture(beside, model.neural())


def times_seen(run: str | os.PathLike[str], words: int) -> Array | None:
    """Return how often each word of a vocabulary of so many, (V,), came in the text that a run or a .safetensors file
    has counted; None: it has counted none. Raise ModelError if it cannot be read or its ids are not of these words.
    """
    file = mixture_file(run) or model_file(run)
    with load_errors(file):
        ids = checkpoint.load(file)[0].get(IDS)
        return None if ids is None else np.bincount(checked_ids(IDS, ids, words), minlength=words)


def predictor_of(tensors: Mapping[str, Array], metadata: Mapping[str, Any], ops: Ops, *, threads: int = 1) -> Mixture:
    """Restore a model from a checkpoint, with what it is mixed with, if the checkpoint holds that too.

    Raise ValueError if something is missing or does not match.
    """
    network = NeuralModel.from_checkpoint(tensors, metadata, ops, threads=threads)
    return _restored(network, tensors, metadata[MIXTURE]) if MIXTURE in metadata else Mixture(network)


def _restored(network: NeuralModel, tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> Mixture:
    try:
        return Mixture.restored(network, tensors, metadata)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"its mixture does not belong to this model: {error}") from error


# --------------------------------------------------------------------------------------------------------- the weights


def _log(probabilities: Array) -> Array:
    with np.errstate(divide="ignore"):  # a cache gives nothing to words that it does not remember
        return np.asarray(np.log(probabilities))


def _weights_for(count: int | Array) -> Any:
    """Return which weights hold for contexts that were counted so often."""
    return np.searchsorted(COUNTED, count, side="right")


def _checked_weights(weights: Any, count: int) -> Array:
    """Return the weights of so many predictors as an array. Raise ValueError for what cannot be their weights."""
    found = np.array(weights, np.float64)
    if found.shape != (len(COUNTED) + 1, count) or not ((found >= 0) & (found < 2)).all() or (found.sum(1) <= 0).any():
        raise ValueError(f"its mixture has no weights for {count} predictors, but {weights!r:.80}")
    return found


def fit_mixture(
    network: NeuralModel | None,
    counts: KneserNey | None,
    ids: Array,
    before: Array,
    count: int,
    *,
    watch: Watch | None = None,
) -> tuple[Mixture, Predictions]:
    """Return the mixture of network, counts and a cache that suits held-out words, and what each says of them.

    ids     (N,)  in: the words, which no predictor was made from
    before  (M,)  in: the words before them
    count         how many of the words, from the first on, cache and weights are fitted to
    watch   is called with the number of words just done; an exception that it raises ends the work
    """
    cache = _choose_cache(network, counts, ids[: min(count, CHOICE)], before)
    found = Mixture(network, counts, cache).predictions(ids, before, watch=watch)
    return Mixture(network, counts, cache, fitted_weights(found[:count])), found


def fitted_weights(found: Predictions) -> Weights:
    """Return the weights of every choice of two or more predictors, fitted to the words of these predictions."""
    choices = (names for count in range(2, len(found.names) + 1) for names in combinations(found.names, count))
    return {names: _fit_weights(found.of(*names)) for names in choices}


def _fit_weights(found: Predictions) -> Array:
    """Return weights for how often the context was counted (len(COUNTED) + 1, K), by expectation-maximization."""
    known = ~np.isnan(found.log_probabilities).any(axis=0)
    told, counted = found.log_probabilities[:, known].astype(np.float64), found.counted[known]
    probabilities = np.exp(told - told.max(axis=0))  # up to a factor for each word
    equal = np.full(len(found.names), 1 / len(found.names))
    of_all = _expectation_maximization(probabilities, equal)
    each = (probabilities[:, counted == count] for count in range(len(COUNTED) + 1))
    return np.array([_expectation_maximization(part, of_all) for part in each])


def _expectation_maximization(probabilities: Array, prior: Array) -> Array:
    """Return the weights (K,) under which words are likeliest, for their probabilities (K, N) and PRIOR words more."""
    weights = prior
    for _ in range(ROUNDS):
        shares = weights[:, None] * probabilities
        shares /= shares.sum(axis=0)
        weights = (shares.sum(axis=1) + PRIOR * prior) / (probabilities.shape[1] + PRIOR)
    return weights


def _choose_cache(network: NeuralModel | None, counts: KneserNey | None, ids: Array, before: Array) -> Cache:
    """Return the settings by which the mixture is best on these words; a larger cache only where it pays."""
    others = Mixture(network, counts).predictions(ids, before)
    vectors, sharpnesses = np.empty((len(ids), 0), np.float32), [0.0]
    if network is not None:
        vectors = np.concatenate([h.copy() for _, _, h in network.read(network.windows(ids, before))])
        square = float(np.square(vectors, dtype=np.float64).sum(axis=1).mean())
        sharpnesses = [sharpness / max(square, 1e-30) for sharpness in SHARPNESSES]
    losses = {}
    for cache in (Cache(size, sharpness) for size in SIZES for sharpness in sharpnesses):
        told = Mixture(network, counts, cache)._reader().read(vectors, ids)
        names = (*others.names, "cache")
        found = Predictions(names, np.vstack([others.log_probabilities, _log(told)]), others.counted)
        losses[cache] = -float(found.mixed({names: _fit_weights(found)}).mean(dtype=np.float64))
    best = min(losses, key=losses.__getitem__)
    enough = [cache for cache in losses if losses[cache] <= losses[best] - math.log(WORTH_ITS_TIME)]
    return min(enough, key=lambda cache: (cache.size, losses[cache]))
