"""Where a run is kept: the same questions to memory and to a folder."""

import errno
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.config import TrainConfig
from fastmlp.errors import CheckpointError
from fastmlp.events import Event, Saved
from fastmlp.files import checkpoint
from fastmlp.files.run_folder import RunFolder
from fastmlp.ops import get_ops
from fastmlp.optim import AdamW
from fastmlp.training.keeper import Folder, Keeper, Memory
from fastmlp.training.optimizer import optimizer_state
from fastmlp.training.progress import Progress
from fastmlp.training.state import TrainingState
from tests.networks import small_language

CONFIG = TrainConfig(save_every=3)


def training_state(seed: int = 1) -> TrainingState:
    model = small_language(np.random.default_rng(seed), get_ops("numpy"))
    optimizer = AdamW(model.network.layers.parameters())
    facts = {"backend": "numpy", "precision": "ieee", "config": {"eval_windows": 10}, "fastmlp": "0"}
    return TrainingState(model, optimizer, Progress(step=5, best_step=5, best_loss=1.0), facts)


def arrays(state: TrainingState) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.to_checkpoint()[0].items()}


def change(state: TrainingState) -> None:
    """Change the weights, as a step does."""
    for array in state.model.network.parameters.values():
        array += 1


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Folder]:
    told: list[Event] = []

    def make(*, replaces: bool = False) -> Folder:
        keeper = Folder(RunFolder(tmp_path), CONFIG, told.append, replaces=replaces)
        keeper.told = told
        return keeper

    return make


def test_in_memory_the_best_weights_stay_as_they_were() -> None:
    keeper, state = Memory(), training_state()
    best = {name: array.copy() for name, array in state.model.network.state_dict().items()}
    keeper.save(state)
    change(state)
    state.progress.step = 6
    keeper.save(state)  # of step 6, which is not the best
    kept = keeper.best(state.model).network.state_dict()
    assert all(kept[name].tobytes() == best[name].tobytes() for name in best)
    due = keeper.save_is_due(3, is_best=True)
    assert (keeper.path, keeper.saved_step, due, keeper.draw()) == (None, None, False, None)


def test_a_folder_gives_back_what_it_was_given(folder: Callable[..., Folder]) -> None:
    keeper, state = folder(), training_state()
    keeper.open(state, None)
    keeper.begin(state)
    keeper.write_metrics({"step": 5, "loss": 1.5})
    keeper.write_samples("step 5\nthe cat\n\n")
    keeper.save(state)
    keeper.write_metrics({"step": 6, "loss": 1.25})  # after the checkpoint: not of what is resumed
    keeper.close()
    assert [type(event) for event in keeper.told] == [Saved, Saved]

    again, resumed = folder(), training_state(seed=2)
    assert arrays(resumed) != arrays(state)
    again.open(resumed, checkpoint.load(again.folder.last))
    assert arrays(resumed) == arrays(state)
    assert resumed.progress == state.progress
    assert (again.saved_step, again.metrics()) == (5, [{"step": 5, "loss": 1.5}])
    best = again.best(resumed.model).network.state_dict()
    assert all(best[name].tobytes() == array.tobytes() for name, array in state.model.network.state_dict().items())
    again.close()


def test_a_folder_saves_as_often_as_it_is_told(folder: Callable[..., Folder], monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, state, now = folder(), training_state(), [100.0]
    assert [step for step in range(1, 10) if keeper.save_is_due(step, is_best=step == 5)] == [3, 5, 6, 9]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    keeper.config = TrainConfig()
    keeper.open(state, None)
    keeper.start()
    assert not keeper.save_is_due(1, is_best=False)
    now[0] += 60
    assert keeper.save_is_due(1, is_best=False)
    keeper.save(state)
    assert not keeper.save_is_due(2, is_best=False)
    keeper.close()


def test_saving_better_weights_takes_a_fiftieth_of_the_time_at_most(
    folder: Callable[..., Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, state, now = folder(), training_state(), [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    keeper.config = TrainConfig()
    keeper.open(state, None)
    keeper.start()
    assert keeper.save_is_due(5, is_best=True)  # nobody knows yet how long it takes
    written, seconds = checkpoint.save, 0.1

    def slow_save(*arguments: Any) -> None:
        now[0] += seconds
        written(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow_save)
    keeper.save(state)  # two files, 0.2 seconds: the next one after 9.8
    now[0] += 9.7
    assert not keeper.save_is_due(6, is_best=True)
    keeper.hold_best(state)
    now[0] += 0.2
    assert keeper.save_is_due(7, is_best=False)  # of those that are held
    keeper.save(state)
    assert not keeper.save_is_due(8, is_best=False)
    now[0] += 9.9
    assert not keeper.save_is_due(9, is_best=False)  # nothing is held: a minute
    seconds = 2.0
    keeper.save(state)  # two files, 4 seconds, whose fiftieth would be 200: a minute
    now[0] += 59.9
    assert not keeper.save_is_due(10, is_best=True)
    now[0] += 0.2
    assert keeper.save_is_due(11, is_best=True)
    keeper.close()


@pytest.mark.parametrize("make", [lambda keeper: keeper, lambda _keeper: Memory()], ids=["folder", "memory"])
def test_the_best_weights_are_never_in_memory_twice(
    folder: Callable[..., Folder], make: Callable[[Folder], Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, state, copies = make(folder()), training_state(), list[weakref.ref[np.ndarray]]()

    class Weight(np.ndarray):
        """An array that knows its copies."""

        def copy(self, order: Any = "C") -> np.ndarray:
            assert not any(copy() is not None for copy in copies)
            copied = np.array(self, order=order, subok=True)
            copies.append(weakref.ref(copied))
            return copied

    monkeypatch.setattr(TrainingState, "weights", lambda _state: {"weight": np.zeros(3).view(Weight)})
    for _ in range(3):
        keeper.hold_best(state)
    assert len(copies) == 3


def test_the_best_weights_are_held_until_the_run_is_saved(folder: Callable[..., Folder]) -> None:
    keeper, state = folder(), training_state()
    keeper.open(state, None)
    best = {name: array.copy() for name, array in state.model.network.state_dict().items()}
    change(state)
    keeper.hold_best(state)
    for name, array in state.model.network.state_dict().items():
        array[...] = best[name]
    keeper.hold_best(state)  # better ones
    change(state)
    state.progress.step = 8
    assert not keeper.folder.model.exists()
    keeper.save(state)
    weights, metadata = checkpoint.load(keeper.folder.model)
    assert metadata["step"] == state.progress.best_step == 5
    assert all(weights[name].tobytes() == best[name].tobytes() for name in best)
    assert checkpoint.load(keeper.folder.last)[1]["step"] == 8
    state.progress.step = 9
    keeper.save(state)  # and they are not held any more
    state.progress.step = state.progress.best_step = 10
    keeper.hold_best(training_state(seed=3))
    keeper.save(state)  # better ones, which are saved as they are: those that were held are of the past
    assert checkpoint.load(keeper.folder.model)[1]["step"] == 10
    assert not keeper.folder.next.exists()
    assert [(Path(event.file).name, event.step) for event in keeper.told] == [
        ("last.safetensors", 8),
        ("model.safetensors", 5),
        ("last.safetensors", 9),
        ("last.safetensors", 10),
        ("model.safetensors", 10),
    ]
    keeper.close()


def test_a_checkpoint_that_cannot_be_written_leaves_no_better_weights_behind(
    folder: Callable[..., Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, state = folder(), training_state()
    keeper.open(state, None)
    keeper.save(state)
    before = keeper.folder.model.read_bytes()
    change(state)
    state.progress.step = state.progress.best_step = 6
    keeper.hold_best(state)
    state.progress.step = 8
    written = checkpoint.save

    def full_disk(path: Path, *rest: Any) -> None:
        if path == keeper.folder.last:
            raise CheckpointError(f"cannot write {path}: No space left on device")
        written(path, *rest)

    monkeypatch.setattr(checkpoint, "save", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        keeper.save(state)
    assert keeper.folder.model.read_bytes() == before
    assert not keeper.folder.next.exists()
    keeper.close()


def test_better_weights_stay_where_their_checkpoint_is_there_but_perhaps_not_for_good(
    folder: Callable[..., Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a disk fails after the file was renamed."""
    keeper, state = folder(), training_state()
    keeper.open(state, None)
    keeper.hold_best(state)
    state.progress.step = 8

    def broken_disk(_: Path) -> None:
        if keeper.folder.last.exists():
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("fastmlp.files.atomic._sync_folder", broken_disk)
        with pytest.raises(CheckpointError, match="Input/output error"):
            keeper.save(state)
    keeper.close()
    again = folder()
    again.open(training_state(seed=2), checkpoint.load(again.folder.last))
    assert checkpoint.load(again.folder.model)[1]["step"] == 5
    again.close()


def test_weights_whose_checkpoint_was_never_written_are_removed(folder: Callable[..., Folder]) -> None:
    keeper, state = folder(), training_state()
    keeper.folder.next.write_bytes(b"of a run that was killed")
    keeper.open(state, None)
    assert not keeper.folder.next.exists()
    keeper.close()


def test_the_run_that_is_replaced_stays_until_the_first_step(folder: Callable[..., Folder]) -> None:
    first = folder()
    first.open(training_state(), None)
    first.write_metrics({"step": 0})
    first.close()
    keeper, state = folder(replaces=True), training_state()
    assert json.loads(keeper.folder.metrics.read_text()) == {"step": 0}
    keeper.begin(state)
    assert not keeper.replaces
    assert keeper.folder.metrics.read_text() == ""
    assert keeper.folder.config.read_text().startswith("# The configuration")
    keeper.close()


def test_an_array_that_is_not_finite_is_named() -> None:
    state = training_state()
    assert state.not_finite() is None
    remembered, _ = optimizer_state(state.optimizer, state.model.network.layers)
    remembered["square.output.bias"][0] = np.inf
    assert state.not_finite() == "square.output.bias"
