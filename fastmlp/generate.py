"""Write text with a trained network: python -m fastmlp.generate RUN "harry potter and the"."""

import argparse
import sys
from collections.abc import Sequence

from fastmlp import cli
from fastmlp.config import not_negative, number, unicode, whole


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="Write text with a trained network.",
        examples=('runs/hp "harry potter and the"', "runs/hp -n 1 --words 300 --temperature 0.8 --seed 1"),
    )
    above_zero = number("a number above 0 and at most 1", lambda value: 0 < value <= 1)
    parser.add_argument("run", metavar="RUN", help="a run's folder or a .safetensors file")
    parser.add_argument(
        "prompt",
        type=cli.typed(unicode),
        metavar="PROMPT",
        nargs="?",
        default="",
        help="what the text begins with (default: nothing)",
    )
    parser.add_argument("-n", type=cli.typed(whole(1)), default=5, metavar="N", help="how many texts (default: 5)")
    parser.add_argument(
        "--words", type=cli.typed(whole(1)), default=30, metavar="N", help="how many words to add (default: 30)"
    )
    parser.add_argument(
        "--temperature",
        type=cli.typed(not_negative),
        default=1.0,
        metavar="X",
        help="below 1 likely words become likelier, above 1 less so; 0 takes the likeliest (default: 1.0)",
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
        type=cli.typed(above_zero),
        default=None,
        metavar="X",
        help="draw from the fewest words that together have this probability (default: 1.0)",
    )
    parser.add_argument(
        "--seed",
        type=cli.typed(whole(0)),
        default=None,
        metavar="N",
        help="the same texts again (default: others each time)",
    )
    return parser


def generate(arguments: argparse.Namespace) -> int:
    """Load the model, complete the prompt, print."""
    from fastmlp.generation import complete, describe_unknown_words, random_numbers

    language, backend = cli.load_model(arguments.run)
    prompt = language.tokenizer.split(arguments.prompt)
    if unknown := describe_unknown_words(language, prompt):
        cli.say(f"note: {unknown}")
    cli.compile_first(backend, lambda: complete(language, prompt, 1, random_numbers(0, 0)))
    for text in range(arguments.n):
        words = complete(
            language,
            prompt,
            arguments.words,
            random_numbers(arguments.seed, text),
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
        )
        print(language.tokenizer.join([*prompt, *words]), flush=True)
    return cli.DONE


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.generate") -> int:
    """Run the command."""
    return cli.run(generate, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
