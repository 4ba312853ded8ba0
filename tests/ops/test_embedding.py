"""embedding: look words up, and hand their gradients back as the few rows that were used."""

import numpy as np
import pytest

from tests import inputs
from tests.helpers import (
    NUMPY,
    assert_close_like_numpy,
    assert_equals_pytorch,
    assert_gradients,
    assert_same_bits_for_any_threads,
    cast,
    run,
    run_chain,
    tensors,
)
from tests.inputs import REAL

CHAIN = ("embedding_forward", "embedding_backward")
# fmt: off
SIZES = [  # B, T, D, V
    (1, 1, 1, 1), (1, 1, 2, 3), (2, 1, 3, 2), (3, 2, 7, 31), (7, 3, 31, 127), (31, 7, 33, 33), (33, 1, 127, 301),
    (127, 2, 129, 7), (129, 3, 1, 300), (301, 4, 30, 129),
]
# fmt: on
real = [(B, REAL.T, REAL.D, REAL.V) for B in (32, 128)]
id_types = pytest.mark.parametrize("id_type", [np.int32, np.int64], ids=["int32", "int64"])


def dense(got, weight):
    """The whole gradient of the weights that the sparse one stands for."""
    gradient = np.zeros(weight.shape, got["drows"].dtype)
    gradient[got["rows"][: got["returned"]]] = got["drows"][: got["returned"]]
    return gradient


def test_promise_1_gradient(rng):
    given = cast(inputs.embedding(rng, 5, 3, 4, 6), np.float64)
    got = run_chain(NUMPY, CHAIN, given)
    assert_gradients("embedding_forward", given, {"emb": given["demb"]}, {"weight": dense(got, given["weight"])})


@pytest.mark.sweep(every=5)
@id_types
@pytest.mark.parametrize("sizes", [*SIZES, *real], ids=str)
def test_promise_2_agrees_with_float64(ops, rng, sizes, id_type):
    assert_close_like_numpy(ops, CHAIN, cast(inputs.embedding(rng, *sizes), id_type))


@id_types
def test_gradient_is_sparse(ops, id_type):
    """Each word once, ascending, of the ids' own type; then rows that stand for nothing."""
    given = {
        "ids": np.array([[7, 2], [7, 0], [2, 7]], id_type),
        "demb": np.arange(6, dtype=np.float32).reshape(3, 2, 1) + 1,
    }
    got = run(ops, "embedding_backward", given)
    assert got["returned"] == 3
    assert got["rows"].dtype == id_type
    assert got["rows"].tolist() == [0, 2, 7, -1, -1, -1]
    assert got["drows"].ravel().tolist() == [4, 2 + 5, 1 + 3 + 6, 0, 0, 0]


def test_gradient_of_ids_of_any_size(ops):
    """There is no weight here to bound them: each of their bytes counts."""
    ids = np.array([[2**63 - 1, 2**32], [2**62 + 1, 2**40], [0, 2**32], [255, 256], [2**31 - 1, 2**62]])
    given = {"ids": ids, "demb": np.arange(10, dtype=np.float32).reshape(5, 2, 1)}
    got = run(ops, "embedding_backward", given)
    unique = np.unique(ids)
    assert got["rows"].tolist() == [*unique.tolist(), -1]
    assert got["drows"].ravel().tolist()[:-1] == [given["demb"][ids == one].sum() for one in unique]


@pytest.mark.parametrize("words", [1, 2, 300, 5_000])
def test_sorting_keeps_the_order_of_equal_ids(ops, rng, words):
    """Sums of numbers of every size, in the order of the batch, to the last bit."""
    ids = rng.integers(0, 70_000, (words, 1)) // rng.integers(1, 5_000, (words, 1))
    demb = inputs.normal(rng, words, 1, 3) * np.float32(10) ** rng.integers(-6, 6, (words, 1, 1))
    got = run(ops, "embedding_backward", {"ids": ids, "demb": demb.astype(np.float32)})
    want = np.zeros((70_000, 3), np.float32)
    np.add.at(want, ids[:, 0], demb[:, 0].astype(np.float32))
    np.testing.assert_array_equal(got["drows"][: got["returned"]], want[np.unique(ids)])


def test_gradients_are_added_in_the_order_of_the_batch(ops):
    """1 + 1e8 - 1e8 is 0 in float32 and 1e8 - 1e8 + 1 is 1: the sum shows its order."""
    given = {
        "ids": np.array([[5, 3], [5, 3], [5, 3]], np.int32),
        "demb": np.array([[[1], [1e8]], [[1e8], [-1e8]], [[-1e8], [1]]], np.float32),
    }
    assert run(ops, "embedding_backward", given)["drows"].ravel().tolist()[:2] == [1, 0]


@id_types
def test_other_places_of_a_row_are_left_alone(ops, rng, id_type):
    """Of five places a row the first three are the context's; something else is kept in the others."""
    given = cast(inputs.embedding(rng, 7, 3, 5, 31), id_type)
    want = run_chain(ops, CHAIN, given)
    emb, demb = np.full((2, 7, 5, 5), 0.5, np.float32)
    demb[:, :3] = given["demb"]
    demb[:, 3:] = np.nan
    ops.embedding_forward(given["weight"], given["ids"], emb, threads=2)
    np.testing.assert_array_equal(emb[:, :3], want["emb"])
    np.testing.assert_array_equal(emb[:, 3:], np.float32(0.5))
    got = run(ops, "embedding_backward", {"ids": given["ids"], "demb": demb})
    for name in ("rows", "drows", "returned"):
        np.testing.assert_array_equal(got[name], want[name])


def test_fewer_places_than_words_are_refused(ops, rng):
    given = inputs.embedding(rng, 7, 3, 5, 31)
    message = r"emb: expected shape \(B, T\+, D\) with .*B = 7, T = 3.*, got \(7, 2, 5\)"
    with pytest.raises(ValueError, match=f"^embedding_forward: {message}"):
        ops.embedding_forward(given["weight"], given["ids"], np.zeros((7, 2, 5), np.float32))


def test_zero_rows(ops, rng):
    given = inputs.embedding(rng, 1, 4, 3, 7)
    got = run_chain(ops, CHAIN, given | {"ids": given["ids"][:0], "demb": given["demb"][:0]})
    assert got["returned"] == 0
    assert got["emb"].shape == (0, 4, 3)


def test_promise_3_equals_pytorch(ops, rng, torch):
    given = inputs.embedding(rng, 33, 4, 30, 301)
    leaves = tensors(given)
    emb = torch.nn.functional.embedding(leaves["ids"], leaves["weight"])
    emb.backward(leaves["demb"])
    gradient = leaves["weight"].grad
    used = torch.unique(leaves["ids"])
    unused = torch.zeros(33 * 4 - len(used), 30)
    assert_equals_pytorch(ops, CHAIN, given, {"emb": emb, "drows": torch.cat([gradient[used], unused])})


@pytest.mark.parametrize("batch", [3, 512])
def test_promise_4_same_bits_for_any_threads(ops, rng, batch):
    assert_same_bits_for_any_threads(ops, CHAIN, inputs.embedding(rng, batch, REAL.T, REAL.D, 999))
