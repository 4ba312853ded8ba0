"""The training loop."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.config import LEARNING_RATES, WARMUP_SHARE, TrainConfig
from fastmlp.data.batches import EpochBatches
from fastmlp.data.corpus import Corpus
from fastmlp.data.windows import evenly_spaced
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
)
from fastmlp.network.network import MLP
from fastmlp.network.shape import NetworkShape
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.prediction.evaluation import evaluate, perplexity
from fastmlp.prediction.generation import complete, describe_unknown_words, random_numbers, words_of_prompt
from fastmlp.prediction.neural import NeuralModel
from fastmlp.training.clock import Pace
from fastmlp.training.progress import Progress, Result
from fastmlp.training.schedule import learning_rate
from fastmlp.training.update_rules import make_optimizer

__all__ = ["Run"]

SAMPLE_WORDS = 30
FIRST_PICTURE = 10.0  # seconds after which a run is worth a picture
TRIAL = 512  # words of an evaluation that only tells how long evaluations take
SAMPLE_STREAM = 1_000  # of the seed's random numbers: those below initialise the weights


class StoppedError(Exception):
    """An evaluation was asked to stop."""


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
        self.model = self._model_of(self.network)
        self.optimizer = make_optimizer(config, self.network.parameters, self.ops, threads=threads)
        self.batches = corpus.batches(config)
        self.val_sample = corpus.validation_sample(config.eval_windows)
        self.total = self._total_steps()
        self.warmup = config.warmup_steps(self.total)
        self.warmup_share = WARMUP_SHARE if self.total is None and config.warmup is None else 0.0
        prompts = [words_of_prompt(self.model, prompt) for prompt in config.prompt] or [corpus.default_prompt()]
        self.prompts = {corpus.tokenizer.join(words): words for words in prompts}
        self.progress = Progress()
        self.lines: list[dict[str, Any]] = []
        self._best: dict[str, np.ndarray] = {}  # the state_dict of best_step
        self.pace = Pace()

    def _model_of(self, network: MLP) -> NeuralModel:
        corpus = self.corpus
        return NeuralModel(network, corpus.vocabulary, corpus.tokenizer, corpus.unk_trained)

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
        if unknown := describe_unknown_words(self.model, [word for words in self.prompts.values() for word in words]):
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
                texts = self.progress.before or self._texts(self.model)
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
                    evaluate(self.model, windows, trial)
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
            self._sample(self.model)
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
            loss = self._validation_loss(self.model)
            if not math.isfinite(loss):
                raise self._diverged(f"the validation loss is {loss}")
            if progress.best_loss is None or loss < progress.best_loss:
                progress.best_step, progress.best_loss = progress.step, loss
        return {"val_loss": loss, "val_perplexity": perplexity(loss)}

    def _validation_loss(self, model: NeuralModel) -> float:
        """On the sample. It has training's precision and so its speed; `_evaluate_kept` has float32's."""
        assert self.corpus.val is not None
        return evaluate(model, self.corpus.val, self.val_sample, fp32_precision=self.precision).loss

    def _evaluate_kept(self, kept: NeuralModel, should_stop: Callable[[], bool]) -> dict[str, Any]:
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

    def _sample(self, model: NeuralModel, *, at_end: bool = False) -> dict[str, str]:
        """What the network writes after each prompt, told."""
        return self._tell(self._texts(model), at_end=at_end)

    def _texts(self, model: NeuralModel) -> dict[str, str]:
        """What the network writes after each prompt, always with the same random numbers."""
        texts = {}
        with self._uncounted("sample"):
            for number, (prompt, words) in enumerate(self.prompts.items()):
                rng = random_numbers(self.config.seed, SAMPLE_STREAM + number)
                new_words = complete(model, words, SAMPLE_WORDS, rng)
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
        kept = self.kept_model()
        figures = self._evaluate_kept(kept, should_stop)
        self._log({**evaluation, **figures})
        progress.after = self._sample(kept, at_end=True)
        progress.kept, progress.kept_minutes = figures, self.config.minutes
        self._save()
        return self._finished()

    def kept_model(self) -> NeuralModel:
        """The model of the best weights; of the last ones where none were found to be the best yet."""
        if self.progress.best_step in (None, self.progress.step):
            return self.model
        return self._load_best()

    def _load_best(self) -> NeuralModel:
        network = self.network
        return self._model_of(MLP(network.shape, self.ops, threads=self.threads, parameters=self._best))

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
