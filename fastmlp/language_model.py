"""A network and the words it speaks: what a run's model file holds, and what text is generated with."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp import checkpoint
from fastmlp.checkpoint import CheckpointError
from fastmlp.model import MLP, NetworkShape
from fastmlp.ops import Ops
from fastmlp.text import TOKENIZERS, Tokenizer, Vocabulary, get_tokenizer

__all__ = ["LanguageModel", "ModelError", "load_language_model", "model_file"]

Array = np.ndarray
MODEL_FILE, LAST_FILE = "model.safetensors", "last.safetensors"


class ModelError(Exception):
    """A file or folder that holds no language model; the message is one complete line for the user."""


@dataclass
class LanguageModel:
    """A network, its vocabulary and its tokenizer.

    unk_trained  whether training saw <unk>, so that its embedding means something
    """

    network: MLP
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    unk_trained: bool

    @contextlib.contextmanager
    def reading_unknown_words(self) -> Iterator[None]:
        """Within, <unk> has the mean embedding where training never saw it; afterwards its own again."""
        if self.unk_trained:
            yield
            return
        embedding = self.network.parameters["embedding.weight"]
        own = embedding[-1].copy()
        embedding[-1] = embedding[:-1].mean(axis=0, dtype=np.float64)
        try:
            yield
        finally:
            embedding[-1] = own

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint must hold, beside the network's arrays, to make this again."""
        shape = self.network.shape
        return {
            "network": {"context": shape.context, "embed": shape.embed, "hidden": list(shape.hidden)},
            "tokenizer": self.tokenizer.name,
            "vocabulary": list(self.vocabulary.words),
            "unk_trained": self.unk_trained,
        }

    @classmethod
    def from_checkpoint(
        cls, tensors: Mapping[str, Array], metadata: Mapping[str, Any], ops: Ops, *, threads: int = 1
    ) -> "LanguageModel":
        """Make it of what a checkpoint held; other tensors, such as an optimizer's, are left alone.

        Raises ValueError where something is missing or does not fit.
        """
        if missing := [key for key in ("network", "tokenizer", "vocabulary", "unk_trained") if key not in metadata]:
            raise ValueError(f"it holds no language model: {', '.join(missing)} missing")
        if metadata["tokenizer"] not in TOKENIZERS:
            raise ValueError(f"its tokenizer {metadata['tokenizer']!r} is not known to this fastmlp; upgrade fastmlp")
        vocabulary = Vocabulary(tuple(metadata["vocabulary"]))
        sizes = metadata["network"]
        shape = NetworkShape(len(vocabulary), sizes["context"], sizes["embed"], tuple(sizes["hidden"]))
        names = [*shape.parameters(), *shape.statistics()]
        network = MLP(
            shape, ops, threads=threads, parameters={name: tensors[name] for name in names if name in tensors}
        )
        return cls(network, vocabulary, get_tokenizer(metadata["tokenizer"]), metadata["unk_trained"])


def model_file(run: str | Path) -> Path:
    """The file to read a run's model from: a .safetensors file, or in a folder its best model, else its last one.

    Raises ModelError where there is none.
    """
    path = Path(run)
    if not path.is_dir():
        return path
    for name in (MODEL_FILE, LAST_FILE):
        if (path / name).is_file():
            return path / name
    raise ModelError(f"{path}: a folder without {MODEL_FILE}; name a run's folder or a .safetensors file")


def load_language_model(run: str | Path, ops: Ops, *, threads: int = 1) -> LanguageModel:
    """The trained model of a run's folder or a .safetensors file.

    Raises ModelError where it cannot be read or is something else.
    """
    path = model_file(run)
    try:
        tensors, metadata = checkpoint.load(path)
        return LanguageModel.from_checkpoint(tensors, metadata, ops, threads=threads)
    except CheckpointError as error:
        raise ModelError(str(error)) from error
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
