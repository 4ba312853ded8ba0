"""The network: embedding -> [linear -> batchnorm -> tanh] x L -> linear -> softmax, forward and backward.

Parameters and running statistics have the names and layouts of a PyTorch state_dict. Letters are those of
ops/reference; names are the lectures': emb, embcat, hprebn, hpreact, h; a gradient is `d` + the name.
Source: Bengio, Ducharme, Vincent and Jauvin (2003), with batch normalization, without the direct connections.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from fastmlp.network.shape import NetworkShape
from fastmlp.ops import Ops
from fastmlp.ops.gradient import Gradient, RowGradient

__all__ = ["MLP"]

Array = np.ndarray
Call = Callable[[], object]
OUTPUT_STD = 0.01  # of the output weights at the start: logits near 0, so the first loss is ln V
BATCHED = ("hprebn", "hpreact", "h", "dh", "dhpreact", "dhprebn")  # of HiddenActivations: a row each
OUTPUT = ("output.weight", "output.bias")


@dataclass
class HiddenActivations:
    """What a hidden layer computes for a batch, and the gradients of it.

    Of values in one buffer each takes the place of the one before: a fresh buffer would have to come from memory.
    """

    hprebn: Array  # (B, H) before the batchnorm
    hpreact: Array  # (B, H) before the tanh
    h: Array  # (B, H) in the buffer of hpreact
    dh: Array
    dhpreact: Array  # in the buffer of dh
    dhprebn: Array  # likewise
    mean: Array  # (H,) of the batch, kept for the backward pass
    inv_std: Array  # (H,) likewise

    @classmethod
    def empty(cls, rows: int, width: int, dtype: Any) -> "HiddenActivations":
        """Buffers for a batch of so many rows."""
        hprebn, h, dh = (np.empty((rows, width), dtype) for _ in range(3))
        return cls(hprebn, h, h, dh, dh, dh, mean=np.empty(width, dtype), inv_std=np.empty(width, dtype))

    def leading(self, rows: int) -> "HiddenActivations":
        """The same buffers for a smaller batch."""
        return replace(self, **{name: getattr(self, name)[:rows] for name in BATCHED})


@dataclass
class Activations:
    """Everything that is computed for a batch of B rows: made once, a smaller batch uses the leading rows."""

    emb: Array  # (B, T, D)
    demb: Array
    hidden: list[HiddenActivations]
    highest: Array  # (B,) logit
    log_sum: Array  # (B,) log sum exp(logits - highest)
    losses: Array  # (B,) in nats
    unique: Array  # (B*T,) the ids that the batch looks up
    drows: Array  # (B*T, D) the rows of the embedding's gradient
    embcat: Array = field(init=False)  # (B, T*D): emb, the words of a row side by side
    dembcat: Array = field(init=False)
    row_scale: Array = field(init=False)  # (B,) 1/B: the loss is a mean

    def __post_init__(self) -> None:
        rows, context, embed = self.emb.shape
        self.embcat = self.emb.reshape(rows, context * embed)
        self.dembcat = self.demb.reshape(rows, context * embed)
        self.row_scale = np.full(rows, 1 / rows, self.emb.dtype)

    @classmethod
    def empty(cls, rows: int, shape: NetworkShape, dtype: Any) -> "Activations":
        """Buffers for a batch of so many rows."""
        words = rows * shape.context
        return cls(
            emb=np.empty((rows, shape.context, shape.embed), dtype),
            demb=np.empty((rows, shape.context, shape.embed), dtype),
            hidden=[HiddenActivations.empty(rows, width, dtype) for width in shape.hidden],
            highest=np.empty(rows, dtype),
            log_sum=np.empty(rows, dtype),
            losses=np.empty(rows, dtype),
            unique=np.empty(words, np.int32),
            drows=np.empty((words, shape.embed), dtype),
        )

    def leading(self, rows: int) -> "Activations":
        """The same buffers for a smaller batch."""
        words = rows * self.emb.shape[1]
        return Activations(
            self.emb[:rows],
            self.demb[:rows],
            [layer.leading(rows) for layer in self.hidden],
            self.highest[:rows],
            self.log_sum[:rows],
            self.losses[:rows],
            self.unique[:words],
            self.drows[:words],
        )

    def mean_loss(self) -> float:
        """The mean of `losses`: of their exact sum, on every machine the same."""
        return math.fsum(self.losses.tolist()) / len(self.losses)


class MLP:
    """The network with its parameters, its running statistics and the gradients of the last batch.

    parameters   trained arrays by state_dict name, the same ones for good; an optimizer changes them in place
    statistics   the batchnorms' running estimates, by state_dict name, likewise
    gradients    what loss_and_gradients found, by parameter name; the embedding's is a RowGradient
    activations  what the last batch computed on the way
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
        dtype       float32; the NumPy back-end takes any float type
        """
        if (seed is None) == (parameters is None):
            raise ValueError("expected either a seed or parameters")
        self.shape, self.ops, self.threads, self.dtype = shape, ops, threads, dtype
        self.fp32_precision = fp32_precision
        self.parameters = MappingProxyType({name: np.zeros(size, dtype) for name, size in shape.parameters().items()})
        self.statistics = MappingProxyType(
            {
                name: np.zeros(size, np.int64 if name.endswith("num_batches_tracked") else dtype)
                for name, size in shape.statistics().items()
            }
        )
        self.gradients: dict[str, Gradient] = {}
        self._dense_gradients: dict[str, Array] = {}  # made when training first asks for them
        self._activations = Activations.empty(1, shape, dtype)
        self.activations = self._activations
        self._calls: dict[str, list[Call]] = {}  # of the hidden layers' ops, bound to the arrays of a batch so large
        self._hidden_gradients: dict[str, Gradient] = {}
        self._batches_tracked = [
            count.data for name, count in self.statistics.items() if name.endswith("num_batches_tracked")
        ]
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
            elif name.endswith("batchnorm.weight"):
                param[...] = 1
        for name, statistic in self.statistics.items():
            if name.endswith("running_var"):
                statistic[...] = 1

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

    def forward(self, ids: Array, *, training: bool, unknown: Array | None = None) -> Array:
        """The last hidden layer's output.

        ids       (B, T)  in: the words of the context
        unknown   (D,)    in: what is read for the last word, `<unk>`; None: its own embedding
        training  with the batch's statistics, which the running ones follow; else with the running ones, row by row
        Returns h (B, H), valid until the next call.
        """
        a = self._use_activations(len(ids))
        self.ops.embedding_forward(self.parameters["embedding.weight"], ids, a.emb, threads=self.threads)  # (B, T, D)
        if unknown is not None:
            a.emb[ids == self.shape.vocabulary - 1] = unknown
        for call in self._bound("training" if training else "evaluation", partial(self._hidden_forward, training)):
            call()
        if training:
            for count in self._batches_tracked:
                count[()] += 1
        return a.hidden[-1].h

    def _hidden_forward(self, training: bool) -> Iterator[Call]:
        """The calls of the hidden layers' ops, from the embedded words up."""
        ops, p, s, a, threads = self.ops, self.parameters, self.statistics, self.activations, self.threads
        x = a.embcat  # (B, T*D)
        for i, layer in enumerate(a.hidden):
            linear, batchnorm = f"hidden.{i}.linear", f"hidden.{i}.batchnorm"
            yield partial(ops.linear_forward, x, p[f"{linear}.weight"], None, layer.hprebn, threads=threads)  # (B, H)
            yield partial(
                ops.batchnorm_forward,
                layer.hprebn,
                p[f"{batchnorm}.weight"],
                p[f"{batchnorm}.bias"],
                s[f"{batchnorm}.running_mean"],
                s[f"{batchnorm}.running_var"],
                layer.mean,
                layer.inv_std,
                layer.hpreact,  # (B, H)
                training=training,
                threads=threads,
            )
            yield partial(ops.tanh_forward, layer.hpreact, layer.h, threads=threads)  # (B, H)
            x = layer.h

    def loss_and_gradients(self, ids: Array, targets: Array) -> float:
        """One training batch: the mean loss in nats, and `gradients`. No parameter is changed.

        ids      (B, T)  in: the words of the context, B at least 2
        targets  (B,)    in: the true next words
        """
        h = self.forward(ids, training=True)
        a, p = self.activations, self.parameters
        output = {name: self._gradient(name) for name in OUTPUT}
        self.ops.linear_cross_entropy(
            h,
            *(p[name] for name in OUTPUT),
            targets,
            a.row_scale,
            a.highest,
            a.log_sum,
            a.losses,
            a.hidden[-1].dh,
            *output.values(),
            fp32_precision=self.fp32_precision,
            threads=self.threads,
        )
        self.gradients = {**self._backward(ids), **output}
        return a.mean_loss()

    def loss_and_output_update(self, ids: Array, targets: Array, state: Sequence[Array | None], **rule: Any) -> float:
        """One training batch whose output layer is updated on the way: 98 % of all gradients are never stored.

        ids, targets  in: as in loss_and_gradients
        state         in/out: of output.weight and output.bias, as linear_cross_entropy_update has it
        rule          and its options, likewise
        Returns the mean loss before the update; `gradients` are those of the other parameters. Where the loss is
        infinite or no number no parameter is changed and there are no gradients.
        """
        h = self.forward(ids, training=True)
        a, p = self.activations, self.parameters
        updated = self.ops.linear_cross_entropy_update(
            h,
            *(p[name] for name in OUTPUT),
            targets,
            a.row_scale,
            *state,
            a.highest,
            a.log_sum,
            a.losses,
            a.hidden[-1].dh,
            fp32_precision=self.fp32_precision,
            threads=self.threads,
            **rule,
        )
        self.gradients = self._backward(ids) if updated else {}
        return a.mean_loss()

    def _backward(self, ids: Array) -> dict[str, Gradient]:
        """`forward` read upwards: from the dh of the last hidden layer to the embedding."""
        a = self.activations
        for call in self._bound("backward", self._hidden_backward):
            call()
        count = self.ops.embedding_backward(ids, a.demb, a.unique, a.drows, threads=self.threads)
        return {"embedding.weight": RowGradient(a.unique[:count], a.drows[:count]), **self._hidden_gradients}

    def _hidden_backward(self) -> Iterator[Call]:
        """`_hidden_forward` read upwards."""
        ops, p, a, threads = self.ops, self.parameters, self.activations, self.threads
        grad = {name: self._gradient(name) for name in p if name.startswith("hidden.")}
        self._hidden_gradients = {**grad}
        for i in reversed(range(len(a.hidden))):
            layer, linear, batchnorm = a.hidden[i], f"hidden.{i}.linear", f"hidden.{i}.batchnorm"
            x, dx = (a.hidden[i - 1].h, a.hidden[i - 1].dh) if i else (a.embcat, a.dembcat)
            yield partial(ops.tanh_backward, layer.dh, layer.h, layer.dhpreact, threads=threads)
            yield partial(
                ops.batchnorm_backward,
                layer.dhpreact,
                layer.hprebn,
                p[f"{batchnorm}.weight"],
                layer.mean,
                layer.inv_std,
                layer.dhprebn,
                grad[f"{batchnorm}.weight"],
                grad[f"{batchnorm}.bias"],
                threads=threads,
            )
            yield partial(
                ops.linear_backward,
                layer.dhprebn,
                x,
                p[f"{linear}.weight"],
                dx,
                grad[f"{linear}.weight"],
                None,
                threads=threads,
            )

    def losses(
        self, ids: Array, targets: Array, *, unknown: Array | None = None, fp32_precision: str = "auto"
    ) -> Array:
        """How surprised the model is by each true next word, in nats, (B,), with the running statistics.

        ids      (B, T)  in: the words of the context
        targets  (B,)    in: the true next words
        unknown          as in forward
        fp32_precision   of the last layer's products; "auto": float32's, whatever training's is
        """
        h = self.forward(ids, training=False, unknown=unknown)
        a, p = self.activations, self.parameters
        self.ops.linear_cross_entropy_forward(
            h,
            *(p[name] for name in OUTPUT),
            targets,
            a.row_scale,
            a.highest,
            a.log_sum,
            a.losses,
            fp32_precision=fp32_precision,
            threads=self.threads,
        )
        return a.losses.copy()

    def logits(self, ids: Array, *, unknown: Array | None = None) -> Array:
        """The scores of every next word, (B, V), with the running statistics: what text is generated from.

        ids      (B, T)  in: the words of the context
        unknown          as in forward
        """
        h = self.forward(ids, training=False, unknown=unknown)
        logits = np.empty((len(ids), self.shape.vocabulary), self.dtype)
        p = self.parameters
        self.ops.linear_forward(h, p["output.weight"], p["output.bias"], logits, threads=self.threads)
        return logits

    def _use_activations(self, rows: int) -> Activations:
        """The buffers for a batch of so many rows; larger ones are made where it is the largest so far."""
        if rows != len(self.activations.losses):
            if rows > len(self._activations.losses):
                self._activations = Activations.empty(rows, self.shape, self.dtype)
            self.activations = self._activations.leading(rows)
            self._calls.clear()
        return self.activations

    def _bound(self, name: str, bind: Callable[[], Iterable[Call]]) -> list[Call]:
        """The calls of a pass, bound to their arrays when it is first made for a batch of this size.

        The last layer leaves the caches empty: names that are put together and looked up anew would cost a tenth of a
        small step.
        """
        if name not in self._calls:
            self._calls[name] = list(bind())
        return self._calls[name]

    def _gradient(self, name: str) -> Array:
        """The buffer for the gradient of a parameter, made when it is first asked for."""
        if name not in self._dense_gradients:
            self._dense_gradients[name] = np.empty_like(self.parameters[name])
        return self._dense_gradients[name]
