"""fastmlp train as its users see it: its output, the commands that follow, runs that cannot begin."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastmlp import cli, train
from fastmlp.config import TrainConfig, options
from fastmlp.files import checkpoint
from fastmlp.files.run_folder import RunFolder
from tests.commands.helpers import SMALL, call, press_ctrl_c
from tests.runs import (
    flags,
    learnable_text,
    metrics_of,
    outcome,
    process,
    window_options,
    write_text,
)

BUSY = {  # what a run does before its first step, and what is called meanwhile
    "Network": "fastmlp.network.network.Network.__init__",
    "make_optimizer": "fastmlp.optim.Optimizer.__init__",
    "complete": "fastmlp.training.samples.Samples.texts",
    "evaluate": "fastmlp.training.validation.Validation.trial",
}
pytestmark = pytest.mark.usefixtures("elsewhere")


def test_train_prints_what_a_user_wants_to_know(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmlp.console.BETWEEN_LINES", 0)
    file = write_text(tmp_path)
    status, out, err = call(capsys, "train", file, *SMALL, "--test-fraction", 0.1, "--prompt", "anna zaints")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    words = learnable_text().replace(".", " .").split()
    assert lines[0].startswith(f"text      {file}: {len(words):,} words, {len(set(words))} different; held out: ")
    assert "to validate, " in lines[0]
    assert lines[0].endswith(" to test")
    assert lines[1] == "network   3 words x 6 -> 12 -> 10 -> 41 words; 1,077 parameters; 0.1 passes over the text"
    assert lines[2].startswith("running   numpy, precision ieee, ")
    assert lines[3] == f"writing   {Path('runs/story')}"
    assert "note: not in the vocabulary, read as <unk>: 'zaints' (close: paints)" in lines
    assert any(line.startswith("before training: anna zaints ") for line in lines)
    assert "after 15 steps: anna zaints " in out
    assert any(line.startswith("step  7/30  loss ") and line.endswith(" left") for line in lines)
    assert any(line.startswith("step 20/30  loss ") and "  validation " in line for line in lines)
    before, after = (next(line for line in lines if line.startswith(label)) for label in ("before: ", "after:  "))
    assert before != after.replace("after: ", "before:")
    assert any(re.match(r"done: 30 steps in \d+:\d\d\b", line) for line in lines)
    assert any(line.startswith("validation: loss ") and line.endswith("(weights of step 30)") for line in lines)
    assert any(line.startswith("test: loss ") for line in lines)
    assert re.fullmatch(r"only to train it further: runs.story.last\.safetensors \(\d+ MB\), which may.*", lines[-7])
    assert lines[-8:-7] + lines[-6:] == [
        f"the loss over the steps: {Path('runs/story/loss.png')}",
        "",
        "to go on:",
        f"  python -m fastmlp.generate {Path('runs/story')} 'anna zaints'",
        f"  python -m fastmlp.evaluate {Path('runs/story')} FILE",
        f"  python -m fastmlp.neighbors {Path('runs/story')} behind",
        f"  python -m fastmlp.map {Path('runs/story')}",
    ]
    written = {file.name for file in Path("runs/story").iterdir()} - {".fastmlp.lock"}
    assert written == {
        "config.toml",
        "model.safetensors",
        "last.safetensors",
        "metrics.jsonl",
        "samples.txt",
        "loss.png",
    }


def network_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    status, out, err = call(capsys, "train", *arguments, "--overwrite", "--out", "run")
    assert (status, err) == (0, "")
    return next(line for line in out.splitlines() if line.startswith("network   "))


def test_train_says_what_the_network_is_made_of(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, options = write_text(tmp_path), window_options()
    words = int(0.95 * len(learnable_text().replace(".", " .").split()))
    table, hidden = 41 * 8, 6 * 8 * 12 + 24 + 2 * (12 * 12 + 24)
    assert network_line(capsys, file, *flags(options)) == (
        "network   3 words and 3 averages of the 10 before x 8 -> 12 -> 12 -> 12 -> 8 -> 41 words;"
        f" {table + hidden + 12 * 8 + 8 + 41:,} parameters; {30 * 16 / words:.2g} passes over the text,"
        " dropout 0.1, 0.2, 0.3"
    )
    assert network_line(capsys, file, *flags({**options, "tied": "no"})).split(";")[1] == (
        f" {2 * table + hidden + 12 * 8 + 8 + 41:,} parameters"
    )
    plain = {**options, "tied": "no", "projection": "no", "averages": "none", "blocks": 0, "dropout": 0}
    del plain["reach"]
    assert network_line(capsys, file, *flags(plain)) == (
        f"network   3 words x 8 -> 12 -> 41 words; {table + 3 * 8 * 12 + 24 + 41 * 13:,} parameters;"
        f" {30 * 16 / words:.2g} passes over the text"
    )


def test_what_suits_the_text_is_shown_and_written_down(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = write_text(tmp_path, learnable_text(100))
    line = network_line(capsys, file, "--epochs", 4, "--embed", 8, "--hidden", 12, "--backend", "numpy")
    kept = tomllib.loads(Path("run/config.toml").read_text(encoding="utf-8"))
    assert ", ".join(f"{share:g}" for share in kept["dropout"]) == line.partition("dropout ")[2] == "0.5, 0.35, 0.3"
    assert "; 4" in line
    assert "passes over the text" in line
    assert (kept["batch_size"], kept["patience"], kept["epochs"], "steps" in kept) == (128, 6, 4, False)
    assert {"weight_decay", "eval_every", "log_every", "sample_every"} <= kept.keys()
    assert call(capsys, "train", "--resume", "--out", "run", "--quiet") == (
        0,
        "",
        f"note: it was finished before, after {metrics_of(Path('run'))[-1]['step']} steps: nothing is trained\n",
    )
    assert tomllib.loads(Path("run/config.toml").read_text(encoding="utf-8")) == kept


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--averages none --reach 5", "--reach: there are no averages of so many words: give --averages too"),
        ("--reach 0", "--reach: expected at least 1 word, for --averages of them"),
        ("--tied yes --projection no", "--projection: expected yes with --tied, as the output has that width"),
        ("--projection no", "--projection: expected yes with --tied, as the output has that width"),
        ("--blocks 0 --residual yes", "--residual: there is no block to add to its input: give --blocks too"),
        ("--hidden 9,9 --residual yes", "--residual: there is no block to add to its input: give --blocks too"),
        ("--hidden 9,9 --blocks 1", "--blocks: expected 0 beside a list of widths; give one width: --hidden"),
        ("--tied maybe", "--tied: expected yes or no, got 'maybe'"),
        ("--dropout 0.1,0.2", "--dropout: expected a share of at least 0 and below 1, or three, as in 0.1,0.2,0.2"),
        ("--dropout 1", "--dropout: expected a share of at least 0 and below 1, or three, as in 0.1,0.2,0.2"),
        ("--activation sine", "--activation: expected one of gelu, tanh, relu, got 'sine'"),
        ("--averages 1.5", "--averages: expected none or decays above 0 and below 1 separated by commas"),
        ("--steps 5 --epochs 1", "--epochs: give either this or --steps"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(
    given: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, out, err = call(capsys, "train", write_text(tmp_path), *given.split())
    assert (status, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert sum(said[:8] in line for line in err.splitlines()) == 1
    assert not Path("runs").exists()


def test_the_commands_to_go_on_with_do_what_they_say(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, on_numpy: None
) -> None:
    _, out, _ = call(capsys, "train", write_text(tmp_path), *SMALL)
    for line in out.splitlines()[-4:]:
        arguments = [str(tmp_path / "story.txt") if word == "FILE" else word for word in shlex.split(line)]
        assert arguments[:2] == ["python", "-m"]
        status, said, err = call(capsys, arguments[2].removeprefix("fastmlp."), *arguments[3:])
        assert (status, err) == (0, "")
        assert said


@pytest.mark.parametrize("folder", ['it\'s "the" $HOME', "-x", "two words", "a;b"])
def test_the_commands_to_go_on_with_can_be_pasted(
    folder: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, on_numpy: None
) -> None:
    """A shell parses the printed commands to the folder and the prompt, whatever their names."""
    arguments = [write_text(tmp_path), *SMALL, "--tokenizer", "whitespace", f"--out={folder}"]
    _, out, _ = call(capsys, "train", *arguments, "--prompt=-n is anna")
    generating, _, near, drawing = out.splitlines()[-4:]
    status, text, err = call(capsys, "generate", *shlex.split(generating)[3:])
    assert (status, text.splitlines()[0][:10]) == (0, "-n is anna")
    assert err.startswith("note: not in the vocabulary")
    assert call(capsys, "neighbors", *shlex.split(near)[3:])[0] == 0
    assert call(capsys, "map", *shlex.split(drawing)[3:])[0] == 0
    assert Path(folder).is_dir()
    run: Any = SimpleNamespace(config=TrainConfig(), folder=RunFolder(folder))
    resuming = shlex.split(train.command_to_resume("fastmlp train", run))
    assert call(capsys, "train", *resuming[2:])[0] == 0


def test_the_commands_to_go_on_with_name_this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The shell's PATH may have python3 only, or no Python."""
    assert cli.as_typed("fastmlp train") == "fastmlp train"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setenv("PATH", os.defpath)
    assert cli.as_typed("python -m fastmlp.train") == f"{tmp_path}/python3 -m fastmlp.train"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("python3", "python"):
        (tmp_path / name).touch(mode=0o755)
        assert cli.as_typed("python -m fastmlp.train") == f"{name} -m fastmlp.train"


def test_flags_reach_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option by its flag, given in any order around the files."""
    given = window_options(
        **{"averages": (0.5,), "residual": "no", "activation": "relu", "projection": "yes", "tied": "no"},
        **{"embed_std": 0.5, "output_bias": "zero", "epochs": 1, "steps": None},
        **{"optimizer": "momentum", "momentum": 0.8, "schedule": "step", "warmup": 2},
        **{"weight_decay": 0.001, "tokenizer": "whitespace", "vocab_size": 30, "min_count": 2, "val_fraction": 0.2},
        **{"test_fraction": 0.1, "prompt": "anna", "seed": 5, "threads": 1, "precision": "ieee", "batch_size": 200},
        **{"counts": "yes", "order": 2, "rules": 2},
    )
    given = {name: value for name, value in given.items() if value is not None}
    file = write_text(tmp_path)
    arguments = flags(given)
    arguments.append("--keep-licence")
    assert call(capsys, "train", *arguments[:6], file, *arguments[6:], "--out", "run", "--quiet")[0] == 0
    given["keep_licence"] = True
    _, metadata = checkpoint.load(Path("run/last.safetensors"))
    assert TrainConfig.layered(metadata["config"]) == TrainConfig(files=(str(file),), **given)
    untested = {"files", "out", "steps", "minutes", "betas", "val_file", "keep_licence"}
    assert given.keys() | untested == options().keys()


def test_a_config_file_gives_the_same_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_text(tmp_path)
    assert call(capsys, "train", file, *SMALL, "--out", "a", "--quiet") == (0, "", "")
    assert call(capsys, "train", "--config", "a/config.toml", "--out", "b", "--quiet") == (0, "", "")
    assert Path("a/config.toml").read_bytes() == Path("b/config.toml").read_bytes()
    assert outcome(Path("a")) == outcome(Path("b"))
    assert call(capsys, "train", "--config", "a/config.toml", "--steps", 5, "--out", "c", "--quiet")[0] == 0
    assert metrics_of(Path("c"))[-1]["step"] == 5


def test_events_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "train", write_text(tmp_path), *SMALL, "--json")
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "TextRead"
    assert kinds[-2:] == ["Finished", "GoOn"]
    assert [event["metrics"]["step"] for event in events if event["event"] == "Measured"] == [
        0,
        7,
        10,
        14,
        20,
        21,
        28,
        30,
    ]


def test_promise_10_the_folder_of_a_run_that_is_there_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_text(tmp_path)
    assert call(capsys, "train", file, *SMALL, "--quiet")[0] == 0
    assert call(capsys, "train", file, *SMALL, "--quiet")[0] == 0
    assert sorted(folder.name for folder in Path("runs").iterdir()) == ["story", "story-2"]
    status, _, err = call(capsys, "train", file, *SMALL, "--out", "runs/story")
    assert status == 2
    assert "runs/story already holds a run: go on with it (--resume), replace it (--overwrite)" in err
    assert call(capsys, "train", file, *SMALL, "--overwrite", "--quiet")[0] == 0
    assert sorted(folder.name for folder in Path("runs").iterdir()) == ["story", "story-2"]


def test_any_script_is_trained_on_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentences = "Анна рисует красную дверь. Борис продаёт тёплый хлеб. Η Άννα ζωγραφίζει μια πόρτα. 猫 が 好き です.\n"
    file = write_text(tmp_path, 50 * sentences)
    status, out, err = call(capsys, "train", file, *SMALL, "--prompt", "Анна рисует", "--out", "run")
    assert (status, err) == (0, "")
    assert f"{file}: 1,150 words, 20 different" in out
    assert "note: 300 of 1,150 words are characters, since their script (Chinese, Japanese, Thai ...) has no" in out
    assert "before training: анна рисует " in out
    assert "анна рисует " in Path("run/samples.txt").read_text(encoding="utf-8")


def test_standard_input_is_a_text(tmp_path: Path) -> None:
    with process("-m", "fastmlp.train", "-", *SMALL, stdin=subprocess.PIPE) as child:
        out, err = child.communicate(learnable_text())
    assert (child.returncode, err) == (0, "")
    assert out.startswith("text      -: ")
    assert Path("runs/stdin/model.safetensors").exists()
    with process("-m", "fastmlp.train", "--resume", "--out", "runs/stdin") as child:
        _, err = child.communicate()
    assert child.returncode == 2
    assert "--resume: the run's text came from standard input: name it again" in err


def test_promise_4_another_hash_seed_and_a_fresh_process_give_the_same_bits(tmp_path: Path) -> None:
    file = write_text(tmp_path)
    for seed in ("0", "12345"):
        arguments = [file, *SMALL, "--out", seed, "--quiet", "--prompt", "anna"]
        with process("-m", "fastmlp.train", *arguments, env={"PYTHONHASHSEED": seed}) as child:
            assert child.communicate() == ("", "")
    assert outcome(Path("0")) == outcome(Path("12345"))


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 3 TiB"), KeyboardInterrupt()])
@pytest.mark.usefixtures("on_numpy")
def test_a_run_that_cannot_begin_leaves_nothing(
    error: BaseException,
    there_before: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fastmlp.network.network.Network.__init__", fail)
    if there_before:
        Path("run").mkdir()
        Path("run/notes").write_text("mine")
    status, _, err = call(capsys, "train", write_text(tmp_path), *SMALL, "--out", "run")
    if isinstance(error, MemoryError):
        assert status == 1
        takes_less = "less text, or a smaller --vocab-size, --context, --embed, --hidden or --batch-size, takes less"
        assert f"not enough memory: Unable to allocate 3 TiB; {takes_less}\n" in err
    else:
        assert status == 130
    left = {file.name for file in Path().rglob("*") if file.suffix != ".txt"}
    assert left == ({"run", "notes", ".fastmlp.lock"} if there_before else set())


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 3 TiB"), KeyboardInterrupt()])
@pytest.mark.usefixtures("on_numpy")
def test_promise_10_the_run_that_is_replaced_stays_until_the_next_can_begin(
    error: BaseException, busy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a folder that holds the user's files and no run; then a run is replaced."""
    file = write_text(tmp_path)
    call(capsys, "train", file, *SMALL, "--out", "run")
    Path("mine").mkdir()
    Path("mine/metrics.jsonl").write_text("my own")

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for folder in ("run", "mine") for path in Path(folder).glob("[!.]*")}

    def fail(*_: Any, **__: Any) -> None:
        if isinstance(error, KeyboardInterrupt):
            press_ctrl_c()
        raise error

    before = contents()
    with monkeypatch.context() as patch:
        patch.setattr(BUSY[busy], fail)
        for folder in ("run", "mine"):
            status, _, err = call(capsys, "train", file, *SMALL, "--seed", 2, "--out", folder, "--overwrite")
            assert contents() == before
            if isinstance(error, MemoryError):
                assert (status, "not enough memory: Unable" in err) == (1, True)
            elif busy in ("complete", "evaluate"):
                assert (status, err) == (130, f"stopped before training began: {folder} is as it was\n")
            else:
                assert (status, err) == (130, "stopped before training began: there is nothing to save\n")
    for folder in ("run", "mine"):
        assert call(capsys, "train", file, *SMALL, "--seed", 2, "--out", folder, "--overwrite")[0] == 0
    call(capsys, "train", file, *SMALL, "--seed", 2, "--out", "new")
    assert outcome(Path("run")) == outcome(Path("mine")) == outcome(Path("new"))


@pytest.mark.usefixtures("on_numpy")
def test_a_run_that_cannot_go_on_from_its_start_keeps_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first checkpoint, it has nothing but config.toml."""
    call(capsys, "train", write_text(tmp_path), *SMALL, "--out", "run")
    for name in ("last.safetensors", "model.safetensors"):
        Path("run", name).unlink()
    before = Path("run/config.toml").read_bytes()
    monkeypatch.setattr("fastmlp.network.network.Network.__init__", lambda *_, **__: exec("raise MemoryError"))
    status, _, err = call(capsys, "train", "--resume", "--out", "run")
    assert (status, "not enough memory: none is left; " in err) == (1, True)
    assert Path("run/config.toml").read_bytes() == before
