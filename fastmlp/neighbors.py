"""Print the words that are most similar to a word: python -m fastmlp.neighbors RUN WORD."""

import argparse
import sys
from collections.abc import Sequence

from fastmlp import cli
from fastmlp.errors import UsageError
from fastmlp.options import whole


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="The words that are used most like a word, each behind its likeness: the cosine of their embeddings"
        " in the output layer.",
        examples=("runs/hp king", "runs/hp king -n 30"),
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder or a .safetensors file")
    parser.add_argument("word", metavar="WORD", help="a word of the vocabulary")
    parser.add_argument("-n", type=cli.typed(whole(1)), default=10, metavar="N", help="how many words (default: 10)")
    return parser


def neighbors(arguments: argparse.Namespace) -> int:
    """Load the model, find the word, print its neighbors."""
    from fastmlp.errors import TextError
    from fastmlp.language_model import load_language_model
    from fastmlp.ops import get_ops

    language = load_language_model(arguments.run, get_ops("numpy"))  # no op runs here
    try:
        found = language.neighbors(arguments.word, arguments.n)
    except TextError as error:
        raise UsageError(str(error).replace("word:", "WORD:", 1)) from error
    for word, cosine in found:
        print(f"{cosine:6.3f}  {word}")
    return cli.DONE


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.neighbors") -> int:
    """Run the command."""
    return cli.run(neighbors, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
