"""Training as a library: no arguments to parse, no signals, nothing printed.

    from fastmlp.config import TrainConfig
    from fastmlp.trainer import train

    result = train(TrainConfig(files=("hp.txt",), steps=2_000, out="runs/hp"))
    print(result.val_perplexity, result.folder)

A `Reporter` receives the events; `should_stop` is called before each step and during the final evaluation, and a run
that was stopped can be resumed with the same bits. run_folder.py describes the files of a run. `run_in_memory` makes a
run that writes none.

Memory, with P parameters, R = max(batch size, 512) rows, V words and hidden layers of H units in all: 4 P bytes of
weights, at most 4 P of gradients, 4 P for each array that the optimizer keeps (adamw 2, momentum and adagrad 1, sgd 0),
all but the gradients once more while a checkpoint is written, or 4 P for the best weights in memory, 4 R (3 H + 3 T D)
of activations, the last layer's work memory, and the text's memory (fastmlp/text). None of it grows with the steps. For
the last layer's memory see kernels/linear_cross_entropy.pyx; on Numba it has the same parts. Where the layer is wide,
most of it are the slices' parts of dh, not the exponentials. NumPy's is at most 8 R V.
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from fastmlp.config import TrainConfig, to_toml
from fastmlp.data.corpus import Corpus, read_corpus
from fastmlp.errors import CheckpointError, DivergedError, RunFolderError, ThreadsError
from fastmlp.events import (
    Notice,
    Reporter,
    TextRead,
)
from fastmlp.files.atomic import lock_folder, write_atomically
from fastmlp.files.run_folder import RunFolder, find_folder
from fastmlp.ops import backend as backends
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.text.reading import Text
from fastmlp.threads import default_threads
from fastmlp.training.progress import Result
from fastmlp.training.recipe import filled_in
from fastmlp.training.run import Run, SavedRun, training_precision, words_per_second
from fastmlp.training.state import Checkpoint, load_state, source_name

__all__ = ["DivergedError", "Result", "Run", "SavedRun", "open_run", "run_in_memory", "train"]


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
    should_stop  called before each step and during the final evaluation; if it returns True the run is saved, and can
                 be resumed
    resume       go on with the run in config.out
    overwrite    replace the run in config.out
    Raises TextError, ConfigError, RunFolderError or BackendUnavailableError where the run cannot begin, CheckpointError
    where a file cannot be read or written, DivergedError where the loss becomes infinite or NaN.
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
) -> Iterator["SavedRun"]:
    """Yield a run that is ready to train: its text is read, its folder locked. The arguments are those of `train`."""
    reporter = reporter or Reporter()
    backend, threads, corpus = _prepare(config, text, reporter)
    folder = find_folder(config.out, config.files, overwrite=overwrite)
    with _lock(folder):
        holds_run = folder.holds_run()
        if holds_run and not (resume or overwrite):
            raise RunFolderError(
                f"{folder.path} already holds a run: go on with it (--resume), replace it (--overwrite) or name another"
            )
        state = load_state(folder, config, corpus) if resume and not overwrite else None
        config = _filled_in(config, corpus, backend, threads, reporter, state)
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
                SavedRun(config, corpus, folder, backend, threads, reporter, replaces=replaces)
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
    config: TrainConfig, *, text: Text | np.ndarray | None = None, reporter: Reporter | None = None
) -> "Run":
    """Return a run that is ready to train and writes nothing. The arguments are those of `train`."""
    reporter = reporter or Reporter()
    backend, threads, corpus = _prepare(config, text, reporter)
    config = _filled_in(config, corpus, backend, threads, reporter)
    run = Run(config, corpus, backend, threads, reporter)
    run.report_setup()
    run.prepare()
    return run


def _prepare(config: TrainConfig, text: Text | np.ndarray | None, reporter: Reporter) -> tuple[Backend, int, Corpus]:
    """Choose the back-end and the threads, and read the text."""
    backend, threads = backends.choose_backend(config.backend), _threads(config)
    training_precision(config, backend)  # raises ConfigError before the text is read
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
    return backend, threads, corpus


def _filled_in(
    config: TrainConfig,
    corpus: Corpus,
    backend: Backend,
    threads: int,
    reporter: Reporter,
    saved: Checkpoint | None = None,
) -> TrainConfig:
    """The configuration with what it leaves open: as it was in the run to resume, else as suits the text."""
    if saved is not None:
        config = config.filled_from(TrainConfig.layered(saved[1]["config"]))
    words, passes = len(corpus.train), None
    if config.minutes is not None and config.window:
        passes = config.minutes * 60 * words_per_second(config, corpus, backend, threads) / words
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


def _threads(config: TrainConfig) -> int:
    try:
        return default_threads(config.threads)
    except ThreadsError as error:
        raise ConfigError("threads", str(error)) from error
