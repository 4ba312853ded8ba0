"""How much of the sweeps runs, in tests and benchmarks alike; tests/README.md says which sweeps there are."""

import re
from collections import Counter
from zlib import crc32

import pytest

THIRDS = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="run every sweep whole, not a part that stands for it")
    parser.addoption(
        "--thorough-third",
        type=int,
        choices=range(THIRDS),
        metavar="K",
        help="of what --thorough adds, run the third number K: 0, 1 or 2",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "thorough: runs with --thorough, or with its third, only")
    config.addinivalue_line(
        "markers", "sweep(every): of each back-end's cases every so manyth stands for all; the others are thorough"
    )


def pytest_report_header(config: pytest.Config) -> str:
    if config.getoption("thorough"):
        return "sweeps: whole"
    third = config.getoption("thorough_third")
    if third is None:
        return "sweeps: a part that stands for each; --thorough runs them whole"
    return f"sweeps: a part that stands for each, and of the rest third {third} (of 0, 1, 2); --thorough: whole"


@pytest.fixture
def as_thorough(pytestconfig: pytest.Config) -> list[str]:
    """The options of a pytest that is started by a test, to run as much of the sweeps as this one."""
    if pytestconfig.getoption("thorough"):
        return ["--thorough"]
    third = pytestconfig.getoption("thorough_third")
    return [] if third is None else [f"--thorough-third={third}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("thorough"):
        return
    third, seen = config.getoption("thorough_third"), Counter[tuple[object, ...]]()
    chosen, left_out = [], []
    for item in items:
        always = is_always_run(item, seen)
        (chosen if always or third == crc32(item.nodeid.encode()) % THIRDS else left_out).append(item)
    items[:] = chosen
    if left_out:
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end which packages, and which back-ends, tests were skipped without."""
    reason = r"could not import '(?:fastmlp\.)?([\w.]+)'|the (\w+ back-end) is not available"
    found = Counter[str]()
    for report in terminalreporter.stats.get("skipped", []):
        if missing := re.search(reason, str(report.longrepr)):
            found[missing[1] or missing[2]] += 1
    for name, count in found.items():
        hint = "; pip install -e '.[torch]' brings it" if name == "torch" else ""
        terminalreporter.write_line(f"skipped without {name}: {count} tests or files of tests{hint}", yellow=True)


def is_always_run(item: pytest.Item, seen: Counter[tuple[object, ...]]) -> bool:
    """Whether an item is no part of a sweep, or one that stands for it; `seen` counts each back-end's cases."""
    if item.get_closest_marker("thorough"):
        return False
    sweep = item.get_closest_marker("sweep")
    if sweep is None:
        return True
    assert isinstance(item, pytest.Function)
    cases = item.path, item.originalname, item.callspec.params.get("ops")
    seen[cases] += 1
    return (seen[cases] - 1) % sweep.kwargs["every"] == 0
