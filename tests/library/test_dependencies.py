"""What is installed beside NumPy is imported where it is used, and its absence is one clear line there."""

import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from fastmlp import trainer
from fastmlp.errors import MissingPackageError, require
from fastmlp.examples import makemore
from fastmlp.ops import BackendUnavailableError
from fastmlp.ops.backend import choose_backend
from fastmlp.training.bar import shows_bar
from tests.commands.helpers import call
from tests.runs import window_config, write_text

ROOT = Path(__file__).parents[2]
NUMPY_ALONE = """
import sys
from importlib.metadata import packages_distributions
for name in packages_distributions():  # None: as where it is not installed
    if name not in ("numpy", "fastmlp"):
        sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a run on it, whose model is mixed with counts."""
    folder = tmp_path_factory.mktemp("served")
    trainer.train(window_config(write_text(folder), folder / "run", counts=True))
    return folder


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """without("tqdm"): as where it is not installed."""

    def forget(package: str) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return forget


def with_numpy_alone(code: str, folder: Path) -> str:
    """What the code prints in a process of its own; it must say nothing to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", NUMPY_ALONE + code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FASTMLP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "run", "anna paints", "--words", "5"],
        ["evaluate", "run", "story.txt"],
        ["neighbors", "run", "anna"],
        ["info"],
    ],
    ids=lambda command: command[0],
)
def test_a_model_is_served_with_numpy_alone(command: list[str], trained: Path) -> None:
    code = f"from fastmlp import cli\nsys.exit(cli.main({command}))"
    assert with_numpy_alone(code, trained)


def test_the_library_serves_counts_and_trains_with_numpy_alone(trained: Path) -> None:
    code = """
from fastmlp import KneserNey, LanguageModel
model = LanguageModel.load("run")
print(len(model.generate("anna paints", words=5)) > 15, model.perplexity("anna paints a red door.") < 1000)
text = open("story.txt").read()
KneserNey().fit(text).save("counts.safetensors")
model = LanguageModel(embed=8, hidden=8, reach=10)
model.fit(text, steps=3)
model.save("fitted.safetensors")
"""
    assert with_numpy_alone(code, trained) == "True True\n"


def test_training_without_tomli_w_stops_before_it_begins(
    trained: Path, without: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without("tomli_w")
    status, _, err = call(capsys, "train", trained / "story.txt", "--steps", 3, "--out", tmp_path / "run")
    line = "a run's config.toml needs tomli-w, which is not installed: pip install tomli-w"
    assert (status, err) == (1, f"python -m fastmlp.train: {line}\n")
    assert list(tmp_path.iterdir()) == []


def test_training_without_matplotlib_says_so_and_goes_on(trained: Path, without: Any, tmp_path: Path) -> None:
    without("matplotlib")
    notices: list[str] = []

    class Reader(trainer.Reporter):
        def report(self, event: Any) -> None:
            notices.extend([event.text] if type(event).__name__ == "Notice" else [])

    result = trainer.train(window_config(trained / "story.txt", tmp_path / "run"), reporter=Reader())
    line = f"{tmp_path}/run/loss.png is not drawn: a picture needs matplotlib, which is not installed:"
    assert [notice for notice in notices if notice.startswith(line)]
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert result is not None


def test_map_without_matplotlib(trained: Path, without: Any, capsys: pytest.CaptureFixture[str]) -> None:
    without("matplotlib")
    line = "a picture needs matplotlib, which is not installed: pip install matplotlib"
    assert call(capsys, "map", trained / "run") == (1, "", f"python -m fastmlp.map: {line}\n")


def test_makemore_without_matplotlib_stops_before_it_trains(
    without: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without("matplotlib")
    names = tmp_path / "names.txt"
    names.write_text("anna\nboris\nclara\n" * 20)
    assert makemore.main([str(names), "--out", str(tmp_path / "seen.png")]) == 1
    assert capsys.readouterr().err.endswith(
        "its picture needs matplotlib, which is not installed: pip install matplotlib\n"
    )


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_terminal_without_tqdm_has_no_bar_and_is_told(
    command: str,
    trained: Path,
    without: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without("tqdm")
    monkeypatch.setattr("fastmlp.cli.is_terminal", lambda stream: stream is sys.stderr)
    arguments = {
        "train": (trained / "story.txt", "--steps", 3, "--hidden", "8,8", "--out", tmp_path / "run"),
        "evaluate": (trained / "run", trained / "story.txt"),
    }
    status, _, err = call(capsys, command, *arguments[command])
    assert (status, err) == (0, "note: no progress bar, which needs tqdm: pip install tqdm\n")


def test_the_librarys_bar_without_tqdm(without: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without("tqdm")
    with pytest.raises(
        MissingPackageError, match=r"^progress=True needs tqdm, which is not installed: pip install tqdm$"
    ):
        shows_bar(True)
    assert not shows_bar(False)
    assert not shows_bar(None)  # pytest's standard error is no terminal
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with pytest.warns(UserWarning, match="^no progress bar, which needs tqdm: pip install tqdm$"):
        assert not shows_bar(None)


@pytest.mark.usefixtures("no_kernels")
def test_with_neither_kernels_nor_numba_both_are_named(without: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTMLP_SIMD", raising=False)
    without("numba")
    for name in [name for name in sys.modules if name.startswith("fastmlp.ops.numba_ops")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        BackendUnavailableError, match=r"^the cython back-end is not .*; the numba back-end is not"
    ) as told:
        choose_backend()
    assert "it needs numba, which is not installed: pip install numba" in str(told.value)
    assert "Until then" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_package_that_is_broken_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import something_that_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_that_it_needs"):
        require("half-installed", "it")


def test_contributing_says_why_each_dependency_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["project"]["optional-dependencies"].values()
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"], *chain(*listed)]
    packages = {re.split(r"[\[<>=; ]", each)[0] for each in wanted} - {"fastmlp"}
    rows = re.findall(r"^\| (`.*?`) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(re.findall("`(.+?)`", ", ".join(rows))) == sorted(packages)
