"""Train a neural language model on text: python -m fastmlp.train hp.txt."""

import _thread
import argparse
import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastmlp import cli, ranks
from fastmlp.config import EITHER, NETWORK_OPTIONS, TrainConfig, is_config, options, read_toml
from fastmlp.options import ConfigError, closest

if TYPE_CHECKING:
    from fastmlp.console import Printer
    from fastmlp.trainer import SavedRun

GROUPS = {
    "length": ("steps", "epochs", "minutes", "batch_size"),
    "network": (*NETWORK_OPTIONS, "embed_std", "output_bias"),
    "optimizer": ("optimizer", "lr", "schedule", "warmup", "momentum", "betas", "weight_decay"),
    "text": (
        "tokenizer",
        "vocab_size",
        "min_count",
        "val_fraction",
        "test_fraction",
        "val_file",
        "keep_licence",
        "rules",
    ),
    "counts": ("counts", "order"),
    "watching": ("eval_every", "eval_windows", "patience", "log_every", "sample_every", "prompt"),
    "running": ("save_every", "seed", "threads", "backend", "precision"),
}
TAKES_LESS = "less text, or a smaller --vocab-size, --context, --embed, --hidden or --batch-size, takes less"


def make_parser(prog: str) -> cli.Parser:
    """Return the parser: the options of the configuration, and those of this sitting only."""
    parser = cli.Parser(
        prog=prog,
        usage=f"{prog} [FILE ...] [options]",
        description="Train a neural language model on text. Stop it with Ctrl-C and go on with --resume.",
        examples=(
            "                           # with no text at hand",
            "hp.txt",
            "novels/ --minutes 5 --out runs/novels",
            "hp.txt --preset original",
            "--resume runs/hp",
        ),
    )
    known = options()
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help=f"{known['files'].help} (default: {known['files'].shown})"
    )
    parser.add_argument("--out", metavar="DIR", help=f"{known['out'].help} (default: {known['out'].shown})")
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="small; large; original: the network of Bengio et al., batches of 32, SGD (default: small)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE.toml",
        help="options from a file, such as a run's config.toml; those given here go before",
    )
    for name in ("resume", "overwrite"):
        what = {
            "resume": "go on with the run in a folder: --resume DIR, or --out DIR",
            "overwrite": "replace the run that is there",
        }[name]
        parser.add_argument(f"--{name}", action="store_true", default=False, help=what)
    for name, what in (
        ("json", "print events as lines of JSON, described in fastmlp/events.py; errors as ever"),
        ("quiet", "print nothing but notices and errors"),
        ("mpi", "share the words out over the processes that MPI has started, where that does not show by itself"),
    ):
        parser.add_argument(f"--{name}", action="store_true", default=False, help=what)
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            option = known[name]
            if name == "keep_licence":
                group.add_argument(cli.flag(name), action="store_const", const=True, help=option.help)
                continue
            if name == "counts":
                what = "same as --counts no"
                group.add_argument("--no-counts", dest=name, action="store_const", const=False, help=what)
            group.add_argument(
                cli.flag(name),
                metavar=option.metavar,
                action="append" if option.repeated else "store",
                help=f"{option.help} (default: {option.shown})".replace("%", "%%"),
            )
    return parser


def configuration(arguments: argparse.Namespace) -> TrainConfig:
    """Return the configuration: the flags, over the options of a TOML file or of the run to resume."""
    given = vars(arguments)
    take_folder_of_run(given)
    for one, other in (
        *(("resume", other) for other in ("overwrite", "config", "preset")),
        ("config", "preset"),
        ("json", "quiet"),
    ):
        if given.get(one) and given.get(other):
            raise ConfigError(other, EITHER, other=one)
    flags = {name: value for name, value in given.items() if name in options() or name == "preset"}
    for file in flags.get("files", ()):
        if file.endswith(".toml"):
            raise ConfigError("files", f"{file} holds options, not a text; give it as --config {shlex.quote(file)}")
        if hint := mistaken_file(file):
            raise ConfigError("files", f"{file}: no such file; {hint}")
    _, below = overridden_options(arguments)
    try:
        return TrainConfig.layered(below, flags)
    except ConfigError as error:
        name_config_file(error, arguments)
        raise


def take_folder_of_run(given: dict[str, Any]) -> None:
    """Take a run's folder that is given as a FILE of --resume for the DIR of --out."""
    folders = [file for file in given.get("files", ()) if is_config(Path(file, "config.toml"))]
    if given["resume"] and "out" not in given and len(folders) == 1:
        given["out"] = folders[0]
        given["files"].remove(folders[0])
        if not given["files"]:
            del given["files"]


def mistaken_file(file: str) -> str:
    """Return what the user may have meant by a FILE that does not exist; empty if nothing comes to mind."""
    path = Path(file)
    with contextlib.suppress(OSError, ValueError):
        if file == "-" or path.exists() or path.is_symlink():
            return ""
        if file.isdigit():
            return "several numbers of one option are separated by commas, as in --hidden 300,300"
        if same := [str(other) for other in path.parent.glob("*") if other.name.lower() == path.name.lower()]:
            return f"did you mean '{same[0]}'?"
    return ""


def overridden_options(arguments: argparse.Namespace) -> tuple[str | None, dict[str, Any]]:
    """Return the TOML file or config.toml whose options the flags override, and these options."""
    given = vars(arguments)
    if arguments.resume:
        return options_of_run(given)
    return (arguments.config, read_toml(arguments.config)) if "config" in given else (None, {})


def options_of_run(given: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return config.toml of the run to resume and its options; none if it has not been written and FILE is given."""
    if "out" not in given:
        named = given.get("files", ())
        of_run = len(named) == 1 and (not Path(named[0]).exists() or is_config(Path(named[0]).parent / "config.toml"))
        if not of_run:
            raise ConfigError("resume", "say which run: --resume DIR or --out DIR")
        raise ConfigError("resume", no_run(named[0]))
    file = Path(given["out"], "config.toml")
    if not file.exists():
        if given.get("files"):
            return None, {}
        raise ConfigError("resume", no_run(given["out"]))
    try:
        kept = read_toml(file)
    except ConfigError as error:
        raise ConfigError("resume", error.problem) from error
    if "-" in kept.get("files", ()) and not given.get("files"):
        raise ConfigError("resume", "the run's text came from standard input: name it again, as FILE or -")
    return str(file), kept


def no_run(name: str) -> str:
    """Return that a path holds no run, and where there is one that may have been meant."""
    folder = Path(name)
    if is_config(folder.parent / "config.toml"):
        return f"{name} holds no run; name the run's folder: --resume {quoted(folder.parent)}"
    others = (str(other.parent) for other in folder.parent.glob("*/config.toml") if is_config(other))
    below = Path("runs", folder.name)
    near = f"; did you mean '{below}'?" if is_config(below / "config.toml") else closest(name, others)
    return f"{name} holds no run{near}"


def name_config_file(error: ConfigError, arguments: argparse.Namespace) -> None:
    """Name the file in the error of an option that the file sets and no flag overrides."""
    file, options = overridden_options(arguments)
    if error.option in options and error.option not in vars(arguments):
        error.file = file


def train(arguments: argparse.Namespace, prog: str, crew: "ranks.Crew | None" = None) -> int:
    """Train until the end, Ctrl-C or SIGTERM, or until the terminal is closed.

    crew  the ranks of which this is one; None: this process trains alone
    """
    if crew is not None and crew.group.rank:
        return follow(arguments, crew)
    config = configuration(arguments)
    leader = None if crew is None else crew.lead(vars(arguments))
    run: SavedRun | None = None
    with Interrupts() as interrupts:
        try:
            from fastmlp.events import GoOn
            from fastmlp.trainer import open_run

            with (
                make_printer(arguments) as printer,
                open_run(
                    config,
                    reporter=printer,
                    resume=arguments.resume,
                    overwrite=arguments.overwrite,
                    leader=leader,
                ) as run,
            ):
                result = run.train(
                    lambda: (
                        interrupts.before_step()
                        or printer.closed is not None
                        or (leader is not None and leader.signal != 0)
                    )
                )
                if result.finished:
                    printer.report(GoOn(commands_after(prog, run)))
                    return cli.DONE
                printer.report(GoOn([command_to_resume(prog, run)]))
        except BrokenPipeError as error:  # cli.run would take it for a closed standard output
            raise RuntimeError("a pipe that the run writes to was closed") from error
        except (KeyboardInterrupt, Exception) as error:
            interrupts.got_through()
            # a KeyboardInterrupt in the import of an extension module becomes an ImportError
            if not isinstance(error, KeyboardInterrupt) and not interrupts.stopped_at_once:
                if arguments.resume and "files" not in vars(arguments):
                    explain_moved_text(error, arguments.out)
                if isinstance(error, ConfigError):
                    name_config_file(error, arguments)
                if isinstance(error, MemoryError):
                    raise MemoryError(f"{str(error) or 'none is left'}; {TAKES_LESS}") from error
                raise
            cli.say(stopped_at_once(prog, run, resumed=arguments.resume))
            if crew is not None:
                crew.orderly = False
            return 128 + (interrupts.received or signal.SIGINT)
    if leader is not None and leader.signal and interrupts.received is None:
        return 128 + leader.signal
    if interrupts.received is None:
        cli.say(f"{prog}: {why_closed(printer.closed)}; the run is saved in {run.folder.path}")
        return cli.FAILED
    return 128 + interrupts.received


def follow(arguments: argparse.Namespace, crew: "ranks.Crew") -> int:
    """Train as one of the ranks that rank 0 leads; return the exit status that all have."""
    with Interrupts(quiet=True) as interrupts:
        try:

            def signaled() -> int:
                interrupts.before_step()
                return interrupts.received or 0

            return crew.follow(vars(arguments), signaled)
        except (KeyboardInterrupt, Exception) as error:
            interrupts.got_through()
            if not isinstance(error, KeyboardInterrupt) and not interrupts.stopped_at_once:
                raise
            number = interrupts.received or signal.SIGINT
            crew.report(f"stopped by {signal.Signals(number).name}")
            return 128 + number


def explain_moved_text(error: Exception, folder: str) -> None:
    """Raise a TextError again with a hint: how to name the text of a resumed run if it has moved."""
    from fastmlp.errors import TextError

    if isinstance(error, TextError):
        raise TextError(f"{error}; to name the run's text anew: FILE --resume --out {quoted(folder)}") from error


def why_closed(error: OSError | None) -> str:
    """Return why standard output cannot be written to."""
    if error is None or isinstance(error, BrokenPipeError):
        return "standard output was closed"
    return f"cannot write to standard output: {error.strerror}"


def make_printer(arguments: argparse.Namespace) -> "Printer":
    """Return the printer that the flags ask for."""
    from fastmlp.console import Console, JsonLines, Quiet

    if arguments.json:
        return JsonLines()
    return Quiet() if arguments.quiet else Console(bar=cli.shows_progress())


def command_to_resume(prog: str, run: "SavedRun") -> str:
    """Return the exact command; a text from standard input must be given again."""
    files = "- " if "-" in run.config.files else ""
    return f"{cli.as_typed(prog)} {files}--resume --out {quoted(run.folder.path)}"


def stopped_at_once(prog: str, run: "SavedRun | None", *, resumed: bool) -> str:
    """Return the message for a run that stopped before its step was done."""
    if run is None and resumed:
        return "stopped before training went on: the run is as it was"
    if run is None:
        return "stopped before training began: there is nothing to save"
    if run.keeper.replaces:
        return f"stopped before training began: {run.folder.path} is as it was"
    if (saved_step := run.keeper.saved_step) is None:
        return f"stopped at once, before anything was saved; to begin again: {command_to_resume(prog, run)}"
    return f"stopped at once; to go on after step {saved_step:,}: {command_to_resume(prog, run)}"


def commands_after(prog: str, run: "SavedRun") -> list[str]:
    """Return the commands that can use the trained model."""
    folder, prompt = quoted(run.folder.path), next(iter(run.samples.prompts))
    word = next((word for word in run.corpus.vocabulary.words if word.isalpha() and len(word) > 5), "WORD")
    after = {"generate": quoted(prompt) if prompt else "", "evaluate": "FILE", "neighbors": word, "map": ""}
    programs = {name: cli.as_typed(prog.replace("train", name)) for name in after}
    return [f"{programs[name]} {folder} {argument}".rstrip() for name, argument in after.items()]


def quoted(argument: str | Path) -> str:
    """Quote an argument for the shell, so that no command takes it for an option."""
    if not str(argument).startswith("-"):
        return shlex.quote(str(argument))
    return shlex.quote(f"./{argument}" if isinstance(argument, Path) else f" {argument}")  # words have no spaces


class Interrupts:
    """Defers Ctrl-C, SIGTERM and SIGHUP until a step is done; a second Ctrl-C stops at once.

    SIGHUP means that the terminal was closed or its connection lost; under nohup it stays ignored.

    Before the first step there is nothing to finish: the first signal raises KeyboardInterrupt. Where C calls Python,
    as the compiler of kernels does, the exception is lost; so it is raised again until it gets through.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """quiet  another process says that the step is finished first"""
        self.quiet = quiet
        self.received: int | None = None
        self.in_steps = False
        self._is_over = self._is_repeated = False
        # on a terminal the message overwrites ^C and the progress bar
        self.over_line = b"\r\x1b[K" if cli.is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb" else b"\n"
        self._before: dict[int, Any] = {}
        self._again: threading.Timer | None = None

    def __enter__(self) -> "Interrupts":
        self._hook_before = sys.unraisablehook
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT, signal.SIGTERM]
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                numbers.append(signal.SIGHUP)
            self._before = {number: signal.signal(number, self._note) for number in numbers}
            sys.unraisablehook = self._lost
        return self

    def __exit__(self, *_: object) -> None:
        if self._again is not None:
            self._again.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook_before

    @property
    def stopped_at_once(self) -> bool:
        """Whether a signal came before the first step."""
        return self.received is not None and not self.in_steps

    def before_step(self) -> bool:
        """Whether to stop rather than begin the step."""
        self.in_steps = True
        return self.received is not None

    def got_through(self) -> None:
        """A signal has ended the run: raise none again that was lost, it would interrupt what is said last."""
        self._is_over = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        repeated, self._is_repeated = self._is_repeated, False
        if repeated and self._is_over:
            return
        if not self.in_steps or (self.received is not None and number == signal.SIGINT):
            self.received = self.received or number
            raise KeyboardInterrupt
        self.received = number
        if self.quiet or sys.stderr is None:  # closed: descriptor 2 may be any file by now
            return
        with contextlib.suppress(OSError):  # Ctrl-C may have ended its reader, as in train 2>&1 | tee log
            message = b"stopping after this step and saving; another Ctrl-C stops at once\n"
            os.write(2, self.over_line + message)  # the signal may have interrupted a print

    def _lost(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Raise a lost KeyboardInterrupt again; pass other lost exceptions to the hook before."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._hook_before(unraisable)
            return
        self._again = threading.Timer(0.01, self._raise_again)
        self._again.start()

    def _raise_again(self) -> None:
        self._is_repeated = True
        _thread.interrupt_main()


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.train") -> int:
    """Run the command; where MPI has started several processes, as one rank of them."""
    if not ranks.are_wanted(sys.argv[1:] if arguments is None else arguments):
        return cli.run(lambda parsed: train(parsed, prog), make_parser(prog), arguments)
    return ranks.run(lambda parsed, crew: train(parsed, prog, crew), make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
