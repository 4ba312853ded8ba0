"""A page with a model inside: one HTML file that writes and measures texts without a server.

Weights are stored in a byte each, in units of a scale for each row; batch normalization is folded into the layers
before it. Counts are pruned to what fits, their probabilities rounded logarithms. The page's counterparts are
page/network.js and page/counts.js.
"""

import base64
import html
import json
from dataclasses import replace
from typing import Any

import numpy as np

from fastmlp.errors import ModelError
from fastmlp.prediction.folded import folded_layers
from fastmlp.prediction.mixture import COUNTED, WRITERS, Mixture
from fastmlp.prediction.neural import NeuralModel
from fastmlp.prediction.ngram import BackoffModel
from fastmlp.prediction.pruning import pruned
from fastmlp.web.bundle import bundle, page_file
from fastmlp.web.characters import tables

__all__ = ["page_with_model"]

Array = np.ndarray
MOST = 127  # of a weight's units
LOWEST, LOG_STEP = -40.0, 1 / 1024  # of rounded logarithms: from 4e-18 to 3e10, to 0.05 %
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
        self._append(values.astype("<f4"))
        return described

    def matrix(self, values: Array) -> dict[str, int]:
        """Add an array (N, M): a scale for each row in float32, and its numbers in units of that, a byte each."""
        scales = np.maximum(np.abs(values).max(axis=1, keepdims=True) / MOST, 1e-30)
        described = {**self.vector(scales[:, 0]), "columns": values.shape[1]}
        self._append(np.rint(values / scales).astype(np.int8))
        return described

    def logs(self, values: Array) -> dict[str, int | float]:
        """Add an array (N,) of numbers above 0, as `rounded`: two bytes each."""
        described = {"at": len(self.bytes), "size": len(values), "lowest": LOWEST, "step": LOG_STEP}
        self._append(_codes(values).astype("<u2"))
        return described

    def varints(self, values: Array) -> dict[str, int]:
        """Add an array (N,) of numbers from 0 to 2^28 - 1, seven bits a byte."""
        sizes = 1 + np.searchsorted([1 << 7, 1 << 14, 1 << 21], values, side="right")
        ends = np.cumsum(sizes)
        written = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
        for byte in range(4):
            here = sizes > byte
            last = sizes[here] == byte + 1
            written[(ends - sizes)[here] + byte] = (values[here] >> 7 * byte & 0x7F) | np.where(last, 0, 0x80)
        described = {"at": len(self.bytes), "size": len(written)}
        self._append(written)
        return described

    def octets(self, values: Array) -> dict[str, int]:
        """Add an array (N,) of numbers from 0 to 255."""
        described = {"at": len(self.bytes), "size": len(values)}
        self._append(values.astype(np.uint8))
        return described

    def _append(self, values: Array) -> None:
        self.bytes += values.tobytes()
        self.bytes += bytes(-len(self.bytes) % 4)  # a float32 array begins at a multiple of 4


def _codes(values: Array) -> Array:
    logs = np.log(np.maximum(values.astype(np.float64), 1e-300))
    return np.clip(np.rint((logs - LOWEST) / LOG_STEP), 0, 0xFFFF)


def rounded(values: Array) -> Array:
    """Return numbers above 0 as a page has them, float32: their logarithms are rounded."""
    return np.asarray(np.exp(LOWEST + LOG_STEP * _codes(values)), np.float32)


def page_with_model(model: Mixture, title: str, size: int | None = None) -> str:
    """Return the page: of the network alone, or with as many of the counts as fit into a size.

    size  bytes of the page, in UTF-8; None: no counts
    Raise ModelError for a model without counts, and where the page is larger without them.
    """
    if size is None:
        return _page(model.neural(), title)
    if model.counts is None:
        raise ModelError("--size says how many of the counts to take, and this run has no counts")
    counts, weights = model.counts.backoff_model(), model.weights[WRITERS]

    def page_with(keep: int) -> str:
        return _page(model.neural(), title, rounded_counts(counts, keep), weights)

    low, high = 0, sum(len(level.key) for level in counts.levels[1:])
    found, whole = page_with(low), page_with(high)
    if (least := len(found.encode())) > size:
        raise ModelError(f"with the counts of single words alone the page has {least / 1e6:.1f} MB; ask for more")
    if len(whole.encode()) <= size:
        return whole
    while low + max(1, high // 200) < high:  # half a percent more or less is not worth the time
        middle = (low + high) // 2
        page = page_with(middle)
        if len(page.encode()) <= size:
            low, found = middle, page
        else:
            high = middle
    return found


def _page(model: NeuralModel, title: str, counts: BackoffModel | None = None, weights: Array | None = None) -> str:
    packed = Packed()
    tokenizer = {
        "name": model.tokenizer.name,
        "rules": model.tokenizer.rules,
        "capitalized": sorted(model.tokenizer.capitalized),
        "characters": tables(),
    }
    described = {**describe(model, packed), "words": model.vocabulary.words, "tokenizer": tokenizer}
    if counts is not None and weights is not None:
        described |= {"counts": describe_counts(counts, packed), "weights": weights.tolist()}
    return PAGE.format(
        policy=POLICY,
        title=html.escape(title),
        style=page_file("page.css"),
        model=json.dumps(described).replace("<", "\\u003c"),
        weights=base64.b64encode(packed.bytes).decode(),
        worker=bundle("worker"),
        script=bundle("exported"),
    )


def rounded_counts(model: BackoffModel, keep: int) -> BackoffModel:
    """Return the `keep` n-grams that matter most, with the probabilities that a page has; they sum to one."""
    levels = (replace(level, probability=rounded(level.probability)) for level in model.levels)
    return pruned(BackoffModel(model.size, tuple(levels)), keep)


def describe_counts(model: BackoffModel, packed: Packed) -> dict[str, Any]:
    """Pack counted n-grams as a tree, and return where its parts are.

    Of each length: the words of the n-grams, sorted by the number of their context; how many each context has; their
    probabilities; their back-off weights. Of the longest contexts, which of the weights of a mixture hold.
    """
    described, parents = [], 1
    for n, level in enumerate(model.levels, 1):
        context, word = np.divmod(level.key, model.size)
        described.append(
            {
                "rows": len(level.key),
                "words": packed.varints(word) if n > 1 else None,
                "children": packed.varints(np.bincount(context, minlength=parents)) if n > 1 else None,
                "probability": packed.logs(level.probability),
                "backoff": None if level.backoff is None else packed.logs(level.backoff),
            }
        )
        parents = len(level.key)
    longest = model.order - 1
    counts = model.counts(longest) if longest else model.counts(1).sum(keepdims=True)  # without words: all there are
    return {"levels": described, "bins": packed.octets(np.searchsorted(COUNTED, counts, side="right"))}


def describe(model: NeuralModel, packed: Packed) -> dict[str, Any]:
    """Pack the arrays of a network, and return where they are and what they are for."""
    layers, shape = model.network.layers, model.network.shape
    assert layers.output.bias is not None
    described = [
        {
            "weight": packed.matrix(layer.weight),
            "bias": packed.vector(layer.bias),
            "activated": layer.activated,
            "residual": layer.residual,
        }
        for layer in folded_layers(model.network)
    ]
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
