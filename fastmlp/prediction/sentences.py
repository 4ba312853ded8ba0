"""The sentences of a text that surprise a model most."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastmlp.text.tokenizer import Tokenizer

__all__ = ["Sentence", "surprising_sentences"]

Array = np.ndarray
FEWEST = 5  # known words of a sentence whose mean means something
ENDS = (".", "!", "?", "…")  # beside the tokenizer's own; other tokenizers do not have them
CLOSING = frozenset("”’»›)]}")  # belong to the sentence that they close


@dataclass(frozen=True)
class Sentence:
    """A sentence, and how little a model expected each of its words.

    begin  number of its first word in the text, from 0
    words  as the tokenizer has them
    bits   of each; NaN for a word outside the vocabulary
    """

    begin: int
    words: tuple[str, ...]
    bits: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Bits a word, of those in the vocabulary."""
        known = [bits for bits in self.bits if not math.isnan(bits)]
        return math.fsum(known) / max(1, len(known))


def surprising_sentences(
    words: Sequence[str], losses: Array, unknown: Array, tokenizer: Tokenizer, documents: Sequence[int] = ()
) -> list[Sentence]:
    """Return the sentences of a text, those with the most bits a word first.

    losses     (N,)  of the words in nats
    unknown    (N,)  whether the vocabulary lacks them
    documents  where in the text others begin: a sentence ends there
    Sentences of fewer than 5 known words are left out, unless there are no others.
    """
    bits = np.where(unknown, np.nan, losses / math.log(2)).tolist()
    sentences = [
        Sentence(begin, tuple(words[begin:end]), tuple(bits[begin:end]))
        for begin, end in _sentences(words, tokenizer.sentence_end, frozenset(documents))
    ]
    long = [sentence for sentence in sentences if _known(sentence) >= FEWEST]
    return sorted(long or [sentence for sentence in sentences if _known(sentence)], key=lambda one: -one.mean)


def _known(sentence: Sentence) -> int:
    return sum(not math.isnan(bits) for bits in sentence.bits)


def _sentences(words: Sequence[str], end: str, documents: frozenset[int]) -> Iterator[tuple[int, int]]:
    """Yield first word and end of each sentence."""
    begin, ended = 0, False
    for place, word in enumerate(words):
        if place > begin and (place in documents or (ended and word not in CLOSING)):
            yield begin, place
            begin = place
        ended = word == end or word in ENDS or (ended and word in CLOSING)
    if begin < len(words):
        yield begin, len(words)
