"""How far a run is, and what came of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Result"]


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
    mixture            perplexities of network, counts and their mixtures, as events.Finished has them; None: no counts
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
    mixture: dict[str, Any] | None = None
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
    worse                 validations in a row, up to the last one, that were worse than the best by far
    gave_up               whether these were too many: the run ends early
    before, after         what the network wrote before training and at its end, by prompt
    kept                  the figures of the kept weights; empty where the run has not finished
    kept_minutes          the time budget that was finished; None where steps decided, or the run has not finished
    """

    step: int = 0
    words: int = 0
    worse: int = 0
    gave_up: bool = False
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

    def advance(self, loss: float, words: int) -> None:
        """Count a step: its loss, and the words that were guessed."""
        self.step += 1
        self.words += words
        self.interval_loss += loss
        self.interval_steps += 1
        self.interval_words += words

    def begin_interval(self, last_loss: float) -> None:
        """Begin a log interval after one of this mean loss."""
        self.last_loss = last_loss
        self.interval_loss, self.interval_steps, self.interval_words = 0.0, 0, 0

    def result(self, folder: Path | None, *, finished: bool) -> Result:
        """Return what came of the run."""
        return Result(
            folder=folder,
            finished=finished,
            step=self.step,
            loss=self.last_loss,
            before=self.before,
            after=self.after,
            **self.kept,
        )
