"""What a run leaves out of the sweeps is in another form of it; what it skips without a package is said at its end."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SWEPT = Path(__file__).parent / "ops" / "test_softmax.py"


@pytest.fixture(autouse=True)
def no_options_of_the_run_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect without the options that the environment gives to this run, such as its third of the sweeps."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


class Collected:
    """The cases of a run, as a plugin sees them."""

    def __init__(self, *options: str) -> None:
        assert pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", str(SWEPT), *options], [self]) == 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.cases = [item.nodeid for item in session.items]
        with_ops = [item for item in session.items if "ops" in getattr(item, "fixturenames", ())]
        self.back_ends = {(item.originalname, item.callspec.params["ops"]) for item in with_ops}


def test_each_case_runs_always_or_in_one_of_the_thirds(capsys: pytest.CaptureFixture[str]) -> None:
    always, whole = Collected(), Collected("--thorough")
    thirds = [set(Collected(f"--thorough-third={third}").cases) - set(always.cases) for third in range(3)]
    assert 0 < len(always.cases) < len(whole.cases)
    assert all(thirds)
    assert sorted([*always.cases, *(case for third in thirds for case in third)]) == sorted(whole.cases)
    assert always.back_ends == whole.back_ends != set()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "sweeps: a part that stands for each; --thorough runs them whole"),
        (["--thorough-third=2"], "sweeps: a part that stands for each, and of the rest third 2 (of 0, 1, 2)"),
        (["--thorough"], "sweeps: whole"),
    ],
)
def test_the_head_says_which_form_runs(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.main(["--collect-only", "-p", "no:cacheprovider", str(SWEPT), *options])
    assert said in capsys.readouterr().out


def test_the_end_says_what_was_skipped_without_pytorch() -> None:
    without = "import sys, pytest\nsys.modules['torch'] = None\nsys.exit(pytest.main(sys.argv[1:]))"
    files = ["tests/library/test_torch_door.py", "tests/functional/test_linear_cross_entropy_shapes.py"]
    command = [sys.executable, "-c", without, "-q", "-p", "no:cacheprovider", *files, "-k", "equals_pytorch or door"]
    done = subprocess.run(command, cwd=SWEPT.parents[2], capture_output=True, text=True)
    *_, said, counts = done.stdout.strip().splitlines()
    skipped = re.search(r"(\d+) skipped", counts)
    assert skipped is not None
    assert said == f"skipped without torch: {skipped[1]} tests or files of tests; pip install -e '.[torch]' brings it"
    assert " failed" not in counts
