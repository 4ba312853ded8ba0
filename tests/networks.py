"""A small network, a batch of it, and the same network in PyTorch."""

from collections import OrderedDict
from dataclasses import replace
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
FAMILY = {  # the parts that a network may have beside those of SHAPE, alone and all together
    "averages": replace(SHAPE, averages=(0.7, 0.95), reach=9),
    "blocks": replace(SHAPE, hidden=(17,), blocks=2, activation="relu"),
    "residual": replace(SHAPE, hidden=(17,), blocks=2, residual=True, activation="gelu"),
    "projection": replace(SHAPE, projection=True),
    "tied": replace(SHAPE, projection=True, tied=True),
    "all": replace(
        SHAPE,
        **{"hidden": (17,), "averages": (0.7, 0.95), "reach": 9, "blocks": 2, "residual": True, "activation": "gelu"},
        projection=True,
        tied=True,
    ),
}


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
    """Some words come more than once; before some rows the text has just begun, or has not."""
    ids = rng.integers(0, shape.vocabulary, (rows, shape.context), dtype=np.int32)
    ids[rows // 2] = ids[0]
    targets = rng.integers(0, shape.vocabulary, rows, dtype=np.int32)
    if not shape.reach:
        return Batch(ids, None, targets)
    far = rng.integers(0, shape.vocabulary, (rows, shape.reach), dtype=np.int32)
    far[1, 1:] = far[1, 0]
    far[: rows // 3, : shape.reach // 2], far[rows // 3] = -1, -1
    return Batch(ids, far, targets)


def make_model(ops: Ops, state: dict[str, Array], shape: NetworkShape = SHAPE, **options: Any) -> Network:
    return Network(shape, ops, parameters=state, **options)


def torch_model(state: dict[str, Array], shape: NetworkShape = SHAPE, dtype: str = "float32") -> Any:
    """The same network in torch.nn, with these weights, in training mode; its dropout has masks of its own."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    at_input, in_hidden, at_output = map(nn.Dropout, shape.dropout)

    class Context(nn.Embedding):  # type: ignore[misc, name-defined]
        def forward(self, near: Any, far: Any = None) -> Any:
            found = [super().forward(near).flatten(1)]
            back = torch.arange(shape.reach, dtype=torch.float64).flip(0)  # the nearest is the last
            for decay in shape.averages:
                weights = (decay**back * (1 - decay) ** 0.5 * (far >= 0)).to(self.weight.dtype)
                with torch.no_grad():
                    words = far.clamp(min=0)
                    found.append(
                        nn.functional.embedding_bag(words, self.weight, per_sample_weights=weights, mode="sum")
                    )
            return torch.cat(found, 1) if shape.averages else found[0]

    class Residual(nn.Sequential):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x + super().forward(x)

    def layer(inputs: int, width: int, *, residual: bool) -> Any:
        modules = OrderedDict(linear=nn.Linear(inputs, width, bias=False), batchnorm=nn.BatchNorm1d(width))
        modules[shape.activation] = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}[shape.activation]()
        modules["dropout"] = in_hidden
        return (Residual if residual else nn.Sequential)(modules)

    class TorchMLP(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = Context(shape.vocabulary, shape.embed)
            layers, width = [], (shape.context + len(shape.averages)) * shape.embed
            for wider in shape.hidden:
                layers.append(layer(width, wider, residual=False))
                width = wider
            layers += [layer(width, width, residual=shape.residual) for _ in range(shape.blocks)]
            self.hidden = nn.ModuleList(layers)
            self.projection = nn.Linear(width, shape.embed) if shape.projection else nn.Identity()
            self.output = nn.Linear(shape.embed if shape.projection else width, shape.vocabulary)
            if shape.tied:
                self.output.weight = self.embedding.weight

        def forward(self, near: Any, far: Any = None) -> Any:
            x = at_input(self.embedding(near, far))
            for layer in self.hidden:
                x = layer(x)
            return self.output(at_output(self.projection(x)))

    model = TorchMLP().to(getattr(torch, dtype))
    known = {**state, "output.weight": state["embedding.weight"]} if shape.tied else state
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in known.items()})
    return model


def torch_logits(model: Any, one: Batch) -> Any:
    """What a torch model makes of a batch."""
    torch = pytest.importorskip("torch")
    return model(*(torch.from_numpy(words).long() for words in one[:2] if words is not None))


def torch_loss(model: Any, one: Batch, reduction: str = "mean") -> Any:
    """Of a torch model on a batch."""
    torch = pytest.importorskip("torch")
    targets = torch.from_numpy(one.targets).long()
    return torch.nn.functional.cross_entropy(torch_logits(model, one), targets, reduction=reduction)


WINDOW: dict[str, Any] = {  # what small_language may have beside its first parts
    **{"averages": (0.5, 0.9), "reach": 5, "blocks": 1, "residual": True, "activation": "gelu", "projection": True},
}


def small_language(rng: np.random.Generator, ops: Ops, *, unk_trained: bool = False, **parts: Any) -> NeuralModel:
    """Return a model of a few words with weights far from zero, so that its predictions differ."""
    vocabulary = Vocabulary((".", "the", "cat", "saw", "a", "bird", "and", "sang", "<unk>"))
    shape = NetworkShape(len(vocabulary), context=3, embed=4, hidden=(6,), **parts)
    state = nonzero_state(rng, shape)
    state["embedding.weight" if shape.tied else "output.weight"] *= 4
    network, tokenizer = make_model(ops, state, shape), get_tokenizer("words")
    return NeuralModel(network, vocabulary, tokenizer, unk_trained)
