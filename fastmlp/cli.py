"""What the commands share: parsing, one line for what went wrong, exit status; and `fastmlp train|generate|...`.

Exit status: 0 done; 1 failed; 2 wrong usage or unusable input; 130 stopped by Ctrl-C; 143 stopped by SIGTERM.
"""

import argparse
import contextlib
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from fastmlp import __version__
from fastmlp.config import ConfigError, Reader, closest

if TYPE_CHECKING:
    from fastmlp.backend import Backend
    from fastmlp.language_model import LanguageModel

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "UNUSABLE",
    "Parser",
    "UsageError",
    "compile_first",
    "load_model",
    "main",
    "run",
    "say",
    "typed",
]

DONE, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
COMMANDS = {
    "train": "train a network on text",
    "generate": "write text with a trained network",
    "evaluate": "how well a trained network guesses a text",
    "neighbors": "words that are used like a word",
    "map": "a picture of words by their use",
}


class UsageError(Exception):
    """A command that cannot be understood."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and that knows what a misspelt option may have meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS, **options)
        self.add_argument("--debug", action="store_true", default=False, help="show a traceback where something fails")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(message.removeprefix("argument "))

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The arguments, options and files in any order."""
        parsed, unknown = self.parse_known_intermixed_args(list(arguments))
        for argument in unknown:
            name = argument.split("=")[0]
            if name.startswith("-"):
                raise UsageError(f"{name}: no such option{closest(name, self._option_string_actions)}")
            raise UsageError(f"{argument}: one argument too many")
        return parsed


def typed(read: Reader) -> Callable[[str], Any]:
    """A reader of config.py as the type of an argument."""

    def convert(value: str) -> Any:
        try:
            return read(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def say(text: str) -> None:
    """Tell the user something beside the output; nobody may be listening any more."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def load_model(run: str) -> tuple["LanguageModel", "Backend"]:
    """The trained model of a run's folder or a .safetensors file, on the back-end to work with."""
    from fastmlp.backend import choose_backend
    from fastmlp.language_model import load_language_model
    from fastmlp.threads import default_threads

    threads, backend = default_threads(), choose_backend()
    language = load_language_model(run, backend.ops, threads=threads)
    if backend.notice:
        say(f"note: {backend.notice}")
    return language, backend


def compile_first(backend: "Backend", work: Callable[[], object]) -> None:
    """Where a back-end compiles on first use, let it do so now, and say it.

    work  what the command is about to do, on a single row: no other kernels are compiled than it needs
    """
    if backend.compile_ops is None:
        return
    say(f"note: compiling the {backend.ops.backend} kernels, which takes a while the first time ...")
    began = time.perf_counter()
    work()
    say(f"note: compiled in {time.perf_counter() - began:.1f} s")


def run(command: Callable[[argparse.Namespace], int], parser: Parser, arguments: Sequence[str] | None) -> int:
    """Parse, run, and turn what went wrong into one line and an exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return command(parser.parse(given))
    except SystemExit as exit:  # --help and --version
        return int(exit.code or 0)
    except BrokenPipeError:  # the reader has had enough
        silence(sys.stdout)
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if "--debug" in given:
            raise
        status, message = explain(error)
        say(f"{parser.prog}: {message}")
        return status


def explain(error: Exception) -> tuple[int, str]:
    """The exit status of an error, and its line."""
    if isinstance(error, UsageError):
        return UNUSABLE, f"{error} (see --help)"
    if isinstance(error, ConfigError):
        return UNUSABLE, f"{flag(error.option)}: {error.problem}"

    from fastmlp.checkpoint import CheckpointError
    from fastmlp.language_model import ModelError
    from fastmlp.ops import BackendUnavailableError
    from fastmlp.run_folder import RunFolderError
    from fastmlp.text import TextError
    from fastmlp.threads import ThreadsError
    from fastmlp.trainer import DivergedError

    if isinstance(error, TextError | ModelError | RunFolderError | BackendUnavailableError | ThreadsError):
        return UNUSABLE, str(error)
    if isinstance(error, CheckpointError | DivergedError):
        return FAILED, str(error)
    if isinstance(error, OSError) and error.strerror:
        return FAILED, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return FAILED, "not enough memory"
    return FAILED, f"{type(error).__name__}: {error} (--debug shows where)"


def flag(option: str) -> str:
    """How an option of the configuration is written on the command line."""
    return "FILE" if option == "files" else f"--{option.replace('_', '-')}"


def silence(stream: TextIO) -> None:
    """Let nothing more be written to a standard output or error that is closed, not even as Python ends."""
    with contextlib.suppress(OSError):  # it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `fastmlp`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in COMMANDS:
        command = importlib.import_module(f"fastmlp.{given[0]}")
        return int(command.main(given[1:], f"fastmlp {given[0]}"))
    listed = "\n".join(f"  {name:<11}{what}" for name, what in COMMANDS.items())
    parser = Parser(
        prog="fastmlp",
        usage="fastmlp COMMAND ... (fastmlp COMMAND --help says more)",
        description="Train a neural language model on novels, fast, on an ordinary CPU.",
        epilog=f"commands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastmlp {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return run(lambda parsed: _no_command(parser, getattr(parsed, "command", None)), parser, given)


def _no_command(parser: Parser, name: str | None) -> int:
    if name is not None:
        raise UsageError(f"{name}: no such command{closest(name, COMMANDS)}")
    parser.print_help()
    return UNUSABLE
