"""A page with a model inside: one HTML file that writes and measures texts without a server.

Weights are stored in a byte each, in units of a scale for each row; batch normalization is folded into the layers
before it. The page's counterpart is page/network.js.
"""

import base64
import html
import json
from typing import Any

import numpy as np

from fastmlp.errors import ModelError
from fastmlp.nn.batchnorm import BatchNorm1d
from fastmlp.nn.containers import Residual
from fastmlp.nn.linear import Linear
from fastmlp.nn.module import Module
from fastmlp.prediction.neural import NeuralModel
from fastmlp.web.bundle import bundle, page_file

__all__ = ["page_with_model"]

Array = np.ndarray
TOKENIZERS = ("words", "whitespace")  # those of page/tokenizers.js
MOST = 127  # of a weight's units
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; style-src 'unsafe-inline'; img-src data:"
)
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
<body>
<script type="application/json" id="model">{model}</script>
<script type="text/plain" id="weights">{weights}</script>
<script type="text/plain" id="worker">{worker}</script>
<script type="module">
{script}</script>
</body>
</html>
"""


class Packed:
    """Arrays in one row of bytes, each described by where it begins and its sizes."""

    def __init__(self) -> None:
        self.bytes = bytearray()

    def vector(self, values: Array) -> dict[str, int]:
        """Add an array (N,) in float32."""
        described = {"at": len(self.bytes), "rows": len(values)}
        self.bytes += values.astype("<f4").tobytes()
        return described

    def matrix(self, values: Array) -> dict[str, int]:
        """Add an array (N, M): a scale for each row in float32, and its numbers in units of that, a byte each."""
        scales = np.maximum(np.abs(values).max(axis=1, keepdims=True) / MOST, 1e-30)
        described = {**self.vector(scales[:, 0]), "columns": values.shape[1]}
        self.bytes += np.rint(values / scales).astype(np.int8).tobytes()
        self.bytes += bytes(-len(self.bytes) % 4)  # a float32 array begins at a multiple of 4
        return described


def page_with_model(model: NeuralModel, title: str) -> str:
    """Return the page. Raise ModelError for a model whose tokenizer the page does not have."""
    if model.tokenizer.name not in TOKENIZERS:
        raise ModelError(
            f"a page reads texts by the tokenizers {' and '.join(TOKENIZERS)}, and this model by"
            f" {model.tokenizer.name}: write with it in python -m fastmlp.play"
        )
    packed = Packed()
    described = {**describe(model, packed), "words": model.vocabulary.words, "tokenizer": model.tokenizer.name}
    return PAGE.format(
        policy=POLICY,
        title=html.escape(title),
        style=page_file("page.css"),
        model=json.dumps(described).replace("<", "\\u003c"),
        weights=base64.b64encode(packed.bytes).decode(),
        worker=bundle("worker"),
        script=bundle("exported"),
    )


def describe(model: NeuralModel, packed: Packed) -> dict[str, Any]:
    """Pack the arrays of a network, and return where they are and what they are for."""
    layers, shape = model.network.layers, model.network.shape
    assert layers.output.bias is not None
    described: list[dict[str, Any]] = []
    for hidden in layers.hidden:
        parts = dict(hidden.named_children())
        weight, bias = folded(parts["linear"], parts["batchnorm"])
        residual = isinstance(hidden, Residual)
        described.append(layer(packed, weight, bias, activated=True, residual=residual))
    if shape.projection:
        projection = layers.projection
        assert projection.bias is not None
        described.append(layer(packed, projection.weight, projection.bias, activated=False, residual=False))
    unknown = model.unknown_embedding()
    return {
        "shape": {
            "context": shape.context,
            "reach": shape.reach,
            "averages": list(shape.averages),
            "activation": shape.activation,
        },
        "embedding": packed.matrix(layers.embedding.weight),
        "unknown": None if unknown is None else packed.vector(unknown),
        "layers": described,
        "tied": shape.tied,
        "head": None if shape.tied else packed.matrix(layers.output.weight),
        "bias": packed.vector(layers.output.bias),
    }


def layer(packed: Packed, weight: Array, bias: Array, **what: bool) -> dict[str, Any]:
    """Pack a layer of the network."""
    return {"weight": packed.matrix(weight), "bias": packed.vector(bias), **what}


def folded(linear: Module, batchnorm: Module) -> tuple[Array, Array]:
    """Return weight and bias of one linear layer that does what a linear layer and its batch normalization do."""
    assert isinstance(linear, Linear)
    assert isinstance(batchnorm, BatchNorm1d)
    mean, var = batchnorm.running_mean, batchnorm.running_var
    assert mean is not None
    assert var is not None
    assert batchnorm.weight is not None
    assert batchnorm.bias is not None
    factor = batchnorm.weight / np.sqrt(var + batchnorm.eps)
    return linear.weight * factor[:, None], batchnorm.bias - mean * factor
