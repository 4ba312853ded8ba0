"""Promise 11: files, folders and standard input become a text, or one line says why not."""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from unittest import mock

import pytest

import fastmlp.text.reading
import fastmlp.text.tokenizer
from fastmlp.text import Text, TextError, TextFile, read_text
from tests.text.helpers import WORDS, write


def message_of(paths):
    """The error's message; it must be one line that a terminal can show."""
    with pytest.raises(TextError) as caught:
        read_text(paths)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("plain.txt", b"a b\nc\n", "a b\nc\n"),
        ("no end.txt", b"a b", "a b"),
        ("utf8", "naïve — \U0001f600\n".encode(), "naïve — \U0001f600\n"),
        ("bom.txt", b"\xef\xbb\xbfa\n", "a\n"),
        ("crlf.txt", b"a\r\nb\r\n", "a\nb\n"),
        ("cr.txt", b"a\rb\r", "a\nb\n"),
        ("packed.txt.gz", gzip.compress(b"a b\n"), "a b\n"),
        ("UPPER.GZ", gzip.compress(b"\xef\xbb\xbfa\r\nb"), "a\nb"),
        ("two members.gz", gzip.compress(b"a ") + gzip.compress(b"b"), "a b"),
        ("one.txt", b"word", "word"),
        ("packed", gzip.compress(b"a b"), "a b"),
        ("in truth plain.gz", b"a b", "a b"),
    ],
)
def test_read_one_file(tmp_path, name, data, text):
    path = write(tmp_path, name, data)
    content = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    file = TextFile(str(path), len(content), hashlib.sha256(content).hexdigest())
    assert read_text([path]) == Text(text, (file,))


def test_files_are_joined_in_their_order_each_from_a_new_line(tmp_path):
    paths = [write(tmp_path, name, data) for name, data in (("b", b"one."), ("a", b"two\n"), ("e", b""), ("c", b"3"))]
    read = read_text(paths)
    assert read.text == "one.\ntwo\n3"
    assert [Path(file.name).name for file in read.files] == ["b", "a", "e", "c"]


def test_folder_gives_its_texts_in_natural_order(tmp_path):
    folder = tmp_path / "novels"
    texts = ("a.txt", "B.TXT", "b.txt", "chapter2.txt", "chapter10.txt", "part2/d.Text", "part10/e.txt")
    for name in (*texts, ".hidden.txt", "c.md", ".git/f.txt", "runs/hp/model.safetensors", "runs/hp/samples.txt"):
        write(folder, name, name.encode())
    write(folder, "c.txt.gz", gzip.compress(b"c.txt.gz"))
    (folder / "folder.txt").mkdir()
    (folder / "link").symlink_to(tmp_path)
    other = write(tmp_path, "other/z.text", b"z")
    read = read_text([folder, str(other)])
    assert read.text.split("\n") == [*texts[:3], "c.txt.gz", *texts[3:], "z"]
    assert [file.name for file in read.files][-2:] == [str(folder / "part10/e.txt"), str(other)]
    assert read.notices == (f"{folder}: left out, as no text by the name: c.md, link, runs/hp",)


def test_folder_by_rules_1_gives_its_txt_files_sorted(tmp_path):
    for name in ("b.txt", "a.txt", "B.txt", ".hidden.txt", "c.md", "sub/d.txt", "e.TXT"):
        write(tmp_path, name, name.encode())
    (tmp_path / "folder.txt").mkdir()
    read = read_text([tmp_path], rules=1)
    assert (read.text, read.notices) == ("B.txt\na.txt\nb.txt", ())
    assert [file.name for file in read.files] == [str(tmp_path / f"{name}.txt") for name in "Bab"]


def test_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeffnaïve\r\n".encode())))
    path = write(tmp_path, "a.txt", b"a")
    read = read_text([path, "-"])
    assert read.text == "a\nnaïve\n"
    assert (read.files[1].name, read.files[1].size) == ("-", 11)


def test_digest_is_that_of_the_text_however_it_is_stored(tmp_path):
    plain = write(tmp_path, "plain.txt", "é one\ntwo\n".encode())
    others = [
        [write(tmp_path, "crlf.txt", "\ufeffé one\r\ntwo\r\n".encode())],
        [write(tmp_path, "packed.gz", gzip.compress("é one\ntwo\n".encode()))],
        [write(tmp_path, "1.txt", "é one".encode()), write(tmp_path, "2.txt", b"two\n")],
    ]
    digest = read_text([plain]).sha256
    assert digest == hashlib.sha256(plain.read_bytes()).hexdigest()
    assert [read_text(paths).sha256 for paths in others] == [digest] * 3
    with mock.patch.object(fastmlp.text.reading, "PIECE", 2):
        assert Text("é one\ntwo\n", ()).sha256 == digest
    assert Text("é one\ntwo", ()).sha256 != digest


ENGLISH = "It was a dark and stormy night. " * 20
SAFETENSORS = b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"w":{"dtype":"F32"}}'.ljust(64) + bytes(100)


# the content of the file, and a part of the message
BAD_FILES = {
    "empty.txt": (b"", "empty; name a text with words in it"),
    "blank.txt": (b" \n\t\r\n", "empty; name a text with words in it"),
    "only a bom.txt": (b"\xef\xbb\xbf", "empty; name a text with words in it"),
    "utf16.txt": (ENGLISH.encode("utf-16"), "UTF-16, not UTF-8; convert it with: iconv -f UTF-16 -t UTF-8 "),
    "utf16be.txt": (b"\xfe\xff" + ENGLISH.encode("utf-16-be"), "UTF-16, not UTF-8; convert it with: iconv -f UTF-16 "),
    "utf16 unmarked.txt": (ENGLISH.encode("utf-16-le"), "UTF-16LE, not UTF-8; convert it with: iconv -f UTF-16LE "),
    "utf16be unmarked.txt": (ENGLISH.encode("utf-16-be"), "UTF-16BE, not UTF-8; convert it with: iconv -f UTF-16BE "),
    "utf32.txt": (ENGLISH.encode("utf-32"), "UTF-32, not UTF-8; convert it with: iconv -f UTF-32 -t UTF-8 "),
    "latin.txt": (
        "na\u00efve".encode("latin-1"),
        "not UTF-8 at byte 2 (0xef); if it is Windows-1252 or Latin-1, convert it with: iconv -f WINDOWS-1252",
    ),
    "latin and bom.txt": (b"\xef\xbb\xbfab\x93c", "not UTF-8 at byte 5 (0x93)"),
    "far.txt": (b"x" * 3_000_000 + b"\xff" + b"x" * 9, "not UTF-8 at byte 3,000,000 (0xff)"),
    "surrogate.txt": (b"ab\xed\xa0\x80", "not UTF-8 at byte 2 (0xed)"),
    "cut.txt": ("naïve".encode()[:3], "not UTF-8 at byte 2 (0xc3): cut short in the middle of a character; get the"),
    "nul.txt": (
        b"one\0two",
        "a NUL at byte 3: a binary file, not a text; from text with stray NULs, remove them with",
    ),
    "far nul.txt": (b"x" * 3_000_000 + b"\0", "a NUL at byte 3,000,000: a binary file"),
    "mostly nul": (b"MZ" + bytes(99), "a NUL at byte 2: a binary file, not a text"),
    "program": (b"\x7fELF\x02\x01\x01" + bytes(9), "a program, not a text"),
    "noise": (bytes(range(256)) * 9, "a NUL at byte 0: a binary file, not a text"),
    "noise without nul": (bytes(range(1, 256)) * 9, "not UTF-8 at byte 127 (0x80): a binary file, not a text"),
    "model.bin": (SAFETENSORS, "a safetensors model file, not text; name the text to read, not the model"),
    "book.pdf": (b"%PDF-1.7\n", "a PDF file, not plain text; convert it first, e.g. with pdftotext"),
    "book.epub": (b"PK\x03\x04\x0a", "an EPUB or ZIP file that is damaged (File is not a zip file); download it again"),
    "cut.gz": (gzip.compress(ENGLISH.encode())[:-10], "the compressed file is cut short; download it again"),
    "flipped.gz": (gzip.compress(b"abc" * 99)[:-8] + bytes(8), "packed by gzip, and damaged (CRC check failed"),
    "broken.gz": (gzip.compress(b"")[:10] + b"\xff" * 30, "packed by gzip, and damaged (Error -3 while"),
    "utf16.gz": (gzip.compress(ENGLISH.encode("utf-16")), "UTF-16, not UTF-8; convert it with: gunzip -c "),
    "nothing.gz": (b"", "empty; name a text with words in it"),
    "not\nprintable.txt": (b"\xff", "not UTF-8 at byte 0 (0xff)"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_promise_11_bad_file(tmp_path, name):
    data, message = BAD_FILES[name]
    path = write(tmp_path, name, data)
    shown = str(path) if name.isprintable() else ascii(str(path))
    assert message_of([path]).startswith(f"{shown}: {message}")
    assert ("tr -d" in message_of([path])) == (name in ("nul.txt", "far nul.txt"))


@pytest.mark.parametrize(
    "name", ["utf16.txt", "utf16 unmarked.txt", "utf32.txt", "latin.txt", "nul.txt", "utf16.gz", "far nul.txt"]
)
def test_promise_11_the_command_in_the_message_mends_the_file(tmp_path, name):
    if not shutil.which("iconv"):
        pytest.skip("iconv is not there")
    data, _ = BAD_FILES[name]
    path = write(tmp_path, f"it's {name}", data)
    subprocess.run(["sh", "-c", message_of([path]).split("with: ")[1]], check=True)
    (mended,) = tmp_path.glob("*.utf8.txt")
    expected = {"latin.txt": "naïve", "nul.txt": "onetwo", "far nul.txt": "x" * 3_000_000}.get(name, ENGLISH)
    assert read_text([mended]).text == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "standard input: empty; name a text with words in it"),
        (b"ab\xe9d", "standard input: not UTF-8 at byte 2 (0xe9)"),
        (b"\xff\xfea\0", "standard input: UTF-16, not UTF-8; convert it with: ... | iconv -f UTF-16 -t UTF-8 | ..."),
    ],
)
def test_promise_11_bad_standard_input(monkeypatch, data, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert message_of(["-"]).startswith(message)


def test_promise_11_no_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert message_of(["-"]) == "standard input is closed; name a text file"
    assert message_of(["-", "-"]) == "standard input (-) is named more than once: it can be read only once"


def test_the_same_file_twice_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "-"):
        Path(name).write_text("one two\n")
    Path("link.txt").symlink_to("b.txt")
    file = "a.txt"
    for paths, message in (
        ([file, file], "a.txt: the same file as a.txt; name it once"),
        ([".", "./a.txt"], "link.txt: the same file as b.txt; name it once"),
        (["a.txt", tmp_path], f"{tmp_path}/a.txt: the same file as a.txt; name it once"),
    ):
        assert message_of(paths) == message
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"three")))
    assert read_text(["-", "./-", "a.txt"], rules=1).text == "three\none two\none two\n"


def test_promise_11_missing_file(tmp_path):
    book, tokens = (write(tmp_path, name, b"a") for name in ("barsetshire.txt", "barsetshire.tokens.txt"))
    missing, elsewhere = tmp_path / "barsetshir.txt", tmp_path / "no" / "a.txt"
    assert message_of([missing]) == f"{missing}: no such file; did you mean {book} or {tokens}?"
    assert message_of([tmp_path / "zzz"]) == f"{tmp_path / 'zzz'}: no such file"
    assert message_of([elsewhere]) == f"{elsewhere}: there is no folder {tmp_path / 'no'}"
    assert message_of([book / "a.txt"]) == f"{book / 'a.txt'}: there is no folder {book}"
    assert message_of([f"{book}/"]) == f"{book}/: a file, not a folder; name it without the slash at its end"
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "nowhere")
    assert message_of([tmp_path]) == f"{link}: a link to a file that is not there"


def test_promise_11_bad_names(tmp_path):
    assert message_of([]) == "no text was named"
    assert message_of([""]).startswith("a file name is empty; ")
    assert message_of(["a\0b"]).startswith(r"'a\x00b': cannot be read: ")
    assert message_of([os.fsdecode(bytes(tmp_path) + b"/\xff.txt")]).endswith(r"\udcff.txt': no such file")
    assert message_of([tmp_path / ("a" * 300)]).endswith("cannot be read: File name too long")
    with pytest.raises(TypeError, match=r"^paths: expected a sequence of paths, got str$"):
        read_text("a.txt")


def test_promise_11_folder_without_texts(tmp_path):
    write(tmp_path, "a.md", b"a")
    assert message_of([tmp_path]) == (
        f"{tmp_path}: a folder without *.txt, *.text, *.epub, *.html, *.htm, *.xhtml, *.fb2; name the files themselves"
    )
    write(tmp_path, "samples.txt", b"a")
    write(tmp_path, "model.safetensors", SAFETENSORS)
    assert message_of([tmp_path]).startswith(f"{tmp_path}: the folder of a run, not a text; ")


def test_promise_11_pipe_and_device(tmp_path):
    message = "a pipe or a device, not a file; read it from standard input, named -"
    assert message_of(["/dev/zero"]) == f"/dev/zero: {message}"
    os.mkfifo(tmp_path / "pipe.txt")
    assert message_of([tmp_path / "pipe.txt"]) == f"{tmp_path / 'pipe.txt'}: {message}"
    assert message_of([tmp_path]) == f"{tmp_path / 'pipe.txt'}: {message}"


def test_promise_11_a_binary_file_larger_than_memory(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.write(b"text" * 1_000_000)
        file.truncate(1 << 40)  # the rest is a hole that takes no space
    assert message_of([path]).startswith(f"{path}: a NUL at byte 4,000,000: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_promise_11_no_permission(tmp_path):
    path = write(tmp_path, "folder/secret.txt", b"a")
    path.chmod(0)
    assert message_of([path]) == f"{path}: cannot be read: Permission denied"
    path.parent.chmod(0)
    assert message_of([path.parent]) == f"{path.parent}: cannot be read: Permission denied"
    assert message_of([path]) == f"{path}: cannot be read: Permission denied"
    path.parent.chmod(0o700)


@pytest.mark.parametrize(("owner", "method"), [(Path, "open"), (os, "scandir")])
def test_promise_11_failing_file_system(tmp_path, monkeypatch, owner, method):
    path = write(tmp_path, "a.txt", b"a") if method == "open" else tmp_path

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(owner, method, fail)
    assert message_of([path]) == f"{path}: cannot be read: Input/output error"


def test_promise_11_a_line_of_100_mb_in_bounded_memory(tmp_path):
    size = 100_000_000
    path = write(tmp_path, "line.txt", (b"w" * 999 + b" ") * (size // 1000))
    tracemalloc.start()
    text = read_text([path]).text
    reading = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    words = WORDS.split(text)
    splitting = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words == ["w" * 999] * (size // 1000)
    assert reading < 3 * size
    assert splitting < 1.2 * size
