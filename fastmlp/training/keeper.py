"""A run that writes to a folder and can be resumed."""

import contextlib
import json
import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from fastmlp import __version__
from fastmlp.config import SAVE_SECONDS, TrainConfig, to_dict, to_toml
from fastmlp.data.corpus import Corpus
from fastmlp.errors import CheckpointError, RunFolderError
from fastmlp.events import (
    Notice,
    Reporter,
    Resumed,
    Saved,
    Writing,
)
from fastmlp.files import checkpoint
from fastmlp.files.atomic import write_atomically
from fastmlp.files.run_folder import Journal, RunFolder
from fastmlp.ops.backend import Backend
from fastmlp.pictures.plot import plot_loss
from fastmlp.prediction.neural import MODEL, NeuralModel
from fastmlp.training.progress import Progress
from fastmlp.training.run import Run
from fastmlp.training.state import OPTIMIZER, TRAINING_STATE, State

__all__ = ["SavedRun"]


class SavedRun(Run):
    """A run that lives in a folder: it can be killed at any moment, and resumed with the same bits.

    replaces  whether the folder still holds what this run will replace: until its first step nothing is written
    """

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        folder: RunFolder,
        backend: Backend,
        threads: int,
        reporter: Reporter,
        *,
        replaces: bool = False,
    ) -> None:
        super().__init__(config, corpus, backend, threads, reporter)
        self.folder, self.replaces = folder, replaces
        self.journals = contextlib.ExitStack()
        self.saved_step: int | None = None  # of the checkpoint to go on from
        self.judged_on = self.val_sample  # the words that say which weights are the best so far

    # ------------------------------------------------------------------------------------------------------- beginning

    def say_what_runs(self) -> None:
        """Report the folder too."""
        super().say_what_runs()
        self._report(Writing(str(self.folder.path)))

    def take_up(self, state: State | None) -> None:
        """Go on from a checkpoint's state, or start with new files."""
        lengths = (0, 0) if state is None else self._restore(*state)
        self.metrics = self.journals.enter_context(Journal(self.folder.metrics, lengths[0]))
        self.samples = self.journals.enter_context(Journal(self.folder.samples, lengths[1]))

    def _begin(self) -> None:
        """Let go of what this run replaces, which until now was as it had been."""
        if self.replaces:
            self.replaces = False
            self.folder.clear()
            write_atomically(self.folder.config, to_toml(self.config).encode())
            self.take_up(None)

    def _restore(self, tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> tuple[int, int]:
        """Take up what `_save` wrote; returns how many bytes of the metrics and of the samples belong to it."""
        optimizer = {
            name.removeprefix(OPTIMIZER): array for name, array in tensors.items() if name.startswith(OPTIMIZER)
        }
        network = {name: array for name, array in tensors.items() if not name.startswith(OPTIMIZER)}
        try:
            self.network.load_state_dict(network)
            self.optimizer.load_state(optimizer, metadata["optimizer_steps"])
            self.progress = Progress(**metadata["progress"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"{self.folder.last} is of fastmlp {metadata['fastmlp']}, which kept other things: resume with that one"
            ) from error
        self.saved_step = self.progress.step
        self._report(Resumed(self.progress.step))
        self._restore_kept()
        self.judged_on = self.corpus.validation_sample(metadata["config"]["eval_windows"])
        # of before there were precisions: float32
        before = metadata["backend"], metadata.get("precision", "ieee")
        now = self.ops.backend, self.precision
        if before != now:
            self._report(Notice(f"it ran on {' in '.join(before)} before: {' in '.join(now)} goes on with other bits"))
        return metadata["metrics_bytes"], metadata["samples_bytes"]

    def _restore_kept(self) -> None:
        """See to it that the kept weights are those of `best_step`: a kill may have come just before they were kept."""
        progress = self.progress
        if progress.best_step is None or progress.best_step == self._step_of_model():
            return
        if progress.best_step == progress.step:
            self._keep()
            return
        self._report(
            Notice(
                f"{self.folder.model} is not that of step {progress.best_step:,} any more: the best from now on is kept"
            )
        )
        progress.best_step, progress.best_loss, progress.kept = None, None, {}

    def _step_of_model(self) -> int | None:
        """The step of the kept weights; None where there are none that can be used."""
        try:
            step = checkpoint.load(self.folder.model)[1].get("step")
        except CheckpointError:
            return None
        return step if isinstance(step, int) else None

    # ------------------------------------------------------------------------------------------------------- measuring

    def _judge_best_anew(self) -> None:
        """Losses on different words say nothing of which weights are better."""
        progress = self.progress
        if progress.best_loss is None or np.array_equal(self.judged_on, self.val_sample):
            return
        with self._uncounted("evaluation"):
            progress.best_loss, self.judged_on = self._validation_loss(self.kept_model()), self.val_sample
        self._report(
            Notice(
                f"other words validate than before: on {len(self.val_sample):,} of them the best weights so far, those"
                f" of step {progress.best_step:,}, have loss {progress.best_loss:.3f}"
            )
        )

    def _keep_line(self, metrics: dict[str, Any]) -> None:
        self.metrics.write(json.dumps(metrics) + "\n")

    def _keep_samples(self, texts: str) -> None:
        self.samples.write(texts)

    # ---------------------------------------------------------------------------------------------------------- saving

    def _save_is_due(self) -> bool:
        if self.config.save_every is not None:
            return self.progress.step % self.config.save_every == 0
        return time.perf_counter() - self._saved_at >= SAVE_SECONDS

    def _keep_state(self) -> None:
        """Write all that resuming needs, after what the metrics and samples say of it is safe on the disk.

        The best weights are kept right after: so they are always of the history that the checkpoint goes on with.
        """
        progress = self.progress
        self.metrics.sync()
        self.samples.sync()
        state = {f"{OPTIMIZER}{name}": array for name, array in self.optimizer.state.items()}
        checkpoint.save(
            self.folder.last,
            {**self.network.state_dict(), **state},
            {
                **self._metadata(TRAINING_STATE),
                "progress": asdict(progress),
                "optimizer_steps": self.optimizer.steps,
                "metrics_bytes": self.metrics.length,
                "samples_bytes": self.samples.length,
            },
        )
        self.saved_step, self._saved_at = progress.step, time.perf_counter()
        self._report(Saved(str(self.folder.last), progress.step))
        if progress.best_step == progress.step:
            self._keep()

    def _keep(self) -> None:
        """Write the weights, which are saved already, as the best so far."""
        checkpoint.save(self.folder.model, self.network.state_dict(), self._metadata(MODEL))
        self._report(Saved(str(self.folder.model), self.progress.step))

    def _metadata(self, kind: str) -> dict[str, Any]:
        """What is said of either kind of checkpoint. Random numbers need no more than seed and step."""
        return {
            "kind": kind,
            "step": self.progress.step,
            **self.model.metadata(),
            "config": to_dict(self.config),
            # a folder may hold names that are not UTF-8, which JSON cannot hold
            "files": [file.name.encode(errors="backslashreplace").decode() for file in self.corpus.files],
            "sha256": self.corpus.sha256,
            "backend": self.ops.backend,
            "precision": self.precision,
            "fastmlp": __version__,
        }

    def _advice(self) -> str:
        saved = "nothing is saved" if self.saved_step is None else f"{self.folder.last} holds step {self.saved_step:,}"
        return f"--lr {self._lower_rate():g}; {saved}"

    # ---------------------------------------------------------------------------------------------------------- ending

    def _load_best(self) -> NeuralModel:
        return NeuralModel.load(self.folder.model, self.ops, threads=self.threads)

    def _place(self) -> str | None:
        return str(self.folder.path)

    def _draw(self) -> str | None:
        """Draw the loss over the steps, on the way for a hundredth of the time at most.

        A picture that fails loses nothing: the run goes on, and tries again at its end.
        """
        began = time.perf_counter()
        try:
            with self._uncounted("picture"):
                plot_loss(self.metrics_lines(), self.folder.plot, title=self.folder.path.resolve().name)
        except Exception as error:
            self._draw_at = math.inf
            self._report(Notice(f"{self.folder.plot} is not drawn: {error}"))
            return None
        now = time.perf_counter()
        self._draw_at = now + 99 * (now - began)
        return str(self.folder.plot)

    def metrics_lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return [json.loads(line) for line in self.folder.metrics.read_text(encoding="utf-8").splitlines()]

    def close(self) -> None:
        """Let go of the files."""
        self.journals.close()
