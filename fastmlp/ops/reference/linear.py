"""linear: y = x W^T + b, the GEMM."""

from typing import Any

import numpy as np

from fastmlp.ops.contract import contract, floats, inout, optional, out
from fastmlp.ops.gradient import rule_of
from fastmlp.ops.reference import update as rules

Array = np.ndarray


@contract(x=floats("B", "I"), weight=floats("O", "I"), bias=optional(floats("O")), y=out("B", "O"))
def linear_forward(
    x: Array, weight: Array, bias: Array | None, y: Array, *, fp32_precision: str = "auto", threads: int = 1
) -> None:
    """y = x W^T + b.

    x       (B, I)          in:  rows of the batch
    weight  (O, I)          in:  W
    bias    (O,) or None    in:  b; a layer before a batchnorm needs none
    y       (B, O)          out
    fp32_precision          of the product of float32 arrays: "ieee", which is "auto", in float32; "bf16x3" with each
                            number split in two bf16; "bf16" with numbers rounded to bf16. The last two are the Cython
                            back-end's, if the CPU has them
    """
    np.matmul(x, weight.T, out=y)
    if bias is not None:
        y += bias


@contract(
    dy=floats("B", "O"),
    x=floats("B", "I"),
    weight=floats("O", "I"),
    dx=optional(out("B", "I")),
    dweight=out("O", "I"),
    dbias=optional(out("O")),
)
def linear_backward(
    dy: Array,
    x: Array,
    weight: Array,
    dx: Array | None,
    dweight: Array,
    dbias: Array | None,
    *,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """dx = dy W, dW = dy^T x, db = sum of dy over the batch.

    dy       (B, O)           in:  gradient of the output
    x        (B, I)           in:  the forward pass's input
    weight   (O, I)           in:  W
    dx       (B, I) or None   out: None where the input needs no gradient
    dweight  (O, I)           out
    dbias    (O,) or None     out: None where the layer has no bias
    fp32_precision            of both products, as in linear_forward; db is always a sum of float32
    """
    np.matmul(dy.T, x, out=dweight)
    if dbias is not None:
        np.sum(dy, axis=0, out=dbias)
    if dx is not None:
        np.matmul(dy, weight, out=dx)


@contract(
    dy=floats("B", "O"),
    x=floats("B", "I"),
    weight=inout("O", "I"),
    weight_state=optional(inout("O", "I")),
    weight_state2=optional(inout("O", "I")),
    dx=optional(out("B", "I")),
    dbias=optional(out("O")),
)
def linear_update(
    dy: Array,
    x: Array,
    weight: Array,
    weight_state: Array | None,
    weight_state2: Array | None,
    dx: Array | None,
    dbias: Array | None,
    *,
    rule: str,
    fp32_precision: str = "auto",
    threads: int = 1,
    **options: Any,
) -> None:
    """linear_backward, then update_<rule> of weight by its gradient, which is stored nowhere.

    dy, x         (B, O), (B, I)   in:     as in linear_backward
    weight        (O, I)           in/out: dx is that of the weight before the update
    weight_state, weight_state2    in/out: what the rule keeps of `weight`, in the order of its own arguments, else None
    dx, dbias                      out:    as in linear_backward; the bias is not updated
    rule          "sgd", "momentum", "adagrad" or "adamw"
    options       those of update_<rule>, with its defaults
    fp32_precision                 of both products, as in linear_forward
    """
    update, states = rule_of("linear_update", rule, vars(rules), (weight_state, weight_state2))
    dweight = np.empty_like(weight)
    linear_backward(dy, x, weight, dx, dweight, dbias)
    update(dweight, *states, weight, **options)
