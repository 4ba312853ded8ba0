"""Inputs that a reader once could not cope with, by target: what was wrong, and the bytes. Their tests keep them."""

import json
from typing import Any

from tests.fuzz.seeds import ARPA, SEPARATOR, described, models

__all__ = ["FOUND"]


def changed(kind: str, tensors: dict[str, Any] | None = None, **metadata: Any) -> bytes:
    """Return a model of the seeds, as the target `model` reads it, with other metadata or tensors; None: left out."""
    text, _, numbers = described(models()[kind]).partition(SEPARATOR)
    given = json.loads(text)
    for part, changes in (("metadata", metadata), ("tensors", tensors or {})):
        given[part] = {name: value for name, value in {**given[part], **changes}.items() if value is not None}
    return json.dumps(given).encode() + SEPARATOR + numbers


FOUND: dict[str, dict[str, bytes]] = {
    "text": {
        "html.parser raised AssertionError for a section that it does not know": b"<html><![foo bar]>x</html>",
        "html.parser took half a minute for tags without an end": b"<html>" + b"<a " * 20_000,
        "html.parser took as long for comments without an end": b"<html>" + b"<!--" * 200_000 + b">",
        "white space in a link was tried as a note's number in all ways": b"<html><pre><a>"
        + b" " * 20_000
        + b"x</a></pre>",
        "white space before no line end was looked at from each of its places": b"<html><pre>x" + b" " * 200_000 + b"x",
        "a number of 5,000 digits raised ValueError": b"<html>&#" + b"1" * 5_000 + b";",
        "an encoding gave half a surrogate pair": b"<html><meta charset=unicode_escape>\\ud800\xff",
    },
    "model": {
        "a network without names raised AttributeError": changed("network", network=[1]),
        "words that are no JSON raised JSONDecodeError in a run to resume": changed(
            "last", {"vocabulary": ["|u1", [3]]}
        ),
        "an order that is none raised KeyError": changed("counts", order=None),
        "a run that says nothing of its text raised KeyError": changed("last", sha256=None),
        "a run whose configuration is none raised TypeError": changed("last", config=3),
    },
    "arpa": {
        "a back-off weight beyond float32 became infinite": ARPA.replace("-0.3", "300").encode(),
    },
    "options": {
        "nested arrays raised RecursionError": b"files = " + b"[" * 5_000,
        "a preset that is a list raised TypeError": b"preset = [0.7]",
        "a whole number beyond 1e308 raised OverflowError": b"lr = 1" + b"0" * 400,
    },
    "run": {
        "numbers that are none raised TypeError": SEPARATOR + b'{"step": "x", "words": [], "training_words": 3}\n',
        "no words raised KeyError": SEPARATOR + b'{"training_words": 3, "val_perplexity": "y", "mixture": 4}\n',
        "a number beyond 1e308 raised OverflowError": SEPARATOR + b'{"seconds": 1' + b"0" * 400 + b"}\n",
        "bytes that are no UTF-8 raised UnicodeDecodeError": SEPARATOR + b"\xff\n",
        "nested arrays raised RecursionError": SEPARATOR + b"[" * 100_000 + b"\n",
    },
}
