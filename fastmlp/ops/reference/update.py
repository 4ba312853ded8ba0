"""update: the optimizers' rules, PyTorch's, on dense gradients and on gradients of a few rows."""

import numpy as np

from fastmlp.ops.contract import contract, floats, ids, inout
from fastmlp.ops.gradient import dense_gradient

Array = np.ndarray


#
# PyTorch's rules. `lr` is the learning rate; arrays of one call have one shape, whatever it is. The forms for rows do
# the same as the dense form on a gradient that is 0 outside `rows`; rows that it leaves unchanged (SGD and Adagrad
# without weight decay) are not touched.

_ROWS = {"rows": ids("U", below="V", ascending=True), "drows": floats("U", "D")}


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
    rows: Array, drows: Array, param: Array, *, lr: float, weight_decay: float = 0.0, threads: int = 1
) -> None:
    """update_sgd for a sparse gradient.

    rows   (U,)    in: unique ids, ascending
    drows  (U, D)  in: the gradient's rows at those ids
    param  (V, D)  in/out
    """
    if weight_decay:
        update_sgd(dense_gradient(rows, drows, param), param, lr=lr, weight_decay=weight_decay)
    else:
        param[rows] -= lr * drows


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
    threads: int = 1,
) -> None:
    """update_momentum for a sparse gradient; every row moves, as its velocity does.

    rows, drows  in: as in update_sgd_rows
    velocity, param  (V, D)  in/out
    """
    grad = dense_gradient(rows, drows, param)
    update_momentum(grad, velocity, param, lr=lr, momentum=momentum, weight_decay=weight_decay)


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
    threads: int = 1,
) -> None:
    """update_adagrad for a sparse gradient.

    rows, drows  in: as in update_sgd_rows
    squares, param  (V, D)  in/out
    """
    if weight_decay:
        update_adagrad(dense_gradient(rows, drows, param), squares, param, lr=lr, eps=eps, weight_decay=weight_decay)
    else:
        squares[rows] += drows * drows
        param[rows] -= lr * drows / (np.sqrt(squares[rows]) + eps)


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
    threads: int = 1,
) -> None:
    """update_adamw for a sparse gradient; every row moves, as its running mean does.

    rows, drows  in: as in update_sgd_rows
    mean, square, param  (V, D)  in/out
    """
    grad = dense_gradient(rows, drows, param)
    update_adamw(
        grad, mean, square, param, lr=lr, step=step, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay
    )
