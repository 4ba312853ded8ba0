"""The console: the progress bar, the lines, and the format of figures."""

import io
import json
import math
import sys
from pathlib import Path

import pytest

from fastmlp.console import (
    Console,
    JsonLines,
    Quiet,
    colors,
    describe_end,
    describe_sample,
    describe_text,
    duration,
    indented,
    plural,
    shortly,
)
from fastmlp.events import Evaluating, Finished, GoOn, Measured, Notice, Sampled, Started, Stopped, TextRead, Writing

LOGGED = {"step": 100, "words": 12_800, "seconds": 1.0, "loss": 7.25, "lr": 0.002, "words_per_second": 71_234.5}
EVALUATED = {**LOGGED, "step": 200, "val_loss": 6.5, "val_perplexity": 665.14}


def test_the_bar_shows_step_loss_validation_speed_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setenv("COLUMNS", "200")
    with Console(bar=True) as console:
        console.report(Started(step=0, total=1_000, share=0.0))
        for step in range(1, 251):
            console.step(step, step / 1_000, 8.0)
            if step == 200:
                console.report(Measured(EVALUATED))
        console.report(Notice("mind the gap"))
        console.share = 1.0
        console.report(Evaluating(67_346))
    out, err = capsys.readouterr()
    assert "\r100% evaluating on all 67,346 words that are held out" in err
    last = [line for line in err.replace("\r", "\n").splitlines() if "step" in line][-1]
    assert " 25%|" in last
    assert "step   250/1,000  loss 8.000  val 6.500 (perplexity 665)  71,234 words/s  " in last
    assert last.rstrip().endswith(" left")
    assert out.splitlines()[0].startswith("step   200/1,000  loss 7.250  validation 6.500 (perplexity 665.1)")
    assert out.splitlines()[1] == "note: mind the gap"


def test_the_bar_shows_no_loss_before_there_is_one_and_no_evaluation_that_is_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with Console(bar=True) as console:
        console.report(Started(step=150, total=200, share=0.75))
        console.report(Notice("mind the gap"))
        assert "step 150/200" in (before := capsys.readouterr().err)
        assert "loss" not in before
        for step in range(151, 201):
            console.step(step, step / 200, 8.0)
        console.report(Evaluating(67_346))
        console.report(Measured({**EVALUATED, "kept_step": 200, "kept_val_loss": 6.0}))
        capsys.readouterr()
        console.report(Sampled(200, "a", "a cat", "a dog"))
        after = capsys.readouterr().err
    assert "evaluating" not in after
    assert "100%" in after
    assert "step 200/200  loss 8.000" in after


def test_without_a_bar_there_is_a_line_in_ten_seconds_and_the_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console = Console(bar=False)
    console.report(Started(step=0, total=1_000, share=0.0))
    for step in range(100, 1_001, 100):
        console.step(step, step / 1_000, 5.0)
        console.report(Measured({**(EVALUATED if step % 200 else LOGGED), "step": step}))
        now[0] += 4
    steps = [line.split("/")[0] for line in capsys.readouterr().out.splitlines()]
    assert steps == [f"step {step:>5,}" for step in (100, 400, 700, 1_000)]
    for step in (990, 1_000):
        console.step(step, step / 1_000, 5.0)
        console.report(Measured({**EVALUATED, "step": step}))
    assert [line.split("/")[0] for line in capsys.readouterr().out.splitlines()] == ["step 1,000"]


def test_beside_the_bar_only_validations_are_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmlp.console.BETWEEN_LINES", 0)
    for bar, lines in ((False, 2), (True, 1)):
        with Console(bar=bar) as console:
            console.report(Started(step=0, total=1_000, share=0.0))
            console.report(Measured(LOGGED))
            console.report(Measured(EVALUATED))
        assert len(capsys.readouterr().out.splitlines()) == lines


def test_the_time_left_is_that_of_this_sitting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console = Console(bar=False)
    console.report(Started(step=500, total=1_000, share=0.5))
    now[0] += 60
    console.step(600, 0.6, 5.0)
    console.report(Measured({**LOGGED, "step": 600}))
    assert capsys.readouterr().out == "step   600/1,000  loss 7.250  71,234 words/s  4:00 left\n"


def test_the_time_left_is_counted_down_from_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console = Console(bar=False)
    console.report(Started(step=0, total=1_000, share=0.0))
    now[0] += 500  # slow, which is over
    console.step(100, 0.1, 5.0)
    console.report(Measured(LOGGED, seconds_left=90.0))
    assert capsys.readouterr().out.endswith("  1:30 left\n")
    now[0] += 80
    assert console.time_left() == "0:10 left"
    now[0] += 80
    assert console.time_left() == "0:00 left"


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (
            120,
            " 25%|{bar:16}| step   250/1,000  loss 8.000  val 6.500 (perplexity 665)  71,234 words/s  2:05 left",
        ),
        (100, " 25%|{bar:8}| step   250/1,000  loss 8.000  val 6.500 (perplexity 665)  71,234 words/s  2:05 left"),
        (90, " 25% step   250/1,000  loss 8.000  val 6.500 (perplexity 665)  71,234 words/s  2:05 left"),
        (80, " 25% step   250/1,000  loss 8.000  val 6.500  71,234 words/s  2:05 left"),
        (65, " 25% step   250/1,000  loss 8.000  71,234 words/s  2:05 left"),
        (50, " 25% step   250/1,000  loss 8.000  2:05 left"),
        (40, " 25% step   250/1,000  2:05 left"),
        (5, " 25% step   250/1,000  2:05 left"),
    ],
)
def test_a_narrow_terminal_shows_what_matters_most(
    columns: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    console = Console(bar=False)
    console.report(Started(step=0, total=1_000, share=0.0))
    console.step(250, 0.25, 8.0)
    console.report(Measured({**EVALUATED, "step": 250}, seconds_left=125.0))
    layout = console.layout(250, columns)
    assert layout.replace("{percentage:3.0f}", " 25") == line
    if columns >= 40:
        assert len(line.replace("{bar:16}", "b" * 16).replace("{bar:8}", "b" * 8)) < columns


def test_the_progress_says_which_epoch_it_is_in() -> None:
    console = Console(bar=False)
    console.report(Started(step=0, total=3 * 138, share=0.0, epochs=3))
    epochs = [console.line(step).split()[-1] for step in (0, 1, 138, 139, 276, 277, 414)]
    assert epochs == ["1/3", "1/3", "1/3", "2/3", "2/3", "3/3", "3/3"]


def test_a_validation_that_is_not_the_best_says_which_is(capsys: pytest.CaptureFixture[str]) -> None:
    for best, rest in ((None, ""), (200, ""), (100, ", best at step 100")):
        Console(bar=False).report(Measured(EVALUATED, best_step=best))
        assert f"validation 6.500 (perplexity 665.1){rest}  71,234 words/s" in capsys.readouterr().out


class Terminal(io.StringIO):
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colors_are_for_terminals_and_who_wants_them(
    environment: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for stream, colors_expected in ((Terminal(), colored), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stdout", stream)
        console = Console(bar=False)
        console.report(Writing("runs/hp"))
        console.report(Sampled(1, "a", "a cat", "a dog"))
        console.report(Measured(EVALUATED, best_step=200))
        console.report(Finished("run", 1_000, 3_723.4, 4.5, {}, None))
        console.report(GoOn(["fastmlp generate"]))
        assert ("\x1b[" in stream.getvalue()) == colors_expected


def test_the_first_lines_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", Terminal())
    Console(bar=False).report(TextRead("novels/harry-potter.txt", 1, 1_000, 99, 99, 50, 0))
    lines = sys.stdout.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [
        "text      novels/harry-potter.txt: 1,000",
        "          words, 99 different; held out:",
        "          50 to validate",
    ]


def test_json_is_strict_and_quiet_says_only_what_should_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        Measured({**LOGGED, "loss": math.inf, "lr": math.nan}, seconds_left=math.nan),
        Sampled(1, "a", "a «cat»\nsat"),
        Finished("run", 9, 1.0, math.nan, {"kept_test_loss": math.inf}),
        GoOn(["x"]),
        Notice("mind the gap"),
    ]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for event in events:
        JsonLines().report(event)
    measured, sampled, finished, go_on, _ = (
        json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines()
    )
    assert (measured["metrics"]["loss"], measured["metrics"]["lr"], measured["seconds_left"]) == (None, None, None)
    assert measured["metrics"]["step"] == 100
    assert (finished["loss"], finished["kept"]) == (None, {"kept_test_loss": None})
    assert (sampled["text"], go_on) == ("a «cat»\nsat", {"event": "GoOn", "commands": ["x"]})
    for event in events:
        Quiet().report(event)
    assert capsys.readouterr() == ("", "note: mind the gap\n")


def test_a_reader_who_goes_away_is_noticed_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    silenced: list[bool] = []
    monkeypatch.setattr("fastmlp.cli.silence", lambda stream: silenced.append(True))
    monkeypatch.setattr(sys, "stdout", Gone())
    console = Console(bar=False)
    console.report(Notice("hello"))
    console.report(Notice("anybody there?"))
    assert console.closed
    assert silenced == [True]


def test_training_outlives_its_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class HungUp(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    with Console(bar=True) as console:
        console.report(Started(step=0, total=1_000, share=0.0))
        console.bar.fp = HungUp()
        console.bar.sp = lambda text: console.bar.fp.write(text)
        for step in range(1, 4):
            console.refresh_at = 0.0
            console.step(step, step / 1_000, 8.0)
            console.report(Notice(f"still at it {step}"))
    assert "still at it 3" in capsys.readouterr().out


def test_texts_are_described_shortly() -> None:
    assert describe_text(TextRead("hp.txt", 1, 1_000, 99, 99, 50, 0)) == (
        "hp.txt: 1,000 words, 99 different; held out: 50 to validate"
    )
    assert describe_text(TextRead("hp.txt", 1, 1_000, 99, 99, 50, 9, "v.txt")) == (
        "hp.txt: 1,000 words, 99 different; held out: 50 to validate (in v.txt), 9 to test"
    )
    assert describe_text(TextRead("a, b", 2, 1_000, 99, 99, 0, 0)) == "a, b (2 files): 1,000 words, 99 different"
    assert describe_text(TextRead("a", 1, 1_000, 99, 9, 5, 0)) == (
        "a: 1,000 words, 99 different (9 kept); held out: 5 to validate"
    )


def test_samples_are_wrapped_under_their_label() -> None:
    text = describe_sample(Sampled(2_500, "a", "word " * 40))
    first, *rest = text.strip("\n").splitlines()
    assert first.startswith("after 2,500 steps: word word")
    assert all(line.startswith(" " * len("after 2,500 steps: ") + "word") for line in rest)
    assert indented("one\ntwo", "x: ") == "x: one\n   two"
    assert describe_sample(Sampled(9, "a", "a new", "a old")) == "\nbefore: a old\nafter:  a new"


def test_the_prompt_is_bold_however_its_text_is_broken_into_lines() -> None:
    prompt = "word " * 24 + "end"
    first, second = describe_sample(Sampled(0, prompt, f"{prompt} of it"), colors).strip("\n").splitlines()
    assert first.startswith("\x1b[2mbefore training: \x1b[0m\x1b[1mword word ")
    assert second.strip().startswith("word ")
    assert second.endswith(" end\x1b[0m of it")
    assert describe_sample(Sampled(0, "", "of it"), colors) == "\n\x1b[2mbefore training: \x1b[0mof it\n"
    assert describe_sample(Sampled(0, "other", "of it"), colors).count("\x1b[1m") == 0


def test_the_end_tells_the_figures_of_the_kept_weights() -> None:
    kept = {"kept_step": 900, "kept_val_loss": 5.0, "kept_val_perplexity": 148.41}
    assert describe_end(Finished("run", 1_000, 3_723.4, 4.5, kept, "run/loss.png")).splitlines() == [
        "",
        "done: 1,000 steps in 1:02:03, training loss 4.500",
        "validation: loss 5.000, perplexity 148.4 on all of that part, all in the vocabulary (weights of step 900)",
        "the loss over the steps: run/loss.png",
    ]


def test_the_end_tells_what_the_figures_leave_out() -> None:
    kept = {"kept_step": 9, "kept_val_loss": 5.0, "kept_val_perplexity": 148.41, "kept_val_unknown_words": 1_302}
    with_unknown = {"kept_val_loss_with_unknown": 4.5, "kept_val_perplexity_with_unknown": 90.02}
    test = {"kept_test_loss": 5.5, "kept_test_perplexity": 244.69, "kept_test_unknown_words": 0}
    test |= {"kept_test_loss_with_unknown": 5.5, "kept_test_perplexity_with_unknown": 244.69}
    left_out = "validation: loss 5.000, perplexity 148.4 on all of that part but 1,302 words outside the vocabulary"
    assert describe_end(Finished("run", 9, 1.0, None, kept)).splitlines()[2:] == [f"{left_out} (weights of step 9)"]
    assert describe_end(Finished("run", 9, 1.0, None, kept | with_unknown | test)).splitlines()[2:] == [
        f"{left_out} (weights of step 9)",
        "validation with them: loss 4.500, perplexity 90.0: <unk> was trained",
        "test: loss 5.500, perplexity 244.7 on all of that part, all in the vocabulary (weights of step 9)",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (125, "2:05"), (7_384, "2:03:04")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plurals() -> None:
    assert [plural(count, "thread") for count in (1, 2, 1_000)] == ["1 thread", "2 threads", "1,000 threads"]


def test_quiet_says_how_a_stopped_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    for first, said in (
        (Stopped("runs/hp", 5), "to go on: train --resume\n"),
        (Finished("runs/hp", 5, 1.0, 2.0, {}), ""),
    ):
        quiet = Quiet()
        quiet.report(first)
        quiet.report(GoOn(["train --resume", "another"]))
        assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(("perplexity", "text"), [(135.44, "135.4"), (9_999_999.0, "9,999,999.0"), (8.2e307, "8e+307")])
def test_a_perplexity_of_many_digits_is_a_power_of_ten(perplexity: float, text: str) -> None:
    assert shortly(perplexity) == text


def test_the_commands_to_go_on_with_stand_below_the_end_and_the_bar_is_gone_by_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Console(bar=True) as console:
        console.report(Started(step=0, total=10, share=0.0))
        console.report(GoOn(["generate runs/hp", "train --resume"]))
    out, err = capsys.readouterr()
    assert out == "\nto go on:\n  generate runs/hp\n  train --resume\n"
    assert err.endswith(" \r")  # wiped out: what is printed next, a traceback perhaps, has a line of its own
    assert console.bar is None


def test_the_end_says_which_file_may_be_deleted(tmp_path: Path) -> None:
    last = tmp_path / "last.safetensors"
    last.write_bytes(bytes(2_400_000))
    told = describe_end(Finished(str(tmp_path), 9, 1.0, None, {}))
    assert told.splitlines()[-1] == f"only to train it further: {last} (2 MB), which may be deleted"
