"""The ops in plain NumPy: the specification that all other back-ends must match, for any float type.

Letters, here and everywhere else:

    B  batch: rows of a step              V  vocabulary: words, the classes of the last layer
    T  context: words of a window         H  hidden width
    D  embedding width                    I, O  inputs and outputs of a linear layer; C  channels of a batchnorm
    U  unique ids of a batch                     K  words before the context;  A  averages of them

A gradient is `d` + the name: `dlogits`, `dh`. Arguments come in this order: inputs, saved statistics, outputs. Outputs
belong to the caller and are completely overwritten; "in/out" marks arrays that are read and updated. `threads` is the
number of threads; no result depends on it.

`row_scale` (B,) is the gradient of the total with respect to each row's loss: 1/B for a mean over the batch, 0 for an
ignored row: neither its target nor its numbers are read; its loss and its gradient are 0.

`highest` and `log_sum` (B,) are a row's largest logit and log sum exp(logits - highest): from them a
softmax is computed again, exp(logits - highest - log_sum). They are separate because float32 cannot hold the digits of
both: for logits around 1,000 their sum, log sum exp(logits), would be 3e-5 off, and so would every probability.

`fp32_precision` is the precision of products of matrices: "ieee", the meaning of "auto", is float32; "bf16x3"
splits each number in two bf16, and products are up to 1e-5 off; "bf16" rounds numbers to bf16, and a gradient is some
3e-3 off. Sums are always float32. The reference and Numba have "ieee" only (float64 stays float64).
"""

from fastmlp.ops.reference.add import add
from fastmlp.ops.reference.batchnorm import batchnorm_backward, batchnorm_forward
from fastmlp.ops.reference.batchnorm_gelu_dropout import (
    batchnorm_gelu_dropout_backward,
    batchnorm_gelu_dropout_forward,
)
from fastmlp.ops.reference.context_averages import context_averages_forward
from fastmlp.ops.reference.cross_entropy import cross_entropy, cross_entropy_backward, cross_entropy_forward
from fastmlp.ops.reference.dropout import dropout_backward, dropout_forward
from fastmlp.ops.reference.embedding import embedding_backward, embedding_forward
from fastmlp.ops.reference.gelu import gelu_backward, gelu_forward
from fastmlp.ops.reference.linear import linear_backward, linear_forward, linear_update
from fastmlp.ops.reference.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_backward,
    linear_cross_entropy_forward,
    linear_cross_entropy_update,
)
from fastmlp.ops.reference.softmax import softmax_backward, softmax_forward
from fastmlp.ops.reference.tanh import tanh_backward, tanh_forward
from fastmlp.ops.reference.update import (
    update_adagrad,
    update_adagrad_rows,
    update_adamw,
    update_adamw_rows,
    update_momentum,
    update_momentum_rows,
    update_sgd,
    update_sgd_rows,
)

__all__ = [
    "add",
    "batchnorm_backward",
    "batchnorm_forward",
    "batchnorm_gelu_dropout_backward",
    "batchnorm_gelu_dropout_forward",
    "context_averages_forward",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "dropout_backward",
    "dropout_forward",
    "embedding_backward",
    "embedding_forward",
    "gelu_backward",
    "gelu_forward",
    "linear_backward",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "linear_cross_entropy_forward",
    "linear_cross_entropy_update",
    "linear_forward",
    "linear_update",
    "softmax_backward",
    "softmax_forward",
    "tanh_backward",
    "tanh_forward",
    "update_adagrad",
    "update_adagrad_rows",
    "update_adamw",
    "update_adamw_rows",
    "update_momentum",
    "update_momentum_rows",
    "update_sgd",
    "update_sgd_rows",
]
