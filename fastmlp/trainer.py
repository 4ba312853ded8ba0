"""Training as a library: it parses no arguments, handles no signals and prints nothing.

    from fastmlp.config import TrainConfig
    from fastmlp.trainer import train

    result = train(TrainConfig(files=("hp.txt",), steps=2_000, out="runs/hp"))
    print(result.val_perplexity, result.folder)

A `Reporter` receives the events. `should_stop` is called before each step and during the final evaluation; a run that
it stops can be resumed with the same bits. files/run_folder.py describes the files of a run. `run_in_memory` makes a
run that writes no files.

Memory in bytes, with P parameters, R = max(batch size, 512) rows and V words: 4 P of weights, at most 4 P of gradients,
4 P for each state array of the optimizer (adamw 2, momentum and adagrad 1, sgd 0), all but gradients once more while a
checkpoint is written, or 4 P for the best weights until they are, 4 R F of activations, the last layer's work memory
(see kernels/linear_cross_entropy.pyx; Numba's has the same parts, NumPy's is at most 8 R V), and the text's
(fastmlp/text). In a wide last layer most work memory is for the slices' parts of dh. No memory grows with the steps.

Where n ranks share the words out (fastmlp/distributed), P is P_words / n + P_rest in each: P_words are the parameters
that have a row for each word. Rank 0 has, beside the text, 4 (P_words + P_rest) more for predictions with the weights
of all, and once more for the best ones until they are saved; it saves in blocks of 4 MB, and reads a checkpoint whole
when it resumes.

F = 4 H + 2 H_r + 2 I + T D + 2 T + K + 3, and 2 D with a projection, T D with tied weights: an upper bound, for hidden
layers of H units in all, H_r of them in residual blocks, and I = (T + A) D inputs with A averages. 3 H are the y of
linear, batchnorm and the activation (tanh and relu overwrite batchnorm's y, but dropout then has its own); I + H the dx
of linear and the dh of the output; 2 H_r the residual sum and the dx of a block's last module; I the embeddings, and
T D each the embedding's gradient and that of the output's held rows; 2 D the projection's y and the output's dh.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fastmlp.config import TrainConfig, is_config, read_toml, to_toml, with_rules
from fastmlp.data.corpus import Corpus, read_corpus
from fastmlp.errors import CheckpointError, DivergedError, RunFolderError, ThreadsError
from fastmlp.events import (
    Notice,
    Reporter,
    TextRead,
)
from fastmlp.files import checkpoint
from fastmlp.files.atomic import lock_folder, write_atomically
from fastmlp.files.run_folder import RunFolder, find_folder
from fastmlp.ops import backend as backends
from fastmlp.ops.backend import Backend
from fastmlp.options import RULES, ConfigError, system_path
from fastmlp.text.reading import Text
from fastmlp.threads import default_threads
from fastmlp.training import setup
from fastmlp.training.keeper import Folder
from fastmlp.training.progress import Result
from fastmlp.training.ranks import Leader
from fastmlp.training.recipe import filled_in
from fastmlp.training.run import Run
from fastmlp.training.state import TRAINING_STATE, Checkpoint, load_state, source_name

__all__ = ["DivergedError", "Result", "Run", "SavedRun", "open_run", "run_in_memory", "train"]


class SavedRun(Run):
    """A run that is kept in a folder: it can be killed at any moment, and resumed with the same bits."""

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
        leader: Leader | None = None,
    ) -> None:
        """replaces  whether the folder still holds the run that this one replaces: until its first step it stays

        Raises CheckpointError for options that no checkpoint can hold.
        """
        self.folder = folder
        keeper = Folder(folder, config, reporter.report, replaces=replaces)
        super().__init__(config, corpus, backend, threads, reporter, keeper, leader)
        checkpoint.check_room(folder.last, self.state.metadata(TRAINING_STATE))


def train(
    config: TrainConfig,
    *,
    text: Text | np.ndarray | None = None,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    resume: bool = False,
    overwrite: bool = False,
) -> Result:
    """Train a network on a text.

    config       the options
    text         a text in memory, or ids; None: config.files, or the standard library's documentation
    reporter     receives the events
    should_stop  called before each step and during the final evaluation; if it returns True, the run is saved and can
                 be resumed
    resume       continue the run in config.out
    overwrite    replace the run in config.out
    Raise TextError, ConfigError, RunFolderError or BackendUnavailableError if the run cannot begin, CheckpointError if
    a file cannot be read or written, DivergedError if the loss becomes infinite or NaN.
    """
    with open_run(config, text=text, reporter=reporter, resume=resume, overwrite=overwrite) as run:
        return run.train(should_stop)


@contextlib.contextmanager
def open_run(
    config: TrainConfig,
    *,
    text: Text | np.ndarray | None = None,
    reporter: Reporter | None = None,
    resume: bool = False,
    overwrite: bool = False,
    leader: Leader | None = None,
) -> Iterator[SavedRun]:
    """Yield a run that is ready to train, with its text read and its folder locked. Arguments as in `train`, and

    leader  of the ranks that share the words out, whose rank 0 this is; the others call fastmlp.training.ranks.follow
    """
    reporter = reporter or Reporter()
    config = _with_rules(config, resume=resume and not overwrite)
    backend, threads, corpus = _prepare(config, text, reporter, leader)
    folder = find_folder(config.out, config.files, overwrite=overwrite)
    with _lock(folder):
        holds_run = folder.holds_run()
        if holds_run and not (resume or overwrite):
            raise RunFolderError(
                f"{folder.path} already holds a run: go on with it (--resume), replace it (--overwrite) or name another"
            )
        state = load_state(folder, config, corpus) if resume and not overwrite else None
        config = _filled_in(config, corpus, backend, threads, reporter, state, leader)
        if foreign := folder.foreign_files(overwrite=overwrite):  # a killed run is none: it has written config.toml
            or_replace = "" if foreign[0] in folder.run_files else ", or replace it (--overwrite)"
            raise RunFolderError(f"{foreign[0]} is there, and not of a run: name another folder{or_replace}")
        if resume and state is None:
            reporter.report(Notice(f"{folder.path} holds nothing to go on from: the run begins at step 0"))
        replaces = overwrite and any(file.exists() for file in folder.files)
        with contextlib.ExitStack() as cleanup:
            if not (holds_run or replaces):
                cleanup.callback(folder.discard)
            if state is None and not replaces:  # this file marks the folder as a run's
                write_atomically(folder.config, to_toml(config).encode())
            with contextlib.closing(
                SavedRun(config, corpus, folder, backend, threads, reporter, replaces=replaces, leader=leader)
            ) as run:
                run.report_setup()
                if not replaces:
                    run.open(state)
                if state is not None:  # if the run cannot be resumed, its options stay
                    write_atomically(folder.config, to_toml(config).encode())
                run.prepare()
                cleanup.pop_all()
                yield run


def run_in_memory(
    config: TrainConfig,
    *,
    text: Text | np.ndarray | None = None,
    reporter: Reporter | None = None,
    leader: Leader | None = None,
) -> Run:
    """Return a run that is ready to train and writes nothing. The arguments are those of `open_run`."""
    reporter = reporter or Reporter()
    config = _with_rules(config)
    backend, threads, corpus = _prepare(config, text, reporter, leader)
    config = _filled_in(config, corpus, backend, threads, reporter, leader=leader)
    run = Run(config, corpus, backend, threads, reporter, leader=leader)
    run.report_setup()
    run.prepare()
    return run


def _with_rules(config: TrainConfig, *, resume: bool = False) -> TrainConfig:
    """Return the configuration with a number of rules: the given one, that of the run to resume, else the newest."""
    rules, file = config.rules, Path(system_path(config.out or "")) / "config.toml"
    if rules is None and resume and config.out is not None and is_config(file):
        rules = read_toml(file).get("rules")
    return dataclasses.replace(config, rules=rules or RULES)


def _prepare(
    config: TrainConfig, text: Text | np.ndarray | None, reporter: Reporter, leader: Leader | None
) -> tuple[Backend, int, Corpus]:
    """Choose the back-end and the threads, and read the text."""
    backend, threads = backends.choose_backend(config.backend), _threads(config, leader)
    setup.training_precision(config, backend)  # raises ConfigError before the text is read
    corpus = read_corpus(config, text)
    for prompt in config.prompt:
        if not corpus.tokenizer.split(prompt):
            raise ConfigError("prompt", f"expected a text with words in it, got {prompt!r}")
    reporter.report(
        TextRead(
            source_name(config.files, [file.name for file in corpus.files]),
            len(corpus.files),
            corpus.words,
            corpus.types,
            len(corpus.vocabulary) - 1,
            len(corpus.val or ()),
            len(corpus.test or ()),
            config.val_file,
        )
    )
    for notice in corpus.notices:
        reporter.report(Notice(notice))
    return backend, threads, corpus


def _filled_in(
    config: TrainConfig,
    corpus: Corpus,
    backend: Backend,
    threads: int,
    reporter: Reporter,
    saved: Checkpoint | None = None,
    leader: Leader | None = None,
) -> TrainConfig:
    """Return the configuration with its open options from the run to resume, else as suits the text."""
    before = None if saved is None else TrainConfig.layered(with_rules(saved[1]["config"]))
    if before is not None:
        config = config.filled_from(before)
    words, passes = len(corpus.train), None
    # a run with a time budget was measured as it began, and keeps what was made of that
    measured = before is not None and before.minutes is not None
    if config.minutes is not None and config.window and not measured:
        passes = config.minutes * 60 * setup.words_per_second(config, corpus, backend, threads, leader) / words
    filled = filled_in(config, words, passes)
    if filled.minutes != config.minutes:
        used = (filled.steps or 0) * filled.batch_size / words
        reporter.report(
            Notice(f"{config.minutes:g} minutes are more than this text is good for: {used:.2g} passes over it")
        )
    return filled


@contextlib.contextmanager
def _lock(folder: RunFolder) -> Iterator[None]:
    """Hold the lock of the folder."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(folder.path))
        except CheckpointError as error:
            raise RunFolderError(str(error)) from error
        yield


def _threads(config: TrainConfig, leader: Leader | None) -> int:
    try:
        return default_threads(config.threads) if leader is None else leader.threads(config.threads)
    except ThreadsError as error:
        raise ConfigError("threads", str(error)) from error
