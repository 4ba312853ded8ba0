"""fastmlp neighbors as its users see it."""

from pathlib import Path

import pytest

from fastmlp import LanguageModel
from fastmlp.trainer import train
from tests.commands.helpers import call
from tests.runs import window_config

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_neighbors_are_words_of_the_vocabulary_by_cosine(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "neighbors", trained, "Red", "-n", 38)
    assert (status, err) == (0, "")
    cosines, words = zip(*(line.split() for line in out.splitlines()), strict=True)
    assert list(map(float, cosines)) == sorted(map(float, cosines), reverse=True)
    assert all(-1 <= float(cosine) <= 1 for cosine in cosines)
    assert len(set(words)) == 38
    assert not {"red", "<unk>"} & set(words)


def test_neighbors_follow_the_same_words(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each sentence begins with one of five names."""
    status, out, _ = call(capsys, "neighbors", trained, "Anna", "-n", 4)
    assert status == 0
    assert {line.split()[1] for line in out.splitlines()} == {"boris", "clara", "david", "elena"}


def test_each_of_several_words_has_its_list(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = []
    for word in ("anna", "red"):
        status, out, _ = call(capsys, "neighbors", trained, word, "-n", 3)
        assert status == 0
        lists.append(f"{word}\n{out}")
    assert call(capsys, "neighbors", trained, "anna", "red", "-n", 3) == (0, "\n".join(lists), "")


def test_how_often_a_word_came_is_told_where_words_were_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "story.txt"
    text.write_text("boris sells seven carrots. " + "anna paints a red door. " * 300, encoding="utf-8")
    config = window_config(text, tmp_path / "run", steps=4)
    train(config)
    for run in (tmp_path / "run", tmp_path / "model.safetensors"):
        status, out, _ = call(capsys, "neighbors", run, "Anna", "carrots", "-n", 1)
        lines = out.splitlines()
        assert status == 0
        assert lines[0] == "Anna: 285 times to learn from"  # the rest is held out
        assert lines[2:4] == ["", "carrots: 1 time to learn from, too rare for its neighbors to mean much"]
        LanguageModel.load(tmp_path / "run").save(tmp_path / "model.safetensors")
