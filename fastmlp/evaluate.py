"""Measure how well a trained network predicts a text: python -m fastmlp.evaluate RUN FILE."""

import argparse
import json
import math
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from fastmlp import cli
from fastmlp.options import TEXTS, whole

if TYPE_CHECKING:
    import numpy as np

    from fastmlp.prediction.mixture import Mixture
    from fastmlp.prediction.predictor import Watch
    from fastmlp.prediction.sentences import Sentence
    from fastmlp.text.reading import Text
    from fastmlp.text.tokenizer import Tokenizer

LONGEST = 40  # words of a sentence that are shown, around the most surprising one
MARKED = 5  # one word in so many has its bits behind it


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="How well a trained network, its counts and their mixture predict a text: loss and perplexity.",
        examples=("runs/hp other.txt", "runs/hp other.txt --words", "runs/hp other.txt --json"),
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder or a .safetensors file")
    parser.add_argument("files", metavar="FILE", nargs="+", help=TEXTS)
    cli.add_mixture_options(parser)
    parser.add_argument(
        "--keep-licence",
        action="store_true",
        default=False,
        help="keep what Project Gutenberg puts around a book",
    )
    parser.add_argument(
        "--words",
        action="store_true",
        default=False,
        help="print too which sentences surprised most, where they are, and in which words",
    )
    parser.add_argument(
        "-n", type=cli.typed(whole(1)), default=10, metavar="N", help="how many sentences (default: 10)"
    )
    parser.add_argument("--json", action="store_true", default=False, help="print one JSON object")
    return parser


def evaluate(arguments: argparse.Namespace) -> int:
    """Load the model, read the text, evaluate each of its predictors and their mixtures on it, print the figures."""
    from fastmlp.errors import TextError
    from fastmlp.prediction.sentences import surprising_sentences
    from fastmlp.text.reading import read_text

    model, backend = cli.load_model(arguments)
    text = read_text(arguments.files, rules=model.tokenizer.rules, keep_licence=arguments.keep_licence)
    for notice in text.notices:
        cli.say(f"note: {notice}")
    words = model.tokenizer.split(text.text)
    ids = model.vocabulary.encode(words)
    documents = begins_of_documents(model.tokenizer, text)
    cli.compile_first(backend, lambda: model.predictions(ids[:1], ids[:0]))
    with progress_of(len(ids)) as watch:
        found, losses = evaluations(model, ids, documents, watch)
    if not next(iter(found.values()))["words"] - next(iter(found.values()))["unknown_words"]:
        raise TextError(f"{', '.join(arguments.files)}: none of its words is in the model's vocabulary")
    told: dict[str, Any] = {}
    if arguments.words:
        unknown = ids == model.vocabulary.unk_id
        sentences = surprising_sentences(words, losses, unknown, model.tokenizer, documents)[: arguments.n]
        names = [file.name for file in text.files]
        told = {"sentences": [as_json(sentence, names, documents) for sentence in sentences]}
    if arguments.json:
        print(json.dumps({**list(found.values())[-1], "predictors": found, **told}))
    else:
        print(describe(found), *map(describe_sentences, told.values()), sep="\n\n")
    return cli.DONE


@contextmanager
def progress_of(words: int) -> "Iterator[Watch]":
    """Give what is to be told how many words more are done, for a progress bar where one is shown."""
    if not cli.shows_progress():
        yield lambda _more: None
        return
    from tqdm import tqdm

    with tqdm(total=words, unit=" words", unit_scale=True, dynamic_ncols=True, leave=False) as bar:
        yield bar.update


def begins_of_documents(tokenizer: "Tokenizer", text: "Text") -> list[int]:
    """Return before which of its words a file begins, but for the first."""
    begin = [0, *text.begin]
    words = [len(tokenizer.split(text.text[start:end])) for start, end in pairwise(begin)]
    return list(accumulate(words))


def evaluations(
    model: "Mixture", ids: "np.ndarray", documents: Sequence[int], watch: "Watch"
) -> tuple[dict[str, dict[str, float | int]], "np.ndarray"]:
    """Return the figures of each predictor alone and of their mixtures, the whole one last, by their names; and the
    whole one's loss of each word (N,).

    A predictor's time is not counted again in a mixture, whose words per second are those of all its predictors.
    """
    from fastmlp.prediction.evaluation import evaluation_of

    found, seconds = model.timed_predictions(ids, ids[:0], documents=documents, watch=watch)
    mixed = [model.names[: count + 1] for count in range(1, len(model.names))]
    result = {}
    for names in [*((name,) for name in model.names if len(model.names) == 1 or name != "cache"), *mixed]:
        losses = -found.of(*names).mixed(model.weights)
        evaluation = evaluation_of(model, losses, ids)
        speed = len(ids) / max(sum(seconds[name] for name in names), 1e-9)
        figures = {**evaluation.figures(), "words": len(ids), "words_per_second": round(speed, 1)}
        result[" + ".join(names)] = figures
    return result, losses


def describe(found: dict[str, dict[str, float | int]]) -> str:
    """Return a table of the figures, and what they are of."""
    whole = list(found.values())[-1]
    width = max(map(len, found))
    unknown = whole["unknown_words"]
    left_out = f"{unknown:,} outside the vocabulary, left out above" if unknown else "all in the vocabulary"
    lines = [f"{'':{width}}    loss  perplexity   words/s"]
    for names, figures in found.items():
        loss, perplexity, speed = figures["loss"], figures["perplexity"], figures["words_per_second"]
        lines.append(f"{names:{width}}  {loss:6.4f}  {perplexity:10,.2f}  {speed:8,.0f}")
    lines.append(f"{'words':{width}}  {whole['words']:,}; {left_out}")
    if unknown and "loss_with_unknown" in whole:
        loss, perplexity = whole["loss_with_unknown"], whole["perplexity_with_unknown"]
        lines.append(f"{'with them':{width}}  loss {loss:.4f}, perplexity {perplexity:.2f}: <unk> was trained")
    if any("cache" in names for names in found):
        lines.append("with the cache the model adapts to the text as it reads it, from the beginning of each file on")
    return "\n".join(lines)


def as_json(sentence: "Sentence", files: Sequence[str], documents: Sequence[int]) -> dict[str, Any]:
    """Return where a sentence is, its bits a word, and its words with their bits, null for unknown ones.

    files, documents  the names of the files; where in the text those after the first begin
    """
    document = bisect_right(documents, sentence.begin)
    start = documents[document - 1] if document else 0
    return {
        "file": files[document],
        "word": sentence.begin - start + 1,
        "bits": round(sentence.mean, 2),
        "words": [
            (word, None if math.isnan(bits) else round(bits, 2))
            for word, bits in zip(sentence.words, sentence.bits, strict=True)
        ],
    }


def describe_sentences(sentences: Sequence[dict[str, Any]]) -> str:
    """Return the sentences, each below its place and its bits a word; the most surprising words have theirs."""
    lines = ["the sentences that surprised most, in bits a word; behind words their own bits, ? for unknown words"]
    for sentence in sentences:
        words = sentence["words"]
        known = sorted((bits for _, bits in words if bits is not None), reverse=True)
        most = known[: max(1, len(known) // MARKED)][-1]
        place = next(place for place, (_, bits) in enumerate(words) if bits == known[0])
        first = max(0, min(place - LONGEST // 2, len(words) - LONGEST))
        shown = [
            f"{word} (?)" if bits is None else f"{word} ({bits:.1f})" if bits >= most else word
            for word, bits in words[first : first + LONGEST]
        ]
        before, after = "... " if first else "", " ..." if first + LONGEST < len(words) else ""
        lines.append(f"{sentence['bits']:5.1f}  {sentence['file']}, word {sentence['word']:,}")
        lines.append(f"       {before}{' '.join(shown)}{after}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.evaluate") -> int:
    """Run the command."""
    return cli.run(evaluate, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
