"""Runs that an earlier version left behind go on, and its models are loaded.

tests/data/runs_of_0e6bef8 has one run of each back-end, stopped at step 17 of 30 by the version of that commit.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fastmlp import trainer
from fastmlp.language_model import LanguageModel
from fastmlp.train import main
from tests.helpers import require_ops
from tests.runs import metrics_of, small_config

RUNS = Path(__file__).parents[1] / "data" / "runs_of_0e6bef8"
PERPLEXITIES = {"model.safetensors": 32.19094, "last.safetensors": 25.81294}
backends = pytest.mark.parametrize("backend", ["numpy", "numba", "cython"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with copies of the runs and their text, to work in."""
    monkeypatch.chdir(shutil.copytree(RUNS, tmp_path / "runs"))
    return Path()


@backends
def test_an_old_run_goes_on_to_the_losses_of_a_new_one(folder: Path, backend: str) -> None:
    require_ops(backend)
    (before,) = (line["step"] for line in metrics_of(folder / backend)[-1:])
    assert before < 30
    assert main(["--resume", "--out", backend, "--quiet"]) == 0
    trainer.train(small_config(Path("story.txt"), Path("new"), backend=backend, precision="ieee"))
    resumed, new = (
        {
            (line["step"], name): line[name]
            for line in metrics_of(folder / run)
            for name in ("loss", "val_loss")
            if name in line
        }
        for run in (backend, "new")
    )
    assert resumed.keys() == new.keys()
    assert (30, "val_loss") in new
    np.testing.assert_allclose(list(resumed.values()), list(new.values()), rtol=1e-4)


@backends
@pytest.mark.parametrize("file", ["model.safetensors", "last.safetensors"])
def test_an_old_model_gives_the_text_its_old_perplexity(folder: Path, backend: str, file: str) -> None:
    """The version that made it printed the figure."""
    model = LanguageModel.load(folder / backend / file)
    perplexity = model.perplexity((folder / "story.txt").read_text(encoding="utf-8"))
    assert perplexity == pytest.approx(PERPLEXITIES[file], rel=1e-4)
