"""Promise 15: memory keeps to its formula."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from fastmlp.events import Reporter
from fastmlp.files import checkpoint
from fastmlp.trainer import train
from tests.helpers import require_ops
from tests.runs import small_config

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_promise_15_memory_does_not_grow_and_keeps_to_its_formula(file: Path, tmp_path: Path) -> None:
    class Watch(Reporter):
        def __init__(self) -> None:
            self.held: dict[int, int] = {}

        def step(self, step: int, share: float, loss: float) -> None:
            if step in (150, 1_200):
                self.held[step] = tracemalloc.get_traced_memory()[0]

    watch = Watch()
    options: dict[str, Any] = {
        "eval_every": 100,
        "log_every": 50,
        "sample_every": 200,
        "save_every": 250,
        "hidden": (400, 300),
    }
    train(small_config(file, tmp_path / "first", steps=3))  # what is imported and kept once
    tracemalloc.start()
    try:
        train(small_config(file, tmp_path / "run", steps=1_201, **options), reporter=watch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert watch.held[1_200] - watch.held[150] < 40_000  # 38 bytes a step
    parameters = sum(a.size for a in checkpoint.load(tmp_path / "run" / "model.safetensors")[0].values())
    training, saving = 4 * parameters * (1 + 1 + 2), 2 * 4 * parameters * (1 + 2)
    batch = 4 * 256 * (3 * sum(options["hidden"]) + 3 * 3 * 6) + 8 * 256 * 42
    text = 2_500_000  # its bytes are read in pieces of a million
    assert peak < training + saving + batch + text < 1.5 * peak


MEASURE_PEAK = """
import sys
from pathlib import Path
from fastmlp.text import Text
from fastmlp.trainer import train
from tests.runs import learnable_text, small_options
from fastmlp.config import TrainConfig

def peak():
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])  # not ru_maxrss, which begins with that of the parent

def run(words, name, **options):
    text = Text(" ".join(f"w{i % words}" for i in range(20_000)), ())
    options = small_options(steps=3, optimizer="sgd", val_fraction=0, backend="cython", threads=2, **options)
    options["precision"] = "ieee"
    train(TrainConfig(out=str(Path(sys.argv[1]) / name), **options), text=text)

run(50, "first")
before = peak()
run(6_000, "wide", hidden=(16, 1_000), batch_size=2_048)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_promise_15_the_compiled_kernels_keep_to_the_formula_where_the_last_layer_is_wide(tmp_path: Path) -> None:
    """What C takes tracemalloc does not see, so it is the process that is measured."""
    require_ops("cython")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_PEAK, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    peak = int(done.stdout)
    V, H, R, slices, block, threads = 6_001, 1_000, 2_048, 32, 120, 2
    L = R + 16  # whole vectors, an odd number of cache lines
    parameters = sum(a.size for a in checkpoint.load(tmp_path / "wide" / "model.safetensors")[0].values())
    training, saving = 4 * parameters * (1 + 1), 2 * 4 * parameters
    activations = 4 * R * (3 * (H + 16) + 3 * 3 * 6)
    work = H * L + (slices * (3 + block) + threads * block) * L + H * R + slices * H * L + V * L
    assert peak < training + saving + activations + 4 * work + 5_000_000 < 1.5 * peak
