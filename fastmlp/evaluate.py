"""Measure how well a trained network predicts a text: python -m fastmlp.evaluate RUN FILE."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastmlp import cli

if TYPE_CHECKING:
    from fastmlp.prediction.evaluation import Evaluation


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="How well a trained network guesses a text: loss and perplexity.",
        examples=("runs/hp other.txt", "runs/hp other.txt --json"),
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder or a .safetensors file")
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="text files, folders (their *.txt), - for standard input, .gz"
    )
    parser.add_argument("--json", action="store_true", default=False, help="print one JSON object")
    return parser


def evaluate(arguments: argparse.Namespace) -> int:
    """Load the model, read the text, evaluate the model on it, print the figures."""
    from tqdm import tqdm

    from fastmlp.errors import TextError
    from fastmlp.prediction.evaluation import evaluate as evaluation
    from fastmlp.text.reading import read_text

    model, backend = cli.load_model(arguments.run)
    ids = model.vocabulary.encode(model.tokenizer.split(read_text(arguments.files).text))
    cli.compile_first(backend, lambda: evaluation(model, ids[:1]))
    shown = {"unit": " words", "unit_scale": True, "dynamic_ncols": True, "leave": False}
    with tqdm(total=len(ids), disable=not cli.is_terminal(sys.stderr), **shown) as bar:
        found = evaluation(model, ids, watch=bar.update)
    if not found.words:
        raise TextError(f"{', '.join(arguments.files)}: none of its words is in the model's vocabulary")
    print(json.dumps(facts(found)) if arguments.json else describe(facts(found)))
    return cli.DONE


def facts(found: "Evaluation") -> dict[str, Any]:
    """Return the printed figures by name."""
    return {**found.figures(), "words": found.words + found.unknown}


def describe(values: dict[str, Any]) -> str:
    """Return the figures as a few lines."""
    unknown = values["unknown_words"]
    left_out = f"{unknown:,} outside the vocabulary, left out above" if unknown else "all in the vocabulary"
    lines = [
        f"loss        {values['loss']:.4f}",
        f"perplexity  {values['perplexity']:.2f}",
        f"words       {values['words']:,}; {left_out}",
    ]
    if unknown and "loss_with_unknown" in values:
        loss, perplexity = values["loss_with_unknown"], values["perplexity_with_unknown"]
        lines.append(f"with them   loss {loss:.4f}, perplexity {perplexity:.2f}: <unk> was trained")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.evaluate") -> int:
    """Run the command."""
    return cli.run(evaluate, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
