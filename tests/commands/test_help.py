"""What --help shows, and the list of commands."""

import importlib
import shlex

import pytest

from fastmlp import cli, train
from fastmlp.config import options
from tests.commands.helpers import call
from tests.runs import process

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize("command", ["train", "generate", "evaluate", "neighbors", "map", "play", "export", "runs"])
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
        assert text.count("(default: ") == 9
    if command in ("map", "play", "export", "runs"):
        assert text.count("(default: ") == 2
    if command == "evaluate":
        assert text.count("(default: ") == 3
    examples = out.partition("\nexamples:\n")[2].splitlines()
    assert len(examples) >= 2
    for example in examples:  # their options exist and fit together
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
