"""What a file is, by its content: packed text, an e-book, markup, or something that is no text."""

import bz2
import contextlib
import gzip
import importlib
import lzma
import posixpath
import struct
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, cast
from xml.etree import ElementTree

from fastmlp.errors import TextError
from fastmlp.text.markup import decoded_markup, text_of_markup

__all__ = ["PACKED", "Source", "Unpacking", "epub_text", "not_text", "not_text_but_readable", "unpacking"]

PACKED = (".gz", ".bz2", ".xz", ".lzma", ".zst")
MOST = 1 << 28
"""Bytes to which any file may unpack."""
MOST_TIMES = 100
"""Times its own size that a file may unpack to beyond that: text does not, what is made to fill a memory does."""
MOST_TO_UNPACK = 1 << 28
"""Bytes that may be allocated to unpack xz and lzma: four times what their highest setting needs."""
NO_TEXT = "not a text"


class Source(Protocol):
    """Where bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""


Opener = Callable[[BinaryIO], Source]


class _Xz:
    """Reads what xz or lzma has packed. lzma.LZMAFile allocates what a file asks for: up to 4 GB, of 100 bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._rest = stream, b""
        self._unpacker = self._next()

    def _next(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=MOST_TO_UNPACK)

    def read(self, size: int) -> bytes:
        while True:
            if self._unpacker.eof:  # another stream may follow, behind a padding of NULs
                self._rest = self._unpacker.unused_data.lstrip(b"\0")
                while not self._rest and (piece := self._stream.read(size)):
                    self._rest = piece.lstrip(b"\0")
                if not self._rest:
                    return b""
                self._unpacker = self._next()
            elif self._unpacker.needs_input and not self._rest:
                self._rest = self._stream.read(size)
                if not self._rest:
                    raise EOFError
            try:
                piece, self._rest = self._unpacker.decompress(self._rest, size), b""
            except lzma.LZMAError as error:
                if "Memory usage limit" not in str(error):
                    raise
                most = f"{MOST_TO_UNPACK >> 20} MiB"
                raise TextError(f"needs more than {most} of memory to be unpacked; unpack it first, with xz") from error
            if piece:
                return piece


class _Zstandard:
    """Reads what Zstandard has packed, by the module of Python 3.14 or by its backport."""

    def __init__(self, stream: BinaryIO) -> None:
        for name in ("compression.zstd", "backports.zstd"):
            with contextlib.suppress(ImportError):
                module = importlib.import_module(name)
                break
        else:
            reader = "which Python reads from 3.14 on, or with: pip install backports.zstd"
            raise TextError(f"packed by Zstandard, {reader}; or unpack it first, with unzstd")
        self._file, self._error = module.open(stream), module.ZstdError

    def read(self, size: int) -> bytes:
        try:
            return cast(bytes, self._file.read(size))
        except self._error as error:  # an Exception and nothing else
            raise ValueError(str(error)) from error


def _gzip(stream: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=stream))


_PACKINGS: dict[bytes, tuple[str, Opener]] = {
    b"\x1f\x8b": ("gzip", _gzip),
    b"BZh": ("bzip2", lambda stream: cast(BinaryIO, bz2.BZ2File(stream))),
    b"\xfd7zXZ\0": ("xz", _Xz),
    b"\x5d\0\0": ("lzma", _Xz),
    b"\x28\xb5\x2f\xfd": ("Zstandard", _Zstandard),
}
_DAMAGED = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, OSError, ValueError)


class Unpacking:
    """A packed stream, read unpacked. Raises TextError where it is damaged, or unpacks to too much."""

    def __init__(self, kind: str, opener: Opener, stream: BinaryIO, size: int) -> None:
        """size  bytes of the packed file"""
        self._kind, self._stream = kind, opener(stream)
        self._left = max(MOST, MOST_TIMES * size)
        self._most = self._left

    def read(self, size: int) -> bytes:
        """Return the next bytes, up to `size`."""
        try:
            piece = self._stream.read(size)
        except EOFError as error:
            raise TextError("the compressed file is cut short; download it again") from error
        except _DAMAGED as error:
            if getattr(error, "errno", None) is not None:  # of the file system
                raise
            raise TextError(f"packed by {self._kind}, and damaged ({error}); download it again") from error
        self._left -= len(piece)
        if self._left < 0:
            raise TextError(f"unpacks to more than {self._most:,} bytes, {MOST_TIMES} times its size: {NO_TEXT}")
        return piece


def unpacking(head: bytes) -> Callable[[BinaryIO, int], Unpacking] | None:
    """Return what unpacks a stream of a size that begins so; None if nothing needs to."""
    for mark, (kind, opener) in _PACKINGS.items():
        if head.startswith(mark):
            return lambda stream, size: Unpacking(kind, opener, stream, size)
    return None


# ----------------------------------------------------------------------------------------------- what cannot be read

_SAVE = "save it as text first"
_UNPACK = "unpack it, and name what is in it"
_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "a PDF file, not plain text; convert it first, e.g. with pdftotext"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", f"a document of Word or another old Office program; {_SAVE}"),
    (60, b"BOOKMOBI", f"a Kindle book (MOBI, AZW); {_SAVE}, e.g. with Calibre"),
    (60, b"TEXtREAd", f"a Palm book; {_SAVE}, e.g. with Calibre"),
    (0, b"ITOLITLS", f"a Microsoft Reader book; {_SAVE}, e.g. with Calibre"),
    (0, b"ITSF", f"a Windows help file (CHM); {_SAVE}, e.g. with Calibre"),
    (0, b"AT&TFORM", f"a DjVu file; {_SAVE}, e.g. with djvutxt"),
    (0, b"%!PS", f"a PostScript file; {_SAVE}, e.g. with ps2ascii"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_UNPACK}"),
    (0, b"Rar!\x1a\x07", f"a RAR archive; {_UNPACK}"),
    (257, b"ustar", f"a tar archive; {_UNPACK}"),
    (0, b"\x1f\x9d", "packed by compress; unpack it first, e.g. with uncompress"),
    (0, b"LZIP", "packed by lzip; unpack it first, e.g. with lzip -d"),
    (0, b"SQLite format 3\0", f"an SQLite database, {NO_TEXT}"),
    (0, b"\x89PNG", f"a picture, {NO_TEXT}"),
    (0, b"\xff\xd8\xff", f"a picture, {NO_TEXT}"),
    (0, b"GIF8", f"a picture, {NO_TEXT}"),
    (0, b"ID3", f"a sound, {NO_TEXT}"),
    (0, b"\x7fELF", f"a program, {NO_TEXT}"),
)
_READABLE: tuple[tuple[bytes, str], ...] = (
    (b"{\\rtf", f"an RTF document, {NO_TEXT} without markup; {_SAVE}"),
    (b"From: <Saved by ", f"a web archive (MHTML), {NO_TEXT}; save the page as HTML or text"),
    (b"version https://git-lfs.github.com/spec/", "the pointer of Git LFS to a file; get the file with: git lfs pull"),
)


def not_text(head: bytes) -> str | None:
    """Return what a file that begins so is, and what to do with it; None if it may be a text."""
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 27:
        return "a safetensors model file, not text; name the text to read, not the model"
    return next((what for place, mark, what in _FOREIGN if head.startswith(mark, place)), None)


def not_text_but_readable(head: bytes) -> str | None:
    """Return the same of files that are made of characters; by rules 1 they were read as they are."""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((what for mark, what in _READABLE if head.startswith(mark)), None)


# -------------------------------------------------------------------------------------------------------- EPUB and ZIP

_IN_ZIP = {
    "word/document.xml": "Word",
    "xl/workbook.xml": "Excel",
    "ppt/presentation.xml": "PowerPoint",
    "content.xml": "OpenDocument",
}

_DAMAGED_ZIP = (  # LookupError: a missing file, or an encoding of XML that there is not
    *(zipfile.BadZipFile, struct.error, ElementTree.ParseError, LookupError, EOFError, RuntimeError),
)


def epub_text(stream: BinaryIO) -> str:
    """Return the text of an EPUB: the chapters in the order of its spine, without the table of contents.

    Raises TextError for another ZIP file, and for an EPUB that is damaged, locked or too large.
    """
    try:
        with zipfile.ZipFile(stream) as book:
            names = set(book.namelist())
            if "META-INF/container.xml" not in names:
                program = next((program for name, program in _IN_ZIP.items() if name in names), None)
                raise TextError(f"a ZIP archive; {_UNPACK}" if program is None else f"a document of {program}; {_SAVE}")
            chapters = [name for name in dict.fromkeys(_spine(book)) if name in names]  # each once: they may be a bomb
            size = sum(book.getinfo(name).file_size for name in chapters)
            if size > MOST:
                raise TextError(f"its chapters unpack to {size:,} bytes: {NO_TEXT}")
            return "\n".join(text_of_markup(decoded_markup(_read(book, book.getinfo(name)))) for name in chapters)
    except TextError:
        raise
    except (*_DAMAGED, *_DAMAGED_ZIP) as error:
        raise TextError(f"an EPUB or ZIP file that is damaged ({error}); download it again") from error


def _read(book: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a file of an EPUB, unpacked. Raises TextError if it is packed in a way that no EPUB may be."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA would allocate what it asks for
        raise TextError(f"an EPUB whose {info.filename!a} is packed by a method of ZIP that EPUB does not have")
    return book.read(info)


def _spine(book: zipfile.ZipFile) -> list[str]:
    """Return the names of the chapters in their order. Raises TextError if they are encrypted."""
    container = _xml(book, "META-INF/container.xml")
    package = next((element.get("full-path", "") for element in _named(container, "rootfile")), "")
    root, folder = _xml(book, package), posixpath.dirname(package)
    items = {item.get("id"): item for item in _named(root, "item")}
    chapters = []
    for reference in _named(root, "itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and "nav" not in (item.get("properties") or "").split():
            path = urllib.parse.unquote(item.get("href", "")).partition("#")[0]
            chapters.append(posixpath.normpath(posixpath.join(folder, path)))
    if "META-INF/encryption.xml" in book.namelist():
        references = _named(_xml(book, "META-INF/encryption.xml"), "CipherReference")
        if {urllib.parse.unquote(element.get("URI", "")) for element in references} & set(chapters):
            raise TextError("an EPUB that is locked (DRM): only its shop's programs can read it")
    return chapters


def _named(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Yield the elements of a name, whatever its namespace."""
    return (element for element in root.iter() if element.tag.rpartition("}")[2] == name)


def _xml(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    info = book.getinfo(name)
    if info.file_size > MOST_TIMES << 16:
        raise TextError(f"{name!a} in it unpacks to {info.file_size:,} bytes: {NO_TEXT}")
    return ElementTree.fromstring(_read(book, info))
