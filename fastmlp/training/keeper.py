"""Where a run keeps its metrics, samples, checkpoints and best weights: in memory, or in a folder."""

import contextlib
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastmlp.config import SAVE_SECONDS, TrainConfig, to_toml
from fastmlp.errors import CheckpointError, RunFolderError
from fastmlp.events import Event, Notice, Resumed, Saved
from fastmlp.files import checkpoint
from fastmlp.files.atomic import move, write_atomically
from fastmlp.files.checkpoint import Blocks
from fastmlp.files.run_folder import Journal, RunFolder
from fastmlp.network.network import Network
from fastmlp.pictures.plot import plot_loss
from fastmlp.prediction.mixture import MIXTURE, Mixture, load_mixture
from fastmlp.prediction.neural import MODEL, NeuralModel
from fastmlp.training.state import Checkpoint, TrainingState

__all__ = ["Folder", "Keeper", "Memory"]

FIRST_PICTURE = 10.0  # seconds after which a run is worth a picture
SAVING_SHARE = 0.02  # of the time, for saving better weights

Report = Callable[[Event], object]


class Keeper(Protocol):
    """What a run asks of where it is kept, in the order in which it asks."""

    path: Path | None  # of the folder, if there is one
    saved_step: int | None  # of the checkpoint to go on from, if there is one
    replaces: bool  # whether the folder still holds another run, which stays until the first step of this one

    def open(self, state: TrainingState, saved: Checkpoint | None) -> None:
        """Get ready to write, from the beginning or after a checkpoint, whose contents `state` becomes."""

    def start(self) -> None:
        """Training starts: what is due by the clock is counted from now on."""

    def begin(self, state: TrainingState) -> None:
        """The first step comes next: from now on the run may write."""

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """A line of metrics."""

    def write_samples(self, texts: str) -> None:
        """Sample texts."""

    def save_is_due(self, step: int, *, is_best: bool) -> bool:
        """Whether to save after a step; is_best  whether its weights are the best so far."""

    def hold_best(self, state: TrainingState) -> None:
        """Keep a copy of the weights, the best so far, in memory until the run is saved."""

    def save(self, state: TrainingState) -> None:
        """Keep what resuming needs, and the best weights so far: these, or those that are held."""

    def save_held(self) -> None:
        """Keep the best weights if they are held, beside all that is kept: there will be no checkpoint of them."""

    def best(self, model: NeuralModel) -> NeuralModel:
        """The model of the best weights; `model` is the one that is trained."""

    def save_mixture(self, mixture: Mixture) -> None:
        """Keep what the best weights are mixed with."""

    def mixture(self, best: NeuralModel) -> Mixture:
        """The best weights with what was kept to mix them with."""

    def mixture_file(self) -> str | None:
        """The file of what was kept to mix them with; None: there is none."""

    def draw_is_due(self) -> bool:
        """Whether to draw the loss over the steps."""

    def draw(self) -> str | None:
        """Draw it; returns the picture's file, or None where there is none."""

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics from the first step on."""

    def advice(self, rate: float) -> str:
        """A lower learning rate to try after a failure, as this run's user writes it, and what is left of the run."""

    def close(self) -> None:
        """Let go of the files."""


class Memory:
    """Keeps a run's metrics and its best weights until the process ends; nothing can be resumed from it."""

    path: Path | None = None
    saved_step: int | None = None
    replaces = False

    def __init__(self) -> None:
        self._metrics: list[dict[str, Any]] = []
        self._best: dict[str, np.ndarray] = {}
        self._mixture: Mixture | None = None

    def open(self, state: TrainingState, saved: Checkpoint | None) -> None:
        """There are no files."""

    def start(self) -> None:
        """Nothing is due by the clock."""

    def begin(self, state: TrainingState) -> None:
        """Nothing has to make room."""

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """A line of metrics."""
        self._metrics.append(metrics)

    def write_samples(self, texts: str) -> None:
        """No file to write samples to; they are reported all the same."""

    def save_is_due(self, step: int, *, is_best: bool) -> bool:
        """Never: only the best weights are kept."""
        return False

    def hold_best(self, state: TrainingState) -> None:
        """Copy the weights."""
        self._best = {}  # two of them are never kept at once
        self._best = {name: array.copy() for name, array in state.weights().items()}

    def save(self, state: TrainingState) -> None:
        """Copy the weights where they are the best so far."""
        if state.progress.best_step == state.progress.step:
            self.hold_best(state)

    def save_held(self) -> None:
        """They are kept already."""

    def best(self, model: NeuralModel) -> NeuralModel:
        """A network of its own with the best weights."""
        network = model.network
        best = Network(network.shape, network.ops, threads=network.threads, parameters=self._best)
        return NeuralModel(best, model.vocabulary, model.tokenizer, model.unk_trained)

    def save_mixture(self, mixture: Mixture) -> None:
        """Keep it."""
        self._mixture = mixture

    def mixture(self, best: NeuralModel) -> Mixture:
        """What was kept; without it the weights alone."""
        return self._mixture or Mixture(best)

    def mixture_file(self) -> str | None:
        """There are no files."""
        return None

    def draw_is_due(self) -> bool:
        """Never: there is no folder for a picture."""
        return False

    def draw(self) -> str | None:
        """There is no folder for a picture."""
        return None

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics from the first step on."""
        return self._metrics

    def advice(self, rate: float) -> str:
        """The rate as an argument in Python."""
        return f"lr={rate:g}; nothing is kept"

    def close(self) -> None:
        """There are no files."""


class Folder:
    """Keeps a run in its folder, so that it can be killed at any moment and resumed with the same bits."""

    def __init__(self, folder: RunFolder, config: TrainConfig, report: Report, *, replaces: bool) -> None:
        self.folder, self.config, self.replaces = folder, config, replaces
        self.path: Path | None = folder.path
        self._report = report
        self._journals = contextlib.ExitStack()
        self.saved_step: int | None = None
        self._held: Checkpoint | None = None
        self._save_seconds = 0.0  # seconds that the last save took
        self.start()

    def open(self, state: TrainingState, saved: Checkpoint | None) -> None:
        """Open the files that only grow, cut to what belongs to the checkpoint; restore its best weights.

        Raises RunFolderError where another version of fastmlp wrote the checkpoint.
        """
        metrics_bytes = samples_bytes = 0
        if saved is not None:
            tensors, metadata = saved
            try:
                state.from_checkpoint(tensors, metadata)
            except (KeyError, TypeError, ValueError) as error:
                raise RunFolderError(
                    f"{self.folder.last} is of fastmlp {metadata['fastmlp']}, which kept other things: resume with that"
                    " one"
                ) from error
            self.saved_step = state.progress.step
            self._report(Resumed(state.progress.step))
            self._restore_best(state)
            metrics_bytes, samples_bytes = metadata["metrics_bytes"], metadata["samples_bytes"]
        self._remove_next()  # left behind by a kill before the checkpoint that would have counted on it
        self._metrics = self._journals.enter_context(Journal(self.folder.metrics, metrics_bytes))
        self._samples = self._journals.enter_context(Journal(self.folder.samples, samples_bytes))

    def _restore_best(self, state: TrainingState) -> None:
        """Make sure that the best weights are those of `best_step`: a kill may have come before they were written."""
        progress = state.progress
        if progress.best_step is None or progress.best_step == _step_of(self.folder.model):
            return
        if progress.best_step == progress.step:
            self._save_best(state)
            return
        if progress.best_step == _step_of(self.folder.next):
            move(self.folder.next, self.folder.model)
            return
        self._report(
            Notice(
                f"{self.folder.model} is not that of step {progress.best_step:,} any more: the best from now on is kept"
            )
        )
        progress.best_step, progress.best_loss, progress.kept = None, None, {}

    def start(self) -> None:
        """The next checkpoint and the first picture are due some time from now."""
        self._saved_at = time.perf_counter()
        self._draw_at = self._saved_at + FIRST_PICTURE

    def begin(self, state: TrainingState) -> None:
        """Remove the run that this one replaces, which until now was as it had been."""
        if self.replaces:
            self.replaces = False
            self.folder.clear()
            write_atomically(self.folder.config, to_toml(self.config).encode())
            self.open(state, None)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""
        self._metrics.write(json.dumps(metrics) + "\n")

    def write_samples(self, texts: str) -> None:
        """What samples.txt has of a step."""
        self._samples.write(texts)

    def save_is_due(self, step: int, *, is_best: bool) -> bool:
        """After so many steps as the configuration says, and with new best weights; without a word of it by the clock.

        Then it is a minute after the last time, and with new best weights as soon as saving would not take more than
        its share: the validations of a short run are seconds apart, and most of them are the best so far.
        """
        if self.config.save_every is not None:
            return is_best or step % self.config.save_every == 0
        wait = SAVE_SECONDS
        if is_best or self._held:
            wait = min(wait, self._save_seconds * (1 / SAVING_SHARE - 1))
        return time.perf_counter() - self._saved_at >= wait

    def hold_best(self, state: TrainingState) -> None:
        """Copy the weights, in place of those that are held."""
        self._held = None  # two of them are never held at once
        self._held = state.copy_of_model()

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint, after the metrics and samples that it counts on are safe on the disk.

        The best weights are always of the history that the checkpoint goes on with. They are written right after it;
        or where they are of an earlier step, which the checkpoint does not have, before it, beside those that they then
        replace.
        """
        began = time.perf_counter()
        self._metrics.sync()
        self._samples.sync()
        is_best = state.progress.best_step == state.progress.step
        if is_best:
            self._held = None
        step_of_next = self._write_held()
        tensors, metadata = state.to_checkpoint()
        lengths = {"metrics_bytes": self._metrics.length, "samples_bytes": self._samples.length}
        try:
            checkpoint.save(self.folder.last, tensors, {**metadata, **lengths})
        except CheckpointError:  # such as a full disk, where better weights would only take room
            if _step_of(self.folder.last) != state.progress.step:  # it may be there, but perhaps not for good
                self._remove_next()
            raise
        self.saved_step = state.progress.step
        self._report(Saved(str(self.folder.last), state.progress.step))
        if is_best:
            self._save_best(state)
        elif step_of_next is not None:
            move(self.folder.next, self.folder.model)
            self._report(Saved(str(self.folder.model), step_of_next))
        self._saved_at = time.perf_counter()
        self._save_seconds = self._saved_at - began

    def save_held(self) -> None:
        """Write them to where better weights wait for a checkpoint: the last one counts on those that are there."""
        try:
            step = self._write_held()
        except CheckpointError as error:
            self._report(Notice(f"better weights than those of {self.folder.model} are lost: {error}"))
            return
        if step is not None:
            self._report(
                Notice(f"better weights than those of {self.folder.model}, of step {step:,}: {self.folder.next}")
            )

    def _remove_next(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.next.unlink(missing_ok=True)

    def _write_held(self) -> int | None:
        """Write the weights that are held, for the checkpoint to come, and let go of them; return their step."""
        if self._held is None:
            return None
        tensors, metadata = self._held
        blocks = {name: Blocks(array.dtype, array.shape, partial(iter, (array,))) for name, array in tensors.items()}
        checkpoint.save(self.folder.next, blocks, metadata)  # in blocks: not twice in memory
        self._held = None
        step: int = metadata["step"]
        return step

    def _save_best(self, state: TrainingState) -> None:
        """Write the weights, which a checkpoint has already, as the best so far."""
        checkpoint.save(self.folder.model, state.model_tensors(), state.metadata(MODEL))
        self._report(Saved(str(self.folder.model), state.progress.step))

    def best(self, model: NeuralModel) -> NeuralModel:
        """What model.safetensors holds."""
        return NeuralModel.load(self.folder.model, model.network.ops, threads=model.network.threads)

    def save_mixture(self, mixture: Mixture) -> None:
        """Write mixture.safetensors."""
        checkpoint.save(self.folder.mixture, mixture.tensors(), {"kind": MIXTURE, **mixture.metadata()})
        self._report(Saved(str(self.folder.mixture), self.saved_step or 0))

    def mixture(self, best: NeuralModel) -> Mixture:
        """What mixture.safetensors holds; without it the weights alone."""
        return load_mixture(self.folder.mixture, best) if self.folder.mixture.exists() else Mixture(best)

    def mixture_file(self) -> str | None:
        """The name of mixture.safetensors."""
        return str(self.folder.mixture) if self.folder.mixture.exists() else None

    def draw_is_due(self) -> bool:
        """Drawing may take a hundredth of the time."""
        return time.perf_counter() >= self._draw_at

    def draw(self) -> str | None:
        """Draw loss.png. A picture that fails loses nothing: the run goes on, and tries again at its end."""
        began = time.perf_counter()
        try:
            plot_loss(self.metrics(), self.folder.plot, title=self.folder.path.resolve().name)
        except Exception as error:
            self._draw_at = math.inf
            self._report(Notice(f"{self.folder.plot} is not drawn: {error}"))
            return None
        now = time.perf_counter()
        self._draw_at = now + 99 * (now - began)
        return str(self.folder.plot)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return [json.loads(line) for line in self.folder.metrics.read_text(encoding="utf-8").splitlines()]

    def advice(self, rate: float) -> str:
        """The rate as a flag."""
        step = self.saved_step
        return f"--lr {rate:g}; {'nothing is saved' if step is None else f'{self.folder.last} holds step {step:,}'}"

    def close(self) -> None:
        """Let go of the files."""
        self._journals.close()


def _step_of(model: Path) -> int | None:
    """The step of a file of weights; None where there are none that can be used."""
    try:
        step = checkpoint.load(model)[1].get("step")
    except CheckpointError:
        return None
    return step if isinstance(step, int) else None
