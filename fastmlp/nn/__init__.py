"""torch.nn's layers, with its names, arguments, defaults, layouts and state_dict keys, on arrays and fastmlp's kernels.

    model = Sequential(Embedding(27, 10), Flatten(), Linear(30, 9, bias=False), BatchNorm1d(9), Tanh(), Linear(9, 27))
    criterion, optimizer = CrossEntropyLoss(), SGD(model.parameters(), lr=0.1)  # SGD of fastmlp.optim
    loss = criterion(model(x), y)
    model.backward(criterion.backward())
    optimizer.step()

There is no tape. Each layer keeps what its last forward pass computed, and `backward` takes the gradient of its output,
writes those of its parameters, and returns that of its input; Sequential does so from the last layer to the first. What
differs from PyTorch follows from that:

  - `backward` replaces the gradients of the call before, it does not add to them: zero_grad() is not needed
  - an array that went through a layer must not be changed before that layer's backward pass
  - a module stands in a network once; weights cannot be shared by assignment
  - parameters are NumPy arrays, the same ones for good: read them, write to them in place (`layer.weight[...] = array`)

Parameters are float32 and run the best back-end that there is; with dtype=np.float64 they run the NumPy reference.
Inputs are converted to the parameters' type. FASTMLP_NUM_THREADS says how many threads work, else all cores do; no
result depends on it. Random numbers are NumPy's: `rng` is a seed or a Generator, which layers may share; without it
they differ from run to run. Their distributions are PyTorch's, the numbers of a seed are not.
"""

from fastmlp.nn.activation import GELU, ReLU, Tanh
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
    "Module",
    "Parameters",
    "ReLU",
    "Residual",
    "Sequential",
    "Tanh",
]
