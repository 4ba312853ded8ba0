"""All kernels compiled at once."""

from typing import Any

import numpy as np

from fastmlp.ops.numba_ops.batchnorm import batchnorm_backward, batchnorm_forward
from fastmlp.ops.numba_ops.batchnorm_gelu_dropout import (
    batchnorm_gelu_dropout_backward,
    batchnorm_gelu_dropout_forward,
)
from fastmlp.ops.numba_ops.context_averages import context_averages_forward
from fastmlp.ops.numba_ops.cross_entropy import cross_entropy, cross_entropy_backward, cross_entropy_forward
from fastmlp.ops.numba_ops.dropout import dropout_forward
from fastmlp.ops.numba_ops.embedding import embedding_backward, embedding_forward
from fastmlp.ops.numba_ops.gelu import gelu_backward, gelu_forward
from fastmlp.ops.numba_ops.linear import linear_backward, linear_forward
from fastmlp.ops.numba_ops.linear_cross_entropy import linear_cross_entropy
from fastmlp.ops.numba_ops.softmax import softmax_backward, softmax_forward
from fastmlp.ops.numba_ops.tanh import tanh_backward, tanh_forward
from fastmlp.ops.numba_ops.update import (
    update_adagrad,
    update_adagrad_rows,
    update_adamw,
    update_adamw_rows,
    update_momentum,
    update_momentum_rows,
    update_sgd,
    update_sgd_rows,
)


def compile_ops(ids_dtype: Any = np.int32) -> None:
    """Compile every kernel, or take it from Numba's cache, by running each op once on tiny arrays.

    ids_dtype  the type of the ids in later calls, int32 or int64
    """
    ids, rows = np.zeros((2, 1), ids_dtype), np.zeros(1, ids_dtype)
    counter = np.zeros(2, np.int64)
    targets, drows = np.zeros(2, ids_dtype), np.zeros((1, 2), np.float32)
    x, weight, dweight, running = np.zeros((4, 2, 2), np.float32)
    vector, dvector, mean, inv_std = np.ones((4, 2), np.float32)
    y, dy = np.zeros((2, 2, 2), np.float32)

    embedding_forward(weight, ids, np.empty((2, 1, 2), np.float32))
    embedding_backward(ids, np.zeros((2, 1, 2), np.float32), np.empty(2, ids_dtype), dy)
    context_averages_forward(weight, ids, vector, np.empty((2, 2, 2), np.float32))
    linear_forward(x, weight, vector, y)
    linear_backward(dy, x, weight, y, dweight, dvector)
    batchnorm_forward(x, vector, vector, mean, running[0], mean, inv_std, y)
    batchnorm_backward(dy, x, vector, mean, inv_std, y, dvector, dvector)
    batchnorm_gelu_dropout_forward(x, vector, vector, mean, running[0], counter, mean, inv_std, y, layer=0, p=0.5)
    batchnorm_gelu_dropout_backward(dy, x, vector, mean, inv_std, vector, counter, y, dvector, dvector, layer=0, p=0.5)
    tanh_forward(x, y)
    tanh_backward(dy, y, x)
    dropout_forward(x, counter, y, layer=0, p=0.5)
    gelu_forward(x, y)
    gelu_backward(dy, x, y)
    cross_entropy_forward(x, targets, vector, mean, inv_std, dvector)
    cross_entropy_backward(x, targets, vector, mean, inv_std, y)
    cross_entropy(x, targets, vector, mean, inv_std, dvector, y)
    for log in (False, True):
        softmax_forward(x, y, log=log)
        softmax_backward(dy, y, x, log=log)
    linear_cross_entropy(x, weight, None, targets, vector, mean, inv_std, dvector, y, dweight, None)
    update_sgd(x, y, lr=0)
    update_momentum(x, running, y, lr=0)
    update_adagrad(x, running, y, lr=0)
    update_adamw(x, dy, running, y, lr=0, step=1)
    update_sgd_rows(rows, drows, y, lr=0)
    update_momentum_rows(rows, drows, running, y, lr=0, only_rows=True)
    update_adagrad_rows(rows, drows, running, y, lr=0)
    update_adamw_rows(rows, drows, dy, running, y, lr=0, step=1, only_rows=True)
