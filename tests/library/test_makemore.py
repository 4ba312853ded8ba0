"""The lectures' example learns, prints its progress, and reports a bad file in one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest

from fastmlp import nn
from fastmlp.examples import makemore

SYLLABLES = ("ka", "ri", "no", "ma", "el", "is", "ta", "jo")


@pytest.fixture
def names(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    lines = ["".join(rng.choice(SYLLABLES, rng.integers(1, 4))) for _ in range(300)]
    file = tmp_path / "names.txt"
    file.write_text("\n".join(lines) + "\n\n")
    return file


def run(*arguments: Any) -> int:
    return makemore.main([str(argument) for argument in arguments])


def test_it_learns_names_and_draws(names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "new folder" / "diagnostics.png"
    assert run(names, "--steps", 400, "--samples", 5, "--out", picture) == 0
    lines = capsys.readouterr().out.splitlines()
    letters = set("".join(SYLLABLES))
    assert lines[0] == f"300 names, the longest of 6 letters; {len(letters) + 1} different letters, with the end"
    assert float(lines[2].split()[-1]) == pytest.approx(np.log(len(letters) + 1), rel=0.02)
    losses = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith(("train ", "dev ", "test "))}
    assert list(losses) == ["train", "dev", "test"]
    assert all(0.5 < loss < 1.6 for loss in losses.values()), losses  # of pure chance: 2.56
    samples = [line.strip() for line in lines if line.startswith("  ") and "/" not in line]
    assert len(samples) == 5
    assert all(set(name) <= letters and len(name) <= 6 for name in samples)
    assert lines[-1] == f"drawn: {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_promise_4_the_same_seed_gives_the_same_output(
    names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for seed in (1, 1, 2):
        assert run(names, "--steps", 30, "--seed", seed, "--out", tmp_path / "a.png") == 0
        printed.append((capsys.readouterr().out, (tmp_path / "a.png").read_bytes()))
    assert printed[0] == printed[1]
    assert printed[0] != printed[2]


def test_contexts_and_targets_are_the_lectures() -> None:
    X, Y = makemore.build_dataset(["ab", "c"], {".": 0, "a": 1, "b": 2, "c": 3})
    assert X.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [0, 0, 0], [0, 0, 3]]
    assert Y.tolist() == [1, 2, 0, 3, 0]


def test_the_first_loss_is_that_of_pure_chance_and_looking_inside_changes_nothing(names: Path) -> None:
    words = makemore.read_names(str(names))
    stoi = {letter: at for at, letter in enumerate([".", *sorted(set("".join(words)))])}
    X, Y = makemore.build_dataset(words, stoi)
    plain, watched = (makemore.make_model(len(stoi), np.random.default_rng(1)) for _ in range(2))
    criterion = nn.CrossEntropyLoss()
    loss = float(criterion(plain(X[:32]), Y[:32]))
    plain.backward(criterion.backward())
    seen = makemore.Diagnostics()
    assert seen.look_inside(watched, nn.CrossEntropyLoss(), X[:32], Y[:32]) == loss
    assert loss == pytest.approx(np.log(len(stoi)), rel=0.02)
    for one, other in zip(plain.gradients(), watched.gradients(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert list(seen.activations[0]) == [f"layer {number} (Tanh)" for number in (4, 7, 10, 13, 16)]
    for outputs, gradients in zip(seen.activations[0].values(), seen.gradients[0].values(), strict=True):
        assert 0.5 < outputs.std() < 0.8
        assert gradients.std() > 0


def test_the_ratio_is_that_of_the_update(names: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2, rng=1))
    model([[1.0, 2.0]])
    model.backward([[3.0, -1.0]])
    seen = makemore.Diagnostics()
    seen.measure(0, 1.5, 0.1, model)
    gradient, weight = model.gradients()[0], model[0].weight
    assert seen.ud == {"0.weight": [pytest.approx(np.log10(0.1 * gradient.std() / weight.std()))]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"emma\nolivia\n", "names.txt: expected at least 10 names, one a line; got 2"),
        (b"emma\nst. john\n" * 6, "names.txt: line 2: expected a name, got 'st. john': a dot marks where names end"),
        (b"emma\n\xff\xfe\xfa" * 20, "UTF-8"),
        (b"\x00\x01\x02" * 50, "NUL"),
    ],
    ids=["missing", "empty", "blank", "few", "dot", "encoding", "binary"],
)
def test_promise_11_a_bad_file_gets_one_line(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "names.txt"
    if content is not None:
        file.write_bytes(content)
    assert run(file, "--out", tmp_path / "a.png") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("python -m fastmlp.examples.makemore: ")
    assert message in printed.err
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--steps", "0"], 2, "--steps: expected a whole number of at least 1, got '0'"),
        (["--steps", "many"], 2, "--steps: expected a whole number of at least 1, got 'many'"),
        (["--stops", "5"], 2, "--stops: no such option; did you mean '--steps'?"),
        (["--out", "a.txt"], 2, "--out: expected a name that ends in .png, got 'a.txt'"),
        (["--out", "names.txt/a.png"], 1, "cannot write to the folder"),
    ],
)
def test_promise_14_bad_options_are_found_before_training(
    arguments: list[str],
    status: int,
    message: str,
    names: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(names.parent)
    assert run(names, *arguments) == status
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert message in printed.err


def test_other_alphabets_and_the_smallest_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_text("\n".join(["Ольга", "Йосип", "美咲", "Zoë", "Ib"] * 2), encoding="utf-8")
    assert run(tmp_path / "names.txt", "--steps", 1, "--out", tmp_path / "a.png") == 0
    assert "10 names" in capsys.readouterr().out


def test_it_runs_as_a_program_and_help_needs_no_numpy() -> None:
    code = "import sys; from fastmlp.examples.makemore import main; main(['--help']); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    done = subprocess.run(
        [sys.executable, "-m", "fastmlp.examples.makemore", "--help"], capture_output=True, text=True, check=True
    )
    assert "NAMES.txt" in done.stdout
    assert done.stderr == ""


def test_the_network_has_the_lectures_widths() -> None:
    shapes = [parameter.shape for parameter in makemore.make_model(27, np.random.default_rng(1)).parameters()]
    weights = [shape for shape in shapes if len(shape) == 2]
    assert weights == [(27, 10), (100, 3 * 10), *4 * [(100, 100)], (27, 100)]


def test_the_curves_are_densities_over_an_axis_that_begins_at_0() -> None:
    axes = matplotlib.figure.Figure().subplots()
    edges = np.linspace(-1, 1, 26)
    values = np.random.default_rng(1).uniform(-0.9, 0.9, 1_000)
    makemore._draw_histograms(axes, {"layer 4 (Tanh)": values}, edges, saturation=True)
    (line,) = axes.lines
    assert np.sum(line.get_ydata()) * (edges[1] - edges[0]) == pytest.approx(1)
    np.testing.assert_allclose(line.get_xdata(), (edges[1:] + edges[:-1]) / 2)
    assert axes.get_ylim()[0] == 0
    assert "saturated 0.0%" in line.get_label()
