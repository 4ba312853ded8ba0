"""A network with its vocabulary and tokenizer: the model that is trained, saved and used for predictions."""

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
from fastmlp.text.vocabulary import Vocabulary, bytes_to_words, checked_words, words_to_bytes
from fastmlp.text.words import IDS, TOKENIZERS, get_tokenizer

Array = np.ndarray
VOCABULARY, CAPITALIZED = "vocabulary", "capitalized"  # names of arrays, of metadata in earlier checkpoints
MODEL = "model"  # the kind that a model's checkpoint states
ROWS = 512  # of a batch: enough that the weights are seldom read and cut into tiles


@dataclass(frozen=True)
class NeuralModel:
    """A trained network with its vocabulary and tokenizer.

    network      predicts the id of the next word
    vocabulary   the words of the ids
    tokenizer    splits a text into words
    unk_trained  whether training saw `<unk>`, so that its embedding has a meaning
    """

    network: Network
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    unk_trained: bool

    @property
    def context(self) -> int:
        """T, the number of words just before that the network reads."""
        return self.network.shape.context

    def unknown_embedding(self) -> Array | None:
        """Return the embedding (D,) to read for `<unk>`: the mean one if training never saw it; None: its own.

        The weights stay unchanged; each call computes the mean of the current ones.
        """
        if self.unk_trained:
            return None
        known = self.network.parameters["embedding.weight"][:-1]
        return np.asarray(known.mean(axis=0, dtype=np.float64), known.dtype)

    def windows(self, ids: Array, before: Array) -> Windows:
        """Return windows for predicting each word of a text from the words before it."""
        return Windows(ids, self.context, reach=self.network.shape.reach, history=before, padding=self._padding)

    @property
    def _padding(self) -> int:
        """The id before a text's first word: the sentence end."""
        return self.vocabulary.id_of(self.tokenizer.sentence_end)

    def losses(
        self,
        windows: Windows,
        indices: Array | None = None,
        *,
        fp32_precision: str = "auto",
        watch: Watch | None = None,
    ) -> Array:
        """Return the loss of each window's target (N,) in nats, with the running statistics.

        windows         (words before -> next word)
        indices         which of them; None: all
        fp32_precision  of the products, as in ops/reference; "auto": float32
        watch           is called with the number of windows just done; an exception that it raises ends the work
        """
        losses = np.empty(len(windows) if indices is None else len(indices), np.float32)
        for rows, of_rows, _ in self.read(windows, indices, fp32_precision=fp32_precision, watch=watch):
            losses[rows] = of_rows
        return losses

    def read(
        self,
        windows: Windows,
        indices: Array | None = None,
        *,
        fp32_precision: str = "auto",
        watch: Watch | None = None,
    ) -> Iterator[tuple[slice, Array, Array]]:
        """Yield batch after batch: its place among the windows, its losses (B,), and what enters the output layer.

        The latter, (B, H), is valid until the next batch. Arguments as in `losses`.
        """
        chosen, unknown = np.arange(len(windows)) if indices is None else indices, self.unknown_embedding()
        for start in range(0, len(chosen), ROWS):
            batch = windows.take(chosen[start : start + ROWS])
            h = self.network.forward(
                batch.near, batch.far, training=False, unknown=unknown, fp32_precision=fp32_precision
            )
            losses = self.network.losses_after(h, batch.targets, fp32_precision=fp32_precision)
            yield slice(start, start + len(h)), losses, h
            if watch is not None:
                watch(len(h))

    def log_probabilities(self, ids: Array, before: Array, *, watch: Watch | None = None) -> Array:
        """Return the log-probability of each word of a text, as in `Predictor`."""
        return -self.losses(self.windows(ids, before), watch=watch)

    def cursor(self, before: Sequence[int]) -> "NeuralCursor":
        """Return the place after these words."""
        return NeuralCursor(self, before)

    def metadata(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides the network's arrays to restore this model."""
        return {
            "network": self.network.shape.to_dict(),
            "tokenizer": self.tokenizer.name,
            "rules": self.tokenizer.rules,
            "unk_trained": self.unk_trained,
        }

    def tensors(self) -> dict[str, Array]:
        """Return the arrays that a checkpoint holds: the network's, not copied, and the words."""
        return {**self.network.state_dict(), **word_tensors(self.vocabulary, self.tokenizer)}

    @classmethod
    def from_checkpoint(
        cls, tensors: Mapping[str, Array], metadata: Mapping[str, Any], ops: Ops, *, threads: int = 1
    ) -> "NeuralModel":
        """Restore a model from a checkpoint; other tensors, such as the optimizer state, are ignored.

        Raise ValueError if something is missing or does not match.
        """
        if missing := [key for key in ("network", "tokenizer", "unk_trained") if key not in metadata]:
            raise ValueError(f"it holds no language model: {', '.join(missing)} missing")
        vocabulary, tokenizer = words_of(tensors, metadata)
        shape = NetworkShape.from_dict(len(vocabulary), metadata["network"])
        check_sizes(shape, tensors)
        own = {name: tensors[name] for name in WindowNetwork(shape).state_dict() if name in tensors}
        network = Network(shape, ops, threads=threads, parameters=own)
        return cls(network, vocabulary, tokenizer, metadata["unk_trained"])

    @classmethod
    def load(cls, file: str | os.PathLike[str], ops: Ops, *, threads: int = 1) -> "NeuralModel":
        """Load the model of a .safetensors file. Raise ModelError if it cannot be read or holds no model."""
        with load_errors(file):
            return cls.from_checkpoint(*checkpoint.load(file), ops, threads=threads)


def check_sizes(shape: NetworkShape, tensors: Mapping[str, Array]) -> None:
    """Raise ValueError unless a file has the matrices of a network, before memory is allocated for that.

    The other tensors are smaller.
    """
    if len(shape.hidden) + shape.blocks > len(tensors):
        raise ValueError(f"state: fewer tensors than the network has layers, {len(shape.hidden) + shape.blocks:,}")
    widths = [shape.inputs, *shape.hidden, *[shape.hidden[-1]] * shape.blocks]
    layers = enumerate(zip(widths[1:], widths[:-1], strict=True))
    expected = {f"hidden.{number}.linear.weight": sizes for number, sizes in layers}
    if shape.projection:
        expected["projection.weight"] = (shape.embed, widths[-1])
    if not shape.tied:
        expected["output.weight"] = (shape.vocabulary, shape.embed if shape.projection else widths[-1])
    for name, sizes in {"embedding.weight": (shape.vocabulary, shape.embed), **expected}.items():
        if name not in tensors:
            raise ValueError(f"state: missing: {name}")
        if tensors[name].shape != sizes:
            raise ValueError(f"state: {name}: expected shape {sizes}, got {tensors[name].shape}")


class NeuralCursor:
    """A place in a text that a network continues."""

    def __init__(self, model: NeuralModel, before: Sequence[int]) -> None:
        self._model, shape = model, model.network.shape
        self._near = [model._padding] * shape.context
        self._far = [-1] * (shape.context + shape.reach)  # also the words of _near, without padding
        for word in before:
            self.add(word)

    def vector(self) -> Array:
        """Return what enters the output layer (H,)."""
        network, unk_id = self._model.network, self._model.vocabulary.unk_id
        unknown = self._model.unknown_embedding() if unk_id in (*self._near, *self._far) else None
        near, far = np.array([self._near], np.int32), np.array([self._far[: network.shape.reach]], np.int32)
        h = network.forward(near, far if network.shape.reach else None, training=False, unknown=unknown)
        return np.array(h[0])

    def logits(self) -> Array:
        """Return the logits of the next word (V,)."""
        return self.logits_after(self.vector())

    def logits_after(self, vector: Array) -> Array:
        """Return the logits of the next word (V,), for a result of `vector`."""
        logits: Array = self._model.network.logits_after(vector[None])[0]
        return logits

    def add(self, word: int) -> None:
        """Append a word."""
        self._near = [*self._near[1:], word]
        self._far = [*self._far[1:], word]


def word_tensors(vocabulary: Vocabulary, tokenizer: Tokenizer) -> dict[str, Array]:
    """Return the words of a model as arrays of bytes: their number is unlimited, that of metadata is not."""
    words = {VOCABULARY: vocabulary.words, CAPITALIZED: sorted(tokenizer.capitalized)}
    return {name: words_to_bytes(these) for name, these in words.items() if these}


def words_of(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> tuple[Vocabulary, Tokenizer]:
    """Restore vocabulary and tokenizer of a checkpoint; in earlier ones the words are in the metadata.

    Raise ValueError if they are missing or not known to this fastmlp.
    """
    if metadata["tokenizer"] not in (*TOKENIZERS, IDS.name):
        raise ValueError(f"its tokenizer {metadata['tokenizer']!r} is not known to this fastmlp; upgrade fastmlp")
    vocabulary, capitalized = (
        bytes_to_words(tensors[name]) if name in tensors else checked_words(metadata.get(name, []))
        for name in (VOCABULARY, CAPITALIZED)
    )
    if not vocabulary:
        raise ValueError("it holds no language model: vocabulary missing")
    tokenizer = get_tokenizer(metadata["tokenizer"], capitalized, rules=metadata.get("rules", 1))
    return Vocabulary(vocabulary), tokenizer


@contextlib.contextmanager
def load_errors(file: str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors while a file is loaded into ModelError of one line, which names the file.

    A digest shows that a file is not damaged, not that fastmlp wrote it: what is in it may be anything.
    """
    try:
        yield
    except CheckpointError as error:
        raise ModelError(str(error)) from None  # one exception for the user: it says all that those below it do
    except ValueError as error:
        message = str(error)
        raise ModelError(f"{file}: {message if message.isprintable() else ascii(message)}") from None
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ModelError(f"{file}: not as fastmlp writes it ({type(error).__name__}: {str(error)!a})") from error
