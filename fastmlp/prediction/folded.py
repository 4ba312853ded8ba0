"""A network for prediction as other programs compute it: linear layers, each with batch normalization folded in."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastmlp.network.network import Network
from fastmlp.nn.batchnorm import BatchNorm1d
from fastmlp.nn.containers import Residual
from fastmlp.nn.linear import Linear
from fastmlp.nn.module import Module

__all__ = ["FoldedLayer", "folded_layers"]

Array = np.ndarray


@dataclass(frozen=True)
class FoldedLayer:
    """y = activation(W x + b), + x if residual.

    weight     (H, I)
    bias       (H,)
    activated  whether the network's activation follows
    residual   whether the layer's input is added
    """

    weight: Array
    bias: Array
    activated: bool
    residual: bool


def folded_layers(network: Network) -> Iterator[FoldedLayer]:
    """Yield the layers between the embeddings and the output layer, the first one first."""
    layers = network.layers
    for hidden in layers.hidden:
        parts = dict(hidden.named_children())
        weight, bias = folded(parts["linear"], parts["batchnorm"])
        yield FoldedLayer(weight, bias, activated=True, residual=isinstance(hidden, Residual))
    if network.shape.projection:
        projection = layers.projection
        assert projection.bias is not None
        yield FoldedLayer(projection.weight, projection.bias, activated=False, residual=False)


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
