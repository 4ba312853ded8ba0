"""Print the words that are most similar to each of some words: python -m fastmlp.neighbors RUN WORD ..."""

import argparse
import sys
from collections.abc import Sequence

from fastmlp import cli
from fastmlp.errors import UsageError
from fastmlp.options import text, whole

RARE = 20  # a word that came less often has its neighbors by chance


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="The words that are used most like a word, each behind its likeness: the cosine of their embeddings"
        " in the output layer. Those of a word that came rarely are chance.",
        examples=("runs/hp king", "runs/hp king queen -n 30"),
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder or a .safetensors file")
    parser.add_argument(
        "words", type=cli.typed(text), metavar="WORD", nargs="+", help="words of the vocabulary; each gets its list"
    )
    parser.add_argument("-n", type=cli.typed(whole(1)), default=10, metavar="N", help="how many words (default: 10)")
    return parser


def neighbors(arguments: argparse.Namespace) -> int:
    """Load the model, find the words, print the neighbors of each."""
    from fastmlp.errors import TextError
    from fastmlp.language_model import load_language_model
    from fastmlp.ops import get_ops
    from fastmlp.prediction.mixture import times_seen
    from fastmlp.prediction.similarity import word_id

    language = load_language_model(arguments.run, get_ops("numpy"))  # no op runs here
    try:
        found = {word: language.neighbors(word, arguments.n) for word in arguments.words}
    except TextError as error:
        raise UsageError(str(error).replace("word:", "WORD:", 1)) from error
    counts = times_seen(arguments.run, len(language.vocabulary))
    for number, (word, near) in enumerate(found.items()):
        if counts is not None or len(found) > 1:
            seen = None if counts is None else int(counts[word_id(language._parts(), word)])
            print(("\n" if number else "") + heading(word, seen))
        for other, cosine in near:
            print(f"{cosine:6.3f}  {other}")
    return cli.DONE


def heading(word: str, seen: int | None) -> str:
    """Return the line above the neighbors of a word that was seen so often in the text; None: nobody knows."""
    if seen is None:
        return word
    times = f"{word}: {seen:,} time{'' if seen == 1 else 's'} to learn from"
    return f"{times}, too rare for its neighbors to mean much" if seen < RARE else times


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.neighbors") -> int:
    """Run the command."""
    return cli.run(neighbors, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
