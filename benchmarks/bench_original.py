"""The original's headline: its own setting, 10,000 iterations through the trainer, beside PyTorch on the same batches.

With `--text FILE` on novels, else on the documentation of Python's standard library.
"""

from statistics import mean

import pytest

from benchmarks import peers, training
from benchmarks.contest import Contest, Result, Turn
from benchmarks.report import markdown_table
from tests.helpers import require_ops

STEPS = 10_000
ORIGINAL = {"preset": "original", "tokenizer": "words", "val_fraction": 0.05, "batch_size": 32, "steps": STEPS + 100}
ROUNDS = 10  # in which the contenders take turns
LAST = 1_000  # steps, whose mean loss is the loss at the end


def measure(contest: Contest, text: str | None, *, steps: int = STEPS) -> dict[str, Result]:
    """All steps of our kernels in each precision and of the fastest of PyTorch's modes, found in a short run."""
    task = ORIGINAL | {"files": [text] if text else []}
    modes = peers.pytorch(compiled=True)
    trial = contest.run(modes, rounds=2, **task)
    ours = [contender for contender in training.kernels() if training.variant(contender) not in ("avx2", "portable")]
    rivals = {training.best_of_pytorch(contender, modes, trial).name for contender in ours}
    taking_part = [*ours, *(mode for mode in modes if mode.name in rivals)]
    turn = Turn(seconds=0, least=steps // ROUNDS, warm=0)
    return contest.run(taking_part, rounds=ROUNDS, turn=turn, **task)


def describe(results: dict[str, Result]) -> str:
    """Seconds of all steps; what is done between them, such as saving, is left out on both sides."""
    rows = [
        [
            name,
            f"{sum(result.seconds):.1f}",
            f"{result.values[0]:.2f}",
            f"{mean(result.values[-LAST:]):.3f}",
        ]
        for name, result in results.items()
        if not result.failed
    ]
    steps = max(len(result.seconds) for result in results.values())
    return markdown_table([f"{steps:,} steps", "seconds", "first loss", f"mean of the last {LAST:,}"], rows)


@pytest.mark.long
def bench_original(benchmark, contest, show, smoke, pytestconfig):
    require_ops("cython")
    text = pytestconfig.getoption("text")
    results = benchmark.pedantic(measure, args=(contest, text), kwargs={"steps": 20} if smoke else {})
    show(describe(results))
    for name, result in results.items():
        assert not result.failed, f"{name}: {result.failed}"
        assert smoke or mean(result.values[-LAST:]) < result.values[0] - 3, f"{name} has not learned"
