"""The seconds of a run, and how long the rest of it will take."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator

from fastmlp.training.progress import Progress

__all__ = ["Clock", "Pace"]

RECENT = 10  # log intervals whose speed is taken for that of the rest


class Clock:
    """The seconds of a run over all its sittings, and those of its log interval without other work than training.

    pace  the speed of this sitting
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.start()

    def start(self) -> None:
        """Begin a sitting: go on counting where the last one ended."""
        now = time.perf_counter()
        self._began = now - self._progress.seconds
        self._interval_began = now - self._progress.interval_seconds
        self.pace = Pace(self._progress.step)

    def update_progress(self) -> None:
        """Write down the seconds, from which another sitting goes on counting."""
        self._progress.seconds, self._progress.interval_seconds = self.seconds(), self.interval_seconds()

    def seconds(self) -> float:
        """Of the run, all included."""
        return time.perf_counter() - self._began

    def interval_seconds(self) -> float:
        """Of training, since the last log."""
        return time.perf_counter() - self._interval_began

    def begin_interval(self) -> None:
        """A log was written."""
        self._interval_began = time.perf_counter()

    @contextlib.contextmanager
    def uncounted(self, work: str) -> Iterator[None]:
        """Within, time is not that of training but of other work, which words per second leave out."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self._interval_began += seconds
            self.pace.worked(work, self._progress.step, seconds)


class Pace:
    """The speed of the last log intervals, and what evaluating, sampling and saving between the steps take.

    first_step  steps that were done before this sitting
    """

    def __init__(self, first_step: int = 0) -> None:
        self._first_step = first_step
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)  # steps, seconds
        self._a_step: dict[str, float] = {}  # seconds of each kind of work, spread over the steps until it last came
        self._total: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._a_word = 0.0  # seconds of an evaluation

    def trained(self, steps: int, seconds: float) -> None:
        """A log interval is over: seconds of training alone."""
        self._recent.append((steps, seconds))

    def worked(self, kind: str, step: int, seconds: float) -> None:
        """Other work was done after a step; its time is spread over the steps so far, as it will recur. Work before
        the first step is not spread, it only tells how long the same takes at the end."""
        self._last[kind] = seconds
        if step > self._first_step:
            self._total[kind] = self._total.get(kind, 0.0) + seconds
            self._a_step[kind] = self._total[kind] / (step - self._first_step)

    def evaluated(self, words: int, seconds: float) -> None:
        """An evaluation of so many words is done."""
        self._a_word = seconds / max(words, 1)

    def seconds_to_train(self, steps: int) -> float | None:
        """How long so many steps will take, with what comes between them; None where no step was measured."""
        measured = sum(recent for recent, _ in self._recent)
        if not measured:
            return None
        return steps * (sum(seconds for _, seconds in self._recent) / measured + sum(self._a_step.values()))

    def seconds_to_finish(self, words: int) -> float:
        """How long the end will take: an evaluation of so many words, saves before and after it, all else once more."""
        times = {"evaluation": 0, "save": 2}
        return words * self._a_word + sum(times.get(kind, 1) * seconds for kind, seconds in self._last.items())
