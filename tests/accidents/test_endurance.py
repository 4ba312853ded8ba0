"""Promises 6 to 17 the hard way: runs that are killed, stopped, starved and moved, and their files afterwards.

    pytest tests/accidents/test_endurance.py                a shortened form of each
    pytest tests/accidents/test_endurance.py --endurance    all of it, with figures

The processes are real; faults.py says how something happens to one at a moment that is chosen.
"""

import errno
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fastmlp.files import checkpoint
from fastmlp.files.atomic import LOCK_FILE
from tests import faults
from tests.faults import NOTHING, Done, Fault
from tests.helpers import module_of, require_ops
from tests.runs import ROOT, flags, lines_in, metrics_of, outcome, process, small_options, wait_for, write_text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, signals and fork")

Tell = Callable[[str], None]
OPTIONS = small_options(steps=16, save_every=5, eval_every=8, log_every=6, sample_every=12)
SAVED = [5, 8, 10, 15, 16, 16]  # the steps at which the run with these options writes last.safetensors
EVER = 1_000
LAST = "replace last.safetensors last.safetensors"


@pytest.fixture(scope="module", autouse=True)
def _one_blas_thread() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        yield


@dataclass(frozen=True)
class Sound:
    """A run that nothing happened to."""

    file: Path
    steps: list[str]  # of writing
    outcome: dict[str, Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    folder = tmp_path_factory.mktemp("sound")
    file = write_text(folder)
    done = train(file, folder / "run")
    assert (done.status, done.err) == (0, "")
    assert done.steps.count(LAST) == len(SAVED)
    return Sound(file, done.steps, outcome(folder / "run"))


def train(file: Path, folder: Path, *arguments: str, fault: Fault = NOTHING) -> Done:
    return faults.train([str(file), *flags(OPTIONS), "--out", str(folder), *arguments], folder, fault)


def command(*arguments: object, **options: Any) -> tuple[int, str, str]:
    """Status, output and errors of `python -m fastmlp.train`."""
    with process("-m", "fastmlp.train", *arguments, **options) as child:
        out, err = child.communicate(timeout=300)
    return child.returncode, out, err


def saved_step(folder: Path) -> int | None:
    """The step of the checkpoint to resume from, which must be whole."""
    file = folder / "last.safetensors"
    return checkpoint.load(file)[1]["step"] if file.exists() else None


def temporaries(folder: Path) -> list[str]:
    return [file.name for file in folder.glob(".*") if file.name != LOCK_FILE]


def at_once(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Do it for all of them, as many at a time as there are cores; the first failure is raised."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, items):
            pass


# --------------------------------------------------------------------------------- promises 6, 7 and 9: at every write

FAILURES = {
    "disk full": Fault("ENOSPC", times=EVER),
    "one error": Fault("EIO"),
    "read-only from then on": Fault("EROFS", times=EVER),
}
SIGNALS = {"Ctrl-C": Fault("SIGINT"), "Ctrl-C twice": Fault("SIGINT", times=2), "SIGTERM": Fault("SIGTERM")}
ACCIDENTS = {"killed": Fault("SIGKILL"), **FAILURES, **SIGNALS}


def test_promise_6_killed_at_every_write_step(sound: Sound, tmp_path: Path, endurance: bool, tell: Tell) -> None:
    tell(at_every_write_step("killed", sound, tmp_path, endurance))


@pytest.mark.parametrize("accident", FAILURES)
def test_promise_7_a_failure_at_every_write_step(
    accident: str, sound: Sound, tmp_path: Path, endurance: bool, tell: Tell
) -> None:
    tell(at_every_write_step(accident, sound, tmp_path, endurance))


@pytest.mark.parametrize("accident", SIGNALS)
def test_promise_9_a_signal_at_every_write_step(
    accident: str, sound: Sound, tmp_path: Path, endurance: bool, tell: Tell
) -> None:
    tell(at_every_write_step(accident, sound, tmp_path, endurance))


def at_every_write_step(accident: str, sound: Sound, folder: Path, every: bool) -> str:
    """A fault hits each numbered step of writing; the checkpoint is whole, and the run resumes from it.

    every  else of the steps with the same name the first one, and these shared between the accidents
    """
    steps = [*range(1, len(sound.steps) + 1)]
    if not every:
        first = {name: step for step, name in reversed([*enumerate(sound.steps, start=1)])}
        steps = sorted(first.values())[list(ACCIDENTS).index(accident) :: len(ACCIDENTS)]
    began = time.perf_counter()
    kind = ACCIDENTS[accident]

    def happens(step: int) -> None:
        run = folder / f"run{step}"
        done = train(sound.file, run, fault=replace(kind, at=step))
        where = f"{accident} at step {step}, {sound.steps[step - 1]}: {done.status} {done.err}"
        judge(done, step, kind, run, sound, where)
        done = train(sound.file, run, "--resume")
        assert (done.status, done.err) == (0, ""), where
        assert outcome(run) == sound.outcome, where
        assert temporaries(run) == [], where

    at_once(happens, steps)
    seconds = time.perf_counter() - began
    return f"{accident}: at {len(steps)} of {len(sound.steps)} steps of writing, all resumed, {seconds:.0f} s"


def judge(done: Done, step: int, kind: Fault, folder: Path, sound: Sound, where: str) -> None:
    """What the process left when this had happened at this step."""
    name = sound.steps[step - 1]
    prevented = name == LAST and kind.what != "ENOSPC"  # a renaming needs no room
    saves = sound.steps[:step].count(LAST) - prevented
    saved = SAVED[saves - 1] if saves else None
    assert "Traceback" not in done.err, where
    if kind.what == "SIGKILL":
        assert (done.status, saved_step(folder)) == (137, saved), where
    elif kind.what.startswith("SIG"):
        judge_stopped(done, kind, folder, saved, where)
        # a signal can come while what another one left is removed
        cleaning = "before training began" in done.err and (kind.times > 1 or "unlink" in name)
        assert cleaning or temporaries(folder) == [], where
    else:
        judge_failed(done, step, kind, folder, sound, where)
        assert saved_step(folder) == saved, where
        assert kind.what == "EROFS" or "unlink" in name or temporaries(folder) == [], where


def judge_stopped(done: Done, kind: Fault, folder: Path, before: int | None, where: str) -> None:
    """Stopped by a signal: the last checkpoint is no older than before, and the command to resume was printed."""
    ended = done.status == 0  # the signal came when there were no more steps to come
    assert ended or done.status == {"SIGINT": 130, "SIGTERM": 143}[kind.what], where
    saved = saved_step(folder)
    assert (saved or 0) >= (before or 0), where
    assert ended or f"--resume --out {folder}" in done.out + done.err or "nothing to save" in done.err, where
    if "stopped after step" in done.out:
        assert f"stopped after step {saved};" in done.out, where


def judge_failed(done: Done, step: int, kind: Fault, folder: Path, sound: Sound, where: str) -> None:
    """A write failed: one line says which and why."""
    if step == len(sound.steps):  # letting go of the lock
        assert (done.status, done.err) == (0, ""), where
    elif step > sound.steps.index("open loss.png"):  # the run is done, but for its picture
        assert (done.status, done.err) == (0, ""), where
        assert "is not drawn: " in done.out, where
    else:
        probing = step <= sound.steps.index("open config.toml")  # whether the folder can be written to
        assert done.status == (2 if probing else 1), where
        assert done.err.count("\n") == 1, where
        assert done.err.startswith("python -m fastmlp.train: cannot "), where
        assert os.strerror(getattr(errno, kind.what)) in done.err, where


# ------------------------------------------------------------------------------------ promises 6 and 9: at any moment

LONG = small_options(steps=400, save_every=25, eval_every=100, sample_every=200, log_every=20)


@dataclass(frozen=True)
class LongRun:
    """A run of many steps without a fault: its arguments without the folder, and its time."""

    arguments: list[str]
    outcome: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> LongRun:
    folder = tmp_path_factory.mktemp("long")
    arguments = [str(write_text(folder)), *flags(LONG), "--resume", "--out"]
    for _ in range(2):  # the first process waits until the server has imported everything
        shutil.rmtree(folder / "run", ignore_errors=True)
        began = time.perf_counter()
        done = faults.train([*arguments, str(folder / "run")], folder / "run")
        seconds = time.perf_counter() - began
        assert (done.status, done.err) == (0, "")
    return LongRun(arguments, outcome(folder / "run"), seconds)


def test_promise_6_killed_at_random_moments(long_run: LongRun, tmp_path: Path, endurance: bool, tell: Tell) -> None:
    """SIGKILL again and again, until a sitting outlives it: the run has the bits of one that was left alone."""
    wanted, began, moments = 200 if endurance else 12, time.perf_counter(), random.Random(2003)
    runs = killed = resumed = 0
    while killed < wanted:
        runs += 1
        folder = tmp_path / f"run{runs}"
        status = None
        while status != 0:
            resumed += (folder / "last.safetensors").exists()
            with faults.started([*long_run.arguments, str(folder)], folder) as (child, _):
                faults.wait(child, moments.uniform(0, long_run.seconds))
            status = faults.wait(child)
            assert status in (0, -signal.SIGKILL)
            killed += status != 0
        assert outcome(folder) == long_run.outcome
        assert temporaries(folder) == []
    seconds = time.perf_counter() - began
    tell(f"killed {killed} times, {resumed} times from a checkpoint, in {runs} runs, {seconds:.0f} s")


def test_promise_9_signals_at_random_moments(long_run: LongRun, tmp_path: Path, endurance: bool, tell: Tell) -> None:
    """Ctrl-C and SIGTERM from the first moment of a real command to its last, its picture included."""
    wanted, moments, began = 60 if endurance else 3, random.Random(1985), time.perf_counter()
    begins = time.perf_counter()
    status, out, err = command(*long_run.arguments, tmp_path / "sound")
    assert (status, err) == (0, "")
    longest = time.perf_counter() - begins
    runs, statuses = 0, dict.fromkeys((130, 143, 0), 0)
    while sum(statuses.values()) < wanted:
        runs += 1
        folder = tmp_path / f"run{runs}"
        done = False
        while not done:
            number = moments.choice([signal.SIGINT, signal.SIGTERM])
            begins = time.perf_counter()
            with process("-m", "fastmlp.train", *long_run.arguments, folder) as child:
                time.sleep(moments.uniform(0, longest))
                child.send_signal(number)
                out, err = child.communicate(timeout=120)
            done = child.returncode == 0
            longest = (
                min(longest, time.perf_counter() - begins) if done else longest
            )  # the machine may be less busy now
            if not out and child.returncode in (-number, 1):  # Python itself was beginning
                continue
            status = 128 - child.returncode if child.returncode < 0 else child.returncode
            assert status in (0, 128 + number), err
            assert "Traceback" not in err, err
            told_what_is_left = ("--resume --out", "nothing to save", "the run is as it was", "to go on")
            assert done or any(said in out + err for said in told_what_is_left), err
            statuses[status] += 1
        assert outcome(folder) == long_run.outcome
    seconds = time.perf_counter() - began
    told = ", ".join(f"{count} times status {status}" for status, count in statuses.items())
    tell(f"signals: {told} (it had ended), in {runs} runs, {seconds:.0f} s")


PHASES = {  # where the signal comes, its status, and whether there is something to resume
    "reading": (Fault("SIGINT", 1, within="fastmlp.text.vocabulary.Vocabulary.from_words"), 130, False),
    "before training": (Fault("SIGTERM", 1, within="fastmlp.training.samples.Samples.texts"), 143, False),
    "training": (Fault("SIGTERM", 7, within="fastmlp.training.schedule.Schedule.learning_rate"), 143, True),
    "writing a sample": (Fault("SIGINT", 2, within="fastmlp.training.samples.Samples.texts"), 130, True),
    "evaluating": (Fault("SIGINT", 1, within="fastmlp.training.validation.Validation.loss"), 130, True),
    "validating at the end": (Fault("SIGINT", 2, within="fastmlp.training.validation.Validation.loss"), 130, True),
    "evaluating at the end": (Fault("SIGTERM", 1, within="fastmlp.training.validation.Validation.figures"), 143, True),
    "writing the last sample": (Fault("SIGINT", 3, within="fastmlp.training.samples.Samples.texts"), 0, True),
    "drawing": (Fault("SIGINT", 1, within="fastmlp.pictures.plot.draw_loss"), 0, True),
}


@pytest.mark.parametrize("phase", PHASES)
def test_promise_9_a_signal_in_every_phase(phase: str, sound: Sound, tmp_path: Path) -> None:
    """Saving is hit at each of its steps above. What ends by itself in the same moment is done, not stopped."""
    fault, status, saved = PHASES[phase]
    folder = tmp_path / "a run"
    done = train(sound.file, folder, fault=fault)
    assert done.status == status, done.err
    assert (saved_step(folder) is not None) == saved
    assert "at the end" not in phase or saved_step(folder) == OPTIONS["steps"]
    assert done.err.count("\n") == (2 if saved else 1)  # "stopping after this step" stands in a line of its own
    assert done.out.endswith(f"--resume --out '{folder}'\n") == (saved and status != 0)
    assert train(sound.file, folder, "--resume").status == 0
    assert outcome(folder) == sound.outcome


def test_promise_9_a_signal_before_a_resumed_run_goes_on(sound: Sound, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(sound.file, folder, fault=Fault("SIGKILL", 9, within="fastmlp.training.schedule.Schedule.learning_rate"))
    done = train(
        sound.file,
        folder,
        "--resume",
        fault=Fault("SIGTERM", 1, within="fastmlp.text.vocabulary.Vocabulary.from_words"),
    )
    assert (done.status, done.err) == (143, "stopped before training went on: the run is as it was\n")
    assert saved_step(folder) == 8
    assert train(sound.file, folder, "--resume").status == 0
    assert outcome(folder) == sound.outcome


def test_promise_9_a_signal_while_kernels_are_compiled(sound: Sound, tmp_path: Path, endurance: bool) -> None:
    """Numba compiles in Python, where KeyboardInterrupt can come up anywhere."""
    pytest.importorskip("numba")
    moments = random.Random(2)
    options = [sound.file, *flags(OPTIONS | {"backend": "numba"}), "--out"]
    for number in range(20 if endurance else 1):
        with process(
            "-m", "fastmlp.train", *options, tmp_path / "run", env={"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        ) as child:
            assert child.stdout is not None
            assert any(line.startswith("compiling") for line in child.stdout)
            time.sleep(moments.uniform(0, 2))
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=120)
        assert child.returncode in (130, -signal.SIGINT), (number, err)
        assert err == "stopped before training began: there is nothing to save\n"
        for folder in ("run", "cache"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)


# ------------------------------------------------------------------------------- promise 7: disks that are really full


def test_promise_7_a_file_that_may_grow_no_further(sound: Sound, tmp_path: Path) -> None:
    """The system's own limit: the signal that comes with it is Python's to ignore."""
    folder = tmp_path / "run"
    assert train(sound.file, folder, "--steps", "5").status == 0
    before = (folder / "last.safetensors").read_bytes()

    def limit() -> None:
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))

    status, _, err = command("--resume", "--out", folder, "--steps", 16, preexec_fn=limit)
    assert status == 1
    assert err.startswith(f"python -m fastmlp.train: cannot write {folder}/last.safetensors (18,")
    assert err.endswith(" bytes): File too large\n")
    assert (folder / "last.safetensors").read_bytes() == before
    assert temporaries(folder) == []
    assert train(sound.file, folder, "--resume").status == 0
    assert saved_step(folder) == 16


SMALL_DISK = """
mount -t tmpfs -o size=250k none disk || exit 77
python=$1 && shift
$python -m fastmlp.train "$@" --out disk/run; echo "status $?"
ls -A disk/run
cp disk/run/last.safetensors .
mount -o remount,size=20m disk
$python -m fastmlp.train --resume --out disk/run >out; echo "status $?"
cp -r disk/run .
"""


def alone(script: str, arguments: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script that sees mounts of its own; the test is skipped where it cannot have them."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare")
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "bash", "-c", script, "bash", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 77 or "unshare: " in done.stderr:
        pytest.skip("nothing can be mounted here")
    return done


def test_promise_7_a_small_disk_that_is_full(sound: Sound, tmp_path: Path) -> None:
    """A real file system with room for one checkpoint and the half of a second."""
    (tmp_path / "disk").mkdir()
    options = [sound.file, *flags(OPTIONS | {"hidden": (100, 60)})]
    done = alone(SMALL_DISK, [sys.executable, *options], tmp_path)
    message = "cannot write disk/run/last.safetensors (1"
    assert message in done.stderr
    assert done.stderr.endswith(" bytes): No space left on device\n")
    assert "Traceback" not in done.stderr
    failed, resumed = done.stdout.split("status ")[1:]
    assert failed.split() == ["1", LOCK_FILE, "config.toml", "last.safetensors", *failed.split()[4:]]
    assert ".tmp" not in failed
    assert resumed == "0\n"
    assert checkpoint.load(tmp_path / "last.safetensors")[1]["step"] == 5
    assert command(*options, "--out", tmp_path / "sound")[0] == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "sound")


READ_ONLY = """
mount -t tmpfs none disk || exit 77
mount -o remount,bind,ro / || exit 77
touch here 2>/dev/null && exit 77
"$@" --out disk/run
ls disk/run
"""


def test_promise_17_nothing_can_be_written_but_the_runs_folder(sound: Sound, tmp_path: Path) -> None:
    """Home and the current folder are read-only, temporary ones too: then matplotlib draws nothing, which is said."""
    (tmp_path / "disk").mkdir()
    done = alone(READ_ONLY, [sys.executable, "-m", "fastmlp.train", sound.file, *flags(OPTIONS)], tmp_path)
    assert done.stderr == ""
    assert "done: 16 steps" in done.stdout
    written = done.stdout.split()
    assert {"config.toml", "last.safetensors", "model.safetensors", "metrics.jsonl", "samples.txt"} <= {*written}
    assert ("loss.png" in written) != ("note: disk/run/loss.png is not drawn: " in done.stdout)


@pytest.mark.parametrize("variant", ["portable", "avx2"])
def test_promise_17_without_newer_instructions(variant: str, sound: Sound, tmp_path: Path) -> None:
    if variant not in module_of(require_ops("cython")).variants():
        pytest.skip(f"no {variant} here")
    options = [sound.file, *flags(OPTIONS | {"backend": "cython"}), "--out", tmp_path / "run"]
    status, out, err = command(*options, env={"FASTMLP_SIMD": variant})
    assert (status, err) == (0, "")
    assert f"running   cython ({variant}), precision ieee" in out
    lines = zip(metrics_of(tmp_path / "run"), sound.outcome["metrics"], strict=True)
    assert all(mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4) for mine, theirs in lines)


# -------------------------------------------------------------------------------------- promises 6 and 10: the folder


def test_promise_10_a_second_process_is_refused_and_the_first_goes_on(long_run: LongRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with faults.started([*long_run.arguments, str(folder)], folder) as (first, _):
        wait_for(lambda: lines_in(folder) > 1)
        os.kill(first.pid, signal.SIGSTOP)
        for arguments in (["--resume"], ["--overwrite"], []):
            second = faults.train([*long_run.arguments[:-2], *arguments, "--out", str(folder)], folder)
            assert second.status == 2
            assert f"{folder} is in use by process {first.pid} on " in second.err
            assert second.err.count("\n") == 1
        os.kill(first.pid, signal.SIGCONT)
        assert faults.wait(first, 60) == 0
    assert outcome(folder) == long_run.outcome


def test_promise_6_a_run_that_was_moved_goes_on(sound: Sound, tmp_path: Path) -> None:
    """Its folder, then its text; another text is refused."""
    file = tmp_path / "here.txt"
    shutil.copy(sound.file, file)
    done = train(
        file, tmp_path / "run", fault=Fault("SIGTERM", 7, within="fastmlp.training.schedule.Schedule.learning_rate")
    )
    assert done.status == 143
    resume = shlex.split(done.out.splitlines()[-1])[3:]
    (tmp_path / "run").rename(tmp_path / "moved")
    resume[-1] = str(tmp_path / "moved")
    file.rename(tmp_path / "there.txt")
    refused = faults.program(["train", *resume], tmp_path)
    did_you_mean = f"{file}: no such file; did you mean {tmp_path}/there.txt?"
    did_you_mean += f"; to name the run's text anew: FILE --resume --out {resume[-1]}"
    assert (refused.status, refused.err) == (2, f"fastmlp train: {did_you_mean}\n")
    (tmp_path / "there.txt").write_text("another text, with other words in it")
    refused = faults.program(["train", "there.txt", *resume], tmp_path)
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert f"was trained on another text ({file}): name that one, or another folder" in refused.err
    shutil.copy(sound.file, tmp_path / "there.txt")
    assert faults.program(["train", "there.txt", *resume], tmp_path).status == 0
    assert outcome(tmp_path / "moved") == sound.outcome


# --------------------------------------------------------------------------------------- promises 11 and 15: memory


def memory(process_id: int | str, what: str = "VmRSS") -> int:
    """Bytes that a process has in memory."""
    status = dict(line.split(":") for line in Path(f"/proc/{process_id}/status").read_text().splitlines())
    return 1024 * int(status[what].split()[0])


DRAWS_AT_ONCE = """
import sys
from fastmlp import train
from fastmlp.training import keeper
keeper.FIRST_PICTURE = 0.0
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("backend", ["cython", "numba"])
def test_promise_15_memory_does_not_grow_over_10_000_steps(
    backend: str, sound: Sound, tmp_path: Path, endurance: bool, tell: Tell
) -> None:
    """From the first tenth to the last step of a real run that logs, evaluates, writes samples and saves on the way.

    The first picture is drawn at once, not after ten seconds, which some take and some do not: Matplotlib has 30 MB.
    """
    require_ops(backend)
    if backend == "numba" and not endurance:
        pytest.skip("compiles for a while: with --endurance")
    steps = 10_000 if endurance else 1_000
    options = OPTIONS | {"steps": steps, "backend": backend, "log_every": steps // 100, "save_every": steps // 40}
    options |= {"eval_every": steps // 20, "sample_every": steps // 20}
    held = []
    arguments = [sound.file, *flags(options), "--out", tmp_path / "run", "--json"]
    with process("-c", DRAWS_AT_ONCE, *arguments) as child:
        assert child.stdout is not None
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "Measured" and event["metrics"]["step"] >= steps // 10:
                held.append(memory(child.pid))
            if event["event"] == "Measured" and event["metrics"]["step"] == steps - steps // 100:
                break  # the picture at the end takes what it takes
    begin, end = max(held[:10]), held[-1]
    tell(f"{backend}, {steps} steps: {begin / 1e6:.1f} MB after a tenth, {end / 1e6:.1f} MB at the end")
    assert end - begin < 2_000_000


PEAK = """
import sys
from fastmlp.train import main
from tests.accidents.test_endurance import memory
status = main(sys.argv[1:])
print(memory("self", "VmHWM"))
sys.exit(status)
"""


@pytest.mark.parametrize(("megabytes", "what"), [(500, "lines"), (100, "one line")])
def test_promise_11_and_promise_15_a_large_text_in_bounded_memory(
    megabytes: int, what: str, tmp_path: Path, endurance: bool, tell: Tell
) -> None:
    """It is trained on, in the memory that text.py states for reading, words and ids. The short form has a fiftieth."""
    words = [f"{'abcdefghij'[number % 10] * (1 + number % 9)}{number}" for number in range(20_000)]
    rng = random.Random(3)
    page = "".join(f"{' '.join(rng.choices(words, k=10))}.\n" for _ in range(2_000)).encode()
    if what == "one line":
        page = page.replace(b"\n", b" ")
    peaks = []
    for pages in (1, megabytes * 1_000_000 // len(page) // (1 if endurance else 50)):
        file = tmp_path / "large.txt"
        with file.open("wb") as large:
            for _ in range(pages):
                large.write(page)
        N, W = pages * len(page), pages * 2_000 * 11
        began = time.perf_counter()
        options = OPTIONS | {"steps": 2, "val_fraction": 0}  # to validate millions of words takes NumPy minutes
        arguments = [file, *flags(options), "--out", tmp_path / f"{pages} pages", "--quiet"]
        with process("-c", PEAK, *arguments) as child:
            out, err = child.communicate()
        assert (child.returncode, err) == (0, "")
        peaks.append(int(out))
        file.unlink()
    growth, seconds = peaks[1] - peaks[0], time.perf_counter() - began
    tell(f"{what} of {N / 1e6:.0f} MB, {W:,} words: {peaks[1] / 1e6:,.0f} MB at most, {seconds:.0f} s")
    assert growth < max(3 * N, N + 24 * W) + 10_000_000
