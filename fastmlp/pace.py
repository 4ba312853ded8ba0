"""How long the rest of a training run will take, judged by what this sitting has measured so far."""

from collections import deque

__all__ = ["Pace"]

RECENT = 10  # log intervals whose speed is taken for that of the rest


class Pace:
    """The speed of the last log intervals, and what evaluating, sampling and saving between the steps cost a step.

    first_step  steps that were done before this sitting
    """

    def __init__(self, first_step: int = 0) -> None:
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)  # steps, seconds
        self._first_step = first_step
        self._beside, self._steps_with_it = 0.0, 1
        self._evaluation = 0.0  # seconds a word

    def trained(self, steps: int, seconds: float) -> None:
        """A log interval is over: seconds of training alone."""
        self._recent.append((steps, seconds))

    def beside(self, step: int, seconds: float) -> None:
        """So long something else was done after a step. Whatever it was, by now its time had come round."""
        self._beside += seconds
        self._steps_with_it = max(step - self._first_step, 1)

    def evaluated(self, words: int, seconds: float) -> None:
        """An evaluation of so many words is done."""
        self._evaluation = seconds / max(words, 1)

    def seconds_to_train(self, steps: int) -> float | None:
        """How long so many steps will take, with what comes between them; None where no step was measured."""
        measured = sum(recent for recent, _ in self._recent)
        if not measured:
            return None
        training = sum(seconds for _, seconds in self._recent) / measured
        return steps * (training + self._beside / self._steps_with_it)

    def seconds_to_evaluate(self, words: int) -> float:
        """How long an evaluation of so many words will take, at the speed of the last one."""
        return words * self._evaluation
