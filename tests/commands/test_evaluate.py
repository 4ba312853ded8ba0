"""fastmlp evaluate as its users see it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.language_model import LanguageModel
from fastmlp.ops import get_ops
from fastmlp.ops.backend import Backend
from fastmlp.prediction import sentences
from fastmlp.prediction.sentences import surprising_sentences
from fastmlp.text.words import get_tokenizer
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


@pytest.mark.usefixtures("on_numpy")
def test_evaluate_shows_the_sentences_that_surprised_most(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {
        "plain.txt": "anna paints a red door in the old town. boris sells warm bread near the north gate.",
        "odd.txt": "clara hides nine coins under her bed. anna hens under letters gate zebra. no.",
    }
    for name, text in texts.items():
        Path(name).write_text(text, encoding="utf-8")
    status, out, err = call(capsys, "evaluate", trained, *texts, "--words", "-n", 2)
    assert (status, err) == (0, "")
    figures, shown = out.split("\n\n")
    assert figures.splitlines()[-1] == call(capsys, "evaluate", trained, *texts)[1].splitlines()[-1]
    heading, place, odd, *others = shown.splitlines()
    assert "bits a word" in heading
    assert place.endswith("odd.txt, word 9")
    assert "zebra (?)" in odd
    assert len(others) == 2
    told = json.loads(call(capsys, "evaluate", trained, *texts, "--words", "--json")[1])
    found = told["sentences"]
    assert len(found) == 4  # "no." is too short to mean anything
    assert [one["bits"] for one in found] == sorted((one["bits"] for one in found), reverse=True)
    assert (found[0]["file"], found[0]["word"]) == ("odd.txt", 9)
    assert [word for word, _ in found[0]["words"]] == ["anna", "hens", "under", "letters", "gate", "zebra", "."]
    known = [bits for _, bits in found[0]["words"] if bits is not None]
    assert found[0]["bits"] == pytest.approx(sum(known) / len(known), abs=0.01)
    assert len(known) == 6
    of_all = [bits for one in found for _, bits in one["words"] if bits is not None]
    assert len(of_all) == told["words"] - told["unknown_words"] - 1  # all but the stop of "no.", once


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a b. c. d e", ["a b .", "c .", "d e"]),
        ("one two", ["one two"]),
        ("", []),
    ],
)
def test_where_sentences_end(text: str, want: list[str]) -> None:
    tokenizer = get_tokenizer("words")
    words = tokenizer.split(text)
    losses = np.arange(len(words), 0, -1.0)
    found = surprising_sentences(words, losses, np.zeros(len(words), bool), tokenizer)
    assert [" ".join(one.words) for one in found] == want


def test_quotation_marks_that_close_belong_to_their_sentence_and_documents_end_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sentences, "FEWEST", 1)
    tokenizer = get_tokenizer("prose")
    words = tokenizer.split("“You go.” “Why?” she said\n\nHe (or I) ran!")
    losses = np.arange(len(words), 0, -1.0)
    found = surprising_sentences(words, losses, np.zeros(len(words), bool), tokenizer, [words.index("I")])
    assert [" ".join(one.words) for one in found] == [
        *("“ you go . ”", "“ why ? ”", "she said <p>"),
        *("he ( or", "I ) ran !"),
    ]


def test_sentences_with_few_known_words_are_left_out_unless_there_are_no_others() -> None:
    tokenizer = get_tokenizer("words")
    words = tokenizer.split("a. one two three four. five six seven eight")
    unknown = np.isin(words, ["five"])
    losses = np.where(np.isin(words, ["a"]), 9.0, 1.0)
    found = surprising_sentences(words, losses, unknown, tokenizer)
    assert [" ".join(one.words) for one in found] == ["one two three four ."]
    assert [one.begin for one in surprising_sentences(words[:2], losses[:2], unknown[:2], tokenizer)] == [0]
