"""What watches a run in the tests: all that it is told, and a clock that only its work moves."""

from typing import Any

import pytest

from fastmlp.events import Event, Reporter
from fastmlp.training import run as loop
from fastmlp.training import samples, validation


class Recorder(Reporter):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.steps: list[tuple[int, float, float]] = []

    def report(self, event: Event) -> None:
        self.events.append(event)

    def step(self, step: int, share: float, loss: float) -> None:
        self.steps.append((step, share, loss))

    def all(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Clock:
    """A clock that only moves when a step, an evaluation or a sample takes its time."""

    STEP, WORD, SAMPLE = 0.5, 0.02, 0.25  # seconds

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)
        monkeypatch.setattr(validation, "TRIAL", 5)
        evaluate, complete, make_optimizer = validation.evaluate, samples.complete, loop.make_optimizer

        def timed_evaluate(language: Any, windows: Any, indices: Any = None, **options: Any) -> Any:
            self.now += self.WORD * len(windows if indices is None else indices)
            return evaluate(language, windows, indices, **options)

        def timed_complete(*arguments: Any) -> Any:
            self.now += self.SAMPLE
            return complete(*arguments)

        def timed_optimizer(*arguments: Any, **options: Any) -> Any:
            optimizer = make_optimizer(*arguments, **options)
            step = optimizer.step

            def timed_step(*arguments: Any) -> Any:
                self.now += self.STEP
                return step(*arguments)

            optimizer.step = timed_step
            return optimizer

        monkeypatch.setattr(validation, "evaluate", timed_evaluate)
        monkeypatch.setattr(samples, "complete", timed_complete)
        monkeypatch.setattr(loop, "make_optimizer", timed_optimizer)
