"""The alternatives to fastmlp: PyTorch at its best settings, and NumPy."""

import getpass
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ceilings, setting
from benchmarks.contest import Clock, Contender, timed
from fastmlp.data.corpus import read_corpus
from fastmlp.network.network import Network
from fastmlp.ops import get_ops
from fastmlp.ops.backend import choose_backend
from fastmlp.prediction.evaluation import evaluate
from fastmlp.prediction.neural import NeuralModel
from fastmlp.threads import default_threads
from fastmlp.training.setup import make_network
from tests.helpers import Inputs, arguments, contract_of
from tests.networks import torch_model

# --------------------------------------------------------------------------------------- the whole training step


@dataclass(frozen=True)
class Mode:
    """How PyTorch is run.

    matmul    torch.backends.mkldnn.matmul.fp32_precision
    autocast  to bfloat16
    compiled  by torch.compile; it needs a C++ compiler
    """

    matmul: str = "ieee"
    autocast: bool = False
    compiled: bool = False

    @property
    def accuracy(self) -> str:
        return "float32" if self.matmul == "ieee" and not self.autocast else "bf16"


MODES = {
    "PyTorch": Mode(),
    "PyTorch, bf16 matmul": Mode(matmul="bf16"),
    "PyTorch, autocast": Mode(autocast=True),
    "PyTorch, compiled": Mode(compiled=True),
    "PyTorch, compiled, bf16 matmul": Mode(matmul="bf16", compiled=True),
    "PyTorch, compiled, autocast": Mode(autocast=True, compiled=True),
}
TRAIN = "benchmarks.peers:train_pytorch"
# The process keeps memory that a step frees, in huge pages: otherwise each gradient of 33 MB would get new pages of
# zeros. PyTorch's tuning guide recommends the allocator too.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
NUMPY = KEEP_MEMORY | {"OPENBLAS_NUM_THREADS": str(default_threads())}
HELD_TO_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    # torch.compile would use code from its cache compiled for AVX-512, and crash, as measured.
    "TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / f"torchinductor_avx2_{getpass.getuser()}"),
}


def pytorch(*, compiled: bool, held_to_avx2: bool = False) -> list[Contender]:
    """PyTorch's modes as contenders.

    compiled      the compiled modes too
    held_to_avx2  and the float32 modes once more, without AVX-512
    """
    modes = {name: mode for name, mode in MODES.items() if compiled or not mode.compiled}
    contenders = [Contender(name, TRAIN, {"mode": vars(mode)}, KEEP_MEMORY) for name, mode in modes.items()]
    if held_to_avx2:
        float32 = {name: mode for name, mode in modes.items() if mode.accuracy == "float32"}
        environment = KEEP_MEMORY | HELD_TO_AVX2
        contenders += [
            Contender(f"{name}, AVX2", TRAIN, {"mode": vars(mode)}, environment) for name, mode in float32.items()
        ]
    return contenders


def is_pytorch(contender: Contender) -> bool:
    return contender.name.startswith("PyTorch")


def missing(name: str) -> bool:
    """Whether a contender may fail because it needs software that this machine lacks."""
    if not name.startswith("PyTorch"):
        return False
    return importlib.util.find_spec("torch") is None or (
        "compiled" in name and shutil.which(os.environ.get("CXX", "g++")) is None
    )


def unexpected(failed: Mapping[str, str]) -> dict[str, str]:
    """Return the contenders' failures that nothing explains; ceilings.py checks its own."""
    return {name: why for name, why in failed.items() if why and not missing(name) and name != ceilings.CONTENDER.name}


def train_pytorch(clock: Clock, mode: Mapping[str, Any], **options: Any) -> None:
    """A contender: the network of the trainer, from the same weights on the same batches, SGD or AdamW.

    Its dropout draws masks of its own.

    The tick after the last step reports the validation perplexity, by the same evaluation.
    """
    import torch

    how, config = Mode(**mode), setting.config(**options)
    corpus = read_corpus(config, setting.text(config))
    drawn = make_network(config, corpus, choose_backend("numpy"), 1)
    shape, network = drawn.shape, torch_model(drawn.state_dict(), drawn.shape)
    torch.set_num_threads(default_threads())
    torch.backends.mkldnn.matmul.fp32_precision = how.matmul
    # Of for-loop, foreach and fused none is slower, and gradients set to None beat those that are filled with zeros.
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[config.optimizer]
    matrices, vectors = ([p for p in network.parameters() if (p.ndim > 1) == are] for are in (True, False))
    of_vectors = {"params": vectors, "weight_decay": 0.0 if config.window else config.weight_decay}
    groups = [{"params": matrices}, of_vectors]
    optimizer = kind(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)

    def loss_of(targets: Any, *words: Any) -> Any:
        return torch.nn.functional.cross_entropy(network(*words), targets)

    if how.compiled:
        torch._dynamo.reset()  # forgets the batch size of the task before; else it would compile for any size
        loss_of = torch.compile(loss_of, dynamic=False)
    batches = corpus.batches(config)
    for step in range(config.steps):
        batch = batches.batch(step)
        given = (batch.targets, batch.near) if batch.far is None else (batch.targets, batch.near, batch.far)
        targets, *words = (torch.from_numpy(array.astype(np.int64)) for array in given)
        with torch.autocast("cpu", torch.bfloat16, enabled=how.autocast):
            loss = loss_of(targets, *words)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        if not isfinite(value):
            raise ArithmeticError(f"step {step}: the loss is {value}")
        clock.tick(value)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    trained = Network(shape, choose_backend().ops, parameters=state)
    assert corpus.val is not None
    language = NeuralModel(trained, corpus.vocabulary, corpus.tokenizer, corpus.unk_trained)
    clock.tick(evaluate(language, corpus.val.targets, corpus.val.before).perplexity)


# ---------------------------------------------------------------------------------------------------------- an op


def numpy_blas(op: str, given: Inputs, threads: int) -> Callable[[], Any]:
    """linear's products by NumPy's BLAS, into existing arrays; its threads are set in its environment."""
    x, weight, dy = given["x"], given["weight"], given["dy"]
    y, dx, dweight = np.empty_like(dy), np.empty_like(x), np.empty_like(weight)
    if op == "linear_forward":
        return lambda: [np.matmul(x, weight.T, out=y)]
    return lambda: [np.matmul(dy, weight, out=dx), np.matmul(dy.T, x, out=dweight)]


def torch_eager(op: str, given: Inputs, threads: int) -> Callable[[], Any]:
    """The op as eager PyTorch in float32; backward passes are timed alone, on a retained graph.

    Gradients are new tensors in each call, as after `optimizer.zero_grad()`; adding to old ones, zeroed before, was no
    faster.
    """
    import torch

    torch.set_num_threads(threads)
    functional = torch.nn.functional
    tensors = {name: None if array is None else torch.tensor(array) for name, array in given.items()}
    leaves = [tensors[name] for name in ("x", "h", "weight", "bias") if tensors.get(name) is not None]
    for leaf in leaves:
        leaf.requires_grad_()

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
CALLS = {"torch": torch_eager, "blas": numpy_blas}
LEAST_SECONDS = 0.5e-3  # between two readings of the clock


def play_op(clock: Clock, contender: str, op: str, given: Inputs, **options: Any) -> None:
    """A contender: call an op repeatedly; each tick reports a sum over the gradients, or over all outputs.

    contender  a back-end or one of CALLS
    options    of the op
    """
    threads = default_threads()
    if contender in CALLS:
        call = CALLS[contender](op, given, threads)
        written = call()
    else:
        arrays = arguments(op, given, np.copy)
        call = partial(getattr(get_ops(contender), op), *arrays.values(), threads=threads, **options)
        call()
        wrote = {name: array for name, array in arrays.items() if contract_of(op)[name].written and array is not None}
        written = [array for name, array in wrote.items() if name.startswith("d")] or list(wrote.values())
    total = float(sum(np.abs(np.asarray(array)).sum(dtype=np.float64) for array in written))
    calls = ceil(LEAST_SECONDS / timed(call))
    while True:
        for _ in range(calls):
            call()
        clock.tick(total, pieces=calls)


backends = pytest.mark.parametrize("contender", BACKENDS)
