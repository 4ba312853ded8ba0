"""Files that are written whole or not at all, and the lock that keeps a folder to one run."""

import contextlib
import errno
import os
import platform
import secrets
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from fastmlp.errors import CheckpointError, FolderInUseError

__all__ = ["LOCK_FILE", "check_writable", "lock_folder", "write_atomically"]

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
PathLike = str | os.PathLike[str]
LOCK_FILE = ".fastmlp.lock"
TEMPORARY = ".fastmlp-*.tmp"


# ------------------------------------------------------------------------------------------------------------ writing


def write_atomically(path: PathLike, data: bytes) -> None:
    """Make `data` the whole contents of the file, to last, or leave the file as it is.

    The bytes are written beside it and flushed to the disk, then renamed over it, and the renaming is flushed too. On
    any failure, or Ctrl-C, what was written is removed; only a killed process leaves it behind, for the next
    `lock_folder` to remove. The file's mode is what the umask allows.

    path  file to write or replace; its folder must exist
    data  all of its bytes
    Raises CheckpointError: what was being written, how many bytes that takes and the system's reason.
    """
    try:
        _write(Path(path), data)
    except (OSError, ValueError) as error:  # ValueError: a path that names no file, or with a NUL in it
        raise CheckpointError(f"cannot write {_show(path)} ({len(data):,} bytes): {_reason(error)}") from error


def check_writable(folder: PathLike) -> None:
    """Find out before the work, not after it, whether files can be written to a folder, which is made if it is missing.

    It writes a small file and removes it: asking for permissions is no answer for root, or on a full disk.
    Raises CheckpointError with the system's reason.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / _temporary_name()
        try:
            _write(probe, b"fastmlp")
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot write to the folder {_show(folder)}: {_reason(error)}; choose another"
        ) from error


def _write(path: Path, data: bytes) -> None:
    """The steps of write_atomically, with the system's own errors."""
    temporary = path.with_name(_temporary_name())
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _temporary_name() -> str:
    return TEMPORARY.replace("*", secrets.token_hex(8))


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power failure, where the system has a call for that."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not know folders
            raise
    finally:
        os.close(descriptor)


def _show(path: PathLike) -> str:
    """A path as part of one line."""
    name = os.fsdecode(path)
    return name if name.isprintable() else ascii(name)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


# ------------------------------------------------------------------------------------------------------------ locking

_held: set[IO[bytes]] = set()  # the lock files on which this process has a lock


@contextlib.contextmanager
def lock_folder(folder: PathLike) -> Iterator[None]:
    """Be the only process, of all that ask, to write to a folder; remove what a killed one left half written in it.

    The lock is the system's, on a file in the folder, and ends with the process however that ends; the file says who
    holds it, and stays. Neither a program that the process starts nor a child that it forks holds the lock.

    folder  must exist
    Raises FolderInUseError, which names the holder, or CheckpointError where the folder cannot be locked.
    """
    file = _lock(Path(folder))
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)
        if not file.closed:  # as it is in a forked child, which has nothing to release
            with contextlib.suppress(OSError):
                file.truncate(0)
            file.close()


def _lock(folder: Path) -> IO[bytes]:
    try:
        file = (folder / LOCK_FILE).open("a+b", buffering=0)
        try:
            if not _system_lock(file.fileno()):
                file.seek(0)
                holder = file.read(200).decode("ascii", errors="replace")
                holder = holder if holder and holder.isprintable() else "another process"
                raise FolderInUseError(
                    f"{_show(folder)} is in use by {holder}; wait for its end or choose another folder"
                )
            file.truncate(0)
            started = datetime.now().astimezone().isoformat(" ", "seconds")
            file.write(f"process {os.getpid()} on {platform.node()} since {started}".encode("ascii", "replace"))
        except BaseException:
            file.close()
            raise
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot lock the folder {_show(folder)}: {_reason(error)}; choose another") from error
    for left_behind in folder.glob(TEMPORARY):
        with contextlib.suppress(OSError):
            left_behind.unlink(missing_ok=True)
    return file


def _system_lock(descriptor: int) -> bool:
    """Lock an open file without waiting, until it is closed or the process ends; False where another holds it."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # locked bytes cannot be read there: one far behind the text
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _let_go_in_child() -> None:
    """A forked child shares its parent's open files, and would keep the lock when the parent is gone."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
