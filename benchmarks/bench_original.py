"""The original's headline: its own setting, 10,000 iterations through the trainer, beside PyTorch on the same batches;
and the validation perplexity that each precision reaches, from the same seed.

With `--text FILE` on novels, else on the documentation of Python's standard library.
"""

from pathlib import Path
from statistics import mean

import pytest

from benchmarks import peers, training
from benchmarks.contest import Contest, Result, Turn
from benchmarks.report import markdown_table
from tests.helpers import require_ops

STEPS = 10_000
ORIGINAL = {"preset": "original", "tokenizer": "words", "val_fraction": 0.05}
ROUNDS = 10  # of turns of the contenders
README = Path(__file__).parents[1] / "README.md"  # a text that is read in no time
LAST = 1_000  # steps, whose mean loss is the final loss


def measure(contest: Contest, text: str | None, *, smoke: bool = False) -> dict[str, Result]:
    """Time all steps of the best kernels in each precision and of PyTorch's fastest mode, found in a short run.

    One step before them warms up; the last value is the validation perplexity.
    """
    steps, text = (20, str(README)) if smoke else (STEPS, text)
    task = ORIGINAL | {"files": [text] if text else [], "steps": 1 + steps}
    modes, ours = peers.pytorch(compiled=not smoke), training.best_kernels()
    trial = contest.run(modes, rounds=2, **task)
    rivals = [training.best_of_pytorch(contender, modes, trial) for contender in ours]
    taking_part = [*ours, *(mode for mode in modes if mode in rivals)]
    turn = Turn(seconds=0, least=steps // ROUNDS, warm=0)
    results = contest.run(taking_part, rounds=ROUNDS, turn=turn, warm_up=1, **task)
    contest.go_on(taking_part, results, Turn(seconds=0, least=0, warm=1))
    return results


def describe(results: dict[str, Result]) -> str:
    """Return the seconds of all steps, without the work between them, such as saving, on both sides."""
    rows = []
    for name, result in results.items():
        rows.append([name, result.failed])
        if not result.failed:
            *losses, perplexity = result.values
            rows[-1][1:] = [f"{sum(result.seconds):.1f}", f"{losses[0]:.2f}", f"{mean(losses[-LAST:]):.3f}"]
            rows[-1].append(f"{perplexity:.1f}")
    steps = max((len(result.seconds) for result in results.values()), default=0)
    header = [f"{steps:,} steps", "seconds", "first loss", f"mean of the last {LAST:,}", "validation perplexity"]
    return markdown_table(header, rows)


@pytest.mark.long
def bench_original(benchmark, contest, show, smoke, pytestconfig):
    require_ops("cython")
    text = pytestconfig.getoption("text")
    results = benchmark.pedantic(measure, args=(contest, text), kwargs={"smoke": smoke})
    show(describe(results))
    assert not peers.unexpected({name: result.failed for name, result in results.items()})
    for name, result in results.items():
        assert smoke or mean(result.values[-LAST:-1]) < result.values[0] - 3, f"{name} has not learned"
