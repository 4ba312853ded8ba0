"""Where the corpora are, and files for the tests."""

from pathlib import Path

from fastmlp.text import get_tokenizer

ROOT = Path(__file__).parents[2]
CORPORA = ROOT.parent / "shared" / "corpora"
WORDS, WHITESPACE = get_tokenizer("words"), get_tokenizer("whitespace")


def write(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
