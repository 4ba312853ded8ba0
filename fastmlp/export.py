"""Write a model to a file for others: a page, word vectors or counts: python -m fastmlp.export RUN FILE."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastmlp import cli
from fastmlp.errors import UsageError
from fastmlp.options import choice, closest

if TYPE_CHECKING:
    from fastmlp.prediction.mixture import Mixture

FORMATS = ("html", "onnx", "vec", "arpa")
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="Write a model to a file for others. .html: a page with the network inside, which writes and"
        " measures texts in any browser, without a server. .onnx: the network, for onnxruntime and others. .vec: the"
        " words' vectors, in the text format of word2vec. .arpa: the counts, for KenLM and SRILM.",
        examples=("runs/hp page.html", "runs/hp page.html --size 8MB", "runs/hp words.txt --to vec"),
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder or a .safetensors file")
    parser.add_argument("file", metavar="FILE", help="the file to write; its ending says what")
    parser.add_argument(
        "--to",
        type=cli.typed(choice(FORMATS)),
        default=None,
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)} (default: by FILE's ending)",
    )
    parser.add_argument(
        "--size",
        type=cli.typed(file_size),
        default=None,
        metavar="SIZE",
        help="of a page that takes as many of the counts as fit, as in 8MB (default: the network alone)",
    )
    parser.add_argument("--overwrite", action="store_true", default=False, help="replace FILE if it is there")
    return parser


def file_size(value: str) -> int:
    """Read a size with its unit, as a number of bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?B)?", value.strip().upper())
    if found is None:
        raise ValueError(f"expected a size such as 8MB or 500KB, got {value!r}")
    return int(float(found[1]) * UNITS[found[2] or ""])


def export(arguments: argparse.Namespace) -> int:
    """Load the model, write the file, print its name and size."""
    from fastmlp.files.atomic import write_atomically
    from fastmlp.ops import get_ops
    from fastmlp.prediction.mixture import load_predictor
    from fastmlp.web.exported import page_with_model

    file = Path(arguments.file)
    wanted = arguments.to or file.suffix.removeprefix(".").lower()
    if wanted not in FORMATS:
        endings = [f".{name}" for name in FORMATS]
        raise UsageError(f"FILE: expected an ending of {', '.join(endings)}, got {file}{closest(file.suffix, endings)}")
    if arguments.size is not None and wanted != "html":
        raise UsageError(f"--size: a page may take counts, and {file} is none")
    if file.exists() and not arguments.overwrite:
        raise UsageError(f"FILE: {file} exists; name another one or add --overwrite")
    model = load_predictor(arguments.run, get_ops("numpy"))  # no op runs here
    if wanted == "html":
        title = Path(arguments.run).resolve().name.removesuffix(".safetensors")
        written = page_with_model(model, title, arguments.size).encode()
    else:
        written = WRITERS[wanted](model)
    write_atomically(file, written)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    return cli.DONE


def onnx_bytes(model: "Mixture") -> bytes:
    """Return the network as an ONNX file."""
    from fastmlp.prediction import onnx

    return onnx.onnx_bytes(model.neural())


def vec_bytes(model: "Mixture") -> bytes:
    """Return the words' vectors in the output layer, by which `neighbors` finds words, without that of `<unk>`.

    A line says how many there are and how wide; then each word with its numbers, separated by spaces.
    """
    network = model.neural()
    weight = network.network.layers.output.weight[:-1]
    lines = (
        f"{word} {' '.join(f'{number:.6g}' for number in row)}"
        for word, row in zip(network.vocabulary.words[:-1], weight.tolist(), strict=True)
    )
    return "\n".join([f"{len(weight)} {weight.shape[1]}", *lines, ""]).encode()


def arpa_bytes(model: "Mixture") -> bytes:
    """Return the counts as an ARPA file."""
    from fastmlp.errors import ModelError

    if model.counts is None:
        raise ModelError("this run has no counts to write; it was trained with --no-counts, or is not finished")
    return model.counts.arpa()


WRITERS: dict[str, Callable[["Mixture"], bytes]] = {"onnx": onnx_bytes, "vec": vec_bytes, "arpa": arpa_bytes}


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.export") -> int:
    """Run the command."""
    return cli.run(export, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
