"""Draw the README's pictures into figures/.

python -m benchmarks.draw loss runs/hp "author: titles"    the loss curve of a run of your own
python -m benchmarks.draw words-per-second                 over the batch size, everybody on this machine, measured now
"""

import json
import sys
from pathlib import Path

from benchmarks import training
from benchmarks.bench_step import Steps, measure_steps
from benchmarks.contest import Contender, Contest
from benchmarks.peers import is_pytorch
from benchmarks.report import machine_line
from fastmlp.plot import plot_loss
from tests.inputs import REAL

FIGURES = Path(__file__).parent / "figures"
BATCH_SIZES = (32, 64, 128, 256, 512, 1_024, 2_048)


def draw_loss(run: str, title: str) -> None:
    lines = (Path(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    plot_loss([json.loads(line) for line in lines], FIGURES / "loss.png", title=title)


def draw_words_per_second() -> None:
    contenders = [contender for contender in training.contenders(compiled=True) if "AVX2" not in contender.name]
    with Contest() as contest:
        by_size = [measure_steps(contest, contenders, B) for B in BATCH_SIZES]
    plot_words_per_second(contenders, by_size, FIGURES / "words_per_second.png")


def plot_words_per_second(contenders: list[Contender], by_size: list[Steps], path: Path) -> None:
    """A line for each contender, ours in colours and PyTorch's modes dashed and grey; the legend in lines' order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    greys = iter([("0.75", "s--"), ("0.6", "^--"), ("0.45", "v--"), ("0.3", "D--"), ("0.0", "x--")])
    for contender in contenders:
        results = [(steps.B, steps.results[contender.name]) for steps in by_size]
        ran = [(B, B / result.median) for B, result in results if not result.failed]
        color, style = next(greys) if is_pytorch(contender) else (None, "o-")
        if ran:
            axes.plot(*zip(*ran, strict=True), style, color=color, markersize=4, label=contender.name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([steps.B for steps in by_size]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(FixedLocator([500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000]))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.set_xlabel("batch size")
    axes.set_ylabel("words a second")
    figure.suptitle(f"Training with SGD, {REAL.V:,} words\n{machine_line()}", fontsize=8)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(handles)), key=lambda i: -handles[i].get_ydata()[-1])
    figure.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    {"loss": draw_loss, "words-per-second": draw_words_per_second}[sys.argv[1]](*sys.argv[2:])
