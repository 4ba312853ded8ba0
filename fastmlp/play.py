"""Open a page in the browser to write with models, look inside, and train: python -m fastmlp.play [RUN]."""

import argparse
import contextlib
import html
import secrets
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastmlp import cli
from fastmlp.errors import UsageError
from fastmlp.options import whole

ADDRESS = "127.0.0.1"  # of this machine, for this machine only
FAREWELL = 2  # seconds that open answers have when the server ends


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="Open a page in the browser, served on this machine only: write with the models of runs/, see"
        " which words surprise them, their map of words, and train on texts. Ctrl-C ends it, and saves a training.",
        examples=("", "runs/hp", "runs/hp --no-browser --port 8000"),
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        help="a run's folder or a .safetensors file to begin with (default: the newest)",
    )
    parser.add_argument(
        "--port", type=cli.typed(whole(1, 65_535)), default=None, metavar="N", help="(default: one that is free)"
    )
    parser.add_argument(
        "--no-browser", action="store_true", default=False, help="print the page's address, and open nothing"
    )
    return parser


def play(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    try:
        import uvicorn

        from fastmlp.web.server import make_app
    except ModuleNotFoundError as error:
        raise UsageError(f"the page needs {error.name}, which is not installed: pip install 'fastmlp[play]'") from error
    from fastmlp.files.run_folder import model_file
    from fastmlp.web.shelf import Shelf

    named = getattr(arguments, "run", None)
    if named is not None:
        model_file(named)  # raises ModelError where there is none
    with free_socket(arguments.port) as listener:
        host, token = f"{ADDRESS}:{listener.getsockname()[1]}", secrets.token_urlsafe(24)
        shelf = Shelf(Path.cwd(), None if named is None else Path(named).absolute())
        address = f"http://{host}/{token}/"
        print(f"the page: {address}\nCtrl-C ends it", flush=True)
        config = uvicorn.Config(
            make_app(shelf, token, host), log_level="critical", timeout_graceful_shutdown=FAREWELL, ws="none"
        )
        with contextlib.nullcontext() if arguments.no_browser else opened(address):
            uvicorn.Server(config).run(sockets=[listener])
    return cli.DONE


def free_socket(port: int | None) -> socket.socket:
    """Return a socket that listens on a port, None: on one that is free. Raise UsageError where it is taken."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port or 0))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(f"--port: cannot listen on {port}: {error.strerror}") from error
    return listener


@contextlib.contextmanager
def opened(address: str) -> Iterator[None]:
    """Open the browser at an address.

    Other users of this machine see the arguments of its programs. So the browser gets the name of a file, which only
    this user can read and which leads on to the address.
    """
    with tempfile.TemporaryDirectory(prefix="fastmlp-", ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "play.html"
        page.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(address)}">', encoding="utf-8")
        threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
        yield


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.play") -> int:
    """Run the command."""
    return cli.run(play, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
