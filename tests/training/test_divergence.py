"""Promise 13: numbers that are none stop a run before its weights."""

import math
from pathlib import Path
from typing import Any

import pytest

from fastmlp.errors import DivergedError
from fastmlp.files import checkpoint
from fastmlp.trainer import open_run, train
from fastmlp.training.keeper import Folder
from fastmlp.training.optimizer import optimizer_state
from tests.runs import metrics_of, small_config, stop_after

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


def test_a_run_that_fails_keeps_its_best_weights(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of step 20, which waited for the next checkpoint."""
    monkeypatch.setattr(Folder, "save_is_due", lambda _keeper, step, *, is_best: step == 16)
    config = small_config(file, tmp_path / "run", save_every=None)
    with open_run(config) as run:
        step = run.network.step

        def poisoned(*batch_and_optimizer: Any) -> float:
            return math.nan if run.progress.step == 22 else step(*batch_and_optimizer)

        monkeypatch.setattr(run.network, "step", poisoned)
        with pytest.raises(DivergedError) as diverged:
            run.train()
    model, last = tmp_path / "run" / "model.safetensors", tmp_path / "run" / "last.safetensors"
    assert f"{last} holds step 16, and {model} the best weights, of step 20" in str(diverged.value)
    assert (checkpoint.load(last)[1]["step"], checkpoint.load(model)[1]["step"]) == (16, 20)
    assert not (tmp_path / "run" / "model.next.safetensors").exists()
    monkeypatch.undo()
    result = train(config, resume=True)
    assert checkpoint.load(model)[1]["step"] == result.kept_step


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
