"""Bad usage and failures are reported in one line, with an exit status."""

import os
import re
import sys
from pathlib import Path

import pytest

from fastmlp.ops import get_ops
from fastmlp.ops.backend import Backend
from tests.commands.helpers import SMALL, call
from tests.runs import process, write_text

pytestmark = pytest.mark.usefixtures("elsewhere")

BAD: list[tuple[str, list[str], int, str]] = [
    ("train", ["--stepz", "5"], 2, "--stepz: no such option; did you mean '--steps'?"),
    ("train", ["--batchsize=5"], 2, "--batchsize: no such option; did you mean '--batch-size'?"),
    ("train", ["--step", "5"], 2, "--step: no such option; did you mean '--steps'?"),
    ("train", ["--steps"], 2, "--steps: expected a value after it (see --help)"),
    ("train", ["--quiet=1"], 2, "--quiet: takes no value (see --help)"),
    ("train", ["--top-k", "5"], 2, "--top-k: an option of generate, not of this command"),
    ("train", ["-n", "5"], 2, "-n: an option of generate, evaluate, neighbors, map, not of this command"),
    ("train", ["{text}", "--steps", "0"], 2, "--steps: expected a whole number of at least 1, got '0'"),
    ("train", ["{text}", "--lr", "-1"], 2, "--lr: expected a number above 0, got '-1'"),
    ("train", ["{text}", "--batch-size", "1"], 2, "--batch-size: expected a whole number of at least 2, got '1'"),
    ("train", ["{text}", "--hidden", "300,x"], 2, "--hidden: expected a width, or the original's widths"),
    (
        "train",
        ["{text}", "--optimizer", "adam"],
        2,
        "--optimizer: expected one of adamw, sgd, momentum, adagrad, got 'adam'",
    ),
    ("train", ["{text}", "--steps", "5", "--epochs", "1"], 2, "--epochs: give either this or --steps"),
    ("train", ["{text}", "--backend", "gpu"], 2, "--backend: expected one of auto, cython, numba, numpy, got 'gpu'"),
    ("train", ["{text}", "--precision", "fp8"], 2, "--precision: expected one of auto, ieee, bf16x3, bf16, got 'fp8'"),
    (
        "train",
        ["{text}", "--backend", "numba", "--precision", "bf16"],
        2,
        "--precision: expected auto or ieee, which numba has, got 'bf16'",
    ),
    ("train", ["{text}", "--prompt", "!!!"], 2, "--prompt: expected a text with words in it, got '!!!'"),
    ("train", ["{text}", "--preset", "orig"], 2, "--preset: expected one of small, large, original, got 'orig'"),
    ("train", ["{text}", "--config", "none.toml"], 2, "--config: none.toml cannot be read: No such file or directory"),
    ("train", ["{text}", "--config", "{bad_toml}"], 2, "is not a TOML file"),
    ("train", ["{text}", "--config", "{typo_toml}"], 2, "typo_toml.txt: step: no such option; did you mean 'steps'?"),
    ("train", ["{text}", "--config", "{both_toml}"], 2, "both_toml.txt: epochs: give either this or steps"),
    ("train", ["{text}", "--config", "{both_toml}", "--lr", "x"], 2, "--lr: expected a number above 0, got 'x'"),
    ("train", ["{text}", "--resume"], 2, "--resume: say which run: --resume DIR or --out DIR"),
    ("train", ["{text}", "--hidden", "300", "300"], 2, "FILE: 300: no such file; several numbers of one option are"),
    ("train", ["{shout}"], 2, "FILE: {shout}: no such file; did you mean '{text}'?"),
    ("train", ["{runs}", "--resume"], 2, "--resume: say which run: --resume DIR or --out DIR"),
    ("train", ["--resume", "--out", "nowhere"], 2, "--resume: nowhere holds no run\n"),
    ("train", ["--resume", "nowhere"], 2, "--resume: nowhere holds no run\n"),
    ("train", ["--resume", "{run}/last.safetensors"], 2, "name the run's folder: --resume {run}\n"),
    ("train", ["--resume", "--out", "{run}/last.safetensors"], 2, "name the run's folder: --resume {run}\n"),
    ("train", ["--resume", "{runs}/rum"], 2, "--resume: {runs}/rum holds no run; did you mean '{run}'?"),
    ("train", ["--resume", "--out", "{runs}/rum"], 2, "--resume: {runs}/rum holds no run; did you mean '{run}'?"),
    ("train", ["{run}/config.toml"], 2, "config.toml holds options, not a text; give it as --config {run}/config.toml"),
    ("train", ["--config", "{run}/confg.toml"], 2, "No such file or directory; did you mean '{run}/config.toml'?"),
    (
        "train",
        ["--resume", "--out", "{run}", "--seed", "9"],
        2,
        "--seed: a run that is resumed keeps what it began with: 1",
    ),
    (
        "train",
        ["--resume", "--out", "{run}", "--hidden", "9"],
        2,
        "--hidden: a run that is resumed keeps what it began with: 12,10",
    ),
    ("train", ["--resume", "--out", "{run}", "--epochs", "2"], 2, "--epochs: a run by steps cannot go on by epochs"),
    (
        "train",
        ["--resume", "--out", "{run}", "--val-file", "{text}"],
        2,
        "--val-file: a run that is resumed keeps what it began with: not set",
    ),
    ("train", ["--resume", "--out", "{run}", "--overwrite"], 2, "--overwrite: give either this or --resume"),
    ("train", ["{text}", "--json", "--quiet"], 2, "--quiet: give either this or --json"),
    ("train", ["{text}", "--out", "{text}"], 2, "cannot write to the folder"),
    ("train", ["missing.txt"], 2, "missing.txt: "),
    ("train", ["https://example.org/hp.txt"], 2, "hp.txt: an address, not a file; download it first"),
    ("train", ["{empty}"], 2, "empty.txt: "),
    ("train", ["{run}"], 2, "the folder of a run, not a text"),
    ("train", ["{run}/model.safetensors"], 2, "a safetensors model file, not text"),
    ("train", ["{text}", "--val-file", "{foreign}"], 2, "none of its words is in the vocabulary"),
    ("generate", [], 2, "RUN: missing (see --help)"),
    (
        "generate",
        ["{text}"],
        2,
        "story.txt: it is a text, not a trained model; train on it first: python -m fastmlp.train",
    ),
    ("generate", ["{text}.safetensor"], 2, "there is no such file; name a file that fastmlp has saved"),
    ("generate", ["{runs}/rum"], 2, "there is no such file; did you mean {run}?"),
    ("generate", ["nowhere", "once upon"], 2, "cannot load nowhere: there is no such file"),
    ("generate", ["."], 2, "a folder without model.safetensors"),
    (
        "map",
        ["{run}", "--", "-n", "1"],
        2,
        "-n: no option behind --, where all are arguments; write it before",
    ),
    ("map", ["{run}", "a"], 2, "a: one argument too many"),
    ("generate", ["{run}", "--temperature", "-1"], 2, "--temperature: expected a number of at least 0, got '-1'"),
    ("generate", ["{run}", "--top-k", "0"], 2, "--top-k: expected a whole number of at least 1, got '0'"),
    ("generate", ["{run}", "--top-p", "1.5"], 2, "--top-p: expected a number above 0 and at most 1, got '1.5'"),
    ("generate", ["{run}", "-n", "0"], 2, "-n: expected a whole number of at least 1, got '0'"),
    ("generate", ["{run}", "--seeds", "1"], 2, "--seeds: no such option; did you mean '--seed'?"),
    ("evaluate", ["{run}"], 2, "FILE: missing (see --help)"),
    ("evaluate", ["{text}", "{run}"], 2, "story.txt: it is a text, not a trained model; train on it first"),
    ("evaluate", ["{run}", "{run}"], 2, "the folder of a run, not a text"),
    ("evaluate", ["{run}", "missing.txt"], 2, "missing.txt: "),
    ("evaluate", ["{run}", "{foreign}"], 2, "none of its words is in the model's vocabulary"),
    ("neighbors", ["{run}", "paint"], 2, "WORD: 'paint' is not in the vocabulary; close: paints"),
    ("neighbors", ["{run}", "two words"], 2, "WORD: expected one word, got 'two words'"),
    ("neighbors", ["{run}", "red", "-n", "x"], 2, "-n: expected a whole number of at least 1, got 'x'"),
    ("map", [], 2, "RUN: missing"),
    ("map", ["{text}"], 2, "cannot load"),
    ("map", ["."], 2, "a folder without model.safetensors"),
    ("map", ["{run}", "-n", "2"], 2, "-n: expected a whole number of at least 3, got '2'"),
    ("map", ["{run}", "--out", "map.jpg"], 2, "--out: expected a file that ends in .png or .svg, got 'map.jpg'"),
    ("map", ["{run}", "--out", "none/map.png"], 1, "cannot write none/map.png ("),
    ("map", ["{run}", "map.png"], 2, "map.png: one argument too many"),
    ("fastmlp", ["trian"], 2, "trian: no such command; did you mean 'train'?"),
    ("fastmlp", ["trian", "{text}", "--steps", "5"], 2, "trian: no such command; did you mean 'train'?"),
    ("fastmlp", ["{text}"], 2, "story.txt: no such command; to train on it: fastmlp train "),
    ("fastmlp", ["--vresion"], 2, "--vresion: no such option; did you mean '--version'?"),
]


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize(
    ("command", "arguments", "status", "message"), BAD, ids=[" ".join([c, *a]) for c, a, *_ in BAD]
)
def test_bad_usage_gets_one_line_and_its_status(
    command: str,
    arguments: list[str],
    status: int,
    message: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"text": write_text(tmp_path), "run": trained, "runs": trained.parent}
    places["shout"] = places["text"].with_name(places["text"].name.upper())
    for name, content in {
        "empty": "",
        "foreign": "qwerty uiop",
        "bad_toml": "a = = 1",
        "typo_toml": "step = 1",
        "both_toml": "steps = 1\nepochs = 1",
    }.items():
        places[name] = tmp_path / f"{name}.txt"
        places[name].write_text(content)
    got, _, err = call(capsys, command, *(argument.format(**places) for argument in arguments))
    assert got == status
    assert message.format(**places) in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "arguments", "message"),
    [
        ("stpes = 30", [], "run/config.toml: stpes: no such option; did you mean 'steps'?"),
        ("steps = -5", [], "run/config.toml: steps: expected a whole number of at least 1, got -5"),
        ("steps = -5", ["--steps", "x"], "--steps: expected a whole number of at least 1, got 'x'"),
        ("steps = ", [], "--resume: run/config.toml is not a TOML file: "),
        ("seed = 9", [], "run/config.toml: seed: a run that is resumed keeps what it began with: 1"),
        ("seed = 9", ["--seed", "8"], "--seed: a run that is resumed keeps what it began with: 1"),
        ('precision = "bf16"', [], "run/config.toml: precision: expected auto or ieee, which numpy has, got 'bf16'"),
        ("threads = 0", ["--threads", "2", "--prompt", "?"], "--prompt: expected a text with words in it, got '?'"),
    ],
)
def test_what_is_wrong_in_a_runs_own_configuration_is_said_of_that_file(
    line: str, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, "train", write_text(tmp_path), *SMALL, "--out", "run")
    config = Path("run/config.toml")
    name = line.split()[0].replace("stpes", "steps")
    config.write_text(re.sub(rf"(?m)^{name} = .*\n", "", config.read_text()) + f"{line}\n")
    status, _, err = call(capsys, "train", "--resume", "--out", "run", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"python -m fastmlp.train: {message}")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_promise_11_a_name_that_is_not_utf8_is_refused_or_read(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "novels"
    folder.mkdir()
    file = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt"))
    write_text(tmp_path).rename(file)
    refused = [[file, *SMALL], ["--out", "caf\udce9", *SMALL], [folder, "--val-file", file], ["--prompt", "\udce9"]]
    for arguments in refused:
        status, _, err = call(capsys, "train", *arguments)
        assert (status, err.count("\n")) == (2, 1)
        assert ": expected UTF-8, got '" in err
        assert "\\udce9" in err
        assert sorted(there.name for there in tmp_path.iterdir()) == ["novels"]
    assert call(capsys, "train", folder, *SMALL, "--out", "run", "--quiet") == (0, "", "")
    assert call(capsys, "train", "--resume", "--out", "run", "--steps", 32, "--quiet") == (0, "", "")
    monkeypatch.setattr("fastmlp.ops.backend.choose_backend", lambda: Backend(get_ops("numpy"), None, None))
    assert call(capsys, "evaluate", trained, file)[0] == 0
    assert call(capsys, "generate", trained, "\udce9")[0] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_promise_11_names_and_prompts_in_a_locale_of_ascii_are_the_bytes_that_the_system_gave(tmp_path: Path) -> None:
    write_text(tmp_path).rename(tmp_path / "é.txt")
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(*arguments: object) -> tuple[int, str]:
        with process("-m", "fastmlp", *arguments, cwd=tmp_path, env=ascii_only) as child:
            _, err = child.communicate(timeout=120)
            return child.returncode, err

    assert run("train", "é.txt", *SMALL, "--prompt", "anna é", "--quiet")[0] == 0
    assert run("train", "é.txt", *SMALL, "--out", "ü", "--val-file", "é.txt", "--quiet") == (0, "")
    assert run("train", "--resume", "--out", "ü", "--steps", 32, "--quiet") == (0, "")
    assert run("train", "--resume", "ü", "--steps", 33, "--quiet") == (0, "")
    assert run("generate", "ü", "anna é", "-n", 1, "--words", 2)[0] == 0
    assert run("neighbors", "ü", "é") == (2, "fastmlp neighbors: WORD: '\\xe9' is not in the vocabulary (see --help)\n")
    assert run("evaluate", "ü", "é.txt") == run("map", "ü") == run("map", "ü", "--out", "ä.png") == (0, "")
    assert (tmp_path / "ü" / "map.png").exists()
    assert (tmp_path / "ä.png").exists()
    assert run("train", "è.txt") == (2, "fastmlp train: \\xe8.txt: no such file; did you mean \\xe9.txt?\n")
    assert (tmp_path / "runs" / "é" / "model.safetensors").exists()
    assert 'prompt = [\n    "anna é",\n]' in (tmp_path / "runs" / "é" / "config.toml").read_text(encoding="utf-8")


def test_a_failure_on_the_way_is_status_1_and_debug_shows_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [write_text(tmp_path), *SMALL, "--optimizer", "sgd", "--lr", "1e30", "--warmup", "0"]
    status, _, err = call(capsys, "train", *arguments)
    assert status == 1
    assert "try a lower one, such as --lr 0.1; nothing is saved" in err
    assert err.count("\n") == 1
    status, _, shown = call(capsys, "train", *arguments, "--debug")
    assert (status, shown.splitlines()[-1]) == (1, err.strip())
    assert shown.startswith("Traceback (most recent call last):")
    monkeypatch.setattr("fastmlp.text.vocabulary.Vocabulary.from_words", lambda *_, **__: 1 / 0)
    status, _, err = call(capsys, "train", *arguments)
    assert (status, err) == (1, "python -m fastmlp.train: ZeroDivisionError: division by zero (--debug shows where)\n")


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("command", ["train", "generate", "evaluate"])
def test_threads_of_the_environment_are_checked(
    command: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "many")
    file = write_text(tmp_path)
    arguments = {"train": [file, *SMALL], "generate": [trained, "anna"], "evaluate": [trained, file]}[command]
    status, _, err = call(capsys, command, *arguments)
    assert status == 2
    assert err.count("\n") == 1
    assert "FASTMLP_NUM_THREADS: expected a whole number from 1 to 1024, got 'many'" in err


def test_promise_17_no_home_to_write_to_and_no_display(tmp_path: Path) -> None:
    """Nothing is lost, and no message mentions it; the picture is the real one."""
    nowhere = tmp_path / "a file, not a folder"
    nowhere.write_text("")
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(nowhere / "below"))
    for arguments in (
        ["fastmlp.train", write_text(tmp_path), *SMALL, "--out", "run", "--quiet"],
        ["fastmlp.neighbors", "run", "red"],
        ["fastmlp.map", "run"],
        ["fastmlp.generate", "run", "anna"],
        ["fastmlp.evaluate", "run", tmp_path / "story.txt"],
    ):
        with process("-m", *arguments, env=places, without=("DISPLAY", "MPLCONFIGDIR")) as child:
            _, err = child.communicate()
        assert child.returncode == 0, err
        assert all(line.startswith("note: ") for line in err.splitlines()), err  # as where there are no kernels
        assert arguments[0] != "fastmlp.train" or err == ""
    for picture in ("loss.png", "map.png"):
        assert Path("run", picture).read_bytes().startswith(b"\x89PNG")


def test_habits_that_are_understood(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = write_text(tmp_path)
    assert call(capsys, "train", text, *SMALL, "--out", "runs/hp", "--quiet", "--backend", "numpy") == (0, "", "")
    status, _, err = call(capsys, "train", "--resume", "--out", "hp")
    assert (status, err.count("\n")) == (2, 1)
    assert f"--resume: hp holds no run; did you mean '{Path('runs/hp')}'?" in err
    for steps, given in ((32, ["--resume", "runs/hp"]), (34, ["runs/hp", text, "--resume"])):
        assert call(capsys, "train", *given, "--steps", steps, "--quiet") == (0, "", "")
    for given in (["help"], ["help", "generate"]):
        assert call(capsys, "fastmlp", *given) == call(capsys, "fastmlp", *given[1:], "--help")
    unquoted = [call(capsys, "generate", trained, *words, "--seed", 1) for words in (["once", "upon"], ["once upon"])]
    assert unquoted[0] == unquoted[1]
    assert unquoted[0][0] == 0
