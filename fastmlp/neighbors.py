"""Words that a trained network holds for similar: python -m fastmlp.neighbors RUN WORD."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastmlp import cli
from fastmlp.config import whole

if TYPE_CHECKING:
    from fastmlp.language_model import LanguageModel


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(prog=prog, description="The words whose embeddings have the highest cosine with a word's.")
    parser.add_argument("run", metavar="RUN", help="a run's folder or a .safetensors file")
    parser.add_argument("word", metavar="WORD", help="a word of the vocabulary")
    parser.add_argument("-n", type=cli.typed(whole(1)), default=10, metavar="N", help="how many words (default: 10)")
    return parser


def neighbors(arguments: argparse.Namespace) -> int:
    """Load the model, find the word, print its neighbors."""
    from fastmlp.language_model import load_language_model
    from fastmlp.ops import get_ops

    language = load_language_model(arguments.run, get_ops("numpy"))  # which computes nothing here
    words = language.tokenizer.split(arguments.word)
    if len(words) != 1:
        raise cli.UsageError(f"WORD: expected one word, got {arguments.word!r}")
    if words[0] not in language.vocabulary:
        close = ", ".join(language.vocabulary.closest(words[0]))
        raise cli.UsageError(f"WORD: '{words[0]}' is not in the vocabulary" + (f"; close: {close}" if close else ""))
    for cosine, word in nearest(language, words[0], arguments.n):
        print(f"{cosine:6.3f}  {word}")
    return cli.DONE


def nearest(language: "LanguageModel", word: str, count: int) -> list[tuple[float, str]]:
    """The nearest words by cosine, the nearest first, without the word itself and <unk>."""
    import numpy as np

    embedding = language.network.parameters["embedding.weight"]
    directions = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-30)
    own = language.vocabulary.id_of(word)
    cosines = directions @ directions[own]
    order = np.argsort(-cosines, kind="stable")
    others = [i for i in order.tolist() if i not in (own, language.vocabulary.unk_id)][:count]
    return [(float(cosines[i]), language.vocabulary.words[i]) for i in others]


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.neighbors") -> int:
    """Run the command."""
    return cli.run(neighbors, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
