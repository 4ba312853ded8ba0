"""The float types of training: each trains to the same loss, and auto takes the fastest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.events import Notice, Running
from fastmlp.files import checkpoint
from fastmlp.ops import get_ops
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.text import standard_library_text
from fastmlp.trainer import train
from tests.helpers import require_ops
from tests.runs import metrics_of, small_config
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_validation_on_the_way_has_trainings_precision_and_kept_weights_are_judged_in_float32(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ops = get_ops("numpy")

    def forward(*arguments: Any, fp32_precision: str, **options: Any) -> None:
        asked.append(fp32_precision)
        ops.linear_cross_entropy_forward(*arguments, **options)

    watched = Backend(replace(ops, linear_cross_entropy_forward=forward), None, None)
    monkeypatch.setattr("fastmlp.ops.backend.choose_backend", lambda _: watched)
    train(small_config(file, tmp_path / "run", precision="ieee"))
    # two trials tell how long the end will take; then steps 10, 20 and 30, and the end
    assert asked == ["auto"] * 2 + ["ieee"] * 3 + ["auto"] * (len(asked) - 5)
    assert len(asked) > 5


SGD = pytest.param(("sgd", 0.3), id="SGD", marks=pytest.mark.thorough)
ADAMW = pytest.param(("adamw", 0.002), id="AdamW")


@pytest.fixture(scope="module", params=[SGD, ADAMW])
def rule(request: pytest.FixtureRequest) -> tuple[str, float]:
    """An optimizer and its learning rate."""
    return request.param


@pytest.fixture(scope="module")
def float32_run(rule: tuple[str, float], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], float]:
    """What a network of a real vocabulary learns of real text with products of float32."""
    return learned("ieee", rule, tmp_path_factory.mktemp("ieee"))


def learned(precision: str, rule: tuple[str, float], folder: Path) -> tuple[list[float], float]:
    """The training loss, a mean over each 100 steps, and the validation loss at the end."""
    optimizer, lr = rule
    options: dict[str, Any] = {
        "steps": 1_500,
        "batch_size": 64,
        "hidden": (64, 64),
        "log_every": 100,
        "eval_every": 1_500,
    }
    options |= {"optimizer": optimizer, "lr": lr, "backend": "cython", "precision": precision}
    result = train(TrainConfig(out=str(folder / "run"), **options), text=standard_library_text())
    assert result.kept_val_loss is not None
    return [line["loss"] for line in metrics_of(result.folder) if "loss" in line], result.kept_val_loss


@pytest.mark.parametrize("precision", [pytest.param("bf16x3", marks=pytest.mark.thorough), "bf16"])
def test_every_precision_trains_to_the_same_loss(
    precision: str, rule: tuple[str, float], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The curves lie on each other, to a third of a percent of the perplexity: "auto" may take the fastest."""
    if precision not in require_ops("cython").precisions():
        pytest.skip(f"no {precision} products here")
    losses, val_loss = learned(precision, rule, tmp_path)
    want, want_val_loss = request.getfixturevalue("float32_run")  # only now: it takes as long
    assert len(losses) == len(want) >= 15
    assert want[0] - want[-1] > 1.5, "nothing was learned that could be lost"
    np.testing.assert_allclose(losses, want, rtol=5e-4)
    assert val_loss == pytest.approx(want_val_loss, rel=5e-4)


def test_auto_takes_the_fastest_precision_and_says_so(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    config = small_config(file, tmp_path / "run", steps=1, backend="cython")
    precisions = require_ops("cython").precisions()
    train(config, reporter=recorder)
    assert recorder.all(Running)[0].precision == ("bf16" if "bf16" in precisions else precisions[0])


def test_a_precision_that_the_back_end_lacks_is_refused_before_anything_is_written(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run", precision="bf16")
    with pytest.raises(ConfigError, match=r"^precision: expected auto or ieee, which numpy has, got 'bf16'$"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_in_another_precision_says_so(file: Path, tmp_path: Path) -> None:
    if "bf16" not in require_ops("cython").precisions():
        pytest.skip("no bf16 products here")
    train(small_config(file, tmp_path / "run", backend="cython", precision="ieee"))
    recorder, config = Recorder(), small_config(file, tmp_path / "run", backend="cython", precision="bf16", steps=31)
    train(config, resume=True, reporter=recorder)
    assert "it ran on cython in ieee before: cython in bf16 goes on with other bits" in [
        notice.text for notice in recorder.all(Notice)
    ]


def test_a_run_of_before_there_were_precisions_goes_on(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path / "run")
    tensors, metadata = checkpoint.load(train(config).folder / "last.safetensors")
    del metadata["precision"]
    checkpoint.save(tmp_path / "run" / "last.safetensors", tensors, metadata)
    assert train(config, resume=True).step == config.steps
