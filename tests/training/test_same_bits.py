"""Promise 4: the same bits for any number of threads, from memory or a file; another seed gives others."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.files import checkpoint
from fastmlp.ops import Ops
from fastmlp.text import Text
from fastmlp.trainer import open_run, train
from tests.runs import (
    learnable_text,
    metrics_of,
    outcome,
    small_config,
    small_options,
    stop_after,
    window_config,
    window_options,
)

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_text_in_memory_and_the_same_text_in_a_file_give_the_same_bits(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "file"))
    text = Text(learnable_text(), ())
    train(TrainConfig(out=str(tmp_path / "memory"), **small_options()), text=text)
    assert outcome(tmp_path / "file") == outcome(tmp_path / "memory")


@pytest.mark.parametrize("network", ["widths", "tied", "untied"])
def test_promise_4_the_same_bits_for_any_number_of_threads(network: str, ops: Ops, tmp_path: Path) -> None:
    """Of a text with so many words that the last layer is work for several."""
    size = {"steps": 12, "batch_size": 33, "backend": ops.backend}
    options = small_options(hidden=(40, 70), **size)
    if network != "widths":
        options = window_options(hidden=70, embed=40, tied=network == "tied", **size)
    text = Text(" ".join(f"w{number * number % 2_003}" for number in range(6_000)), ())
    if ops.backend == "numpy":
        pytest.skip("promised at an equal number of BLAS threads only")
    for threads in (1, 2, 3):
        train(TrainConfig(out=str(tmp_path / str(threads)), **options, threads=threads), text=text)
    one, two, three = (checkpoint.load(tmp_path / name / "last.safetensors")[0] for name in "123")
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes() == three[name].tobytes(), name


def test_the_seed_decides(file: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(small_config(file, tmp_path / name, steps=10, seed=seed))
    a, b, c = (metrics_of(tmp_path / name)[-1]["loss"] for name in "abc")
    assert a == b != c


def test_the_seed_decides_what_is_left_out(file: Path, tmp_path: Path) -> None:
    """And the step: with one mask for all of them the loss would be another too."""
    masks: dict[int, list[bytes]] = {}
    for seed in (1, 2):
        with open_run(window_config(file, tmp_path / str(seed), steps=3, seed=seed)) as run:
            layers, seen = run.network.layers, masks.setdefault(seed, [])
            np.testing.assert_array_equal(layers.counter, [seed, 0])
            for step in range(3):
                run.network.step(run.batches.batch(step), run.optimizer, step)
                dropped = layers.output_dropout.forward(np.ones((16, 8), np.float32))
                assert dropped.tobytes() not in seen
                seen.append(dropped.tobytes())
    assert masks[1] != masks[2]


def test_the_masks_are_those_of_the_step(file: Path, tmp_path: Path) -> None:
    """Of a run that goes on too."""
    config, seen = window_config(file, tmp_path / "run", steps=5, seed=9), []
    for stop in (stop_after(2), lambda: False):
        with open_run(config, resume=True) as run:
            reporter = SimpleNamespace(
                report=lambda event: None,
                step=lambda *_, layers=run.network.layers: seen.append(layers.counter.tolist()),
            )
            run.reporter = reporter
            run.train(stop)
    assert seen == [[9, step] for step in range(5)]


def test_dropout_is_of_training_only(file: Path, tmp_path: Path) -> None:
    with open_run(window_config(file, tmp_path / "run")) as run:
        batch = run.batches.batch(0)
        once, again = (run.network.losses(batch) for _ in range(2))
        run.network.step(batch, run.optimizer, 1)
        changed = run.network.losses(batch)
    assert once.tobytes() == again.tobytes() != changed.tobytes()
    assert run.network.shape.dropout == (0.1, 0.2, 0.3)
