"""The n-grams of a text, counted: those of all lengths at once, from one sorting of its positions.

Sorted by the words that begin there, the positions of equal n-grams lie side by side, for every n up to the order. So
an n-gram is a run of that list, its count the run's length, and the n-grams that begin with it are parts of the run.

Nothing of it is kept but the n-grams; a text has fewer than 2^31 words.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Ngrams", "count_ngrams", "sort_positions"]

Array = np.ndarray
BITS = 63  # of a sort key: int64 without its sign


@dataclass(frozen=True)
class Ngrams:
    """The different n-grams of one length in a text, sorted by their words' ids; an n-gram's number is its place.

    context  (M,)  number of its first n - 1 words among the (n - 1)-grams, int32; 0 for a single word
    word     (M,)  its last word, int32
    suffix   (M,)  number of its last n - 1 words among the (n - 1)-grams, int32; 0 for a single word
    count    (M,)  how often it comes in the text, int32
    first          number of the one that begins the text; -1: the text is shorter
    For n = 1 there is one for each word of the vocabulary, in the text or not.
    """

    context: Array
    word: Array
    suffix: Array
    count: Array
    first: int


def sort_positions(ids: Array, order: int) -> Array:
    """Return the positions of a text (N,), int32, sorted by the `order` words that begin there.

    ids  (N,)  in: the text; at its end nothing follows, which is less than any word
    """
    words = int(ids.max()) + 1
    at_once = max(1, min(order, BITS // words.bit_length()))
    key = _joined(ids.astype(np.int64) + 1, words + 1, at_once)
    positions = np.argsort(key).astype(np.int32)
    length = at_once
    while length < order:  # those that are still equal, by what follows (Manber & Myers, 1993)
        starts = _starts(key[positions])
        rank = np.empty(len(ids) + length, np.int64)
        rank[len(ids) :] = 0  # what follows the end
        rank[positions] = np.cumsum(starts)
        ends = np.append(starts[1:], True)
        tied = np.flatnonzero(~(starts & ends))
        if not len(tied):
            break
        key = rank[: len(ids)] * (len(ids) + 1) + rank[length:]
        positions[tied] = positions[tied][np.argsort(key[positions[tied]])]
        length *= 2
    return positions


def _joined(text: Array, size: int, length: int) -> Array:
    """Return a number (N,) for the `length` words from each position on, in their order."""
    key = text.copy()
    for ahead in range(1, length):
        key *= size
        key[: max(0, len(text) - ahead)] += text[ahead:]
    return key


def _starts(ordered: Array) -> Array:
    """Return where a sorted array has another value than before (N,)."""
    starts = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    return starts


def count_ngrams(ids: Array, size: int, order: int) -> Iterator[Ngrams]:
    """Yield the n-grams of a text for n = 1, 2, ... order.

    ids    (N,)  in: the text, at least one word, 0 <= id < size
    size         V, the size of the vocabulary
    """
    positions, words = sort_positions(ids, order), len(ids)
    nothing, each = np.zeros(size, np.int32), np.arange(size, dtype=np.int32)
    yield Ngrams(nothing, each, nothing, np.bincount(ids, minlength=size).astype(np.int32), int(ids[0]))
    number_at = ids.astype(np.int32, copy=False)  # of the n-gram that begins at each position
    number = number_at[positions]  # likewise, in the order of the list
    starts = _starts(number)  # whether the n-gram is another one than before in the list
    for length in range(2, order + 1):
        ends = positions + np.int32(length - 1)
        whole = ends < words
        last = ids.take(ends, mode="clip")
        starts[1:] |= last[1:] != last[:-1]
        starts[1:] |= ~whole[:-1]  # what the text's end cuts short is alone, the first of those that begin as it does
        begin = np.flatnonzero(starts)
        count = np.diff(begin, append=words)
        count, begin = count[whole[begin]].astype(np.int32), begin[whole[begin]]
        context, suffix = number[begin], number_at[positions[begin] + 1]
        number = np.cumsum(starts & whole, dtype=np.int32) - np.int32(1)
        number_at = np.empty(words, np.int32)
        number_at[positions] = number
        yield Ngrams(context, last[begin].astype(np.int32), suffix, count, int(number_at[0]) if length <= words else -1)
