"""context_averages in Numba."""

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.numba_ops._jit import jit, read_only, rows_worth_waking

Array = np.ndarray
ANEW = 16  # rows after which averages are made of all their words again; whole slices have as many
FEW = 4  # words that are not worth a difference


def context_averages_forward(weight: Array, far: Array, decays: Array, emb: Array, *, threads: int = 1) -> None:
    """Sliced over the rows. Of a text's neighbours f = a f_before + sqrt(1 - a) (e(new) - a^K e(old))."""
    exact = decays.astype(np.float64)[:, None]
    factors = (np.sqrt(1 - exact) * exact ** np.arange(far.shape[1] + 1)).astype(np.float32)
    inputs = [read_only(array) for array in (weight, far.astype(np.int64, copy=False), decays, factors)]
    smallest = rows_worth_waking(emb.reshape(len(emb), emb.shape[1] * emb.shape[2]))
    slices = team.cut(len(far), smallest, multiple_of=ANEW)
    team.run_slices(lambda first, last: _context_averages_forward(*inputs, emb, first, last), slices, threads)


@jit
def _context_averages_forward(
    weight: Array, far: Array, decays: Array, factors: Array, emb: Array, first: int, last: int
) -> None:
    words, skipped = far.shape[1], emb.shape[1] - decays.size
    for b in range(first, last):
        shifted = b % ANEW != 0 and words > FEW
        for k in range(words - 1):
            shifted = shifted and far[b, k] == far[b - 1, k + 1]
        for i in range(decays.size):
            place = skipped + i
            if shifted:
                for d in range(emb.shape[2]):
                    emb[b, place, d] = decays[i] * emb[b - 1, place, d]
                _add(weight, far[b, words - 1], factors[i, 0], emb, b, place)
                _add(weight, far[b - 1, 0], -factors[i, words], emb, b, place)
            else:
                for d in range(emb.shape[2]):
                    emb[b, place, d] = 0
                for k in range(words):
                    _add(weight, far[b, words - 1 - k], factors[i, k], emb, b, place)


@jit
def _add(weight: Array, word: int, factor: float, emb: Array, row: int, place: int) -> None:
    if word >= 0:
        for d in range(emb.shape[2]):
            emb[row, place, d] += factor * weight[word, d]
