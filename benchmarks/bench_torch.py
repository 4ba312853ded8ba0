"""fastmlp.torch: the linear cross entropy in PyTorch's graph, forward and backward, beside PyTorch's own functions.

Each contender takes turns in a process of its own (contest.py): the time of a loss and fresh gradients of input,
weight and bias, how many times faster fastmlp is than the fastest of PyTorch's modes that are as accurate, and the peak
of memory beyond inputs and gradients, which only the first call of a fresh process shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench_linear_cross_entropy import status
from benchmarks.conftest import in_contest
from benchmarks.contest import Clock, Contender, Contest, Result, Turn
from benchmarks.peers import KEEP_MEMORY, MODES, Mode
from benchmarks.report import markdown_table
from fastmlp.threads import default_threads
from tests import inputs

SIZES = [(512, 300, 27_755), (2_048, 512, 32_000), (4_096, 768, 50_257)]  # N, H, V
SMOKE_SIZES = (64, 30, 1_000)
NEAR = 0.01  # nats, between the losses of all
SHARE_OF_MEMORY = 0.25  # of eager PyTorch's, that fastmlp may take


@dataclass(frozen=True)
class Way:
    """How the loss is computed.

    function  "fastmlp"; "logits": PyTorch's linear, then cross_entropy; or "chunked", its linear_cross_entropy
    options   of the chunks
    mode      how PyTorch is run
    dtype     of the tensors
    """

    function: str
    options: dict[str, Any] = field(default_factory=dict)
    mode: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"

    @property
    def accuracy(self) -> str:
        return "bf16" if self.dtype == "bfloat16" else Mode(**self.mode).accuracy


AUTOCAST = vars(Mode(autocast=True))
WAYS = {
    "fastmlp": Way("fastmlp"),
    "fastmlp, autocast": Way("fastmlp", mode=AUTOCAST),
    "fastmlp, bfloat16 tensors": Way("fastmlp", dtype="bfloat16"),
    **{name: Way("logits", mode=vars(mode)) for name, mode in MODES.items()},
    "PyTorch, bfloat16 tensors": Way("logits", dtype="bfloat16"),
    "PyTorch, chunked": Way("chunked"),
    "PyTorch, chunks of 256": Way("chunked", {"batch_chunk_size": 256, "chunking_method": None}),
    "PyTorch, chunks of 1,024": Way("chunked", {"batch_chunk_size": 1_024, "chunking_method": None}),
    "PyTorch, chunked, autocast": Way("chunked", mode=AUTOCAST),
    "PyTorch, chunked, bfloat16 tensors": Way("chunked", dtype="bfloat16"),
}
EAGER = "PyTorch"
USUAL = ("fastmlp", "fastmlp, autocast", EAGER, "PyTorch, autocast", "PyTorch, chunks of 1,024")


def contenders(*, long: bool) -> list[Contender]:
    """Return the usual modes, or all, including the compiled ones."""
    play = "benchmarks.bench_torch:loss_and_gradients"
    ways = WAYS if long else {name: WAYS[name] for name in USUAL}
    return [Contender(name, play, {"way": vars(way)}, KEEP_MEMORY) for name, way in ways.items()]


def loss_and_gradients(clock: Clock, way: dict[str, Any], sizes: Sequence[int]) -> None:
    """A contender; each tick reports the loss and the peak bytes beyond inputs and gradients."""
    import torch

    import fastmlp.torch

    how = Way(**way)
    mode = Mode(**how.mode)
    torch.set_num_threads(default_threads())
    torch.backends.mkldnn.matmul.fp32_precision = mode.matmul

    def chunked(*arguments: Any, **options: Any) -> Any:
        chunks = torch.nn.LinearCrossEntropyOptions(**how.options)
        return torch.nn.functional.linear_cross_entropy(*arguments, **options, options=chunks)

    def logits(input: Any, weight: Any, target: Any, linear_bias: Any) -> Any:
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(input, weight, linear_bias), target)

    function = {"fastmlp": fastmlp.torch.linear_cross_entropy, "chunked": chunked, "logits": logits}[how.function]
    if mode.compiled:
        torch._dynamo.reset()
        function = torch.compile(function, dynamic=False)

    def given(N: int, H: int, V: int) -> dict[str, Any]:
        arrays = inputs.mean_over_batch(inputs.linear_cross_entropy(np.random.default_rng(2003), N, H, V))
        tensors = [torch.from_numpy(arrays[name]).to(getattr(torch, how.dtype)) for name in ("h", "weight", "bias")]
        parameters = dict(zip(("input", "weight", "linear_bias"), (t.requires_grad_() for t in tensors), strict=True))
        return {**parameters, "target": torch.from_numpy(arrays["targets"]).long()}

    def call(input: Any, weight: Any, target: Any, linear_bias: Any) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=mode.autocast):
            loss = function(input, weight, target, linear_bias=linear_bias)
        loss.backward()
        return float(loss.item())

    if not mode.compiled:
        call(**given(64, 32, 128))  # the libraries allocate their own memory
    tensors = given(*sizes)
    parameters = [tensor for tensor in tensors.values() if tensor.requires_grad]
    while True:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current use
        before = status("VmRSS") + sum(tensor.nbytes for tensor in parameters)
        loss = call(**tensors)
        for tensor in parameters:
            tensor.grad = None
        clock.tick([loss, status("VmHWM") - before])


# ------------------------------------------------------------------------------------------------------------ results


@dataclass(frozen=True)
class Losses:
    """The results of all contenders at some sizes: times, and the first calls' memory."""

    sizes: Sequence[int]
    times: dict[str, Result]
    memory: dict[str, Result]

    def times_pytorch(self, name: str) -> float:
        """How many times faster than the fastest of PyTorch's that is at least as accurate."""
        accurate = ("float32", WAYS[name].accuracy)
        rivals = [
            result.median
            for rival, result in self.times.items()
            if rival.startswith("PyTorch") and WAYS[rival].accuracy in accurate and not result.failed
        ]
        return min(rivals) / self.times[name].median

    def bytes_of(self, name: str) -> float:
        """Beyond inputs and gradients; NaN where it was not measured."""
        result = self.memory.get(name, Result())
        return float(result.values[0][1]) if result.values else float("nan")

    def assert_same_loss(self) -> None:
        losses = {name: result.values[0][0] for name, result in self.times.items() if not result.failed}
        expected = losses["fastmlp"]
        for name, loss in losses.items():
            # of bfloat16 tensors it is rounded, and PyTorch's mean on some CPUs more than once
            near = 2**-6 * expected if WAYS[name].dtype == "bfloat16" else NEAR
            assert abs(loss - expected) <= near, f"{name}: a loss of {loss}, fastmlp's is {expected}"


def measure(contest: Contest, sizes: Sequence[int], *, long: bool, smoke: bool = False) -> Losses:
    """Rounds of all; then each once more, in a fresh process, for its memory, but only two if the run is not long."""
    everybody = contenders(long=long)
    rounds, turn = (1, Turn(seconds=0, least=1)) if smoke else (3, Turn(seconds=1.0, least=1, warm=0))
    times = contest.run(everybody, rounds=rounds, turn=turn, warm_up=1, sizes=sizes)
    with Contest() as fresh:
        plain = [replace(contender, environment={}) for contender in everybody]  # return freed memory to the system
        measured = plain if long and not smoke else [one for one in plain if one.name in ("fastmlp", EAGER)]
        memory = fresh.run(measured, rounds=0, warm_up=1, sizes=sizes)
    return Losses(sizes, times, memory)


def describe(losses: Losses) -> str:
    """A table with a line for each contender, or why it failed."""
    N, H, V = losses.sizes
    header = [f"N = {N:,}, H = {H}, V = {V:,}", "accuracy", "ms", "times PyTorch", "memory, MB", "of eager's"]
    rows = []
    for name, result in losses.times.items():
        rows.append([name, WAYS[name].accuracy, result.failed])
        if not result.failed:
            faster = f"{losses.times_pytorch(name):.2f}" if name.startswith("fastmlp") else ""
            rows[-1][2:] = [f"{1e3 * result.median:,.0f}", faster]
            if name in losses.memory:
                share = losses.bytes_of(name) / losses.bytes_of(EAGER)
                rows[-1] += [f"{losses.bytes_of(name) / 1e6:,.0f}", f"{share:.0%}"]
    return markdown_table(header, rows)


# ---------------------------------------------------------------------------------------------------------- in pytest


@pytest.fixture(scope="session")
def losses_at(contest: Contest, smoke: bool, long: bool) -> Any:
    """Return the measurements at some sizes; with --long of all modes."""
    return cache(lambda sizes: measure(contest, SMOKE_SIZES if smoke else sizes, long=long, smoke=smoke))


def contender_parameter(contender: Contender) -> Any:
    return pytest.param(contender, marks=() if contender.name in USUAL else pytest.mark.long, id=contender.name)


def sizes_parameter(sizes: tuple[int, int, int]) -> Any:
    name = "N={}-H={}-V={}".format(*sizes)
    return pytest.param(sizes, marks=() if sizes == SIZES[0] else pytest.mark.long, id=name)


@in_contest
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is not to be had here")
@pytest.mark.parametrize("sizes", [sizes_parameter(sizes) for sizes in SIZES])
@pytest.mark.parametrize("contender", [contender_parameter(one) for one in contenders(long=True)])
def bench_torch(record, show, losses_at, smoke, contender, sizes):
    pytest.importorskip("torch")
    losses = losses_at(sizes)
    if contender.name == "fastmlp":
        show(describe(losses))
        losses.assert_same_loss()
        assert smoke or losses.bytes_of("fastmlp") <= SHARE_OF_MEMORY * losses.bytes_of(EAGER)
    N, H, V = losses.sizes
    record(contender, losses.times[contender.name], f"linear cross entropy, N = {N}, H = {H}, V = {V}", N=N, H=H, V=V)
