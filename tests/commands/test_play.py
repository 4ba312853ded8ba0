"""fastmlp play as its users see it; what the page can do is tested in tests/web."""

import signal
import socket
import sys
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

import pytest

from fastmlp import play
from tests.commands.helpers import call
from tests.runs import process

pytestmark = pytest.mark.usefixtures("elsewhere")


def status_of(address: str) -> int:
    try:
        with urllib.request.urlopen(address) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_promise_21_it_serves_this_machine_until_ctrl_c(trained: Path) -> None:
    with process("-m", "fastmlp.play", trained, "--no-browser", cwd=trained.parent) as child:
        assert child.stdout is not None
        address = child.stdout.readline().split()[-1]
        assert address.startswith("http://127.0.0.1:")
        assert status_of(address) == 200
        port = address.split(":")[2].split("/")[0]
        assert status_of(f"http://127.0.0.1:{port}/") == 403
        with pytest.raises(OSError), socket.create_connection((other_address(), int(port)), timeout=5):
            pass
        assert child.stdout.readline() == "Ctrl-C ends it\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=60) == ("", "")
    assert child.returncode == 130


def other_address() -> str:
    """An address of this machine that is not 127.0.0.1."""
    return "127.0.0.2"


def test_what_it_needs_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, out, err = call(capsys, "play")
    assert (status, out) == (2, "")
    assert "pip install 'fastmlp[play]'" in err
    assert err.count("\n") == 1


def test_a_run_that_is_not_there_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("starlette")
    Path("empty").mkdir()
    assert call(capsys, "play", "empty")[0] == 2
    assert "a folder without model.safetensors" in call(capsys, "play", "empty")[2]


def test_a_port_that_is_taken_is_said_in_one_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("starlette")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = call(capsys, "play", trained, "--port", port)
    assert (status, err.count("\n")) == (2, 1)
    assert f"--port: cannot listen on {port}" in err


def test_promise_21_the_browser_is_given_no_address_that_others_can_see(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with play.opened("http://127.0.0.1:1/secret/"):
        while not opened:
            pass
        [address] = opened
        assert "secret" not in address
        file = Path(address.removeprefix("file://"))
        assert "http://127.0.0.1:1/secret/" in file.read_text(encoding="utf-8")
        assert file.parent.stat().st_mode & 0o077 == 0
    assert not file.exists()
