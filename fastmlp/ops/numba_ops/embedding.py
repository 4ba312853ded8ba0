"""embedding in Numba."""

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.numba_ops._jit import jit, rows_worth_waking

Array = np.ndarray


def embedding_forward(weight: Array, ids: Array, emb: Array, *, threads: int = 1) -> None:
    """Sliced over the places of the batch."""
    words, (rows, places, width) = ids.reshape(-1), emb.shape
    flat = emb.reshape(rows * places, width)
    slices = team.cut(words.size, rows_worth_waking(weight))
    team.run_slices(
        lambda first, last: _embedding_forward(weight, words, flat, first, last, ids.shape[1], places), slices, threads
    )


@jit
def _embedding_forward(weight: Array, ids: Array, emb: Array, first: int, last: int, context: int, places: int) -> None:
    for i in range(first, last):
        word, place = weight[ids[i]], emb[i // context * places + i % context]
        for d in range(word.size):
            place[d] = word[d]


def embedding_backward(ids: Array, demb: Array, rows: Array, drows: Array, *, threads: int = 1) -> int:
    """A stable sort brings the places of each id together, in the order of the batch; one thread sums them."""
    order = np.argsort(ids, axis=None, kind="stable")
    places, width = demb.shape[1:]
    flat = demb.reshape(len(demb) * places, width)
    return int(_embedding_backward(order, ids.reshape(-1), flat, rows, drows, ids.shape[1], places))


@jit
def _embedding_backward(
    order: Array, ids: Array, demb: Array, rows: Array, drows: Array, context: int, places: int
) -> int:
    unique = 0
    for u in range(rows.size):
        rows[u] = -1
        for d in range(drows.shape[1]):
            drows[u, d] = 0
    for place in order:
        if unique == 0 or rows[unique - 1] != ids[place]:
            rows[unique] = ids[place]
            unique += 1
        row, drow = drows[unique - 1], demb[place // context * places + place % context]
        for d in range(row.size):
            row[d] += drow[d]
    return unique
