"""torch.nn's layers on NumPy arrays, with the same names, arguments, defaults, layouts and state_dict keys.

    model = Sequential(Embedding(27, 10), Flatten(), Linear(30, 9, bias=False), BatchNorm1d(9), Tanh(), Linear(9, 27))
    criterion, optimizer = CrossEntropyLoss(), SGD(model.parameters(), lr=0.1)  # SGD of fastmlp.optim
    loss = criterion(model(x), y)
    model.backward(criterion.backward())
    optimizer.step()

Layers: Linear, Embedding, BatchNorm1d, Dropout, Tanh, ReLU, GELU, Softmax, LogSoftmax, Flatten, Sequential; and
Residual, x + f(x), which torch.nn lacks. Losses: CrossEntropyLoss and LinearCrossEntropyLoss, whose `step` also updates
the last layer's weight. Without an autograd tape, a layer keeps what its last forward pass computed. `backward` takes
the output's gradient, stores the gradients of the parameters and returns that of the input. Differences from PyTorch:

  - `backward` replaces the gradients of the previous call instead of adding to them: zero_grad() is not needed
  - do not change an array that went through a layer, or the layer's parameters, before its backward pass
  - a module may occur only once in a network; weights cannot be shared by assignment
  - parameters are NumPy arrays and stay the same arrays: change them in place (`layer.weight[...] = array`)

Parameters are float32 and use the fastest back-end; with dtype=np.float64 they use the NumPy reference. Inputs are
converted to the parameters' type. FASTMLP_NUM_THREADS sets the number of threads (default: all cores), which changes no
result. `rng` is a seed or a NumPy Generator, which layers may share; the distributions are PyTorch's, the numbers not.
"""

from typing import TYPE_CHECKING

from fastmlp.errors import missing_name
from fastmlp.nn.activation import GELU, LogSoftmax, ReLU, Softmax, Tanh
from fastmlp.nn.batchnorm import BatchNorm1d
from fastmlp.nn.containers import Flatten, Residual, Sequential
from fastmlp.nn.dropout import Dropout
from fastmlp.nn.embedding import Embedding
from fastmlp.nn.linear import Linear
from fastmlp.nn.loss import CrossEntropyLoss, LinearCrossEntropyLoss
from fastmlp.nn.module import LoadResult, Module, Parameters

__all__ = [
    "GELU",
    "BatchNorm1d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "Linear",
    "LinearCrossEntropyLoss",
    "LoadResult",
    "LogSoftmax",
    "Module",
    "Parameters",
    "ReLU",
    "Residual",
    "Sequential",
    "Softmax",
    "Tanh",
]

if not TYPE_CHECKING:  # for type checkers any name would be there
    __getattr__, __dir__ = missing_name(__name__, __all__)
