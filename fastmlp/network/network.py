"""The network: embedding -> [linear -> batchnorm -> tanh] x L -> linear -> softmax, composed of fastmlp.nn.

Parameters and running statistics have the names and layouts of a PyTorch state_dict.
Source: Bengio, Ducharme, Vincent and Jauvin (2003), with batch normalization, without the direct connections.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from fastmlp.data.windows import Batch
from fastmlp.network.shape import NetworkShape
from fastmlp.nn.activation import Tanh
from fastmlp.nn.batchnorm import BatchNorm1d
from fastmlp.nn.containers import Flatten, Sequential
from fastmlp.nn.embedding import Embedding
from fastmlp.nn.head import Head
from fastmlp.nn.linear import Linear
from fastmlp.nn.module import UNDRAWN, Module
from fastmlp.nn.place import Bound
from fastmlp.ops import Ops
from fastmlp.optim import Optimizer

__all__ = ["Network", "WindowNetwork"]

Array = np.ndarray
OUTPUT_STD = 0.01  # of the output weights at the start: logits near 0, so the first loss is ln V


class WindowNetwork(Module):
    """The layers of a network that guesses the next word from a window of words.

    As a module it gives the logits; its weights are 0 until they are loaded.
    """

    def __init__(self, shape: NetworkShape, dtype: Any = np.float32) -> None:
        super().__init__()
        self.embedding = Embedding(shape.vocabulary, shape.embed, dtype=dtype, rng=UNDRAWN)
        self.flatten = Flatten()
        widths = [shape.context * shape.embed, *shape.hidden]
        self.hidden = Sequential(*(_hidden_layer(*sizes, dtype) for sizes in pairwise(widths)))
        self.output = Head(widths[-1], shape.vocabulary, dtype=dtype, rng=UNDRAWN)

    def embed(self, ids: Array) -> Array:
        """Words (B, T) as what the hidden layers read (B, T*D)."""
        embcat: Array = self.flatten(self.embedding(ids))
        return embcat

    def forward(self, ids: Array) -> Array:
        """Words (B, T) -> logits of the next one (B, V)."""
        logits: Array = self.output(self.hidden(self.embed(ids)))
        return logits

    def backward(self, grad: Array) -> None:
        """The gradient of the logits (B, V); words have none."""
        self.backward_from_hidden(self.output.backward(grad))

    def backward_from_hidden(self, dh: Array) -> None:
        """The gradient of the last hidden layer's output (B, H)."""
        self.embedding.backward(self.flatten.backward(self.hidden.backward(dh)))


def _hidden_layer(inputs: int, width: int, dtype: Any) -> Sequential:
    linear = Linear(inputs, width, bias=False, dtype=dtype, rng=UNDRAWN)
    return Sequential(OrderedDict(linear=linear, batchnorm=BatchNorm1d(width, dtype=dtype), tanh=Tanh()))


class Network:
    """A window network bound to one back-end: what training and prediction ask of it.

    layers       the modules; their gradients are those of the last batch
    parameters   trained arrays by state_dict name, the same ones for good; an optimizer changes them in place
    statistics   the batchnorms' running estimates, by state_dict name, likewise
    """

    def __init__(
        self,
        shape: NetworkShape,
        ops: Ops,
        *,
        threads: int = 1,
        fp32_precision: str = "auto",
        seed: int | None = None,
        parameters: Mapping[str, Array] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        """Make a network.

        shape       its sizes
        ops         the back-end
        threads     how many threads may work; no result depends on it
        fp32_precision  how training makes the last layer's products (ops/reference)
        seed        of the initial weights; or
        parameters  a state_dict: parameters and running statistics, which are copied
        dtype       float32; with the NumPy back-end also float64
        """
        if (seed is None) == (parameters is None):
            raise ValueError("expected either a seed or parameters")
        self.shape, self.ops, self.threads = shape, ops, threads
        self._place = Bound(ops, threads)
        self.layers = WindowNetwork(shape, dtype).run_in(self._place)
        self.layers.output.fp32_precision = fp32_precision
        self.parameters: Mapping[str, Array] = MappingProxyType(dict(self.layers.named_parameters()))
        own = self.layers.state_dict()
        self.statistics: Mapping[str, Array] = MappingProxyType(
            {name: own[name] for name in own if name not in self.parameters}
        )
        if parameters is not None:
            self.load_state_dict(parameters)
        elif seed is not None:
            self._initialize(seed)

    def _initialize(self, seed: int) -> None:
        """Hidden layers and embedding as PyTorch initialises them; the output such that the first loss is ln V.

        embedding N(0, 1); linear U(-1/sqrt(inputs), 1/sqrt(inputs)); batchnorm 1 and 0; output N(0, OUTPUT_STD) and 0.
        """
        for stream, (name, param) in enumerate(self.parameters.items()):
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream))))
            if name == "embedding.weight":
                param[...] = rng.standard_normal(param.shape, np.float32)
            elif name == "output.weight":
                param[...] = rng.standard_normal(param.shape, np.float32) * np.float32(OUTPUT_STD)
            elif name.endswith("linear.weight"):
                bound = np.float32(1 / math.sqrt(param.shape[1]))
                param[...] = (2 * rng.random(param.shape, np.float32) - 1) * bound

    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(param.size for param in self.parameters.values())

    def state_dict(self) -> dict[str, Array]:
        """Parameters and running statistics, not copied; names and layouts are those of the same torch.nn modules."""
        return {**self.parameters, **self.statistics}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy parameters and running statistics from a state_dict; ValueError where a name or a shape does not fit."""
        own = self.state_dict()
        if missing := [name for name in own if name not in state]:
            raise ValueError(f"state: expected {', '.join(own)}; missing: {', '.join(missing)}")
        if foreign := [name for name in state if name not in own]:
            raise ValueError(f"state: expected {', '.join(own)}; not known: {', '.join(foreign)}")
        for name, array in own.items():
            given = np.asarray(state[name])
            if given.shape != array.shape:
                raise ValueError(f"state: {name}: expected shape {array.shape}, got {given.shape}")
            array[...] = given

    # -------------------------------------------------------------------------------------------------------- training

    def step(self, batch: Batch, optimizer: Optimizer) -> float:
        """One training batch: forward, backward and update, the output layer's on the way.

        batch      of 2 rows at least
        optimizer  of `layers`
        Returns the mean loss in nats before the step; where it is infinite or no number nothing is updated.
        """
        h = self.forward(batch.near, training=True)
        losses = self.layers.output.step(h, batch.targets, self._mean_over(len(h)), optimizer)
        dh = self.layers.output.loss_backward()
        if dh is not None:
            self._backward(dh)
            optimizer.step()
        return mean(losses)

    def loss_and_gradients(self, batch: Batch) -> float:
        """The mean loss of a training batch in nats, as in `step`; the gradients are left in the layers."""
        h = self.forward(batch.near, training=True)
        losses = self.layers.output.learn(h, batch.targets, self._mean_over(len(h)))
        dh = self.layers.output.loss_backward()
        assert dh is not None
        self._backward(dh)
        return mean(losses)

    def _backward(self, dh: Array) -> None:
        self._place.replay("backward", len(dh), partial(self.layers.backward_from_hidden, dh))

    def _mean_over(self, rows: int) -> Array:
        """What each row's loss counts (rows,): it is their mean that is trained."""
        dtype = self.layers.embedding.dtype
        return self._place.replay("mean", rows, lambda: np.full(rows, 1 / rows, dtype))

    # ------------------------------------------------------------------------------------------------------ prediction

    def forward(self, near: Array, *, training: bool, unknown: Array | None = None) -> Array:
        """The last hidden layer's output.

        near      (B, T)  in: the words just before, int32
        unknown   (D,)    in: what is read for the last word, `<unk>`; None: its own embedding
        training  with the batch's statistics, which the running ones follow; else with the running ones, row by row
        Returns h (B, H), valid until the next call.
        """
        rows, place, layers = len(near), self._place, self.layers
        words = place.replay("near", rows, lambda: place.array(self, "near", near.shape, np.int32))
        if near.dtype != np.int32:
            raise TypeError(f"near: expected int32, got {near.dtype}")
        words[...] = near
        embcat = place.replay("embed", rows, partial(layers.embed, words))
        if unknown is not None:
            embcat.reshape(*near.shape, -1)[near == self.shape.vocabulary - 1] = unknown
        if training != layers.training:
            layers.train(training)
        return place.replay("train" if training else "eval", rows, partial(layers.hidden, embcat))

    def losses(self, batch: Batch, *, unknown: Array | None = None, fp32_precision: str = "auto") -> Array:
        """How surprised the network is by each true next word, in nats, (B,), with the running statistics.

        unknown          as in forward
        fp32_precision   of the last layer's products; "auto": float32's, whatever training's is
        """
        h = self.forward(batch.near, training=False, unknown=unknown)
        row_scale = self._mean_over(len(h))
        return self.layers.output.losses(h, batch.targets, row_scale, fp32_precision=fp32_precision).copy()

    def logits(self, near: Array, *, unknown: Array | None = None) -> Array:
        """The scores of every next word, (B, V), with the running statistics: what text is generated from.

        near     (B, T)  in: the words just before
        unknown          as in forward
        """
        h, output = self.forward(near, training=False, unknown=unknown), self.layers.output
        logits = np.empty((len(near), self.shape.vocabulary), h.dtype)
        self._place.run("linear_forward", h, output.weight, output.bias, logits)
        return logits


def mean(losses: Array) -> float:
    """The mean of a batch's losses: of their exact sum, on every machine the same."""
    return math.fsum(losses.tolist()) / len(losses)
