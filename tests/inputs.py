"""Inputs of the ops, one function per stem, for tests and benchmarks: float32, and every parameter non-zero.

Each returns the inputs of forward and backward pass by the names of the reference.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp.ops import reference, stem
from tests.helpers import NUMPY, contract_of, run

Array = np.ndarray
Inputs = dict[str, Array]


@dataclass(frozen=True)
class Shape:
    """The sizes of a step, by the letters of the reference."""

    B: int
    T: int = 4
    D: int = 30
    H: int = 300
    V: int = 27_755


REAL = Shape(B=32)  # the original network


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def embedding(rng: np.random.Generator, B: int, T: int, D: int, V: int) -> Inputs:
    """Return words drawn as in a text: a few very often, most of the vocabulary never."""
    ids = np.minimum(rng.zipf(1.3, (B, T)) - 1, V - 1).astype(np.int32)
    ids[0, 0], ids[-1, -1] = V - 1, 0
    return {"weight": normal(rng, V, D), "ids": ids, "demb": normal(rng, B, T, D)}


def context_averages(rng: np.random.Generator, B: int, K: int, D: int, V: int, *, stretch: int = 10) -> Inputs:
    """Windows of a text, stretches of neighbours, of which the first ones begin before the text does."""
    text = np.minimum(rng.zipf(1.3, 3 * B + K) - 1, V - 1)
    text[0], text[-1], text[: K // 2] = V - 1, 0, -1
    starts = rng.integers(0, 2 * B + 1, -(-B // stretch))
    starts[0] = 0
    rows = (starts[:, None] + np.arange(stretch)).ravel()[:B]
    far = text[np.minimum(rows, 3 * B)[:, None] + np.arange(K)].astype(np.int32)
    return {"weight": normal(rng, V, D), "far": far, "decays": np.array([0.7, 0.95], np.float32)}


def linear(rng: np.random.Generator, B: int, inputs: int, outputs: int) -> Inputs:
    return {
        "x": normal(rng, B, inputs),
        "weight": normal(rng, outputs, inputs, scale=inputs**-0.5),
        "bias": normal(rng, outputs),
        "dy": normal(rng, B, outputs),
    }


def batchnorm(rng: np.random.Generator, B: int, C: int) -> Inputs:
    """Channels that differ in mean and width."""
    return {
        "x": normal(rng, B, C) * rng.uniform(0.5, 2, C).astype(np.float32) + normal(rng, C),
        "weight": normal(rng, C),
        "bias": normal(rng, C),
        "running_mean": normal(rng, C),
        "running_var": rng.uniform(0.5, 2, C).astype(np.float32),
        "dy": normal(rng, B, C),
    }


def tanh(rng: np.random.Generator, *shape: int) -> Inputs:
    return {"x": normal(rng, *shape, scale=2), "dy": normal(rng, *shape)}


def add(rng: np.random.Generator, *shape: int) -> Inputs:
    return {"a": normal(rng, *shape), "b": normal(rng, *shape)}


def gelu(rng: np.random.Generator, *shape: int) -> Inputs:
    return {"x": normal(rng, *shape, scale=2), "dy": normal(rng, *shape)}


def dropout(rng: np.random.Generator, *shape: int) -> Inputs:
    return {"x": normal(rng, *shape), "counter": rng.integers(-(2**63), 2**63, 2), "dy": normal(rng, *shape)}


def batchnorm_gelu_dropout(rng: np.random.Generator, B: int, C: int) -> Inputs:
    return {**batchnorm(rng, B, C), "counter": dropout(rng)["counter"]}


def softmax(rng: np.random.Generator, B: int, V: int) -> Inputs:
    return {"x": normal(rng, B, V, scale=2), "dy": normal(rng, B, V)}


def cross_entropy(rng: np.random.Generator, B: int, V: int) -> Inputs:
    return {"logits": normal(rng, B, V), **_truth(rng, B, V)}


def linear_cross_entropy(rng: np.random.Generator, B: int, H: int, V: int) -> Inputs:
    """Return inputs as at the start of training: hidden units of order one, logits well below it."""
    return {
        "h": np.tanh(normal(rng, B, H)),
        "weight": normal(rng, V, H, scale=0.3 * max(H, 1) ** -0.5),
        "bias": normal(rng, V, scale=0.1),
        **_truth(rng, B, V),
    }


NOTHING_HELD: dict[str, None] = {"held": None, "dheld": None}


def last_layer_state(rng: np.random.Generator, given: Inputs) -> Inputs:
    """What an optimizer keeps of the weight in the midst of training: none is zero, the second is a square."""
    shape = given["weight"].shape
    return {f"weight_state{number}": rng.uniform(0.5, 2, shape).astype(np.float32) for number in ("", "2")}


def held(V: int) -> Array:
    """Every third word, those around the edges of blocks and the last one: rows that the fused update leaves alone."""
    edges = [*range(118, 122), *range(126, 131), V - 1]
    return np.array(sorted({*range(0, V, 3), *(word for word in edges if word < V)}), np.int32)


def _truth(rng: np.random.Generator, B: int, V: int) -> Inputs:
    """Return targets, with edge cases of words, and scales of order one; every fifth row is ignored, with no id."""
    targets = rng.integers(0, V, B).astype(np.int32)
    edges = [edge for edge in (0, V - 1, 127, 128) if edge < V][:B]
    targets[: len(edges)] = edges
    row_scale = rng.uniform(0.5, 1.5, B).astype(np.float32)
    targets[4::5], row_scale[4::5] = -100, 0
    return {"targets": targets, "row_scale": row_scale}


def mean_over_batch(given: Inputs) -> Inputs:
    """The same with no row ignored, for the mean of the losses."""
    rows = given["targets"].size
    return given | {"targets": np.maximum(given["targets"], 0), "row_scale": np.full(rows, 1 / rows, np.float32)}


def update(rng: np.random.Generator, *shape: int) -> Inputs:
    """A parameter, its gradient, and the state of every optimizer as it is in the midst of training."""
    return {
        "grad": normal(rng, *shape),
        "param": normal(rng, *shape),
        "velocity": normal(rng, *shape),
        "squares": rng.uniform(0.5, 2, shape).astype(np.float32),
        "mean": normal(rng, *shape),
        "square": rng.uniform(0.5, 2, shape).astype(np.float32),
    }


def update_rows(rng: np.random.Generator, V: int, D: int, U: int) -> Inputs:
    """The same with a sparse gradient of U rows, the first and the last among them where U allows."""
    rows = rng.permutation(V)[:U]
    rows[:2] = [0, V - 1][: min(U, 2)]
    rows = np.unique(rows).astype(np.int32)
    return {**update(rng, V, D), "rows": rows, "drows": normal(rng, rows.size, D)}


# ------------------------------------------------------------------------------------------------ inputs of any op


def example(op: str, *, B: int = 5, T: int = 3, D: int = 4, H: int = 6, V: int = 7) -> Inputs:
    """Inputs that fit an op; those of a backward pass come from its forward pass."""
    rng = np.random.default_rng(0)
    given = {
        "embedding": lambda: embedding(rng, B, T, D, V),
        "context_averages": lambda: context_averages(rng, B, T + 5, D, V),
        "linear": lambda: linear(rng, B, D, H),
        "batchnorm": lambda: batchnorm(rng, B, H),
        "tanh": lambda: tanh(rng, B, H),
        "add": lambda: add(rng, B, H),
        "gelu": lambda: gelu(rng, B, H),
        "dropout": lambda: dropout(rng, B, H),
        "batchnorm_gelu_dropout": lambda: batchnorm_gelu_dropout(rng, B, H),
        "softmax": lambda: softmax(rng, B, V),
        "cross_entropy": lambda: cross_entropy(rng, B, V),
        "linear_cross_entropy": lambda: linear_cross_entropy(rng, B, H, V),
        "update": lambda: update_rows(rng, V, D, B),
    }[stem(op)]()
    if op == "linear_cross_entropy_update":
        given |= last_layer_state(rng, given) | {"held": held(V)}
    if op == "linear_update":
        given |= last_layer_state(rng, given)
    if op.endswith("_backward"):
        forward = op.replace("_backward", "_forward")
        given |= run(NUMPY, forward, given, **options_of(forward))
    return {name: array for name, array in given.items() if name in contract_of(op)}


def options_of(op: str, **options: Any) -> dict[str, Any]:
    """Return the options that an op requires, and those of the given options that it has."""
    known = dict(inspect.signature(getattr(reference, op)).parameters)
    if "rule" in known:
        known |= inspect.signature(reference.update_adamw).parameters
    wanted = {"rule": "adamw", "lr": 0.1, "step": 1, "layer": 1, "p": 0.25, **options}
    return {name: value for name, value in wanted.items() if name in known}
