"""The n-grams of a text: all of them, their counts, contexts and suffixes, from one sorting."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmlp.prediction.ngram_counts import count_ngrams, sort_positions


def texts(words: int = 4) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, words - 1), min_size=1, max_size=60)


@given(texts(), st.integers(1, 8))
def test_the_ngrams_are_those_of_a_dictionary(text: list[int], order: int) -> None:
    shorter = {(): 0}
    for n, ngrams in enumerate(count_ngrams(np.array(text, np.int32), 5, order), 1):
        counts = Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
        if n == 1:
            counts.update({(word,): 0 for word in range(5)})
        grams = sorted(counts)
        assert ngrams.word.tolist() == [gram[-1] for gram in grams]
        assert ngrams.context.tolist() == [shorter[gram[:-1]] for gram in grams]
        assert ngrams.suffix.tolist() == [shorter[gram[1:]] for gram in grams]
        assert ngrams.count.tolist() == [counts[gram] for gram in grams]
        assert ngrams.first == (grams.index(tuple(text[:n])) if n <= len(text) else -1)
        shorter = {gram: number for number, gram in enumerate(grams)}
    assert n == order


@pytest.mark.parametrize("highest", [1, 2, 1 << 7, 1 << 13, 1 << 15, 1 << 20, (1 << 31) - 2])
@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
def test_positions_are_sorted_by_the_words_that_begin_there(highest: int, order: int, rng: np.random.Generator) -> None:
    """Of large ids fewer fit in a key; of few words, each again and again, many positions stay equal for long."""
    ids = (rng.integers(0, 5, 400) * highest // 4).astype(np.int32)
    ids[100:200] = highest
    positions = sort_positions(ids, order).tolist()
    assert sorted(positions) == list(range(400))
    ngrams = [ids[position : position + order].tolist() for position in positions]
    assert ngrams == sorted(ngrams)
