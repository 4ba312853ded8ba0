"""A text to train on, and pictures that take no time."""

from pathlib import Path
from typing import Any

import pytest

from tests.runs import write_text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_text(tmp_path)


@pytest.fixture
def quick_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture itself is test_plot.py's; here it is enough that it is asked for."""

    def plot_loss(metrics: list[dict[str, Any]], path: Path, *, title: str) -> None:
        path.write_text(f"{title}: {len(metrics)} lines")

    monkeypatch.setattr("fastmlp.training.keeper.plot_loss", plot_loss)
