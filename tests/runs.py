"""Small training runs: a text that can be learned, a quick configuration, and the files of a run."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastmlp.config import TrainConfig
from fastmlp.files import checkpoint

ROOT = Path(__file__).parent.parent
SENTENCES = 600


def learnable_text(sentences: int = SENTENCES) -> str:
    """Return sentences in which each word almost determines the next; without context a word is hard to guess."""
    rng = np.random.default_rng(7)
    follows = {  # who does what to whom, where
        "anna": "paints a red door in the old town",
        "boris": "sells warm bread near the north gate",
        "clara": "hides nine coins under her bed",
        "david": "writes long letters about his small garden",
        "elena": "feeds six hens behind that green barn",
    }
    names = list(follows)
    return "\n".join(f"{name} {follows[name]}." for name in rng.choice(names, sentences)) + "\n"


def unigram_entropy(words: list[str]) -> float:
    """Return the loss in nats of a model that knows only the words' frequencies."""
    counts = np.unique(np.array(words), return_counts=True)[1] / len(words)
    return float(-(counts * np.log(counts)).sum())


def write_text(folder: Path, text: str | None = None) -> Path:
    file = folder / "story.txt"
    file.write_text(learnable_text() if text is None else text, encoding="utf-8")
    return file


def small_options(**options: Any) -> dict[str, Any]:
    """Return options of a small network on NumPy, for 30 steps that include every action of a run."""
    return {
        "steps": 30,
        "batch_size": 16,
        "context": 3,
        "embed": 6,
        "hidden": (12, 10),
        "lr": 0.02,
        "eval_every": 10,
        "eval_windows": 50,
        "log_every": 7,
        "sample_every": 15,
        "save_every": 4,
        "backend": "numpy",
        **options,
    }


def small_config(file: Path, out: Path, **options: Any) -> TrainConfig:
    return TrainConfig(files=(str(file),), out=str(out), **small_options(**options))


def window_options(**options: Any) -> dict[str, Any]:
    """The same of a network with one width of hidden layers and with all that it may have."""
    network = {"embed": 8, "hidden": 12, "reach": 10, "blocks": 2, "dropout": (0.1, 0.2, 0.3), "weight_decay": 0.1}
    return small_options(**{**network, "patience": 0, **options})


def window_config(file: Path, out: Path, **options: Any) -> TrainConfig:
    return TrainConfig(files=(str(file),), out=str(out), **window_options(**options))


def flags(options: dict[str, Any]) -> list[str]:
    """The options as a command has them."""
    return [
        argument
        for name, value in options.items()
        for argument in (
            f"--{name.replace('_', '-')}",
            ",".join(map(str, value)) if isinstance(value, tuple) else str(value),
        )
    ]


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, which must all be whole."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def outcome(folder: Path) -> dict[str, Any]:
    """Return the results of a run, without its duration and its folder."""
    found: dict[str, Any] = {"samples": (folder / "samples.txt").read_text(encoding="utf-8")}
    found["metrics"] = [
        {name: value for name, value in line.items() if name not in ("seconds", "words_per_second")}
        for line in metrics_of(folder)
    ]
    for name in ("model.safetensors", "last.safetensors"):
        tensors, metadata = checkpoint.load(folder / name)
        for key in ("seconds", "interval_seconds"):
            metadata.get("progress", {}).pop(key, None)
        for key in ("metrics_bytes", "files"):
            metadata.pop(key, None)
        metadata["config"].pop("files")
        found[name] = ({key: array.tobytes() for key, array in tensors.items()}, metadata)
    return found


class QuickPicture:
    """A replacement for `draw_loss` and its figure: a line of text; test_plot.py tests the real picture."""

    def __init__(self, metrics: list[dict[str, Any]], title: str) -> None:
        self.text = f"{title}: {len(metrics)} lines"

    def savefig(self, file: IO[bytes], **_: Any) -> None:
        file.write(self.text.encode())


def stop_after(steps: int) -> Callable[[], bool]:
    """Return a should_stop that allows a number of steps."""
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def lines_in(folder: str | Path) -> int:
    """How many lines metrics.jsonl has by now."""
    file = Path(folder) / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@contextlib.contextmanager
def process(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, one thread for BLAS, ended at the latest with the test."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    for name in options.pop("without", ()):
        environment.pop(name, None)
    command = [sys.executable, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **{**pipes, **options}) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    """The time does not matter, on a busy machine either; the limit only ends a test that would hang."""
    for _ in range(6_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited for two minutes")
