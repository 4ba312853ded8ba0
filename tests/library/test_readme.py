"""The READMEs: their code runs as it stands there, and their links lead somewhere."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import pytest

from tests.runs import learnable_text

ROOT = Path(__file__).parents[2]
READMES = ["README.md", *(f"{folder}/README.md" for folder in ("fastmlp", "kernels", "benchmarks", "tests"))]
DOCUMENTS = [*READMES, "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
PROMPTS = "he did not know what to say. harry potter and the red door. "  # of the examples: no word is unknown


class Section(NamedTuple):
    """The Python code below a heading, which is one program."""

    file: str
    heading: str
    code: str  # on the lines where it stands in the file, for tracebacks


def sections(file: str) -> list[Section]:
    found: dict[str, list[str]] = {}
    heading, inside = "", False
    for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines()):
        if line.startswith("```"):
            inside = line == "```python"
        elif inside:
            code = found.setdefault(heading, [])
            code += [""] * (number - len(code)) + [line]
        elif line.startswith("## "):
            heading = line.removeprefix("## ")
    return [Section(file, heading, "\n".join(code)) for heading, code in found.items()]


SECTIONS = [section for file in READMES for section in sections(file)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: f"{section.file}: {section.heading}")
def test_the_code_runs(section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a text of 7,000 words in place of the novels."""
    if "torch" in section.code:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    for name in ("hp.txt", "other.txt"):
        Path(name).write_text(learnable_text() + PROMPTS * 100, encoding="utf-8")
    exec(compile(section.code, section.file, "exec"), {})
    if "hp.html" in section.code:  # a command returns its failure
        assert Path("hp.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_code_is_found() -> None:
    """Indented code is shown too, but it would not run."""
    assert [section.heading for section in SECTIONS if section.file == "fastmlp/README.md"][:2] == [
        "From a novel to a page in six steps",
        "A language model",
    ]
    for file in READMES:
        assert not re.search(r"^    (import|from) ", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), file


def anchors(file: Path) -> set[str]:
    """The headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", DOCUMENTS)
def test_links_lead_somewhere(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        place = (ROOT / file).parent / path if path else ROOT / file
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


@pytest.fixture
def long_description(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of setup.py, which is read without what it needs to build."""
    for module in ("Cython", "Cython.Build", "setuptools"):
        monkeypatch.setitem(sys.modules, module, MagicMock(name=module))
    return runpy.run_path(str(ROOT / "setup.py"))["long_description"]


def test_a_package_index_shows_links_and_pictures_where_there_is_a_url(long_description: Any) -> None:
    text = "See [how](tests/README.md#how) and [it](https://example.org/a).\n![map](figures/a.png)"
    at = "https://github.com/some/one"
    assert long_description(text, f"{at}/") == (
        f"See [how]({at}/blob/HEAD/tests/README.md#how) and [it](https://example.org/a).\n"
        f"![map]({at}/raw/HEAD/figures/a.png)"
    )
    assert long_description(text, None) == "See how and [it](https://example.org/a).\n*(picture: map)*"


def test_a_package_index_gets_no_dead_link(long_description: Any) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = long_description(readme, None)
    relative = re.compile(r"\]\((?!https?:)")
    assert relative.search(readme)
    assert not relative.search(shown)
    assert "](#" not in readme
    assert "```python\nfrom pathlib import Path" in shown


def test_the_first_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
