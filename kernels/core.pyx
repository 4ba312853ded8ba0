"""The base of the compiled ops: the team of threads, the work array and the vector kernels, behind one capsule.

FASTMLP_SIMD=avx512|avx2|portable chooses the variant of the vector kernels by hand; one that this CPU cannot run is an
error. Without it the best one runs.
"""

import os

from core cimport core_api, simd_kernels, slice_task
from cpython.pycapsule cimport PyCapsule_New


cdef extern from "core.h" nogil:
    const char *CORE_CAPSULE
    const size_t CORE_SIZE
    void team_run(slice_task task, void *context, long slices, int threads)
    void *work_take(size_t size)
    void work_give(void *work)
    const simd_kernels *simd_choose(const char *name)
    const char **simd_names


def variants():
    """The variants that this CPU can run, the best first."""
    names = []
    cdef int i = 0
    while simd_names[i] != NULL:
        if simd_choose(simd_names[i]) != NULL:
            names.append(simd_names[i].decode())
        i += 1
    return names


cdef const simd_kernels *choose() except NULL:
    asked = os.environ.get("FASTMLP_SIMD")
    cdef const simd_kernels *simd
    if asked is None:
        return simd_choose(NULL)
    name = asked.encode()
    simd = simd_choose(name)
    if simd == NULL:
        raise ImportError(f"FASTMLP_SIMD: expected one of {', '.join(variants())}, which this CPU runs, got {asked!r}")
    return simd


cdef core_api shared
shared.size = CORE_SIZE
shared.run = team_run
shared.take = work_take
shared.give = work_give
shared.simd = choose()

api = PyCapsule_New(&shared, CORE_CAPSULE, NULL)
simd = shared.simd.name.decode()
