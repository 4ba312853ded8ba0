"""Draw the most frequent words, similar ones close together: python -m fastmlp.map RUN."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from fastmlp import cli
from fastmlp.options import FEWEST_ON_MAP, picture, whole


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="Draw the most frequent words in two dimensions, where words that are used alike lie together: the"
        " principal components of their embeddings in the output layer.",
        examples=("runs/hp", "runs/hp -n 400 --out words.svg"),
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder or a .safetensors file")
    parser.add_argument(
        "-n", type=cli.typed(whole(FEWEST_ON_MAP)), default=200, metavar="N", help="how many words (default: 200)"
    )
    parser.add_argument(
        "--out",
        type=cli.typed(picture),
        metavar="FILE",
        help="where to draw it, .png or .svg (default: map.png in the run's folder; NAME-map.png beside"
        " NAME.safetensors)",
    )
    return parser


def draw_map(arguments: argparse.Namespace) -> int:
    """Load the model, draw its words, print the name of the file."""
    from fastmlp.language_model import load_language_model
    from fastmlp.ops import get_ops

    run = Path(arguments.run)
    language = load_language_model(run, get_ops("numpy"))  # no op runs here
    out = getattr(arguments, "out", None) or default_file(run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        title = os.fsencode(run.resolve().name.removesuffix(".safetensors")).decode(errors="replace")
        language.plot_words(out, arguments.n, title=title)
    for warning in caught:
        cli.say(f"note: {warning.message}")
    print(f"the map of its words: {out}")
    return cli.DONE


def default_file(run: Path) -> Path:
    """Return the default file for the map of a run's folder or of a model file."""
    return run / "map.png" if run.is_dir() else run.with_name(f"{run.stem}-map.png")


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.map") -> int:
    """Run the command."""
    return cli.run(draw_map, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
