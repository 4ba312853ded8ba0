"""A busy machine: the mean training step at B = 32 while another process occupies one of the cores, beside PyTorch.

If a step is cut into one fixed share a thread, it waits for the slower thread; if free threads take the next of many
slices, it need not.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean

import pytest

from benchmarks import training
from benchmarks.contest import Contest, Result, Turn
from benchmarks.peers import is_pytorch, unexpected
from benchmarks.report import markdown_table

B = 32
STEPS, STEPS_OF_PYTORCH = 1_000, 100  # PyTorch may take a second a step
SPIN = "import os\nos.sched_setaffinity(0, {%d})\nwhile True: pass"


@contextmanager
def one_core_taken() -> Iterator[None]:
    """Run another process that spins on one of our cores."""
    spinning = subprocess.Popen([sys.executable, "-c", SPIN % max(os.sched_getaffinity(0))])
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def measure(contest: Contest, *, smoke: bool = False) -> dict[str, list[Result]]:
    """Return the results on the quiet and the busy machine by name; for smoke without modes that compile first."""
    steps, steps_of_pytorch = (5, 2) if smoke else (STEPS, STEPS_OF_PYTORCH)
    ours = training.kernels()
    peers = [contender for contender in training.contenders(long=not smoke) if is_pytorch(contender)]

    def run() -> dict[str, Result]:
        results = {}
        for contenders, count in ((ours, steps), (peers, steps_of_pytorch)):
            turn = Turn(seconds=0, least=count, warm=min(10, count))
            results |= contest.run(contenders, rounds=1, turn=turn, batch_size=B)
        return results

    quiet = run()
    with one_core_taken():
        busy = run()
    return {name: [quiet[name], busy[name]] for name in quiet}


def describe(results: dict[str, list[Result]]) -> str:
    """A table of means: the loss of a core costs much in few steps, which a median would hide."""
    rows = []
    for name, (quiet, busy) in results.items():
        if failed := quiet.failed or busy.failed:
            rows.append([name, failed])
            continue
        means = [mean(result.seconds) for result in (quiet, busy)]
        rows.append([name, *(f"{1e3 * seconds:.1f}" for seconds in means), f"{means[1] / means[0]:.2f}"])
    return markdown_table([f"B = {B}", "quiet, ms", "busy, ms", "busy / quiet"], rows)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned to cores here")
def bench_busy_machine(benchmark, contest, show, smoke):
    results = benchmark.pedantic(measure, args=(contest,), kwargs={"smoke": smoke})
    show(describe(results))
    assert not unexpected({name: quiet.failed or busy.failed for name, (quiet, busy) in results.items()})
