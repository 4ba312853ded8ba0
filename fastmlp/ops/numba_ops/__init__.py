"""The ops in Numba, for machines without a compiler. The reference specifies them; here it says how they work.

An op cuts its problem into slices and hands them to a team of threads (team.py); a kernel, jitted, works on one slice.

 a. Numba has no vector types: LLVM vectorises innermost loops. So these run along contiguous memory, are as long as
    possible, have no branch, and read values that they use several times into variables before they write.
 b. Numba has no vector exp and tanh: _arithmetic.py writes them out, so that they vectorise.
 c. Products are NumPy's, between kernels (_products.py): its BLAS is 3 to 4 times as fast as what LLVM makes of loops.
    It gets one thread, that of the slice: with threads of its own it would fight ours, and bits would depend on their
    number. (np.dot inside a jitted function would need SciPy and call the BLAS of that, a second one.)
 d. A kernel that takes long to compile gets its inputs as read-only views, and targets as int64: so it is compiled for
    one set of types, whatever the caller's arrays are.
 e. A Python float is a float64, which turns float32 arithmetic into float64: so constants are np.float32.
"""

from fastmlp.ops.numba_ops._compiling import compile_ops
from fastmlp.ops.numba_ops.add import add
from fastmlp.ops.numba_ops.batchnorm import batchnorm_backward, batchnorm_forward
from fastmlp.ops.numba_ops.batchnorm_gelu_dropout import (
    batchnorm_gelu_dropout_backward,
    batchnorm_gelu_dropout_forward,
)
from fastmlp.ops.numba_ops.context_averages import context_averages_forward
from fastmlp.ops.numba_ops.cross_entropy import cross_entropy, cross_entropy_backward, cross_entropy_forward
from fastmlp.ops.numba_ops.dropout import dropout_backward, dropout_forward
from fastmlp.ops.numba_ops.embedding import embedding_backward, embedding_forward
from fastmlp.ops.numba_ops.gelu import gelu_backward, gelu_forward
from fastmlp.ops.numba_ops.linear import linear_backward, linear_forward, linear_update
from fastmlp.ops.numba_ops.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_backward,
    linear_cross_entropy_forward,
    linear_cross_entropy_update,
)
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

__all__ = [
    "add",
    "batchnorm_backward",
    "batchnorm_forward",
    "batchnorm_gelu_dropout_backward",
    "batchnorm_gelu_dropout_forward",
    "compile_ops",
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
