"""context_averages: what stood before the context, as averages of its embeddings that forget the older the faster."""

import numpy as np

from fastmlp.ops.contract import contract, floats, ids, out

Array = np.ndarray


@contract(weight=floats("V", "D"), far=ids("B", "K", below="V", lowest=-1), decays=floats("A"), emb=out("B", "A+", "D"))
def context_averages_forward(weight: Array, far: Array, decays: Array, emb: Array, *, threads: int = 1) -> None:
    """Of K words average i is sqrt(1 - a) * sum over k of a^k weight[far[:, K - 1 - k]], with its decay a.

    weight  (V, D)     in:  one row a word
    far     (B, K)     in:  words in the order of the text, the nearest last, -1 <= id < V; -1: none, it adds nothing
    decays  (A,)       in:  0 < a < 1
    emb     (B, S, D)  out: the averages, in the last A places of each row, S >= A; the others are left alone
    There is no gradient: the table is read through it, not trained. The other back-ends make the averages of a row
    whose words are those of the row before it and one more from that row's, beginning anew at every sixteenth: so a
    number that is not finite may reach up to 15 rows behind the last in which its word is.
    Source: the context features of Mikolov et al. (2014), Learning longer memory in recurrent neural networks, with
    decays that are given and a scale under which averages of independent embeddings vary much as one of them does.
    """
    averages = emb[:, emb.shape[1] - len(decays) :]
    averages[...] = 0
    for k in range(far.shape[1]):
        words = far[:, far.shape[1] - 1 - k]
        there = words >= 0
        averages[there] += (decays**k)[:, None] * weight[words[there], None]
    averages *= np.sqrt(1 - decays)[:, None]
