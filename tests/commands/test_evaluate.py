"""fastmlp evaluate as its users see it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fastmlp.language_model import LanguageModel
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
    assert facts.keys() == {"loss", "perplexity", "words", "unknown_words", "words_per_second", "predictors"}
    assert facts["predictors"] == {"network": {name: facts[name] for name in facts if name != "predictors"}}
    assert facts["loss"] < 0.8
    assert facts["words"] == len(learnable_text().replace(".", " .").split())
    heading, figures, words = out.splitlines()
    assert heading.split() == ["loss", "perplexity", "words/s"]
    assert figures.split()[:3] == ["network", f"{facts['loss']:.4f}", f"{facts['perplexity']:.2f}"]
    assert words == f"words    {facts['words']:,}; all in the vocabulary"


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
    assert lines[3].startswith(f"with them  loss {facts['loss_with_unknown']:.4f}, perplexity ")


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


WITH_COUNTS = [*SMALL, "--hidden", 12, "--counts", "yes"]


@pytest.mark.usefixtures("on_numpy")
def test_each_predictor_and_their_mixtures_have_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, other = write_text(tmp_path), tmp_path / "other.txt"
    other.write_text("anna paints a red door in the old town. boris hides six hens.\n", encoding="utf-8")
    assert call(capsys, "train", file, *WITH_COUNTS, "--out", "run", "--quiet")[0] == 0
    names = ["network", "counts", "network + counts", "network + counts + cache"]
    status, out, err = call(capsys, "evaluate", "run", file, other)
    assert (status, err) == (0, "")
    _, *lines, _, cache = out.splitlines()
    assert [line[: len("network + counts + cache")].strip() for line in lines] == names
    assert cache == "with the cache the model adapts to the text as it reads it, from the beginning of each file on"
    facts = json.loads(call(capsys, "evaluate", "run", file, other, "--json")[1])
    assert [*facts["predictors"]] == names
    assert facts["perplexity"] == facts["predictors"][names[-1]]["perplexity"]
    assert facts["predictors"]["counts"]["perplexity"] == pytest.approx(counts_alone("run", file, other))
    for chosen, shown in (("network", names[:1]), ("counts", names[1:2]), ("counts,network", names[:3])):
        facts = json.loads(call(capsys, "evaluate", "run", file, "--only", chosen, "--json")[1])
        assert [*facts["predictors"]] == shown
    by_hand = json.loads(call(capsys, "evaluate", "run", other, "--weights", "0,1,0", "--json")[1])
    assert by_hand["perplexity"] == pytest.approx(by_hand["predictors"]["counts"]["perplexity"], rel=1e-6)


def counts_alone(run: str, *files: Path) -> float:
    counts = LanguageModel.load(run, backend="numpy")._whole().counts
    assert counts is not None
    return counts.perplexity(list(files))


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("command", ["evaluate", "generate"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--only", "cash", "--only: expected network, counts, cache, got 'cash'; did you mean 'cache'?"),
        ("--only", "counts", "--only: {run} has no counts, only network"),
        ("--weights", "1,2", "--weights: expected 1 numbers, not all 0, for network, got 1,2"),
        ("--weights", "-1", "--weights: expected numbers of at least 0 separated by commas"),
    ],
)
def test_what_the_model_has_not_is_refused(
    command: str, option: str, value: str, message: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argument = write_text(trained.parent) if command == "evaluate" else "anna"
    status, out, err = call(capsys, command, trained, argument, f"{option}={value}")
    assert (status, out) == (2, "")
    assert message.format(run=trained) in err
    assert len(err.splitlines()) == 1


@pytest.mark.usefixtures("on_numpy")
def test_a_text_is_drawn_from_what_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "train", write_text(tmp_path), *WITH_COUNTS, "--out", "run", "--quiet")[0] == 0
    options = ["anna", "-n", 1, "--words", 8, "--temperature", 0]
    written = {only: call(capsys, "generate", "run", *options, "--only", only)[1] for only in ("network", "counts")}
    assert written["counts"] == "anna paints a red door in the old town\n"
    assert written["network"] != written["counts"]  # it has hardly learned
    assert call(capsys, "generate", "run", *options, "--weights", "0,1")[1] == written["counts"]


@pytest.mark.usefixtures("on_numpy")
def test_a_damaged_mixture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "train", write_text(tmp_path), *WITH_COUNTS, "--out", "run", "--quiet")[0] == 0
    file = Path("run/mixture.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    status, out, err = call(capsys, "generate", "run", "anna")
    assert (status, out) == (2, "")
    assert "mixture.safetensors" in err
