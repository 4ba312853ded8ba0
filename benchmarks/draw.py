"""Draw the pictures of the README files into figures/.

python -m benchmarks.draw loss runs/hp "author: titles"    the loss curve of a run of your own
python -m benchmarks.draw perplexity runs/old runs/hp      of several runs over their minutes, named after their folders
python -m benchmarks.draw words-per-second                 over the batch size, of all contenders, measured now
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from benchmarks import bench_window
from benchmarks.bench_window import Measured
from benchmarks.contest import Contender, Contest
from benchmarks.peers import is_pytorch
from benchmarks.report import machine_line
from fastmlp.pictures.plot import plot_loss

OURS = {"linestyle": "-", "marker": "o"}
BATCH_SIZES = (64, 128, 256, 512, 1_024)


def draw_loss(run: Path, title: str, out: Path) -> None:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    plot_loss([json.loads(line) for line in lines], out / "loss.png", title=title)


def draw_perplexity(runs: Sequence[Path], out: Path) -> None:
    """Plot the validation perplexity of several runs over their minutes, evaluations included."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for run in runs:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        judged = [(line["seconds"] / 60, line["val_perplexity"]) for line in lines if "val_perplexity" in line]
        axes.plot(*zip(*judged, strict=True), marker=".", label=run.name)
    axes.set(xlabel="minutes", ylabel="perplexity on the validation sample", yscale="log")
    axes.yaxis.set_major_locator(FixedLocator([50, 70, 100, 150, 200, 300, 500, 1_000]))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(machine_line().replace("; ", "\n", 1), fontsize=8)
    figure.savefig(out / "perplexity.png", dpi=150, metadata={"Software": None})


def draw_words_per_second(out: Path) -> None:
    """Plot the words a second of the default network in training."""
    contenders = [contender for contender in bench_window.contenders(long=True) if "AVX2" not in contender.name]
    with Contest() as contest:
        by_size = [bench_window.measure(contest, "small", contenders, B) for B in BATCH_SIZES]
    for measured in by_size:
        measured.assert_same_training()
    plot_words_per_second(contenders, by_size, out / "words_per_second.png")


def plot_words_per_second(contenders: list[Contender], by_size: list[Measured], path: Path) -> None:
    """Plot a line for each contender: ours in colours, PyTorch's dashed and grey; the legend in the lines' order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    peers = [contender for contender in contenders if is_pytorch(contender)]
    styles = {
        peer.name: {"color": str(0.75 - 0.75 * i / len(peers)), "linestyle": "--", "marker": "s^vDPx"[i % 6]}
        for i, peer in enumerate(peers)
    }
    for contender in contenders:
        figures = [(measured.B, measured.figure(contender)) for measured in by_size]
        ran = [(B, B / seconds) for B, seconds in figures if seconds > 0]  # not NaN: too few steady turns
        if ran:
            axes.plot(*zip(*ran, strict=True), markersize=4, label=contender.name, **styles.get(contender.name, OURS))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([measured.B for measured in by_size]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(FixedLocator([500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000]))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.set_xlabel("batch size")
    axes.set_ylabel("words a second")
    figure.suptitle(f"Training the default network, AdamW and dropout\n{machine_line()}", fontsize=8)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(handles)), key=lambda i: -handles[i].get_ydata()[-1])
    figure.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path(__file__).parent / "figures")
    pictures = parser.add_subparsers(dest="picture", required=True)
    loss = pictures.add_parser("loss", help="the loss curve of a run")
    loss.add_argument("run", type=Path, help="its folder")
    loss.add_argument("title")
    perplexity = pictures.add_parser("perplexity", help="of several runs over their minutes")
    perplexity.add_argument("runs", metavar="FOLDER", type=Path, nargs="+")
    pictures.add_parser("words-per-second", help="over the batch size, measured now")
    options = parser.parse_args(arguments)
    if options.picture == "loss":
        draw_loss(options.run, options.title, options.out)
    elif options.picture == "perplexity":
        draw_perplexity(options.runs, options.out)
    else:
        draw_words_per_second(options.out)


if __name__ == "__main__":
    main()
