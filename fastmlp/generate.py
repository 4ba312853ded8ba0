"""Write text with a trained network: python -m fastmlp.generate RUN "harry potter and the"."""

import argparse
import shutil
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from fastmlp import cli
from fastmlp.options import TEMPERATURE, not_negative, positive_share, unicode, whole

if TYPE_CHECKING:
    import numpy as np

    from fastmlp.prediction.generation import Limits
    from fastmlp.prediction.mixture import Mixture
    from fastmlp.text.tokenizer import Tokenizer

WIDEST = 100  # columns of a line on a terminal
WORD_WIDTH = 20  # columns of a word before its probability
BEST = 3  # words that are shown beside it


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="Write text with a trained network, and the counts beside it.",
        examples=('runs/hp "harry potter and the"', "runs/hp -n 1 --words 300 --temperature 0.8 --seed 1"),
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder or a .safetensors file")
    parser.add_argument(
        "prompt",
        type=cli.typed(unicode),
        metavar="PROMPT",
        nargs="*",
        default=[],
        help="words that the text begins with; -: all of standard input (default: nothing)",
    )
    parser.add_argument("-n", type=cli.typed(whole(1)), default=5, metavar="N", help="how many texts (default: 5)")
    parser.add_argument(
        "--words", type=cli.typed(whole(1)), default=30, metavar="N", help="how many words to add (default: 30)"
    )
    parser.add_argument(
        "--temperature",
        type=cli.typed(not_negative),
        default=TEMPERATURE,
        metavar="X",
        help=f"below 1 likely words become likelier, above 1 less so; 0 takes the likeliest (default: {TEMPERATURE})",
    )
    parser.add_argument(
        "--top-k",
        type=cli.typed(whole(1)),
        default=None,
        metavar="N",
        help="draw from the N likeliest words (default: all)",
    )
    parser.add_argument(
        "--top-p",
        type=cli.typed(positive_share),
        default=None,
        metavar="X",
        help="draw from the fewest words that together have this probability (default: 1.0)",
    )
    cli.add_mixture_options(parser, "network,counts; a cache that hears its own words repeats them")
    parser.add_argument(
        "--seed",
        type=cli.typed(whole(0)),
        default=None,
        metavar="N",
        help="the same texts again (default: others each time)",
    )
    parser.add_argument(
        "--show-probabilities",
        action="store_true",
        default=False,
        help="print each word on a line, with its probability and the next best three",
    )
    return parser


def generate(arguments: argparse.Namespace) -> int:
    """Load the model, complete the prompt, print each word as it comes."""
    from fastmlp.prediction.generation import (
        complete,
        continuation,
        describe_unknown_words,
        random_numbers,
        words_of_prompt,
    )
    from fastmlp.prediction.mixture import WRITERS
    from fastmlp.text.wrapping import wrapped

    model, backend = cli.load_model(arguments, WRITERS)
    prompt = words_of_prompt(model, read_prompt(" ".join(arguments.prompt)))
    if unknown := describe_unknown_words(model, prompt):
        cli.say(f"note: {unknown}")
    cli.compile_first(backend, lambda: complete(model, prompt, 1, random_numbers(0, 0)))
    width = min(shutil.get_terminal_size().columns, WIDEST) if cli.is_terminal(sys.stdout) else None
    for text in range(arguments.n):
        if text:
            print("\n" if arguments.show_probabilities else separator(model.tokenizer, width), end="")
        numbers, limits = random_numbers(arguments.seed, text), limits_of(arguments)
        if arguments.show_probabilities:
            show_probabilities(model, prompt, numbers, arguments.words, limits)
            continue
        words = continuation(model, prompt, numbers, **limits)
        pieces = map(model.tokenizer.joiner().add, chain(prompt, islice(words, arguments.words)))
        show(pieces if width is None else wrapped(pieces, width))
    return cli.DONE


def limits_of(arguments: argparse.Namespace) -> "Limits":
    """Return what limits the drawing of words."""
    return {"temperature": arguments.temperature, "top_k": arguments.top_k, "top_p": arguments.top_p}


def show_probabilities(
    model: "Mixture", prompt: list[str], numbers: "np.random.Generator", count: int, limits: "Limits"
) -> None:
    """Print the prompt, then a line for each word as it comes: how likely it was to be drawn, and what else was."""
    from fastmlp.prediction.generation import Continuation, draw, drawing_probabilities
    from fastmlp.text.wrapping import columns

    place, words = Continuation(model, prompt), model.vocabulary.words
    if prompt:
        print(model.tokenizer.join(prompt), flush=True)
    for _ in range(count):
        logits = place.logits()
        probabilities = drawing_probabilities(logits, **limits)
        drawn = draw(logits, numbers, **limits)
        likeliest = (-probabilities).argsort(kind="stable")[: BEST + 1].tolist()
        others = [word for word in likeliest if word != drawn and probabilities[word] > 0][:BEST]
        instead = ", ".join(f"{words[word]} {percent(probabilities[word])}" for word in others)
        padding = " " * max(1, WORD_WIDTH - columns(words[drawn]))
        print(f"  {words[drawn]}{padding}{percent(probabilities[drawn]):>7}   {instead}".rstrip(), flush=True)
        place.add(drawn)


def percent(probability: float) -> str:
    """Return a probability as a percentage."""
    return f"{100 * probability:.1f} %"


def read_prompt(prompt: str) -> str:
    """Return the prompt; for "-", all of standard input."""
    if prompt != "-":
        return prompt
    from fastmlp.text.reading import read_text

    return read_text(["-"], keep_licence=True).text


def show(pieces: Iterable[str]) -> None:
    """Print the pieces of a text as they come; white space waits for the next word.

    Ends the last line, after Ctrl-C too.
    """
    space = ""
    try:
        for piece in pieces:
            if piece.isspace():
                space += piece
                continue
            print(space + piece, end="", flush=True)
            space = ""
    finally:
        print(flush=True)


def separator(tokenizer: "Tokenizer", width: int | None) -> str:
    """Return the separator of two texts: nothing if each is a single line, an empty line if they are wrapped, asterisks
    if the tokenizer writes line ends.

    width  of the lines; None: texts are not wrapped
    """
    if "\n" in tokenizer.join(["a", tokenizer.sentence_end, "a"]):
        return "\n* * *\n\n"
    return "" if width is None else "\n"


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.generate") -> int:
    """Run the command."""
    return cli.run(generate, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
