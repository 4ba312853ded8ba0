"""A text to train on."""

from pathlib import Path

import pytest

from tests.runs import write_text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_text(tmp_path)
