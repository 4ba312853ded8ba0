"""embedding: rows of a table by their ids, and the gradient of the few rows that were used."""

import numpy as np

from fastmlp.ops.contract import contract, floats, ids, out, out_ids

Array = np.ndarray


@contract(weight=floats("V", "D"), ids=ids("B", "T", below="V"), emb=out("B", "T+", "D"))
def embedding_forward(weight: Array, ids: Array, emb: Array, *, threads: int = 1) -> None:
    """Look up the words of the context.

    weight  (V, D)     in:  one row a word
    ids     (B, T)     in:  words, 0 <= id < V
    emb     (B, S, D)  out: weight[ids] in the first T places of each row, S >= T; the others are left alone
    """
    emb[:, : ids.shape[1]] = weight[ids]


@contract(ids=ids("B", "T"), demb=floats("B", "T+", "D"), rows=out_ids("B*T"), drows=out("B*T", "D"))
def embedding_backward(ids: Array, demb: Array, rows: Array, drows: Array, *, threads: int = 1) -> int:
    """The sparse gradient of the embedding: the batch's unique ids, and for each the sum of its gradients.

    ids    (B, T)     in:  words
    demb   (B, S, D)  in:  gradient of the embedded words, in the first T places of each row, S >= T
    rows   (B*T,)     out: the U unique ids, ascending, of the type of `ids`; the rest is -1
    drows  (B*T, D)   out: their summed gradients, added in the order of the batch; the rest is 0
    Returns U: `rows[:U]` and `drows[:U]` are the gradient.
    """
    unique, position = np.unique(ids, return_inverse=True)
    rows[: unique.size] = unique
    rows[unique.size :] = -1
    drows[...] = 0
    np.add.at(drows, position.ravel(), demb[:, : ids.shape[1]].reshape(drows.shape))
    return int(unique.size)
