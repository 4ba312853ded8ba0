"""Print the back-end, threads and versions, as a bug report needs them: python -m fastmlp.info."""

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from fastmlp import __version__, cli

PACKAGES = ("numpy", "numba", "matplotlib", "torch")


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    return cli.Parser(
        prog=prog,
        description="Print the back-end, its SIMD variant and precisions, threads and versions, a line each: what a bug"
        " report needs. Status 1 where no back-end can be had.",
    )


def facts() -> Iterator[tuple[str, str]]:
    """Yield names and values in the order of printing."""
    from fastmlp.errors import ThreadsError
    from fastmlp.threads import default_threads

    yield "fastmlp", f"{__version__} ({Path(__file__).parent})"
    yield "python", f"{platform.python_version()} ({platform.python_implementation()}), {platform.platform()}"
    yield "cpu", cpu_name()
    yield from back_end()
    try:
        yield "threads", str(default_threads())
    except ThreadsError as error:
        yield "threads", str(error)
    for package in PACKAGES:
        yield package, version(package)
    settings = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("FASTMLP_"))
    yield "settings", " ".join(settings) or "none"


def back_end() -> Iterator[tuple[str, str]]:
    """Yield the back-end that `auto` chooses, or why there is none; the CPU's variants; the precisions."""
    from fastmlp.config import TrainConfig
    from fastmlp.ops import BackendUnavailableError
    from fastmlp.ops.backend import choose_backend
    from fastmlp.training.setup import training_precision

    try:
        chosen = choose_backend()
    except BackendUnavailableError as error:
        yield "back-end", f"none: {error}"
        return
    yield "back-end", f"{chosen.ops.backend}{f': {chosen.notice}' if chosen.notice else ''}"
    if chosen.simd:
        from fastmlp.ops import cython_ops

        yield "variant", f"{chosen.simd} (this CPU runs {', '.join(cython_ops.variants())})"
    trains = training_precision(TrainConfig(), chosen)
    yield "precisions", f"{', '.join(chosen.ops.precisions())} (auto: {trains} to train, ieee in the library)"


def cpu_name() -> str:
    """The processor's name as Linux has it, else as Python knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def version(package: str) -> str:
    """The version of a package that is installed here."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def info(_arguments: argparse.Namespace) -> int:
    """Print the facts."""
    found = dict(facts())
    for name, value in found.items():
        print(f"{name:<11} {value}")
    return cli.FAILED if found["back-end"].startswith("none") else cli.DONE


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.info") -> int:
    """Run the command."""
    return cli.run(info, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
