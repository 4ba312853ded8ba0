"""The contenders in benchmarks of whole steps: the trainer with each back-end, variant, precision; and PyTorch."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from unittest.mock import patch

from benchmarks import peers, setting
from benchmarks.contest import Clock, Contender, Result
from fastmlp import ops, trainer
from fastmlp.events import Reporter
from fastmlp.ops import BackendUnavailableError
from fastmlp.ops.backend import choose_backend
from tests import helpers

TRAINER = "benchmarks.training:train_fastmlp"
CLOCKED = "fastmlp, clocked"


def train_fastmlp(clock: Clock, **options: Any) -> None:
    """A contender: the trainer itself, with a reporter that counts the steps.

    The tick after the last step reports the validation perplexity.
    """
    clock.tick(told_of_each_step(clock.tick, options).kept_val_perplexity)


def train_clocked(clock: Clock, **options: Any) -> None:
    """A contender: the same, but each tick reports the seconds of the step outside its kernels."""
    clocked_ops, kernel_seconds = helpers.clocked_ops(options["backend"])
    backend = replace(choose_backend(options["backend"]), ops=clocked_ops)
    began = 0.0

    def tick(_loss: float) -> None:
        nonlocal began
        clock.tick(perf_counter() - kernel_seconds() - began)
        began = perf_counter() - kernel_seconds()

    with patch("fastmlp.ops.backend.choose_backend", return_value=backend):
        told_of_each_step(tick, options)


def told_of_each_step(tell: Callable[[float], None], options: Mapping[str, Any]) -> trainer.Result:
    """Train; call `tell` with the loss of each step."""

    class Timekeeper(Reporter):
        def step(self, step: int, share: float, loss: float) -> None:
            tell(loss)  # the trainer stops at a loss that is not finite

    config = setting.config(**options)
    with TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        return trainer.train(replace(config, out=out), text=setting.text(config), reporter=Timekeeper())


def kernels(**options: Any) -> list[Contender]:
    """The compiled kernels: each variant that this CPU runs, with each precision that it adds to those below it."""
    try:
        module = helpers.module_of(ops.get_ops("cython"))
    except BackendUnavailableError:
        if os.environ.get("FASTMLP_REQUIRE_KERNELS") == "1":
            raise
        return []  # the report's head says that they are not built
    contenders, best = [], module.variant()
    for variant in module.variants():
        module.use_variant(variant)
        precisions = module.precisions()
        # A variant with more than "ieee" shares that one with AVX-512.
        for precision in [name for name in precisions if name != "ieee"] or precisions:
            arguments = {"backend": "cython", "precision": precision, **options}
            name = f"fastmlp {variant} {precision}"
            contenders.append(Contender(name, TRAINER, arguments, {"FASTMLP_SIMD": variant}))
    module.use_variant(best)
    return contenders


def best_kernels() -> list[Contender]:
    """Return, for each precision, the kernels of the best variant that has it."""
    best: dict[str, Contender] = {}
    for contender in kernels():
        best.setdefault(contender.arguments["precision"], contender)
    return list(best.values())


def clocked() -> list[Contender]:
    """Return the contender that shows a step's Python, with the user's kernels; none if they are not built."""
    return [Contender(CLOCKED, "benchmarks.training:train_clocked", {"backend": "cython"})] if kernels() else []


def contenders(*, long: bool) -> list[Contender]:
    """Return what a user runs on this machine, with a compiler and without, and the alternatives.

    long  all contenders: every variant that this CPU runs, NumPy, and PyTorch compiled
    """
    fastest = kernels() if long else best_kernels()
    numba = Contender("fastmlp Numba", TRAINER, {"backend": "numba"})
    numpy = Contender("fastmlp NumPy", TRAINER, {"backend": "numpy"}, peers.NUMPY)
    avx2 = any(variant(contender) == "avx2" for contender in fastest)
    return [*fastest, numba, *([numpy] if long else []), *peers.pytorch(compiled=long, held_to_avx2=avx2)]


def variant(contender: Contender) -> str:
    """Return the variant of our kernels; empty for other contenders."""
    return contender.environment.get("FASTMLP_SIMD", "")


def is_compiled(contender: Contender) -> bool:
    """Whether it is PyTorch compiled, which takes a while."""
    return bool(contender.arguments.get("mode", {}).get("compiled"))


def accuracy(contender: Contender) -> str:
    """Return the class of accuracy: "float32" or "bf16"."""
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


def best_of_pytorch(
    contender: Contender, contenders: Sequence[Contender], results: Mapping[str, Result]
) -> Contender | None:
    """The fastest of the rivals; None where none has run."""
    ran = [rival for rival in rivals(contender, contenders) if not results[rival.name].failed]
    return min(ran, key=lambda rival: results[rival.name].median, default=None)
