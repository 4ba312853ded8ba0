"""The training loop: its parts are values of their own, in the modules beside it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastmlp.config import LEARNING_RATES, TrainConfig, with_rules
from fastmlp.data.corpus import Corpus
from fastmlp.errors import DivergedError
from fastmlp.events import Evaluating, Finished, Notice, Reporter, Started, Stopped
from fastmlp.ops.backend import Backend
from fastmlp.prediction.evaluation import perplexity
from fastmlp.prediction.mixture import Mixture
from fastmlp.prediction.neural import NeuralModel
from fastmlp.training import setup
from fastmlp.training.clock import Clock
from fastmlp.training.completion import Completion
from fastmlp.training.early_stopping import EarlyStopping
from fastmlp.training.keeper import Keeper, Memory
from fastmlp.training.metrics import Metrics
from fastmlp.training.mixing import Mixing
from fastmlp.training.optimizer import make_optimizer, set_learning_rate
from fastmlp.training.progress import Progress, Result
from fastmlp.training.ranks import Leader, StateOfRanks
from fastmlp.training.samples import Samples
from fastmlp.training.schedule import Schedule
from fastmlp.training.state import Checkpoint, TrainingState
from fastmlp.training.validation import StoppedError, Validation

__all__ = ["Run"]


class Run:
    """One training run: a loop over the steps of its schedule, and what comes between them.

    schedule        how long it is, its learning rate, what is due after which step
    clock           its seconds, and how fast it is
    completion      how much of it is done
    validation      the held-out words
    mixing          the counts beside the network
    early_stopping  which weights are the best so far, and whether it ends early
    samples         the texts that it writes on the way
    metrics         its lines of metrics
    keeper          where all of it is kept
    model           what predicts; with ranks that share the words out it has the weights only when `current_model` says
    """

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        backend: Backend,
        threads: int,
        reporter: Reporter,
        keeper: Keeper | None = None,
        leader: Leader | None = None,
    ) -> None:
        """keeper  None: in memory
        leader  of the ranks that share the words out; None: this process has all of them
        """
        self.config, self.corpus, self.backend, self.reporter = config, corpus, backend, reporter
        self._report = reporter.report
        self.keeper = keeper or Memory()
        self.precision = setup.training_precision(config, backend)
        self.leader = leader
        if leader is None:
            whole = self.network = setup.make_network(config, corpus, backend, threads)
            self.optimizer = make_optimizer(config, self.network.layers)
        else:
            trainee = leader.begin(config, corpus, backend, threads)
            self.network, self.optimizer, whole = trainee.network, trainee.optimizer, leader.whole_network()
        self.batches = corpus.batches(config)
        self.model = NeuralModel(whole, corpus.vocabulary, corpus.tokenizer, corpus.unk_trained)
        self.progress = Progress()
        self.schedule = Schedule(config, self.batches)
        self.clock = Clock(self.progress)
        self.validation = Validation(corpus, config.eval_windows, self.precision)
        self.guessing = math.log(len(corpus.vocabulary))
        compared = self.validation.sample, self.progress, reporter, self.guessing
        self.early_stopping = EarlyStopping(config.patience or 0, *compared)
        self.mixing = Mixing(config, corpus, reporter)
        at_end = len(self.validation.sample) + self.mixing.words_at_end(self.validation.held_out)
        self.completion = Completion(self.schedule, self.clock, self.progress, at_end)
        self.samples = Samples(config, corpus, self.model, self.keeper, reporter)
        self.metrics = Metrics(self.progress, self.clock, self.completion, self.keeper, reporter)
        facts = setup.checkpoint_facts(config, corpus, backend, self.precision)
        state = self.model, self.optimizer, self.progress, facts
        self.state = TrainingState(*state) if leader is None else StateOfRanks(*state, leader)

    def report_setup(self) -> None:
        """Report the network, the back-end, precision, threads, and where it is kept."""
        passes = setup.passes_over(self.corpus, self.schedule)
        where = self.backend, self.precision, self.keeper.path, self.leader
        for event in setup.setup_events(self.network, passes, *where):
            self._report(event)

    def open(self, saved: Checkpoint | None = None) -> None:
        """Get ready to write, from the beginning or after a checkpoint that the run resumes from."""
        self.keeper.open(self.state, saved)
        if saved is not None:
            _, metadata = saved
            before = TrainConfig.layered(with_rules(metadata["config"]))
            self.early_stopping.resume(self.corpus.validation_sample(before.eval_windows))
            if notice := setup.notice_of_other_bits(metadata, self.backend, self.precision):
                self._report(notice)

    def prepare(self) -> None:
        """Report what is odd in the options; compile the back-end's kernels, where that is done on first use."""
        for notice in setup.option_notices(self.config, self.schedule, self.samples, self.model):
            self._report(notice)
        setup.compile_ops(self.backend, self.reporter)

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> Result:
        """Train to the end, or until `should_stop` says so before a step, or in the evaluation of the end."""
        self.clock.start()
        self.keeper.start()
        with np.errstate(all="ignore"):  # what overflows shows in the loss
            try:
                with self.clock.uncounted("evaluation"):
                    self.clock.pace.evaluated(*self.validation.trial(self.current_model()))
                if self.completion.was_finished():
                    self._report(Notice(self.schedule.why_finished(self.progress.step)))
                    return self._finished()
                with self.clock.uncounted("counting"):
                    self.mixing.count()
                self._begin()
                validation: dict[str, Any] = {}
                while not self.completion.is_done():
                    if should_stop():
                        return self._stop()
                    self._step()
                    if not self.completion.is_done():
                        validation = self._between_steps()
                return self._finish(validation, should_stop)
            except StoppedError:
                return self._stop()
            except DivergedError:
                self.keeper.save_held()
                self._draw()
                raise

    def _begin(self) -> None:
        """Write the samples of the untrained network; from now on the run may write."""
        progress = self.progress
        progress.kept, progress.kept_minutes = {}, None
        if self.early_stopping.must_revalidate():
            with self.clock.uncounted("evaluation"):
                self.early_stopping.revalidated(self.validation.loss(self.best_model()))
        texts = progress.before or self._sample_texts(self.current_model())
        self.keeper.begin(self.state)
        if not progress.before:
            progress.before = self.samples.write(texts, progress)
        self._report(Started(progress.step, self.schedule.total, self.completion.share(), self.config.epochs))
        if self.completion.is_done():
            self._report(Notice(f"{self.schedule.why_done(progress.step)}: nothing is trained"))

    def _step(self) -> None:
        """One batch: its loss and gradients, then the update, unless the loss is no number."""
        progress = self.progress
        batch = self.batches.batch(progress.step)
        progress.lr = self.schedule.learning_rate(progress.step, self.completion.share())
        if self.leader is None:
            set_learning_rate(self.optimizer, progress.lr)
            loss = self.network.step(batch, self.optimizer, progress.step)
        else:
            loss = self.leader.step(batch, progress.step, progress.lr)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        if progress.step == 0:
            self.metrics.write_first(loss, {"training_words": len(self.corpus.train), **self.mixing.figures})
        progress.advance(loss, len(batch.targets))
        self.reporter.step(progress.step, self.completion.share(), loss)

    def _between_steps(self) -> dict[str, Any]:
        """Log, validate, sample, save and draw what is due, in the order in which a resumed run counts on it.

        Return the validation that turned out to be the last, for `_finish` to log; empty where the run goes on.
        """
        step, schedule = self.progress.step, self.schedule
        validation = self._validate() if schedule.validates(step) else {}
        if validation and self.completion.is_done():  # it lost patience, or its time ran out
            return validation
        if validation or schedule.logs(step):
            self.metrics.write_interval(validation)
        if schedule.samples(step):
            self.samples.write(self._sample_texts(self.current_model()), self.progress)
        is_best = self.progress.best_step == step
        if self.keeper.save_is_due(step, is_best=is_best):
            self._save()
            if self.keeper.draw_is_due():
                self._draw()
        elif is_best:
            with self.clock.uncounted("save"):
                self._check_finite()
                self.keeper.hold_best(self.state)
        return {}

    def _stop(self) -> Result:
        """Save and draw: a run in a folder can be resumed."""
        self._save()
        self._draw()
        self._report(Stopped(self._place(), self.progress.step))
        return self.progress.result(self.keeper.path, finished=False)

    def _finish(self, validation: dict[str, Any], should_stop: Callable[[], bool]) -> Result:
        """Validate the last weights, evaluate the best ones on all held-out words, and write the completions again.

        What was trained is saved before, since all of this may take minutes.

        validation  of the last weights, where they were validated already
        """
        self._save()
        validation, progress = validation or self._validate(), self.progress
        best = self.best_model()
        if self.validation.held_out:
            self._report(Evaluating(self.validation.held_out))
        with self.clock.uncounted("evaluation"):
            figures = {"kept_step": progress.best_step, **self._figures(best, should_stop)}
        self.metrics.write_interval({**validation, **figures})
        progress.after = self.samples.write(self._sample_texts(best), progress, at_end=True)
        progress.kept, progress.kept_minutes = figures, self.config.minutes
        self._save()
        return self._finished()

    def _figures(self, best: NeuralModel, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Evaluate the best weights, alone and mixed with the counts, on all held-out words; keep the mixture."""
        if self.mixing.counts is None:
            return self.validation.figures(best, should_stop)
        mixture, figures = self.mixing.evaluate(best, should_stop)
        self.keeper.save_mixture(mixture)
        return figures

    def _finished(self) -> Result:
        progress, plot = self.progress, self._draw()
        self._say_if_nothing_was_learned()
        figures = progress.step, progress.seconds, progress.last_loss, progress.kept
        self._report(Finished(self._place(), *figures, plot, self.keeper.mixture_file()))
        return progress.result(self.keeper.path, finished=True)

    def _say_if_nothing_was_learned(self) -> None:
        """Report a loss above that of taking all words for equally likely."""
        loss = self.progress.kept.get("kept_val_loss", self.progress.last_loss)
        if loss is not None and loss > self.guessing:
            self._report(
                Notice(
                    f"nothing was learned: the loss ended at {loss:.3f}, and to guess each of"
                    f" {len(self.corpus.vocabulary):,} words alike has {self.guessing:.3f}; try a lower learning rate,"
                    f" such as {self.keeper.advice(self._lower_rate()).partition(';')[0]}, or more steps"
                )
            )

    def _lower_rate(self) -> float:
        return min(self.config.lr / 10, LEARNING_RATES[self.config.optimizer])

    def _validate(self) -> dict[str, Any]:
        """Loss and perplexity on the validation sample; `_save` keeps the weights where they are the best so far.

        All of its words are in the vocabulary, whereas the training loss is that of <unk> too.
        """
        if self.corpus.val is None:
            return {}
        with self.clock.uncounted("evaluation"):
            loss = self.validation.loss(self.current_model())
            if not math.isfinite(loss):
                raise self._diverged(f"the validation loss is {loss}")
            self.early_stopping.validated(loss, is_done=self.completion.is_done())
        return {"val_loss": loss, "val_perplexity": perplexity(loss)}

    def _sample_texts(self, model: NeuralModel) -> dict[str, str]:
        with self.clock.uncounted("sample"):
            return self.samples.texts(model)

    def _save(self) -> None:
        """Keep what is to be kept of the run as it is now."""
        progress = self.progress
        if self.corpus.val is None:  # nothing says which weights are the best: the last ones
            progress.best_step = progress.step
        self.clock.update_progress()
        with self.clock.uncounted("save"):
            self._check_finite()
            self.keeper.save(self.state)

    def _check_finite(self) -> None:
        """No checkpoint is replaced by one that cannot be used."""
        if name := self.state.not_finite():
            raise self._diverged(f"{name} is no longer finite")

    def _draw(self) -> str | None:
        with self.clock.uncounted("picture"):
            return self.keeper.draw()

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"{what} at step {self.progress.step:,} with learning rate {self.progress.lr:g}: try a lower one, such as"
            f" {self.keeper.advice(self._lower_rate())}"
        )

    def best_model(self) -> NeuralModel:
        """The model of the best weights; of the last ones where none were found to be the best yet."""
        if self.progress.best_step in (None, self.progress.step):
            return self.current_model()
        return self.keeper.best(self.model)

    def current_model(self) -> NeuralModel:
        """The model of the weights as they are now."""
        if self.leader is not None:
            self.leader.fill(self.model.network)
        return self.model

    def mixture(self) -> Mixture:
        """The best weights with what they were mixed with at the end: nothing, if the run made no counts or stopped."""
        return self.keeper.mixture(self.best_model())

    def _place(self) -> str | None:
        return None if self.keeper.path is None else str(self.keeper.path)

    def metrics_lines(self) -> list[dict[str, Any]]:
        """The lines of metrics from the first step on, as metrics.jsonl has them."""
        return self.keeper.metrics()

    def close(self) -> None:
        """Let go of the files."""
        self.keeper.close()
