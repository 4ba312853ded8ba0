import ast
import difflib
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
import unicodedata
from pathlib import Path
from unittest import mock

import fastmlp.text.tokenizer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastmlp.text.reading
from fastmlp.text import (
    TOKENIZERS,
    Text,
    TextError,
    TextFile,
    Vocabulary,
    get_tokenizer,
    read_text,
    standard_library_text,
)

ROOT = Path(__file__).parents[2]
CORPORA = ROOT.parent / "shared" / "corpora"
WORDS, WHITESPACE = get_tokenizer("words"), get_tokenizer("whitespace")

# ------------------------------------------------------------------------------------------------------------- `words`

SPLIT_WORDS = [
    ("", []),
    (" \n\t", []),
    ("?! ,;:", []),
    ("The Rev. Septimus Harding was,", ["the", "rev", ".", "septimus", "harding", "was"]),
    # apostrophes and hyphens inside a word vanish; elsewhere they are white space
    ("don't", ["dont"]),
    ("o’clock O‘Brien Oʼahu", ["oclock", "obrien", "oahu"]),
    ("seventeen-year-old", ["seventeenyearold"]),
    ("co‐operate co‑operate co\u00adoperate", ["cooperate"] * 3),
    ("x-'-y", ["xy"]),
    ("'tis the dogs' 'n' - ' -", ["tis", "the", "dogs", "n"]),
    ("‘He said’", ["he", "said"]),
    ("line-\nend", ["line", "end"]),
    ("می\u200cخواهم", ["میخواهم"]),
    # dashes separate
    ("word--word", ["word", "word"]),
    ("a---b----c", ["a", "b", "c"]),
    ("a‒b–c—d―e", ["a", "b", "c", "d", "e"]),
    ("don'--t", ["don", "t"]),
    ("the town of ----; let", ["the", "town", "of", "let"]),
    # '.' is a word wherever it stands, and no other mark is one
    ("3.14", ["3", ".", "14"]),
    ("e.g. x", ["e", ".", "g", ".", "x"]),
    ("...", [".", ".", "."]),
    ("wait… 。", ["wait"]),
    # all else is white space
    ("_so_ snake_case", ["so", "snake", "case"]),
    ("AT&T 50%", ["at", "t", "50"]),
    ("a\u00a0b\u2028c\u200bd\ufffde", ["a", "b", "c", "d", "e"]),
    ("I ❤\ufe0f you 😀", ["i", "you"]),
    # letters and digits of any script, with their marks
    ("CAFÉ cafe\u0301", ["café", "café"]),
    ("हिन्दी में क्षत्रिय", ["हिन्दी", "में", "क्षत्रिय"]),
    ("עִבְרִית", ["עִבְרִית"]),
    (unicodedata.normalize("NFD", "한국어"), ["한국어"]),
    ("你好，世界！", ["你好", "世界"]),
    ("ΟΔΟΣ. ΣΑΣ", ["οδος", ".", "σας"]),
    ("ΑΣ-Β", ["ασβ"]),
    ("İstanbul Straße", ["i\u0307stanbul", "straße"]),
    ("½ ² Ⅷ ٣ 𐐀", ["½", "²", "ⅷ", "٣", "𐐨"]),
    ("\u0301a \u0301 .\u0301b", ["a", ".", "b"]),
]


@pytest.mark.parametrize(("text", "words"), SPLIT_WORDS)
def test_words_split(text, words):
    assert WORDS.split(text) == words


def plain_words(text):
    """The `words` rule read out literally, a character at a time."""

    def is_inner(place):
        return 0 <= place < len(text) and text[place] in "'’‘ʼ-‐‑\u00ad\u200c\u200d\u2060\ufeff"

    def is_word(place):
        return (
            0 <= place < len(text)
            and not is_inner(place)
            and (text[place].isalnum() or unicodedata.category(text[place])[0] == "M")
        )

    text = re.sub("-{2,}", " ", text)
    spaced = ""
    place = 0
    while place < len(text):
        start = place
        while is_inner(place):
            place += 1
        if place > start:
            spaced += "" if is_word(start - 1) and is_word(place) else " "
            continue
        spaced += text[place] if is_word(place) else " . " if text[place] == "." else " "
        place += 1
    words = [word if word == "." else re.sub(r"^\W+", "", word) for word in spaced.split()]
    return [unicodedata.normalize("NFC", word.lower()) for word in words if word]


TRICKY = st.text(st.sampled_from("aBz1éÉ\u0301\u0323ि'’-‐\u00ad\u200d..  \n_—–,Σσßİ字😀가\u00a0"), max_size=30)


@given(TRICKY | st.text())
def test_words_split_is_the_rule_read_out_literally(text):
    assert WORDS.split(text) == plain_words(text)


@given(TRICKY | st.text())
def test_words_join_and_split_give_the_same_words(text):
    words = WORDS.split(text)
    assert WORDS.split(WORDS.join(words)) == words


def test_words_of_every_character_are_stable():
    words = WORDS.split(" ".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000))
    assert len(words) > 130_000
    assert WORDS.split(WORDS.join(words)) == words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["he", "said", ".", "then", "he", "left", "."], "he said. then he left."),
        ([".", "a", ".", ".", ".", "b"], ". a... b"),
    ],
)
def test_words_join(words, text):
    assert WORDS.join(words) == text


# -------------------------------------------------------------------------------------------------------- `whitespace`


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("\n", []),
        ("  \n", []),
        ("a b", ["a", "b"]),
        ("a b\n", ["a", "b"]),
        (" a  b \n c \n", ["a", "b", "<eos>", "c"]),
        ("a\nb", ["a", "<eos>", "b"]),
        ("a\n\nb\n\n", ["a", "<eos>", "<eos>", "b", "<eos>"]),
        ("a\r\nb\r\n", ["a", "<eos>", "b"]),
        ("a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\u00a0h", list("abcdefgh")),
        ("N <unk> don't 'Tis . <eos> x", ["N", "<unk>", "don't", "'Tis", ".", "<eos>", "x"]),
    ],
)
def test_whitespace_split(text, words):
    assert WHITESPACE.split(text) == words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["a", "b", "<eos>", "c", "."], "a b\nc ."),
        (["<eos>", "a", "<eos>", "<eos>", "b", "<eos>"], "\na\n\nb\n"),
    ],
)
def test_whitespace_join(words, text):
    assert WHITESPACE.join(words) == text


@given(st.text(st.sampled_from("ab<. \n\t\u2028")) | st.text())
def test_whitespace_join_and_split_give_the_same_words(text):
    words = WHITESPACE.split(text)
    again = WHITESPACE.split(WHITESPACE.join(words))
    assert again == (words[:-1] if words[-1:] == ["<eos>"] else words)


# ------------------------------------------------------------------------------------------------------ all tokenizers


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=TRICKY | st.text(), size=st.integers(1, 5))
def test_words_do_not_depend_on_where_the_text_is_cut(name, text, size):
    tokenizer = get_tokenizer(name)
    whole = tokenizer.split(text)
    with mock.patch.object(fastmlp.text.tokenizer, "PIECE", size):
        assert tokenizer.split(text) == whole


@pytest.mark.parametrize("name", TOKENIZERS)
def test_equal_words_are_one_object(name):
    words = get_tokenizer(name).split("Some word and some word\n" * 100)
    assert len({id(word) for word in words}) == len(set(words))


@pytest.mark.parametrize(("name", "end"), [("words", "."), ("prose", "<p>"), ("whitespace", "<eos>")])
def test_sentence_end_is_a_word_of_the_tokenizer(name, end):
    tokenizer = get_tokenizer(name)
    assert (tokenizer.name, tokenizer.sentence_end) == (name, end)
    assert tokenizer.split(tokenizer.join(["a", end, "b"])) == ["a", end, "b"]


def test_unknown_tokenizer_lists_the_names():
    with pytest.raises(ValueError, match=r"^tokenizer: expected one of words, prose, whitespace, got 'word'$"):
        get_tokenizer("word")


@pytest.mark.parametrize(
    ("file", "tokenizer", "words", "types"),
    [
        ("barsetshire.txt", "words", 1_346_919, 22_401),
        ("barsetshire.tokens.txt", "whitespace", 1_339_610, 28_303),
    ],
)
def test_counts_of_the_corpora(file, tokenizer, words, types):
    if not (CORPORA / file).exists():
        pytest.skip(f"{CORPORA / file} is not there")
    found = get_tokenizer(tokenizer).split(read_text([CORPORA / file]).text)
    vocabulary = Vocabulary.from_words(found)
    assert (len(found), len(vocabulary)) == (words, types + 1)
    assert vocabulary.decode(vocabulary.encode(found)) == found


# ------------------------------------------------------------------------------------------------------- reading files


def write(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


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
    ],
)
def test_read_one_file(tmp_path, name, data, text):
    path = write(tmp_path, name, data)
    content = gzip.decompress(data) if name.lower().endswith(".gz") else data
    file = TextFile(str(path), len(content), hashlib.sha256(content).hexdigest())
    assert read_text([path]) == Text(text, (file,))


def test_files_are_joined_in_their_order_each_from_a_new_line(tmp_path):
    paths = [write(tmp_path, name, data) for name, data in (("b", b"one."), ("a", b"two\n"), ("e", b""), ("c", b"3"))]
    read = read_text(paths)
    assert read.text == "one.\ntwo\n3"
    assert [Path(file.name).name for file in read.files] == ["b", "a", "e", "c"]


def test_folder_gives_its_txt_files_sorted(tmp_path):
    for name in ("b.txt", "a.txt", "B.txt", ".hidden.txt", "c.md", "sub/d.txt"):
        write(tmp_path, name, name.encode())
    (tmp_path / "folder.txt").mkdir()
    other = write(tmp_path, "other/z.text", b"z")
    read = read_text([tmp_path, str(other)])
    assert read.text == "B.txt\na.txt\nb.txt\nz"
    assert [file.name for file in read.files] == [*(str(tmp_path / f"{name}.txt") for name in "Bab"), str(other)]


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

# what the file holds, and what the message says about it
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
    "nul.txt": (b"one\0two", "a NUL at byte 3: a binary file; from text with stray NULs, remove them with: tr -d"),
    "far nul.txt": (b"x" * 3_000_000 + b"\0", "a NUL at byte 3,000,000: a binary file"),
    "program": (b"\x7fELF\x02\x01\x01" + bytes(9), "a NUL at byte 7: a binary file"),
    "model.bin": (SAFETENSORS, "a safetensors model file, not text; name the text to read, not the model"),
    "book.pdf": (b"%PDF-1.7\n", "a PDF file, not plain text; convert it first, e.g. with pdftotext"),
    "book.epub": (b"PK\x03\x04\x0a", "a ZIP, EPUB or Word file, not plain text; unpack it or convert it"),
    "packed": (gzip.compress(b"a"), "compressed by gzip; unpack it with gunzip, or let its name end in .gz"),
    "cut.gz": (gzip.compress(ENGLISH.encode())[:-10], "the compressed file is cut short; download it again"),
    "text.gz": (b"plain text", "not gzip, or damaged (Not a gzipped file (b'pl')); rename it, or download it"),
    "flipped.gz": (gzip.compress(b"abc" * 99)[:-8] + bytes(8), "not gzip, or damaged (CRC check failed"),
    "broken.gz": (gzip.compress(b"")[:10] + b"\xff" * 30, "not gzip, or damaged (Error -3 while"),
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
        (gzip.compress(b"a"), "standard input: compressed by gzip; unpack it with gunzip"),
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
    assert read_text(["-", "./-", "a.txt"]).text == "three\none two\none two\n"


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
    assert message_of([tmp_path]) == f"{tmp_path}: a folder without *.txt files; name the files themselves"
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


@pytest.mark.parametrize("method", ["open", "iterdir"])
def test_promise_11_failing_file_system(tmp_path, monkeypatch, method):
    path = write(tmp_path, "a.txt", b"a") if method == "open" else tmp_path

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, method, fail)
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


# ---------------------------------------------------------------------------------------------------- standard library


def test_standard_library_is_read_not_imported_and_the_same_in_a_fresh_process():
    read = standard_library_text()
    words = WORDS.split(read.text)
    assert 250_000 < len(words) < 450_000  # some distributions leave tkinter and idlelib out
    assert len(Vocabulary.from_words(words)) > 8_000
    assert "argparse.py" in [file.name for file in read.files]
    code = (
        "import sys, inspect, fastmlp.text; before = set(sys.modules); read = fastmlp.text.standard_library_text();"
        "print(read.sha256, len(read.files), *set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    digest, files, *imported = run.stdout.split()
    assert (digest, int(files), run.stderr) == (read.sha256, len(read.files), "")
    # the codec of a source, and Python's own table of paths
    assert [name for name in imported if not name.startswith(("encodings.", "_sysconfigdata"))] == []


TOPICS = {
    "concatenated": "topics = {'a': 'One\\n'\n  '***\\n',\n 'b': 'Two words.\\n'}",
    "raw": "topics = {\n    'a': r'''One\n***\n''',\n    'b': r'''Two words.\n''',\n}",
}
MODULE = '''
"""About a module."""
raise SystemExit("this must never run")
text = """Not a docstring."""
class A:
    """A class.

    Indented.
    """
    if True:
        def f(self):
            "A method."
            async def g(): "Nested."
    else:
        def f(self): "Another."
def silent(): pass
'''


@pytest.mark.parametrize("form", TOPICS)
def test_standard_library_of_any_shape(tmp_path, monkeypatch, form):
    write(tmp_path, "pydoc_data/topics.py", TOPICS[form].encode())
    write(tmp_path, "argparse.py", MODULE.encode())
    write(tmp_path, "bdb.py", b'"A module that does not parse." (')
    write(tmp_path, "unknown.py", b'"Not in the list."')
    for name in ("b", "__init__", "sub/a", "tests/x"):
        write(tmp_path, f"asyncio/{name}.py", f'"Package {name}."'.encode())
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    read = standard_library_text()
    docstrings = ["About a module.", "A class.\n\nIndented.", "A method.", "Nested.", "Another."]
    packages = ["Package __init__.", "Package b.", "Package sub/a."]
    assert read.text == "\n\n".join(["One\n***\n", "Two words.\n", *docstrings, *packages]) + "\n"
    files = ["pydoc_data/topics.py", "argparse.py", "asyncio/__init__.py", "asyncio/b.py", "asyncio/sub/a.py"]
    assert [file.name for file in read.files] == files
    assert read.files[1] == TextFile("argparse.py", len(MODULE), hashlib.sha256(MODULE.encode()).hexdigest())


def test_no_standard_library(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(TextError, match=r"^this Python carries no documentation to train on \(.*\); name a text file$"):
        standard_library_text()


# ---------------------------------------------------------------------------------------------------------- vocabulary


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("b a b c a b", {}, "b a c"),
        ("b a é z A", {}, "A a b z é"),
        ("b a b c a b", {"min_count": 2}, "b a"),
        ("b a b c a b", {"max_size": 3}, "b a"),
        ("b a b c a b", {"max_size": 4}, "b a c"),
        ("b a b c a b", {"max_size": 100, "min_count": 3}, "b"),
        ("<unk> <unk> a <unk> b b", {"max_size": 2}, "b"),
        ("<unk> a", {}, "a"),
    ],
)
def test_vocabulary_is_counted(text, options, words):
    vocabulary = Vocabulary.from_words(text.split(), **options)
    assert vocabulary.words == (*words.split(), "<unk>")
    assert len(vocabulary) == len(vocabulary.words)
    assert vocabulary.unk_id == vocabulary.id_of("<unk>") == len(vocabulary) - 1


def test_encode_and_decode():
    vocabulary = Vocabulary(("the", "a", "<unk>"))
    ids = vocabulary.encode(["a", "cat", "the", "<unk>", "A"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [1, 2, 0, 2, 2]
    assert vocabulary.decode(ids) == ["a", "<unk>", "the", "<unk>", "<unk>"]
    assert vocabulary.decode([0]) == ["the"]
    assert vocabulary.encode([]).shape == (0,)
    assert vocabulary.decode([]) == []
    assert "a" in vocabulary
    assert "cat" not in vocabulary
    assert vocabulary.id_of("cat") == 2


@pytest.mark.parametrize(("ids", "wrong"), [([0, 3], 3), ([-1, 0], -1)])
def test_decode_refuses_other_ids(ids, wrong):
    with pytest.raises(IndexError, match=rf"^ids: expected ids in \[0, 3\), got {wrong}$"):
        Vocabulary(("the", "a", "<unk>")).decode(ids)


@given(st.lists(st.text(max_size=3), min_size=1).filter(lambda words: any(map(str.isalnum, "".join(words)))))
def test_every_word_has_the_id_of_its_place(words):
    vocabulary = Vocabulary.from_words(words)
    assert vocabulary.decode(vocabulary.encode(words)) == words
    counts = [words.count(word) for word in vocabulary.words[:-1]]
    assert counts == sorted(counts, reverse=True)
    assert [vocabulary.id_of(word) for word in vocabulary.words] == list(range(len(vocabulary)))


@pytest.mark.parametrize(
    ("words", "options", "error", "message"),
    [
        ([], {}, TextError, "the text has no words, only punctuation or white space; name a text with words in it"),
        ([".", "?!"], {}, TextError, "the text has no words, only punctuation"),
        (["<eos>", ",", "<unk>"], {}, TextError, "the text has no words, only punctuation"),
        (["a", "a", "b"], {"min_count": 3}, TextError, "min_count 3 leaves no word: the most frequent one occurs 2"),
        (["a"], {"min_count": 0}, ValueError, "min_count: expected at least 1, got 0"),
        (["a"], {"max_size": 1}, ValueError, "max_size: expected at least 2 (<unk> and a word), got 1"),
    ],
)
def test_promise_11_text_without_words(words, options, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}") as caught:
        Vocabulary.from_words(words, **options)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "words: expected <unk> as the last one"),
        (("<unk>", "a"), "words: expected <unk> as the last one"),
        (("a", "b", "a", "<unk>"), "words: expected different words, got 'a' twice"),
    ],
)
def test_words_that_are_no_vocabulary(words, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Vocabulary(words)


def test_closest_words():
    vocabulary = Vocabulary(("archdeacon", "archdeacons", "warden", "wardens", ".", "grantly", "unk", "a", "<unk>"))
    assert vocabulary.closest("ahrdecon") == ["archdeacon", "archdeacons", "warden"]
    assert vocabulary.closest("granty") == ["grantly"]
    assert vocabulary.closest("wardens", 1) == ["wardens"]
    assert vocabulary.closest("zzz") == []
    assert vocabulary.closest("<unk>") == ["unk"]


@given(st.text("ab", max_size=9), st.lists(st.text("ab", min_size=1, max_size=9), min_size=1))
def test_closest_words_are_those_of_difflib(word, words):
    vocabulary = Vocabulary.from_words(words)
    assert vocabulary.closest(word) == difflib.get_close_matches(word, vocabulary.words[:-1], 3, 0.7)


def test_promise_4_same_ids_in_fresh_processes():
    code = (
        "from fastmlp.text import *; import sys\n"
        "words = get_tokenizer('words').split(sys.stdin.read())\n"
        "vocabulary = Vocabulary.from_words(words, min_count=2)\n"
        "print(vocabulary.words, vocabulary.encode(words).tolist(), vocabulary.closest('dict'))"
    )
    text = "".join(str(thing.__doc__) for thing in (dict, str, ast, subprocess, re, bytes.split))
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1
    assert "'the'" in outputs.pop()


def test_a_word_in_other_capitals_is_found() -> None:
    vocabulary = Vocabulary.from_words(["Harding", "Harding", "HARDING", "will", "Will", "Will"])
    assert [vocabulary.in_its_case(word) for word in ("harding", "HARDING", "will", "WILL", "mr")] == [
        "Harding",
        "HARDING",
        "will",
        "Will",
        "mr",
    ]
