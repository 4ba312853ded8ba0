"""The text that comes with Python."""

import hashlib
import subprocess
import sys

import pytest

from fastmlp.text import TextError, TextFile, Vocabulary, standard_library_text
from tests.text.helpers import ROOT, WORDS, write


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
