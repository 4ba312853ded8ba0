"""fastmlp neighbors as its users see it."""

from pathlib import Path

import pytest

from tests.commands.helpers import call

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
