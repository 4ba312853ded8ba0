"""Reading text files, folders and standard input; the package's docstring states the memory that it takes."""

import codecs
import contextlib
import difflib
import gzip
import hashlib
import os
import re
import shlex
import stat
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from fastmlp.errors import TextError

__all__ = ["Text", "TextFile", "read_text", "text_in_memory"]

PIECE = 1 << 20
"""Bytes that are read at once, which bounds the temporary memory."""


@dataclass(frozen=True)
class TextFile:
    """One file that was read.

    name    as given, or as found in its folder; "-" for standard input
    size    bytes of text, after decompression
    sha256  of those bytes, hexadecimal: what sha256sum prints for a plain file
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Text:
    """A text that was read.

    text   all files in order, each beginning on a new line; line ends are "\\n"
    files  its sources, in that order
    begin  where in `text` those after the first begin
    """

    text: str
    files: tuple[TextFile, ...]
    begin: tuple[int, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Of `text` in UTF-8: the same text has the same digest however it is split into files, compressed or ended."""
        digest = hashlib.sha256()
        for start in range(0, len(self.text), PIECE):
            digest.update(self.text[start : start + PIECE].encode())
        return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------- reading files


def read_text(paths: Sequence[str | Path]) -> Text:
    """Read text files in UTF-8.

    paths  text files; folders: their *.txt, sorted by name, hidden ones left out; "-": standard input; *.gz
    A byte order mark is dropped, and the line ends CRLF and CR become "\\n".
    Raises TextError if a file cannot be read, is not text in UTF-8 or is given twice, or if all are blank.
    """
    if isinstance(paths, str | os.PathLike):
        raise TypeError(f"paths: expected a sequence of paths, got {type(paths).__name__}")
    names = [name for path in paths for name in _files_of(os.fspath(path))]
    if not names:
        raise TextError("no text was named")
    if names.count("-") > 1:
        raise TextError("standard input (-) is named more than once: it can be read only once")
    parts: list[str] = []
    files: list[TextFile] = []
    begin: list[int] = []
    length = 0
    read: dict[str | Path, str] = {}
    for name in names:
        part, file = _read_file(name)
        place = name if name == "-" else Path(name).resolve()
        if place in read:
            raise TextError(f"{_shown(name)}: the same file as {_shown(read[place])}; name it once")
        read[place] = name
        if part:
            if parts and not parts[-1].endswith("\n"):
                parts.append("\n")
                length += 1
            if parts:
                begin.append(length)
            parts.append(part)
            length += len(part)
        files.append(file)
    text = "".join(parts)
    if not text or text.isspace():
        shown = ", ".join(_shown(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        raise TextError(f"{shown}: empty; name a text with words in it")
    return Text(text, tuple(files), tuple(begin))


def text_in_memory(text: str) -> Text:
    """Return the Text that `read_text` would return for a file with this content.

    Raises TextError for characters that UTF-8 cannot encode.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"text: expected characters, got half a surrogate pair at {error.start:,}; read the file as UTF-8"
        ) from error
    return Text(text, (TextFile("text in memory", len(data), hashlib.sha256(data).hexdigest()),))


def _files_of(name: str) -> list[str]:
    """Return the files of a path given by the user."""
    if name == "-":
        return [name]
    if not name:
        raise TextError("a file name is empty; name a text file, a folder or - for standard input")
    try:
        if not Path(name).is_dir():
            return [name]
        entries = sorted(Path(name).iterdir())
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    if any(entry.name in ("model.safetensors", "last.safetensors") for entry in entries):
        raise TextError(f"{_shown(name)}: the folder of a run, not a text; name the text that it was trained on")
    files = [str(entry) for entry in entries if entry.match("[!.]*.txt") and not entry.is_dir()]
    if not files:
        raise TextError(f"{_shown(name)}: a folder without *.txt files; name the files themselves")
    return files


def _read_file(name: str) -> tuple[str, TextFile]:
    """Return the text of one file with line ends "\\n", and the file's entry."""
    try:
        with _opened(name) as stream:
            data = _read_bytes(name, stream)
    except EOFError as error:
        raise TextError(f"{_shown(name)}: the compressed file is cut short; download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TextError(f"{_shown(name)}: not gzip, or damaged ({error}); rename it, or download it again") from error
    except OSError as error:
        raise _unreadable(name, error) from error
    file = TextFile(name, len(data), hashlib.sha256(data).hexdigest())
    marked = data.startswith(codecs.BOM_UTF8)
    if marked:
        del data[: len(codecs.BOM_UTF8)]
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(name, error, len(codecs.BOM_UTF8) if marked else 0) from error
    text = text.replace("\r\n", "\n")
    text = text.replace("\r", "\n")
    return text, file


def _opened(name: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """The bytes of a file, decompressed where its name ends in .gz."""
    if name == "-":
        if sys.stdin is None:
            raise TextError("standard input is closed; name a text file")
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 (a Path would drop a slash at the end)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(name) from error
    except ValueError as error:  # a NUL in the name
        raise _unreadable(name, error) from error
    if not stat.S_ISREG(mode):  # opening a pipe may wait for ever, a device may never end
        raise TextError(f"{_shown(name)}: a pipe or a device, not a file; read it from standard input, named -")
    if name.lower().endswith(".gz"):
        return cast(contextlib.AbstractContextManager[BinaryIO], gzip.open(name))
    return Path(name).open("rb")


def _read_bytes(name: str, stream: BinaryIO) -> bytearray:
    """Return all bytes; raise TextError at the first piece that cannot be UTF-8 text, without reading the rest."""
    data = bytearray()
    while piece := stream.read(PIECE):
        if not data:
            _refuse_other_formats(name, piece)
        nul = piece.find(0)
        if nul >= 0:
            raise _has_nul(name, piece, len(data) + nul)
        data += piece
    return data


def _refuse_other_formats(name: str, head: bytes) -> None:
    """Raise TextError if the first bytes of a file show another format than UTF-8 text."""
    shown = _shown(name)
    for mark, encoding in (  # UTF-32's marks begin with UTF-16's
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    ):
        if head.startswith(mark):
            raise TextError(f"{shown}: {encoding}, not UTF-8; {_conversion(name, encoding)}")
    if head.startswith(b"\x1f\x8b"):
        raise TextError(f"{shown}: compressed by gzip; unpack it with gunzip, or let its name end in .gz")
    if head.startswith(b"%PDF-"):
        raise TextError(f"{shown}: a PDF file, not plain text; convert it first, e.g. with pdftotext")
    if head.startswith(b"PK\x03\x04"):
        raise TextError(f"{shown}: a ZIP, EPUB or Word file, not plain text; unpack it or convert it, e.g. with pandoc")
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 27:
        raise TextError(f"{shown}: a safetensors model file, not text; name the text to read, not the model")


def _has_nul(name: str, piece: bytes, offset: int) -> TextError:
    """Return the error for a NUL byte; in UTF-16 nearly every second byte of English is one."""
    shown = _shown(name)
    for encoding, odd in (("UTF-16LE", 1), ("UTF-16BE", 0)):
        if piece[odd::2].count(0) > len(piece) // 4 and not piece[1 - odd :: 2].count(0):
            return TextError(f"{shown}: {encoding}, not UTF-8; {_conversion(name, encoding)}")
    removal = _command(name, r"tr -d '\000' ", "< ")
    return TextError(
        f"{shown}: a NUL at byte {offset:,}: a binary file; from text with stray NULs, remove them with: {removal}"
    )


def _not_utf8(name: str, error: UnicodeDecodeError, skipped: int) -> TextError:
    """Return the error for invalid UTF-8, with its offset in the file."""
    at = f"{_shown(name)}: not UTF-8 at byte {error.start + skipped:,} (0x{error.object[error.start]:02x})"
    if error.reason == "unexpected end of data":
        return TextError(f"{at}: cut short in the middle of a character; get the whole file, or cut off its last line")
    return TextError(f"{at}; if it is Windows-1252 or Latin-1, {_conversion(name, 'WINDOWS-1252')}")


def _conversion(name: str, encoding: str) -> str:
    return f"convert it with: {_command(name, f'iconv -f {encoding} -t UTF-8 ')}"


def _command(name: str, command: str, redirect: str = "") -> str:
    """Return a shell command that converts the file by `command` and writes the result beside it."""
    if name == "-":
        return f"... | {command.strip()} | ..."
    if not name.isprintable():
        return f"{command}{redirect}FILE > NEW.txt"
    packed = name.lower().endswith(".gz")
    target = shlex.quote(str(Path(name[:-3] if packed else name).with_suffix(".utf8.txt")))
    if packed:
        return f"gunzip -c {shlex.quote(name)} | {command}> {target}"
    return f"{command}{redirect}{shlex.quote(name)} > {target}"


def _missing(name: str) -> TextError:
    """Return the error for a missing file, with similar names."""
    path = Path(name)
    if re.match("https?://", name):
        return TextError(f"{_shown(name)}: an address, not a file; download it first")
    try:
        there = [entry.name for entry in islice(path.parent.iterdir(), 10_000)]
    except OSError:
        there = []
        if not path.parent.is_dir():
            return TextError(f"{_shown(name)}: there is no folder {_shown(str(path.parent))}")
    if path.exists():
        return TextError(f"{_shown(name)}: a file, not a folder; name it without the slash at its end")
    if path.is_symlink():
        return TextError(f"{_shown(name)}: a link to a file that is not there")
    close = [_shown(str(path.with_name(other))) for other in difflib.get_close_matches(path.name, there)]
    return TextError(f"{_shown(name)}: no such file{f'; did you mean {_either(close)}?' if close else ''}")


def _unreadable(name: str, error: Exception) -> TextError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return TextError(f"{_shown(name)}: cannot be read: {reason}")


def _shown(name: str) -> str:
    """Return a file's name for a message of one line."""
    if name == "-":
        return "standard input"
    return name if name.isprintable() else ascii(name)


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
