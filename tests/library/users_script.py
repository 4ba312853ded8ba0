"""A program of somebody who uses fastmlp: strict type checkers find nothing in it, and it runs.

`.ci/run` checks it against the installed wheel and the editable installation, `mypy` against the source.
"""

from pathlib import Path
from typing import assert_type

import numpy as np

import fastmlp.functional as F
from fastmlp import KneserNey, LanguageModel
from fastmlp.nn import (
    BatchNorm1d,
    CrossEntropyLoss,
    Embedding,
    Flatten,
    Linear,
    LinearCrossEntropyLoss,
    Sequential,
    Tanh,
)
from fastmlp.optim import SGD

Array = np.ndarray


def train_by_hand(steps: int = 20) -> float:
    """The lectures' loop."""
    rng = np.random.default_rng(42)
    xs, ys = rng.integers(0, 27, (32, 3)), rng.integers(0, 27, 32)
    model = Sequential(
        Embedding(27, 10), Flatten(), Linear(30, 100, bias=False), BatchNorm1d(100), Tanh(), Linear(100, 27)
    )
    criterion, optimizer = CrossEntropyLoss(), SGD(model.parameters(), lr=0.1)
    last = 0.0
    for _ in range(steps):
        logits = model(xs)
        assert_type(logits, Array)
        loss = criterion(logits, ys)
        assert_type(loss, Array)
        model.backward(criterion.backward())
        optimizer.step()
        last = float(loss)
        print(f"{loss:.4f}", loss.item())
    for name, weight in model.named_parameters():
        assert_type(name, str)
        assert_type(weight, Array)
    head = LinearCrossEntropyLoss(100, 27)
    assert_type(head(np.zeros((32, 100)), ys), Array)
    assert_type(Linear(3, 2)(np.zeros((1, 3))), Array)
    assert_type(F.linear(np.zeros((1, 3)), np.zeros((2, 3))), Array)
    return last


def use_a_language_model(text: str, file: Path) -> None:
    """Train, ask, save, load."""
    model = LanguageModel(embed=8, hidden=8, reach=10)
    model.fit(text, steps=5, progress=False)
    assert_type(model.generate("to be", words=3), str)
    assert_type(model.perplexity(text), float)
    assert_type(model.next_word("to be", 2), list[tuple[str, float]])
    model.save(file)
    assert_type(LanguageModel.load(file), LanguageModel)
    assert_type(KneserNey(order=3).fit(text).perplexity(text), float)


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    assert 0 < train_by_hand() < 4
    with TemporaryDirectory() as folder:
        use_a_language_model("to be or not to be that is the question. " * 50, Path(folder) / "model.safetensors")
