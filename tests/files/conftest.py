"""A checkpoint to be, and one that was saved."""

import pytest

from fastmlp.files.checkpoint import save
from tests.files.helpers import METADATA, TENSORS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    save(path, TENSORS, METADATA)
    return path
