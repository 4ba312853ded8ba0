"""The commands as their users see them: what they print, their exit status, Ctrl-C, and what becomes of bad usage."""

import ctypes
import dataclasses
import fcntl
import importlib
import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import pytest

from fastmlp import cli, evaluate, generate, neighbors, train
from fastmlp import map as word_map
from fastmlp.config import TrainConfig, options
from fastmlp.files import checkpoint
from fastmlp.files.run_folder import RunFolder
from fastmlp.language_model import LanguageModel
from fastmlp.ops import get_ops
from fastmlp.ops.backend import Backend
from fastmlp.prediction.generation import draw
from fastmlp.text import get_tokenizer
from tests.runs import (
    flags,
    learnable_text,
    lines_in,
    metrics_of,
    outcome,
    process,
    small_config,
    small_options,
    wait_for,
    write_text,
)

MAINS: dict[str, Callable[..., int]] = {
    "train": train.main,
    "generate": generate.main,
    "evaluate": evaluate.main,
    "neighbors": neighbors.main,
    "map": word_map.main,
    "fastmlp": cli.main,
}
SMALL = flags(small_options())


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in a folder of its own; the picture is test_plot.py's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setattr("fastmlp.training.keeper.plot_loss", lambda metrics, path, *, title: path.write_text(title))


@pytest.fixture
def on_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that choose their back-end themselves choose one that is there in every test."""
    monkeypatch.setattr("fastmlp.ops.backend.choose_backend", lambda: Backend(get_ops("numpy"), None, None))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned a little, with its text beside it."""
    folder = tmp_path_factory.mktemp("trained")
    options = {"steps": 400, "batch_size": 32, "eval_every": 100, "save_every": None}
    importlib.import_module("fastmlp.trainer").train(small_config(write_text(folder), folder / "run", **options))
    return folder / "run"


def call(capsys: pytest.CaptureFixture[str], command: str, *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command, run in this process."""
    capsys.readouterr()
    status = MAINS[command]([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


# --------------------------------------------------------------------------------------------------------------- train


def test_train_prints_what_a_user_wants_to_know(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = write_text(tmp_path)
    status, out, err = call(capsys, "train", file, *SMALL, "--test-fraction", 0.1, "--prompt", "anna zaints")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    words = learnable_text().replace(".", " .").split()
    assert lines[0].startswith(f"text      {file}: {len(words):,} words, {len(set(words))} different; held out: ")
    assert "to validate, " in lines[0]
    assert lines[0].endswith(" to test")
    assert lines[1] == "network   3 words x 6 -> 12 -> 10 -> 41 words; 1,077 parameters"
    assert lines[2].startswith("running   numpy, precision ieee, ")
    assert lines[3] == f"writing   {Path('runs/story')}"
    assert "note: not in the vocabulary, read as <unk>: 'zaints' (close: paints)" in lines
    assert any(line.startswith("before training: anna zaints ") for line in lines)
    assert "after 15 steps: anna zaints " in out
    assert any(line.startswith("step  7/30  loss ") and line.endswith(" left") for line in lines)
    assert any(line.startswith("step 20/30  loss ") and "  validation " in line for line in lines)
    before, after = (next(line for line in lines if line.startswith(label)) for label in ("before: ", "after:  "))
    assert before != after.replace("after: ", "before:")
    assert any(re.match(r"done: 30 steps in \d+:\d\d\b", line) for line in lines)
    assert any(line.startswith("validation: loss ") and line.endswith("(weights of step 30)") for line in lines)
    assert any(line.startswith("test: loss ") for line in lines)
    assert lines[-7:] == [
        f"the loss over the steps: {Path('runs/story/loss.png')}",
        "",
        "to go on:",
        f"  python -m fastmlp.generate {Path('runs/story')} 'anna zaints'",
        f"  python -m fastmlp.evaluate {Path('runs/story')} FILE",
        f"  python -m fastmlp.neighbors {Path('runs/story')} behind",
        f"  python -m fastmlp.map {Path('runs/story')}",
    ]
    written = {file.name for file in Path("runs/story").iterdir()} - {".fastmlp.lock"}
    assert written == {
        "config.toml",
        "model.safetensors",
        "last.safetensors",
        "metrics.jsonl",
        "samples.txt",
        "loss.png",
    }


def test_the_commands_to_go_on_with_do_what_they_say(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, on_numpy: None
) -> None:
    _, out, _ = call(capsys, "train", write_text(tmp_path), *SMALL)
    for line in out.splitlines()[-4:]:
        arguments = [str(tmp_path / "story.txt") if word == "FILE" else word for word in shlex.split(line)]
        assert arguments[:2] == ["python", "-m"]
        status, said, err = call(capsys, arguments[2].removeprefix("fastmlp."), *arguments[3:])
        assert (status, err) == (0, "")
        assert said


@pytest.mark.parametrize("folder", ['it\'s "the" $HOME', "-x", "two words", "a;b"])
def test_the_commands_to_go_on_with_can_be_pasted(
    folder: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, on_numpy: None
) -> None:
    """A shell takes them apart, and what it finds is the folder and the prompt, whatever they are called."""
    arguments = [write_text(tmp_path), *SMALL, "--tokenizer", "whitespace", f"--out={folder}"]
    _, out, _ = call(capsys, "train", *arguments, "--prompt=-n is anna")
    generating, _, near, drawing = out.splitlines()[-4:]
    status, text, err = call(capsys, "generate", *shlex.split(generating)[3:])
    assert (status, text.splitlines()[0][:10]) == (0, "-n is anna")
    assert err.startswith("note: not in the vocabulary")
    assert call(capsys, "neighbors", *shlex.split(near)[3:])[0] == 0
    assert call(capsys, "map", *shlex.split(drawing)[3:])[0] == 0
    assert Path(folder).is_dir()
    run: Any = SimpleNamespace(config=TrainConfig(), folder=RunFolder(folder))
    resuming = shlex.split(train.command_to_resume("fastmlp train", run))
    assert call(capsys, "train", *resuming[2:])[0] == 0


def test_the_commands_to_go_on_with_name_this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell may know it as python3 alone, or not at all."""
    assert cli.as_typed("fastmlp train") == "fastmlp train"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setenv("PATH", os.defpath)
    assert cli.as_typed("python -m fastmlp.train") == f"{tmp_path}/python3 -m fastmlp.train"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("python3", "python"):
        (tmp_path / name).touch(mode=0o755)
        assert cli.as_typed("python -m fastmlp.train") == f"{name} -m fastmlp.train"


def test_flags_reach_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option by its flag, given in any order around the files."""
    given = small_options(
        **{"epochs": 1, "steps": None, "optimizer": "momentum", "momentum": 0.8, "schedule": "step", "warmup": 2},
        **{"weight_decay": 0.001, "tokenizer": "whitespace", "vocab_size": 30, "min_count": 2, "val_fraction": 0.2},
        **{"test_fraction": 0.1, "prompt": "anna", "seed": 5, "threads": 1, "precision": "ieee", "batch_size": 200},
    )
    given = {name: value for name, value in given.items() if value is not None}
    file = write_text(tmp_path)
    arguments = flags(given)
    assert call(capsys, "train", *arguments[:6], file, *arguments[6:], "--out", "run", "--quiet")[0] == 0
    _, metadata = checkpoint.load(Path("run/last.safetensors"))
    assert TrainConfig.layered(metadata["config"]) == TrainConfig(files=(str(file),), **given)
    untested = {"files", "out", "steps", "minutes", "betas", "val_file"}
    assert given.keys() | untested == options().keys()


def test_a_config_file_gives_the_same_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_text(tmp_path)
    assert call(capsys, "train", file, *SMALL, "--out", "a", "--quiet") == (0, "", "")
    assert call(capsys, "train", "--config", "a/config.toml", "--out", "b", "--quiet") == (0, "", "")
    assert Path("a/config.toml").read_bytes() == Path("b/config.toml").read_bytes()
    assert outcome(Path("a")) == outcome(Path("b"))
    assert call(capsys, "train", "--config", "a/config.toml", "--steps", 5, "--out", "c", "--quiet")[0] == 0
    assert metrics_of(Path("c"))[-1]["step"] == 5


def test_events_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "train", write_text(tmp_path), *SMALL, "--json")
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "TextRead"
    assert kinds[-2:] == ["Finished", "GoOn"]
    assert [event["metrics"]["step"] for event in events if event["event"] == "Measured"] == [
        0,
        7,
        10,
        14,
        20,
        21,
        28,
        30,
    ]


def test_promise_10_the_folder_of_a_run_that_is_there_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_text(tmp_path)
    assert call(capsys, "train", file, *SMALL, "--quiet")[0] == 0
    assert call(capsys, "train", file, *SMALL, "--quiet")[0] == 0
    assert sorted(folder.name for folder in Path("runs").iterdir()) == ["story", "story-2"]
    status, _, err = call(capsys, "train", file, *SMALL, "--out", "runs/story")
    assert status == 2
    assert "runs/story already holds a run: go on with it (--resume), replace it (--overwrite)" in err
    assert call(capsys, "train", file, *SMALL, "--overwrite", "--quiet")[0] == 0
    assert sorted(folder.name for folder in Path("runs").iterdir()) == ["story", "story-2"]


def test_any_script_is_trained_on_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentences = "Анна рисует красную дверь. Борис продаёт тёплый хлеб. Η Άννα ζωγραφίζει μια πόρτα. 猫 が 好き です.\n"
    file = write_text(tmp_path, 50 * sentences)
    status, out, err = call(capsys, "train", file, *SMALL, "--prompt", "Анна рисует", "--out", "run")
    assert (status, err) == (0, "")
    assert f"{file}: 1,050 words, 18 different" in out
    assert "before training: анна рисует " in out
    assert "анна рисует " in Path("run/samples.txt").read_text(encoding="utf-8")


def test_standard_input_is_a_text(tmp_path: Path) -> None:
    with process("-m", "fastmlp.train", "-", *SMALL, stdin=subprocess.PIPE) as child:
        out, err = child.communicate(learnable_text())
    assert (child.returncode, err) == (0, "")
    assert out.startswith("text      -: ")
    assert Path("runs/stdin/model.safetensors").exists()
    with process("-m", "fastmlp.train", "--resume", "--out", "runs/stdin") as child:
        _, err = child.communicate()
    assert child.returncode == 2
    assert "--resume: the run's text came from standard input: name it again" in err


def test_promise_4_another_hash_seed_and_a_fresh_process_give_the_same_bits(tmp_path: Path) -> None:
    file = write_text(tmp_path)
    for seed in ("0", "12345"):
        arguments = [file, *SMALL, "--out", seed, "--quiet", "--prompt", "anna"]
        with process("-m", "fastmlp.train", *arguments, env={"PYTHONHASHSEED": seed}) as child:
            assert child.communicate() == ("", "")
    assert outcome(Path("0")) == outcome(Path("12345"))


# ------------------------------------------------------------------------------------------------- stopped and resumed


LONG = {"steps": 1_200, "save_every": 50, "eval_every": 300, "sample_every": 600, "log_every": 20}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run long enough to be stopped in its midst, on one BLAS thread as the processes have it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    file = write_text(folder)
    arguments = [file, *flags(small_options(**LONG)), "--out", folder / "run", "--quiet"]
    with process("-m", "fastmlp.train", *arguments) as child:
        assert child.communicate() == ("", "")
    return folder / "run"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_promise_9_a_signal_saves_and_the_printed_command_resumes(
    number: signal.Signals, status: int, tmp_path: Path, uninterrupted: Path
) -> None:
    arguments = ["-m", "fastmlp.train", write_text(tmp_path), *flags(small_options(**LONG)), "--out", "the run"]
    with process(*arguments, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as child:
        wait_for(lambda: lines_in("the run") > 5)
        child.send_signal(number)
        out, err = child.communicate()
    assert child.returncode == status
    assert err.strip() == "stopping after this step and saving; another Ctrl-C stops at once"
    assert "stopped after step " in out
    assert Path("the run/loss.png").exists()
    saved = checkpoint.load(Path("the run/last.safetensors"))[1]["step"]
    assert 100 <= saved < 1_200
    assert f"stopped after step {saved:,}; saved in the run" in out
    command = shlex.split(out.splitlines()[-1])
    assert command == ["python", "-m", "fastmlp.train", "--resume", "--out", "the run"]
    with process(*command[1:]) as child:
        out, err = child.communicate()
    assert (child.returncode, err) == (0, "")
    assert f"resuming  after step {saved:,}" in out
    assert outcome(Path("the run")) == outcome(uninterrupted)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_promise_6_killed_again_and_again_the_run_ends_with_the_same_bits(tmp_path: Path, uninterrupted: Path) -> None:
    """SIGKILL: at once, before the first checkpoint, and twice on the way."""
    arguments = ["-m", "fastmlp.train", write_text(tmp_path), *flags(small_options(**LONG)), "--out", "run", "--resume"]
    for lines in (1, 8, 30):
        with process(*arguments, "--quiet") as child:
            wait_for(lambda lines=lines: lines_in("run") >= lines)  # type: ignore[misc]
            child.kill()
    with process(*arguments) as child:
        out, err = child.communicate()
    assert (child.returncode, err) == (0, "")
    assert "resuming  after step" in out
    assert outcome(Path("run")) == outcome(uninterrupted)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_promise_6_killed_while_it_draws_the_picture_before_is_whole(tmp_path: Path) -> None:
    """SIGKILL as the second picture of the loss is about to take the first one's place."""
    code = """
        import os, signal, sys
        from fastmlp import train
        from fastmlp.training import run
        run.FIRST_PICTURE = 0.0
        replace = os.replace
        def die_at_the_second(source, target):
            if str(target).endswith("loss.png") and os.path.exists(target):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
        os.replace = die_at_the_second
        sys.exit(train.main(sys.argv[1:]))
    """
    arguments = [write_text(tmp_path), *flags(small_options(**LONG)), "--out", "run", "--quiet"]
    with process("-c", textwrap.dedent(code), *arguments) as child:
        assert child.communicate() == ("", "")
    assert child.returncode == -signal.SIGKILL
    assert matplotlib.image.imread("run/loss.png").shape == (900, 1200, 4)
    assert train.main(["--resume", "--out", "run", "--quiet"]) == 0
    assert not list(Path("run").glob("*.tmp")) + list(Path("run").glob(".*.tmp"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_promise_9_a_second_ctrl_c_stops_at_once() -> None:
    with train.Interrupts() as interrupts:
        assert not interrupts.before_step()
        press_ctrl_c()
        assert interrupts.before_step()
        assert interrupts.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
    with pytest.raises(KeyboardInterrupt):  # afterwards Ctrl-C is Python's again
        press_ctrl_c()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_promise_9_a_ctrl_c_that_was_lost_in_c_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A callback from C, as LLVM makes them while Numba compiles, has nobody to give its exception to."""
    called_from_c = ctypes.CFUNCTYPE(None)(press_ctrl_c)

    def compile_kernels() -> None:
        called_from_c()
        time.sleep(10)

    with train.Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        compile_kernels()
    assert interrupts.received == signal.SIGINT
    assert capsys.readouterr().err == ""


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # where Python looks at its signals


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", ["trainer.read_corpus", "training.run.complete"])
def test_promise_9_before_the_first_step_a_signal_stops_at_once(
    busy: str,
    number: signal.Signals,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the text is read, and while the untrained network writes."""

    def interrupted(*_: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        raise AssertionError("it went on")

    monkeypatch.setattr(f"fastmlp.{busy}", interrupted)
    file = write_text(tmp_path)
    status, _, err = call(capsys, "train", file, *SMALL)
    assert status == 128 + number
    if busy == "read_corpus":
        assert err == "stopped before training began: there is nothing to save\n"
        assert not Path("runs").exists()
        return
    message, command = err.split("; to begin again: ")
    assert message == "stopped at once, before anything was saved"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "train", *shlex.split(command)[3:], "--steps", 2)[0] == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs to see when the signal is handled")
def test_promise_9_ctrl_c_while_standard_input_is_waited_for() -> None:
    def handles_sigterm() -> bool:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
        return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)

    with process("-m", "fastmlp.train", "-", *SMALL, stdin=subprocess.PIPE) as child:
        wait_for(handles_sigterm)
        child.send_signal(signal.SIGINT)
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read() == ""
        assert child.wait() in (130, -signal.SIGINT)  # what a shell shows as 130: Python may end itself by the signal
        assert child.stderr.read() == "stopped before training began: there is nothing to save\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("streams", [("stderr",), ("stdout", "stderr")])
def test_promise_9_ctrl_c_saves_where_nobody_reads_any_more(streams: tuple[str, ...], tmp_path: Path) -> None:
    """Ctrl-C ends tee too in `train ... 2>&1 | tee log`."""
    options = {**LONG, "steps": 1_000_000, "save_every": 1_000_000, "eval_every": 1_000_000}
    reader, writer = os.pipe()
    arguments = ["-m", "fastmlp.train", write_text(tmp_path), *flags(small_options(**options)), "--out", "run"]
    with process(*arguments, **dict.fromkeys(streams, writer)) as child:
        os.close(writer)
        wait_for(lambda: lines_in("run") > 5)
        child.send_signal(signal.SIGSTOP)
        os.close(reader)
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGCONT)
        child.communicate()
        assert child.returncode == 130
    assert checkpoint.load(Path("run/last.safetensors"))[1]["step"] >= 100


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_promise_9_a_closed_terminal_is_no_news_under_nohup(tmp_path: Path) -> None:
    def ignore_hangup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    arguments = ["-m", "fastmlp.train", write_text(tmp_path), *flags(small_options(**LONG)), "--out", "run"]
    with process(*arguments, preexec_fn=ignore_hangup) as child:
        wait_for(lambda: lines_in("run") > 5)
        child.send_signal(signal.SIGHUP)
        _, err = child.communicate()
    assert (child.returncode, err) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX terminals")
def test_promise_9_a_terminal_that_is_closed_loses_nothing(tmp_path: Path) -> None:
    """As when the connection to another machine breaks: the signal, and outputs that take nothing more."""

    def on_the_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    controller, terminal = pty.openpty()
    arguments = ["-m", "fastmlp.train", write_text(tmp_path), *flags(small_options(**LONG)), "--out", "run"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    with process(*arguments, start_new_session=True, preexec_fn=on_the_terminal, **streams) as child:
        os.close(terminal)
        wait_for(lambda: lines_in("run") > 5)
        os.close(controller)
        assert child.wait() == 129
    assert 100 <= checkpoint.load(Path("run/last.safetensors"))[1]["step"] < 1_200


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 3 TiB"), KeyboardInterrupt()])
@pytest.mark.usefixtures("on_numpy")
def test_a_run_that_cannot_begin_leaves_nothing(
    error: BaseException,
    there_before: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fastmlp.training.run.MLP", fail)
    if there_before:
        Path("run").mkdir()
        Path("run/notes").write_text("mine")
    status, _, err = call(capsys, "train", write_text(tmp_path), *SMALL, "--out", "run")
    if isinstance(error, MemoryError):
        assert status == 1
        takes_less = "less text, or a smaller --vocab-size, --context, --embed, --hidden or --batch-size, takes less"
        assert f"not enough memory: Unable to allocate 3 TiB; {takes_less}\n" in err
    else:
        assert status == 130
    left = {file.name for file in Path().rglob("*") if file.suffix != ".txt"}
    assert left == ({"run", "notes", ".fastmlp.lock"} if there_before else set())


@pytest.mark.parametrize("busy", ["MLP", "make_optimizer", "complete", "evaluate"])
@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 3 TiB"), KeyboardInterrupt()])
@pytest.mark.usefixtures("on_numpy")
def test_promise_10_the_run_that_is_replaced_stays_until_the_next_can_begin(
    error: BaseException, busy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where somebody's files lie there, and no run; then it is replaced."""
    file = write_text(tmp_path)
    call(capsys, "train", file, *SMALL, "--out", "run")
    Path("mine").mkdir()
    Path("mine/metrics.jsonl").write_text("my own")

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for folder in ("run", "mine") for path in Path(folder).glob("[!.]*")}

    def fail(*_: Any, **__: Any) -> None:
        if isinstance(error, KeyboardInterrupt):
            press_ctrl_c()
        raise error

    before = contents()
    with monkeypatch.context() as patch:
        patch.setattr(f"fastmlp.training.run.{busy}", fail)
        for folder in ("run", "mine"):
            status, _, err = call(capsys, "train", file, *SMALL, "--seed", 2, "--out", folder, "--overwrite")
            assert contents() == before
            if isinstance(error, MemoryError):
                assert (status, "not enough memory: Unable" in err) == (1, True)
            elif busy in ("complete", "evaluate"):
                assert (status, err) == (130, f"stopped before training began: {folder} is as it was\n")
            else:
                assert (status, err) == (130, "stopped before training began: there is nothing to save\n")
    for folder in ("run", "mine"):
        assert call(capsys, "train", file, *SMALL, "--seed", 2, "--out", folder, "--overwrite")[0] == 0
    call(capsys, "train", file, *SMALL, "--seed", 2, "--out", "new")
    assert outcome(Path("run")) == outcome(Path("mine")) == outcome(Path("new"))


@pytest.mark.usefixtures("on_numpy")
def test_a_run_that_cannot_go_on_from_its_start_keeps_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first checkpoint, it has nothing but config.toml."""
    call(capsys, "train", write_text(tmp_path), *SMALL, "--out", "run")
    for name in ("last.safetensors", "model.safetensors"):
        Path("run", name).unlink()
    before = Path("run/config.toml").read_bytes()
    monkeypatch.setattr("fastmlp.training.run.MLP", lambda *_, **__: exec("raise MemoryError"))
    status, _, err = call(capsys, "train", "--resume", "--out", "run")
    assert (status, "not enough memory: none is left; " in err) == (1, True)
    assert Path("run/config.toml").read_bytes() == before


def test_work_that_a_closed_pipe_cut_short_is_not_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("fastmlp.training.run.evaluate", gone)
    assert call(capsys, "train", write_text(tmp_path), *SMALL)[0] == 1


def close_outputs() -> None:
    os.close(1)
    os.close(2)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_promise_9_what_is_said_goes_into_no_file_where_the_outputs_are_closed(tmp_path: Path) -> None:
    """The next files that are opened get their numbers."""
    arguments = ["-m", "fastmlp.train", write_text(tmp_path), *flags(small_options(**LONG)), "--out", "run"]
    with process(*arguments, preexec_fn=close_outputs) as child:
        wait_for(lambda: lines_in("run") > 5)
        child.send_signal(signal.SIGTERM)
        assert child.wait() == 143
    assert len(metrics_of(Path("run"))) > 5  # each of them JSON
    assert Path("run/loss.png").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file descriptor to close")
def test_an_error_is_no_output_where_standard_error_is_closed() -> None:
    with process("-m", "fastmlp.neighbors", "nowhere", "king", preexec_fn=lambda: os.close(2)) as child:
        out, _ = child.communicate()
    assert (child.returncode, out) == (2, "")


def test_letters_that_the_output_lacks_stop_nothing(tmp_path: Path) -> None:
    text = write_text(tmp_path, "анна рисует красную дверь. " * 60)
    with process("-m", "fastmlp.train", text, *SMALL, "--out", "run", env={"PYTHONIOENCODING": "ascii"}) as child:
        out, err = child.communicate()
    assert (child.returncode, err) == (0, "")
    assert "before: ????" in out
    with process("-m", "fastmlp.generate", "run", "анна", env={"PYTHONIOENCODING": "latin-1"}) as child:
        out, err = child.communicate()
    assert (child.returncode, err) == (0, "")
    assert out.startswith("????")


def test_promise_16_the_library_installs_no_signal_handlers(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    importlib.import_module("fastmlp.trainer").train(small_config(write_text(tmp_path), tmp_path / "run", steps=2))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_closed_pipe_stops_and_saves(tmp_path: Path) -> None:
    arguments = ["-m", "fastmlp.train", write_text(tmp_path), *flags(small_options(**LONG)), "--out", "run"]
    with process(*arguments) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr is not None
        err = child.stderr.read()
        assert child.wait() == 1
    assert err == "python -m fastmlp.train: standard output was closed; the run is saved in run\n"
    assert checkpoint.load(Path("run/last.safetensors"))[1]["step"] < 1_200


# ---------------------------------------------------------------------------------- generate, evaluate, neighbors, map


@pytest.mark.usefixtures("on_numpy")
def test_generate_goes_on_with_the_prompt(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write(run: Path, seed: int) -> tuple[int, str, str]:
        likely = ["--words", 12, "--temperature", 0.5]
        return call(capsys, "generate", run, "Anna paints a", "-n", 3, *likely, "--seed", seed)

    status, out, err = write(trained, 1)
    assert (status, err) == (0, "")
    texts = out.splitlines()
    assert len(texts) == 3
    assert all(text.startswith("anna paints a red door in ") for text in texts)
    assert all(len(text.replace(".", " .").split()) == 15 for text in texts)
    assert write(trained, 1)[1] == out
    assert write(trained / "model.safetensors", 1)[1] == out
    assert write(trained, 2)[1] != out


@pytest.mark.usefixtures("on_numpy")
def test_generate_reports_unknown_words_once(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "generate", trained, "xyzzy paint xyzzy", "-n", 2, "--temperature", 0)
    assert status == 0
    assert err == "note: not in the vocabulary, read as <unk>: 'xyzzy', 'paint' (close: paints)\n"
    assert out.splitlines()[0] == out.splitlines()[1]
    assert out.startswith("xyzzy paint xyzzy ")
    assert "<unk>" not in out


@pytest.mark.usefixtures("on_numpy")
def test_generate_without_a_prompt_begins_a_text(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "generate", trained, "-n", 1, "--temperature", 0)
    assert (status, err) == (0, "")
    assert len(out.replace(".", " .").split()) == 30
    assert call(capsys, "generate", trained, ". .", "-n", 1, "--temperature", 0)[1] == f".. {out}"


@pytest.mark.usefixtures("on_numpy")
def test_generate_reads_its_prompt_from_standard_input(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = call(capsys, "generate", trained, "Anna paints a", "-n", 1, "--seed", 1)
    for given, what in ((b"Anna\r\npaints a\n", expected), (b"", 2), (b"Anna \xff", 2)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        status, out, err = call(capsys, "generate", trained, "-", "-n", 1, "--seed", 1)
        if what == 2:
            assert (status, out, err.count("\n")) == (2, "", 1)
            assert "standard input: " in err
        else:
            assert (status, out, err) == what


@pytest.mark.usefixtures("on_numpy")
def test_generate_writes_each_word_as_it_comes(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has reached a reader when a word is drawn: the prompt, and every word before it."""
    reader = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(reader))
    seen: list[list[str]] = []

    def words_read() -> list[str]:
        return reader.getvalue().decode().replace(".", " .").split()

    def watched(*arguments: Any, **options: Any) -> int:
        seen.append(words_read())
        return draw(*arguments, **options)

    monkeypatch.setattr("fastmlp.prediction.generation.draw", watched)
    assert generate.main([str(trained), "anna paints", "-n", "1", "--words", "9", "--seed", "1"]) == 0
    assert seen == [words_read()[:count] for count in range(2, 11)]


def test_generate_ends_quietly_when_its_reader_does_and_with_a_whole_line_on_ctrl_c(trained: Path) -> None:
    endless = ["-m", "fastmlp.generate", trained, "anna paints", "--words", 10**9]
    with process(*endless) as child:
        assert child.stdout is not None
        assert child.stdout.read(20).startswith("anna paints ")
        child.stdout.close()
        assert child.stderr is not None
        assert (child.stderr.read(), child.wait()) == ("", 0)
    with process(*endless) as child:
        assert child.stdout is not None
        child.stdout.read(20)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    assert (child.returncode, err, out[-1]) == (130, "", "\n")


@pytest.mark.usefixtures("on_numpy")
def test_generate_breaks_lines_on_a_terminal_only(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["generate", trained, "anna paints", "-n", 2, "--words", 60, "--seed", 1]
    plain = call(capsys, *arguments)[1].splitlines()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for columns, width in ((40, 40), (1_000, 100)):
        monkeypatch.setenv("COLUMNS", str(columns))
        out = call(capsys, *arguments)[1]
        assert [text.strip().replace("\n", " ") for text in out.split("\n\n")] == plain
        assert width - 12 < max(map(len, out.splitlines())) <= width


def test_texts_of_several_lines_are_told_apart() -> None:
    words, lines = get_tokenizer("words"), get_tokenizer("whitespace")
    assert [generate.separator(words, width) for width in (None, 80)] == ["", "\n"]
    assert [generate.separator(lines, width) for width in (None, 80)] == ["\n* * *\n\n"] * 2


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([], []),
        (["one", " two", " three"], ["one two", "three"]),
        (["seven", " w", "."], ["seven", "w."]),  # a full stop is not broken off
        (["seven", " w"], ["seven w"]),
        (["unbreakable", " word"], ["unbreakable", "word"]),
        (["a", " bc", "\n\n", "d", " e\nf", " "], ["a bc", "", "d e", "f"]),
    ],
)
def test_a_text_is_broken_into_lines_as_it_comes(pieces: list[str], lines: list[str]) -> None:
    assert "".join(generate.wrapped(pieces, 7)) == "\n".join(lines)


def test_a_text_does_not_end_with_the_empty_lines_of_a_next_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    generate.show(["So", ".", "\n\n", "“", "No", "”", "\n\n"])
    assert capsys.readouterr().out == "So.\n\n“No”\n"


@pytest.mark.usefixtures("on_numpy")
def test_evaluate_prints_figures_for_people_and_programs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_text(trained.parent)
    status, out, err = call(capsys, "evaluate", trained, file)
    assert (status, err) == (0, "")
    facts = json.loads(call(capsys, "evaluate", trained, file, "--json")[1])
    assert facts.keys() == {"loss", "perplexity", "words", "unknown_words"}
    assert facts["loss"] < 0.8
    assert facts["words"] == len(learnable_text().replace(".", " .").split())
    assert out.splitlines() == [
        f"loss        {facts['loss']:.4f}",
        f"perplexity  {facts['perplexity']:.2f}",
        f"words       {facts['words']:,}; all in the vocabulary",
    ]


@pytest.mark.usefixtures("on_numpy")
def test_evaluate_gives_unknown_words_a_figure_only_where_unk_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_text(tmp_path)
    assert call(capsys, "train", file, *SMALL, "--min-count", 125, "--out", "run", "--quiet")[0] == 0
    facts = json.loads(call(capsys, "evaluate", "run", file, "--json")[1])
    assert facts["unknown_words"] > 0
    assert facts["loss_with_unknown"] != facts["loss"]
    lines = call(capsys, "evaluate", "run", file)[1].splitlines()
    assert lines[2].endswith(f"; {facts['unknown_words']:,} outside the vocabulary, left out above")
    assert lines[3].startswith(f"with them   loss {facts['loss_with_unknown']:.4f}, perplexity ")


@pytest.mark.parametrize(("command", "argument"), [("generate", "anna"), ("evaluate", "{text}")])
def test_compiling_is_seen_before_it_is_waited_for(
    command: str, argument: str, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    ops = get_ops("numpy")

    def forward(*arguments: Any, **options: Any) -> None:
        said.append("forward")
        ops.embedding_forward(*arguments, **options)

    compiling = Backend(dataclasses.replace(ops, embedding_forward=forward), None, lambda: None)
    monkeypatch.setattr("fastmlp.ops.backend.choose_backend", lambda: compiling)
    monkeypatch.setattr("fastmlp.cli.say", said.append)
    status, out, _ = call(capsys, command, trained, argument.format(text=write_text(trained.parent)))
    assert (status, bool(out)) == (0, True)
    assert said[0] == "note: compiling the numpy kernels, which takes a while the first time ..."
    assert said[1] == "forward"
    assert said[2].startswith("note: compiled in ")
    assert said.count("forward") > 2


def test_neighbors_are_words_of_the_vocabulary_by_cosine(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "neighbors", trained, "Red", "-n", 38)
    assert (status, err) == (0, "")
    cosines, words = zip(*(line.split() for line in out.splitlines()), strict=True)
    assert list(map(float, cosines)) == sorted(map(float, cosines), reverse=True)
    assert all(-1 <= float(cosine) <= 1 for cosine in cosines)
    assert len(set(words)) == 38
    assert not {"red", "<unk>"} & set(words)


def test_neighbors_follow_the_same_words(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each sentence begins with one of five names."""
    status, out, _ = call(capsys, "neighbors", trained, "Anna", "-n", 4)
    assert status == 0
    assert {line.split()[1] for line in out.splitlines()} == {"boris", "clara", "david", "elena"}


def test_the_map_is_drawn_where_it_is_asked_for(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(trained / "model.safetensors", "novel.safetensors")
    places = {
        (trained,): trained / "map.png",
        ("novel.safetensors",): Path("novel-map.png"),
        (trained, "-n", 20, "--out", "words.svg"): Path("words.svg"),
    }
    for arguments, file in places.items():
        assert call(capsys, "map", *arguments) == (0, f"the map of its words: {file}\n", "")
    assert Path("novel-map.png").read_bytes().startswith(b"\x89PNG")
    drawn = set(re.findall("<!-- (.+?) -->", Path("words.svg").read_text(encoding="utf-8")))
    assert "run: the 20 most frequent words" in drawn
    words = checkpoint.load(trained / "model.safetensors")[1]["vocabulary"]
    labels = drawn & set(words)
    assert len(labels) > 10
    assert labels <= set(words[:21]) - {"."}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ([0, 1, 2, 3, 4] * 20, {"vocab_size": 5}, "a model of ids has no words to draw"),
        ("to be. " * 20, {}, "a vocabulary of 2 words is too small for a map"),
    ],
)
def test_a_model_without_words_has_no_map(
    text: Any, options: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = LanguageModel(context=1, embed=2, hidden=(4,), backend="numpy", **options)
    model.fit(text, steps=2, batch_size=4)
    model.save("small.safetensors")
    assert call(capsys, "map", "small.safetensors") == (2, "", f"python -m fastmlp.map: {message}\n")
    assert not Path("small-map.png").exists()


# --------------------------------------------------------------------------------------------------------- bad usage


BAD: list[tuple[str, list[str], int, str]] = [
    ("train", ["--stepz", "5"], 2, "--stepz: no such option; did you mean '--steps'?"),
    ("train", ["--batchsize=5"], 2, "--batchsize: no such option; did you mean '--batch-size'?"),
    ("train", ["--step", "5"], 2, "--step: no such option; did you mean '--steps'?"),
    ("train", ["--steps"], 2, "--steps: expected a value after it (see --help)"),
    ("train", ["--quiet=1"], 2, "--quiet: takes no value (see --help)"),
    ("train", ["--top-k", "5"], 2, "--top-k: an option of generate, not of this command"),
    ("train", ["-n", "5"], 2, "-n: an option of generate, neighbors, map, not of this command"),
    ("train", ["{text}", "--steps", "0"], 2, "--steps: expected a whole number of at least 1, got '0'"),
    ("train", ["{text}", "--lr", "-1"], 2, "--lr: expected a number above 0, got '-1'"),
    ("train", ["{text}", "--batch-size", "1"], 2, "--batch-size: expected a whole number of at least 2, got '1'"),
    ("train", ["{text}", "--hidden", "300,x"], 2, "--hidden: expected widths of at least 1 separated by commas"),
    (
        "train",
        ["{text}", "--optimizer", "adam"],
        2,
        "--optimizer: expected one of adamw, sgd, momentum, adagrad, got 'adam'",
    ),
    ("train", ["{text}", "--steps", "5", "--epochs", "1"], 2, "--epochs: give either this or --steps"),
    ("train", ["{text}", "--backend", "gpu"], 2, "--backend: expected one of auto, cython, numba, numpy, got 'gpu'"),
    ("train", ["{text}", "--precision", "fp8"], 2, "--precision: expected one of auto, ieee, bf16x3, bf16, got 'fp8'"),
    (
        "train",
        ["{text}", "--backend", "numba", "--precision", "bf16"],
        2,
        "--precision: expected auto or ieee, which numba has, got 'bf16'",
    ),
    ("train", ["{text}", "--prompt", "!!!"], 2, "--prompt: expected a text with words in it, got '!!!'"),
    ("train", ["{text}", "--preset", "orig"], 2, "--preset: expected one of original, got 'orig'"),
    ("train", ["{text}", "--config", "none.toml"], 2, "--config: none.toml cannot be read: No such file or directory"),
    ("train", ["{text}", "--config", "{bad_toml}"], 2, "is not a TOML file"),
    ("train", ["{text}", "--config", "{typo_toml}"], 2, "typo_toml.txt: step: no such option; did you mean 'steps'?"),
    ("train", ["{text}", "--config", "{both_toml}"], 2, "both_toml.txt: epochs: give either this or steps"),
    ("train", ["{text}", "--config", "{both_toml}", "--lr", "x"], 2, "--lr: expected a number above 0, got 'x'"),
    ("train", ["{text}", "--resume"], 2, "--resume: say which run: --out DIR"),
    ("train", ["--resume", "--out", "nowhere"], 2, "--resume: nowhere holds no run\n"),
    ("train", ["--resume", "--out", "{run}/last.safetensors"], 2, "--resume: {run}/last.safetensors holds no run\n"),
    ("train", ["--resume", "--out", "{runs}/rum"], 2, "--resume: {runs}/rum holds no run; did you mean '{run}'?"),
    ("train", ["{run}/config.toml"], 2, "config.toml holds options, not a text; give it as --config {run}/config.toml"),
    ("train", ["--config", "{run}/confg.toml"], 2, "No such file or directory; did you mean '{run}/config.toml'?"),
    (
        "train",
        ["--resume", "--out", "{run}", "--seed", "9"],
        2,
        "--seed: a run that is resumed keeps what it began with: 1",
    ),
    (
        "train",
        ["--resume", "--out", "{run}", "--hidden", "9"],
        2,
        "--hidden: a run that is resumed keeps what it began with: 12,10",
    ),
    ("train", ["--resume", "--out", "{run}", "--epochs", "2"], 2, "--epochs: a run by steps cannot go on by epochs"),
    (
        "train",
        ["--resume", "--out", "{run}", "--val-file", "{text}"],
        2,
        "--val-file: a run that is resumed keeps what it began with: not set",
    ),
    ("train", ["--resume", "--out", "{run}", "--overwrite"], 2, "--overwrite: give either this or --resume"),
    ("train", ["{text}", "--json", "--quiet"], 2, "--quiet: give either this or --json"),
    ("train", ["{text}", "--out", "{text}"], 2, "cannot write to the folder"),
    ("train", ["missing.txt"], 2, "missing.txt: "),
    ("train", ["https://example.org/hp.txt"], 2, "hp.txt: an address, not a file; download it first"),
    ("train", ["{empty}"], 2, "empty.txt: "),
    ("train", ["{run}"], 2, "the folder of a run, not a text"),
    ("train", ["{run}/model.safetensors"], 2, "a safetensors model file, not text"),
    ("train", ["{text}", "--val-file", "{foreign}"], 2, "none of its words is in the vocabulary"),
    ("generate", [], 2, "RUN: missing (see --help)"),
    (
        "generate",
        ["{text}"],
        2,
        "story.txt: it is a text, not a trained model; train on it first: python -m fastmlp.train",
    ),
    ("generate", ["{text}.safetensor"], 2, "there is no such file; name a file that fastmlp has saved"),
    ("generate", ["{runs}/rum"], 2, "there is no such file; did you mean {run}?"),
    ("generate", ["nowhere", "once upon"], 2, "cannot load nowhere: there is no such file"),
    ("generate", ["."], 2, "a folder without model.safetensors"),
    (
        "generate",
        ["{run}", "--", "-x", "-n", "1"],
        2,
        "-n: no option behind --, where all are arguments; write it before",
    ),
    ("generate", ["{run}", "a", "b"], 2, "b: one argument too many"),
    ("generate", ["{run}", "--temperature", "-1"], 2, "--temperature: expected a number of at least 0, got '-1'"),
    ("generate", ["{run}", "--top-k", "0"], 2, "--top-k: expected a whole number of at least 1, got '0'"),
    ("generate", ["{run}", "--top-p", "1.5"], 2, "--top-p: expected a number above 0 and at most 1, got '1.5'"),
    ("generate", ["{run}", "-n", "0"], 2, "-n: expected a whole number of at least 1, got '0'"),
    ("generate", ["{run}", "--seeds", "1"], 2, "--seeds: no such option; did you mean '--seed'?"),
    ("evaluate", ["{run}"], 2, "FILE: missing (see --help)"),
    ("evaluate", ["{text}", "{run}"], 2, "story.txt: it is a text, not a trained model; train on it first"),
    ("evaluate", ["{run}", "{run}"], 2, "the folder of a run, not a text"),
    ("evaluate", ["{run}", "missing.txt"], 2, "missing.txt: "),
    ("evaluate", ["{run}", "{foreign}"], 2, "none of its words is in the model's vocabulary"),
    ("neighbors", ["{run}", "paint"], 2, "WORD: 'paint' is not in the vocabulary; close: paints"),
    ("neighbors", ["{run}", "two words"], 2, "WORD: expected one word, got 'two words'"),
    ("neighbors", ["{run}", "red", "-n", "x"], 2, "-n: expected a whole number of at least 1, got 'x'"),
    ("map", [], 2, "RUN: missing"),
    ("map", ["{text}"], 2, "cannot load"),
    ("map", ["."], 2, "a folder without model.safetensors"),
    ("map", ["{run}", "-n", "2"], 2, "-n: expected a whole number of at least 3, got '2'"),
    ("map", ["{run}", "--out", "map.jpg"], 2, "--out: expected a file that ends in .png or .svg, got 'map.jpg'"),
    ("map", ["{run}", "--out", "none/map.png"], 1, "cannot write none/map.png ("),
    ("map", ["{run}", "map.png"], 2, "map.png: one argument too many"),
    ("fastmlp", ["trian"], 2, "trian: no such command; did you mean 'train'?"),
    ("fastmlp", ["trian", "{text}", "--steps", "5"], 2, "trian: no such command; did you mean 'train'?"),
    ("fastmlp", ["{text}"], 2, "story.txt: no such command; to train on it: fastmlp train "),
    ("fastmlp", ["--vresion"], 2, "--vresion: no such option; did you mean '--version'?"),
]


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize(
    ("command", "arguments", "status", "message"), BAD, ids=[" ".join([c, *a]) for c, a, *_ in BAD]
)
def test_bad_usage_gets_one_line_and_its_status(
    command: str,
    arguments: list[str],
    status: int,
    message: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"text": write_text(tmp_path), "run": trained, "runs": trained.parent}
    for name, content in {
        "empty": "",
        "foreign": "qwerty uiop",
        "bad_toml": "a = = 1",
        "typo_toml": "step = 1",
        "both_toml": "steps = 1\nepochs = 1",
    }.items():
        places[name] = tmp_path / f"{name}.txt"
        places[name].write_text(content)
    got, _, err = call(capsys, command, *(argument.format(**places) for argument in arguments))
    assert got == status
    assert message.format(**places) in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "arguments", "message"),
    [
        ("stpes = 30", [], "run/config.toml: stpes: no such option; did you mean 'steps'?"),
        ("steps = -5", [], "run/config.toml: steps: expected a whole number of at least 1, got -5"),
        ("steps = -5", ["--steps", "x"], "--steps: expected a whole number of at least 1, got 'x'"),
        ("steps = ", [], "--resume: run/config.toml is not a TOML file: "),
        ("seed = 9", [], "run/config.toml: seed: a run that is resumed keeps what it began with: 1"),
        ("seed = 9", ["--seed", "8"], "--seed: a run that is resumed keeps what it began with: 1"),
        ('precision = "bf16"', [], "run/config.toml: precision: expected auto or ieee, which numpy has, got 'bf16'"),
        ("threads = 0", ["--threads", "2", "--prompt", "?"], "--prompt: expected a text with words in it, got '?'"),
    ],
)
def test_what_is_wrong_in_a_runs_own_configuration_is_said_of_that_file(
    line: str, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, "train", write_text(tmp_path), *SMALL, "--out", "run")
    config = Path("run/config.toml")
    name = line.split()[0].replace("stpes", "steps")
    config.write_text(re.sub(rf"(?m)^{name} = .*\n", "", config.read_text()) + f"{line}\n")
    status, _, err = call(capsys, "train", "--resume", "--out", "run", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"python -m fastmlp.train: {message}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_an_output_that_is_full_is_not_said_to_be_closed(tmp_path: Path) -> None:
    with (
        Path("/dev/full").open("w") as full,
        process("-m", "fastmlp.train", write_text(tmp_path), *SMALL, "--out", "run", stdout=full) as child,
    ):
        _, err = child.communicate()
    full_disk = "cannot write to standard output: No space left on device"
    assert (child.returncode, err) == (1, f"python -m fastmlp.train: {full_disk}; the run is saved in run\n")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_promise_11_a_name_that_is_not_utf8_is_refused_or_read(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "novels"
    folder.mkdir()
    file = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt"))
    write_text(tmp_path).rename(file)
    refused = [[file, *SMALL], ["--out", "caf\udce9", *SMALL], [folder, "--val-file", file], ["--prompt", "\udce9"]]
    for arguments in refused:
        status, _, err = call(capsys, "train", *arguments)
        assert (status, err.count("\n")) == (2, 1)
        assert ": expected UTF-8, got '" in err
        assert "\\udce9" in err
        assert sorted(there.name for there in tmp_path.iterdir()) == ["novels"]
    assert call(capsys, "train", folder, *SMALL, "--out", "run", "--quiet") == (0, "", "")
    assert call(capsys, "train", "--resume", "--out", "run", "--steps", 32, "--quiet") == (0, "", "")
    monkeypatch.setattr("fastmlp.ops.backend.choose_backend", lambda: Backend(get_ops("numpy"), None, None))
    assert call(capsys, "evaluate", trained, file)[0] == 0
    assert call(capsys, "generate", trained, "\udce9")[0] == 2


def test_a_failure_on_the_way_is_status_1_and_debug_shows_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [write_text(tmp_path), *SMALL, "--optimizer", "sgd", "--lr", "1e30", "--warmup", "0"]
    status, _, err = call(capsys, "train", *arguments)
    assert status == 1
    assert "try a lower one, such as --lr 0.1; nothing is saved" in err
    assert err.count("\n") == 1
    status, _, shown = call(capsys, "train", *arguments, "--debug")
    assert (status, shown.splitlines()[-1]) == (1, err.strip())
    assert shown.startswith("Traceback (most recent call last):")
    monkeypatch.setattr("fastmlp.trainer.read_corpus", lambda *_: 1 / 0)
    status, _, err = call(capsys, "train", *arguments)
    assert (status, err) == (1, "python -m fastmlp.train: ZeroDivisionError: division by zero (--debug shows where)\n")


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("command", ["train", "generate", "evaluate"])
def test_threads_of_the_environment_are_checked(
    command: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "many")
    file = write_text(tmp_path)
    arguments = {"train": [file, *SMALL], "generate": [trained, "anna"], "evaluate": [trained, file]}[command]
    status, _, err = call(capsys, command, *arguments)
    assert status == 2
    assert err.count("\n") == 1
    assert "FASTMLP_NUM_THREADS: expected a whole number from 1 to 1024, got 'many'" in err


def test_promise_17_no_home_to_write_to_and_no_display(tmp_path: Path) -> None:
    """Nothing is lost and nothing said of it; the picture is drawn for real."""
    nowhere = tmp_path / "a file, not a folder"
    nowhere.write_text("")
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(nowhere / "below"))
    for arguments in (
        ["fastmlp.train", write_text(tmp_path), *SMALL, "--out", "run", "--quiet"],
        ["fastmlp.neighbors", "run", "red"],
        ["fastmlp.map", "run"],
        ["fastmlp.generate", "run", "anna"],
        ["fastmlp.evaluate", "run", tmp_path / "story.txt"],
    ):
        with process("-m", *arguments, env=places, without=("DISPLAY", "MPLCONFIGDIR")) as child:
            _, err = child.communicate()
        assert child.returncode == 0, err
        assert all(line.startswith("note: ") for line in err.splitlines()), err  # as where there are no kernels
        assert arguments[0] != "fastmlp.train" or err == ""
    for picture in ("loss.png", "map.png"):
        assert Path("run", picture).read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", ["train", "generate", "evaluate", "neighbors", "map"])
def test_help_shows_every_default(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, command, "--help")
    assert (status, err) == (0, "")
    text = " ".join(out.split())
    assert f"usage: python -m fastmlp.{command}" in text
    if command == "train":
        for name, option in options().items():
            assert f"(default: {option.shown})" in text, name
            assert cli.flag(name) in text
    if command == "generate":
        assert text.count("(default: ") == 7
    if command == "map":
        assert text.count("(default: ") == 2
    examples = out.partition("\nexamples:\n")[2].splitlines()
    assert len(examples) >= 2
    for example in examples:  # options that there are, in one way that goes together
        assert example.startswith(f"  python -m fastmlp.{command} ")
        arguments = shlex.split(example.partition("#")[0])[3:]
        parsed = importlib.import_module(f"fastmlp.{command}").make_parser(command).parse(arguments)
        if command == "train" and not parsed.resume:
            train.configuration(parsed)


def test_the_program_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "fastmlp", "--help")
    assert status == 0
    assert all(f"\n  {name}" in out for name in cli.COMMANDS)
    assert call(capsys, "fastmlp")[0] == 2
    assert call(capsys, "fastmlp", "--version")[1].startswith("fastmlp 0.")
    assert "usage: fastmlp neighbors" in call(capsys, "fastmlp", "neighbors", "--help")[1]


def test_help_imports_nothing_that_takes_time() -> None:
    code = """
import sys
from fastmlp import cli
for name in cli.COMMANDS:
    assert cli.main([name, "--help"]) == 0
heavy = {"numpy", "numba", "matplotlib", "safetensors", "tqdm", "torch"} & sys.modules.keys()
assert not heavy, heavy
"""
    with process("-c", code) as child:
        _, err = child.communicate()
    assert (child.returncode, err) == (0, "")


def test_python_dash_m_fastmlp_is_the_program() -> None:
    with process("-m", "fastmlp", "trainn") as child:
        assert child.communicate()[1] == "fastmlp: trainn: no such command; did you mean 'train'? (see --help)\n"
    assert child.returncode == 2
