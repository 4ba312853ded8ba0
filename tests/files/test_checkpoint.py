"""Promises 5 and 8: a checkpoint is restored exactly; a damaged or foreign file is refused in one line."""

import errno
import hashlib
import json
import os
import pickle
import stat
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.errors import CheckpointError
from fastmlp.files.checkpoint import load, save
from tests.files.helpers import METADATA, POSIX, TENSORS, assert_same

DTYPES = ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">i4", ">f4", ">f8"]


def refusal(path):
    """Return the error of `load`, which must be one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith("cannot load ")
    assert message.isprintable()
    return message


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
    """So that a program that maps the file into memory can use them in place."""
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
    """One line, no code is run, and no memory is allocated just because the header says so."""
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
