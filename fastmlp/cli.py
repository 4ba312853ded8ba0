"""The frame of all commands: parsing, one line for an error, the exit status; and the program `fastmlp`.

Exit status: 0 done; 1 failed; 2 wrong usage or unusable input; 130 stopped by Ctrl-C; 143 stopped by SIGTERM; 129
stopped because the terminal was closed.
"""

import argparse
import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from fastmlp import __version__
from fastmlp.errors import ReportedError, UsageError
from fastmlp.options import ConfigError, Reader, closest, not_negative, several

if TYPE_CHECKING:
    from fastmlp.ops.backend import Backend
    from fastmlp.prediction.mixture import Mixture

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "UNUSABLE",
    "Parser",
    "add_mixture_options",
    "as_typed",
    "compile_first",
    "is_terminal",
    "load_model",
    "main",
    "run",
    "say",
    "shows_progress",
    "typed",
]

DONE, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
COMMANDS = {
    "train": "train a network on text",
    "generate": "write text with a trained network",
    "evaluate": "how well a trained network guesses a text",
    "neighbors": "words that are used like a word",
    "map": "a picture of words by their use",
    "play": "a page in the browser: write, look inside, train",
    "export": "a page with the model inside, ONNX, word vectors, counts",
    "runs": "the runs of a folder as a table, their curves",
    "info": "what runs here: back-end, variant, threads, versions",
}
PLAIN_WORDS = {  # in place of argparse's phrases
    "^argument ": "",
    "^the following arguments are required: (.*)": r"\1: missing",
    "expected one argument$": "expected a value after it",
    "ignored explicit argument .*": "takes no value",
}


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line and suggests an option for a misspelt one.

    examples  command lines without the program, shown at the end of its help
    """

    def __init__(self, *, examples: Sequence[str] = (), **options: Any) -> None:
        if examples:
            options["epilog"] = "\n".join(["examples:", *(f"  {options['prog']} {example}" for example in examples)])
        super().__init__(
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )
        self.add_argument("--debug", action="store_true", default=False, help="show a traceback where something fails")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        for pattern, plain in PLAIN_WORDS.items():
            message = re.sub(pattern, plain, message)
        raise UsageError(message)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments; options and files may come in any order."""
        parsed, unknown = self.parse_known_intermixed_args(list(arguments))
        for argument in unknown:
            name = argument.split("=")[0]
            if name.startswith("-") and Path(argument).exists():
                raise UsageError(f"{argument}: no such option; write ./{argument} for the file")
            if name in self._option_string_actions:
                raise UsageError(f"{name}: no option behind --, where all are arguments; write it before that")
            if name.startswith("-"):
                raise UsageError(f"{name}: {self._problem_of_unknown(name)}")
            raise UsageError(f"{argument}: one argument too many")
        return parsed

    def _problem_of_unknown(self, name: str) -> str:
        """Return the end of an unknown option's error: it belongs to another command, or is misspelt."""
        parsers = {other: importlib.import_module(f"fastmlp.{other}").make_parser(other) for other in COMMANDS}
        others = [other for other, parser in parsers.items() if name in parser._option_string_actions]
        if others:
            return f"an option of {', '.join(others)}, not of this command"
        return f"no such option{closest(name, self._option_string_actions)}"


def typed(read: Reader) -> Callable[[str], Any]:
    """Return a reader of options.py as the `type` of an argparse argument."""

    def convert(value: str) -> Any:
        try:
            return read(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def as_typed(prog: str) -> str:
    """Return the command that starts `prog` in the user's shell, by the name or the path of this Python."""
    if not prog.startswith("python "):
        return prog
    folder = Path(sys.executable).parent
    found = (name for name in ("python", "python3") if Path(shutil.which(name) or "").parent == folder)
    return prog.replace("python", next(found, shlex.quote(sys.executable)), 1)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is a terminal; it is None if it was closed before Python started."""
    return stream is not None and stream.isatty()


def shows_progress() -> bool:
    """Whether to draw a progress bar: on a terminal, if tqdm is installed, else with a notice."""
    if not is_terminal(sys.stderr):
        return False
    if find_spec("tqdm") is None:
        say("note: no progress bar, which needs tqdm: pip install tqdm")
        return False
    return True


def say(text: str) -> None:
    """Print a line to standard error, if that is still open."""
    if sys.stderr is None:  # closed: print would write to standard output instead
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def add_mixture_options(parser: argparse.ArgumentParser, default: str = "all that the model has") -> None:
    """Add the options of a command that predicts: what of a model is to do it."""
    parser.add_argument(
        "--only",
        metavar="NAMES",
        default=None,
        help=f"network, counts, cache, or several separated by commas (default: {default})",
    )
    parser.add_argument(
        "--weights",
        type=typed(several(not_negative, "numbers of at least 0 separated by commas, as in 0.6,0.3,0.1")),
        metavar="X,X",
        default=None,
        help="weight of each, in that order (default: those fitted to the validation part)",
    )


def load_model(arguments: argparse.Namespace, names: Sequence[str] = ()) -> tuple["Mixture", "Backend"]:
    """Load the model of the command's run, a folder or a .safetensors file; return what is to predict, its back-end.

    names  of what is to predict by default, if the model has it; none: all that it has
    """
    from fastmlp.ops.backend import choose_backend
    from fastmlp.prediction.mixture import PREDICTORS, load_predictor
    from fastmlp.threads import default_threads

    threads, backend = default_threads(), choose_backend()
    model = load_predictor(arguments.run, backend.ops, threads=threads)
    if arguments.only is not None:
        names = [name.strip() for name in arguments.only.split(",")]
        for name in names:
            if name not in PREDICTORS:
                raise UsageError(f"--only: expected {', '.join(PREDICTORS)}, got {name!r}{closest(name, PREDICTORS)}")
            if name not in model.names:
                raise UsageError(f"--only: {arguments.run} has no {name}, only {', '.join(model.names)}")
    if names:
        model = model.only(*names)
    if arguments.weights is not None:
        if len(arguments.weights) != len(model.names) or not any(arguments.weights):
            raise UsageError(
                f"--weights: expected {len(model.names)} numbers, not all 0, for {', '.join(model.names)},"
                f" got {','.join(f'{weight:g}' for weight in arguments.weights)}"
            )
        model = model.weighted(*arguments.weights)
    if backend.notice:
        say(f"note: {backend.notice}")
    return model, backend


def compile_first(backend: "Backend", work: Callable[[], object]) -> None:
    """Compile the kernels now, with a notice, if the back-end compiles on first use.

    work  runs the command's computation on a single row, so that only the kernels it needs are compiled
    """
    if backend.compile_ops is None:
        return
    say(f"note: compiling the {backend.ops.backend} kernels, which takes a while the first time ...")
    began = time.perf_counter()
    work()
    say(f"note: compiled in {time.perf_counter() - began:.1f} s")


def run(
    command: Callable[[argparse.Namespace], int],
    parser: Parser,
    arguments: Sequence[str] | None,
    report: Callable[[str], object] | None = None,
) -> int:
    """Parse the arguments, run the command and return the exit status; an error is reported in one line.

    report  is given that line instead of standard error
    """
    given = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):  # novels have letters that Latin-1 or ASCII lacks
        sys.stdout.reconfigure(errors="replace")
    try:
        return command(parser.parse(given))
    except SystemExit as exit:  # --help and --version
        return int(exit.code or 0)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        silence(sys.stdout)
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if "--debug" in given and sys.stderr is not None:
            traceback.print_exc()
        status, message = explain(error)
        (report or say)(f"{parser.prog}: {message}")
        return status


def explain(error: Exception) -> tuple[int, str]:
    """Return the exit status of an error and the line that reports it."""
    if isinstance(error, UsageError):
        return error.status, f"{error} (see --help)"
    if isinstance(error, ConfigError):
        return error.status, error.described(flag) if error.file is None else f"{error.file}: {error}"
    if isinstance(error, ReportedError):
        return error.status, str(error)
    if isinstance(error, OSError) and error.strerror:
        return FAILED, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return FAILED, f"not enough memory: {error}" if str(error) else "not enough memory"
    return FAILED, f"{type(error).__name__}: {error} (--debug shows where)"


def flag(option: str) -> str:
    """Return the name of a configuration option on the command line."""
    return "FILE" if option == "files" else f"--{option.replace('_', '-')}"


def silence(stream: TextIO) -> None:
    """Redirect a closed standard stream to os.devnull, so that Python's flush at exit does not fail."""
    with contextlib.suppress(OSError):  # the stream may not be a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `fastmlp`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["help"]:
        given = [*given[1:2], "--help"]
    if given and given[0] in COMMANDS:
        command = importlib.import_module(f"fastmlp.{given[0]}")
        return int(command.main(given[1:], f"fastmlp {given[0]}"))
    if given and not given[0].startswith("-"):  # the rest would be the options of a command
        del given[1:]
    listed = "\n".join(f"  {name:<11}{what}" for name, what in COMMANDS.items())
    parser = Parser(
        prog="fastmlp",
        usage="fastmlp COMMAND ... (fastmlp COMMAND --help says more)",
        description=f"Train a neural language model on novels, fast, on an ordinary CPU.\n\ncommands:\n{listed}",
        examples=("train hp.txt", 'generate runs/hp "harry potter and the"'),
    )
    parser.add_argument("--version", action="version", version=f"fastmlp {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return run(lambda parsed: _no_command(parser, getattr(parsed, "command", None)), parser, given)


def _no_command(parser: Parser, name: str | None) -> int:
    if name is None:
        parser.print_help()
        return UNUSABLE
    if Path(name).exists():
        raise UsageError(f"{name}: no such command; to train on it: fastmlp train {shlex.quote(name)}")
    raise UsageError(f"{name}: no such command{closest(name, COMMANDS)}")
