"""List the runs of a folder, and draw their curves: python -m fastmlp.runs [FOLDER]."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fastmlp import cli
from fastmlp.errors import UsageError
from fastmlp.options import picture

if TYPE_CHECKING:
    from fastmlp.files.runs import RunSummary

FOLDER = "runs"
HEAD = ("run", "text", "network", "passes", "minutes", "network", "mixed", "test")
LEFT = 3  # columns of text; the others are numbers
LONGEST = 40  # characters of a name or a text


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="A table of the runs of a folder, the newest first: text, network, passes over the text, minutes,"
        " and perplexities: of the validation part by the network alone and mixed with counts and cache, and of the"
        " test part by the network.",
        examples=("", "old/runs --plot", "--plot --out curves.svg"),
    )
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", default=FOLDER, help=f"a folder of runs, or a run (default: {FOLDER})"
    )
    parser.add_argument(
        "--plot", action="store_true", default=False, help="lay their curves over each other, in a file"
    )
    parser.add_argument(
        "--out", type=cli.typed(picture), metavar="FILE", help="that file, .png or .svg (default: runs.png in FOLDER)"
    )
    parser.add_argument("--json", action="store_true", default=False, help="print a JSON object for each run")
    return parser


def runs(arguments: argparse.Namespace) -> int:
    """Find the runs, print what they are, draw their curves."""
    from fastmlp.files.runs import metrics_in, runs_in, summary_of

    folder, out = Path(arguments.folder), getattr(arguments, "out", None)
    if out is not None and not arguments.plot:
        raise UsageError("--out: it is where --plot draws; add --plot")
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; runs are in runs/ of the folder where they were trained")
    if not (found := runs_in(folder) or just_this(folder)):
        raise UsageError(f"{folder}: no runs in it; python -m fastmlp.train makes one")
    summaries = [summary_of(path) for path in found.values()]
    if arguments.json:
        print(*(json.dumps(asdict(summary)) for summary in summaries), sep="\n")
    else:
        print(table(summaries))
    if arguments.plot:
        from fastmlp.pictures.plot import plot_runs

        file = Path(out or folder / "runs.png")
        plot_runs({name: metrics_in(path) for name, path in reversed(found.items())}, file)
        cli.say(f"their curves: {file}")
    return cli.DONE


def just_this(folder: Path) -> dict[str, Path]:
    """Return a run's folder by its name; nothing if it is none."""
    from fastmlp.files.runs import runs_in

    name = folder.resolve().name
    return {found: path for found, path in runs_in(folder.resolve().parent).items() if found == name}


def table(summaries: Sequence["RunSummary"]) -> str:
    """Return what the runs are, a line each, in columns."""
    rows = [HEAD, *map(cells, summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if column < LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def cells(run: "RunSummary") -> tuple[str, ...]:
    """Return a run's line of the table."""
    name = run.name if run.finished else f"{run.name} (not finished)"
    passes = "" if run.passes is None else f"{run.passes:.2f}"
    minutes = run.seconds / 60
    perplexities = (run.network_perplexity, run.mixed_perplexity, run.test_perplexity)
    shown = ("" if perplexity is None else f"{perplexity:,.1f}" for perplexity in perplexities)
    return (_short(name), _short(run.text), run.network, passes, f"{minutes:.{1 if minutes >= 1 else 2}f}", *shown)


def _short(text: str) -> str:
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.runs") -> int:
    """Run the command."""
    return cli.run(runs, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
