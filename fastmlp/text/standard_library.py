"""The default text: the documentation of Python's standard library."""

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastmlp.errors import TextError
from fastmlp.text.reading import Text, TextFile

__all__ = ["standard_library_text"]

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
    """Return the topics of `help()`, then the docstrings of a fixed list of modules of the standard library.

    Sources are parsed, never imported or run. A module that this Python does not have is left out; the files are named
    by their paths in the standard library's folder. About 340,000 words by the `words` rule (300,000 where tkinter and
    idlelib are packaged apart), in the same order on every run.
    Raises TextError if this Python comes without sources.
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
        # topics.py is a table of texts, in a different form in each version of Python
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
    """Return every string of several words."""
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
            elif isinstance(node, ast.If | ast.Try):  # such as code for one platform
                visit(node.body)
                visit(node.orelse)

    visit([tree])
    return found
