"""How much of a run is done, and how long the rest will take."""

from fastmlp.training.clock import Clock
from fastmlp.training.progress import Progress
from fastmlp.training.schedule import Schedule

__all__ = ["Completion"]


class Completion:
    """How much of a run is done, of its steps or of its time."""

    def __init__(self, schedule: Schedule, clock: Clock, progress: Progress, words_at_end: int) -> None:
        """words_at_end  that are evaluated after the last step"""
        self._schedule, self._clock, self._progress, self._words_at_end = schedule, clock, progress, words_at_end

    def share(self) -> float:
        """Return how much is done, from 0 to 1; more than 1 where fewer steps are asked for than were made."""
        if self._schedule.total is not None:
            return self._progress.step / self._schedule.total
        return self._schedule.share_of_time(self._clock.seconds(), self._seconds_to_finish())

    def is_done(self) -> bool:
        """Return whether no step is left; of a time budget at least one is made."""
        if self._progress.gave_up:
            return True
        if self._schedule.total is not None:
            return self._progress.step >= self._schedule.total
        return self.share() >= 1 and self._progress.step > 0

    def was_finished(self) -> bool:
        """Return whether an earlier sitting has done all that is asked for.

        Of a time budget a little may have been left.
        """
        progress, schedule = self._progress, self._schedule
        in_time = schedule.total is None and 60 * (progress.kept_minutes or 0.0) >= schedule.budget
        return bool(progress.kept) and (self.is_done() or in_time)

    def seconds_left(self) -> float | None:
        """Return the seconds until the run is finished; None where nothing is measured yet."""
        schedule, clock = self._schedule, self._clock
        if self.is_done():
            return 0.0
        if schedule.total is None:
            return max(schedule.budget - clock.seconds(), 0.0)
        training = clock.pace.seconds_to_train(schedule.total - self._progress.step)
        return None if training is None else training + self._seconds_to_finish()

    def _seconds_to_finish(self) -> float:
        return self._clock.pace.seconds_to_finish(self._words_at_end)
