"""Promises 8, 11, 13 and 14 as users meet them: a table of what commands are given, their status and the line they say.

    pytest tests/accidents/test_bad_input.py                each in a process forked from one with everything imported
    pytest tests/accidents/test_bad_input.py --endurance    each as a command of its own

What the command is given is called `given` and lies beside a text, `story`, and a run, `sound`.
"""

import gzip
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests import faults
from tests.faults import Done
from tests.runs import ROOT, flags, learnable_text, process, small_options

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="has FIFOs, mounts and processes of Linux")

SMALL = " ".join(flags(small_options(steps=3)))
STORY = learnable_text().encode()
ENGLISH = b"It was a dark and stormy night. " * 20


@dataclass(frozen=True)
class Case:
    """A command, where {} stands for `given`, and what comes of it.

    given         bytes of a file; or a function that makes what lies there
    message       a part of the one line on standard error; empty if the status is 0
    unprivileged  run by a user who is subject to permissions, unlike root
    """

    given: bytes | Callable[[Path], None] | None
    status: int
    message: str = ""
    command: str = f"train {{}} {SMALL} --out run --quiet"
    stdin: bytes = b""
    unprivileged: bool = False


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder_in_itself(path: Path) -> None:
    path.mkdir()
    (path / "story.txt").write_bytes(STORY)
    (path / "again").symlink_to(path)
    (path / "again.txt").symlink_to(path)


def secret(path: Path) -> None:
    path.write_bytes(STORY)
    path.chmod(0)


def secret_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0)


def read_only_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o555)


class Boom:
    """Unpickling it makes a file in the current folder."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return Path("boom").touch, ()


def torch_file(path: Path) -> None:
    """What torch.save writes: a ZIP with a pickle in it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Boom()))


def npz_file(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weight=np.array([Boom()]))


def run_with_a_pickle(path: Path) -> None:
    path.mkdir()
    (path / "last.safetensors").write_bytes(pickle.dumps(Boom()))


A_PIPE = "a pipe or a device, not a file; read it from standard input, named -"
TEXTS = {
    "empty": Case(b"", 2, "{}: empty; name a text with words in it"),
    "blank": Case(b" \n\t\r\n", 2, "{}: empty; name a text with words in it"),
    "one word": Case(b"word", 2, "the text is too short: "),
    "two words": Case(b"two words", 2, "the text is too short: "),
    "shorter than the context": Case(b"a few words.", 0, command=f"train {{}} {SMALL} --context 9 --out run --quiet"),
    "one line": Case(STORY.replace(b"\n", b" "), 0),
    "a long line": Case(b"w" * 3_000_000 + b" " + STORY.replace(b"\n", b" "), 0),
    "only punctuation": Case(b"... !? -- ;\n" * 99, 2, "the text has no words, only punctuation or white space"),
    "the same word": Case(b"again " * 999, 0),
    "binary": Case(bytes(range(256)) * 9, 2, "{}: a NUL at byte 0: a binary file, not a text"),
    "a program": Case(Path(sys.executable).resolve().read_bytes()[:5000], 2, "{}: a program, not a text"),
    "NUL bytes": Case(
        b"one\0two " * 99, 2, "{}: a NUL at byte 3: a binary file, not a text; from text with stray NULs"
    ),
    "invalid UTF-8": Case(b"na\xefve " * 99, 2, "{}: not UTF-8 at byte 2 (0xef); if it is Windows-1252 or Latin-1"),
    "invalid UTF-8 far in": Case(STORY * 99 + b"\xff", 2, f"{{}}: not UTF-8 at byte {len(STORY) * 99:,} (0xff)"),
    "cut in a character": Case("naïve".encode()[:3], 2, "{}: not UTF-8 at byte 2 (0xc3): cut short in the middle of a"),
    "UTF-16": Case(ENGLISH.decode().encode("utf-16"), 2, "{}: UTF-16, not UTF-8; convert it with: iconv -f UTF-16 "),
    "UTF-16 unmarked": Case(ENGLISH.decode().encode("utf-16-be"), 2, "{}: UTF-16BE, not UTF-8; convert it with: "),
    "byte order mark": Case(b"\xef\xbb\xbf" + STORY, 0),
    "CRLF": Case(STORY.replace(b"\n", b"\r\n"), 0),
    "CR": Case(STORY.replace(b"\n", b"\r"), 0),
    "gz": Case(gzip.compress(STORY), 0, command=f"train {{}}.gz {SMALL} --out run --quiet"),
    "gz cut short": Case(gzip.compress(STORY)[:-9], 2, "{}.gz: the compressed file is cut short; ", "train {}.gz"),
    "gz damaged": Case(
        gzip.compress(STORY)[:-8] + bytes(8), 2, "{}.gz: packed by gzip, and damaged (CRC", "train {}.gz"
    ),
    "gz that is none": Case(STORY, 0, command=f"train {{}}.gz {SMALL} --out run --quiet"),
    "gz without its ending": Case(gzip.compress(STORY), 0),
    "a PDF": Case(b"%PDF-1.7\n\x93", 2, "{}: a PDF file, not plain text; convert it first, e.g. with pdftotext"),
    "an EPUB": Case(b"PK\x03\x04\x0a", 2, "{}: an EPUB or ZIP file that is damaged (File is not a zip"),
    "an empty validation file": Case(b"", 2, "{}: empty; name a text", f"train story {SMALL} --val-file {{}}"),
    "a validation file without words": Case(b"!!! --\n", 2, "{}: no words, ", f"train story {SMALL} --val-file {{}}"),
    "a validation file that cannot be read again": Case(
        None, 2, "--val-file: expected a file, which can be read again when ", "train story --val-file -", STORY
    ),
    # and where it comes from
    "standard input": Case(None, 0, command=f"train - {SMALL} --out run --quiet", stdin=STORY),
    "empty standard input": Case(None, 2, "standard input: empty; name a text with words in it", "train -"),
    "standard input in Latin-1": Case(None, 2, "standard input: not UTF-8 at byte 2 (0xe9)", "train -", b"ab\xe9d"),
    "a FIFO": Case(fifo, 2, f"{{}}: {A_PIPE}"),
    "a device": Case(None, 2, f"/dev/zero: {A_PIPE}", "train /dev/zero"),
    "a folder": Case(folder_in_itself, 0, command=f"train {{}}/again/again {SMALL} --out run --quiet"),
    "the same file twice": Case(None, 2, "./story: the same file as story; name it once", "train story ./story"),
    "a folder and a file of it": Case(
        folder_in_itself, 2, "{}/story.txt: the same file as {}/story.txt; ", "train {} {}/story.txt"
    ),
    "an empty folder": Case(Path.mkdir, 2, "{}: a folder without *.txt, *.text, *.epub, "),
    "a loop of links": Case(loop, 2, "{}: cannot be read: Too many levels of symbolic links"),
    "missing": Case(None, 2, "stroy: no such file; did you mean story?", "train stroy"),
    "missing folder": Case(None, 2, "no/story: there is no folder no", "train no/story"),
    "unreadable": Case(secret, 2, "{}: cannot be read: Permission denied", unprivileged=True),
    "unreadable folder": Case(secret_folder, 2, "{}: cannot be read: Permission denied", unprivileged=True),
    "a model": Case(None, 2, "model.safetensors: a safetensors model file, not text", "train sound/model.safetensors"),
    "a run": Case(None, 2, "sound: the folder of a run, not a text", "train sound"),
}
MODELS = {
    "a text as a model": Case(STORY, 2, "cannot load {}: it is a text, not a trained model", "generate {} anna"),
    "a pickle": Case(pickle.dumps(Boom()), 2, "cannot load {}: it is not a safetensors file", "generate {} anna"),
    "a ZIP of torch": Case(torch_file, 2, "cannot load {}: it is not a safetensors file", "evaluate {} story"),
    "an npz": Case(npz_file, 2, "cannot load {}: it is not a safetensors file", "neighbors {} anna"),
    "no model": Case(None, 2, "cannot load nowhere: there is no such file", "generate nowhere anna"),
    "an empty model": Case(b"", 2, "cannot load {}: it is empty", "generate {} anna"),
    "a FIFO as a model": Case(fifo, 2, "cannot load {}: it is not a regular file", "generate {} anna"),
    "the state to resume from": Case(None, 0, "", "neighbors sound/last.safetensors anna -n 1"),
    "a resumed pickle": Case(
        run_with_a_pickle,
        2,
        "cannot load {}/last.safetensors: it is not a safetensors file",
        f"train story {SMALL} --resume --out {{}}",
    ),
}
RATES = {
    "no number": Case(
        None,
        1,
        "try a lower one, such as --lr 0.1; nothing is saved",
        f"train story {SMALL} --optimizer sgd --lr 1e30 --warmup 0 --out run --quiet",
    ),
}
FOLDERS = {
    "a file as the folder": Case(STORY, 2, "cannot write to the folder {}: ", f"train story {SMALL} --out {{}}"),
    "a folder in a file": Case(STORY, 2, "cannot write to the folder {}/run: ", f"train story {SMALL} --out {{}}/run"),
    "a read-only folder": Case(
        read_only_folder,
        2,
        "cannot write to the folder {}/run: Permission denied; choose another",
        f"train story {SMALL} --out {{}}/run",
        unprivileged=True,
    ),
    "a read-only system": Case(
        None, 2, "cannot write to the folder /proc/run: ", f"train story {SMALL} --out /proc/run"
    ),
    "a run that is there": Case(None, 2, "sound already holds a run: go on", f"train story {SMALL} --out sound"),
}
CASES = TEXTS | MODELS | RATES | FOLDERS


def without_privileges() -> list[str] | None:
    """Return how to run as a user who is subject to permissions, unlike root; None if that is impossible."""
    if os.geteuid() != 0:
        return []
    if shutil.which("unshare") and subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode == 0:
        return ["unshare", "--user"]
    return None


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "story").write_bytes(STORY)
    with process("-m", "fastmlp", "train", "story", *SMALL.split(), "--out", "sound", "--quiet", cwd=folder) as child:
        assert child.communicate() == ("", "")
    return folder


@pytest.fixture(scope="module")
def ended(sound: Path, tmp_path_factory: pytest.TempPathFactory, endurance: bool) -> Iterator[dict[str, Done | None]]:
    """What came of each case, as many at a time as there are cores."""
    places = {name: tmp_path_factory.mktemp("case") for name in CASES}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda name: run_case(CASES[name], places[name], sound, forked=not endurance), CASES)
        yield dict(zip(CASES, done, strict=True))
    for place in places.values():  # or pytest cannot remove them
        for path in place.iterdir():
            if not path.is_symlink():
                path.chmod(0o755)


def run_case(case: Case, place: Path, sound: Path, *, forked: bool) -> Done | None:
    """What came of it; None where it cannot be tried."""
    (place / "story").write_bytes(STORY)
    shutil.copytree(sound / "sound", place / "sound")
    command = case.command.replace("{}", "given").split()
    given = place / ("given.gz" if "given.gz" in command else "given")
    if callable(case.given):
        case.given(given)
    elif case.given is not None:
        given.write_bytes(case.given)
    if case.unprivileged or not forked:
        before = without_privileges() if case.unprivileged else []
        done = None if before is None else subprogram(before, command, place, case.stdin)
    else:
        done = faults.program(command, place, case.stdin)
    left = [path.name for path in place.iterdir()]
    assert "boom" not in left, "code of the file was run"
    assert case.status == 0 or "runs" not in left
    return done


def subprogram(before: list[str], command: list[str], place: Path, stdin: bytes) -> Done:
    done = subprocess.run(
        [*before, sys.executable, "-m", "fastmlp", *command],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        input=stdin,
        capture_output=True,
        timeout=300,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode(), [])


@pytest.mark.parametrize("name", TEXTS)
def test_promise_11_a_text_is_trained_on_or_refused(name: str, ended: dict[str, Done | None]) -> None:
    judge(name, ended)


@pytest.mark.parametrize("name", MODELS)
def test_promise_8_what_is_no_model_is_refused(name: str, ended: dict[str, Done | None]) -> None:
    judge(name, ended)


@pytest.mark.parametrize("name", RATES)
def test_promise_13_a_loss_that_is_no_number_stops_the_run(name: str, ended: dict[str, Done | None]) -> None:
    judge(name, ended)


@pytest.mark.parametrize("name", FOLDERS)
def test_promise_14_a_folder_that_cannot_be_written_is_refused(name: str, ended: dict[str, Done | None]) -> None:
    judge(name, ended)


def judge(name: str, ended: dict[str, Done | None]) -> None:
    """One line that says what to do, no traceback, and its status; or it simply works."""
    case, done = CASES[name], ended[name]
    if done is None:
        pytest.skip("root may do everything here")
    lines = [line for line in done.err.splitlines() if not line.startswith("note: ")]  # as of missing kernels
    assert done.status == case.status, done.err
    if case.status == 0:
        assert lines == []
        return
    assert len(lines) == 1, done.err
    program, _, message = lines[0].partition(": ")
    assert program == f"fastmlp {case.command.split()[0]}"
    assert case.message.replace("{}", "given") in message
    assert len(message) < 400


def test_promise_11_debug_shows_where(sound: Path) -> None:
    with process("-m", "fastmlp", "train", "missing", "--debug", cwd=sound) as child:
        _, err = child.communicate()
    assert child.returncode == 2
    assert err.startswith("Traceback (most recent call last):")
    assert "TextError: missing: no such file" in err
