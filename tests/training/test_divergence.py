"""Promise 13: numbers that are none stop a run before its weights."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastmlp.config import TrainConfig
from fastmlp.errors import CheckpointError, DivergedError
from fastmlp.events import Notice
from fastmlp.files import checkpoint
from fastmlp.files.run_folder import RunFolder
from fastmlp.trainer import open_run, train
from fastmlp.training.keeper import Folder
from fastmlp.training.optimizer import optimizer_state
from tests.runs import metrics_of, outcome, small_config, stop_after
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


@pytest.mark.parametrize("bad", ["the loss is nan at step 18", "the validation loss is nan at step 20"])
def test_promise_13_a_loss_that_is_no_number_stops_before_the_weights(
    bad: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(file, tmp_path / "run")
    with open_run(config) as run:
        network, step = run.network, run.network.step
        kept: dict[str, bytes] = {}

        def poisoned(*batch_and_optimizer: Any) -> float:
            if "validation" in bad or run.progress.step != 18:
                loss = step(*batch_and_optimizer)
                if "validation" in bad and run.progress.step == 19:
                    network.parameters["output.bias"][0] = math.nan
                return loss
            network.parameters["output.bias"][0] = math.nan
            kept.update({name: array.tobytes() for name, array in network.parameters.items()})
            return step(*batch_and_optimizer)

        monkeypatch.setattr(network, "step", poisoned)
        with pytest.raises(DivergedError, match=bad) as diverged:
            run.train()
        assert "with learning rate 0.0" in str(diverged.value)
        assert "try a lower one, such as --lr 0.002" in str(diverged.value)
        assert f"{tmp_path / 'run' / 'last.safetensors'} holds step 16" in str(diverged.value)
        assert all(kept[name] == run.network.parameters[name].tobytes() for name in kept)
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["step"] == 16
    assert (tmp_path / "run" / "loss.png").read_text() == f"run: {len(metrics_of(tmp_path / 'run'))} lines"


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recorder]:
    """fail(config) trains until its loss is nan at step 22; the best weights of step 20 wait for a checkpoint then."""

    def train_until(config: TrainConfig, before: Callable[[], object] = lambda: None) -> Recorder:
        recorder = Recorder()
        with monkeypatch.context() as patch, open_run(config, reporter=recorder) as run:
            step = run.network.step

            def poisoned(*batch_and_optimizer: Any) -> float:
                if run.progress.step == 22:
                    before()
                    return math.nan
                return step(*batch_and_optimizer)

            patch.setattr(Folder, "save_is_due", lambda _keeper, step, *, is_best: step == 16)
            patch.setattr(run.network, "step", poisoned)
            with pytest.raises(DivergedError, match=r"the loss is nan at step 22 .*last\.safetensors holds step 16"):
                run.train()
        return recorder

    return train_until


def test_a_run_that_fails_keeps_its_best_weights_beside_those_that_the_last_checkpoint_counts_on(
    file: Path, tmp_path: Path, fail: Callable[..., Recorder]
) -> None:
    config, folder = small_config(file, tmp_path / "run", save_every=None), RunFolder(tmp_path / "run")
    recorder = fail(config)
    notice = f"better weights than those of {folder.model}, of step 20: {folder.next}"
    assert notice in [event.text for event in recorder.all(Notice)]
    assert [checkpoint.load(file)[1]["step"] for file in (folder.last, folder.model, folder.next)] == [16, 10, 20]
    shutil.copytree(folder.path, tmp_path / "other")
    train(config, resume=True)  # as if it had never failed
    train(small_config(file, tmp_path / "whole", save_every=None))
    assert outcome(folder.path)["model.safetensors"][0] == outcome(tmp_path / "whole")["model.safetensors"][0]
    assert not folder.next.exists()
    result = train(small_config(file, tmp_path / "other", save_every=None, lr=30.0), resume=True)
    assert checkpoint.load(tmp_path / "other" / "model.safetensors")[1]["step"] == result.kept_step == 10


def test_promise_13_a_failure_is_told_even_if_the_best_weights_cannot_be_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[..., Recorder]
) -> None:
    def full_disk(path: Path, *_: Any) -> None:
        raise CheckpointError(f"cannot write {path}: No space left on device")

    config = small_config(file, tmp_path / "run", save_every=None)
    recorder = fail(config, lambda: monkeypatch.setattr(checkpoint, "save", full_disk))
    assert "are lost: cannot write" in recorder.all(Notice)[-1].text
    assert (tmp_path / "run" / "loss.png").exists()
    assert not (tmp_path / "run" / "model.next.safetensors").exists()


def test_promise_13_weights_are_not_held_beside_numbers_that_are_none(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "save_is_due", lambda _keeper, _step, *, is_best: False)
    with open_run(small_config(file, tmp_path / "run", save_every=None)) as run:
        remembered, _ = optimizer_state(run.optimizer, run.network.layers)
        remembered["square.output.bias"][0] = math.inf
        with pytest.raises(DivergedError, match=r"square\.output\.bias is no longer finite at step 10"):
            run.train()


def test_promise_13_weights_that_are_no_numbers_are_never_saved(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run", val_fraction=0)
    with open_run(config) as run:
        run.train(stop_after(5))
        remembered, _ = optimizer_state(run.optimizer, run.network.layers)
        remembered["square.output.bias"][0] = math.inf  # from now on that bias does not move
        with pytest.raises(DivergedError, match=r"square\.output\.bias is no longer finite at step 8"):
            run.train()
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["step"] == 5


def test_a_hopeless_learning_rate_stops_the_run_or_is_survived(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run", optimizer="sgd", lr=1e30, schedule="constant", warmup=0)
    with pytest.raises(DivergedError, match=r"with learning rate 1e\+30: try a lower one"):
        train(config)
