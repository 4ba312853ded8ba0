"""The layers and the loss of the network as functions of arrays, with the names of torch.nn.functional.

    logits = F.linear(h, weight, bias)                                # import fastmlp.functional as F
    loss = F.cross_entropy(logits, target)
    dlogits = F.cross_entropy_backward(1.0, logits, target)           # 1.0: the gradient of the loss itself
    dh, dweight, dbias = F.linear_backward(dlogits, h, weight, bias)

Arguments, their order, defaults and meaning are those of PyTorch 2.13; what it has and this has not is refused with
NotImplementedError. There is no tape: `<name>_backward` takes the gradient of what `<name>` returned, then what it took
(tanh, relu, softmax and log_softmax: its output; dropout: no array), and returns the gradients of the differentiable
inputs in their order, None for those that were None.

Arrays      NumPy arrays, or objects that share their memory: DLPack (CPU tensors of PyTorch), the buffer protocol;
            lists and numbers of Python too, whose floats are float32, or of the type of the floats before them.
            Any layout and byte order, read-only ones too; arrays that are not C-contiguous are copied for the call.
float32     runs the kernels: the best back-end available (fastmlp.ops.backend), chosen at the first call, which
            warns if that is not the fastest.
float64     runs the reference in NumPy, exact and slow.
float16     is computed in float32, and the results are float16 again if all floats of the call are. Other types
            are refused, and floats of a call that are not float16 must be of one type.
Integers    of any type are ids and classes; int32 and int64 are taken as they are.
`out=`      an array of the result's shape and type, of any layout; it may overlap the inputs. It is then returned.
`threads=`  how many may work; None: FASTMLP_NUM_THREADS, else the cores that the process may use. No bit depends on it.

Every function raises TypeError for a wrong type, ValueError for a wrong shape or option, IndexError for an id out of
range, each with the function's and the argument's name, what was expected and what came.
"""

from typing import TYPE_CHECKING

from fastmlp.errors import missing_name
from fastmlp.functional.batchnorm import batch_norm, batch_norm_backward
from fastmlp.functional.cross_entropy import cross_entropy, cross_entropy_backward
from fastmlp.functional.dropout import dropout, dropout_backward
from fastmlp.functional.embedding import embedding, embedding_backward
from fastmlp.functional.gelu import gelu, gelu_backward
from fastmlp.functional.linear import linear, linear_backward
from fastmlp.functional.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_backward
from fastmlp.functional.relu import relu, relu_backward
from fastmlp.functional.softmax import log_softmax, log_softmax_backward, softmax, softmax_backward
from fastmlp.functional.tanh import tanh, tanh_backward

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "embedding",
    "embedding_backward",
    "gelu",
    "gelu_backward",
    "linear",
    "linear_backward",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "log_softmax",
    "log_softmax_backward",
    "relu",
    "relu_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
]

if not TYPE_CHECKING:  # for type checkers any name would be there
    __getattr__, __dir__ = missing_name(__name__, __all__)
