"""Contenders measured in turn, each in a process of its own.

Libraries in one process disturb each other: NumPy's OpenBLAS, PyTorch's OpenMP and fastmlp each have threads that spin
for a while after their work, and a library reads the instructions it may use from the environment when it is loaded.
So a contender is a process, asleep until it is its turn, and a turn begins when all threads of the last one sleep.
Rounds A B C A B C let a slow moment of the machine fall on all of them; the figure is the median
over all rounds.

A contender is a function that works in a loop and calls `clock.tick()` after each piece of work:

    def play(clock, **task):
        prepare()
        while True:
            work()
            clock.tick()
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import ceil, nan
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen
from time import perf_counter, sleep
from typing import Any

LONGEST_REST = 0.5  # seconds between turns: OpenBLAS's threads spin for 26 to 110 ms after their last work
LOOK = 0.01  # seconds between two checks of whether they sleep


@dataclass(frozen=True)
class Contender:
    """A participant.

    name         as it is shown
    play         "module:function"
    arguments    of the function, beside those of the task
    environment  of its process
    """

    name: str
    play: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """The result of a contender.

    seconds  of each piece of work, over all rounds, warm
    values   the values that it passed to `tick`, from the first one on, including the warm-up
    failed   why it failed, if it did; its median is then NaN
    """

    seconds: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    failed: str = ""

    @property
    def median(self) -> float:
        return median(self.seconds) if self.seconds else nan


@dataclass(frozen=True)
class Turn:
    """How long a contender's turn is: at least `least` pieces of work, then until `seconds` are over.

    warm  pieces of work at its beginning that do not count
    """

    seconds: float = 0.3
    least: int = 3
    warm: int = 1


SMOKE = Turn(seconds=0, least=1, warm=0)


class Over(Exception):
    """The contest is over: raised out of `Clock.tick`."""


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


# --------------------------------------------------------------------------------------------- the contender's process


class Clock:
    """Times a contender's work during its turns, and lets it wait between them."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # a library's prints must not mix with the answers
        self.order: dict[str, Any] | None = None  # what to play next
        self.wait()

    def tick(self, value: Any = None, pieces: int = 1) -> None:
        """Count the pieces of work since the last call; `value` is sent to the contest."""
        now = perf_counter()
        self._seconds.append((now - self._began) / pieces)
        self._values.append(value)
        turn = self._turn
        if len(self._seconds) >= turn.warm + turn.least and now - self._turn_began >= turn.seconds:
            self.hand_in()
            self.wait()
            if self.order:
                raise Over
        self._began = perf_counter()

    def hand_in(self) -> None:
        """What was measured in this turn."""
        self.answer(seconds=self._seconds[self._turn.warm :], values=self._values)

    def answer(self, **result: Any) -> None:
        print(json.dumps(result), file=self._answers, flush=True)

    def wait(self) -> None:
        """Sleep until the next turn; a new task comes with its first turn, and the end of input means the end."""
        command = json.loads(sys.stdin.readline() or "null")
        if command is None:
            sys.exit()
        self.order, self._turn = command["order"], Turn(**command["turn"])
        self._seconds: list[float] = []
        self._values: list[Any] = []
        self._began = self._turn_began = perf_counter()


def main() -> None:
    clock = Clock()
    while True:
        order, clock.order = clock.order, None
        assert order is not None
        module, function = order["play"].split(":")
        try:
            getattr(import_module(module), function)(clock, **order["arguments"])
        except Over:
            continue
        except Exception as error:
            message = str(error).strip().splitlines() or [""]
            clock.answer(failed=f"{type(error).__name__}: {message[0]}")
            clock.wait()
        else:
            while clock.order is None:  # the work ended before the turns
                clock.hand_in()
                clock.wait()


# -------------------------------------------------------------------------------------------------------- who measures


class Contest:
    """Contenders' processes, started when they are first needed and kept for the next task.

    with Contest() as contest:
        results = contest.run(contenders, rounds=5, batch_size=32)

    failed  the errors of failed contenders, by name
    """

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}
        self._processes: dict[str, Popen[str]] = {}  # by the contender's name

    def __enter__(self) -> "Contest":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.communicate()  # it ends at the end of its input

    def run(
        self,
        contenders: Sequence[Contender],
        *,
        rounds: int = 5,
        turn: Turn | None = None,
        warm_up: int = 2,
        **task: Any,
    ) -> dict[str, Result]:
        """Run the same task on all contenders, in turn; return the results by name.

        rounds, turn  how often, and how long each time
        warm_up       pieces of work before the first round; what is compiled on first use is compiled then
        """
        results = {contender.name: Result() for contender in contenders}
        for contender in contenders:
            order = {"play": contender.play, "arguments": {**contender.arguments, **task}}
            self._play(contender, results[contender.name], Turn(seconds=0, least=0, warm=warm_up), order)
        for _ in range(rounds):
            self.go_on(contenders, results, turn or Turn())
        return results

    def go_on(self, contenders: Sequence[Contender], results: Mapping[str, Result], turn: Turn) -> None:
        """Run one more turn of each with the current task."""
        for contender in contenders:
            if not results[contender.name].failed:
                self._play(contender, results[contender.name], turn, None)

    def _play(self, contender: Contender, result: Result, turn: Turn, order: dict[str, Any] | None) -> None:
        process = self._process(contender)
        assert process.stdin
        assert process.stdout
        print(json.dumps({"order": order, "turn": vars(turn)}), file=process.stdin, flush=True)
        answer = json.loads(process.stdout.readline() or "null")
        if answer is None:
            del self._processes[contender.name]
            answer = {"failed": f"its process ended with status {process.wait()}"}
        rest(process)
        result.failed = answer.get("failed", "")
        if result.failed:
            self.failed[contender.name] = result.failed
        result.seconds += answer.get("seconds", [])
        result.values += answer.get("values", [])

    def _process(self, contender: Contender) -> Popen[str]:
        if contender.name not in self._processes:
            self._processes[contender.name] = Popen(
                [sys.executable, "-m", "benchmarks.contest"],
                stdin=PIPE,
                stdout=PIPE,
                text=True,
                cwd=Path(__file__).parents[1],
                env=os.environ | contender.environment,
            )
        return self._processes[contender.name]


def rest(process: Popen[str]) -> None:
    """Wait until no thread of the process runs; if the system does not tell, for the longest usual time."""
    threads = Path(f"/proc/{process.pid}/task")
    for _ in range(ceil(LONGEST_REST / LOOK)):
        sleep(LOOK)
        if threads.exists() and not any(map(is_running, threads.glob("*/stat"))):
            return


def is_running(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:  # it has ended
        return False


if __name__ == "__main__":
    main()
