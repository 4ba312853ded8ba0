"""The training that the page starts: a process of its own, so that it can be stopped as by Ctrl-C, and outlives a page.

It is the command `python -m fastmlp.train --json`; its lines are the events of fastmlp/events.py.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastmlp.errors import ReportedError

__all__ = ["BusyError", "Training", "Trainings"]

PATIENCE = 60.0  # seconds that a stopped training has to save


class BusyError(ReportedError):
    """Another training runs."""


class Training:
    """One training: the events so far, and those to come."""

    def __init__(self, folder: Path, run: str, arguments: Sequence[str]) -> None:
        """folder     in which the command runs
        run        name of the run
        arguments  of the command, beside --json
        """
        self.run = run
        self._events: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastmlp.train", *arguments, "--json"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a terminal's Ctrl-C is for the server, which passes it on once
        )
        self._said: list[str] = []
        self._errors_reader = threading.Thread(target=self._read_errors, daemon=True)
        self._errors_reader.start()
        threading.Thread(target=self._read_events, daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether it goes on; once it does not, all its events are there."""
        return not self._ended

    def stop(self) -> None:
        """Let it finish its step and save, as Ctrl-C does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def wait(self) -> None:
        """Wait until it has saved; one that does not come to its end is killed, and can be resumed all the same."""
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def events(self, patience: float) -> Iterator[dict[str, Any] | None]:
        """Yield the events from the first on, as they come; None whenever none has come for `patience` seconds."""
        number = 0
        while True:
            with self._news:
                if number == len(self._events) and not self._ended:
                    self._news.wait(patience)
                fresh, ended = self._events[number:], self._ended
            yield from fresh
            number += len(fresh)
            if ended and not fresh:
                return
            if not fresh:
                yield None

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # a line that was cut off when the process was killed
                self._add(json.loads(line))
        status = self._process.wait()
        self._errors_reader.join()
        said = self._said[-1].rpartition("fastmlp.train: ")[2] if self._said else f"it ended with status {status}"
        if status and status != 128 + signal.SIGINT:
            self._add({"event": "Failed", "text": said})
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _add(self, event: dict[str, Any]) -> None:
        with self._news:
            self._events.append(event)
            self._news.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = [*self._said[-9:], line.strip()]


class Trainings:
    """One training at a time; the last one stays, for a page that is opened later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self.last: Training | None = None

    def start(self, run: str, arguments: Sequence[str]) -> Training:
        """Start a training. Raise BusyError where one runs."""
        with self._lock:
            if self.last is not None and self.last.running:
                raise BusyError(f"{self.last.run} is being trained; stop it first")
            self.last = Training(self._folder, run, arguments)
            return self.last

    def close(self) -> None:
        """Stop the training, and wait until it has saved."""
        if self.last is not None and self.last.running:
            self.last.stop()
            self.last.wait()
