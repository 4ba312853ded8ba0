"""Promises 6 and 9: Ctrl-C, a closed terminal, SIGTERM and SIGKILL; nothing is lost."""

import ctypes
import fcntl
import importlib
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from fastmlp import train
from fastmlp.files import checkpoint
from tests.commands.helpers import LONG, SMALL, call, press_ctrl_c
from tests.runs import flags, lines_in, outcome, process, small_config, small_options, wait_for, write_text

BUSY = {  # the work before the first step, and a function called in it
    "reading": "fastmlp.text.vocabulary.Vocabulary.from_words",
    "writing": "fastmlp.training.samples.Samples.texts",
}
pytestmark = pytest.mark.usefixtures("elsewhere")


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
        from fastmlp.training import keeper
        keeper.FIRST_PICTURE = 0.0
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
def test_promise_9_a_ctrl_c_that_got_through_does_not_come_again() -> None:
    """After one that was lost and is raised again, the first may have got through after all."""
    with train.Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        interrupts.got_through()
        interrupts._raise_again()
        assert interrupts.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):  # another one, though
            signal.raise_signal(signal.SIGINT)


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
    """An exception in a callback from C, such as LLVM's while Numba compiles, is lost."""
    called_from_c = ctypes.CFUNCTYPE(None)(press_ctrl_c)

    def compile_kernels() -> None:
        called_from_c()
        for _ in range(1_000):  # one long sleep would not be interrupted
            time.sleep(0.01)

    with train.Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        compile_kernels()
    assert interrupts.received == signal.SIGINT
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", BUSY)
def test_promise_9_before_the_first_step_a_signal_stops_at_once(
    busy: str,
    number: signal.Signals,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the text is read, and while the untrained network writes."""

    def interrupted(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        raise AssertionError("it went on")

    monkeypatch.setattr(BUSY[busy], interrupted)
    file = write_text(tmp_path)
    status, _, err = call(capsys, "train", file, *SMALL)
    assert status == 128 + number
    if busy == "reading":
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
        assert child.wait() in (130, -signal.SIGINT)  # a shell shows both as 130: Python may end itself by the signal
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
    """As after a lost connection: SIGHUP, and outputs that cannot be written to."""

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


def test_promise_16_the_library_installs_no_signal_handlers(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    importlib.import_module("fastmlp.trainer").train(small_config(write_text(tmp_path), tmp_path / "run", steps=2))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
