"""Promises 5, 7, 8, 10 and 14: what is saved comes back exactly, or one line says why not."""

import contextlib
import errno
import hashlib
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import fastmlp
from fastmlp.errors import CheckpointError, FolderInUseError
from fastmlp.files.atomic import LOCK_FILE, check_writable, lock_folder, write_atomically
from fastmlp.files.checkpoint import load, save

ROOT = Path(fastmlp.__file__).parents[1]
DTYPES = ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">i4", ">f4", ">f8"]
TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(7, np.int64),
    "none": np.zeros((0, 4), np.int32),
}
METADATA = {"words": ["the", "naïve", '"\\'], "lr": 0.1, "best": None}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals, limits and fork are POSIX")


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, array in tensors.items():
        want = expected[name]
        assert array.dtype == want.dtype.newbyteorder("=")
        assert array.dtype.isnative
        assert array.shape == want.shape
        assert array.tobytes() == np.asarray(want, array.dtype).tobytes()  # NaN has bits too
        assert array.flags.writeable
        assert array.flags.owndata
        assert array.flags.c_contiguous


def refusal(path):
    """What `load` says, which must be one line naming the file."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith("cannot load ")
    assert message.isprintable()
    return message


def python(code):
    """A Python program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    save(path, TENSORS, METADATA)
    return path


# -------------------------------------------------------------------------------------- promise 5: what a checkpoint is

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name != "__metadata__")
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


@settings(max_examples=100)
@given(st.dictionaries(names, arrays, max_size=4), st.dictionaries(st.text(), json_values, max_size=4))
def test_promise_5_everything_comes_back(tmp_path_factory, tensors, metadata):
    path = tmp_path_factory.getbasetemp() / "round_trip.safetensors"
    save(path, tensors, metadata)
    loaded, loaded_metadata = load(path)
    assert_same(loaded, tensors)
    assert repr(loaded_metadata) == repr(metadata)  # -0.0 and True are not 0.0 and 1


@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed", "broadcast", "read-only", "fortran"])
def test_promise_5_any_memory_layout(path, layout):
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    laid_out = {
        "transposed": array.T,
        "strided": array[::2, 1::2],
        "reversed": array[::-1],
        "broadcast": np.broadcast_to(array[0], (3, 6)),
        "read-only": np.frombuffer(array.tobytes(), np.float32),
        "fortran": np.asfortranarray(array),
    }[layout]
    save(path, {"array": laid_out}, {})
    assert_same(load(path)[0], {"array": laid_out})


def test_promise_5_is_a_safetensors_file_with_one_metadata_key(saved):
    tensors = safetensors.numpy.load_file(saved)
    assert_same({name: array.copy() for name, array in tensors.items()}, TENSORS)
    with safetensors.safe_open(saved, framework="np") as file:
        assert list(file.metadata()) == ["fastmlp"]
        assert json.loads(file.metadata()["fastmlp"])["metadata"] == METADATA


def test_promise_5_all_numbers_are_aligned(path):
    """So that whoever maps the file into memory may use them where they lie."""
    save(path, {dtype: np.ones(3, dtype) for dtype in DTYPES}, {"odd": "x"})
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    del header["__metadata__"]
    for dtype, tensor in header.items():
        assert (8 + length + tensor["data_offsets"][0]) % np.dtype(dtype).itemsize == 0
    assert_same(
        {name: array.copy() for name, array in safetensors.numpy.load_file(path).items()},
        {dtype: np.ones(3, dtype) for dtype in DTYPES},
    )


def test_promise_5_same_contents_same_bytes(saved, tmp_path):
    save(tmp_path / "again", dict(reversed(TENSORS.items())), METADATA)
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_promise_5_the_digest_covers_names_dtypes_shapes_and_bytes(saved):
    with safetensors.safe_open(saved, framework="np") as file:
        envelope = json.loads(file.metadata()["fastmlp"])
    described = [["none", "I32", [0, 4]], ["step", "I64", []], ["weight", "F32", [2, 3]]]
    digest = hashlib.sha256(json.dumps([1, METADATA, described], separators=(",", ":")).encode())
    digest.update(TENSORS["step"].tobytes() + TENSORS["weight"].tobytes())
    assert envelope == {"format": 1, "sha256": digest.hexdigest(), "metadata": METADATA}


@POSIX
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_promise_5_the_umask_sets_the_mode(path, umask, mode):
    before = os.umask(umask)
    try:
        save(path, TENSORS, METADATA)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(
    "value", [float("nan"), [1, float("-inf")], (1, 2), {1: 2}, np.float32(1), b"", {1}], ids=lambda value: repr(value)
)
def test_metadata_that_would_not_come_back_is_refused(saved, value):
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="metadata: lr: "):
        save(saved, TENSORS, {"lr": value})
    assert saved.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "tensor", "error"),
    [
        ("a", [1.0], TypeError),
        ("a", np.float32(1), TypeError),
        ("a", np.zeros(1, complex), TypeError),
        ("a", np.zeros(1, object), TypeError),
        ("a", np.zeros(1, "U1"), TypeError),
        (1, np.zeros(1), TypeError),
        ("__metadata__", np.zeros(1), ValueError),
    ],
)
def test_tensors_that_a_file_cannot_hold_are_refused(path, name, tensor, error):
    with pytest.raises(error, match="tensors: "):
        save(path, {name: tensor}, {})
    assert not path.exists()


def test_metadata_beyond_the_format_is_refused(path):
    with pytest.raises(CheckpointError, match=r"\(100,000,\d+ bytes of metadata\): more than a header holds"):
        save(path, {}, {"text": "x" * 100_000_000})
    assert not path.exists()


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
    """The file is the new one then, whatever happens; only a system that has no such call is no failure."""
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
def test_promise_7_a_disk_that_ends_in_the_middle(saved):
    """The system's own limit instead of a pretended one."""
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


# --------------------------------------------------------------------------------- promise 8: never garbage, never code


def test_promise_8_every_truncation(saved):
    whole = saved.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        message = refusal(saved)
        assert ("it is empty" if length == 0 else "it is cut short") in message
        if length >= header:
            assert f"({length:,} of {len(whole):,} bytes)" in message


def test_promise_8_every_bit(saved):
    whole = bytearray(saved.read_bytes())
    for bit in range(8 * len(whole)):
        whole[bit // 8] ^= 1 << bit % 8
        saved.write_bytes(whole)
        refusal(saved)
        whole[bit // 8] ^= 1 << bit % 8
    saved.write_bytes(whole)
    assert_same(load(saved)[0], TENSORS)


def test_promise_8_damage_is_called_damage(saved):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert refusal(saved) == (
        f"cannot load {saved}: it is damaged (its contents do not match their SHA-256); "
        "use a copy, or another checkpoint of its run"
    )
    saved.write_bytes(whole + b"\0")
    assert "it is damaged (it goes on where it should end)" in refusal(saved)


def with_header(header, data=b"", length=None):
    """A safetensors file around a header."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def with_envelope(envelope, **tensors):
    return {"__metadata__": {"fastmlp": envelope if isinstance(envelope, str) else json.dumps(envelope)}, **tensors}


def with_tensors(data, **tensors):
    """A file whose metadata is well-formed and whose tensors are (shape, offsets, dtype)."""
    entries = {
        name: {"shape": shape, "data_offsets": offsets, "dtype": dtype}
        for name, (shape, offsets, dtype) in tensors.items()
    }
    return with_header(with_envelope({"format": 1, "metadata": {}}, **entries), bytes(data))


class Boom:
    """Unpickling it makes a file in the current folder."""

    def __reduce__(self):
        return Path("boom").touch, ()


FILES = {
    "pickle": (pickle.dumps(Boom()), "it is not a safetensors file"),
    "zip": (b"PK\x03\x04" + bytes(100), "it is not a safetensors file"),
    "text": (b"It was the best of times, it was the worst of times", "it is not a safetensors file"),
    "text with a brace": (b"\\author {Anthony Trollope}", "it is not a safetensors file"),
    "zeros": (bytes(1000), "it is not a safetensors file"),
    "a few bytes": (b"hello", "it is cut short, or not of fastmlp (5 bytes)"),
    "other safetensors": (safetensors.numpy.save(TENSORS), "it is a safetensors file, but not one of fastmlp"),
    "other metadata": (safetensors.numpy.save(TENSORS, {"format": "pt"}), "it is a safetensors file, but not one of"),
    "metadata no object": (with_header({"__metadata__": 3}), "it is a safetensors file, but not one of fastmlp"),
    "header without end": (with_header({}, length=2**64 - 1), "it is not a safetensors file"),
    "header too long": (with_header({}, length=90_000_000), "it is cut short (10 of at least 90,000,008 bytes)"),
    "header empty": (with_header(b"", b"{}"), "its header is not readable"),
    "header deep": (with_header(b'{"a":' * 100_000), "its header is not readable"),
    "header with a long number": (with_header(b'{"a":' + b"1" * 5000 + b"}"), "its header is not readable"),
    "header no UTF-8": (with_header(b'{"a\xff":1}'), "its header is not readable"),
    "newer": (
        with_header(with_envelope({"format": 2, "news": []})),
        "a newer fastmlp wrote it (format 2, this one reads 1); upgrade fastmlp",
    ),
    "envelope no JSON": (with_header(with_envelope("{")), "its metadata is not readable"),
    "envelope no object": (with_header(with_envelope([1])), "its metadata is not readable"),
    "envelope empty": (with_header(with_envelope({})), "its metadata is not readable"),
    "envelope with NaN": (with_header(with_envelope('{"format":1,"metadata":{"a":NaN}}')), "SHA-256"),
    "wrong digest": (with_tensors(4, a=([1], [0, 4], "F32")), "SHA-256"),
    "huge tensor": (with_tensors(0, a=([2**40], [0, 2**42], "F32")), "it is cut short ("),
    "absurd tensor": (with_tensors(0, a=([2**200, 0], [0, 0], "F32")), "its tensor 'a' has an impossible shape"),
    "many axes": (with_tensors(4, a=([1] * 65, [0, 4], "F32")), "its tensor 'a' has an impossible shape"),
    "overlap": (
        with_tensors(4, a=([1], [0, 4], "F32"), b=([1], [0, 4], "F32")),
        "its tensor 'b' is not where it should",
    ),
    "gap": (with_tensors(8, a=([1], [4, 8], "F32")), "its tensor 'a' is not where it should"),
    "negative": (with_tensors(0, a=([-1], [0, -4], "F32")), "its tensor 'a' is not where it should"),
    "wrong length": (with_tensors(4, a=([3], [0, 4], "F32")), "its tensor 'a' is not where it should"),
    "fraction": (with_tensors(4, a=([1.0], [0, 4], "F32")), "its tensor 'a' is not where it should"),
    "unknown dtype": (with_tensors(4, a=([1], [0, 4], "F8")), "its tensor 'a' is not readable"),
    "dtype no name": (with_tensors(4, a=([1], [0, 4], [])), "its tensor 'a' is not readable"),
    "tensor no object": (with_header(with_envelope({"format": 1}, **{"a\n": 3})), r"its tensor 'a\n' is not readable"),
}


@pytest.mark.parametrize("kind", FILES)
def test_promise_8_foreign_and_impossible_files(path, monkeypatch, kind):
    """One line, no code run, and no memory taken on the word of the file."""
    data, expected = FILES[kind]
    path.write_bytes(data)
    monkeypatch.chdir(path.parent)
    tracemalloc.start()
    try:
        message = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert expected in message
    assert peak < 10_000_000
    assert list(path.parent.iterdir()) == [path]


def test_promise_8_no_file_at_all(tmp_path):
    (tmp_path / "empty").touch()
    assert refusal(tmp_path / "empty").endswith("it is empty; name a file that fastmlp has saved")
    assert refusal(tmp_path).endswith("it is a folder; name a file that fastmlp has saved")
    for missing in ("missing", "empty/below", "two\nlines", "nul\0"):
        assert refusal(tmp_path / missing).endswith("there is no such file; name a file that fastmlp has saved")


@POSIX
def test_promise_8_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "it is not a regular file" in refusal(tmp_path / "pipe")


def test_promise_8_a_failing_disk(saved, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    assert refusal(saved) == f"cannot load {saved}: Input/output error"


@settings(max_examples=200)
@given(
    st.binary(max_size=50)
    | st.builds(with_header, json_values, st.binary(max_size=8))
    | st.builds(
        with_header,
        st.builds(with_envelope, st.just({"format": 1, "metadata": {}}) | json_values, a=json_values),
        st.binary(max_size=8),
    )
)
def test_promise_8_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any_bytes"
    path.write_bytes(data)
    refusal(path)


# ---------------------------------------------------------------------------------------- promise 10: one run at a time

HOLD = """
    import os, subprocess, sys, time
    from fastmlp.files.atomic import lock_folder
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
    """A process that holds the lock, and the id of the child that it has, if any."""
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
    """Whatever the killed process had started lives on without it."""
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
