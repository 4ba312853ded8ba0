"""The architecture: modules import only from lower rooms, no import cycles, no file that is too long."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastmlp"
LONGEST = 600  # lines; a longer file says in its first lines why it is "long because"
# Bottom up: a room, a folder or a file of fastmlp/, imports from rooms before it and from itself.
ROOMS = [
    *("errors", "options", "threads", "arrays", "events", "launcher", "distributed"),
    *("text", "ops", "functional", "config", "nn", "data", "files"),
    *("optim", "network", "pictures", "prediction", "training", "trainer", "cli", "ranks"),
    *("web", "language_model", "console", "torch", "train", "generate", "evaluate", "neighbors", "map"),
    *("play", "export", "runs", "info", "examples", "__main__"),
]
# The package's own file is left out: its lazy names are for type checkers, and its __version__ is for everybody.
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py" and "_kernels" not in path.parts
}


def imported(path: Path) -> Iterator[str]:
    """The modules of fastmlp that a file imports, wherever in it: also in functions and for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else node.module for name in names]
        else:
            assert not isinstance(node, ast.ImportFrom), f"{path}: imports by their whole name, please"
            continue
        yield from (name for name in names if name in FILES)


GRAPH = {name: set(imported(path)) - {name} for name, path in FILES.items()}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_place():
    assert {room(module) for module in FILES} == set(ROOMS)


def test_no_circle():
    list(TopologicalSorter(GRAPH).static_order())  # raises CycleError, which names it


def test_a_circle_would_be_found():
    with pytest.raises(ValueError, match="nodes are in a cycle"):
        list(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module):
    height = ROOMS.index(room(module))
    assert [other for other in GRAPH[module] if ROOMS.index(room(other)) > height] == []


def test_imports_in_functions_are_seen():
    assert "fastmlp.prediction.mixture" in GRAPH["fastmlp.cli"]


@pytest.mark.parametrize("folder", ["fastmlp", "benchmarks", "tests"])
def test_no_file_is_too_long(folder):
    long = [
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*.py")
        if len(lines := path.read_text(encoding="utf-8").splitlines()) > LONGEST
        and not any("long because" in line.lower() for line in lines[:10])
    ]
    assert long == []
