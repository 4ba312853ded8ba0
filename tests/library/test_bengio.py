"""The example that trains the trainer's network with the library: it learns, and a bad file gets one line."""

from pathlib import Path

import pytest

from fastmlp.examples import bengio
from tests.runs import learnable_text, unigram_entropy, write_text


def test_it_learns_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bengio.main([str(write_text(tmp_path)), "--steps", "120"]) == 0
    first, _, last, text = capsys.readouterr().out.splitlines()
    words = learnable_text().replace(".", " .").split()
    assert first.startswith("step 1/120  loss 3.")  # ln 42
    assert float(last.split()[-1]) < unigram_entropy(words) / 3
    written = text.replace(".", " .").split()
    assert len(written) == 4 + 30
    assert set(written) <= set(words)


def test_a_file_that_is_not_there_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bengio.main([str(tmp_path / "none.txt")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "none.txt" in err
