"""From files to words and from words to ids: reading text, the tokenizers and the vocabulary.

    text = read_text(["hp.txt"])
    tokenizer = get_tokenizer("words")
    words = tokenizer.split(text.text)
    vocabulary = Vocabulary.from_words(words)
    ids = vocabulary.encode(words)

Text that cannot be used raises TextError, whose message is one line that says what to do.

Memory, for N bytes of text: reading takes up to 3 N where it is ASCII, up to 9 N where it is not (the bytes, the
decoded text at up to 4 bytes a character, a copy of that where line ends are converted or files joined); its list of
words 8 bytes a word, and each different word once; splitting text without white space 20 N more, by the `prose` rule
3 N more, or 15 N where it has no blank lines.
"""

import ast
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
import sysconfig
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from fastmlp.prose import Prose
from fastmlp.tokenizer import Joiner, Tokenizer

__all__ = [
    "IDS",
    "TOKENIZERS",
    "UNK",
    "Joiner",
    "Text",
    "TextError",
    "TextFile",
    "Tokenizer",
    "Vocabulary",
    "get_tokenizer",
    "is_word",
    "read_text",
    "standard_library_text",
    "text_in_memory",
]

UNK = "<unk>"
"""The word that stands for every word outside the vocabulary."""

PIECE = 1 << 20
"""Bytes that are read at once: what bounds the memory in between."""


class TextError(ValueError):
    """Text that cannot be used; the message is one complete line for the user."""


@dataclass(frozen=True)
class TextFile:
    """One file that was read.

    name    as it was named, or found in its folder; "-" for standard input
    size    bytes of text, after decompression
    sha256  of those bytes, hexadecimal: what sha256sum prints for a plain file
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Text:
    """What was read.

    text   all files one after the other, each from a new line; line ends are "\\n"
    files  where it came from, in that order
    """

    text: str
    files: tuple[TextFile, ...]

    @cached_property
    def sha256(self) -> str:
        """Of `text` in UTF-8: the same text has the same digest however it is cut into files, compressed or ended."""
        digest = hashlib.sha256()
        for start in range(0, len(self.text), PIECE):
            digest.update(self.text[start : start + PIECE].encode())
        return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------- reading files


def read_text(paths: Sequence[str | Path]) -> Text:
    """Read text files in UTF-8.

    paths  text files; folders: their *.txt, sorted by name, hidden ones left out; "-": standard input; *.gz
    A byte order mark is dropped, and the line ends CRLF and CR become "\\n".
    Raises TextError where a file cannot be read, is not text in UTF-8, or comes twice, or all of them are blank.
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
    read: dict[str | Path, str] = {}
    for name in names:
        part, file = _read_file(name)
        place = name if name == "-" else Path(name).resolve()
        if place in read:
            raise TextError(f"{_shown(name)}: the same file as {_shown(read[place])}; name it once")
        read[place] = name
        if part:
            parts += ["\n", part] if parts and not parts[-1].endswith("\n") else [part]
        files.append(file)
    text = "".join(parts)
    if not text or text.isspace():
        shown = ", ".join(_shown(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        raise TextError(f"{shown}: empty; name a text with words in it")
    return Text(text, tuple(files))


def text_in_memory(text: str) -> Text:
    """A text that the program has already: what `read_text` would make of a file that holds it.

    Raises TextError for what UTF-8 cannot hold.
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
    """The files that a path given by the user stands for."""
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
    """The text of one file with line ends "\\n", and the file's entry."""
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
    """All bytes, refused at the first piece that cannot be UTF-8 text, however large the file is."""
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
    """Raises TextError for what a file's first bytes show to be no UTF-8 text."""
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
    """The error for a NUL byte; in UTF-16 nearly every second byte of English is one."""
    shown = _shown(name)
    for encoding, odd in (("UTF-16LE", 1), ("UTF-16BE", 0)):
        if piece[odd::2].count(0) > len(piece) // 4 and not piece[1 - odd :: 2].count(0):
            return TextError(f"{shown}: {encoding}, not UTF-8; {_conversion(name, encoding)}")
    removal = _command(name, r"tr -d '\000' ", "< ")
    return TextError(
        f"{shown}: a NUL at byte {offset:,}: a binary file; from text with stray NULs, remove them with: {removal}"
    )


def _not_utf8(name: str, error: UnicodeDecodeError, skipped: int) -> TextError:
    """The error for invalid UTF-8, with its offset in the file."""
    at = f"{_shown(name)}: not UTF-8 at byte {error.start + skipped:,} (0x{error.object[error.start]:02x})"
    if error.reason == "unexpected end of data":
        return TextError(f"{at}: cut short in the middle of a character; get the whole file, or cut off its last line")
    return TextError(f"{at}; if it is Windows-1252 or Latin-1, {_conversion(name, 'WINDOWS-1252')}")


def _conversion(name: str, encoding: str) -> str:
    return f"convert it with: {_command(name, f'iconv -f {encoding} -t UTF-8 ')}"


def _command(name: str, command: str, redirect: str = "") -> str:
    """A shell command that reads the file through `command`, and writes the result beside it."""
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
    """The error for a file that is not there, with the names that are close."""
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
    """A file's name for a message of one line."""
    if name == "-":
        return "standard input"
    return name if name.isprintable() else ascii(name)


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# ------------------------------------------------------------------------------------------------ the standard library

# The modules and packages whose docstrings are read: those with a hundred words or more of them.
_DOCUMENTED = """
    __future__ _collections_abc _py_abc _pydatetime _pydecimal _pyio _pylong _pyrepl _strptime _threading_local abc
    argparse ast asyncio base64 bdb bisect bz2 calendar cmd code codecs codeop collections colorsys compileall
    concurrent configparser contextlib copy copyreg csv ctypes curses dataclasses datetime dbm decimal difflib dis
    doctest email enum filecmp fileinput fnmatch fractions ftplib functools genericpath getopt getpass gettext glob
    graphlib gzip hashlib heapq hmac html http idlelib imaplib importlib inspect io ipaddress json linecache locale
    logging lzma mailbox mimetypes modulefinder multiprocessing ntpath numbers operator optparse os pathlib pdb pickle
    pickletools pkgutil platform plistlib poplib posixpath pprint profile pstats pty py_compile pyclbr pydoc queue
    quopri random re rlcompleter runpy sched secrets selectors shelve shlex shutil site smtplib socket socketserver
    sqlite3 ssl stat statistics string subprocess symtable sysconfig tabnanny tarfile tempfile textwrap threading
    timeit tkinter tokenize tomllib trace traceback tracemalloc turtle turtledemo types typing unittest urllib uuid
    venv warnings wave weakref webbrowser wsgiref xml xmlrpc zipfile zipimport zoneinfo
"""


def standard_library_text() -> Text:
    """The English that every Python carries: the topics of `help()`, then the docstrings of a fixed list of modules.

    Sources are parsed, never imported or run. A module that this Python does not have is left out; the files are named
    by their paths in the standard library's folder. About 340,000 words by the `words` rule (300,000 where tkinter and
    idlelib are packaged apart), in the same order on every run.
    Raises TextError where this Python carries no sources.
    """
    library = Path(sysconfig.get_path("stdlib"))
    parts: list[str] = []
    files: list[TextFile] = []
    for path in _documented_files(library):
        try:
            source = path.read_bytes()
            tree = ast.parse(source)
        except (OSError, SyntaxError):
            continue
        # topics.py is a table of texts, written in another way by each version of Python
        texts = _string_constants(tree) if path.name == "topics.py" else _docstrings(tree)
        parts += [text for text in texts if text.strip()]
        name = path.relative_to(library).as_posix()
        files.append(TextFile(name, len(source), hashlib.sha256(source).hexdigest()))
    if not parts:
        raise TextError(f"this Python carries no documentation to train on (looked in {library}); name a text file")
    return Text("\n\n".join(parts) + "\n", tuple(files))


def _documented_files(library: Path) -> Iterator[Path]:
    yield library / "pydoc_data" / "topics.py"
    for name in _DOCUMENTED.split():
        package = library / name
        if package.is_dir():
            sources = (source.relative_to(package) for source in package.rglob("*.py"))
            tests = {"test", "tests", "idle_test"}  # some distributions leave them out
            yield from (package / source for source in sorted(sources) if tests.isdisjoint(source.parts))
        elif package.with_suffix(".py").is_file():
            yield package.with_suffix(".py")


def _string_constants(tree: ast.Module) -> list[str]:
    """Every text of several words."""
    values = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [value for value in values if isinstance(value, str) and len(value.split(maxsplit=1)) > 1]


def _docstrings(tree: ast.Module) -> list[str]:
    """The docstrings of a module and of all classes and functions in it, in their order."""
    found: list[str] = []

    def visit(nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.append(ast.get_docstring(node) or "")
                visit(node.body)
            elif isinstance(node, ast.If | ast.Try):  # as round what depends on the platform
                visit(node.body)
                visit(node.orelse)

    visit([tree])
    return found


# ---------------------------------------------------------------------------------------------------------- tokenizers


class _Spaced(Joiner):
    """Words with single spaces between them, but for one that has none before it.

    attached  that word; None: there is none
    written   how it is written; after white space no other word has a space before it either
    """

    def __init__(self, attached: str | None = None, written: str = "") -> None:
        self.attached, self.written = attached, written
        self.space = ""

    def add(self, word: str) -> str:
        if word == self.attached:
            self.space = "" if self.written.isspace() else " "
            return self.written
        piece, self.space = self.space + word, " "
        return piece


class _Roles(dict[int, str]):
    """What each character is to the `words` rule, found out once: itself, an apostrophe (it vanishes) or a space."""

    # apostrophes, hyphens (the last one soft), and joiners without width, as Persian and Indic scripts have in words
    VANISHING = frozenset("'\u2018\u2019\u02bc" + "-\u2010\u2011\u00ad" + "\u200c\u200d\u2060\ufeff")

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in self.VANISHING:
            role = "'"
        elif character == "." or character.isalnum() or unicodedata.category(character).startswith("M"):
            role = character
        else:
            role = " "
        self[code] = role
        return role


_ROLES = _Roles()


class Words(Tokenizer):
    """Plain lower-case words, and '.'.

    Runs of two or more ASCII hyphens separate words, as U+2012 to U+2015 and every other dash do. Then apostrophes
    (' U+2018 U+2019 U+02BC), hyphens (- U+2010 U+2011, soft U+00AD) and joiners without width inside a word vanish:
    "don't" is dont, "seventeen-year-old" seventeenyearold. Letters and digits of any script (str.isalnum), with the
    combining marks that follow them, form words, lower-cased and in Unicode's normal form C. '.' is a word of its own,
    wherever it stands. All else is white space, `_` and other punctuation included.
    """

    name = "words"
    sentence_end = "."

    def joiner(self) -> Joiner:
        """Words separated by single spaces, '.' attached to the word before it.

        Of a text that was split, capitals, line breaks and all punctuation but '.' are gone. Splitting the result gives
        the same words again.
        """
        return _Spaced(self.sentence_end, ".")

    def _candidates(self, piece: str) -> list[str]:
        # At the edge of a word it is all the same whether an apostrophe vanishes or becomes white space, since there is
        # white space on its other side; so all of them can go, once the dashes are spaces.
        return piece.replace("--", " ").translate(_ROLES).replace("'", "").replace(".", " . ").split()

    def _form(self, candidate: str) -> str:
        if candidate.isascii():
            return candidate.lower()
        # marks without a letter before them are none of the word
        first = next((place for place, character in enumerate(candidate) if character.isalnum()), len(candidate))
        return unicodedata.normalize("NFC", candidate[first:].lower())


class Whitespace(Tokenizer):
    """Text that is tokenized already, as the published benchmarks are.

    Words are what str.split() finds. Each line end but one that ends the text is the word `<eos>`. A line end is "\\n",
    which read_text makes of CRLF and CR; Unicode's other line separators are white space only.
    """

    name = "whitespace"
    sentence_end = "<eos>"

    def split(self, text: str) -> list[str]:
        """The words of a text, in its order; equal words are one object, so that a list of them stays small."""
        words = super().split(text)
        if text.endswith("\n"):
            words.pop()
        return words

    def joiner(self) -> Joiner:
        """Words separated by single spaces, `<eos>` as a line end.

        Of a text that was split, white space between words is one space, that around a line end is gone, and so is the
        line end that ends it. Splitting the result gives the same words again, but for an `<eos>` as the last.
        """
        return _Spaced(self.sentence_end, "\n")

    def _candidates(self, piece: str) -> list[str]:
        return piece.replace("\n", f" {self.sentence_end} ").split()


class Ids(Tokenizer):
    """Numbers instead of words: each is a word of its own, written in decimal digits.

    What stands before the first one is `<unk>`, which is none of the numbers.
    """

    name = "ids"
    sentence_end = UNK

    def joiner(self) -> Joiner:
        """Numbers separated by single spaces."""
        return _Spaced()

    def _candidates(self, piece: str) -> list[str]:
        return piece.split()


IDS = Ids()
TOKENIZERS: Mapping[str, Tokenizer] = {tokenizer.name: tokenizer for tokenizer in (Words(), Prose(), Whitespace())}


def get_tokenizer(name: str, capitalized: Iterable[str] = ()) -> Tokenizer:
    """The tokenizer of that name, one of TOKENIZERS or IDS.

    capitalized  what it learned from the text that it was made for: its `capitalized`
    Raises ValueError for another name.
    """
    if name == IDS.name:
        return IDS
    if name not in TOKENIZERS:
        raise ValueError(f"tokenizer: expected one of {', '.join(TOKENIZERS)}, got {name!r}")
    return Prose(capitalized) if name == Prose.name else TOKENIZERS[name]


# ---------------------------------------------------------------------------------------------------------- vocabulary


@dataclass(frozen=True)
class Vocabulary:
    """The words that a network knows; a word's id is its place.

    words  all different, the last one `<unk>`
    """

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", {word: index for index, word in enumerate(self.words)})
        if not self.words or self.words[-1] != UNK:
            raise ValueError(f"words: expected {UNK} as the last one, got {self.words[-1:]}")
        if len(self._ids) != len(self.words):
            twice = next(word for index, word in enumerate(self.words) if self._ids[word] != index)
            raise ValueError(f"words: expected different words, got {twice!r} twice")

    @classmethod
    def from_words(cls, words: Iterable[str], *, max_size: int | None = None, min_count: int = 1) -> "Vocabulary":
        """Count words: the most frequent first, equally frequent ones in the order of their characters.

        words      of a whole text; a `<unk>` among them, as published benchmarks have, is the vocabulary's own
        max_size   the largest len() of the vocabulary, `<unk>` included; None: no limit
        min_count  words that occur less often are left out
        What is left out becomes `<unk>`. Raises TextError where no word is left.
        """
        if min_count < 1:
            raise ValueError(f"min_count: expected at least 1, got {min_count}")
        if max_size is not None and max_size < 2:
            raise ValueError(f"max_size: expected at least 2 ({UNK} and a word), got {max_size}")
        counts = Counter(words)
        counts.pop(UNK, None)
        if not any(map(is_word, counts)):
            raise TextError("the text has no words, only punctuation or white space; name a text with words in it")
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        if not kept:
            most = max(counts.values())
            raise TextError(f"min_count {min_count} leaves no word: the most frequent one occurs {most} times")
        return cls((*kept[: None if max_size is None else max_size - 1], UNK))

    @classmethod
    def of_ids(cls, size: int) -> "Vocabulary":
        """The numbers below `size`, each its own id, and `<unk>`."""
        return cls((*map(str, range(size)), UNK))

    def __len__(self) -> int:
        """V, with `<unk>`."""
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    @property
    def unk_id(self) -> int:
        """The id of `<unk>`, the last one."""
        return len(self.words) - 1

    def id_of(self, word: str) -> int:
        """A word's id; that of `<unk>` for a word that is not there."""
        return self._ids.get(word, self.unk_id)

    def in_its_case(self, word: str) -> str:
        """The word, or where it is not there the most frequent one that differs in capitals alone."""
        if word in self:
            return word
        folded = word.casefold()
        return next((other for other in self.words if other.casefold() == folded), word)

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """The ids (N,) of words, int32; that of `<unk>` for each word that is not there."""
        return np.fromiter(map(self._ids.get, words, repeat(self.unk_id)), np.int32, len(words))

    def decode(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The words of ids.

        Raises IndexError for an id outside [0, V).
        """
        numbers = np.asarray(ids).tolist()
        if numbers and not 0 <= min(numbers) <= max(numbers) < len(self):
            wrong = next(number for number in numbers if not 0 <= number < len(self))
            raise IndexError(f"ids: expected ids in [0, {len(self)}), got {wrong}")
        return [self.words[number] for number in numbers]

    def closest(self, word: str, n: int = 3) -> list[str]:
        """Up to n words of the vocabulary that are spelled like `word`, the closest first."""
        # Only lengths that can reach difflib's ratio of 2 * common letters / all letters: a fraction of the vocabulary
        cutoff = 0.7
        shortest, longest = len(word) * cutoff / (2 - cutoff), len(word) * (2 - cutoff) / cutoff
        candidates = [other for other in self.words[:-1] if shortest <= len(other) <= longest]
        return difflib.get_close_matches(word, candidates, n, cutoff)


def is_word(word: str) -> bool:
    """Whether a token says something: not punctuation, not a mark such as `<eos>`."""
    return any(map(str.isalnum, word)) and not (word.startswith("<") and word.endswith(">"))
