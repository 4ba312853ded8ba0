"""The cache: against its definition word for word, and what it must not see."""

import numpy as np
import pytest

from fastmlp.prediction.cache import ROWS, Cache, CacheReader

SIZE, WIDTH, WORDS = 40, 6, 3 * ROWS + 17
VOCABULARY = 25
Array = np.ndarray


def product(a: Array, b: Array) -> Array:
    return a @ b.T


def text(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((WORDS, WIDTH)).astype(np.float32), rng.integers(0, VOCABULARY, WORDS).astype(np.int32)


def by_definition(cache: Cache, vectors: Array, ids: Array) -> Array:
    """Grave et al. (2016), equation 4, in float64; NaN without a word before."""
    found = np.full(len(ids), np.nan)
    for here in range(1, len(ids)):
        past = range(max(0, here - cache.size), here)
        votes = [np.exp(cache.sharpness * vectors[here].astype(float) @ vectors[i].astype(float)) for i in past]
        found[here] = sum(vote for vote, i in zip(votes, past, strict=True) if ids[i] == ids[here]) / sum(votes)
    return found


@pytest.mark.parametrize("size", [1, SIZE, ROWS, 2 * WORDS])
@pytest.mark.parametrize("sharpness", [0.0, 0.7])
def test_a_text_is_read_as_defined(rng: np.random.Generator, size: int, sharpness: float) -> None:
    (vectors, ids), cache = text(rng), Cache(size, sharpness)
    want = by_definition(cache, vectors, ids)
    for piece in (WORDS, ROWS, 50):  # however it is cut
        reader = CacheReader(cache, WIDTH, product)
        found = [reader.read(vectors[i : i + piece], ids[i : i + piece]) for i in range(0, WORDS, piece)]
        np.testing.assert_allclose(np.concatenate(found), want, rtol=2e-5, atol=1e-7)


def test_word_by_word_it_is_the_same_and_a_distribution(rng: np.random.Generator) -> None:
    (vectors, ids), cache = text(rng), Cache(SIZE, 0.5)
    want, reader = by_definition(cache, vectors, ids), CacheReader(cache, WIDTH, product)
    assert reader.probabilities(vectors[0], VOCABULARY) is None
    for here in range(100):
        if (found := reader.probabilities(vectors[here], VOCABULARY)) is not None:
            assert found[ids[here]] == pytest.approx(want[here], rel=2e-5, abs=1e-7)
            assert found.sum(dtype=float) == pytest.approx(1, abs=1e-6)
            assert found.dtype == np.float32
        reader.add(vectors[here], int(ids[here]))


def test_it_sees_only_what_came_before(rng: np.random.Generator) -> None:
    vectors, ids = text(rng)
    want = CacheReader(Cache(SIZE, 0.5), WIDTH, product).read(vectors, ids)
    at = ROWS + 30
    vectors[at + 1 :], ids[at + 1 :] = 5, 3
    found = CacheReader(Cache(SIZE, 0.5), WIDTH, product).read(vectors, ids)
    np.testing.assert_array_equal(found[: at + 1], want[: at + 1])
    assert (found[at + 1 :] != want[at + 1 :]).any()


def test_it_forgets(rng: np.random.Generator) -> None:
    vectors, ids = text(rng)
    reader = CacheReader(Cache(SIZE, 0.5), WIDTH, product)
    first = reader.read(vectors, ids)
    reader.forget()
    np.testing.assert_array_equal(reader.read(vectors, ids), first)
    assert np.isnan(first[0])


def test_without_vectors_all_votes_are_equal() -> None:
    reader = CacheReader(Cache(4, 0.0), 0, np.inner)
    nothing, ids = np.empty((6, 0), np.float32), np.array([1, 1, 2, 1, 1, 2], np.int32)
    np.testing.assert_allclose(reader.read(nothing, ids), [np.nan, 1, 0, 2 / 3, 3 / 4, 1 / 4])


def test_large_products_do_not_overflow() -> None:
    reader = CacheReader(Cache(4, 10.0), 1, product)
    found = reader.read(np.array([[100.0], [-100.0], [100.0], [100.0]], np.float32), np.array([1, 2, 1, 1], np.int32))
    np.testing.assert_allclose(found, [np.nan, 0, 1, 1])


@pytest.mark.parametrize(("size", "sharpness", "named"), [(0, 1.0, "size"), (5, -1.0, "sharpness"), (5, np.nan, "sh")])
def test_settings_without_sense_are_refused(size: int, sharpness: float, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Cache(size, sharpness)
