"""Reading text files, folders and standard input; the package's docstring states the memory that it takes."""

import codecs
import contextlib
import difflib
import hashlib
import io
import os
import re
import shlex
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from fastmlp.errors import TextError
from fastmlp.options import RULES, system_path
from fastmlp.text.cleaning import Cleaning, listing
from fastmlp.text.folders import ENDINGS, is_run, texts_of, texts_of_rules_1
from fastmlp.text.formats import Source, epub_text, not_text, not_text_but_readable, unpacking
from fastmlp.text.markup import decoded_markup, is_markup, text_of_markup

__all__ = ["Text", "TextFile", "read_text", "text_in_memory"]

PIECE = 1 << 20
"""Bytes that are read at once, which bounds the temporary memory."""
_CONTROLS = bytes({*range(1, 32), 127} - {*b"\t\n\f\r\x1a"})
ZIP = b"PK\x03\x04"


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
    notices  what was left out or converted, a line each
    """

    text: str
    files: tuple[TextFile, ...]
    begin: tuple[int, ...] = ()
    notices: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Of `text` in UTF-8: the same text has the same digest however it is split into files, compressed or ended."""
        digest = hashlib.sha256()
        for start in range(0, len(self.text), PIECE):
            digest.update(self.text[start : start + PIECE].encode())
        return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------- reading files


def read_text(paths: Sequence[str | Path], *, rules: int = RULES, keep_licence: bool = False) -> Text:
    """Read text files in UTF-8, and what can be made one.

    paths         text files; folders: the texts in them and in their folders (see `folders`); "-": standard input
    rules         those of fastmlp.options; 1: of a folder its *.txt, sorted by name, and text as it is
    keep_licence  whether to keep what Project Gutenberg puts around a book
    What gzip, bzip2, xz or Zstandard (with Python 3.14, or backports.zstd) has packed is unpacked, EPUB and HTML become
    their text, HTML entities characters if there are many; a text that comes twice is read once. `notices` of the text
    say so. A byte order mark is dropped, and the line ends CRLF and CR become "\\n".
    Raises TextError if a file cannot be read, is not text in UTF-8 or is given twice, or if all are blank.
    """
    if isinstance(paths, str | os.PathLike):
        raise TypeError(f"paths: expected a sequence of paths, got {type(paths).__name__}")
    found = [_files_of(os.fspath(path), rules) for path in paths]
    names = [name for files, _ in found for name in files]
    if not names:
        raise TextError("no text was named")
    if names.count("-") > 1:
        raise TextError("standard input (-) is named more than once: it can be read only once")
    clean = Cleaning(keep_licence=keep_licence) if rules > 1 else None
    parts: list[str] = []
    files: list[TextFile] = []
    begin: list[int] = []
    length = 0
    read: dict[str | Path, str] = {}
    for name in names:
        part, file = _read_file(name, clean)
        place = name if name == "-" else Path(system_path(name)).resolve()
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
    left_out = [notice for _, notice in found if notice]
    return Text(text, tuple(files), tuple(begin), (*left_out, *(clean.notices() if clean else ())))


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


def _files_of(name: str, rules: int) -> tuple[list[str], str | None]:
    """Return the files of a path given by the user, and a notice of what a folder has beside them."""
    if name == "-":
        return [name], None
    if not name:
        raise TextError("a file name is empty; name a text file, a folder or - for standard input")
    try:
        folder = Path(system_path(name))
        if not folder.is_dir():
            return [name], None
        files, left_out = texts_of(folder) if rules > 1 else texts_of_rules_1(folder)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    if is_run(folder):
        raise TextError(f"{_shown(name)}: the folder of a run, not a text; name the text that it was trained on")
    if not files:
        endings = ", ".join(f"*{ending}" for ending in ENDINGS) if rules > 1 else "*.txt files"
        raise TextError(f"{_shown(name)}: a folder without {endings}; name the files themselves")
    if not left_out:
        return files, None
    listed = listing([_shown(str(entry)) for entry in left_out])
    return files, f"{_shown(name)}: left out, as no text by the name: {listed}"


def _read_file(name: str, clean: Cleaning | None) -> tuple[str, TextFile]:
    """Return the text of one file with line ends "\n", and the file's entry.

    clean  what is done to it by the newest rules; None: nothing
    """
    try:
        with _opened(name) as stream:
            data, text = _read_content(name, stream, clean)
    except OSError as error:
        raise _unreadable(name, error) from error
    file = TextFile(name, len(data), hashlib.sha256(data).hexdigest())
    if text is None:
        marked = data.startswith(codecs.BOM_UTF8)
        if marked:
            del data[: len(codecs.BOM_UTF8)]
        try:
            text = str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(name, error, len(codecs.BOM_UTF8) if marked else 0) from error
    del data
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (text if clean is None else clean(text, _shown(name))), file


def _opened(name: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """The bytes of a file."""
    if name == "-":
        if sys.stdin is None:
            raise TextError("standard input is closed; name a text file")
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        path = system_path(name)
        mode = os.stat(path).st_mode  # noqa: PTH116 (a Path would drop a slash at the end)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(name) from error
    except ValueError as error:  # a NUL in the name
        raise _unreadable(name, error) from error
    if not stat.S_ISREG(mode):  # opening a pipe may wait for ever, a device may never end
        raise TextError(f"{_shown(name)}: a pipe or a device, not a file; read it from standard input, named -")
    return Path(path).open("rb")


def _read_content(name: str, stream: BinaryIO, clean: Cleaning | None) -> tuple[bytearray, str | None]:
    """Return the bytes of a file, unpacked, and its text if that is not the bytes in UTF-8."""
    source: Source = stream
    head = stream.read(PIECE)
    try:
        if (unpack := unpacking(head)) is not None:
            rewound = _rewound(name, stream, head)
            size = rewound.seek(0, os.SEEK_END)
            rewound.seek(0)
            source = unpack(rewound, size)
            head = source.read(PIECE)
            if unpacking(head) is not None:
                raise TextError("packed twice; unpack it first")
        if head.startswith(ZIP):
            whole = io.BytesIO(head + _rest(source)) if source is not stream else _rewound(name, stream, head)
            text = epub_text(whole)
            whole.seek(0)
            if clean is not None:
                clean.converted(name, "EPUB")
            return bytearray(whole.read()), text
        if (what := not_text(head)) or (clean is not None and (what := not_text_but_readable(head))):
            raise TextError(what)
        data = _read_bytes(name, source, head)
    except TextError as error:
        raise error if str(error).startswith(_shown(name)) else TextError(f"{_shown(name)}: {error}") from error
    if clean is None or not is_markup(head):
        return data, None
    clean.converted(name, "HTML or XML")
    try:
        return data, text_of_markup(decoded_markup(bytes(data)))
    except UnicodeDecodeError as error:
        raise _not_utf8(name, error, 0) from error


def _rewound(name: str, stream: BinaryIO, head: bytes) -> BinaryIO:
    """Return the stream from its beginning, which has been read."""
    if name == "-":
        return io.BytesIO(head + stream.read())
    stream.seek(0)
    return stream


def _rest(source: Source) -> bytes:
    return b"".join(iter(lambda: source.read(PIECE), b""))


def _read_bytes(name: str, source: Source, piece: bytes) -> bytearray:
    """Return all bytes, of which `piece` is the first part.

    Raises TextError at the first piece that cannot be UTF-8 text, without reading the rest.
    """
    _refuse_other_encodings(name, piece)
    data = bytearray()
    while piece:
        nul = piece.find(0)
        if nul >= 0:
            raise _has_nul(name, piece, len(data) + nul)
        data += piece
        piece = source.read(PIECE)
    return data


def _refuse_other_encodings(name: str, head: bytes) -> None:
    """Raise TextError if a file begins with the mark of another encoding than UTF-8."""
    for mark, encoding in (  # UTF-32's marks begin with UTF-16's
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    ):
        if head.startswith(mark):
            raise TextError(f"{_shown(name)}: {encoding}, not UTF-8; {_conversion(name, encoding)}")


def _has_nul(name: str, piece: bytes, offset: int) -> TextError:
    """Return the error for a NUL byte; in UTF-16 nearly every second byte of English is one."""
    shown = _shown(name)
    for encoding, odd in (("UTF-16LE", 1), ("UTF-16BE", 0)):
        if piece[odd::2].count(0) > len(piece) // 4 and not piece[1 - odd :: 2].count(0):
            return TextError(f"{shown}: {encoding}, not UTF-8; {_conversion(name, encoding)}")
    binary = f"{shown}: a NUL at byte {offset:,}: a binary file, not a text"
    if not _is_like_text(piece) or piece.count(0) > len(piece) // 4:
        return TextError(binary)
    removal = _command(name, r"tr -d '\000' ", "< ")
    return TextError(f"{binary}; from text with stray NULs, remove them with: {removal}")


def _not_utf8(name: str, error: UnicodeDecodeError, skipped: int) -> TextError:
    """Return the error for invalid UTF-8, with its offset in the file."""
    at = f"{_shown(name)}: not UTF-8 at byte {error.start + skipped:,} (0x{error.object[error.start]:02x})"
    if error.reason == "unexpected end of data":
        return TextError(f"{at}: cut short in the middle of a character; get the whole file, or cut off its last line")
    if not _is_like_text(error.object):
        return TextError(f"{at}: a binary file, not a text")
    return TextError(f"{at}; if it is Windows-1252 or Latin-1, {_conversion(name, 'WINDOWS-1252')}")


def _is_like_text(data: bytes) -> bool:
    """Whether bytes can be text in some encoding with a byte for each letter: few are control characters."""
    data = data[:PIECE]
    return len(data.translate(None, _CONTROLS)) >= 0.99 * len(data) - 1


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
    path = Path(system_path(name))
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
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")  # as bytes of the system
    return name if name.isprintable() else ascii(name)


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
