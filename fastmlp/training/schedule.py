"""The learning rate over a run."""

import math
from collections.abc import Callable

__all__ = ["learning_rate"]

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
