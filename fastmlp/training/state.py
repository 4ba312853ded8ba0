"""What a run needs to go on where it stopped: into a checkpoint, and out of it again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastmlp.config import TrainConfig, with_rules
from fastmlp.data.corpus import Corpus
from fastmlp.errors import CheckpointError, RunFolderError
from fastmlp.files import checkpoint
from fastmlp.files.checkpoint import Blocks, is_checkpoint
from fastmlp.files.run_folder import RunFolder
from fastmlp.optim import Optimizer
from fastmlp.options import ConfigError
from fastmlp.prediction.neural import CAPITALIZED, MODEL, VOCABULARY, NeuralModel, word_tensors, words_of
from fastmlp.training.optimizer import load_optimizer_state, optimizer_state, updates_of
from fastmlp.training.progress import Progress

TRAINING_STATE = "training state"  # what a checkpoint says it is, if it is no model
Checkpoint = tuple[dict[str, np.ndarray], dict[str, Any]]  # what a checkpoint holds: tensors and metadata
PIECE = 1 << 20  # numbers that are looked at at once
FACTS = {  # what a checkpoint to go on from must say, and of what type
    **dict.fromkeys(("config", "progress"), dict),
    **dict.fromkeys(("files", "sha256"), list),
    **dict.fromkeys(("tokenizer", "backend", "fastmlp"), str),
    **dict.fromkeys(("optimizer_steps", "metrics_bytes", "samples_bytes"), int),
}
ANOTHER = "use a copy of it, or begin anew with --overwrite"
OPTIMIZER = "optimizer."  # before the names of the optimizer's arrays in a checkpoint


@dataclass(frozen=True)
class TrainingState:
    """All that training changes, and what it is of.

    model      its network's weights and running statistics change
    optimizer  what it remembers does
    progress   how far the run is
    facts      of the configuration, the text and the back-end, as a checkpoint has them
    """

    model: NeuralModel
    optimizer: Optimizer
    progress: Progress
    facts: dict[str, Any]

    def metadata(self, kind: str) -> dict[str, Any]:
        """What is said of a checkpoint of a kind. Random numbers need no more than seed and step."""
        return {"kind": kind, "step": self.progress.step, **self.model.metadata(), **self.facts}

    def weights(self) -> dict[str, np.ndarray]:
        """The network's arrays, not copies."""
        return self.model.network.state_dict()

    def model_tensors(self) -> dict[str, np.ndarray | Blocks]:
        """What a checkpoint of the model alone holds."""
        return {**self.weights(), **self._words()}

    def copy_of_model(self) -> Checkpoint:
        """A checkpoint of the model alone, with copies of the weights: training may go on before it is written."""
        copies = {name: array.copy() for name, array in self.weights().items()}
        return {**copies, **self._words()}, self.metadata(MODEL)

    def to_checkpoint(self) -> tuple[dict[str, np.ndarray | Blocks], dict[str, Any]]:
        """Everything that `from_checkpoint` needs; the arrays themselves, not copies."""
        remembered, _ = optimizer_state(self.optimizer, self.model.network.layers)
        state = {f"{OPTIMIZER}{name}": array for name, array in remembered.items()}
        return {**self.model_tensors(), **state}, self._training_metadata()

    def _words(self) -> dict[str, np.ndarray]:
        return word_tensors(self.model.vocabulary, self.model.tokenizer)

    def _training_metadata(self) -> dict[str, Any]:
        progress = {"progress": asdict(self.progress), "optimizer_steps": updates_of(self.optimizer)}
        return {**self.metadata(TRAINING_STATE), **progress}

    def _set_progress(self, metadata: dict[str, Any]) -> None:
        vars(self.progress).update(vars(checked_progress(metadata["progress"])))

    def from_checkpoint(self, tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        """Become what a checkpoint holds. Raises KeyError, TypeError or ValueError where it does not fit."""
        optimizer = {
            name.removeprefix(OPTIMIZER): array for name, array in tensors.items() if name.startswith(OPTIMIZER)
        }
        network = {
            name: array for name, array in tensors.items() if not (name.startswith(OPTIMIZER) or is_of_words(name))
        }
        self.model.network.load_state_dict(network)
        load_optimizer_state(self.optimizer, self.model.network.layers, optimizer, metadata["optimizer_steps"])
        self._set_progress(metadata)

    def not_finite(self) -> str | None:
        """The name of an array that no checkpoint may hold, since it has a number that is infinite or none."""
        remembered, _ = optimizer_state(self.optimizer, self.model.network.layers)
        for name, array in {**self.model.network.state_dict(), **remembered}.items():
            if not all_finite(array):
                return name
        return None


def checked_progress(saved: dict[str, Any]) -> Progress:
    """Return what a checkpoint says of a run's progress. Raises TypeError or ValueError for anything else."""
    progress = Progress(**saved)
    for name, default in vars(Progress()).items():
        value = getattr(progress, name)
        fits = default is None and value is None
        if isinstance(default, bool | dict):
            fits = type(value) is type(default)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            whole = isinstance(default, int) or name == "best_step"
            fits = value >= 0 and (isinstance(value, int) or not whole)
        if not fits:
            raise ValueError(f"progress: {name}: {value!r}")
    return progress


def all_finite(array: np.ndarray) -> bool:
    """Return whether no number is infinite or none, with little memory."""
    flat = array.reshape(-1)
    return all(bool(np.isfinite(flat[start : start + PIECE]).all()) for start in range(0, flat.size, PIECE))


def is_of_words(name: str) -> bool:
    """Return whether a tensor of a checkpoint holds words, not numbers that are trained."""
    return name.startswith((VOCABULARY, CAPITALIZED))


def load_state(folder: RunFolder, config: TrainConfig, corpus: Corpus) -> Checkpoint | None:
    """The folder's checkpoint; None where the run was not there yet. It must be of this network and this text."""
    if not folder.last.exists():
        if is_checkpoint(folder.model):  # which is only ever written after it
            raise RunFolderError(
                f"{folder.last} is missing, from which the run goes on: put it back, or begin anew with --overwrite"
            )
        return None
    try:
        tensors, metadata = checkpoint.load(folder.last)
    except CheckpointError as error:
        raise RunFolderError(str(error)) from error
    if metadata.get("kind") != TRAINING_STATE:
        raise RunFolderError(f"{folder.last} is not the state of a training run; name another folder")
    if missing := [name for name, kind in FACTS.items() if not isinstance(metadata.get(name), kind)]:
        raise RunFolderError(f"{folder.last} says nothing usable of {', '.join(missing)}: {ANOTHER}")
    try:
        before, vocabulary = TrainConfig.layered(with_rules(metadata["config"])), words_of(tensors, metadata)[0]
    except (LookupError, TypeError, ValueError) as error:
        raise RunFolderError(f"{folder.last} is not as fastmlp writes it ({str(error)!a}): {ANOTHER}") from error
    if changed := before.changed_for(config):
        raise ConfigError(changed[0], before.kept(changed[0]))
    (text, *val), (text_before, *val_before) = corpus.sha256, metadata["sha256"] or [""]
    if text != text_before:
        was, now = (
            source_name(before.files, [str(name) for name in metadata["files"]]),
            source_name(config.files, [file.name for file in corpus.files]),
        )
        advice = "it has changed since; put it back as it was, or name" if was == now else "name that one, or"
        raise RunFolderError(f"{folder.path} was trained on another text ({was}): {advice} another folder")
    if val != val_before:
        has_changed = f"{config.val_file} has changed since the run began: put it back as it was"
        raise ConfigError("val_file", has_changed if before.val_file == config.val_file else before.kept("val_file"))
    if vocabulary != corpus.vocabulary:
        raise RunFolderError(f"{folder.path}: another version of fastmlp found other words in this text; use that one")
    return tensors, metadata


def source_name(named: Sequence[str], read: Sequence[str]) -> str:
    """What a text is called: as it was named, or where it was not by what was read."""
    return ", ".join(named or read) if named or len(read) <= 3 else "documentation of Python's standard library"
