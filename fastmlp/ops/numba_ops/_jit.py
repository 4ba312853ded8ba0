"""Compilation of kernels, and their slices and work arrays."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from fastmlp.ops import team

Array = np.ndarray
SMALLEST = 2**17  # numbers of an elementwise slice, at least: some 30 us of work; less is not worth a thread
NEWEST_SOURCE = max(file.stat().st_mtime for file in Path(__file__).parent.glob("*.py"))


def _compiled(function: Callable[..., Any], fastmath: set[str]) -> Any:
    """Compile on first use: without the GIL, with NaN for 0/0, and with machine code in Numba's cache folder."""
    try:
        kernel = njit(nogil=True, error_model="numpy", fastmath=fastmath, cache=True)(function)
    except RuntimeError:  # "no locator available": no folder to write to, so each process compiles its own
        return njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)
    _forget_outdated(kernel)
    return kernel


def _forget_outdated(kernel: Any) -> None:
    """Drop a kernel's machine code that is older than a file of this folder.

    Numba renews it if the kernel's own file has changed, but not if the file of a called function has.
    """
    file = getattr(kernel._cache, "_cache_file", None)  # Numba has no public name for it; None: nothing is cached
    if file is not None and Path(file._index_path).exists() and Path(file._index_path).stat().st_mtime < NEWEST_SOURCE:
        kernel._cache.flush()


def jit(function: Callable[..., Any]) -> Any:
    """A kernel whose products and sums may become fused multiply-adds. NaN and infinity are as IEEE says."""
    return _compiled(function, {"contract"})


def jit_any_order(function: Callable[..., Any]) -> Any:
    """A kernel whose sums may also be taken in any order, so that a loop that adds into one number is vectorised."""
    return _compiled(function, {"contract", "reassoc"})


def read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def rows_worth_waking(matrix: Array) -> int:
    """Return the least rows of `matrix` in an elementwise slice."""
    return int(max(1, SMALLEST // max(1, matrix.shape[1])))


def bias_or_zeros(bias: Array | None, size: int) -> Array:
    return read_only(np.zeros(size, np.float32) if bias is None else bias)


def cut_elements(size: int, times: int = 1, multiple_of: int = 1) -> list[team.Slice]:
    """Return slices of elementwise work on `size` numbers; a number takes `times` the usual work."""
    return team.cut(size, SMALLEST // max(1, times), multiple_of=multiple_of)


def for_each_element(kernel: Callable[..., None], arrays: Sequence[Array], threads: int, *numbers: Any) -> None:
    """Run `kernel(*arrays, *numbers)` on slices of arrays of one shape, flattened."""
    flat = [array.reshape(-1) for array in arrays]
    slices = cut_elements(flat[0].size)
    if len(slices) == 1:
        kernel(*flat, *numbers)
    else:
        team.run_slices(lambda first, last: kernel(*(array[first:last] for array in flat), *numbers), slices, threads)


spare: deque[Array] = deque(maxlen=1)  # pop and append are atomic: no lock that a fork could leave locked


@contextmanager
def work_arrays(*shapes: tuple[int, ...]) -> Iterator[list[Array]]:
    """Float32 arrays to work in, uninitialised, cut from one buffer that is reused by the next call.

    A fresh buffer of 60 MB would cost page faults at every step. Each process holds one, as large as the largest call
    needed; a second caller at the same time makes its own. After an error it is dropped, since another thread may
    still write to it.
    """
    sizes = [math.prod(shape) for shape in shapes]
    try:
        buffer = spare.pop()
    except IndexError:
        buffer = np.empty(0, np.float32)
    if buffer.size < sum(sizes):
        buffer = np.empty(sum(sizes), np.float32)
    ends = np.cumsum(sizes)
    yield [buffer[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)]
    spare.append(buffer)
