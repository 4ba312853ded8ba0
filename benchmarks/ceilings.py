"""The ceilings that a step is held against: what this machine multiplies and moves in a second, on all cores at once.

ceilings.c is compiled for this CPU when it is needed; without a C compiler there are no ceilings, said aloud.
"""

import ctypes
import mmap
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.contest import Clock, Contender, Result
from fastmlp.threads import default_threads
from tests.inputs import REAL

WEIGHTS = 4 * REAL.H * REAL.V  # bytes of the output layer: the memory that a step walks again and again
CONTENDER = Contender("ceilings", "benchmarks.ceilings:measure")

FLOP = {  # of a piece of work, some milliseconds long
    "vectors_of_16_bytes": 1 << 27,
    "vectors_of_32_bytes": 1 << 28,
    "vectors_of_64_bytes": 1 << 29,
    "dot_products_of_bf16": 1 << 30,
    "tiles_of_bf16": 1 << 33,
}
WAYS = {"read_memory": 1, "rewrite_memory": 2}  # that a byte goes over the bus
PIECES = 16  # taken by the cores as they come free
WALKS = 4  # over the memory


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
    """The highest rates seen in a contest, in flop or bytes a second, by name; none without a C compiler."""
    seen = results[CONTENDER.name].values
    return {name: max(rates[name] for rates in seen) for name in seen[0]} if seen else {}


def measure(clock: Clock, **_task: object) -> None:
    """A contender: with each tick the rates of the moment."""
    library, threads = compile_for_this_cpu(), default_threads()
    piece = WEIGHTS // PIECES // mmap.PAGESIZE * mmap.PAGESIZE
    memory = mmap.mmap(-1, PIECES * piece)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # as NumPy does for its large arrays
        memory.madvise(mmap.MADV_HUGEPAGE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ctypes.memset(first, 0, PIECES * piece)  # before that it is one page of zeros
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
                addresses = [ctypes.c_void_p(first + i * piece) for i in range(PIECES)]
                began = perf_counter()
                list(pool.map(getattr(library, name), addresses * WALKS, [ctypes.c_size_t(piece)] * PIECES * WALKS))
                rates[name] = WALKS * ways * PIECES * piece / (perf_counter() - began)
            clock.tick(rates)
