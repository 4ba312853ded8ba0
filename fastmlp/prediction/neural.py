"""A network and the words it speaks: what training makes, a checkpoint holds, and predictions are made of."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp.errors import CheckpointError, ModelError
from fastmlp.files import checkpoint
from fastmlp.network.network import Network, WindowNetwork
from fastmlp.network.shape import NetworkShape
from fastmlp.ops import Ops
from fastmlp.text.tokenizer import Tokenizer
from fastmlp.text.vocabulary import Vocabulary
from fastmlp.text.words import IDS, TOKENIZERS, get_tokenizer

Array = np.ndarray
MODEL = "model"  # what a checkpoint says it is


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

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint must hold, beside the network's arrays, to make this again."""
        shape = self.network.shape
        return {
            "network": {"context": shape.context, "embed": shape.embed, "hidden": list(shape.hidden)},
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
        sizes = metadata["network"]
        shape = NetworkShape(len(vocabulary), sizes["context"], sizes["embed"], tuple(sizes["hidden"]))
        own = {name: tensors[name] for name in WindowNetwork(shape).state_dict() if name in tensors}
        network = Network(shape, ops, threads=threads, parameters=own)
        tokenizer = get_tokenizer(metadata["tokenizer"], metadata.get("capitalized", ()))
        return cls(network, vocabulary, tokenizer, metadata["unk_trained"])

    @classmethod
    def load(cls, file: str | os.PathLike[str], ops: Ops, *, threads: int = 1) -> "NeuralModel":
        """The model of a .safetensors file. Raises ModelError where it cannot be read or is something else."""
        with load_errors(file):
            return cls.from_checkpoint(*checkpoint.load(file), ops, threads=threads)


@contextlib.contextmanager
def load_errors(file: str | os.PathLike[str]) -> Iterator[None]:
    """Raise ModelError, which names the file, for what cannot be loaded."""
    try:
        yield
    except CheckpointError as error:
        raise ModelError(str(error)) from error
    except ValueError as error:
        raise ModelError(f"{file}: {error}") from error
