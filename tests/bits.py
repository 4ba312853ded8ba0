"""Hash the results of runs: python -m tests.bits, before and after a change that must not change any bit.

Trains 200 steps, stopped and resumed in the middle, with each back-end, each variant and precision of the kernels that
this CPU has, and each optimizer, and prints the SHA-256 of the run's results. Equal outputs mean equal
bits; another CPU gives other bits.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the NumPy back-end's bits depend on it; read as NumPy is imported

from fastmlp import trainer
from fastmlp.config import OPTIMIZERS
from fastmlp.ops import get_ops
from tests.helpers import module_of
from tests.runs import outcome, small_config, stop_after, write_text

STEPS = {"steps": 200, "eval_every": 50, "log_every": 50, "sample_every": 100, "save_every": None}
DEFAULTS = {"context": 4, "embed": 30, "hidden": (300, 300), "batch_size": 128, "lr": None}
ORIGINAL = {**DEFAULTS, "batch_size": 32, "schedule": "constant", "optimizer": "sgd", "lr": 0.1}


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """What is trained, and the kernels' variant that is to run."""
    for backend in ("numpy", "numba"):
        for optimizer in OPTIMIZERS:
            yield "", {"backend": backend, "optimizer": optimizer}
        yield "", {"backend": backend, **DEFAULTS}
        yield "", {"backend": backend, **ORIGINAL}
    module = module_of(get_ops("cython"))
    for variant in module.variants():
        module.use_variant(variant)
        for precision in module.precisions():
            for optimizer in OPTIMIZERS:
                yield variant, {"backend": "cython", "optimizer": optimizer, "precision": precision}
            yield variant, {"backend": "cython", "precision": precision, **DEFAULTS}
            yield variant, {"backend": "cython", "precision": precision, **ORIGINAL}


def digest(folder: Path, **options: Any) -> str:
    """The SHA-256 of a run's outcome, which does not depend on the order of its keys."""
    config = small_config(write_text(folder), folder / "run", **STEPS, **options)
    trainer.train(config, should_stop=stop_after(100))
    trainer.train(config, resume=True)
    return hashlib.sha256(repr(in_order(outcome(folder / "run"))).encode()).hexdigest()


def in_order(value: Any) -> Any:
    """Dictionaries as sorted lists."""
    if isinstance(value, dict):
        return sorted((key, in_order(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return [in_order(each) for each in value]
    return value


def main() -> None:
    for variant, options in settings():
        with TemporaryDirectory() as folder:
            found = digest(Path(folder), **options)
        print(found[:16], variant, *(f"{name}={value}" for name, value in options.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
