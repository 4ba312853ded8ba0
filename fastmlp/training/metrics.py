"""The lines of metrics that a run writes and reports."""

from typing import Any

from fastmlp.events import Measured, Reporter
from fastmlp.training.clock import Clock
from fastmlp.training.completion import Completion
from fastmlp.training.keeper import Keeper
from fastmlp.training.progress import Progress

__all__ = ["Metrics"]


class Metrics:
    """Writes a line per log interval: its mean loss, how fast it went, and what was evaluated after it."""

    def __init__(
        self, progress: Progress, clock: Clock, completion: Completion, keeper: Keeper, reporter: Reporter
    ) -> None:
        self._progress, self._clock, self._completion = progress, clock, completion
        self._keeper, self._reporter = keeper, reporter

    def write_first(self, loss: float, figures: dict[str, Any]) -> None:
        """Write the loss of the first batch, before any update, and figures of before training."""
        self._write(loss, words_per_second=0.0, **figures)

    def write_interval(self, evaluation: dict[str, Any]) -> None:
        """Write the line of the steps since the last one; begin a new log interval.

        evaluation  figures to write with it
        """
        progress, clock = self._progress, self._clock
        seconds = clock.interval_seconds()
        loss = progress.interval_loss / progress.interval_steps if progress.interval_steps else progress.last_loss
        assert loss is not None  # there is no line without a step before it
        clock.pace.trained(progress.interval_steps, seconds)
        self._write(loss, words_per_second=progress.interval_words / max(seconds, 1e-9), **evaluation)
        progress.begin_interval(loss)
        clock.begin_interval()

    def _write(self, loss: float, *, words_per_second: float, **evaluation: Any) -> None:
        progress = self._progress
        line = {
            "step": progress.step,
            "words": progress.words,
            "seconds": round(self._clock.seconds(), 3),
            "loss": loss,
            "lr": progress.lr,
            "words_per_second": round(words_per_second, 1),
            **evaluation,
        }
        self._keeper.write_metrics(line)
        self._reporter.report(Measured(line, self._completion.seconds_left(), progress.best_step))
