"""The notebook of the examples: it runs on a text of the user's, and has the cells of its program."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.runs import ROOT, write_text

PROGRAM, NOTEBOOK = (ROOT / "fastmlp" / "examples" / f"novel.{ending}" for ending in ("py", "ipynb"))


def test_it_learns_to_spell_and_to_write(tmp_path: Path) -> None:
    """With another text and fewer steps, which the first cell sets."""
    source = PROGRAM.read_text(encoding="utf-8")
    for setting, value in (('NOVEL = ""', f"NOVEL = {str(write_text(tmp_path))!r}"), ("STEPS = 10_000", "STEPS = 400")):
        assert source.count(f"{setting}  #") == 1
        source = source.replace(setting, value)
    (tmp_path / "novel.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-W", "error::RuntimeWarning", "novel.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert re.search(r"^\d+ words, such as ", printed)
    plain, normalized = (int(found) for found in re.findall(r"(\d+)% saturated", printed))
    assert plain > 50 > 10 > normalized
    losses = [float(found) for found in re.findall(r"loss (\S+) in training", printed)]
    assert len(losses) == 2
    assert max(losses) < 1.2  # of pure chance: 3.3
    perplexities = [float(found) for found in re.findall(r"perplexity +(\d+\.\d) on the last", printed)]
    assert len(perplexities) == 3
    assert max(perplexities) < 3  # of 42 words


def cells_of_program() -> list[tuple[str, str]]:
    """The kind and the source of each cell, as jupytext reads them."""
    cells = []
    for cell in re.split(r"^# %%", PROGRAM.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        mark, _, source = cell.partition("\n")
        kind = "markdown" if mark == " [markdown]" else "code"
        cells.append((kind, source.strip().removeprefix('"""').removesuffix('"""').strip()))
    return cells


def test_the_notebook_has_the_cells_of_the_program() -> None:
    """jupytext makes the one of the other; CONTRIBUTING.md has the command."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]] == cells_of_program()


def test_the_notebook_shows_what_came_out() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", ()) for output in outputs) == 2
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}  # no error, no warning
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
