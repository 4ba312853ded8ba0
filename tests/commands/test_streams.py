"""Standard output and error that are closed, full, or in another encoding."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from fastmlp.files import checkpoint
from tests.commands.helpers import LONG, SMALL, call
from tests.runs import flags, lines_in, metrics_of, process, small_options, wait_for, write_text

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_work_that_a_closed_pipe_cut_short_is_not_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("fastmlp.training.validation.Validation.trial", gone)
    assert call(capsys, "train", write_text(tmp_path), *SMALL)[0] == 1


def close_outputs() -> None:
    os.close(1)
    os.close(2)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_promise_9_what_is_said_goes_into_no_file_where_the_outputs_are_closed(tmp_path: Path) -> None:
    """Files opened later get the numbers of the closed streams."""
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_an_output_that_is_full_is_not_said_to_be_closed(tmp_path: Path) -> None:
    with (
        Path("/dev/full").open("w") as full,
        process("-m", "fastmlp.train", write_text(tmp_path), *SMALL, "--out", "run", stdout=full) as child,
    ):
        _, err = child.communicate()
    full_disk = "cannot write to standard output: No space left on device"
    assert (child.returncode, err) == (1, f"python -m fastmlp.train: {full_disk}; the run is saved in run\n")
