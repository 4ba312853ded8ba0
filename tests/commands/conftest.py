"""A folder for each test, and a run that the commands can use."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from fastmlp.ops import backend
from fastmlp.ops.backend import choose_backend
from tests.runs import small_config, write_text


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_picture: None) -> None:
    """Each test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)


@pytest.fixture
def on_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` means NumPy: the one back-end that every machine has."""
    numpy = choose_backend("numpy")
    monkeypatch.setattr(
        backend, "choose_backend", lambda name="auto": numpy if name == "auto" else choose_backend(name)
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned a little, with its text beside it."""
    folder = tmp_path_factory.mktemp("trained")
    options = {"steps": 400, "batch_size": 32, "eval_every": 100, "save_every": None}
    importlib.import_module("fastmlp.trainer").train(small_config(write_text(folder), folder / "run", **options))
    return folder / "run"
