"""The core of all ops (simd/core.h): one team of threads, one work array and the vector kernels, behind one capsule.

FASTMLP_SIMD=amx|avx512_bf16|avx512|avx2|neon|portable chooses the variant of the vector kernels by hand; one that this
CPU cannot run is an error. Without it the best one runs.
"""

import os

from core cimport core_api, simd_variant, slice_task
from cpython.pycapsule cimport PyCapsule_New


cdef extern from "core.h" nogil:
    const char *CORE_CAPSULE
    const size_t CORE_SIZE
    void team_run(slice_task task, void *context, long slices, int threads)
    void *work_take(size_t size)
    void work_give(void *work)
    const simd_variant **simd_variants
    bint simd_runs(const simd_variant *variant)


cdef core_api shared
shared.size = CORE_SIZE
shared.run = team_run
shared.take = work_take
shared.give = work_give
api = PyCapsule_New(&shared, CORE_CAPSULE, NULL)

cdef const simd_variant *current = NULL


def variants():
    """Return the variants that this CPU can run, the best first."""
    names = []
    cdef int i = 0
    while simd_variants[i] != NULL:
        if simd_runs(simd_variants[i]):
            names.append(simd_variants[i].name.decode())
        i += 1
    return names


def variant():
    """Return the variant in use."""
    return current.name.decode()


def use_variant(name):
    """Switch all ops of this process to another variant, while no op runs: for tests and benchmarks."""
    global current
    if name not in variants():
        raise ValueError(f"expected one of {', '.join(variants())}, which this CPU runs, got {name!r}")
    cdef int i = 0
    while simd_variants[i].name.decode() != name:
        i += 1
    current = simd_variants[i]
    shared.simd = current.simd
    shared.tiles = current.tiles


def precisions():
    """Return the variant's values of fp32_precision; the first one is "auto": float32."""
    return ("ieee",) if shared.tiles == NULL else ("ieee", "bf16x3", "bf16")


try:
    use_variant(os.environ.get("FASTMLP_SIMD") or variants()[0])
except ValueError as error:
    raise ImportError(f"FASTMLP_SIMD: {error}") from None
