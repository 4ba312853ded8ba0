"""batchnorm_gelu_dropout: what a hidden layer does in training behind its product, as one op."""

import numpy as np

from fastmlp.ops.contract import contract, floats, inout, int64s, out
from fastmlp.ops.reference.batchnorm import batchnorm_backward, batchnorm_forward
from fastmlp.ops.reference.dropout import dropout_backward, dropout_forward
from fastmlp.ops.reference.gelu import gelu_backward, gelu_forward

Array = np.ndarray


@contract(
    x=floats("B", "C"),
    weight=floats("C"),
    bias=floats("C"),
    running_mean=inout("C"),
    running_var=inout("C"),
    counter=int64s("2"),
    mean=out("C"),
    inv_std=out("C"),
    y=out("B", "C"),
)
def batchnorm_gelu_dropout_forward(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    counter: Array,
    mean: Array,
    inv_std: Array,
    y: Array,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    layer: int,
    p: float,
    threads: int = 1,
) -> None:
    """y = dropout(gelu(batchnorm(x))), normalized with the batch's statistics, as those ops do it: the same bits.

    x                  (B, C)  in
    weight, bias       (C,)    in
    running_mean, running_var  (C,)  in/out: as in batchnorm_forward
    counter            (2,)    in: as in dropout_forward, and so are layer and p; an element's number is that in (B, C)
    mean, inv_std      (C,)    out: of the batch, for the backward pass
    y                  (B, C)  out
    Raises ValueError for fewer than two rows, which have no variance.
    """
    if len(x) < 2:
        raise ValueError(f"batchnorm_gelu_dropout_forward: x: expected at least 2 rows to train on, got {len(x)}")
    batchnorm_forward(x, weight, bias, running_mean, running_var, mean, inv_std, y, momentum=momentum, eps=eps)
    gelu_forward(y, y)
    dropout_forward(y, counter, y, layer=layer, p=p)


@contract(
    dy=floats("B", "C"),
    x=floats("B", "C"),
    weight=floats("C"),
    mean=floats("C"),
    inv_std=floats("C"),
    bias=floats("C"),
    counter=int64s("2"),
    dx=out("B", "C"),
    dweight=out("C"),
    dbias=out("C"),
)
def batchnorm_gelu_dropout_backward(
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    bias: Array,
    counter: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
    *,
    layer: int,
    p: float,
    threads: int = 1,
) -> None:
    """The gradients of x, weight and bias. What lies between the three is made again from x.

    dy             (B, C)  in:  gradient of the output
    x, weight, bias        in:  as in the forward pass
    mean, inv_std  (C,)    in:  outputs of the forward pass
    counter, layer, p      in:  as in the forward pass: the mask is made again
    dx             (B, C)  out; it may be dy
    dweight, dbias (C,)    out
    """
    z = (x - mean) * (inv_std * weight) + bias
    dropout_backward(dy, counter, dx, layer=layer, p=p)
    gelu_backward(dx, z, dx)
    batchnorm_backward(dx, x, weight, mean, inv_std, dx, dweight, dbias)
