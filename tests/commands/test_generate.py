"""fastmlp generate as its users see it."""

import io
import signal
from pathlib import Path
from typing import Any

import pytest

from fastmlp import generate
from fastmlp.language_model import LanguageModel
from fastmlp.prediction.generation import Continuation, draw, drawing_probabilities
from fastmlp.text import get_tokenizer
from fastmlp.text.wrapping import wrapped
from tests.commands.helpers import call
from tests.runs import process

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.usefixtures("on_numpy")
def test_generate_goes_on_with_the_prompt(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write(run: Path, seed: int) -> tuple[int, str, str]:
        likely = ["--words", 12, "--temperature", 0.5]
        return call(capsys, "generate", run, "Anna paints a", "-n", 3, *likely, "--seed", seed)

    status, out, err = write(trained, 1)
    assert (status, err) == (0, "")
    texts = out.splitlines()
    assert len(texts) == 3
    assert all(text.startswith("anna paints a red door in ") for text in texts)
    assert all(len(text.replace(".", " .").split()) == 15 for text in texts)
    assert write(trained, 1)[1] == out
    assert write(trained / "model.safetensors", 1)[1] == out
    assert write(trained, 2)[1] != out


@pytest.mark.usefixtures("on_numpy")
def test_generate_reports_unknown_words_once(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "generate", trained, "xyzzy paint xyzzy", "-n", 2, "--temperature", 0)
    assert status == 0
    assert err == "note: not in the vocabulary, read as <unk>: 'xyzzy', 'paint' (close: paints)\n"
    assert out.splitlines()[0] == out.splitlines()[1]
    assert out.startswith("xyzzy paint xyzzy ")
    assert "<unk>" not in out


@pytest.mark.usefixtures("on_numpy")
def test_generate_without_a_prompt_begins_a_text(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "generate", trained, "-n", 1, "--temperature", 0)
    assert (status, err) == (0, "")
    assert len(out.replace(".", " .").split()) == 30
    assert call(capsys, "generate", trained, ". .", "-n", 1, "--temperature", 0)[1] == f".. {out}"


@pytest.mark.usefixtures("on_numpy")
def test_generate_reads_its_prompt_from_standard_input(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = call(capsys, "generate", trained, "Anna paints a", "-n", 1, "--seed", 1)
    for given, what in ((b"Anna\r\npaints a\n", expected), (b"", 2), (b"Anna \xff", 2)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        status, out, err = call(capsys, "generate", trained, "-", "-n", 1, "--seed", 1)
        if what == 2:
            assert (status, out, err.count("\n")) == (2, "", 1)
            assert "standard input: " in err
        else:
            assert (status, out, err) == what


@pytest.mark.usefixtures("on_numpy")
def test_generate_writes_each_word_as_it_comes(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a word is drawn, the prompt and every word before it have been printed."""
    reader = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(reader))
    seen: list[list[str]] = []

    def words_read() -> list[str]:
        return reader.getvalue().decode().replace(".", " .").split()

    def watched(*arguments: Any, **options: Any) -> int:
        seen.append(words_read())
        return draw(*arguments, **options)

    monkeypatch.setattr("fastmlp.prediction.generation.draw", watched)
    assert generate.main([str(trained), "anna paints", "-n", "1", "--words", "9", "--seed", "1"]) == 0
    assert seen == [words_read()[:count] for count in range(2, 11)]


def test_generate_ends_quietly_when_its_reader_does_and_with_a_whole_line_on_ctrl_c(trained: Path) -> None:
    endless = ["-m", "fastmlp.generate", trained, "anna paints", "--words", 10**9, "--seed", 1]
    with process(*endless) as child:
        assert child.stdout is not None
        assert child.stdout.read(20).startswith("anna paints")
        child.stdout.close()
        assert child.stderr is not None
        assert (child.stderr.read(), child.wait()) == ("", 0)
    with process(*endless) as child:
        assert child.stdout is not None
        child.stdout.read(20)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    assert (child.returncode, err, out[-1]) == (130, "", "\n")


@pytest.mark.usefixtures("on_numpy")
def test_generate_breaks_lines_on_a_terminal_only(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["generate", trained, "anna paints", "-n", 2, "--words", 60, "--seed", 1]
    plain = call(capsys, *arguments)[1].splitlines()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for columns, width in ((40, 40), (1_000, 100)):
        monkeypatch.setenv("COLUMNS", str(columns))
        out = call(capsys, *arguments)[1]
        assert [text.strip().replace("\n", " ") for text in out.split("\n\n")] == plain
        assert width - 12 < max(map(len, out.splitlines())) <= width


def test_texts_of_several_lines_are_told_apart() -> None:
    words, lines = get_tokenizer("words"), get_tokenizer("whitespace")
    assert [generate.separator(words, width) for width in (None, 80)] == ["", "\n"]
    assert [generate.separator(lines, width) for width in (None, 80)] == ["\n* * *\n\n"] * 2


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([], []),
        (["one", " two", " three"], ["one two", "three"]),
        (["seven", " w", "."], ["seven", "w."]),  # a full stop is not broken off
        (["seven", " w"], ["seven w"]),
        (["unbreakable", " word"], ["unbreakable", "word"]),
        (["a", " bc", "\n\n", "d", " e\nf", " "], ["a bc", "", "d e", "f"]),
        (["한국어", " 책"], ["한국어", "책"]),  # two columns each
        (["我", "们", "读", "书", "."], ["我们读", "书."]),
        (["我们读“", "书", "”"], ["我们读", "“书”"]),  # what opens is not broken off either
        (["שָׁלוֹם", " עֹלָם"], ["שָׁלוֹם", "עֹלָם"]),  # points take none
        (["שָׁלוֹם", " עֹ"], ["שָׁלוֹם עֹ"]),
    ],
)
def test_a_text_is_broken_into_lines_as_it_comes(pieces: list[str], lines: list[str]) -> None:
    assert "".join(wrapped(pieces, 7)) == "\n".join(lines)


def test_a_text_does_not_end_with_the_empty_lines_of_a_next_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    generate.show(["So", ".", "\n\n", "“", "No", "”", "\n\n"])
    assert capsys.readouterr().out == "So.\n\n“No”\n"


@pytest.mark.usefixtures("on_numpy")
def test_generate_shows_the_probabilities_it_draws_with(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["anna paints", "-n", 2, "--words", 4, "--seed", 1, "--temperature", 0.5, "--top-k", 3]
    texts = call(capsys, "generate", trained, *options)[1].splitlines()
    status, out, err = call(capsys, "generate", trained, *options, "--show-probabilities")
    assert (status, err) == (0, "")
    model = LanguageModel.load(trained, backend="numpy")
    for text, shown in zip(texts, out.split("\n\n"), strict=True):
        prompt, *lines = shown.splitlines()
        assert prompt == "anna paints"
        words = prompt.split()
        for line in lines:
            word, probability, _, *others = line.replace(",", "").split()
            logits = Continuation(model._parts(), words).logits()
            want = drawing_probabilities(logits, temperature=0.5, top_k=3)
            likely = {model.vocabulary.words[i]: p for i, p in enumerate(want) if p > 0}
            assert float(probability) == pytest.approx(100 * likely.pop(word), abs=0.06)
            instead = dict(zip(others[::3], map(float, others[1::3]), strict=True))
            assert instead == pytest.approx({w: 100 * p for w, p in likely.items()}, abs=0.06)
            assert list(instead.values()) == sorted(instead.values(), reverse=True)
            words.append(word)
        assert model.tokenizer.join(words) == text
