"""Promises 6, 7, 10 and 14: a file is whole or as it was, and a folder has one writer."""

import contextlib
import errno
import os
import signal
import stat
from pathlib import Path

import numpy as np
import pytest

from fastmlp.errors import CheckpointError, FolderInUseError
from fastmlp.files.atomic import LOCK_FILE, check_writable, lock_folder, move, write_atomically
from fastmlp.files.checkpoint import load, save
from tests.files.helpers import POSIX, assert_same, python

# -------------------------------------------------------------------------------- promise 7: writing, or nothing at all


NEW = {"weight": np.ones(1000)}
STEPS = ["open", "write", "flush", "fsync", "close", "replace"]
FULL = OSError(errno.ENOSPC, "No space left on device")


class FailingFile:
    """A file of which one method fails; `write` half way."""

    def __init__(self, file, step, error):
        self.file, self.step, self.error = file, step, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        if self.step == "close":
            raise self.error

    def write(self, data):
        if self.step == "write":
            self.file.write(data[: len(data) // 2])
            raise self.error
        self.file.write(data)

    def flush(self):
        if self.step == "flush":
            raise self.error
        self.file.flush()

    def fileno(self):
        return self.file.fileno()


def break_writing(monkeypatch, step, error):
    def fail(*_):
        raise error

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif step in ("open", "replace"):
        monkeypatch.setattr(Path, step, fail)
    else:
        opened = Path.open
        monkeypatch.setattr(Path, "open", lambda path, mode: FailingFile(opened(path, mode), step, error))


@pytest.mark.parametrize("step", STEPS)
def test_promise_7_failing_keeps_the_old_file(saved, monkeypatch, step):
    before = saved.read_bytes()
    with monkeypatch.context() as patch:
        break_writing(patch, step, FULL)
        with pytest.raises(CheckpointError) as caught:
            save(saved, NEW, {})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
    save(saved, NEW, {})
    needed = saved.stat().st_size
    assert str(caught.value) == f"cannot write {saved} ({needed:,} bytes): No space left on device"


@pytest.mark.parametrize("step", STEPS)
def test_promise_7_interrupted_keeps_the_old_file(saved, monkeypatch, step):
    before = saved.read_bytes()
    with monkeypatch.context() as patch:
        break_writing(patch, step, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            save(saved, NEW, {})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@POSIX
@pytest.mark.parametrize(("code", "told"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_promise_7_the_folder_is_flushed_after_the_renaming(saved, monkeypatch, code, told):
    """The file is already replaced then; only a system without that call counts as success."""
    synced = os.fsync
    folders = []

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            assert_same(load(saved)[0], NEW)
            folders.append(os.fstat(descriptor).st_ino)
            raise OSError(code, os.strerror(code))
        synced(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(CheckpointError, match="Input/output error") if told else contextlib.nullcontext():
            save(saved, NEW, {})
    assert folders == [saved.parent.stat().st_ino]
    assert_same(load(saved)[0], NEW)
    assert list(saved.parent.iterdir()) == [saved]


@POSIX
def test_promise_7_a_file_that_takes_the_place_of_another_does_so_for_good(saved, monkeypatch):
    new, synced = saved.with_name("new"), os.fsync
    save(new, NEW, {})
    folders = []

    def fsync(descriptor):
        folders.append(os.fstat(descriptor).st_ino)
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    move(new, saved)
    assert folders == [saved.parent.stat().st_ino]
    assert_same(load(saved)[0], NEW)
    with pytest.raises(CheckpointError, match=r"^cannot replace .*: No such file or directory$"):
        move(new, saved)
    assert_same(load(saved)[0], NEW)


@POSIX
def test_promise_7_a_disk_that_ends_in_the_middle(saved):
    """With the system's own limit instead of a simulated one."""
    before = saved.read_bytes()
    code = f"""
        import resource, numpy as np
        from fastmlp.errors import CheckpointError
        from fastmlp.files.checkpoint import save
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save({str(saved)!r}, {{"weight": np.zeros(100_000)}}, {{}})
        except CheckpointError as error:
            print(error)
    """
    message = python(code).communicate(timeout=60)[0]
    assert message.startswith(f"cannot write {saved} (800,")
    assert message.endswith(" bytes): File too large\n")
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("name", ["missing/file", "", ".", "/", "nul\0", "two\nlines/file", "x" * 300])
def test_promise_7_impossible_paths(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="cannot write ") as caught:
        write_atomically(name, b"data")
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_write_atomically_makes_and_replaces(tmp_path):
    for data in (b"", b"first", b"\0" * 100_000, b"last"):
        write_atomically(str(tmp_path / "file"), data)
        assert (tmp_path / "file").read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    import numpy as np
    from fastmlp.files import checkpoint
    from fastmlp.files.atomic import LOCK_FILE, lock_folder

    path = Path(sys.stdin.readline().strip())
    die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    class DyingFile:
        def __init__(self, file): self.file = file
        def __enter__(self): return self
        def __exit__(self, *_): self.file.close()
        def write(self, data):
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            die()

    def save(value):
        checkpoint.save(path, {"weight": np.full(50_000, value)}, {"value": value})

    def save_dying(step):
        opened, replaced = Path.open, Path.replace
        if step == "half written":
            Path.open = lambda path, mode: DyingFile(opened(path, mode))
        elif step == "written":
            os.fsync = die
        elif step == "flushed":
            Path.replace = die
        elif step == "renamed":
            Path.replace = lambda *paths: (replaced(*paths), die())
        save(2)

    def save_forever():
        while True:
            for value in range(10): save(value)

    def in_child(work, *arguments):
        child = os.fork()
        if child == 0:
            try:
                work(*arguments)
            finally:
                os._exit(1)
        return child

    def value_after(child):
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        tensors, metadata = checkpoint.load(path)
        assert (tensors["weight"] == metadata["value"]).all()
        with lock_folder(path.parent):
            assert {file.name for file in path.parent.iterdir()} == {path.name, LOCK_FILE}
        return metadata["value"]

    save(1)
    for step, value in {"half written": 1, "written": 1, "flushed": 1, "renamed": 2}.items():
        assert value_after(in_child(save_dying, step)) == value, step
    random.seed(1)
    for _ in range(20):
        child = in_child(save_forever)
        time.sleep(random.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert value_after(child) in range(10)
    print("intact")
"""


@POSIX
def test_promise_6_killed_while_writing(path):
    """SIGKILL at every step and at random moments leaves one whole checkpoint, and the next run cleans up."""
    assert python(KILLED).communicate(f"{path}\n", timeout=60)[0] == "intact\n"


# ---------------------------------------------------------------------------------------- promise 10: one run at a time


HOLD = """
    import os, subprocess, sys, time
    from fastmlp.files.atomic import LOCK_FILE, lock_folder
    with lock_folder(sys.stdin.readline().strip()):
        child = 0
        if "CHILD" == "forked":
            if os.fork() == 0:
                print(os.getpid(), flush=True)  # by now it has let go of the lock
                time.sleep(60)
        else:
            if "CHILD" == "started":
                child = subprocess.Popen(["sleep", "60"], close_fds=False).pid
            print(child, flush=True)
        sys.stdin.read()
"""


@contextlib.contextmanager
def holder(folder, child=""):
    """Yield a process that holds the lock, and the id of its child, if any."""
    process = python(HOLD.replace("CHILD", child))
    child_id = 0
    try:
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        child_id = int(process.stdout.readline())
        yield process, child_id
    finally:
        process.kill()
        process.wait()
        if child_id:
            os.kill(child_id, signal.SIGKILL)
        process.stdin.close()
        process.stdout.close()


def locked(folder):
    try:
        with lock_folder(folder):
            return False
    except FolderInUseError:
        return True


def test_promise_10_the_second_names_the_first(tmp_path):
    with holder(tmp_path) as (process, _):
        with pytest.raises(FolderInUseError) as caught, lock_folder(tmp_path):
            pass
        assert str(caught.value).startswith(f"{tmp_path} is in use by process {process.pid} on ")
        assert str(caught.value).endswith("; wait for its end or choose another folder")
        assert str(caught.value).isprintable()
        process.stdin.close()  # it ends by itself
        process.wait(timeout=30)
        assert not locked(tmp_path)


@POSIX
@pytest.mark.parametrize("child", ["", "forked", "started"])
def test_promise_10_the_lock_dies_with_its_holder(tmp_path, child):
    """A child of the killed process survives it, without the lock."""
    with holder(tmp_path, child) as (process, child_id):
        assert locked(tmp_path)
        process.kill()
        process.wait(timeout=30)
        assert not locked(tmp_path)
        if child:
            os.kill(child_id, 0)  # raises if the child is gone


@POSIX
def test_promise_10_a_forked_child_has_nothing_to_release(tmp_path):
    code = """
        import os, sys
        from fastmlp.errors import FolderInUseError
        from fastmlp.files.atomic import lock_folder
        folder = sys.stdin.readline().strip()
        with lock_folder(folder):
            child = os.fork()
            if child:
                _, status = os.waitpid(child, 0)
                print("held" if status == 0 else "lost")
        if child == 0:  # it has left the block as its parent will
            try:
                with lock_folder(folder):
                    os._exit(1)
            except FolderInUseError as error:
                os._exit(f"process {os.getppid()} on" not in str(error))
    """
    assert python(code).communicate(f"{tmp_path}\n", timeout=60)[0] == "held\n"


def test_promise_10_within_one_process(tmp_path):
    with lock_folder(tmp_path):
        assert locked(tmp_path)
        assert locked(tmp_path / ".." / tmp_path.name)
    with pytest.raises(OSError, match="of the caller"), lock_folder(tmp_path):
        raise OSError("of the caller")
    assert not locked(tmp_path)
    assert (tmp_path / LOCK_FILE).read_bytes() == b""  # nobody is named any more


def test_the_lock_removes_what_a_killed_run_left(tmp_path):
    (tmp_path / ".fastmlp-0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "notes.tmp").write_bytes(b"the user's")
    with lock_folder(tmp_path):
        assert {file.name for file in tmp_path.iterdir()} == {LOCK_FILE, "notes.tmp"}


@pytest.mark.parametrize("folder", ["missing", "file", "nul\0"])
def test_a_folder_that_cannot_be_locked(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot lock the folder ") as caught, lock_folder(tmp_path / folder):
        pass
    assert not isinstance(caught.value, FolderInUseError)


# -------------------------------------------------------------------------------- promise 14: found before the training


def test_promise_14_a_writable_folder_is_made_and_left_empty(tmp_path):
    for _ in range(2):
        check_writable(tmp_path / "runs" / "novel")
        assert list((tmp_path / "runs" / "novel").iterdir()) == []


@pytest.mark.parametrize("folder", ["file", "file/below", "nul\0", "x" * 300])
def test_promise_14_an_impossible_folder(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write to the folder .*; choose another$"):
        check_writable(tmp_path / folder)


@pytest.mark.parametrize("step", STEPS)
def test_promise_14_a_full_disk(tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:
        break_writing(patch, step, FULL)
        with pytest.raises(CheckpointError) as caught:
            check_writable(tmp_path)
    assert str(caught.value) == f"cannot write to the folder {tmp_path}: No space left on device; choose another"
    assert list(tmp_path.iterdir()) == []
