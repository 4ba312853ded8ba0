"""Promise 11: texts as people have them, by the rules of reading: input -> words, or the line that says why not."""

import bz2
import gzip
import hashlib
import io
import lzma
import sys
import tarfile
import tracemalloc
import zipfile

import pytest

import fastmlp.text.formats
from fastmlp.options import RULES
from fastmlp.text import TOKENIZERS, TextError, Vocabulary, get_tokenizer, read_text, standard_library_text
from fastmlp.text.characters import is_invisible
from fastmlp.text.markup import text_of_markup
from tests.text.helpers import CORPORA, write

ZSTANDARD = "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd"

# ------------------------------------------------------------------------------------------------- characters -> words

SPELLINGS = {
    # what is written: (words, prose), one word in each row
    **{f"don{mark}t": ("dont", "don’t") for mark in "'’‘`´ʹ′＇‛ʻʽʼꞌ\x92"},
    **{
        f"don{entity}t": ("dont", "don’t") for entity in ("&#8217;", "&#39;", "&#x2019;", "&rsquo;", "&apos;", "&#146;")
    },
    "ﬁnd": ("find", "find"),
    "oﬃce": ("office", "office"),
    "Ｆｕｌｌ": ("full", "Full"),
    "ĳs": ("ijs", "ijs"),
    "Ｄｏｎ＇ｔ": ("dont", "Don’t"),
    "bleſſing": ("blessing", "blessing"),
    "ﻻ": ("لا", "لا"),
    "صـــلاة": ("صلاة", "صلاة"),
    "so\u00adft": ("soft", "soft"),
    "\u200eright\u200f": ("right", "right"),
    "mid\ufeffdle": ("middle", "middle"),
    "f\u3164ill\u115fer": ("filler", "filler"),
    'צה"ל': ("צהל", "צה״ל"),
    "צה״ל": ("צהל", "צה״ל"),
    "ג'ורג": ("גורג", "ג’ורג"),
    "ג׳ורג": ("גורג", "ג’ורג"),
    "می\u200cخواهم": ("میخواهم", "می\u200cخواهم"),
    "end\u200c": ("end", "end"),
    "x²": ("x²", "x²"),
    "ㅋㅋ": ("ㅋㅋ", "ㅋㅋ"),
}


@pytest.mark.parametrize("written", SPELLINGS)
def test_one_word_has_one_spelling(written):
    words = [get_tokenizer(name).split(f"a {written} b")[1:-1] for name in ("words", "prose")]
    assert words == [[word] for word in SPELLINGS[written]]


SCRIPTS = {
    "我们读书。他说：“你好！”": ("我 们 读 书 . 他 说 你 好", "我 们 读 书 。 他 说 : “ 你 好 ! ”"),
    "可‘以’吗": ("可 以 吗", "可 ‘ 以 ’ 吗"),
    "「猫」である。ｶﾞ": ("猫 で あ る . ガ", "「 猫 」 で あ る 。 ガ"),
    "用Python写": ("用 python 写", "用 Python 写"),
    "ไม่มี": ("ไ ม่ มี", "ไ ม่ มี"),
    "ខ្មែរ": ("ខ្មែ រ", "ខ្មែ រ"),
    "စက္ကူ": ("စ က္ကူ", "စ က္ကူ"),
    "한국어 책": ("한국어 책", "한국어 책"),
    "में।": ("में .", "में।"),
}


@pytest.mark.parametrize("written", SCRIPTS)
def test_scripts_without_spaces_are_characters(written):
    for name, words in zip(("words", "prose"), SCRIPTS[written], strict=True):
        tokenizer = get_tokenizer(name)
        assert tokenizer.split(written) == words.split()
        assert tokenizer.split(tokenizer.join(words.split())) == words.split()


def test_letters_of_scripts_without_spaces_are_printed_without_them():
    for name in ("words", "prose"):
        assert get_tokenizer(name).join(["我", "们", "读", "书"]) == "我们读书"
    assert get_tokenizer("words").join(["用", "python", "写", "."]) == "用 python 写."


def test_no_character_that_shows_nothing_is_in_a_vocabulary():
    characters = list(filter(is_invisible, map(chr, range(sys.maxunicode + 1))))
    assert len(characters) > 3_900
    text = " ".join(f"a{character}b {character}" for character in characters)
    for tokenizer in TOKENIZERS.values():
        assert [word for word in set(tokenizer.split(text)) if any(map(is_invisible, word))] == []


@pytest.mark.parametrize(
    ("text", "words", "prose", "whitespace"),
    [
        ("don´t ﬁnd", ["don", "t", "ﬁnd"], ["don´t", "ﬁnd"], ["don´t", "ﬁnd"]),
        ("我们读书。", ["我们读书"], ["我们读书。"], ["我们读书。"]),
        ("a\u200eb \u3164", ["a", "b", "\u3164"], ["a\u200eb", "\u3164"], ["a\u200eb", "\u3164"]),
    ],
)
def test_rules_1_stay(text, words, prose, whitespace):
    split = {name: get_tokenizer(name, rules=1).split(text) for name in TOKENIZERS}
    assert split == {"words": words, "prose": prose, "whitespace": whitespace}
    for name in TOKENIZERS:
        assert get_tokenizer(name).rules == get_tokenizer(name).fit(text)[0].rules == RULES
        assert get_tokenizer(name, rules=1).fit(text)[0].rules == 1


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="rules: expected one of 1 to 2, got 3; upgrade fastmlp"):
        get_tokenizer("words", rules=3)


def test_the_newest_rules_give_plain_english_the_words_of_before():
    text = standard_library_text().text
    for name in ("words", "prose"):
        assert get_tokenizer(name).fit(text)[1] == get_tokenizer(name, rules=1).fit(text)[1]


@pytest.mark.parametrize(
    ("tokenizer", "digest"),
    [("words", "bef2f9f5f3cfb131"), ("prose", "92a5a94ea3a82f2b"), ("whitespace", "0196bb6d62488554")],
)
def test_the_ids_of_the_barsetshire_novels_are_those_of_before(tokenizer, digest):
    if not (CORPORA / "barsetshire.txt").exists():
        pytest.skip(f"{CORPORA / 'barsetshire.txt'} is not there")
    _, words = get_tokenizer(tokenizer).fit(read_text([CORPORA / "barsetshire.txt"]).text)
    vocabulary = Vocabulary.from_words(words)
    written = vocabulary.encode(words).tobytes() + "\n".join(vocabulary.words).encode()
    assert hashlib.sha256(written).hexdigest()[:16] == digest


# --------------------------------------------------------------------------------------------------- files -> the text


def page(*paragraphs):
    return "<!DOCTYPE html><html><head><title>T</title></head><body>" + "".join(paragraphs) + "</body></html>"


def epub(chapters, *, members=None, spine=None):
    """An EPUB whose chapters lie in its archive in another order than in its spine."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("mimetype", "application/epub+zip")
        root = '<rootfile full-path="OPS/book.opf"/>'
        book.writestr("META-INF/container.xml", f'<container xmlns="urn:c"><rootfiles>{root}</rootfiles></container>')
        items = "".join(f'<item id="c{i}" href="text/{i}%20.xhtml"/>' for i in range(len(chapters)))
        spine = "".join(f'<itemref idref="{i}"/>' for i in spine or ["nav", *(f"c{i}" for i in range(len(chapters)))])
        manifest = f'<manifest><item id="nav" href="nav.xhtml" properties="nav"/>{items}</manifest>'
        book.writestr("OPS/book.opf", f'<package xmlns="urn:o">{manifest}<spine>{spine}</spine></package>')
        book.writestr("OPS/nav.xhtml", page("<p>Contents</p>"))
        for number in reversed(range(len(chapters))):
            book.writestr(f"OPS/text/{number} .xhtml", chapters[number])
        for name, content in (members or {}).items():
            book.writestr(name, content)
    return data.getvalue()


def archive(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return data.getvalue()


def tar():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        info = tarfile.TarInfo("a.txt")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    return data.getvalue()


EPUB = "text without markup, taken from EPUB"
HTML = "text without markup, taken from HTML or XML"
PG = "header and licence of Project Gutenberg left out (--keep-licence keeps them)"
ENTITIES = "HTML entities converted to characters"
LICENCE = "Project Gutenberg is a trademark.\n\nUpdated editions\nour newsletter to hear about new eBooks.\n"


def gutenberg(book, end="*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***"):
    return (
        "The Project Gutenberg eBook of Emma\n\nThis ebook is for anyone.\n\n"
        "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nProduced by An Unknown\nVolunteer\n\n\n"
        f"{book}\n\n{end}\n\n{LICENCE}"
    )


READ = {
    "bz2": (bz2.compress(b"a b\n"), "a b\n", ""),
    "lzma": (lzma.compress(b"a b\n", lzma.FORMAT_ALONE), "a b\n", ""),
    "xz": (lzma.compress(b"a b\n"), "a b\n", ""),
    "byte order marks": ("\ufeffa\ufeff b\n\ufeffc".encode(), "a b\nc", ""),
    "windows": ("\x93I don\x92t\x94".encode(), "“I don’t”", "control characters read as those of Windows-1252"),
    "next line": ("a\x85b".encode(), "a\x85b", ""),
    "few entities": (b"AT&amp;T &lt; 3", "AT&amp;T &lt; 3", ""),
    "many entities": (b"&eacute;&#8217;&mdash;" * 4 + b" AT&T &nosuch;", "é’—" * 4 + " AT&T &nosuch;", ENTITIES),
    "html": (page("<p>One <i>two</i>\n three</p><p>four<br>five").encode(), "One two three\n\nfour\nfive\n", HTML),
    "html entities": (page("<p>don&#8217;t &amp;").encode(), "don’t &\n", HTML),
    "html in latin-1": (page("<meta charset=iso-8859-1><p>na\xefve").encode("latin-1"), "naïve\n", HTML),
    "html scripts": (page("<p>a</p><script>x<y</script><style>p{}</style><p>b").encode(), "a\n\nb\n", HTML),
    "html notes": (
        page('<p>word<a href="#1"><sup>1</sup></a> and<sup>[2]</sup><a href="#3">[3]</a> 4<sup>th</sup></p>').encode(),
        "word and 4th\n",
        HTML,
    ),
    "html pages": (page('<p>so <span class="pagenum">[Pg 7]</span>on</p>').encode(), "so on\n", HTML),
    "html ruby": (page("<p><ruby>漢<rt>kan<rt>x</ruby>字</p>").encode(), "漢字\n", HTML),
    "html ruby without ends": (page("<p><ruby>漢<rt>kan<rb>字<rt>ji</ruby>").encode(), "漢字\n", HTML),
    "html in itself": (page("<p>a<template>b<template>c</template>d</template>e").encode(), "ae\n", HTML),
    "html verse": (page("<pre>a\n b</pre>").encode(), "a\nb\n", HTML),
    "fb2": (
        b'<?xml version="1.0"?><FictionBook><description>d</description><body><p>a</p></body><binary>Zm9v</binary>'
        b"</FictionBook>",
        "a\n",
        HTML,
    ),
    "fb2 titles and verse": (
        b'<?xml version="1.0"?>\n<FictionBook><description>d</description><body><title><p>One</p>'
        b"</title><p>a</p><poem><stanza><v>b</v><v>c</v></stanza></poem></body></FictionBook>",
        "One\n\na\n\nb\nc\n",
        HTML,
    ),
    "part of a page": (b'<!-- - -> --><div class="a"><p>a</p><p>b</div>', "a\n\nb\n", HTML),
    "paragraphs of a tokenized text": (b"<p> a b <p> c", "<p> a b <p> c", ""),
    "comments before what is no page": (b"<!--a-->" * 999 + b"b", "<!--a-->" * 999 + "b", ""),
    "a line of spaces before gutenberg": (b" " * 500_000 + b"a\nGutenberg", " " * 500_000 + "a\nGutenberg", ""),
    "less than": (b"<3 you", "<3 you", ""),
    "epub": (epub([page("<h1>I</h1><p>a<sup>1</sup></p>"), page("<p>b</p>")]), "I\n\na\n\nb\n", EPUB),
    "gutenberg": (gutenberg("Emma Woodhouse,\nhandsome").encode(), "Emma Woodhouse,\nhandsome\n", PG),
    "gutenberg of old": (
        b"***The Project Gutenberg Etext of Emma***\n\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\n"
        b"lawyers\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\nEmma\n\n"
        b"End of the Project Gutenberg Etext of Emma\n",
        "Emma\n",
        PG,
    ),
    "gutenberg of old, with its typist": (
        b"Project Gutenberg's Emma, by Jane Austen\n\n*END*THE SMALL PRINT! FOR COPYRIGHT PROTECTED ETEXTS*Ver.02*END*"
        b"\n\nThis Etext was prepared by A. Volunteer\n\nNote: Project Gutenberg has\n  an HTML version.\n\nEmma\n",
        "Emma\n",
        PG,
    ),
    "gutenberg that ends in two lines": (
        b"***START OF THE PROJECT GUTENBERG EBOOK EMMA***\nEmma\n\n***END OF THE PROJECT GUTENBERG EBOOK EMMA,\nA***\n",
        "Emma\n",
        PG,
    ),
    "gutenberg without stars": (
        gutenberg("Emma", "End of Project Gutenberg's Emma, by Jane Austen").encode(),
        "Emma\n",
        PG,
    ),
    "gutenberg this": (
        gutenberg("Emma").replace("OF THE", "OF THIS").replace("EBOOK EMMA ***", "ETEXT A LONG\nTITLE ***").encode(),
        "Emma\n",
        PG,
    ),
    "gutenberg with another header": (
        b"mine\n\nFrom Project Gutenberg\nTitle: Emma\n\n*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\nEmma\n",
        "mine\n\nEmma\n",
        PG,
    ),
    "gutenberg begun twice": (
        b"*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\nlawyers\n"
        b"*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\nEmma\n",
        "Emma\n",
        PG,
    ),
    "two books": ((gutenberg("Emma") + gutenberg("Persuasion")).encode(), "Emma\n\nPersuasion\n", PG),
    "a book twice": ((gutenberg("Emma") + gutenberg("Emma")).encode(), "Emma\n", PG),
    "text around": (f"mine\n\n{gutenberg('Emma')}\nyours\n".encode(), "mine\n\nEmma\n\nyours\n", PG),
    "talk of gutenberg": (b"She read it at Project Gutenberg.\n", "She read it at Project Gutenberg.\n", ""),
}


@pytest.mark.parametrize("name", READ)
def test_promise_11_what_is_read(tmp_path, name):
    data, text, notice = READ[name]
    read = read_text([write(tmp_path, name, data)])
    assert read.text == text
    assert read.notices[:1] == ((f"{tmp_path / name}: {notice}",) if notice else ())


REFUSED = {
    "rtf.txt": (b"{\\rtf1 Hello", "an RTF document, not a text without markup; save it as text first"),
    "lfs.txt": (
        b"version https://git-lfs.github.com/spec/v1\noid",
        "the pointer of Git LFS to a file; get the file with: ",
    ),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "a document of Word or another old Office program; save"),
    "docx": (archive(word__document_xml=""), "a document of Word; save it as text first"),
    "odt": (archive(content_xml=""), "a document of OpenDocument; save it as text first"),
    "zip": (archive(a=""), "a ZIP archive; unpack it, and name what is in it"),
    "mobi": (bytes(60) + b"BOOKMOBI", "a Kindle book (MOBI, AZW); save it as text first, e.g. with Calibre"),
    "7z": (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    "rar": (b"Rar!\x1a\x07\x00", "a RAR archive; unpack it"),
    "tar": (tar(), "a tar archive; unpack it"),
    "tar.gz": (gzip.compress(tar()), "a tar archive; unpack it"),
    "page.mht": (b"From: <Saved by Blink>\nMIME-Version: 1.0\n", "a web archive (MHTML), not a text; save the page as"),
    "book.lit": (b"ITOLITLS" + bytes(99), "a Microsoft Reader book; save it as text first, e.g. with Calibre"),
    "png": (b"\x89PNG\r\n", "a picture, not a text"),
    "twice.gz": (gzip.compress(gzip.compress(b"a")), "packed twice; unpack it first"),
    "cut.bz2": (bz2.compress(b"a b" * 999)[:-9], "the compressed file is cut short; download it again"),
    "damaged.xz": (lzma.compress(b"a b")[:-20] + bytes(20), "packed by xz, and damaged ("),
    "locked.epub": (
        epub([page("a")], members={"META-INF/encryption.xml": '<e><CipherReference URI="OPS/text/0%20.xhtml"/></e>'}),
        "an EPUB that is locked (DRM)",
    ),
    "binary.epub": (epub([b"\xff\xfa"]), "an EPUB or ZIP file that is damaged ("),
    "latin.html": (page("na\xefve").encode("latin-1"), "not UTF-8 at byte 58 (0xef)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_promise_11_what_is_refused(tmp_path, name):
    data, message = REFUSED[name]
    with pytest.raises(TextError) as caught:
        read_text([write(tmp_path, name, data)])
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")


def test_promise_11_zstandard_is_read_or_said_to_need_a_package(tmp_path, monkeypatch):
    zstd = pytest.importorskip(ZSTANDARD)
    packed = zstd.compress(b"a b\n" * 999)
    path = write(tmp_path, "a.zst", packed)
    assert read_text([path]).text == "a b\n" * 999
    for data, message in (
        (packed[:-9], "the compressed file is cut short; download it again"),
        (packed[:12] + bytes(20) + packed[32:], r"packed by Zstandard, and damaged \(.*\); download it again"),
    ):
        with pytest.raises(TextError, match=f"^{path}: {message}$"):
            read_text([write(tmp_path, "a.zst", data)])
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    needed = r"packed by Zstandard, which Python reads from 3.14 on, or with: pip install backports.zstd; or unpack it"
    with pytest.raises(TextError, match=f"^{path}: {needed} first, with unzstd$"):
        read_text([path])


@pytest.mark.parametrize("packing", ["gzip", "bz2", "lzma", ZSTANDARD])
def test_promise_11_a_bomb_is_not_unpacked(tmp_path, monkeypatch, packing):
    pack = pytest.importorskip(packing).compress
    monkeypatch.setattr(fastmlp.text.formats, "MOST", 1 << 20)
    path = write(tmp_path, "bomb", pack(b"a " * (20 << 20)))
    with pytest.raises(TextError, match=r"unpacks to more than .* bytes, 100 times its size: not a text"):
        read_text([path])


def test_promise_11_a_bomb_in_an_epub_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(fastmlp.text.formats, "MOST", 1 << 20)
    with pytest.raises(TextError, match="its chapters unpack to 2,000,000 bytes: not a text"):
        read_text([write(tmp_path, "bomb", epub([b" " * 2_000_000]))])


def test_promise_11_a_chapter_that_is_named_again_and_again_is_read_once(tmp_path):
    book = epub([page("<p>a</p>"), page("<p>b</p>")], spine=["c1", "c0", *["c1"] * 1_000])
    assert read_text([write(tmp_path, "a.epub", book)]).text.split() == ["b", "a"]


def test_promise_11_an_epub_may_not_ask_for_memory_to_unpack_it(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_LZMA) as book:
        book.writestr("META-INF/container.xml", "<container/>")
    with pytest.raises(TextError, match="is packed by a method of ZIP that EPUB does not have"):
        read_text([write(tmp_path, "a.epub", data.getvalue())])


@pytest.mark.parametrize("largest", [29, 31])
def test_promise_11_a_file_may_not_ask_for_memory_to_unpack_it(tmp_path, largest):
    """By a byte of its head lzma's dictionary is half a gigabyte or two."""
    packed = bytearray(lzma.compress(b"a b\n" * 100, lzma.FORMAT_ALONE))
    packed[1:5] = (2**largest).to_bytes(4, "little")
    tracemalloc.start()
    try:
        with pytest.raises(TextError, match="needs more than 256 MiB of memory to be unpacked; unpack it first"):
            read_text([write(tmp_path, "a.lzma", bytes(packed))])
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "unit",
    [b"ab<br>", b"ab ", b"ab\n", b"<p>a b", "é<td>".encode(), "\U0001f600<br>".encode(), b"<a b>", b"x&lt;<!---->"],
)
def test_promise_15_markup_takes_the_memory_that_is_stated(tmp_path, unit):
    page = b"<html>" + unit * (500_000 // len(unit)) + "\U0001f600".encode()  # which takes four bytes a character
    path = write(tmp_path, "a.html", page)
    tracemalloc.start()
    try:
        read_text([path])
        assert tracemalloc.get_traced_memory()[1] < 48 * len(page) + 1_500_000  # and a megabyte that is read at once
    finally:
        tracemalloc.stop()


def test_streams_of_xz_come_one_after_the_other(tmp_path):
    pack = lzma.compress
    assert read_text([write(tmp_path, "a", pack(b"a ") + b"\0" * 8 + pack(b"b") + b"\0" * 4)]).text == "a b"
    for rest in (b"x", pack(b"b")[:-4]):
        with pytest.raises(TextError, match="download it again"):
            read_text([write(tmp_path, "a", pack(b"a ") + rest)])


MARKUP = {  # as pages and the XHTML of books mean it
    "<p>a<p>b": "a\n\nb\n",
    "a < b > c": "a < b > c\n",
    "<p>a < b > c, 3<4": "a < b > c, 3<4\n",
    "<p title='>'>a": "a\n",
    '<p title = ">" class=x/>a': "a\n",
    "<p>a<br/>b<br class='x' />c": "a\nb\nc\n",
    "<p>a<script/>b": "a\n\nb\n",
    "<p>a<script>if (a<b) '</p>' </scripts> </SCRIPT >b": "ab\n",
    "<p>a<style>b": "a\n",
    "<p>a<!-- > -- >c<!-->d-->e<!--->f": "acd-->ef\n",
    "<p>a<!-- n --!>b<!-- c --> d": "ab d\n",
    "<title>a <b</title><p>c": "c\n",
    "<p>a<!--b": "a<!--b\n",
    "<p>a<!--b<p>c": "ab\n\nc\n",
    "<p>a<![CDATA[b > c]]>d<![if x]>e<?php f ?>g": "adeg\n",
    "<p>a</ p >b</>c</1>d": "a\n\nbcd\n",
    "<p>a<span role='doc-pagebreak x'>1</span>b<span title='class=pagenum'>c</span>": "abc\n",
    '<p>a<span CLASS = PageNum>1</span><span class="x pagenum">2</span>b': "a1b\n",
    "<p>a &amp; b &#65; &#x42; &lt;p&gt; &nosuch;": "a & b A B <p> &nosuch;\n",
    "<p>a <i": "a <i\n",
    "<pre> a \n\n\n\n  b": "a\n\nb\n",
}


@pytest.mark.parametrize("markup", MARKUP)
def test_markup_is_read_as_it_is_meant(markup):
    assert text_of_markup(markup) == MARKUP[markup]


def test_the_licence_is_kept_if_asked_for(tmp_path):
    path = write(tmp_path, "emma.txt", gutenberg("Emma").encode())
    for read in (read_text([path], keep_licence=True), read_text([path], rules=1)):
        assert (read.text, read.notices) == (gutenberg("Emma"), ())


def test_the_same_text_in_two_files_is_read_once(tmp_path):
    first, second = write(tmp_path, "a.txt", gutenberg("Emma").encode()), write(tmp_path, "b.txt", b"Emma")
    read = read_text([first, second])
    assert read.text == "Emma\n"
    assert read.notices[1:] == (f"{second}: left out, since the same text came before",)


def test_by_rules_1_a_page_is_text_as_it_is(tmp_path):
    for data in (b"<html><p>a", b"{\\rtf1 a", b"&eacute;" * 20):
        assert read_text([write(tmp_path, "a.txt", data)], rules=1).text == data.decode()


def test_an_epub_comes_from_standard_input_and_packed(tmp_path, monkeypatch):
    book = epub([page("<p>a</p>")])
    assert read_text([write(tmp_path, "a.epub.gz", gzip.compress(book))]).text == "a\n"
    for data in (book, gzip.compress(b"a\n")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert read_text(["-"]).text == "a\n"
