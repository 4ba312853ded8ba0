"""fastmlp export as its users see it; what the exported page computes is tested in tests/web/test_exported.py."""

from pathlib import Path

import numpy as np
import pytest

from fastmlp import export
from fastmlp.language_model import LanguageModel
from fastmlp.prediction.kneser_ney import KneserNey
from fastmlp.trainer import train
from tests.commands.helpers import call
from tests.runs import small_config, write_text

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with counts."""
    folder = tmp_path_factory.mktemp("counted")
    train(small_config(write_text(folder), folder / "run", counts=True, steps=60))
    return folder / "run"


def test_the_words_vectors_come_back(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "export", trained, "words.txt", "--to", "vec")
    assert (status, err) == (0, "")
    assert out.startswith("words.txt: 0.0 MB")
    head, *lines = Path("words.txt").read_text(encoding="utf-8").splitlines()
    model = LanguageModel.load(trained, backend="numpy")
    weight = model.network.parameters["output.weight"][:-1]
    assert head == f"{len(weight)} {weight.shape[1]}"
    assert [line.split()[0] for line in lines] == list(model.vocabulary.words[:-1])
    found = np.array([line.split()[1:] for line in lines], np.float32)
    np.testing.assert_allclose(found, weight, rtol=1e-5)


def test_the_counts_come_back(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "export", counted, "story.arpa")[0] == 0
    text = "anna paints a red door. boris sells bread."
    want = LanguageModel.load(counted, backend="numpy").perplexity(text, mixture="counts")
    assert KneserNey.from_arpa("story.arpa", tokenizer="words").perplexity(text) == pytest.approx(want, rel=1e-4)


def test_a_page_names_its_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "export", trained, "page.html")[0] == 0
    assert "<title>run</title>" in Path("page.html").read_text(encoding="utf-8")


def test_nothing_is_overwritten_unasked(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = Path("mine.html")
    mine.write_text("mine", encoding="utf-8")
    status, out, err = call(capsys, "export", trained, mine)
    assert (status, out) == (2, "")
    assert "FILE: mine.html exists; name another one or add --overwrite" in err
    assert mine.read_text(encoding="utf-8") == "mine"
    assert call(capsys, "export", trained, mine, "--overwrite")[0] == 0
    assert "<title>run</title>" in mine.read_text(encoding="utf-8")


def test_what_cannot_be_written_is_said_in_one_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status, why in (
        (("page.pdf",), 2, "FILE: expected an ending of .html, .onnx, .vec, .arpa, got page.pdf"),
        (("page",), 2, "FILE: expected an ending"),
        (("page.htm",), 2, "did you mean '.html'?"),
        (("page.html", "--to", "pdf"), 2, "--to: expected one of"),
        (("story.arpa",), 2, "this run has no counts to write"),
        (("missing/page.html",), 1, "cannot write missing/page.html"),
        (("page.html", "--size", "large"), 2, "--size: expected a size such as 8MB"),
        (("page.html", "--size", "8MB"), 2, "this run has no counts"),
        (("words.vec", "--size", "8MB"), 2, "--size: a page may take counts, and words.vec is none"),
    ):
        found, out, err = call(capsys, "export", trained, *arguments)
        assert (found, out, err.count("\n")) == (status, "", 1)
        assert why in err
    assert not [path for path in Path.cwd().iterdir() if path.suffix in (".html", ".arpa")]


@pytest.mark.parametrize(
    ("written", "size"), [("8MB", 8_000_000), ("1.5 mb", 1_500_000), ("70000", 70_000), ("90kB", 90_000), ("7B", 7)]
)
def test_sizes(written: str, size: int) -> None:
    assert export.file_size(written) == size


def test_a_page_of_a_size_has_counts(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "export", counted, "page.html", "--size", "90KB")[0] == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert '"counts": {' in page
    assert len(page.encode()) < 90_000
    assert call(capsys, "export", counted, "small.html", "--size", "20KB")[2].endswith("MB; ask for more\n")


def test_the_network_as_onnx(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "export", trained, "net.onnx")[0] == 0
    assert b"vocabulary" in Path("net.onnx").read_bytes()  # what it computes is tested in test_onnx.py
