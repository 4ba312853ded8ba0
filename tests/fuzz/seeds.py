"""The inputs that mutations begin with, for each target: small files of every kind, made by code."""

import bz2
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.config import TrainConfig
from fastmlp.files import checkpoint
from fastmlp.language_model import LanguageModel
from fastmlp.prediction.kneser_ney import KneserNey
from fastmlp.trainer import train

__all__ = ["ARPA", "SEEDS", "SEPARATOR", "TOKENS", "described", "made_run", "models", "run", "run_options"]

SEPARATOR = b"\0\0"  # between the parts of an input
TOKENS = [  # what mutations put in, beside any bytes
    *(
        b"null",
        b"true",
        b"-1",
        b"0",
        b"1e400",
        b"NaN",
        b"[]",
        b"{}",
        b'""',
        b'"a"',
        b"[[",
        b"9" * 30,
        b"0x" + b"f" * 30,
    ),
    *(
        b"<",
        b">",
        b"</",
        b"<!--",
        b"-->",
        b"<![CDATA[",
        b"]]>",
        b"<?",
        b"&#",
        b"&amp;",
        b"<p>",
        b"<pre>",
        b"<a>",
        b"</a>",
    ),
    *(
        b"<rt>",
        b"<script>",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xc2\x85",
        b"\r\n",
        b"\0",
        b"\x1b[",
        b"\n\n",
        b"***",
        b"\\u0000",
    ),
    *(b"\\1-grams:", b"\\end\\", b"ngram 1=", b"<s>", b"<unk>", b"inf", b"-99", b"\t", b"1979-05-27", b"[a]\n"),
]
STORY = "Anna paints a red door. Boris sells warm bread, said Clara. 'Don't!' cried Anna — “Why?”\n\n" * 8
PAGE = """<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html><head><title>A</title><style>p {}</style></head>
<!-- none --><body class="a b"><h1>One</h1><p>Anna&nbsp;paints<sup><a href='#n'>1</a></sup> a <i>red</i> door<br/>
<![CDATA[x]]>and<span role=pagenum>12</span> more &amp; &#8217;tis &#x41;</p><pre>  a
 b </pre><ruby>a<rt>b</ruby><script>if (a < b) "</p>"</script></body></html>"""
FICTION_BOOK = """<?xml version="1.0" encoding="windows-1251"?><FictionBook><description>no</description><body><section>
<title><p>\u0413\u043b\u0430\u0432\u0430</p></title><p>Anna.</p><poem><v>a</v></poem></section></body><binary>QUFB</binary></FictionBook>"""
GUTENBERG = """The Project Gutenberg eBook of Emma, by Jane Austen

*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***
Produced by A

Anna paints.
*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***
Gutenberg licence
"""
ARPA = """\\data\\
ngram 1=4
ngram 2=2
ngram 3=1

\\1-grams:
-0.5\tanna\t-0.3
-0.6\tpaints\t-0.2
-99\t<s>
-1\t<unk>

\\2-grams:
-0.2\tanna paints\t-0.1
-0.4\tpaints anna

\\3-grams:
-0.1\tanna paints anna

\\end\\
"""


def texts() -> list[bytes]:
    """Return texts as people have them, packed and plain."""
    page = PAGE.encode()
    return [
        STORY.encode(),
        b"\xef\xbb\xbf" + STORY.replace("\n", "\r\n").encode(),
        "日本語。 می‌خواهم ﬁnd don´t ² &eacute; \x92".encode() + b"&eacute;" * 12,
        page,
        FICTION_BOOK.encode("cp1251"),
        GUTENBERG.encode(),
        STORY.encode("utf-16"),
        STORY.encode("cp1252"),
        *(pack(page) for pack in (gzip.compress, bz2.compress, lzma.compress)),
        lzma.compress(page, lzma.FORMAT_ALONE),
    ]


def epubs() -> list[bytes]:
    """Return parts of EPUBs: how they are packed, then names and contents."""
    package = """<package xmlns="o"><manifest><item id="n" href="n.xhtml" properties="nav"/>
    <item id="a" href="t/a%20.x"/><item id="b" href="b.x#c"/></manifest>
    <spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/></spine></package>"""
    encryption = '<e><CipherReference URI="O/other.x"/></e>'
    parts = {
        "META-INF/container.xml": '<container xmlns="c"><rootfiles><rootfile full-path="O/p"/></rootfiles></container>',
        "O/p": package,
        "O/t/a .x": PAGE,
        "O/b.x": "<p>b</p>",
    }
    locked = {**parts, "META-INF/encryption.xml": encryption}
    return [joined(b"0", parts), joined(b"1", locked), joined(b"3", parts), joined(b"0", {"word/document.xml": "a"})]


def joined(kind: bytes, parts: dict[str, str]) -> bytes:
    return SEPARATOR.join([kind, *(part.encode() for item in parts.items() for part in item)])


def options() -> list[bytes]:
    """Return TOML files."""
    small = (
        'hidden = [300, 300]\nbatch_size = 32\noptimizer = "momentum"\nmomentum = 0.9\nsteps = 10\nprompt = ["a b"]\n'
    )
    return [
        run()["config.toml"],
        small.encode(),
        b'preset = "large"\naverages = [0.7, 0.95]\nreach = 100\ndropout = [0.1, 0.2, 0.3]\nepochs = 2\n',
        b'files = ["a.txt"]\nseed = 1\nlr = 1e-3\nbetas = [0.9, 0.999]\nminutes = 0.5\n# \n[a]\nb = {c = 1979-05-27}\n',
    ]


def runs() -> list[bytes]:
    """Return a config.toml and a metrics.jsonl in one."""
    metrics = run()["metrics.jsonl"]
    return [run()["config.toml"] + SEPARATOR + metrics, SEPARATOR + metrics.splitlines(keepends=True)[-1]]


# -------------------------------------------------------------------------------------------------------------- models


def run_options() -> dict[str, Any]:
    """Return the options of the smallest run with all parts of a network, but for its files and its folder."""
    network = {"context": 2, "embed": 2, "hidden": 3, "blocks": 1, "reach": 4, "averages": (0.5,)}
    intervals = {"eval_every": 2, "log_every": 1, "sample_every": 0, "save_every": 2}
    return {**network, **intervals, "steps": 4, "batch_size": 4, "counts": True, "order": 3, "backend": "numpy"}


@cache
def run() -> dict[str, bytes]:
    """Return the files of a run, and its text."""
    with tempfile.TemporaryDirectory() as folder:
        story = Path(folder) / "story.txt"
        story.write_text(STORY, encoding="utf-8")
        train(TrainConfig(files=(str(story),), out=folder, **run_options()))
        return {
            file.name: file.read_bytes()
            for file in Path(folder).iterdir()
            if file.suffix != ".png" and file.name[0] != "."
        }


@cache
def models() -> dict[str, bytes]:
    """Return a file of each kind of model."""
    found = {name: run()[f"{name}.safetensors"] for name in ("last", "model", "mixture")}
    with tempfile.TemporaryDirectory() as folder:
        file, arpa = Path(folder) / "a.safetensors", Path(folder) / "a.arpa"
        whole = LanguageModel.load(made_run(folder), backend="numpy")  # with its counts and its cache
        whole.save(file)
        found["network"] = file.read_bytes()
        KneserNey(3).fit(STORY).save(file)
        found["counts"] = file.read_bytes()
        arpa.write_text(ARPA, encoding="utf-8")
        KneserNey.from_arpa(arpa).save(file)
        found["arpa"] = file.read_bytes()
    return found


def made_run(folder: str) -> Path:
    """Write the files of a run into a folder of its own there."""
    path = Path(folder) / "run"
    path.mkdir()
    for name, data in run().items():
        (path / name).write_bytes(data)
    return path


def described(file: bytes) -> bytes:
    """Return a checkpoint as the target `model` reads it: JSON that says what is in it, then the tensors' numbers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(file)
        tensors, metadata = checkpoint.load(path)
    kinds = {name: [array.dtype.str, array.shape] for name, array in tensors.items()}
    text = json.dumps({"metadata": metadata, "tensors": kinds})
    return text.encode() + SEPARATOR + b"".join(np.ascontiguousarray(array).tobytes() for array in tensors.values())


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "text": texts,
    "epub": epubs,
    "saved": lambda: [*models().values()],
    "model": lambda: [described(file) for file in models().values()],
    "options": options,
    "run": runs,
    "arpa": lambda: [ARPA.encode()],
}
