"""What a run leaves out of the sweeps is in another form of it."""

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
