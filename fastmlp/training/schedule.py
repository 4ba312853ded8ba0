"""How long a run is, its learning rate, and after which of its steps it measures itself."""

import math
from collections.abc import Callable

from fastmlp.config import WARMUP_SHARE, TrainConfig
from fastmlp.data.batches import Batches, EpochBatches

__all__ = ["Schedule", "learning_rate"]

# What is left of the learning rate when a share `progress` in [0, 1] of the run is done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "step": lambda progress: 1.0 if progress < 0.5 else 0.1,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}


def learning_rate(
    peak: float, schedule: str, *, progress: float, step: int = 0, warmup: int = 0, warmup_share: float = 0.0
) -> float:
    """The learning rate of one step: a pure function of where the run is.

    peak          the highest rate
    schedule      a name in SCHEDULES
    progress      share of the run that is done before this step: of its steps, or of its time
    step          from 0
    warmup        steps over which the rate grows linearly, on top of the schedule
    warmup_share  of the run, which ends the growth where it is less than these steps
    """
    warm = min(1.0, max((step + 1) / warmup, progress / warmup_share if warmup_share else 0.0)) if warmup else 1.0
    return peak * warm * SCHEDULES[schedule](min(max(progress, 0.0), 1.0))


class Schedule:
    """What a run's configuration says of its steps.

    total   steps of the whole run; None where time decides
    warmup  steps over which the learning rate grows
    """

    def __init__(self, config: TrainConfig, batches: Batches) -> None:
        self.config = config
        self.total = config.steps
        if config.epochs is not None:
            assert isinstance(batches, EpochBatches)
            self.total = config.epochs * batches.batches_per_epoch
        self.warmup = config.warmup_steps(self.total)
        self._warmup_share = WARMUP_SHARE if self.total is None and config.warmup is None else 0.0

    def learning_rate(self, step: int, share: float) -> float:
        """The rate of the step after so many, when this share of the run is done."""
        return learning_rate(
            self.config.lr,
            self.config.schedule,
            progress=share,
            step=step,
            warmup=self.warmup,
            warmup_share=self._warmup_share,
        )

    def share_of_time(self, seconds: float, seconds_to_finish: float) -> float:
        """How much of a run with a time budget is done.

        The budget ends with the work that follows the last step; at least half of it is for training.
        """
        return min(seconds / max(self.budget - seconds_to_finish, self.budget / 2), 1.0)

    @property
    def budget(self) -> float:
        """The seconds of the run, where time decides."""
        return 60 * (self.config.minutes or 0.0)

    def why_done(self, step: int) -> str:
        """Why no step is left, in words."""
        if self.total is None:
            return f"its {self.config.minutes:g} minutes, which count over all sittings, are over"
        return f"it has made {step:,} of {self.total:,} steps"

    def why_finished(self, step: int) -> str:
        """Why a run that was finished before does not go on, in words."""
        over = "" if self.total is not None else "; minutes count over all sittings"
        return f"it was finished before, after {step:,} steps: nothing is trained{over}"

    def logs(self, step: int) -> bool:
        """Whether the training loss is due after a step."""
        return step % self.config.log_every == 0

    def validates(self, step: int) -> bool:
        """Whether a validation is due after a step."""
        return _is_due(step, self.config.eval_every)

    def samples(self, step: int) -> bool:
        """Whether a sample text is due after a step."""
        return _is_due(step, self.config.sample_every)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
