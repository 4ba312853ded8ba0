"""dropout: numbers are left out at random, by a mask that is made again instead of kept."""

from collections.abc import Sequence

import numpy as np

from fastmlp.ops.contract import contract, floats, int64s, out

Array = np.ndarray
LOW = 2**32 - 1  # the low half of 64 bits


@contract(x=floats("..."), counter=int64s("2"), y=out("..."))
def dropout_forward(x: Array, counter: Array, y: Array, *, layer: int, p: float, threads: int = 1) -> None:
    """y = x / (1 - p) where the mask keeps x, else 0, for arrays of any one shape; y may be x.

    x        (...)  in
    counter  (2,)   in:  seed and step, int64
    y        (...)  out
    layer           which of a network's masks it is, 0 <= layer < 2^32
    p               how probable it is that a number is left out, 0 <= p < 1, to within 2^-17 and at most 1 - 2^-16,
                    while what is kept is divided by 1 - p as it is given; with 0 it is a copy
    The mask depends on seed, step, layer, p and an element's number in the array alone, not on threads or back-end:
    Philox4x32-10 has the two halves of the seed, the low one first, for a key and counts with

        low and high half of (element // 8),  low half of step,  layer

    which gives four words, and each of these two numbers of 16 bits, the low half first; element is kept if number
    element % 8 >= min(round(p * 2^16), 2^16 - 1).
    Sources: Srivastava et al. (2014), scaled in training as PyTorch does; Salmon et al. (2011).
    """
    kept = _kept(counter, layer, p, x.size).reshape(x.shape)
    np.multiply(x, x.dtype.type(1 / (1 - p)), out=y, where=kept)
    y[~kept] = 0


@contract(dy=floats("..."), counter=int64s("2"), dx=out("..."))
def dropout_backward(dy: Array, counter: Array, dx: Array, *, layer: int, p: float, threads: int = 1) -> None:
    """dx = dy / (1 - p) where the forward pass's mask keeps x, else 0; dx may be dy.

    counter, layer, p  as in the forward pass: the mask is made again
    """
    dropout_forward(dy, counter, dx, layer=layer, p=p, threads=threads)


def _kept(counter: Array, layer: int, p: float, size: int) -> Array:
    """The mask of so many elements."""
    seed, step = counter.tolist()
    blocks = np.arange(-(-size // 8), dtype=np.uint64)
    count = (blocks & LOW, blocks >> 32, np.full_like(blocks, step & LOW), np.full_like(blocks, layer))
    words = np.stack(philox(count, (seed & LOW, seed >> 32 & LOW)), axis=1)
    numbers = np.stack((words & 0xFFFF, words >> 16), axis=2)
    return numbers.reshape(-1)[:size] >= min(round(p * 2**16), 2**16 - 1)


def philox(count: Sequence[Array], key: tuple[int, int]) -> list[Array]:
    """Philox4x32-10: four random words of 32 bits, held in uint64, for every count of four and a key of two."""
    (c0, c1, c2, c3), (k0, k1) = count, key
    for _ in range(10):
        product0, product2 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = product2 >> 32 ^ c1 ^ k0, product2 & LOW, product0 >> 32 ^ c3 ^ k1, product0 & LOW
        k0, k1 = (k0 + 0x9E3779B9) & LOW, (k1 + 0xBB67AE85) & LOW
    return [c0, c1, c2, c3]
