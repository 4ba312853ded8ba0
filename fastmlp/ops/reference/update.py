"""update: the optimizers' rules, PyTorch's, on dense gradients and on gradients of a few rows."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastmlp.ops.contract import contract, floats, ids, inout
from fastmlp.ops.gradient import dense_gradient

Array = np.ndarray


#
# PyTorch's rules. `lr` is the learning rate; arrays of one call have one shape, whatever it is. The forms for rows do
# the same as the dense form on a gradient that is 0 outside `rows`; where that leaves the other rows as they are (SGD
# and Adagrad without weight decay) they are not touched. With `only_rows` they never are, nor what the rule remembers
# of them: the rows go through the dense form as if they were all, for a caller who has updated the others.

_ROWS = {"rows": ids("U", below="V", ascending=True), "drows": floats("U", "D")}


def _update_only(update: Callable[..., None], rows: Array, drows: Array, *changed: Array, **options: Any) -> None:
    """The dense form on some rows of the parameter and of what the rule remembers of it; changed  (V, D)  in/out."""
    parts = [array[rows] for array in changed]
    update(drows, *parts, **options)
    for array, part in zip(changed, parts, strict=True):
        array[rows] = part


@contract(grad=floats("..."), param=inout("..."))
def update_sgd(grad: Array, param: Array, *, lr: float, weight_decay: float = 0.0, threads: int = 1) -> None:
    """param -= lr * (grad + weight_decay * param).

    grad   in
    param  in/out
    """
    if weight_decay:
        grad = grad + weight_decay * param
    param -= lr * grad


@contract(grad=floats("..."), velocity=inout("..."), param=inout("..."))
def update_momentum(
    grad: Array,
    velocity: Array,
    param: Array,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """velocity = momentum * velocity + grad + weight_decay * param; param -= lr * velocity.

    grad      in
    velocity  in/out: zeros before the first step
    param     in/out
    """
    if weight_decay:
        grad = grad + weight_decay * param
    velocity *= momentum
    velocity += grad
    param -= lr * velocity


@contract(grad=floats("..."), squares=inout("..."), param=inout("..."))
def update_adagrad(
    grad: Array,
    squares: Array,
    param: Array,
    *,
    lr: float,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """With g = grad + weight_decay * param: squares += g^2; param -= lr * g / (sqrt(squares) + eps).

    grad     in
    squares  in/out: zeros before the first step
    param    in/out
    Source: Duchi, Hazan and Singer (2011).
    """
    if weight_decay:
        grad = grad + weight_decay * param
    squares += grad * grad
    param -= lr * grad / (np.sqrt(squares) + eps)


@contract(grad=floats("..."), mean=inout("..."), square=inout("..."), param=inout("..."))
def update_adamw(
    grad: Array,
    mean: Array,
    square: Array,
    param: Array,
    *,
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    threads: int = 1,
) -> None:
    """Adam with decoupled weight decay.

    param *= 1 - lr * weight_decay
    mean = beta1 * mean + (1 - beta1) * grad;  square = beta2 * square + (1 - beta2) * grad^2
    param -= lr * (mean / (1 - beta1^step)) / (sqrt(square / (1 - beta2^step)) + eps)

    grad    in
    mean    in/out: running mean of the gradient; zeros before the first step
    square  in/out: running mean of its square; zeros before the first step
    param   in/out
    step    1 for the first update
    Source: Loshchilov and Hutter (2019), algorithm 2.
    """
    param *= 1 - lr * weight_decay
    mean += (1 - beta1) * (grad - mean)
    square *= beta2
    square += (1 - beta2) * (grad * grad)
    param -= (lr / (1 - beta1**step)) * mean / (np.sqrt(square) / np.sqrt(1 - beta2**step) + eps)


@contract(**_ROWS, param=inout("V", "D"))
def update_sgd_rows(
    rows: Array,
    drows: Array,
    param: Array,
    *,
    lr: float,
    weight_decay: float = 0.0,
    only_rows: bool = False,
    threads: int = 1,
) -> None:
    """update_sgd for a sparse gradient.

    rows       (U,)    in: unique ids, ascending
    drows      (U, D)  in: the gradient's rows at those ids
    param      (V, D)  in/out
    only_rows  leave all other rows as they are
    """
    if only_rows or not weight_decay:
        _update_only(update_sgd, rows, drows, param, lr=lr, weight_decay=weight_decay)
    else:
        update_sgd(dense_gradient(rows, drows, param), param, lr=lr, weight_decay=weight_decay)


@contract(**_ROWS, velocity=inout("V", "D"), param=inout("V", "D"))
def update_momentum_rows(
    rows: Array,
    drows: Array,
    velocity: Array,
    param: Array,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    only_rows: bool = False,
    threads: int = 1,
) -> None:
    """update_momentum for a sparse gradient; every row moves, as its velocity does, unless `only_rows`.

    rows, drows, only_rows   as in update_sgd_rows
    velocity, param  (V, D)  in/out
    """
    options: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    if only_rows:
        _update_only(update_momentum, rows, drows, velocity, param, **options)
    else:
        update_momentum(dense_gradient(rows, drows, param), velocity, param, **options)


@contract(**_ROWS, squares=inout("V", "D"), param=inout("V", "D"))
def update_adagrad_rows(
    rows: Array,
    drows: Array,
    squares: Array,
    param: Array,
    *,
    lr: float,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    only_rows: bool = False,
    threads: int = 1,
) -> None:
    """update_adagrad for a sparse gradient.

    rows, drows, only_rows  as in update_sgd_rows
    squares, param  (V, D)  in/out
    """
    options: dict[str, Any] = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
    if only_rows or not weight_decay:
        _update_only(update_adagrad, rows, drows, squares, param, **options)
    else:
        update_adagrad(dense_gradient(rows, drows, param), squares, param, **options)


@contract(**_ROWS, mean=inout("V", "D"), square=inout("V", "D"), param=inout("V", "D"))
def update_adamw_rows(
    rows: Array,
    drows: Array,
    mean: Array,
    square: Array,
    param: Array,
    *,
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    only_rows: bool = False,
    threads: int = 1,
) -> None:
    """update_adamw for a sparse gradient; every row moves, as its running mean does, unless `only_rows`.

    rows, drows, only_rows      as in update_sgd_rows
    mean, square, param  (V, D)  in/out
    """
    options: dict[str, Any] = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    if only_rows:
        _update_only(update_adamw, rows, drows, mean, square, param, step=step, **options)
    else:
        update_adamw(dense_gradient(rows, drows, param), mean, square, param, step=step, **options)
