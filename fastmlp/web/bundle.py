"""The page's modules as one ES module, so that a page is a single file: what it imports stands before it.

A module imports whole lines, `import { a, b } from "./name.js";`, and exports what it declares. Since all of them then
share one scope, a name is declared in one module only.
"""

import re
from functools import cache
from importlib.resources import files

__all__ = ["bundle", "page_file"]

IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=async |class |const |function |let )", re.MULTILINE)


def page_file(name: str) -> str:
    """Return the text of a file of the page."""
    return (files("fastmlp.web") / "page" / name).read_text(encoding="utf-8")


@cache
def bundle(name: str) -> str:
    """Return the module of that name and all it imports, each once, as one module that imports nothing."""
    parts: dict[str, str] = {}

    def add(module: str) -> None:
        if module in parts:
            return
        source = page_file(f"{module}.js")
        for imported in IMPORT.findall(source):
            add(imported)
        parts[module] = EXPORT.sub("", IMPORT.sub("", source))

    add(name)
    return "\n".join(parts.values())
