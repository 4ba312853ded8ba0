"""The training loop."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from fastmlp import __version__
from fastmlp.config import LEARNING_RATES, NETWORK_OPTIONS, TrainConfig, to_dict
from fastmlp.data.corpus import Corpus
from fastmlp.errors import DivergedError
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
    Running,
    Sampled,
    Started,
    Stopped,
    Writing,
)
from fastmlp.files.run_folder import RunFolder
from fastmlp.network.network import Network
from fastmlp.network.shape import NetworkShape
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.prediction.evaluation import perplexity
from fastmlp.prediction.neural import NeuralModel
from fastmlp.training.clock import Clock
from fastmlp.training.keeper import Folder, Keeper, Memory
from fastmlp.training.optimizer import make_optimizer
from fastmlp.training.progress import Progress, Result
from fastmlp.training.recipe import filled_in
from fastmlp.training.samples import Samples
from fastmlp.training.schedule import Schedule
from fastmlp.training.state import Checkpoint, TrainingState
from fastmlp.training.validation import Validation

__all__ = ["Run", "SavedRun", "training_precision"]


OF_SHAPE = (*NETWORK_OPTIONS, "embed_std")
MUCH_WORSE = 0.02  # nats above the best validation: more than by chance


class StoppedError(Exception):
    """An evaluation was asked to stop."""


def training_precision(config: TrainConfig, backend: Backend) -> str:
    """How training makes the last layer's products: "auto" is the fastest that trains to the same loss.

    bf16 does, wherever it is to be had: the tests of the trainer lay the curves over each other.
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


def shape_of(config: TrainConfig, vocabulary: int) -> NetworkShape:
    """The network that a configuration asks for, for so many words."""
    return NetworkShape(
        vocabulary, hidden=config.widths, **{name: getattr(config, name) for name in OF_SHAPE if name != "hidden"}
    )


def words_per_second(config: TrainConfig, corpus: Corpus, backend: Backend, threads: int) -> float:
    """How fast a network of this configuration trains here: the second of two steps of one that is thrown away."""
    config = filled_in(config, len(corpus.train), 1.0)
    network = Network(
        shape_of(config, len(corpus.vocabulary)),
        backend.ops,
        threads=threads,
        fp32_precision=training_precision(config, backend),
        seed=config.seed,
    )
    batch, optimizer = corpus.batches(config).batch(0), make_optimizer(config, network.layers)
    seconds = 0.0
    for _ in range(3):
        began = time.perf_counter()
        network.step(batch, optimizer)
        seconds = time.perf_counter() - began
    return len(batch.targets) / max(seconds, 1e-9)


class Run:
    """One training run: a loop over the steps of its schedule, and what comes between them.

    schedule    how long it is, its learning rate, what is due after which step
    clock       its seconds, and how fast it is; there once it trains
    validation  the held-out words
    samples     the texts that it writes on the way
    keeper      where all of it is kept
    """

    clock: Clock

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        backend: Backend,
        threads: int,
        reporter: Reporter,
        keeper: Keeper | None = None,
    ) -> None:
        """keeper  None: in memory"""
        self.config, self.corpus, self.reporter = config, corpus, reporter
        self.backend, self.ops, self.threads = backend, backend.ops, threads
        self.keeper = keeper or Memory()
        shape = shape_of(config, len(corpus.vocabulary))
        counts = corpus.counts() if config.output_bias == "frequencies" else None
        self.precision = training_precision(config, backend)
        self.network = Network(
            shape, self.ops, threads=threads, fp32_precision=self.precision, seed=config.seed, counts=counts
        )
        self.model = NeuralModel(self.network, corpus.vocabulary, corpus.tokenizer, corpus.unk_trained)
        self.optimizer = make_optimizer(config, self.network.layers)
        self.batches = corpus.batches(config)
        self.schedule = Schedule(config, self.batches)
        self.validation = Validation(corpus, config.eval_windows, self.precision)
        self.samples = Samples(config, corpus, self.model)
        self.progress = Progress()
        facts = {
            "config": to_dict(config),
            # a folder may hold names that are not UTF-8, which JSON cannot hold
            "files": [file.name.encode(errors="backslashreplace").decode() for file in corpus.files],
            "sha256": corpus.sha256,
            "backend": self.ops.backend,
            "precision": self.precision,
            "fastmlp": __version__,
        }
        self.state = TrainingState(self.model, self.optimizer, self.progress, facts)
        self._best_judged_on = self.validation.sample  # the words that say which weights are the best so far

    def _report(self, event: Event) -> None:
        self.reporter.report(event)

    # -------------------------------------------------------------------------------------------- before the first step

    def report_setup(self) -> None:
        """Report the network, the back-end, precision, threads, and where it is kept."""
        shape, total = self.network.shape, self.schedule.total
        self._report(
            NetworkMade(
                vocabulary=shape.vocabulary,
                context=shape.context,
                embed=shape.embed,
                hidden=[*shape.hidden, *[shape.hidden[-1]] * shape.blocks],
                parameters=self.network.parameter_count(),
                averages=list(shape.averages),
                reach=shape.reach,
                activation=shape.activation,
                projection=shape.projection,
                tied=shape.tied,
                dropout=list(shape.dropout),
                passes=None if total is None else total * self.config.batch_size / len(self.corpus.train),
            )
        )
        self._report(Running(self.ops.backend, self.backend.simd, self.precision, self.threads))
        if self.backend.notice:
            self._report(Notice(self.backend.notice))
        if self.keeper.path is not None:
            self._report(Writing(str(self.keeper.path)))

    def open(self, saved: Checkpoint | None = None) -> None:
        """Get ready to write, from the beginning or after a checkpoint that the run resumes from."""
        self.keeper.open(self.state, saved)
        if saved is None:
            return
        _, metadata = saved
        self._best_judged_on = self.corpus.validation_sample(metadata["config"]["eval_windows"])
        # of before there were precisions: float32
        before = metadata["backend"], metadata.get("precision", "ieee")
        now = self.ops.backend, self.precision
        if before != now:
            self._report(Notice(f"it ran on {' in '.join(before)} before: {' in '.join(now)} goes on with other bits"))

    def prepare(self) -> None:
        """Report what is odd in the options; let a back-end that compiles on first use do it now, where it is seen."""
        schedule, samples = self.schedule, self.samples
        if schedule.total is not None and schedule.warmup > schedule.total:
            self._report(
                Notice(
                    f"the learning rate grows over {schedule.warmup:,} steps, and the run has {schedule.total:,}: it"
                    f" does not reach {self.config.lr:g}"
                )
            )
        if len(samples.prompts) < len(self.config.prompt):
            given, sampled = len(self.config.prompt), len(samples.prompts)
            self._report(Notice(f"prompts with the same words are one: {given} given, {sampled} sampled"))
        if unknown := samples.unknown_words(self.model):
            self._report(Notice(unknown))
        if self.backend.compile_ops is not None:
            self._report(Compiling(self.ops.backend))
            began = time.perf_counter()
            self.backend.compile_ops()
            self._report(Compiled(time.perf_counter() - began))

    # -------------------------------------------------------------------------------------------------------- training

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> Result:
        """Train to the end, or until `should_stop` says so before a step, or in the evaluation of the end."""
        self.clock = Clock(self.progress)
        self.keeper.start()
        with np.errstate(all="ignore"):  # what overflows shows in the loss
            try:
                self._try_evaluation()
                if self._was_finished():
                    over = "" if self.schedule.total is not None else "; minutes count over all sittings"
                    self._report(
                        Notice(f"it was finished before, after {self.progress.step:,} steps: nothing is trained{over}")
                    )
                    return self._finished()
                self.progress.kept, self.progress.kept_minutes = {}, None
                self._judge_best_anew()
                texts = self.progress.before or self._sample_texts(self.model)
                self.keeper.begin(self.state)
                if not self.progress.before:
                    self.progress.before = self._write_samples(texts)
                self._report(Started(self.progress.step, self.schedule.total, self._share(), self.config.epochs))
                if self._is_done():
                    self._report(Notice(f"{self.schedule.why_done(self.progress.step)}: nothing is trained"))
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

    def _step(self) -> None:
        """One batch: its loss and gradients, then the update, unless the loss is no number."""
        progress = self.progress
        batch = self.batches.batch(progress.step)
        progress.lr = self.schedule.learning_rate(progress.step, self._share())
        for group in self.optimizer.param_groups:
            group["lr"] = progress.lr
        loss = self.network.step(batch, self.optimizer, progress.step)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        if progress.step == 0:  # the loss of the first batch, before any update
            self._write_metrics(loss, words_per_second=0.0)
        progress.step += 1
        progress.words += len(batch.targets)
        progress.interval_loss += loss
        progress.interval_steps += 1
        progress.interval_words += len(batch.targets)
        self.reporter.step(progress.step, self._share(), loss)

    def _between_steps(self) -> None:
        """What is due after a step that is not the last, in the order in which a resumed run counts on it."""
        step, schedule = self.progress.step, self.schedule
        validates = self.corpus.val is not None and schedule.validates(step)
        if validates or schedule.logs(step):
            evaluation = self._validate() if validates else {}
            if self.progress.gave_up:  # the end writes this step's line
                return
            self._log(evaluation)
        if schedule.samples(step):
            self._write_samples(self._sample_texts(self.model))
        if self.keeper.save_is_due(step) or self.progress.best_step == step:
            self._save()
            if self.keeper.draw_is_due():
                self._draw()

    def _stop(self) -> Result:
        """Save and draw: a run in a folder can be resumed."""
        self._save()
        self._draw()
        self._report(Stopped(self._place(), self.progress.step))
        return self._result(finished=False)

    def _finish(self, should_stop: Callable[[], bool]) -> Result:
        """Validate the last weights, evaluate the best ones on all held-out words, and write the completions again.

        What was trained is saved before, since all of this may take minutes.
        """
        self._save()
        validation, progress = self._validate(), self.progress
        best = self.best_model()
        figures = self._evaluate(best, should_stop)
        self._log({**validation, **figures})
        progress.after = self._write_samples(self._sample_texts(best), at_end=True)
        progress.kept, progress.kept_minutes = figures, self.config.minutes
        self._save()
        return self._finished()

    def _finished(self) -> Result:
        progress, plot = self.progress, self._draw()
        self._report(Finished(self._place(), progress.step, progress.seconds, progress.last_loss, progress.kept, plot))
        return self._result(finished=True)

    def _result(self, *, finished: bool) -> Result:
        progress = self.progress
        return Result(
            folder=self.keeper.path,
            finished=finished,
            step=progress.step,
            loss=progress.last_loss,
            before=progress.before,
            after=progress.after,
            **progress.kept,
        )

    # ---------------------------------------------------------------------------------------------------- how far it is

    def _share(self) -> float:
        """How much of the run is done, of its steps or of its time."""
        if self.schedule.total is not None:
            return self.progress.step / self.schedule.total
        return self.schedule.share_of_time(self.clock.seconds(), self._seconds_to_finish())

    def _is_done(self) -> bool:
        """Whether no step is left; of a time budget at least one is made."""
        if self.progress.gave_up:
            return True
        if self.schedule.total is not None:
            return self.progress.step >= self.schedule.total
        return self._share() >= 1 and self.progress.step > 0

    def _was_finished(self) -> bool:
        """Whether an earlier sitting has done all that is asked for; of a time budget a little may have been left."""
        in_time = self.schedule.total is None and (self.progress.kept_minutes or 0.0) >= (self.config.minutes or 0.0)
        return bool(self.progress.kept) and (self._is_done() or in_time)

    def _seconds_to_finish(self) -> float:
        """How long all that follows the last step will take."""
        return self.clock.pace.seconds_to_finish(len(self.validation.sample) + self.validation.held_out)

    def _seconds_left(self) -> float | None:
        """Until the run is finished; None where nothing is measured yet."""
        if self._is_done():
            return 0.0
        if self.schedule.total is None:
            return max(self.schedule.budget - self.clock.seconds(), 0.0)
        training = self.clock.pace.seconds_to_train(self.schedule.total - self.progress.step)
        return None if training is None else training + self._seconds_to_finish()

    def _uncounted(self, work: str) -> AbstractContextManager[None]:
        return self.clock.uncounted(work, self.progress.step)

    # ------------------------------------------------------------------------------------------------------- measuring

    def _try_evaluation(self) -> None:
        """Measure how long an evaluation takes: the first one makes room in memory, the second tells."""
        with self._uncounted("evaluation"):
            for _ in range(2):
                began = time.perf_counter()
                if words := self.validation.trial(self.model):
                    self.clock.pace.evaluated(words, time.perf_counter() - began)

    def _judge_best_anew(self) -> None:
        """Validate the best weights so far once more where a resumed run validates on other words."""
        progress, sample = self.progress, self.validation.sample
        if progress.best_loss is None or np.array_equal(self._best_judged_on, sample):
            return
        with self._uncounted("evaluation"):
            progress.best_loss, self._best_judged_on = self.validation.loss(self.best_model()), sample
        self._report(
            Notice(
                f"other words validate than before: on {len(sample):,} of them the best weights so far, those"
                f" of step {progress.best_step:,}, have loss {progress.best_loss:.3f}"
            )
        )

    def _validate(self) -> dict[str, Any]:
        """Loss and perplexity on the validation sample; `_save` keeps the weights where they are the best so far.

        All of its words are in the vocabulary, whereas the training loss is that of <unk> too.
        """
        progress = self.progress
        if self.corpus.val is None:
            return {}
        with self._uncounted("evaluation"):
            loss = self.validation.loss(self.model)
            if not math.isfinite(loss):
                raise self._diverged(f"the validation loss is {loss}")
            if progress.best_loss is None or loss < progress.best_loss:
                progress.best_step, progress.best_loss, progress.worse = progress.step, loss, 0
            elif loss <= progress.best_loss + MUCH_WORSE:
                progress.worse = 0
            elif self.config.patience:
                self._lose_patience()
        return {"val_loss": loss, "val_perplexity": perplexity(loss)}

    def _lose_patience(self) -> None:
        """Count a validation that is much worse than the best: say so once, and end the run after too many in a row."""
        progress, best = self.progress, f"step {self.progress.best_step:,}"
        progress.worse += 1
        if progress.worse == min(2, self.config.patience):
            self._report(
                Notice(
                    f"the validation loss has been rising since {best}: the network learns its text by heart. A longer"
                    f" text helps, or fewer passes over it, a smaller network, more dropout"
                )
            )
        if progress.worse >= self.config.patience and not progress.gave_up and not self._is_done():
            progress.gave_up = True
            self._report(
                Notice(
                    f"stopped early: the last {progress.worse} validations were worse than that of {best}, whose"
                    " weights are kept (--patience)"
                )
            )

    def _evaluate(self, best: NeuralModel, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """The figures of the best weights. Raises StoppedError where `should_stop` says so on the way."""

        def watch(_words: int) -> None:
            if should_stop():
                raise StoppedError

        if self.validation.held_out:
            self._report(Evaluating(self.validation.held_out))
        with self._uncounted("evaluation"):
            return {"kept_step": self.progress.best_step, **self.validation.figures(best, watch)}

    def _log(self, evaluation: dict[str, Any]) -> None:
        """The mean loss since the last line, and how fast it went; begins a new log interval."""
        progress, seconds = self.progress, self.clock.interval_seconds()
        loss = progress.interval_loss / progress.interval_steps if progress.interval_steps else progress.last_loss
        assert loss is not None  # there is no line without a step before it
        self.clock.pace.trained(progress.interval_steps, seconds)
        self._write_metrics(loss, words_per_second=progress.interval_words / max(seconds, 1e-9), **evaluation)
        progress.last_loss = loss
        progress.interval_loss, progress.interval_steps, progress.interval_words = 0.0, 0, 0
        self.clock.begin_interval()

    def _write_metrics(self, loss: float, *, words_per_second: float, **evaluation: Any) -> None:
        metrics = {
            "step": self.progress.step,
            "words": self.progress.words,
            "seconds": round(self.clock.seconds(), 3),
            "loss": loss,
            "lr": self.progress.lr,
            "words_per_second": round(words_per_second, 1),
            **evaluation,
        }
        self.keeper.write_metrics(metrics)
        self._report(Measured(metrics, self._seconds_left(), self.progress.best_step))

    def _sample_texts(self, model: NeuralModel) -> dict[str, str]:
        with self._uncounted("sample"):
            return self.samples.texts(model)

    def _write_samples(self, texts: dict[str, str], *, at_end: bool = False) -> dict[str, str]:
        """Keep and report what was written."""
        step = self.progress.step
        self.keeper.write_samples("".join(f"step {step:,}\n{text}\n\n" for text in texts.values()))
        for prompt, text in texts.items():
            before, best = (self.progress.before.get(prompt), self.progress.best_step) if at_end else (None, None)
            self._report(Sampled(step, prompt, text, before, best))
        return texts

    # ---------------------------------------------------------------------------------------------------------- saving

    def _save(self) -> None:
        """Keep what is to be kept of the run as it is now."""
        progress = self.progress
        if self.corpus.val is None:  # nothing says which weights are the best: the last ones
            progress.best_step = progress.step
        progress.seconds, progress.interval_seconds = self.clock.seconds(), self.clock.interval_seconds()
        with self._uncounted("save"):
            if name := self.state.not_finite():  # no checkpoint is replaced by one that cannot be used
                raise self._diverged(f"{name} is no longer finite")
            self.keeper.save(self.state)

    def _diverged(self, what: str) -> DivergedError:
        lower = min(self.config.lr / 10, LEARNING_RATES[self.config.optimizer])
        return DivergedError(
            f"{what} at step {self.progress.step:,} with learning rate {self.progress.lr:g}: try a lower one, such as"
            f" {self.keeper.advice(lower)}"
        )

    def _draw(self) -> str | None:
        with self._uncounted("picture"):
            return self.keeper.draw()

    def best_model(self) -> NeuralModel:
        """The model of the best weights; of the last ones where none were found to be the best yet."""
        if self.progress.best_step in (None, self.progress.step):
            return self.model
        return self.keeper.best(self.model)

    def _place(self) -> str | None:
        return None if self.keeper.path is None else str(self.keeper.path)

    def metrics_lines(self) -> list[dict[str, Any]]:
        """The lines of metrics from the first step on, as metrics.jsonl has them."""
        return self.keeper.metrics()

    def close(self) -> None:
        """Let go of the files."""
        self.keeper.close()


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
    ) -> None:
        """replaces  whether the folder still holds the run that this one replaces: until its first step it stays"""
        self.folder = folder
        super().__init__(
            config, corpus, backend, threads, reporter, Folder(folder, config, reporter.report, replaces=replaces)
        )
