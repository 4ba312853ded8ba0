"""The commands called in this process, and runs for them."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from fastmlp import cli, evaluate, export, generate, neighbors, play, runs, train
from fastmlp import map as word_map
from tests.runs import flags, small_options

MAINS: dict[str, Callable[..., int]] = {
    "train": train.main,
    "generate": generate.main,
    "evaluate": evaluate.main,
    "neighbors": neighbors.main,
    "map": word_map.main,
    "export": export.main,
    "play": play.main,
    "runs": runs.main,
    "fastmlp": cli.main,
}
SMALL = flags(small_options())
LONG = {"steps": 1_200, "save_every": 50, "eval_every": 300, "sample_every": 600, "log_every": 20}


def call(capsys: pytest.CaptureFixture[str], command: str, *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command, run in this process."""
    capsys.readouterr()
    status = MAINS[command]([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # where Python looks at its signals
