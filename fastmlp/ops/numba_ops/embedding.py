"""embedding in Numba."""

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.numba_ops._jit import jit, rows_worth_waking

Array = np.ndarray


def embedding_forward(weight: Array, ids: Array, emb: Array, *, threads: int = 1) -> None:
    """Sliced over the places of the batch."""
    ids, emb = ids.reshape(-1), emb.reshape(ids.size, weight.shape[1])
    slices = team.cut(ids.size, rows_worth_waking(weight))
    team.run_slices(lambda first, last: _embedding_forward(weight, ids[first:last], emb[first:last]), slices, threads)


@jit
def _embedding_forward(weight: Array, ids: Array, emb: Array) -> None:
    for i in range(ids.size):
        word, place = weight[ids[i]], emb[i]
        for d in range(word.size):
            place[d] = word[d]


def embedding_backward(ids: Array, demb: Array, rows: Array, drows: Array, *, threads: int = 1) -> int:
    """A stable sort brings the places of each id together, in the order of the batch; one thread sums them."""
    order = np.argsort(ids, axis=None, kind="stable")
    return int(_embedding_backward(order, ids.reshape(-1), demb.reshape(drows.shape), rows, drows))


@jit
def _embedding_backward(order: Array, ids: Array, demb: Array, rows: Array, drows: Array) -> int:
    unique = 0
    for u in range(rows.size):
        rows[u] = -1
        for d in range(drows.shape[1]):
            drows[u, d] = 0
    for place in order:
        if unique == 0 or rows[unique - 1] != ids[place]:
            rows[unique] = ids[place]
            unique += 1
        row, drow = drows[unique - 1], demb[place]
        for d in range(row.size):
            row[d] += drow[d]
    return unique
