"""A small network, a batch of it, and the same network in PyTorch."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from fastmlp.data.windows import Batch
from fastmlp.network.network import Network
from fastmlp.network.shape import NetworkShape
from fastmlp.ops import Ops
from fastmlp.prediction.neural import NeuralModel
from fastmlp.text import Vocabulary, get_tokenizer
from tests.helpers import NUMPY

Array = np.ndarray

SHAPE = NetworkShape(vocabulary=97, context=3, embed=5, hidden=(17, 11))
ROWS = 13


def nonzero_state(rng: np.random.Generator, shape: NetworkShape = SHAPE) -> dict[str, Array]:
    """Parameters and running statistics of which none is zero or one, so that no gradient vanishes unnoticed."""
    state: dict[str, Array] = {}
    for name, array in Network(shape, NUMPY, seed=0).state_dict().items():
        size = array.shape
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(7)
        elif name.endswith("running_var") or name.endswith("batchnorm.weight"):
            state[name] = rng.uniform(0.5, 2, size)
        else:
            state[name] = rng.normal(size=size) / np.sqrt(size[-1])
    return state


def batch(rng: np.random.Generator, shape: NetworkShape = SHAPE, rows: int = ROWS) -> Batch:
    """Some words come more than once."""
    ids = rng.integers(0, shape.vocabulary, (rows, shape.context), dtype=np.int32)
    ids[rows // 2] = ids[0]
    return Batch(ids, None, rng.integers(0, shape.vocabulary, rows, dtype=np.int32))


def make_model(ops: Ops, state: dict[str, Array], shape: NetworkShape = SHAPE, **options: Any) -> Network:
    return Network(shape, ops, parameters=state, **options)


def torch_model(state: dict[str, Array], shape: NetworkShape = SHAPE, dtype: str = "float32") -> Any:
    """The same network in torch.nn, with these weights, in training mode."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class TorchMLP(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(shape.vocabulary, shape.embed)
            inputs = [shape.context * shape.embed, *shape.hidden]
            self.hidden = nn.ModuleList(
                nn.Sequential(
                    OrderedDict(
                        linear=nn.Linear(inputs[i], width, bias=False), batchnorm=nn.BatchNorm1d(width), tanh=nn.Tanh()
                    )
                )
                for i, width in enumerate(shape.hidden)
            )
            self.output = nn.Linear(inputs[-1], shape.vocabulary)

        def forward(self, ids: Any) -> Any:
            x = self.embedding(ids).flatten(1)
            for layer in self.hidden:
                x = layer(x)
            return self.output(x)

    model = TorchMLP().to(getattr(torch, dtype))
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.items()})
    return model


def small_language(rng: np.random.Generator, ops: Ops, *, unk_trained: bool = False) -> NeuralModel:
    """Return a model of a few words with weights far from zero, so that its predictions differ."""
    vocabulary = Vocabulary((".", "the", "cat", "saw", "a", "bird", "and", "sang", "<unk>"))
    shape = NetworkShape(len(vocabulary), context=3, embed=4, hidden=(6,))
    state = nonzero_state(rng, shape)
    state["output.weight"] *= 4
    network, tokenizer = make_model(ops, state, shape), get_tokenizer("words")
    return NeuralModel(network, vocabulary, tokenizer, unk_trained)
