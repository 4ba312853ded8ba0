"""The linear cross entropy of every shape that PyTorch takes, by the fused op where that computes it.

It computes neither probabilities as targets nor several losses a row: these store the logits, as PyTorch does.
"""

from typing import Any

import numpy as np

from fastmlp.functional import _loss
from fastmlp.functional._shapes import as_rows
from fastmlp.functional.cross_entropy import cross_entropy, cross_entropy_backward
from fastmlp.functional.linear import linear, linear_backward
from fastmlp.ops.backend import ops_of

__all__ = ["is_fused", "linear_cross_entropy"]

Array = np.ndarray
Gradients = _loss.Gradients


def is_fused(linear_weight: Array, target: Array) -> bool:
    """Return whether the fused op computes this loss."""
    return linear_weight.ndim == 2 and target.dtype.kind != "f"


def linear_cross_entropy(
    input: Array,
    linear_weight: Array,
    target: Array,
    linear_bias: Array | None = None,
    class_weight: Array | None = None,
    *,
    upstream: Any = None,
    grads: bool | tuple[bool, bool, bool],
    threads: int,
    fp32_precision: str = "auto",
    **options: Any,
) -> tuple[Array | None, Gradients | None]:
    """Return the loss and, if asked for, its gradients, each in the shape of its input.

    input          (N, H) or (H,)
    linear_weight  (V, d1, ..., H)
    target         (N, d1, ...) classes, or probabilities (N, V, d1, ...); without N where the input has none
    linear_bias    (V, d1, ...) or None
    options        reduction, ignore_index, label_smoothing
    The rest is as in fastmlp.functional._loss.linear_cross_entropy.
    """
    inputs = input, linear_weight, linear_bias
    settings: dict[str, Any] = {"threads": threads, "fp32_precision": fp32_precision}
    if is_fused(linear_weight, target):
        shape = target.shape if options["reduction"] == "none" else ()
        arrays = as_rows(input), linear_weight, target.ravel(), linear_bias, class_weight
        settings.update(options, grads=grads, upstream=upstream, ops=ops_of(input.dtype))
        loss, gradients = _loss.linear_cross_entropy(*arrays, **settings)
        return None if loss is None else loss.reshape(shape), _shaped_as(inputs, gradients)
    matrix, bias = as_rows(linear_weight), None if linear_bias is None else linear_bias.ravel()
    logits = linear(input, matrix, bias, **settings).reshape(*input.shape[:-1], *linear_weight.shape[:-1])
    arguments = logits, target, class_weight
    loss = None if upstream is not None else cross_entropy(*arguments, threads=threads, **options)
    wanted = grads if isinstance(grads, tuple) else (grads,) * 3
    if not any(wanted):
        return loss, None
    grad = np.ones_like(loss) if loss is not None else np.asarray(upstream, logits.dtype)
    dlogits = cross_entropy_backward(grad, *arguments, threads=threads, **options)
    found = linear_backward(dlogits.reshape(*input.shape[:-1], len(matrix)), input, matrix, bias, **settings)
    return loss, _shaped_as(inputs, tuple(array if want else None for want, array in zip(wanted, found, strict=True)))


def _shaped_as(inputs: tuple[Array | None, ...], gradients: tuple[Array | None, ...] | None) -> Gradients | None:
    if gradients is None:
        return None
    dinput, dweight, dbias = (
        None if given is None or gradient is None else gradient.reshape(given.shape)
        for given, gradient in zip(inputs, gradients, strict=True)
    )
    return dinput, dweight, dbias
