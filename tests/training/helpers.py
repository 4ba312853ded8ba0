"""What watches a run in the tests: all that it is told, and a clock that only its work moves."""

from typing import Any

import pytest

from fastmlp.events import Event, Reporter
from fastmlp.network.network import Network
from fastmlp.training import validation
from fastmlp.training.samples import Samples


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
        losses, texts, step = Network.losses_after, Samples.texts, Network.step

        def timed_losses(network: Network, h: Any, targets: Any, **options: Any) -> Any:
            self.now += self.WORD * len(targets)
            return losses(network, h, targets, **options)

        def timed_texts(samples: Samples, model: Any) -> dict[str, str]:
            self.now += self.SAMPLE * len(samples.prompts)
            return texts(samples, model)

        def timed_step(*arguments: Any) -> float:
            self.now += self.STEP
            return step(*arguments)

        monkeypatch.setattr(Network, "losses_after", timed_losses)
        monkeypatch.setattr(Samples, "texts", timed_texts)
        monkeypatch.setattr(Network, "step", timed_step)
