"""Runs that an earlier version left behind go on, and its models are loaded.

tests/data/runs_of_0e6bef8 has one run of each back-end, stopped at step 17 of 30 by the version of that commit.
"""

import dataclasses
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fastmlp import trainer
from fastmlp.config import NEW, TrainConfig, read_toml
from fastmlp.files import checkpoint
from fastmlp.language_model import LanguageModel
from fastmlp.network.shape import NetworkShape
from fastmlp.options import ConfigError
from fastmlp.train import main
from fastmlp.training.recipe import filled_in
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


def test_an_old_run_goes_on_with_the_words_that_it_had(folder: Path) -> None:
    """A text that the newest rules would read and split in another way."""
    page = "<html>\n" + "I don´t ﬁnd 我们 &eacute; &amp; more. " * 40
    (folder / "page.txt").write_text(page, encoding="utf-8")
    config = small_config(Path("page.txt"), Path("run"), backend="numpy", steps=4)
    trainer.train(dataclasses.replace(config, rules=1))
    for checkpoint_file in (folder / "run" / "last.safetensors", folder / "run" / "model.safetensors"):
        tensors, metadata = checkpoint.load(checkpoint_file)
        del metadata["rules"], metadata["config"]["rules"], metadata["config"]["keep_licence"]
        checkpoint.save(checkpoint_file, tensors, metadata)
    toml = (folder / "run" / "config.toml").read_text(encoding="utf-8")
    old = toml.replace("rules = 1\n", "").replace("keep_licence = false\n", "")
    assert toml != old
    (folder / "run" / "config.toml").write_text(old, encoding="utf-8")
    shutil.copytree("run", "again")
    assert main(["--resume", "--out", "run", "--steps", "6", "--quiet"]) == 0
    trainer.train(dataclasses.replace(config, out="again", steps=6), resume=True)
    for run in ("run", "again"):
        assert {"don", "ﬁnd", "我们", "amp", "html"} < set(LanguageModel.load(run, backend="numpy").vocabulary.words)
    with pytest.raises(ConfigError, match="rules: a run that is resumed keeps what it began with: 1"):
        trainer.train(dataclasses.replace(config, steps=8, rules=2), resume=True)


@backends
def test_an_old_configuration_means_the_old_network(folder: Path, backend: str) -> None:
    """It says nothing of what came later: that is as it was, not as it is by default now."""
    config = TrainConfig.layered(read_toml(folder / backend / "config.toml"))
    assert (config.hidden, config.context, config.embed) == ((12, 10), 3, 6)
    assert (config.averages, config.reach, config.blocks, config.residual) == ((), 0, 0, False)
    assert (config.activation, config.projection, config.tied) == ("tanh", False, False)
    assert (config.dropout, config.embed_std, config.output_bias, config.patience) == ((0, 0, 0), 1, "zero", 0)
    assert (config.lr, config.weight_decay, config.betas) == (0.02, 0.01, (0.9, 0.999))
    assert filled_in(config, 1_000) == config
    with_no_option = tomllib.loads((folder / backend / "config.toml").read_text(encoding="utf-8"))
    assert not with_no_option.keys() & {*NEW, "embed_std", "output_bias", "patience"}
    shape = LanguageModel.load(folder / backend).network.shape
    assert shape == NetworkShape(len(words_of(folder / backend)), 3, 6, (12, 10))


def words_of(run: Path) -> list[str]:
    words: list[str] = checkpoint.load(run / "model.safetensors")[1]["vocabulary"]
    return words


@backends
@pytest.mark.parametrize("file", ["model.safetensors", "last.safetensors"])
def test_an_old_model_gives_the_text_its_old_perplexity(folder: Path, backend: str, file: str) -> None:
    """The version that made it printed the figure."""
    model = LanguageModel.load(folder / backend / file)
    perplexity = model.perplexity((folder / "story.txt").read_text(encoding="utf-8"))
    assert perplexity == pytest.approx(PERPLEXITIES[file], rel=1e-4)
