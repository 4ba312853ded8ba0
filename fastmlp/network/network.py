"""The network: words -> embeddings -> [linear -> batchnorm -> activation] x L -> linear -> softmax, made of fastmlp.nn.

    near    the last T words' embeddings side by side                                     (T D)
    far     averages of the K words before these, if the shape has averages               (A D)
    x       dropout([near, far])
    h       dropout(act(batchnorm(W1 x)))                                                 (H)
    h       h + dropout(act(batchnorm(Wi h)))     a block; without `h +` a layer          (H)
    o       dropout(P h + c)                      the projection, if the shape has one    (D)
    logits  E o + b                               E is the embedding if weights are tied  (V)

Parameters and running statistics have the names and layouts of a PyTorch state_dict.
Source: Bengio, Ducharme, Vincent and Jauvin (2003), with batch normalization, without the direct connections; tied
weights: Press and Wolf (2017). benchmarks/README.md has the rest, and what each part gains.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from fastmlp.arrays import check_shape
from fastmlp.data.windows import Batch
from fastmlp.distributed.group import Group
from fastmlp.distributed.part import Part
from fastmlp.network.context import Context, ContextOfPart
from fastmlp.network.shape import NetworkShape
from fastmlp.nn.activation import GELU, ReLU, Tanh
from fastmlp.nn.batchnorm import BatchNorm1d
from fastmlp.nn.containers import Residual, Sequential
from fastmlp.nn.dropout import Dropout
from fastmlp.nn.head import Head
from fastmlp.nn.linear import Linear
from fastmlp.nn.module import UNDRAWN, Module
from fastmlp.nn.place import Bound
from fastmlp.ops import Ops
from fastmlp.ops.gradient import RowGradient
from fastmlp.optim import Optimizer

__all__ = ["Network", "WindowNetwork"]

Array = np.ndarray
ACTIVATION: dict[str, type[Module]] = {"tanh": Tanh, "gelu": GELU, "relu": ReLU}
PER_WORD = ("embedding.weight", "output.weight", "output.bias")  # parameters that have a row for each word
ROWS_DRAWN = 1 << 14  # of each rank's words whose initial weights are drawn at once
OUTPUT_STD = 0.01  # of the initial output weights: logits are near 0, so the first loss is ln V


class WindowNetwork(Module):
    """The layers of a network that predicts the next word from the words before it.

    The forward pass returns the logits. The weights of linear layers and embedding are 0 until they are set.
    counter  (2,)  int64: the seed of the dropout masks, and the step
    """

    def __init__(self, shape: NetworkShape, dtype: Any = np.float32, part: Part | None = None) -> None:
        """part  of the words, where ranks share them out: the embedding and the output layer have its rows alone"""
        super().__init__()
        self.counter = np.zeros(2, np.int64)
        self._dropouts = 0
        at_input, in_hidden, at_output = shape.dropout
        if part is None:
            self.embedding = Context(shape.vocabulary, shape.embed, shape.averages, dtype)
        else:
            self.embedding = ContextOfPart(part, shape.embed, shape.averages, dtype)
        self.dropout = self._dropout(at_input)
        widths = [shape.inputs, *shape.hidden, *[shape.hidden[-1]] * shape.blocks]
        self.hidden = Sequential(
            *(
                self._hidden_layer(shape, *sizes, in_hidden, dtype, residual=shape.residual and i >= len(shape.hidden))
                for i, sizes in enumerate(pairwise(widths))
            )
        )
        width = widths[-1]
        if shape.projection:
            self.projection = Linear(width, shape.embed, dtype=dtype, rng=UNDRAWN)
            width = shape.embed
        self.output_dropout = self._dropout(at_output)
        tied_to = self.embedding if shape.tied else None
        self.output = Head(width, shape.vocabulary, dtype=dtype, rng=UNDRAWN, tied_to=tied_to, part=part)

    def _dropout(self, p: float) -> Dropout:
        dropout = Dropout(p, rng=0)
        dropout.counter, dropout.layer = self.counter, self._dropouts
        self._dropouts += 1
        return dropout

    def _hidden_layer(
        self, shape: NetworkShape, inputs: int, width: int, dropout: float, dtype: Any, *, residual: bool
    ) -> Sequential:
        modules: dict[str, Module] = {
            "linear": Linear(inputs, width, bias=False, dtype=dtype, rng=UNDRAWN),
            "batchnorm": BatchNorm1d(width, dtype=dtype),
            shape.activation: ACTIVATION[shape.activation](),
            "dropout": self._dropout(dropout),
        }
        return (Residual if residual else Sequential)(OrderedDict(modules))

    def embed(self, near: Array, far: Array | None = None) -> Array:
        """Return the input of the hidden layers (B, I) for words near (B, T) and far (B, K)."""
        x: Array = self.embedding(near, far)
        return x

    def body(self, x: Array) -> Array:
        """Return the input of the output layer (B, H), for a result of `embed`."""
        h = self.hidden(self.dropout(x))
        if hasattr(self, "projection"):
            h = self.projection(h)
        o: Array = self.output_dropout(h)
        return o

    def forward(self, near: Array, far: Array | None = None) -> Array:
        """Return the logits of the next word (B, V) for words near (B, T) and far (B, K)."""
        logits: Array = self.output(self.body(self.embed(near, far)))
        return logits

    def backward(self, grad: Array) -> None:
        """Store the gradients of all layers, for the gradient of the logits (B, V)."""
        self.backward_from_output(self.output.backward(grad))

    def backward_from_output(self, dh: Array) -> None:
        """Store the gradients of the layers before the output, for the gradient of the output layer's input (B, H)."""
        dh = self.output_dropout.backward(dh)
        if hasattr(self, "projection"):
            dh = self.projection.backward(dh)
        self.embedding.backward(self.dropout.backward(self.hidden.backward(dh)))


class Network:
    """A window network bound to one back-end, with the methods that training and prediction use.

    layers       the modules; their gradients are those of the last batch
    parameters   trained arrays by state_dict name, always the same ones; an optimizer updates them in place
    statistics   the batchnorms' running estimates, by state_dict name, likewise
    part         of the words, where ranks share them out; None: all. Then `step` and a forward pass in training are for
                 all ranks to call together, on the same batch; the other methods are for a network of all words
    """

    def __init__(
        self,
        shape: NetworkShape,
        ops: Ops,
        *,
        threads: int = 1,
        fp32_precision: str = "auto",
        seed: int | None = None,
        counts: Array | None = None,
        parameters: Mapping[str, Array] | None = None,
        group: Group | None = None,
        dtype: Any = np.float32,
    ) -> None:
        """Make a network.

        shape       its sizes and parts
        ops         the back-end
        threads     the number of threads; no result depends on it
        fp32_precision  precision of the products in training (ops/reference)
        seed        of the initial weights and the dropout masks; give either a seed or parameters
        counts      (V,) count of each word: the output's bias starts as the log of its frequency; None: as 0
        parameters  a state_dict of parameters and running statistics, which are copied
        group       of ranks that share the words out; the hidden layers are on each of them
        dtype       float32; with the NumPy back-end also float64
        """
        if (seed is None) == (parameters is None):
            raise ValueError("expected either a seed or parameters")
        self.shape, self.ops, self.threads = shape, ops, threads
        self._place = Bound(ops, threads)
        self._updated_by: Optimizer | None = None  # the last one to make a step
        self.part = None if group is None else Part(group, shape.vocabulary)
        self.layers = WindowNetwork(shape, dtype, self.part).run_in(self._place)
        self.fp32_precision = self.layers.output.fp32_precision = fp32_precision
        self._linear = [
            layer for layer in self.layers.modules() if isinstance(layer, Linear) and layer is not self.layers.output
        ]
        self.parameters: Mapping[str, Array] = MappingProxyType(dict(self.layers.named_parameters()))
        own = self.layers.state_dict()
        self.statistics: Mapping[str, Array] = MappingProxyType(
            {name: own[name] for name in own if name not in self.parameters}
        )
        if parameters is not None:
            self.load_state_dict(parameters)
        elif seed is not None:
            self.layers.counter[0] = seed
            self._initialize(seed, counts)

    def _initialize(self, seed: int, counts: Array | None) -> None:
        """Initialize linear weights as PyTorch does, and the output so that the first loss is that of the word counts.

        embedding N(0, embed_std); linear U(-1/sqrt(inputs), 1/sqrt(inputs)); batchnorm 1 and 0; output N(0, OUTPUT_STD)
        unless tied, its bias log((count + 1) / sum) or 0; the projection's bias 0.
        """
        for stream, (name, param) in enumerate(self.parameters.items()):
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream))))
            if name == "embedding.weight":
                self._draw(rng, param)
                param *= np.float32(self.shape.embed_std)
            elif name == "output.weight":
                self._draw(rng, param)
                np.multiply(param, np.float32(OUTPUT_STD), out=param, dtype=np.float32, casting="unsafe")
            elif name == "output.bias" and counts is not None:
                logarithms = np.log((counts + 1.0) / (counts + 1.0).sum())
                param[...] = logarithms if self.part is None else self.part.of(logarithms)
            elif name.endswith("linear.weight") or name == "projection.weight":
                bound = np.float32(1 / math.sqrt(param.shape[1]))
                param[...] = (2 * rng.random(param.shape, np.float32) - 1) * bound

    def _draw(self, rng: np.random.Generator, param: Array) -> None:
        """Draw N(0, 1) for each word and keep the rows of this part: the same numbers however words are shared out."""
        if self.part is None:
            param[...] = rng.standard_normal(param.shape, np.float32)
            return
        ranks, rank = self.part.group.size, self.part.group.rank
        for first in range(0, len(param), ROWS_DRAWN):
            words = min(ranks * ROWS_DRAWN, self.shape.vocabulary - ranks * first)
            drawn = rng.standard_normal((words, param.shape[1]), np.float32)
            param[first : first + ROWS_DRAWN] = drawn[rank::ranks]

    def parameter_count(self) -> int:
        """Return how many numbers are trained, on all ranks."""
        return sum(param.size // len(param) * self.rows_of(name) for name, param in self.parameters.items())

    def is_of_part(self, name: str) -> bool:
        """Return whether a parameter has the rows of this part's words alone."""
        return self.part is not None and name in PER_WORD

    def rows_of(self, name: str) -> int:
        """Return the length of a parameter's first axis with all words."""
        return self.shape.vocabulary if name in PER_WORD else len(self.parameters[name])

    def state_dict(self) -> dict[str, Array]:
        """Return parameters and running statistics, not copied, with the names and layouts of torch.nn's modules."""
        return {**self.parameters, **self.statistics}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy parameters and running statistics from a state_dict. Raise ValueError if a name or a shape differs."""
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

    def step(self, batch: Batch, optimizer: Optimizer, step: int = 0) -> float:
        """Train on one batch: forward pass, backward pass and update. The ops of linear layers also make their update.

        batch      at least 2 rows
        optimizer  of the parameters of `layers`
        step       number of the step; the dropout masks depend on it
        Return the mean loss in nats before the update. If it is infinite or NaN, nothing is updated.
        """
        output = self.layers.output
        self.layers.counter[1] = step
        h = self.forward(batch.near, batch.far, training=True)
        held = output.hold(self.layers.embedding.rows_of_words(batch.different_words())) if output.tied else None
        losses = output.step(h, batch.targets, self._mean_over(len(h)), optimizer, held=held)
        dh = output.loss_backward()
        if dh is not None:
            self._backward(dh, optimizer)
            if held is not None:
                output.finish(held)
            optimizer.step()
        return mean(losses)

    def loss_and_gradients(self, batch: Batch) -> float:
        """Return the mean loss of a training batch in nats, as in `step`, and store the gradients in the layers."""
        return self._gradients(self.forward(batch.near, batch.far, training=True), batch.targets)

    def _gradients(self, h: Array, targets: Array) -> float:
        output = self.layers.output
        losses = output.learn(h, targets, self._mean_over(len(h)))
        dh, of_output = output.loss_backward(), self.layers.embedding.grads.get("weight")
        assert dh is not None
        self._backward(dh)
        if output.tied:
            of_input = self.layers.embedding.grads["weight"]
            assert isinstance(of_output, np.ndarray)
            assert isinstance(of_input, RowGradient)
            of_output[of_input.rows] += of_input.drows
            self.layers.embedding.grads["weight"] = of_output
        return mean(losses)

    def _backward(self, dh: Array, optimizer: Optimizer | None = None) -> None:
        """Store the gradients; with an optimizer its step of the linear layers' weights is made at once."""
        name = "backward" if optimizer is None else "backward and update"
        if optimizer is not None and optimizer is not self._updated_by:  # the recorded pass is another one's
            self._place.forget(name)
            self._updated_by = optimizer
        self._place.replay(name, len(dh), partial(self._run_backward, dh, optimizer))

    def _run_backward(self, dh: Array, optimizer: Optimizer | None) -> None:
        for layer in self._linear:
            layer.updated_by = optimizer
        try:
            self.layers.backward_from_output(dh)
        finally:
            for layer in self._linear:
                layer.updated_by = None

    def _mean_over(self, rows: int) -> Array:
        """Return the weight of each row's loss (rows,): 1 / rows, so that the mean loss is trained."""
        dtype = self.layers.embedding.dtype
        return self._place.replay("mean", rows, lambda: np.full(rows, 1 / rows, dtype))

    # ------------------------------------------------------------------------------------------------------ prediction

    def forward(
        self,
        near: Array,
        far: Array | None = None,
        *,
        training: bool,
        unknown: Array | None = None,
        fp32_precision: str = "auto",
    ) -> Array:
        """Return the input of the output layer, h (B, H), valid until the next call.

        near      (B, T)  in: the words just before, int32
        far       (B, K)  in: the words before these, int32, -1 where the text has not begun; None without averages
        unknown   (D,)    in: embedding to read for `<unk>`, the last word, in `near`; in `far` `<unk>` then adds
                          nothing to the averages. None: its own embedding
        training  True: use dropout and the batch's statistics, and update the running statistics; False: use the
                  running statistics, so that rows do not affect each other
        fp32_precision  of the products where it is not training; "auto": float32, whatever training uses
        """
        rows, layers, unk = len(near), self.layers, self.shape.vocabulary - 1
        _check_words("near", near, (rows, self.shape.context))
        if self.shape.reach:
            _check_words("far", far, (rows, self.shape.reach))
        self._place.begin(rows)
        words = self._place.array(self, "near", near.shape, np.int32)
        words[...] = near  # the recorded backward pass reads them there
        if far is not None:
            far = np.ascontiguousarray(far) if unknown is None else np.where(far == unk, np.int32(-1), far)
        x = layers.embed(words, far)
        if unknown is not None:
            x.reshape(rows, -1, self.shape.embed)[:, : self.shape.context][near == unk] = unknown
        if training != layers.training:
            layers.train(training)
        precision = self.fp32_precision if training else fp32_precision
        for layer in self._linear:
            if layer.fp32_precision != precision:
                layer.fp32_precision = precision
        return self._place.replay("train" if training else f"eval {fp32_precision}", rows, partial(layers.body, x))

    def losses(self, batch: Batch, *, unknown: Array | None = None, fp32_precision: str = "auto") -> Array:
        """Return the loss of each target (B,) in nats, with the running statistics.

        unknown, fp32_precision  as in forward
        """
        h = self.forward(batch.near, batch.far, training=False, unknown=unknown, fp32_precision=fp32_precision)
        return self.losses_after(h, batch.targets, fp32_precision=fp32_precision)

    def losses_after(self, h: Array, targets: Array, *, fp32_precision: str = "auto") -> Array:
        """Return the loss of each target (B,) in nats, for a result of `forward`, h (B, H)."""
        row_scale = self._mean_over(len(h))
        return self.layers.output.losses(h, targets, row_scale, fp32_precision=fp32_precision).copy()

    def logits(self, near: Array, far: Array | None = None, *, unknown: Array | None = None) -> Array:
        """Return the logits of the next word (B, V), with the running statistics; text is generated from them.

        near, far, unknown  as in forward
        """
        return self.logits_after(self.forward(near, far, training=False, unknown=unknown))

    def logits_after(self, h: Array) -> Array:
        """Return the logits of the next word (B, V), for a result of `forward`, h (B, H)."""
        output = self.layers.output
        logits = np.empty((len(h), self.shape.vocabulary), h.dtype)
        self._place.run("linear_forward", h, output.weight, output.bias, logits)
        return logits

    def product(self, a: Array, b: Array) -> Array:
        """Return a b^T in a new array (N, M), for a (N, H) and b (M, H), by the back-end's op."""
        out = np.empty((len(a), len(b)), a.dtype)
        self._place.run("linear_forward", np.ascontiguousarray(a), np.ascontiguousarray(b), None, out)
        return out


def _check_words(name: str, words: Array | None, shape: tuple[int, ...]) -> None:
    if words is None or words.dtype != np.int32:
        raise TypeError(f"{name}: expected int32, got {None if words is None else words.dtype}")
    check_shape(name, words, shape)


def mean(losses: Array) -> float:
    """Return the mean of a batch's losses from their exact sum, which is the same on every machine."""
    return math.fsum(losses.astype(np.float64).data) / len(losses)  # a memoryview: half the time of a list
