"""Who trains in the benchmarks of whole steps: the trainer with each back-end, variant and precision, and PyTorch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import peers, setting
from benchmarks.contest import Clock, Contender, Result
from fastmlp.events import Reporter
from fastmlp.ops import BackendUnavailableError, get_ops
from fastmlp.trainer import train
from tests.helpers import module_of

TRAINER = "benchmarks.training:train_fastmlp"


def train_fastmlp(clock: Clock, **options: Any) -> None:
    """A contender: the trainer itself, whose reporter is told of each step."""

    class Timekeeper(Reporter):
        def step(self, step: int, share: float, loss: float) -> None:
            clock.tick(loss)  # the trainer stops at a loss that is not finite

    config = setting.config(**options)
    with TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        train(replace(config, out=out), text=None if config.files else setting.text(), reporter=Timekeeper())


def kernels(**options: Any) -> list[Contender]:
    """The compiled kernels: each variant that this CPU runs, with each precision that it adds to those below it."""
    try:
        module = module_of(get_ops("cython"))
    except BackendUnavailableError:
        if os.environ.get("FASTMLP_REQUIRE_KERNELS") == "1":
            raise
        return []  # the report's head says that they are not built
    contenders, best = [], module.variant()
    for variant in module.variants():
        module.use_variant(variant)
        precisions = module.precisions()
        for precision in precisions[1:] or precisions:  # who has more than "ieee" has that one from AVX-512
            arguments = {"backend": "cython", "precision": precision, **options}
            name = f"fastmlp {variant} {precision}"
            contenders.append(Contender(name, TRAINER, arguments, {"FASTMLP_SIMD": variant}))
    module.use_variant(best)
    return contenders


def contenders(*, compiled: bool) -> list[Contender]:
    """Everybody; PyTorch's compiled modes too if they are asked for."""
    fastest = kernels()
    numba = Contender("fastmlp Numba", TRAINER, {"backend": "numba"})
    numpy = Contender("fastmlp NumPy", TRAINER, {"backend": "numpy"}, peers.KEEP_MEMORY)
    avx2 = any(variant(contender) == "avx2" for contender in fastest)
    return [*fastest, numba, numpy, *peers.pytorch(compiled=compiled, held_to_avx2=avx2)]


def variant(contender: Contender) -> str:
    """Of the kernels; empty for all but ours."""
    return contender.environment.get("FASTMLP_SIMD", "")


def accuracy(contender: Contender) -> str:
    """The class in which it competes: "float32" or "bf16"."""
    if mode := contender.arguments.get("mode"):
        return peers.Mode(**mode).accuracy
    return "bf16" if contender.arguments.get("precision") == "bf16" else "float32"


def rivals(contender: Contender, contenders: Sequence[Contender]) -> list[Contender]:
    """PyTorch's modes that are at least as accurate; those held to AVX2 where the contender is."""
    return [
        peer
        for peer in contenders
        if peers.is_pytorch(peer)
        and accuracy(peer) in ("float32", accuracy(contender))
        and (peer.environment.keys() >= peers.HELD_TO_AVX2.keys()) == (variant(contender) == "avx2")
    ]


def best_of_pytorch(contender: Contender, contenders: Sequence[Contender], results: Mapping[str, Result]) -> Contender:
    """The fastest of the rivals. Raises ValueError where none has run."""
    ran = [rival for rival in rivals(contender, contenders) if not results[rival.name].failed]
    return min(ran, key=lambda rival: results[rival.name].median)
