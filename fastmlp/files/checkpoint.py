"""Checkpoints: tensors and metadata in one safetensors file, with a digest that reveals any damage.

A checkpoint is one safetensors file: the tensors and a single metadata key, "fastmlp", whose JSON is

    {"format": 1, "sha256": "...", "metadata": {...}}

The SHA-256 covers the metadata and each tensor's name, dtype, shape and bytes, so that a flipped bit and a lost
piece are both detected. Reading a checkpoint runs no code of the file: it is JSON and plain numbers.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from fastmlp.errors import CheckpointError
from fastmlp.files.atomic import PathLike, _reason, _show, write_atomically

__all__ = ["Blocks", "check_room", "is_checkpoint", "load", "save"]

Array = np.ndarray
FORMAT = 1  # incremented when earlier versions can no longer read the files
KEY = "fastmlp"
LONGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
ROOM = 1 << 20  # bytes of a header that tensors, and metadata that grows with the steps, may take

_DTYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}
_DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


# ------------------------------------------------------------------------------------------------- saving and loading


@dataclass(frozen=True)
class Blocks:
    """A tensor that is nowhere whole: it is written a block of rows after the other.

    blocks  yields them in order; it is called once
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[Array]]

    @property
    def nbytes(self) -> int:
        """The size of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


def save(path: PathLike, tensors: Mapping[str, Array | Blocks], metadata: Mapping[str, Any]) -> None:
    """Write a checkpoint, which `load` restores exactly; on failure an existing file stays as it is.

    path      file to write or replace; its folder must exist
    tensors   by name: booleans, integers or floats of up to 64 bits, of any shape and memory layout; or Blocks of them
    metadata  what JSON holds exactly: str keys, lists, str, bool, int, None and finite float (JSON has no NaN)
    Raises TypeError or ValueError for what a checkpoint cannot hold, CheckpointError where it cannot be written.
    Memory: the file's bytes for a moment, and copies of those tensors that are not C-contiguous; with Blocks only these
    copies, and a block.
    """
    arrays = {name: _plain(name, tensors[name]) for name in sorted(tensors)}
    _check_metadata(metadata)
    wide_first = dict(sorted(arrays.items(), key=lambda named: -named[1].dtype.itemsize))  # all numbers are aligned
    plain = {name: array for name, array in wide_first.items() if not isinstance(array, Blocks)}
    in_blocks = len(plain) < len(arrays)
    text = _envelope("0" * 64 if in_blocks else _digest(metadata, plain), metadata)
    header = _header(text, wide_first)
    if len(header) > LONGEST_HEADER:
        raise CheckpointError(f"cannot write {_show(path)} ({len(text):,} bytes of metadata): more than a header holds")
    begin = len(header).to_bytes(8, "little")
    if in_blocks:
        size = 8 + len(header) + sum(array.nbytes for array in arrays.values())
        write_atomically(path, partial(_write_blocks, metadata=metadata, arrays=wide_first), size)
        return
    # written without the library, which takes twice the memory and three times the time, while training waits
    parts: list[bytes | memoryview] = [begin, header, *map(_bytes_of, plain.values())]
    write_atomically(path, b"".join(parts))


def check_room(path: PathLike, metadata: Mapping[str, Any]) -> None:
    """Raise CheckpointError for metadata that leaves no room in a header, before there is something to save."""
    length = len(_header(_envelope("0" * 64, metadata), {}))
    if length > LONGEST_HEADER - ROOM:
        raise CheckpointError(
            f"cannot write {_show(path)}: the options take {length:,} bytes, more than a checkpoint's header holds;"
            " name fewer files, or shorter prompts"
        )


def _write_blocks(file: IO[bytes], *, metadata: Mapping[str, Any], arrays: Mapping[str, Array | Blocks]) -> None:
    """Write the tensors in the digest's order, each to its place; then what stands before them, with the digest."""
    header = _header(_envelope("0" * 64, metadata), arrays)
    places, place = {}, 8 + len(header)
    for name, array in arrays.items():
        places[name], place = place, place + array.nbytes
    digest = _begin_digest(metadata, arrays)
    for name in sorted(arrays):
        file.seek(places[name])
        array, written = arrays[name], 0
        for block in array.blocks() if isinstance(array, Blocks) else [array]:
            data = _bytes_of(_plain(name, block))
            digest.update(data)
            file.write(data)
            written += len(data)
        if written != array.nbytes:
            raise ValueError(f"tensors: {name}: expected {array.nbytes:,} bytes in blocks, got {written:,}")
    header = _header(_envelope(digest.hexdigest(), metadata), arrays)
    file.seek(0)
    file.write(len(header).to_bytes(8, "little") + header)


def _header(text: str, arrays: Mapping[str, Array | Blocks]) -> bytes:
    """Return the JSON header of a safetensors file with our envelope and these arrays in order."""
    header: dict[str, Any] = {"__metadata__": {KEY: text}}
    position = 0
    for name, array in arrays.items():
        end = position + array.nbytes
        dtype = _DTYPE_NAMES[_native(array.dtype)]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [position, end]}
        position = end
    written = _json(header).encode()
    return written + b" " * (-len(written) % 8)


def load(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a checkpoint: its tensors by name, and its metadata.

    The arrays are the caller's own: writable, C-contiguous, in the machine's byte order.
    Raises CheckpointError where the file is missing, cut short, damaged, of another program or of a newer fastmlp.
    Memory: the tensors, once, and the file's header; neither is allocated before the file is known to be long enough.
    """
    try:
        _check_is_file(Path(path))
        with Path(path).open("rb") as file:
            return _read(file)
    except OSError as error:
        raise CheckpointError(f"cannot load {_show(path)}: {_reason(error)}") from error
    except _Unusable as error:
        raise CheckpointError(f"cannot load {_show(path)}: {error}") from error


def is_checkpoint(path: PathLike) -> bool:
    """Whether a file was written by `save`, damaged or not: its header has our metadata key."""
    try:
        _check_is_file(Path(path))
        with Path(path).open("rb") as file:
            header, _ = _read_header(file, os.fstat(file.fileno()).st_size)
    except (OSError, _Unusable):
        return False
    metadata = header.get("__metadata__")
    return isinstance(metadata, dict) and KEY in metadata


class _Unusable(Exception):
    """The second half of a CheckpointError: the fault of a file, and the remedy."""


def _damaged(what: str) -> NoReturn:
    raise _Unusable(f"it is damaged ({what}); use a copy, or another checkpoint of its run")


def _cut_short(length: int, expected: str) -> NoReturn:
    raise _Unusable(f"it is cut short ({length:,} of {expected} bytes); use a copy, or another checkpoint of its run")


def _foreign(what: str) -> NoReturn:
    raise _Unusable(f"{what}; name a file that fastmlp has saved")


def _plain(name: str, array: Any) -> Any:
    """Return the array as C-contiguous and little-endian, without a copy if it is both; Blocks as they are."""
    if not isinstance(name, str):
        raise TypeError(f"tensors: expected names of type str, got {name!r}")
    if name == "__metadata__":
        raise ValueError("tensors: __metadata__ is a word of the file format, not a name for a tensor")
    dtype = getattr(array, "dtype", None)
    if not isinstance(array, np.ndarray | Blocks) or _native(array.dtype) not in _DTYPE_NAMES:
        got = type(array).__name__ if dtype is None else f"dtype {dtype}"
        raise TypeError(f"tensors: {name}: expected an array of {', '.join(map(str, _DTYPE_NAMES))}, got {got}")
    if isinstance(array, Blocks):
        return array
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")  # ascontiguousarray would make () a (1,)


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("=")


def _bytes_of(array: Array) -> memoryview:
    """The memory of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError for values that JSON changes: tuples, keys that are no str, NaN, objects."""
    for key, value in metadata.items():
        try:
            came_back = json.loads(_json({key: value}))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"metadata: {key}: {error}") from error
        if came_back != {key: value}:
            raise ValueError(f"metadata: {key}: expected what JSON holds exactly (str keys, no tuples), got {value!r}")


def _json(value: Any) -> str:
    """Return canonical JSON. ASCII, so that every str survives, even half a surrogate pair."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _envelope(sha256: str, metadata: Mapping[str, Any]) -> str:
    return _json({"format": FORMAT, "sha256": sha256, "metadata": dict(metadata)})


def _begin_digest(metadata: Mapping[str, Any], arrays: Mapping[str, Array | Blocks]) -> Any:
    """SHA-256 over format, metadata and each tensor's name, dtype and shape; their bytes follow, in name order."""
    described = [[name, _DTYPE_NAMES[_native(arrays[name].dtype)], arrays[name].shape] for name in sorted(arrays)]
    return hashlib.sha256(_json([FORMAT, dict(metadata), described]).encode())


def _digest(metadata: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    """The whole of it."""
    digest = _begin_digest(metadata, arrays)
    for name in sorted(arrays):
        digest.update(_bytes_of(arrays[name]))
    return str(digest.hexdigest())


def _check_is_file(path: Path) -> None:
    """Raise an error unless it is a regular file: opening a pipe would wait."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        _foreign("there is no such file")
    if stat.S_ISDIR(mode):
        _foreign("it is a folder")
    if not stat.S_ISREG(mode):
        _foreign("it is not a regular file")


def _read(file: IO[bytes]) -> tuple[dict[str, Array], dict[str, Any]]:
    size = os.fstat(file.fileno()).st_size
    header, start = _read_header(file, size)
    envelope, text = _read_envelope(header.pop("__metadata__", None))
    layout = _read_layout(header)
    expected = start + sum(length for _, _, _, length in layout)
    if size < expected:
        _cut_short(size, f"{expected:,}")
    if size > expected:
        _damaged("it goes on where it should end")
    arrays: dict[str, Array] = {}
    for name, dtype, shape, length in layout:
        try:
            arrays[name] = np.empty(shape, dtype)
        except (ValueError, OverflowError):  # too many axes, or too long ones beside one of length zero
            _damaged(f"its tensor {name!a} has an impossible shape")
        if file.readinto(_bytes_of(arrays[name])) != length:  # type: ignore[attr-defined]
            _cut_short(size, f"{expected:,}")  # it has shrunk since its size was read
    metadata = envelope.get("metadata")
    if not isinstance(metadata, dict):
        _damaged("its metadata is not readable")
    try:
        intact = text == _envelope(_digest(metadata, arrays), metadata)
    except (ValueError, RecursionError):  # metadata that `save` would not have written
        intact = False
    if not intact:
        _damaged("its contents do not match their SHA-256")
    return {name: arrays[name].astype(_native(arrays[name].dtype), copy=False) for name in sorted(arrays)}, metadata


def _read_header(file: IO[bytes], size: int) -> tuple[dict[str, Any], int]:
    """Return the file's JSON header and the tensors' offset: 8 bytes of length, the header, the tensors."""
    first = file.read(9)
    if not first:
        _foreign("it is empty")
    length = int.from_bytes(first[:8], "little")
    if len(first) < 9:
        _foreign(f"it is cut short, or not of fastmlp ({size} bytes)")
    if length > LONGEST_HEADER or first[8:] != b"{":
        _foreign("it is not a safetensors file, or its first bytes are damaged")
    if size < 8 + length:
        _cut_short(size, f"at least {8 + length:,}")
    file.seek(8)
    header = _parse(file.read(length))
    if header is None:
        _damaged("its header is not readable")
    return header, 8 + length


def _read_envelope(file_metadata: Any) -> tuple[dict[str, Any], str]:
    """Return the envelope under our key, parsed and as text."""
    text = file_metadata.get(KEY) if isinstance(file_metadata, dict) else None
    if not isinstance(text, str):
        _foreign("it is a safetensors file, but not one of fastmlp")
    envelope = _parse(text)
    if envelope is None:
        _damaged("its metadata is not readable")
    version = envelope.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise _Unusable(f"a newer fastmlp wrote it (format {version}, this one reads {FORMAT}); upgrade fastmlp")
    return envelope, text


def _read_layout(header: dict[str, Any]) -> list[tuple[str, np.dtype[Any], list[int], int]]:
    """Return name, dtype, shape and bytes of each tensor in the file's order; they must fill the file."""
    found = []
    for name, entry in header.items():
        match entry:
            case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if kind in _DTYPES:
                found.append((begin, end, name, np.dtype(_DTYPES[kind]).newbyteorder("<"), shape))
            case _:
                _damaged(f"its tensor {name!a} is not readable")
    layout, position = [], 0
    for begin, end, name, dtype, shape in sorted(found, key=lambda tensor: tensor[:2]):
        valid = all(isinstance(axis, int) and axis >= 0 for axis in shape)
        if not valid or begin != position or end - begin != math.prod(shape) * dtype.itemsize:
            _damaged(f"its tensor {name!a} is not where it should be")
        layout.append((name, dtype, shape, end - begin))
        position = end
    return layout


def _parse(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object in `text`; None if it is not one."""
    try:
        value = json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
