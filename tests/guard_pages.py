"""Run the ops of a back-end with every array next to a memory page that must not be accessed.

    python -m tests.guard_pages BACKEND before|behind|heap [--thorough | --thorough-third=K]

A read or write outside an array ends this process with a signal; the last line printed says where. With `heap` each
array has a block of memory of its own instead: AddressSanitizer watches the bounds of those (tests/sanitize.py). Each
op runs at each of the sizes; with --thorough, or for a third of the sizes, with all pairs of ids' type and options.
"""

import ctypes
import mmap
import sys
from itertools import product

import numpy as np

from fastmlp.ops import OPS, get_ops
from tests.helpers import arguments, cast
from tests.inputs import example, options_of

LIBC = ctypes.CDLL(None, use_errno=True)
PROT_NONE = 0
PAGE = mmap.PAGESIZE
SIZES = [
    {"B": 1, "T": 1, "D": 1, "H": 1, "V": 1},
    {"B": 2, "T": 3, "D": 5, "H": 7, "V": 9},
    {"B": 17, "T": 4, "D": 15, "H": 33, "V": 129},
    {"B": 33, "T": 1, "D": 31, "H": 301, "V": 1_027},
    {"B": 31, "T": 1, "D": 31, "H": 30, "V": 31},
    {"B": 65, "T": 2, "D": 30, "H": 300, "V": 515},
]
LARGE = [  # where kernels change their ways: sums made in parts, rows in chunks, gradients that go past the caches
    {"B": 9, "T": 1, "D": 8_195, "H": 5, "V": 3},
    {"B": 8_195, "T": 1, "D": 3, "H": 5, "V": 7},
    {"B": 2, "T": 1, "D": 1, "H": 301, "V": 7_001},
    {"B": 31, "T": 1, "D": 1_024, "H": 29, "V": 15},  # rows whole pages apart
    {"B": 130, "T": 3, "D": 2_100, "H": 140, "V": 9},  # also slices of many rows, and all threads look words up
]
OPTIONS = [{}, {"label_smoothing": 0.1, "weight_decay": 0.1, "training": False}]


def fenced(array: np.ndarray, flush: str) -> np.ndarray:
    """A copy that begins right after a forbidden page ("before") or ends right before one ("behind")."""
    if flush == "heap":
        return array.copy()
    pages = max(1, -(-array.nbytes // PAGE))
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    offset = PAGE if flush == "before" else PAGE + pages * PAGE - array.nbytes
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (first, first + (pages + 1) * PAGE):
        if LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    return copy


def main(backend: str, flush: str, sweeps: str = "") -> None:
    ops = get_ops(backend)
    kinds = [(sizes, *kind) for sizes in SIZES for kind in zip((np.int32, np.int64), OPTIONS, strict=True)]
    kinds += [(sizes, np.int32, OPTIONS[1]) for sizes in LARGE]
    others = [(sizes, *kind) for sizes in SIZES for kind in zip((np.int64, np.int32), OPTIONS, strict=True)]
    if sweeps:
        kinds += others if sweeps == "--thorough" else others[int(sweeps.removeprefix("--thorough-third=")) :: 3]
    for op, (sizes, id_type, options) in product(OPS, kinds):
        if op.startswith("batchnorm") and sizes["B"] < 2:  # no training on one row
            continue
        for fp32_precision in ops.precisions() if op.startswith("linear_") else (None,):
            print(op, sizes, id_type.__name__, options, fp32_precision, flush=True)
            arrays = arguments(op, cast(example(op, **sizes), id_type), lambda array: fenced(array, flush))
            chosen = {"fp32_precision": fp32_precision} if fp32_precision else {}
            getattr(ops, op)(*arrays.values(), **options_of(op, **options), **chosen, threads=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
