"""Which weights are the best so far, and whether a run ends early since validations have become worse."""

import numpy as np

from fastmlp.events import Notice, Reporter
from fastmlp.training.progress import Progress

__all__ = ["EarlyStopping"]

MUCH_WORSE = 0.02  # nats above the best validation: more than by chance


class EarlyStopping:
    """Compares each validation with the best one, and ends a run after too many in a row that are much worse.

    What it has found is in the run's progress, so that a resumed run goes on with it.
    """

    def __init__(
        self, patience: int, sample: np.ndarray, progress: Progress, reporter: Reporter, guessing: float
    ) -> None:
        """patience  how many validations in a row may be much worse; 0: the run goes on whatever comes
        sample    the windows that validate
        guessing  the loss of taking all words for equally likely
        """
        self._patience, self._sample, self._progress, self._reporter = patience, sample, progress, reporter
        self._guessing = guessing
        self._best_is_of = sample  # the windows that the loss of the best weights is of

    def resume(self, sample: np.ndarray) -> None:
        """Go on after a sitting that validated on these windows."""
        self._best_is_of = sample

    def must_revalidate(self) -> bool:
        """Return whether there are best weights whose loss is of other words than those that validate now."""
        return self._progress.best_loss is not None and not np.array_equal(self._best_is_of, self._sample)

    def revalidated(self, loss: float) -> None:
        """Take the loss of the best weights on the words that validate now."""
        progress = self._progress
        progress.best_loss, self._best_is_of = loss, self._sample
        self._reporter.report(
            Notice(
                f"other words validate than before: on {len(self._sample):,} of them the best weights so far, those"
                f" of step {progress.best_step:,}, have loss {loss:.3f}"
            )
        )

    def validated(self, loss: float, *, is_done: bool) -> None:
        """Compare the loss of the weights as they are now with the best one.

        is_done  whether no step is left anyway
        """
        progress = self._progress
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_step, progress.best_loss, progress.worse = progress.step, loss, 0
        elif loss <= progress.best_loss + MUCH_WORSE:
            progress.worse = 0
        elif self._patience and not progress.gave_up:
            self._lose_patience(is_done=is_done)

    def _lose_patience(self, *, is_done: bool) -> None:
        """Count a validation that is much worse than the best: say so once, and end the run after too many in a row."""
        progress, best = self._progress, f"step {self._progress.best_step:,}"
        progress.worse += 1
        if progress.worse == min(2, self._patience):
            if progress.last_loss is not None and progress.last_loss > self._guessing:
                why = "the training loss is above that of guessing each word alike. A lower learning rate helps (--lr)"
            else:
                why = (
                    "the network learns its text by heart. A longer text helps, or fewer passes over it, a smaller"
                    " network, more dropout"
                )
            self._reporter.report(Notice(f"the validation loss has been rising since {best}: {why}"))
        if progress.worse >= self._patience and not is_done:
            progress.gave_up = True
            self._reporter.report(
                Notice(
                    f"stopped early: the last {progress.worse} validations were worse than that of {best}, whose"
                    " weights are kept (--patience)"
                )
            )
