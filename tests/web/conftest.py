"""A folder with runs and a text, the server's application, and a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmlp.trainer import train
from tests.runs import small_config, write_text

pytest.importorskip("starlette", reason="the page needs fastmlp[play]")

from starlette.testclient import TestClient

from fastmlp.web.server import make_app
from fastmlp.web.shelf import Shelf

TOKEN, HOST = "the-token", "127.0.0.1:8765"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs on one text, one of them with counts and a cache, the other not finished."""
    folder = tmp_path_factory.mktemp("made")
    text = write_text(folder)
    runs, options = folder / "runs", {"steps": 200, "eval_every": 100, "backend": "auto", "hidden": 24, "lr": 0.01}
    train(small_config(text, runs / "whole", counts=True, **options))
    asked = iter(range(40))
    train(small_config(text, runs / "begun", **options), should_stop=lambda: next(asked, None) is None)
    (folder / "texts").mkdir()
    text.replace(folder / "texts" / "story.txt")
    (folder / "secret.txt").write_text("nobody may read this", encoding="utf-8")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "folder")
    return tmp_path / "folder"


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    """Asks the server as the page does; without the token in its addresses."""
    app = make_app(Shelf(folder), TOKEN, HOST)
    with TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False) as client:
        yield client
