"""The ceilings of a step: the rates at which this machine multiplies and moves data, on all cores at once.

ceilings.c is compiled for this CPU when needed; without a C compiler there are no ceilings, and the report says so.
"""

import ctypes
import mmap
import os
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.contest import Clock, Contender, Result
from fastmlp.threads import default_threads
from tests.inputs import REAL

WEIGHTS = 4 * REAL.H * REAL.V  # bytes of the output layer: the memory that each step reads and writes
CONTENDER = Contender("ceilings", "benchmarks.ceilings:measure")

FLOP = {  # of a piece of work, some milliseconds long
    "vectors_of_16_bytes": 1 << 27,
    "vectors_of_32_bytes": 1 << 28,
    "vectors_of_64_bytes": 1 << 29,
    "dot_products_of_bf16": 1 << 30,
    "tiles_of_bf16": 1 << 33,
}
PIECES = 16  # of multiplications, each taken by the next free core
# The walks use memory of the size of the output weights: a last-level cache of almost that size, such as 32 MB for 33,
# still holds a part of it from the last sweep, in a step as in these walks. So this is the rate that a kernel can
# reach for these weights on this machine; the memory bus alone is slower.
WAYS = {"read_memory": 1, "rewrite_memory": 2}  # transfers of a byte
WALKS = 16  # over the memory: some ten milliseconds


def compile_for_this_cpu() -> ctypes.CDLL:
    """Raises OSError where there is no compiler, CalledProcessError where it fails."""
    source = Path(__file__).with_suffix(".c")
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    flags = ["-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "ceilings.so"
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def highest(results: Mapping[str, Result]) -> dict[str, float]:
    """The highest rates seen in a contest, in flop or bytes a second, by name; none without a C compiler.

    Raises RuntimeError instead where the kernels are required, so that there is a compiler.
    """
    if (failed := results[CONTENDER.name].failed) and os.environ.get("FASTMLP_REQUIRE_KERNELS") == "1":
        raise RuntimeError(f"the ceilings: {failed}")
    seen = results[CONTENDER.name].values
    return {name: max(rates[name] for rates in seen) for name in seen[0]} if seen else {}


def measure(clock: Clock, **_task: object) -> None:
    """A contender: with each tick the rates of the moment."""
    library, threads = compile_for_this_cpu(), default_threads()
    piece = WEIGHTS // threads // mmap.PAGESIZE * mmap.PAGESIZE
    memory = mmap.mmap(-1, threads * piece)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # as in NumPy's large arrays
        memory.madvise(mmap.MADV_HUGEPAGE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ctypes.memset(first, 0, threads * piece)  # untouched memory is one page of zeros
    multiply = {}
    for name, flop in FLOP.items():
        if function := getattr(library, name, None):  # compiled where the CPU has it
            function.restype = ctypes.c_double
            if function(ctypes.c_long(0)) >= 0:
                multiply[name] = partial(function, ctypes.c_long(flop))

    with ThreadPoolExecutor(threads) as pool:
        while True:
            rates = {}
            for name, work in multiply.items():
                began = perf_counter()
                list(pool.map(lambda _, work=work: work(), range(PIECES)))
                rates[name] = PIECES * FLOP[name] / (perf_counter() - began)
            for name, ways in WAYS.items():
                walk = getattr(library, name)

                def walk_piece(i: int, walk: Any = walk) -> None:
                    walk(ctypes.c_void_p(first + i * piece), ctypes.c_size_t(piece), WALKS)

                began = perf_counter()
                list(pool.map(walk_piece, range(threads)))
                rates[name] = WALKS * ways * threads * piece / (perf_counter() - began)
            clock.tick(rates)
