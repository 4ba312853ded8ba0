"""A network and the words it speaks: what training makes, a checkpoint holds, and predictions are made of."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp.data.windows import Windows
from fastmlp.errors import CheckpointError, ModelError
from fastmlp.files import checkpoint
from fastmlp.network.network import Network, WindowNetwork
from fastmlp.network.shape import NetworkShape
from fastmlp.ops import Ops
from fastmlp.prediction.predictor import Watch
from fastmlp.text.tokenizer import Tokenizer
from fastmlp.text.vocabulary import Vocabulary
from fastmlp.text.words import IDS, TOKENIZERS, get_tokenizer

Array = np.ndarray
MODEL = "model"  # what a checkpoint says it is
ROWS = 512  # at once: enough that the weights are read, and cut into tiles, seldom


@dataclass(frozen=True)
class NeuralModel:
    """A trained network and the words it speaks.

    network      guesses the next word's id
    vocabulary   the words of the ids
    tokenizer    how a text becomes words
    unk_trained  whether training saw `<unk>`, so that its embedding means something
    """

    network: Network
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    unk_trained: bool

    @property
    def context(self) -> int:
        """How many words the network looks at."""
        return self.network.shape.context

    def unknown_embedding(self) -> Array | None:
        """What is read for `<unk>` (D,): the mean embedding where training never saw it; None: its own.

        The weights stay as they are, so it is made anew of those of the moment.
        """
        if self.unk_trained:
            return None
        known = self.network.parameters["embedding.weight"][:-1]
        return np.asarray(known.mean(axis=0, dtype=np.float64), known.dtype)

    def windows(self, ids: Array, before: Array) -> Windows:
        """The windows in which the network guesses each word of a text, from the words before it."""
        return Windows(ids, self.context, reach=self.network.shape.reach, history=before, padding=self._padding)

    @property
    def _padding(self) -> int:
        """What stands before a text's first word: sentence ends."""
        return self.vocabulary.id_of(self.tokenizer.sentence_end)

    def losses(
        self,
        windows: Windows,
        indices: Array | None = None,
        *,
        fp32_precision: str = "auto",
        watch: Watch | None = None,
    ) -> Array:
        """How surprised the network is by the next word of each window, (N,) in nats, with the running statistics.

        windows         (words before -> next word)
        indices         which of them; None: all
        fp32_precision  of the last layer's products, as in ops/reference; "auto": float32's
        watch           is told of so many more that are done; what it raises ends the work
        """
        chosen = np.arange(len(windows)) if indices is None else indices
        losses, unknown = np.empty(len(chosen), np.float32), self.unknown_embedding()
        for start in range(0, len(chosen), ROWS):
            batch = windows.take(chosen[start : start + ROWS])
            rows = slice(start, start + len(batch.targets))
            losses[rows] = self.network.losses(batch, unknown=unknown, fp32_precision=fp32_precision)
            if watch is not None:
                watch(len(batch.targets))
        return losses

    def log_probabilities(self, ids: Array, before: Array, *, watch: Watch | None = None) -> Array:
        """The log-probability of each word of a text, as `Predictor` has it."""
        return -self.losses(self.windows(ids, before), watch=watch)

    def cursor(self, before: Sequence[int]) -> "NeuralCursor":
        """The place after these words."""
        return NeuralCursor(self, before)

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint must hold, beside the network's arrays, to make this again."""
        return {
            "network": self.network.shape.to_dict(),
            "tokenizer": self.tokenizer.name,
            "capitalized": sorted(self.tokenizer.capitalized),
            "vocabulary": list(self.vocabulary.words),
            "unk_trained": self.unk_trained,
        }

    @classmethod
    def from_checkpoint(
        cls, tensors: Mapping[str, Array], metadata: Mapping[str, Any], ops: Ops, *, threads: int = 1
    ) -> "NeuralModel":
        """Make it of what a checkpoint held; other tensors, such as an optimizer's, are left alone.

        Raises ValueError where something is missing or does not fit.
        """
        if missing := [key for key in ("network", "tokenizer", "vocabulary", "unk_trained") if key not in metadata]:
            raise ValueError(f"it holds no language model: {', '.join(missing)} missing")
        if metadata["tokenizer"] not in (*TOKENIZERS, IDS.name):
            raise ValueError(f"its tokenizer {metadata['tokenizer']!r} is not known to this fastmlp; upgrade fastmlp")
        vocabulary = Vocabulary(tuple(metadata["vocabulary"]))
        shape = NetworkShape.from_dict(len(vocabulary), metadata["network"])
        own = {name: tensors[name] for name in WindowNetwork(shape).state_dict() if name in tensors}
        network = Network(shape, ops, threads=threads, parameters=own)
        tokenizer = get_tokenizer(metadata["tokenizer"], metadata.get("capitalized", ()))
        return cls(network, vocabulary, tokenizer, metadata["unk_trained"])

    @classmethod
    def load(cls, file: str | os.PathLike[str], ops: Ops, *, threads: int = 1) -> "NeuralModel":
        """The model of a .safetensors file. Raises ModelError where it cannot be read or is something else."""
        with load_errors(file):
            return cls.from_checkpoint(*checkpoint.load(file), ops, threads=threads)


class NeuralCursor:
    """A place in a text that a network goes on with."""

    def __init__(self, model: NeuralModel, before: Sequence[int]) -> None:
        self._model, shape = model, model.network.shape
        self._near = [model._padding] * shape.context
        self._far = [-1] * (shape.context + shape.reach)  # and the words of _near, but for what stands before a text
        for word in before:
            self.add(word)

    def logits(self) -> Array:
        """The scores of every next word, (V,)."""
        network, unk_id = self._model.network, self._model.vocabulary.unk_id
        unknown = self._model.unknown_embedding() if unk_id in (*self._near, *self._far) else None
        near, far = np.array([self._near], np.int32), np.array([self._far[: network.shape.reach]], np.int32)
        logits: Array = network.logits(near, far if network.shape.reach else None, unknown=unknown)[0]
        return logits

    def add(self, word: int) -> None:
        """The text goes on with this word."""
        self._near = [*self._near[1:], word]
        self._far = [*self._far[1:], word]


@contextlib.contextmanager
def load_errors(file: str | os.PathLike[str]) -> Iterator[None]:
    """Raise ModelError, which names the file, for what cannot be loaded."""
    try:
        yield
    except CheckpointError as error:
        raise ModelError(str(error)) from error
    except ValueError as error:
        raise ModelError(f"{file}: {error}") from error
