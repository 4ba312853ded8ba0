"""dropout in Numba."""

from typing import Any

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.numba_ops._arithmetic import _ZERO
from fastmlp.ops.numba_ops._jit import cut_elements, jit

Array = np.ndarray
PIECE = 2048  # elements whose numbers are made at a time
BLOCK = 8  # elements of which a count gives the numbers
LOW = np.uint64(2**32 - 1)
HALF = np.uint64(32)
FACTOR0, FACTOR2 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
STEP0, STEP1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
ROUND = tuple(np.uint64(number) for number in range(10))


def dropout_forward(x: Array, counter: Array, y: Array, *, layer: int, p: float, threads: int = 1) -> None:
    """Sliced over the elements, by whole blocks."""
    x, y, mask = x.reshape(-1), y.reshape(-1), mask_of(counter, layer, p)
    slices = cut_elements(x.size, times=4, multiple_of=BLOCK)
    team.run_slices(lambda first, last: _dropout(x[first:last], y[first:last], first, mask), slices, threads)


def dropout_backward(dy: Array, counter: Array, dx: Array, *, layer: int, p: float, threads: int = 1) -> None:
    """The same on the gradient."""
    dropout_forward(dy, counter, dx, layer=layer, p=p, threads=threads)


def mask_of(counter: Array, layer: int, p: float) -> tuple[Any, ...]:
    """Return what a mask is made of, in the kernels' types."""
    seed, step = counter.astype(np.uint64)
    threshold, scale = np.uint16(min(round(p * 2**16), 2**16 - 1)), np.float32(1 / (1 - p))
    return seed & LOW, seed >> HALF, step & LOW, np.uint64(layer), threshold, scale


@jit
def _dropout(x: Array, y: Array, first: int, mask: Any) -> None:
    """Mask elements; `first` is the number of the first one."""
    key0, key1, step, layer, threshold, scale = mask
    if scale == 1:  # nothing is left out
        y[:] = x
        return
    before = first % BLOCK
    words = np.empty(PIECE // 2 + BLOCK, np.uint32)
    numbers = words.view(np.uint16)[before:]  # the low half first: Numba has no machine with the other byte order
    for start in range(0, x.size, PIECE):
        some, masked = x[start : start + PIECE], y[start : start + PIECE]
        block = np.uint64((first + start) // BLOCK)
        _random_words(block, key0, key1, step, layer, words[: (before + some.size + BLOCK - 1) // BLOCK * 4])
        for i in range(some.size):
            masked[i] = some[i] * scale if numbers[i] >= threshold else _ZERO


@jit
def _random_words(block: Any, key0: Any, key1: Any, step: Any, layer: Any, words: Array) -> None:
    """The words of the blocks from `block` on. The rounds are written out: LLVM vectorises no loop around a loop."""
    for i in range(words.size // 4):
        number = block + np.uint64(i)
        c0, c1, c2, c3 = _round(number & LOW, number >> HALF, step, layer, key0, key1, ROUND[0])
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1, ROUND[1])
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1, ROUND[2])
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1, ROUND[3])
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1, ROUND[4])
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1, ROUND[5])
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1, ROUND[6])
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1, ROUND[7])
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1, ROUND[8])
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1, ROUND[9])
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = c0, c1, c2, c3


@jit
def _round(c0: Any, c1: Any, c2: Any, c3: Any, key0: Any, key1: Any, number: Any) -> Any:
    key0, key1 = (key0 + number * STEP0) & LOW, (key1 + number * STEP1) & LOW
    product0, product2 = c0 * FACTOR0, c2 * FACTOR2
    return (product2 >> HALF) ^ c1 ^ key0, product2 & LOW, (product0 >> HALF) ^ c3 ^ key1, product0 & LOW
