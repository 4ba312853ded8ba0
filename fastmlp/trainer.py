"""Training as a library: no arguments to parse, no signals, nothing printed.

    from fastmlp.config import TrainConfig
    from fastmlp.trainer import train

    result = train(TrainConfig(files=("hp.txt",), steps=2_000, out="runs/hp"))
    print(result.val_perplexity, result.folder)

A `Reporter` is told what happens; `should_stop` is asked before each step and in the evaluation at the end, and a run
that stops can be resumed with the same bits. What the run writes is described in run_folder.py. `run_in_memory` makes
one that writes nothing.

Memory, with P parameters, R = max(batch size, 512) rows, V words and hidden layers of H units in all: 4 P bytes of
weights, at most 4 P of gradients, 4 P for each array that the optimizer keeps (adamw 2, momentum and adagrad 1, sgd 0),
all but the gradients once more while a checkpoint is written, or 4 P for the best weights in memory, 4 R (3 H + 3 T D)
of activations, the last layer's work memory, and what text.py says of the text. None of it grows from step to step. The
last layer's is stated by kernels/linear_cross_entropy.pyx for Cython, and has the same parts on Numba; where the layer
is wide most of it are the slices' shares of dh, not the exponentials. NumPy's is at most 8 R V.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp import __version__, checkpoint
from fastmlp.backend import Backend, choose_backend
from fastmlp.checkpoint import CheckpointError, is_checkpoint, lock_folder, write_atomically
from fastmlp.config import LEARNING_RATES, SAVE_SECONDS, WARMUP_SHARE, ConfigError, TrainConfig, to_dict, to_toml
from fastmlp.corpus import Corpus, read_corpus
from fastmlp.data import EpochBatches, evenly_spaced
from fastmlp.evaluation import evaluate, perplexity
from fastmlp.events import (
    Compiled,
    Compiling,
    Evaluating,
    Event,
    Finished,
    Measured,
    NetworkMade,
    Notice,
    Reporter,
    Resumed,
    Running,
    Sampled,
    Saved,
    Started,
    Stopped,
    TextRead,
    Writing,
)
from fastmlp.generation import complete, describe_unknown_words, random_numbers, words_of_prompt
from fastmlp.language_model import MODEL, LanguageModel, load_language_model
from fastmlp.model import MLP, NetworkShape
from fastmlp.pace import Pace
from fastmlp.plot import plot_loss
from fastmlp.run_folder import Journal, RunFolder, RunFolderError, find_folder
from fastmlp.text import Text
from fastmlp.threads import ThreadsError, default_threads
from fastmlp.update_rules import learning_rate, make_optimizer

__all__ = ["DivergedError", "Result", "Run", "SavedRun", "open_run", "run_in_memory", "train"]

SAMPLE_WORDS = 30
FIRST_PICTURE = 10.0  # seconds after which a run is worth a picture
TRIAL = 512  # words of an evaluation that only tells how long evaluations take
SAMPLE_STREAM = 1_000  # of the seed's random numbers: those below initialise the weights
TRAINING_STATE = "training state"  # what a checkpoint says it is, if it is no model
State = tuple[dict[str, np.ndarray], dict[str, Any]]  # what a checkpoint holds: tensors and metadata
OPTIMIZER = "optimizer."  # before the names of the optimizer's arrays in a checkpoint


class StoppedError(Exception):
    """An evaluation was asked to stop."""


class DivergedError(ArithmeticError):
    """The loss is no number any more; the message says where, and what to try."""


@dataclass(frozen=True)
class Result:
    """What came of a run.

    folder             where it is kept; None for a run in memory
    finished           False where it was asked to stop; it can be resumed
    step               updates made
    loss               training loss, the mean over the last log interval
    kept_step          when the weights in model.safetensors were made; None where the run was stopped
    kept_val_*, _test  their figures over all words that are held out and in the vocabulary; None where there are none
    *_unknown_words    held-out words outside the vocabulary, which those figures leave out
    *_with_unknown     the figures over all held-out words; None where <unk> was not trained, so that they say nothing
    before, after      what the network wrote before training and at the end, by prompt
    """

    folder: Path | None
    finished: bool
    step: int
    loss: float | None
    kept_step: int | None = None
    kept_val_loss: float | None = None
    kept_val_perplexity: float | None = None
    kept_val_unknown_words: int | None = None
    kept_val_loss_with_unknown: float | None = None
    kept_val_perplexity_with_unknown: float | None = None
    kept_test_loss: float | None = None
    kept_test_perplexity: float | None = None
    kept_test_unknown_words: int | None = None
    kept_test_loss_with_unknown: float | None = None
    kept_test_perplexity_with_unknown: float | None = None
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)


@dataclass
class Progress:
    """How far a run is: all that changes from step to step, beside the weights and the optimizer's state.

    step, words           updates made, and words that were guessed for them
    seconds               since the start, over all sittings, all included
    lr                    learning rate of the last step
    interval_*            of the log interval that is under way: sum of losses, steps, words, seconds of training alone
    last_loss             of the log interval before
    best_step, best_loss  of the weights that are kept
    before, after         what the network wrote before training and at its end, by prompt
    kept                  the figures of the kept weights; empty where the run has not finished
    kept_minutes          the time budget that was finished; None where steps decided, or the run has not finished
    """

    step: int = 0
    words: int = 0
    seconds: float = 0.0
    lr: float = 0.0
    interval_loss: float = 0.0
    interval_steps: int = 0
    interval_words: int = 0
    interval_seconds: float = 0.0
    last_loss: float | None = None
    best_step: int | None = None
    best_loss: float | None = None
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    kept_minutes: float | None = None


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

    config       what to do
    text         where it is in memory already, or ids; None: config.files, or the standard library's documentation
    reporter     is told what happens
    should_stop  asked before each step, and while the held-out words are guessed at the end; where it says so the run
                 saves itself and can be resumed
    resume       go on with the run in config.out
    overwrite    replace the run in config.out
    Raises TextError, ConfigError, RunFolderError or BackendUnavailableError where the run cannot begin, CheckpointError
    where a file cannot be read or written, DivergedError where the loss becomes infinite or no number.
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
    """A run that is ready to train: its text is read, its folder is its own. The arguments are those of `train`."""
    reporter = reporter or Reporter()
    backend, threads, corpus = _prepare(config, text, reporter)
    folder = find_folder(config.out, config.files, overwrite=overwrite)
    with _lock(folder):
        holds_run = folder.holds_run()
        if holds_run and not (resume or overwrite):
            raise RunFolderError(
                f"{folder.path} already holds a run: go on with it (--resume), replace it (--overwrite) or name another"
            )
        state = _load_state(folder, config, corpus) if resume and not overwrite else None
        if others := folder.others_files(overwrite=overwrite):  # a run that was killed has left more than these
            or_replace = "" if others[0] in folder.known_by else ", or replace it (--overwrite)"
            raise RunFolderError(f"{others[0]} is there, and not of a run: name another folder{or_replace}")
        if resume and state is None:
            reporter.report(Notice(f"{folder.path} holds nothing to go on from: the run begins at step 0"))
        replaces = overwrite and any(file.exists() for file in folder.files)
        with contextlib.ExitStack() as where_it_cannot_begin:
            if not (holds_run or replaces):
                where_it_cannot_begin.callback(folder.discard)
            if state is None and not replaces:  # by this file a run is known, and others' files are told from its own
                write_atomically(folder.config, to_toml(config).encode())
            with contextlib.closing(
                SavedRun(config, corpus, folder, backend, threads, reporter, replaces=replaces)
            ) as run:
                run.say_what_runs()
                if not replaces:
                    run.take_up(state)
                if state is not None:  # a run that cannot go on keeps its options
                    write_atomically(folder.config, to_toml(config).encode())
                run.get_ready()
                where_it_cannot_begin.pop_all()
                yield run


def run_in_memory(
    config: TrainConfig, *, text: Text | np.ndarray | None = None, reporter: Reporter | None = None
) -> "Run":
    """A run that is ready to train and writes nothing. The arguments are those of `train`."""
    reporter = reporter or Reporter()
    backend, threads, corpus = _prepare(config, text, reporter)
    run = Run(config, corpus, backend, threads, reporter)
    run.say_what_runs()
    run.get_ready()
    return run


def _prepare(config: TrainConfig, text: Text | np.ndarray | None, reporter: Reporter) -> tuple[Backend, int, Corpus]:
    """What a run needs: a back-end, threads, and its text, read."""
    backend, threads = choose_backend(config.backend), _threads(config)
    training_precision(config, backend)  # refused before the text is read
    corpus = read_corpus(config, text)
    for prompt in config.prompt:
        if not corpus.tokenizer.split(prompt):
            raise ConfigError("prompt", f"expected a text with words in it, got {prompt!r}")
    reporter.report(
        TextRead(
            _source(config.files, [file.name for file in corpus.files]),
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


@contextlib.contextmanager
def _lock(folder: RunFolder) -> Iterator[None]:
    """The folder is nobody else's."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(folder.path))
        except CheckpointError as error:
            raise RunFolderError(str(error)) from error
        yield


def _load_state(folder: RunFolder, config: TrainConfig, corpus: Corpus) -> State | None:
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
    before = TrainConfig.layered(metadata["config"])
    if changed := before.changed_for(config):
        raise ConfigError(changed[0], before.kept(changed[0]))
    (text, *val), (text_before, *val_before) = corpus.sha256, metadata["sha256"]
    if text != text_before:
        was, now = _source(before.files, metadata["files"]), _source(config.files, [file.name for file in corpus.files])
        advice = "it has changed since; put it back as it was, or name" if was == now else "name that one, or"
        raise RunFolderError(f"{folder.path} was trained on another text ({was}): {advice} another folder")
    if val != val_before:
        has_changed = f"{config.val_file} has changed since the run began: put it back as it was"
        raise ConfigError("val_file", has_changed if before.val_file == config.val_file else before.kept("val_file"))
    if metadata["vocabulary"] != list(corpus.vocabulary.words):
        raise RunFolderError(f"{folder.path}: another version of fastmlp found other words in this text; use that one")
    return tensors, metadata


def _source(named: Sequence[str], read: Sequence[str]) -> str:
    """What a text is called: as it was named, or where it was not by what was read."""
    return ", ".join(named or read) if named or len(read) <= 3 else "documentation of Python's standard library"


def _threads(config: TrainConfig) -> int:
    try:
        return default_threads(config.threads)
    except ThreadsError as error:
        raise ConfigError("threads", str(error)) from error


def training_precision(config: TrainConfig, backend: Backend) -> str:
    """How training makes the last layer's products: "auto" is the fastest that trains to the same loss.

    bf16 does, wherever it is to be had: tests/test_trainer.py lays the curves over each other.
    """
    here = backend.ops.precisions()
    if config.precision == "auto":
        return "bf16" if "bf16" in here else here[0]
    if config.precision not in here:
        kernels = " ".join(filter(None, (backend.ops.backend, backend.simd)))
        raise ConfigError(
            "precision", f"expected auto or {', '.join(here)}, which {kernels} has, got {config.precision!r}"
        )
    return config.precision


class Run:
    """One training run, in memory. Its methods stand in the order in which things happen.

    lines  of metrics so far, as metrics.jsonl has them
    """

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        backend: Backend,
        threads: int,
        reporter: Reporter,
    ) -> None:
        self.config, self.corpus, self.reporter = config, corpus, reporter
        self.backend, self.ops, self.threads = backend, backend.ops, threads
        shape = NetworkShape(len(corpus.vocabulary), config.context, config.embed, config.hidden)
        self.precision = training_precision(config, backend)
        self.network = MLP(shape, self.ops, threads=threads, fp32_precision=self.precision, seed=config.seed)
        self.language = self._language_of(self.network)
        self.optimizer = make_optimizer(config, self.network.parameters, self.ops, threads=threads)
        self.batches = corpus.batches(config)
        self.val_sample = corpus.validation_sample(config.eval_windows)
        self.total = self._total_steps()
        self.warmup = config.warmup_steps(self.total)
        self.warmup_share = WARMUP_SHARE if self.total is None and config.warmup is None else 0.0
        prompts = [words_of_prompt(self.language, prompt) for prompt in config.prompt] or [corpus.default_prompt()]
        self.prompts = {corpus.tokenizer.join(words): words for words in prompts}
        self.progress = Progress()
        self.lines: list[dict[str, Any]] = []
        self._best: dict[str, np.ndarray] = {}  # the state_dict of best_step
        self.pace = Pace()

    def _language_of(self, network: MLP) -> LanguageModel:
        corpus = self.corpus
        return LanguageModel.from_network(network, corpus.vocabulary, corpus.tokenizer, unk_trained=corpus.unk_trained)

    def _total_steps(self) -> int | None:
        """Steps of the whole run; None where time decides."""
        if isinstance(self.batches, EpochBatches):
            return (self.config.epochs or 1) * self.batches.batches_per_epoch
        return self.config.steps

    def _report(self, event: Event) -> None:
        self.reporter.report(event)

    # ------------------------------------------------------------------------------------------------------- beginning

    def say_what_runs(self) -> None:
        """Report the network, the back-end, precision and threads."""
        shape = self.network.shape
        self._report(
            NetworkMade(shape.vocabulary, shape.context, shape.embed, list(shape.hidden), shape.parameter_count())
        )
        self._report(Running(self.ops.backend, self.backend.simd, self.precision, self.threads))
        if self.backend.notice:
            self._report(Notice(self.backend.notice))

    def get_ready(self) -> None:
        """Report what is odd in the options; let a back-end that compiles on first use do it now, where it is seen."""
        if self.total is not None and self.warmup > self.total:
            self._report(
                Notice(
                    f"the learning rate grows over {self.warmup:,} steps, and the run has {self.total:,}: it does not"
                    f" reach {self.config.lr:g}"
                )
            )
        if len(self.prompts) < len(self.config.prompt):
            given, sampled = len(self.config.prompt), len(self.prompts)
            self._report(Notice(f"prompts with the same words are one: {given} given, {sampled} sampled"))
        if unknown := describe_unknown_words(
            self.language, [word for words in self.prompts.values() for word in words]
        ):
            self._report(Notice(unknown))
        if self.backend.compile_ops is not None:
            self._report(Compiling(self.ops.backend))
            began = time.perf_counter()
            self.backend.compile_ops()
            self._report(Compiled(time.perf_counter() - began))

    # -------------------------------------------------------------------------------------------------------- training

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> Result:
        """Train to the end, or until `should_stop` says so before a step, or in the evaluation of the end."""
        self._start_clocks()
        with np.errstate(all="ignore"):  # what overflows shows in the loss
            try:
                self.pace = self._try_evaluation()
                if self._was_finished():
                    over = "" if self.total is not None else "; minutes count over all sittings"
                    self._report(
                        Notice(f"it was finished before, after {self.progress.step:,} steps: nothing is trained{over}")
                    )
                    return self._finished()
                self.progress.kept, self.progress.kept_minutes = {}, None
                self._judge_best_anew()
                texts = self.progress.before or self._texts(self.language)
                self._begin()
                if not self.progress.before:
                    self.progress.before = self._tell(texts)
                self._report(Started(self.progress.step, self.total, self._share(), self.config.epochs))
                if self._is_done():
                    self._report(Notice(f"{self._why_done()}: nothing is trained"))
                while not self._is_done():
                    if should_stop():
                        return self._stop()
                    self._step()
                    if not self._is_done():
                        self._between_steps()
                return self._finish(should_stop)
            except StoppedError:
                return self._stop()
            except DivergedError:
                self._draw()
                raise

    def _was_finished(self) -> bool:
        """Whether an earlier sitting has done all that is asked for; of a time budget a little may have been left."""
        in_time = self.total is None and (self.progress.kept_minutes or 0.0) >= (self.config.minutes or 0.0)
        return bool(self.progress.kept) and (self._is_done() or in_time)

    def _why_done(self) -> str:
        if self.total is None:
            return f"its {self.config.minutes:g} minutes, which count over all sittings, are over"
        return f"it has made {self.progress.step:,} of {self.total:,} steps"

    def _try_evaluation(self) -> Pace:
        """How long the evaluation at the end will take: the first one here makes room in memory, the second tells."""
        pace, windows = Pace(self.progress.step), self.corpus.test if self.corpus.val is None else self.corpus.val
        if windows is not None:
            trial = evenly_spaced(windows, TRIAL)
            with self._uncounted("evaluation"):
                for _ in range(2):
                    began = time.perf_counter()
                    evaluate(self.language, windows, trial)
                    pace.evaluated(len(trial), time.perf_counter() - began)
        return pace

    def _begin(self) -> None:
        """The first step comes next: from now on the run may write."""

    def _judge_best_anew(self) -> None:
        """Where others than before are the words to validate on, find out what the best weights so far make of them."""

    def _step(self) -> None:
        """One batch: its loss and gradients, then the update, unless the loss is no number."""
        progress = self.progress
        ids, targets = self.batches.batch(progress.step)
        progress.lr = self._learning_rate()
        loss = self.optimizer.step(self.network, ids, targets, progress.lr)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        if progress.step == 0:
            self._log_first(loss)
        progress.step += 1
        progress.words += len(targets)
        progress.interval_loss += loss
        progress.interval_steps += 1
        progress.interval_words += len(targets)
        self.reporter.step(progress.step, self._share(), loss)

    def _learning_rate(self) -> float:
        config = self.config
        return learning_rate(
            config.lr,
            config.schedule,
            progress=self._share(),
            step=self.progress.step,
            warmup=self.warmup,
            warmup_share=self.warmup_share,
        )

    def _between_steps(self) -> None:
        """What is due after a step that is not the last."""
        step, config = self.progress.step, self.config
        evaluates = self.corpus.val is not None and step % config.eval_every == 0
        if evaluates or step % config.log_every == 0:
            self._log(self._evaluate() if evaluates else {})
        if step % config.sample_every == 0:
            self._sample(self.language)
        if self._save_is_due() or self.progress.best_step == step:
            self._save()
            if time.perf_counter() >= self._draw_at:
                self._draw()

    def _is_done(self) -> bool:
        if self.total is not None:
            return self.progress.step >= self.total
        return self._share() >= 1 and self.progress.step > 0

    def _share(self) -> float:
        """How much of the run is done, of its steps or of its time."""
        if self.total is not None:
            return self.progress.step / self.total
        return min(self._seconds() / self._seconds_to_train(), 1.0)

    def _seconds_to_train(self) -> float:
        """What a time budget leaves for training, so that all is done as it ends: at least half of it."""
        budget = 60 * (self.config.minutes or 0.0)
        return max(budget - self._seconds_to_finish(), budget / 2)

    def _seconds_to_finish(self) -> float:
        """How long all that follows the last step will take."""
        parts = (self.val_sample, self.corpus.val, self.corpus.test)
        return self.pace.seconds_to_finish(sum(len(part) for part in parts if part is not None))

    def _seconds_left(self) -> float | None:
        """Until the run is finished; None where nothing is measured yet."""
        if self._is_done():
            return 0.0
        if self.total is None:
            return max(60 * (self.config.minutes or 0.0) - self._seconds(), 0.0)
        training = self.pace.seconds_to_train(self.total - self.progress.step)
        return None if training is None else training + self._seconds_to_finish()

    # ---------------------------------------------------------------------------------------------------------- clocks

    def _start_clocks(self) -> None:
        """Go on counting where the last sitting ended."""
        now = time.perf_counter()
        self._began = now - self.progress.seconds
        self._interval_began = now - self.progress.interval_seconds
        self._saved_at = now
        self._draw_at = now + FIRST_PICTURE

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    @contextlib.contextmanager
    def _uncounted(self, work: str) -> Iterator[None]:
        """Within, time is not that of training, but of other work: words per second leave it out."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self._interval_began += seconds
            self.pace.worked(work, self.progress.step, seconds)

    # ------------------------------------------------------------------------------------------------------- measuring

    def _log_first(self, loss: float) -> None:
        """Step 0: the loss of the first batch, before any update."""
        self._write_metrics(loss, words_per_second=0.0)

    def _log(self, evaluation: dict[str, Any]) -> None:
        """The mean loss since the last line, and how fast it went; begins a new log interval."""
        progress = self.progress
        seconds = time.perf_counter() - self._interval_began
        loss = progress.interval_loss / progress.interval_steps if progress.interval_steps else progress.last_loss
        assert loss is not None  # there is no line without a step before it
        self.pace.trained(progress.interval_steps, seconds)
        self._write_metrics(loss, words_per_second=progress.interval_words / max(seconds, 1e-9), **evaluation)
        progress.last_loss = loss
        progress.interval_loss, progress.interval_steps, progress.interval_words = 0.0, 0, 0
        self._interval_began = time.perf_counter()

    def _write_metrics(self, loss: float, *, words_per_second: float, **evaluation: Any) -> None:
        metrics = {
            "step": self.progress.step,
            "words": self.progress.words,
            "seconds": round(self._seconds(), 3),
            "loss": loss,
            "lr": self.progress.lr,
            "words_per_second": round(words_per_second, 1),
            **evaluation,
        }
        self._keep_line(metrics)
        self._report(Measured(metrics, self._seconds_left(), self.progress.best_step))

    def _keep_line(self, metrics: dict[str, Any]) -> None:
        self.lines.append(metrics)

    def _evaluate(self) -> dict[str, Any]:
        """Loss and perplexity on a fixed sample of the validation part; `_save` keeps the best weights.

        All of its words are in the vocabulary, whereas the training loss is that of <unk> too.
        """
        progress = self.progress
        if self.corpus.val is None:
            return {}
        with self._uncounted("evaluation"):
            loss = self._validation_loss(self.language)
            if not math.isfinite(loss):
                raise self._diverged(f"the validation loss is {loss}")
            if progress.best_loss is None or loss < progress.best_loss:
                progress.best_step, progress.best_loss = progress.step, loss
        return {"val_loss": loss, "val_perplexity": perplexity(loss)}

    def _validation_loss(self, language: LanguageModel) -> float:
        """On the sample. It has training's precision and so its speed; `_evaluate_kept` has float32's."""
        assert self.corpus.val is not None
        return evaluate(language, self.corpus.val, self.val_sample, fp32_precision=self.precision).loss

    def _evaluate_kept(self, kept: LanguageModel, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """The figures of the kept weights over all words that are held out, without and with unknown ones.

        Raises StoppedError where `should_stop` says so on the way.
        """

        def watch(words: int) -> None:
            if should_stop():
                raise StoppedError

        figures: dict[str, Any] = {"kept_step": self.progress.best_step}
        if held_out := len(self.corpus.val or ()) + len(self.corpus.test or ()):
            self._report(Evaluating(held_out))
        with self._uncounted("evaluation"):
            for part, windows in (("val", self.corpus.val), ("test", self.corpus.test)):
                if windows is not None and (evaluation := evaluate(kept, windows, watch=watch)).words:
                    figures |= {f"kept_{part}_{name}": value for name, value in evaluation.figures().items()}
        return figures

    def _sample(self, language: LanguageModel, *, at_end: bool = False) -> dict[str, str]:
        """What the network writes after each prompt, told."""
        return self._tell(self._texts(language), at_end=at_end)

    def _texts(self, language: LanguageModel) -> dict[str, str]:
        """What the network writes after each prompt, always with the same random numbers."""
        texts = {}
        with self._uncounted("sample"):
            for number, (prompt, words) in enumerate(self.prompts.items()):
                rng = random_numbers(self.config.seed, SAMPLE_STREAM + number)
                new_words = complete(language, words, SAMPLE_WORDS, rng)
                texts[prompt] = self.corpus.tokenizer.join([*words, *new_words])
        return texts

    def _tell(self, texts: dict[str, str], *, at_end: bool = False) -> dict[str, str]:
        """Keep and report what was written."""
        step = self.progress.step
        self._keep_samples("".join(f"step {step:,}\n{text}\n\n" for text in texts.values()))
        for prompt, text in texts.items():
            self._report(Sampled(step, prompt, text, self.progress.before.get(prompt) if at_end else None))
        return texts

    def _keep_samples(self, texts: str) -> None:
        """They are reported; a run in memory keeps them no longer."""

    # ---------------------------------------------------------------------------------------------------------- saving

    def _save_is_due(self) -> bool:
        """Whether to save, be the weights the best or not: nobody can go on from what is in memory."""
        return False

    def _save(self) -> None:
        """Keep what is to be kept of the run as it is now."""
        progress = self.progress
        if self.corpus.val is None:  # nothing says which weights are the best: the last ones
            progress.best_step = progress.step
        progress.seconds = self._seconds()
        progress.interval_seconds = time.perf_counter() - self._interval_began
        with self._uncounted("save"):
            self._check_finite()
            self._keep_state()

    def _keep_state(self) -> None:
        """Keep the weights where they are the best so far."""
        if self.progress.best_step == self.progress.step:
            self._best = {}  # two of them are never kept at once
            self._best = {name: array.copy() for name, array in self.network.state_dict().items()}

    def _check_finite(self) -> None:
        """No checkpoint is replaced by one that cannot be used."""
        for name, array in {**self.network.state_dict(), **self.optimizer.state}.items():
            if not np.isfinite(array).all():
                raise self._diverged(f"{name} is no longer finite")

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"{what} at step {self.progress.step:,} with learning rate {self.progress.lr:g}: try a lower one, such as"
            f" {self._advice()}"
        )

    def _advice(self) -> str:
        """A rate to try, and what is left."""
        return f"lr={self._lower_rate():g}; nothing is kept"

    def _lower_rate(self) -> float:
        return min(self.config.lr / 10, LEARNING_RATES[self.config.optimizer])

    # ---------------------------------------------------------------------------------------------------------- ending

    def _stop(self) -> Result:
        """Save and draw: a run in a folder can be resumed."""
        self._save()
        self._draw()
        self._report(Stopped(self._place(), self.progress.step))
        return self._result(finished=False)

    def _finish(self, should_stop: Callable[[], bool]) -> Result:
        """Evaluate the last weights, then the kept ones in full, and write the completions again.

        What was trained is saved before, since all of this may take minutes.
        """
        self._save()
        evaluation, progress = self._evaluate(), self.progress
        kept = self.kept_language()
        figures = self._evaluate_kept(kept, should_stop)
        self._log({**evaluation, **figures})
        progress.after = self._sample(kept, at_end=True)
        progress.kept, progress.kept_minutes = figures, self.config.minutes
        self._save()
        return self._finished()

    def kept_language(self) -> LanguageModel:
        """The language model of the best weights; of the last ones where none were found to be the best yet."""
        if self.progress.best_step in (None, self.progress.step):
            return self.language
        return self._load_best()

    def _load_best(self) -> LanguageModel:
        network = self.network
        return self._language_of(MLP(network.shape, self.ops, threads=self.threads, parameters=self._best))

    def _finished(self) -> Result:
        progress, plot = self.progress, self._draw()
        self._report(Finished(self._place(), progress.step, progress.seconds, progress.last_loss, progress.kept, plot))
        return self._result(finished=True)

    def _result(self, *, finished: bool) -> Result:
        progress = self.progress
        return Result(
            folder=None if (place := self._place()) is None else Path(place),
            finished=finished,
            step=progress.step,
            loss=progress.last_loss,
            before=progress.before,
            after=progress.after,
            **progress.kept,
        )

    def _draw(self) -> str | None:
        """Draw the loss over the steps where the run has a folder for that; returns the picture's file."""
        return None

    def _place(self) -> str | None:
        """The run's folder."""
        return None

    def metrics_lines(self) -> list[dict[str, Any]]:
        """The lines of metrics from the first step on, as metrics.jsonl has them."""
        return self.lines


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
            progress.best_loss, self.judged_on = self._validation_loss(self.kept_language()), self.val_sample
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
            **self.language.metadata(),
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

    def _load_best(self) -> LanguageModel:
        return load_language_model(self.folder.model, self.ops, threads=self.threads)

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
