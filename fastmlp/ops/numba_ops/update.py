"""update in Numba."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.gradient import dense_gradient
from fastmlp.ops.numba_ops._jit import for_each_element, jit, rows_worth_waking

Array = np.ndarray


def update_sgd(grad: Array, param: Array, *, lr: float, weight_decay: float = 0.0, threads: int = 1) -> None:
    """Sliced over the elements."""
    for_each_element(_update_sgd, (grad, param), threads, np.float32(lr), np.float32(weight_decay))


@jit
def _update_sgd(grad: Array, param: Array, lr: Any, weight_decay: Any) -> None:
    for i in range(param.size):
        param[i] -= lr * (grad[i] + weight_decay * param[i])


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
    """Sliced over the elements."""
    numbers = np.float32(lr), np.float32(momentum), np.float32(weight_decay)
    for_each_element(_update_momentum, (grad, velocity, param), threads, *numbers)


@jit
def _update_momentum(grad: Array, velocity: Array, param: Array, lr: Any, momentum: Any, weight_decay: Any) -> None:
    for i in range(param.size):
        p = param[i]
        v = momentum * velocity[i] + (grad[i] + weight_decay * p)
        velocity[i] = v
        param[i] = p - lr * v


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
    """Sliced over the elements."""
    numbers = np.float32(lr), np.float32(eps), np.float32(weight_decay)
    for_each_element(_update_adagrad, (grad, squares, param), threads, *numbers)


@jit
def _update_adagrad(grad: Array, squares: Array, param: Array, lr: Any, eps: Any, weight_decay: Any) -> None:
    for i in range(param.size):
        p = param[i]
        g = grad[i] + weight_decay * p
        square = squares[i] + g * g
        squares[i] = square
        param[i] = p - lr * g / (math.sqrt(square) + eps)


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
    """Sliced over the elements."""
    numbers = _adamw_numbers(lr, step, beta1, beta2, eps, weight_decay)
    for_each_element(_update_adamw, (grad, mean, square, param), threads, *numbers)


def _adamw_numbers(
    lr: float, step: int, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterable[np.float32]:
    """What _update_adamw takes behind its arrays."""
    decay, rate, root = 1 - lr * weight_decay, lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    return map(np.float32, (decay, rate, root, 1 - beta1, beta2, 1 - beta2, eps))


@jit
def _update_adamw(
    grad: Array,
    mean: Array,
    square: Array,
    param: Array,
    decay: Any,
    rate: Any,
    root: Any,
    one_minus_beta1: Any,
    beta2: Any,
    one_minus_beta2: Any,
    eps: Any,
) -> None:
    """Apply AdamW; `rate` is lr, and `root` the square root of `square`, with the averages' bias corrected."""
    for i in range(param.size):
        g = grad[i]
        m = mean[i] + one_minus_beta1 * (g - mean[i])
        s = beta2 * square[i] + one_minus_beta2 * (g * g)
        p = decay * param[i] - rate * m / (math.sqrt(s) * root + eps)
        mean[i] = m
        square[i] = s
        param[i] = p


def _for_each_row(kernel: Callable[..., None], arrays: Sequence[Array], threads: int, *numbers: Any) -> None:
    """Run `kernel(rows, drows, *others, *numbers)` on slices of the rows of a gradient.

    arrays  rows (U,), drows (U, D), and whole what is updated at those rows (V, D)
    """
    rows, drows, *others = arrays
    slices = team.cut(len(rows), rows_worth_waking(drows))
    team.run_slices(lambda first, last: kernel(rows[first:last], drows[first:last], *others, *numbers), slices, threads)


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
    """Sliced over the rows of the gradient; with weight decay, where every row moves, the dense form."""
    if weight_decay and not only_rows:
        update_sgd(dense_gradient(rows, drows, param), param, lr=lr, weight_decay=weight_decay, threads=threads)
        return
    _for_each_row(_update_sgd_rows, (rows, drows, param), threads, np.float32(lr), np.float32(weight_decay))


@jit
def _update_sgd_rows(rows: Array, drows: Array, param: Array, lr: Any, weight_decay: Any) -> None:
    for u in range(rows.size):
        _update_sgd(drows[u], param[rows[u]], lr, weight_decay)


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
    """The dense form where every row moves; else sliced over the rows of the gradient."""
    if not only_rows:
        grad = dense_gradient(rows, drows, param)
        update_momentum(grad, velocity, param, lr=lr, momentum=momentum, weight_decay=weight_decay, threads=threads)
        return
    numbers = np.float32(lr), np.float32(momentum), np.float32(weight_decay)
    _for_each_row(_update_momentum_rows, (rows, drows, velocity, param), threads, *numbers)


@jit
def _update_momentum_rows(
    rows: Array, drows: Array, velocity: Array, param: Array, lr: Any, momentum: Any, weight_decay: Any
) -> None:
    for u in range(rows.size):
        _update_momentum(drows[u], velocity[rows[u]], param[rows[u]], lr, momentum, weight_decay)


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
    """Sliced over the rows of the gradient; with weight decay, where every row moves, the dense form."""
    if weight_decay and not only_rows:
        grad = dense_gradient(rows, drows, param)
        update_adagrad(grad, squares, param, lr=lr, eps=eps, weight_decay=weight_decay, threads=threads)
        return
    numbers = np.float32(lr), np.float32(eps), np.float32(weight_decay)
    _for_each_row(_update_adagrad_rows, (rows, drows, squares, param), threads, *numbers)


@jit
def _update_adagrad_rows(
    rows: Array, drows: Array, squares: Array, param: Array, lr: Any, eps: Any, weight_decay: Any
) -> None:
    for u in range(rows.size):
        _update_adagrad(drows[u], squares[rows[u]], param[rows[u]], lr, eps, weight_decay)


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
    """The dense form where every row moves; else sliced over the rows of the gradient."""
    options: dict[str, Any] = {
        "lr": lr,
        "step": step,
        "beta1": beta1,
        "beta2": beta2,
        "eps": eps,
        "weight_decay": weight_decay,
    }
    if not only_rows:
        update_adamw(dense_gradient(rows, drows, param), mean, square, param, **options, threads=threads)
        return
    _for_each_row(_update_adamw_rows, (rows, drows, mean, square, param), threads, *_adamw_numbers(**options))


@jit
def _update_adamw_rows(
    rows: Array,
    drows: Array,
    mean: Array,
    square: Array,
    param: Array,
    decay: Any,
    rate: Any,
    root: Any,
    one_minus_beta1: Any,
    beta2: Any,
    one_minus_beta2: Any,
    eps: Any,
) -> None:
    numbers = decay, rate, root, one_minus_beta1, beta2, one_minus_beta2, eps
    for u in range(rows.size):
        _update_adamw(drows[u], mean[rows[u]], square[rows[u]], param[rows[u]], *numbers)
