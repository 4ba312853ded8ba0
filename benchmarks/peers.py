"""What a user would run instead of an op: the same work in PyTorch, as PyTorch's own documentation has it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers import Inputs


def torch_eager(op: str, given: Inputs, threads: int) -> Callable[[], Any]:
    """The op as eager PyTorch in float32; backward passes are timed alone, on a graph that is kept.

    Gradients are new tensors in each call, as after `optimizer.zero_grad()`; adding to old ones, zeroed before, was no
    faster.
    """
    torch = pytest.importorskip("torch")
    torch.set_num_threads(threads)
    functional = torch.nn.functional
    tensors = {name: torch.tensor(array) for name, array in given.items() if array is not None}
    leaves = [tensors[name].requires_grad_() for name in ("x", "h", "weight", "bias") if name in tensors]

    def linear() -> Any:
        return functional.linear(tensors["x"], tensors["weight"], tensors["bias"])

    def linear_cross_entropy() -> Any:
        logits = functional.linear(tensors["h"], tensors["weight"], tensors["bias"])
        return functional.cross_entropy(logits, tensors["targets"].long(), reduction="none")

    forward, upstream = {
        "linear": (linear, tensors.get("dy")),
        "linear_cross_entropy": (linear_cross_entropy, tensors.get("row_scale")),
    }[op.removesuffix("_forward").removesuffix("_backward")]
    if op.endswith("_forward"):
        return torch.no_grad()(forward)
    if op.endswith("_backward"):
        output = forward()
        return lambda: torch.autograd.grad(output, leaves, upstream, retain_graph=True)
    return lambda: torch.autograd.grad(forward(), leaves, upstream)


BACKENDS = ("numpy", "numba", "cython")
CALLS = {"torch": torch_eager}

backends = pytest.mark.parametrize("contender", BACKENDS)
backends_and_peers = pytest.mark.parametrize("contender", [*BACKENDS, *CALLS])
