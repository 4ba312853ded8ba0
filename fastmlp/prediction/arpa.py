"""ARPA files, in which KenLM, SRILM and speech recognizers exchange back-off models.

    \\data\\
    ngram 1=3
    ngram 2=1

    \\1-grams:
    -0.4771213	the	-0.3010300
    -99	<s>	0
    ...
    \\end\\

A line is log10 of the probability, the n-gram, and log10 of its back-off weight, which may be left out. Readers that
take a text sentence by sentence need `<s>` and `</s>`; a model of one stream of words never predicts them.
"""

import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fastmlp.errors import ModelError
from fastmlp.prediction.ngram import BackoffModel, Level
from fastmlp.text.vocabulary import UNK, Vocabulary

__all__ = ["arpa_bytes", "read_arpa"]

Array = np.ndarray
BEGIN, END = "<s>", "</s>"
NEVER = -99.0  # log10 of the probability of what does not come
LEAST = -37.0  # what is below is NEVER: float32 has no smaller numbers


# ------------------------------------------------------------------------------------------------------------- writing


def arpa_bytes(model: BackoffModel, words: tuple[str, ...]) -> bytes:
    """Return a model as an ARPA file.

    words  of the vocabulary, in the order of their ids
    Raise ValueError for words that an ARPA file cannot hold: empty, or with white space.
    Memory: about twice the file.
    """
    if (unfit := next((word for word in words if word.split() != [word]), None)) is not None:
        raise ValueError(f"words: an ARPA file separates words by white space and cannot hold {unfit!r}")
    marks = [mark for mark in (BEGIN, END) if mark not in words]
    counts = [len(level.key) for level in model.levels]
    counts[0] += len(marks)
    parts = ["\\data\\", *(f"ngram {n}={count}" for n, count in enumerate(counts, 1))]
    names = list(words)
    for n, level in enumerate(model.levels, 1):
        if n > 1:
            contexts, last = np.divmod(level.key, model.size)
            names = [
                f"{names[context]} {words[word]}"
                for context, word in zip(contexts.tolist(), last.tolist(), strict=True)
            ]
        parts.append(f"\n\\{n}-grams:")
        if level.backoff is None:
            parts.extend(map("{:.7g}\t{}".format, _log10(level.probability), names))
        else:
            parts.extend(map("{:.7g}\t{}\t{:.7g}".format, _log10(level.probability), names, _log10(level.backoff)))
        if n == 1:
            parts.extend(f"{NEVER:g}\t{mark}" for mark in marks)
    return "\n".join([*parts, "\n\\end\\\n"]).encode()


def _log10(values: Array) -> list[float]:
    logs = np.log10(values.astype(np.float64))
    return np.where(logs < LEAST, NEVER, logs).tolist()  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------------------- reading


class Section:
    """The n-grams of one length in a file."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.words = array("i")  # `length` for each n-gram, by their place among the single words
        self.probabilities, self.backoffs = array("d"), array("d")  # log10


def read_arpa(path: str | os.PathLike[str]) -> tuple[BackoffModel, Vocabulary]:
    """Read an ARPA file: the model, and its words in the order of the file, `<unk>` last.

    `<unk>` is added where the file has none. `<s>` and `</s>` are left out if they mark only: never predicted and
    without a back-off weight. Raise ModelError if the file cannot be read or is not an ARPA file.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="\n") as file:
            return _model(*_parsed(file))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not a whole ARPA file: {error}") from error


def _parsed(lines: Iterable[str]) -> tuple[list[str], list[Section]]:
    """Return the words and the n-grams of a file by length; raise ValueError for what is not ARPA."""
    expected: list[int] = []
    sections: list[Section] = []
    ids: dict[str, int] = {}
    for number, line in _lines(lines):
        if line.startswith("\\"):
            if line == "\\end\\":
                break
            if line != "\\data\\":
                sections.append(Section(len(sections) + 1))
                if line != f"\\{len(sections)}-grams:":
                    raise ValueError(f"line {number}: expected \\{len(sections)}-grams:, got {line[:80]!r}")
        elif sections:
            try:
                _read_ngram(line, sections[-1], ids)
            except (ValueError, IndexError, KeyError):
                raise ValueError(f"line {number}: expected a {sections[-1].length}-gram, got {line[:80]!r}") from None
        elif line.startswith("ngram "):
            expected.append(int(line.partition("=")[2]))
    else:
        raise ValueError("it has no \\end\\")
    found = [len(section.probabilities) for section in sections]
    if not found or found != expected:
        raise ValueError(f"expected {expected} n-grams of each length, as it says, got {found}")
    return list(ids), sections


def _lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, numbered."""
    for number, line in enumerate(lines, 1):
        if stripped := line.strip(" \t\r\n"):
            yield number, stripped


def _read_ngram(line: str, section: Section, ids: dict[str, int]) -> None:
    """Add an n-gram to its section, and a single word to `ids`."""
    fields, n = line.replace("\t", " ").split(" "), section.length
    words = fields[1 : n + 1]
    if n == 1:
        if words[0] in ids:
            raise ValueError
        ids[words[0]] = len(ids)
    section.probabilities.append(float(fields[0]))
    section.words.extend([ids[word] for word in words])
    section.backoffs.append(float(fields[n + 1]) if len(fields) > n + 1 else 0.0)
    if len(words) != n or len(fields) > n + 2:
        raise ValueError


def _model(words: list[str], sections: list[Section]) -> tuple[BackoffModel, Vocabulary]:
    """Return the model, with the numbers of the vocabulary in place of those of the file."""
    single = sections[0]
    if BEGIN in words and single.probabilities[words.index(BEGIN)] == 0:  # as KenLM writes it
        single.probabilities[words.index(BEGIN)] = NEVER
    if UNK not in words:
        words.append(UNK)
        single.words.append(len(words) - 1)
        single.probabilities.append(NEVER)
        single.backoffs.append(0.0)
    marks = {
        mark
        for place, mark in enumerate(words)
        if mark in (BEGIN, END) and single.probabilities[place] <= NEVER and single.backoffs[place] == 0
    }
    vocabulary = Vocabulary((*(word for word in words if word != UNK and word not in marks), UNK))
    size = len(vocabulary)
    new_id = np.array([-1 if word in marks else vocabulary.id_of(word) for word in words])
    levels: list[Level] = []
    for section in sections:
        n = section.length
        rows = new_id[np.array(section.words, np.int64).reshape(-1, n)]
        if n == 1:
            kept = rows[:, 0] >= 0
        else:
            kept = np.ones(len(rows), bool)
            if (rows < 0).any():
                raise ValueError(f"<s> or </s> comes in a {n}-gram, and as a single word has no back-off weight")
        context = np.zeros(len(rows), np.int64)
        for level, word in zip(levels, rows[:, :-1].T, strict=True):
            context = level.find(context * size + word)
            if (context < 0).any():
                raise ValueError(f"the beginning of a {n}-gram is not among the {n - 1}-grams")
        key = (context * size + rows[:, -1])[kept]
        order = np.argsort(key)
        if (key[order][1:] == key[order][:-1]).any():
            raise ValueError(f"it has a {n}-gram twice")
        probability, backoff = (
            np.array(logs, np.float64)[kept][order] for logs in (section.probabilities, section.backoffs)
        )
        if not (np.isfinite(probability).all() and np.isfinite(backoff).all() and (probability <= 0).all()):
            raise ValueError(f"log10 of the probability of a {n}-gram is above 0, or no number")
        if (backoff > -LEAST).any():
            raise ValueError(f"log10 of the back-off weight of a {n}-gram is above {-LEAST:g}")
        last = n == len(sections)
        levels.append(Level(key[order], _power(probability), None if last else _power(backoff)))
    return BackoffModel(size, tuple(levels)), vocabulary


def _power(logs: Array) -> Array:
    return np.asarray(10.0 ** np.maximum(logs, LEAST), np.float32)
