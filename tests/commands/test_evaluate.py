"""fastmlp evaluate as its users see it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fastmlp.ops import get_ops
from fastmlp.ops.backend import Backend
from tests.commands.helpers import SMALL, call
from tests.runs import learnable_text, write_text

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.usefixtures("on_numpy")
def test_evaluate_prints_figures_for_people_and_programs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_text(trained.parent)
    status, out, err = call(capsys, "evaluate", trained, file)
    assert (status, err) == (0, "")
    facts = json.loads(call(capsys, "evaluate", trained, file, "--json")[1])
    assert facts.keys() == {"loss", "perplexity", "words", "unknown_words"}
    assert facts["loss"] < 0.8
    assert facts["words"] == len(learnable_text().replace(".", " .").split())
    assert out.splitlines() == [
        f"loss        {facts['loss']:.4f}",
        f"perplexity  {facts['perplexity']:.2f}",
        f"words       {facts['words']:,}; all in the vocabulary",
    ]


@pytest.mark.usefixtures("on_numpy")
def test_evaluate_gives_unknown_words_a_figure_only_where_unk_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_text(tmp_path)
    assert call(capsys, "train", file, *SMALL, "--min-count", 125, "--out", "run", "--quiet")[0] == 0
    facts = json.loads(call(capsys, "evaluate", "run", file, "--json")[1])
    assert facts["unknown_words"] > 0
    assert facts["loss_with_unknown"] != facts["loss"]
    lines = call(capsys, "evaluate", "run", file)[1].splitlines()
    assert lines[2].endswith(f"; {facts['unknown_words']:,} outside the vocabulary, left out above")
    assert lines[3].startswith(f"with them   loss {facts['loss_with_unknown']:.4f}, perplexity ")


@pytest.mark.parametrize(("command", "argument"), [("generate", "anna"), ("evaluate", "{text}")])
def test_compiling_is_seen_before_it_is_waited_for(
    command: str, argument: str, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    ops = get_ops("numpy")

    def forward(*arguments: Any, **options: Any) -> None:
        said.append("forward")
        ops.embedding_forward(*arguments, **options)

    compiling = Backend(dataclasses.replace(ops, embedding_forward=forward), None, lambda: None)
    monkeypatch.setattr("fastmlp.ops.backend.choose_backend", lambda: compiling)
    monkeypatch.setattr("fastmlp.cli.say", said.append)
    status, out, _ = call(capsys, command, trained, argument.format(text=write_text(trained.parent)))
    assert (status, bool(out)) == (0, True)
    assert said[0] == "note: compiling the numpy kernels, which takes a while the first time ..."
    assert said[1] == "forward"
    assert said[2].startswith("note: compiled in ")
    assert said.count("forward") > 2
