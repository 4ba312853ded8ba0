"""Files that are written whole or not at all, and the lock that keeps a folder to one run."""

import contextlib
import errno
import os
import platform
import secrets
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from fastmlp.errors import CheckpointError, FolderInUseError

__all__ = ["LOCK_FILE", "check_writable", "lock_folder", "move", "write_atomically"]

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
PathLike = str | os.PathLike[str]
LOCK_FILE = ".fastmlp.lock"
TEMPORARY = ".fastmlp-*.tmp"


# ------------------------------------------------------------------------------------------------------------ writing


def write_atomically(path: PathLike, data: bytes | Callable[[IO[bytes]], None], size: int | None = None) -> None:
    """Replace the contents of a file durably, or leave the file as it is.

    The bytes are written to a temporary file beside it, flushed to the disk and renamed; the renaming is flushed too.
    On any failure, or Ctrl-C, the temporary file is removed; only a killed process leaves it behind, for the next
    `lock_folder` to remove. The umask sets the file's mode.

    path  file to write or replace; its folder must exist
    data  all of its bytes; or a function that writes them to the file, and
    size  how many these will be
    Raises CheckpointError with the path, the number of bytes and the system's reason.
    """
    try:
        _write(Path(path), data)
    except (OSError, ValueError) as error:  # ValueError: a path without a file's name, or with a NUL
        count = len(data) if isinstance(data, bytes) else size
        raise CheckpointError(f"cannot write {_show(path)} ({count:,} bytes): {_reason(error)}") from error


def move(path: PathLike, to: PathLike) -> None:
    """Give a file another name in its folder, durably; what had that name is replaced.

    Raises CheckpointError with the path and the system's reason.
    """
    try:
        Path(path).replace(to)
        _sync_folder(Path(to).parent)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot replace {_show(to)}: {_reason(error)}") from error


def check_writable(folder: PathLike) -> None:
    """Make the folder if it is missing, and check before the work whether files can be written to it.

    Writes a small file and removes it: permissions say nothing for root, or on a full disk.
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


def _write(path: Path, data: bytes | Callable[[IO[bytes]], None]) -> None:
    """Do the steps of write_atomically; raise the system's own errors."""
    temporary = path.with_name(_temporary_name())
    try:
        with temporary.open("xb") as file:
            if isinstance(data, bytes):
                file.write(data)
            else:
                data(file)
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
    """Flush a folder's entries to the disk, if the system can, so that they survive a power failure."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush folders
            raise
    finally:
        os.close(descriptor)


def _show(path: PathLike) -> str:
    """Return a path for a message of one line."""
    name = os.fsdecode(path)
    return name if name.isprintable() else ascii(name)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


# ------------------------------------------------------------------------------------------------------------ locking

_held: set[IO[bytes]] = set()  # the lock files on which this process has a lock


@contextlib.contextmanager
def lock_folder(folder: PathLike) -> Iterator[None]:
    """Hold the lock of a folder; remove the temporary files of killed processes in it.

    The lock is the system's, on a file in the folder, and ends with the process in any case. The file names the holder,
    and stays. Neither a program that the process starts nor a child that it forks holds the lock.

    folder  must exist
    Raises FolderInUseError, which names the holder, or CheckpointError where the folder cannot be locked.
    """
    file = _lock(Path(folder))
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)
        if not file.closed:  # a forked child has closed it, and has nothing to release
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
    """Lock an open file until it is closed or the process ends; return False if another process holds the lock."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # locked bytes cannot be read: lock one far behind the text
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _let_go_in_child() -> None:
    """Close the lock files in a forked child: it would hold the locks longer than its parent."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
