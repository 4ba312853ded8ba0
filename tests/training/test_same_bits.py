"""Promise 4: the same bits for any number of threads, from memory or a file; another seed gives others."""

from pathlib import Path

import pytest

from fastmlp.config import TrainConfig
from fastmlp.files import checkpoint
from fastmlp.ops import Ops
from fastmlp.text import Text
from fastmlp.trainer import train
from tests.runs import learnable_text, metrics_of, outcome, small_config, small_options

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_text_in_memory_and_the_same_text_in_a_file_give_the_same_bits(file: Path, tmp_path: Path) -> None:
    train(small_config(file, tmp_path / "file"))
    text = Text(learnable_text(), ())
    train(TrainConfig(out=str(tmp_path / "memory"), **small_options()), text=text)
    assert outcome(tmp_path / "file") == outcome(tmp_path / "memory")


def test_promise_4_the_same_bits_for_any_number_of_threads(ops: Ops, tmp_path: Path) -> None:
    """Of a text with so many words that the last layer is work for several."""
    options = small_options(steps=12, batch_size=33, hidden=(40, 70), backend=ops.backend)
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
