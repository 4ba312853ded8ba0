"""What the page asks of a model: the next words, how surprising a text is, the map of words, neighbors."""

import copy
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from fastmlp.errors import ModelError
from fastmlp.files.run_folder import mixture_file, model_file
from fastmlp.ops.backend import choose_backend
from fastmlp.pictures.word_map import principal_components
from fastmlp.prediction.evaluation import evaluation_of
from fastmlp.prediction.generation import Limits, draw, drawing_probabilities, random_numbers
from fastmlp.prediction.mixture import Mixture, MixtureCursor, load_predictor
from fastmlp.prediction.similarity import nearest, word_id, words_on_map
from fastmlp.text.vocabulary import UNK
from fastmlp.threads import default_threads

__all__ = ["Model", "Models", "NextWords"]

Array = np.ndarray
Key = TypeVar("Key")
Value = TypeVar("Value")
PLACES = 48  # in texts, whose predictions are kept: to go back and forth takes no time
SPELLINGS = 1 << 16  # of words that are kept
MODELS = 3  # kept in memory
SHOWN_UNKNOWN = 8  # words that the vocabulary lacks


class Recent(Generic[Key, Value]):
    """The values that were asked for last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key; make it if it is not there."""
        if key not in self._values:
            made = make()  # first: it may keep others
            self._values[key] = made
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]


@dataclass(frozen=True)
class NextWords:
    """A question for the words that may come next.

    text         the words before
    place        only so many of its words come before; None: all of them, capitals as the vocabulary has them
    predictors   which of the model's predictors to mix; none of their names: all
    count        how many words to return
    temperature, top_k, top_p  as in `generation.draw`
    """

    text: str
    place: int | None = None
    predictors: tuple[str, ...] = ()
    count: int = 20
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


class Place:
    """A place in a text."""

    def __init__(self, cursor: MixtureCursor) -> None:
        self.cursor = cursor

    @cached_property
    def shares(self) -> dict[str, Array]:
        """Each predictor's part of the next word's probability (V,)."""
        return self.cursor.shares()


class Model:
    """A model that answers questions; several threads may ask at once."""

    def __init__(self, mixture: Mixture, lock: AbstractContextManager[Any] | None = None) -> None:
        """lock  held while the network computes, as its buffers serve one call at a time; None: one of its own"""
        self._mixture, self._lock = mixture, lock or threading.Lock()
        self._places: Recent[tuple[tuple[str, ...], tuple[int, ...]], Place] = Recent(PLACES)
        self._in_its_case = lru_cache(SPELLINGS)(mixture.vocabulary.in_its_case)

    def facts(self) -> dict[str, Any]:
        """Return what the page shows of the model before any question."""
        mixture = self._mixture
        return {"predictors": mixture.names, "words": len(mixture.vocabulary) - 1, "tokenizer": mixture.tokenizer.name}

    def _chosen(self, predictors: tuple[str, ...]) -> Mixture:
        """Return the mixture of these predictors, or of all. Raise ModelError where there is none."""
        if missing := [name for name in predictors if name not in self._mixture.names]:
            raise ModelError(f"this model has no {', '.join(missing)}, only {', '.join(self._mixture.names)}")
        if predictors == ("cache",):
            raise ModelError("a cache alone knows nothing but the words before: mix it with the network or the counts")
        return self._mixture.only(*predictors) if predictors else self._mixture

    def next_words(self, asked: NextWords) -> dict[str, Any]:
        """Return the likeliest next words as `draw` would take them, and one that it took.

        words  each with its probability, the part of it that every predictor gives, and how the text goes on with it
        """
        mixture = self._chosen(asked.predictors)
        vocabulary, words = mixture.vocabulary, self._words(asked)
        joiner = mixture.tokenizer.joiner()
        for word in words:
            joiner.add(word)
        with self._lock:
            shares = self._place(mixture, tuple(vocabulary.encode(words).tolist())).shares
        with np.errstate(divide="ignore"):
            mixed = np.sum(list(shares.values()), axis=0)
            logits = np.log(mixed)
        excluded = {vocabulary.id_of(word) for word in (UNK, *joiner.excluded())}
        logits[list(excluded) if len(excluded) < len(vocabulary) else vocabulary.unk_id] = -np.inf
        limits: Limits = {"temperature": asked.temperature, "top_k": asked.top_k, "top_p": asked.top_p}
        probabilities = drawing_probabilities(logits, **limits)
        order = np.argsort(-probabilities, kind="stable")[: asked.count].tolist()

        def piece(word: int) -> str:
            return copy.deepcopy(joiner).add(vocabulary.words[word])

        return {
            "words": [
                {
                    "word": vocabulary.words[word],
                    "piece": piece(word),
                    "probability": float(probabilities[word]),
                    "shares": {name: float(share[word] / mixed[word]) for name, share in shares.items()},
                }
                for word in order
                if probabilities[word] > 0
            ],
            "drawn": piece(draw(logits, random_numbers(None, 0), **limits)),
            "unknown": [word for word in dict.fromkeys(words) if word not in vocabulary][:SHOWN_UNKNOWN],
        }

    def _words(self, asked: NextWords) -> list[str]:
        words = self._mixture.tokenizer.split(asked.text)
        if asked.place is not None:
            return words[: asked.place]
        if asked.text.rstrip(" \t").endswith("\n"):  # a text's last line end is no word, but here the text goes on
            words = self._mixture.tokenizer.split(f"{asked.text}X")[:-1]
        return [self._in_its_case(word) for word in words]

    def _place(self, mixture: Mixture, ids: tuple[int, ...]) -> Place:
        """Return the place after these words; the place before the last one is kept too, as the last one may change."""

        def go_there() -> Place:
            if not ids:
                return Place(mixture.cursor(()))
            before = self._places.get_or_make((mixture.names, ids[:-1]), lambda: Place(mixture.cursor(ids[:-1])))
            cursor = before.cursor.copy()
            cursor.add(ids[-1])
            return Place(cursor)

        return self._places.get_or_make((mixture.names, ids), go_there)

    def surprise(self, text: str, predictors: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return how surprising each word of a text is in bits, and the figures of `evaluate`.

        words  how the text goes on with each, its bits, and whether the vocabulary has it
        """
        mixture = self._chosen(predictors)
        words = mixture.tokenizer.split(text)
        ids = mixture.vocabulary.encode(words)
        with self._lock:
            log_probabilities = mixture.log_probabilities(ids, ids[:0])
        evaluation = evaluation_of(mixture, -log_probabilities, ids)
        bits = np.round(log_probabilities / -math.log(2), 2).tolist()
        pieces = map(mixture.tokenizer.joiner().add, words)
        known = (ids != mixture.vocabulary.unk_id).tolist()
        return {
            "words": list(zip(pieces, bits, known, strict=True)),
            "perplexity": evaluation.perplexity if evaluation.words else None,
            "unknown": evaluation.unknown,
        }

    def word_map(self, count: int) -> dict[str, Any]:
        """Return the most frequent words, and points (N, 2) between -1 and 1, where similar words lie together."""
        words, vectors = words_on_map(self._mixture.neural(), count)
        points, shares = principal_components(vectors)
        scaled = np.round(points / max(float(np.abs(points).max()), 1e-30), 4)
        return {"words": words, "points": scaled.tolist(), "variance": shares.tolist()}

    def neighbors(self, word: str, count: int) -> list[tuple[str, float]]:
        """Return the words that are used most like a word, with their cosines to it."""
        network = self._mixture.neural()
        [found] = nearest(network, [word_id(network, word)], count)
        return [(network.vocabulary.words[i], round(cosine, 4)) for i, cosine in found]


class Models:
    """The models that were asked for last; one whose files have changed is loaded anew."""

    def __init__(self) -> None:
        self._backend, self._threads = choose_backend(), default_threads()
        self._lock = threading.Lock()
        self._models: Recent[tuple[Path, tuple[int, ...]], Model] = Recent(MODELS)

    def model(self, run: Path) -> Model:
        """Return the model of a run's folder or a .safetensors file. Raise ModelError where it cannot be loaded."""
        files = [file for file in (model_file(run), mixture_file(run)) if file is not None]
        try:
            written = tuple(file.stat().st_mtime_ns for file in files)
        except OSError as error:
            raise ModelError(f"cannot load {error.filename}: {error.strerror}") from error

        def load() -> Model:
            return Model(load_predictor(run, self._backend.ops, threads=self._threads))

        with self._lock:
            return self._models.get_or_make((run, written), load)
