"""add, element by element: a residual sum and its gradient."""

from core cimport ceil_div, core_api, import_core

cdef const core_api *core = import_core()

cdef enum:
    SLICE = 16384  # elements: some microseconds of work


ctypedef struct Call:
    long n
    const float *a
    const float *b
    float *y


cdef void add_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * SLICE
    core.simd.add(min(SLICE, call.n - first), call.a + first, call.b + first, call.y + first)


def add(a, b, y, *, int threads=1):
    """y = a + b."""
    cdef const float[::1] a_flat = a.ravel()
    cdef const float[::1] b_flat = b.ravel()
    cdef float[::1] y_flat = y.ravel()
    if a_flat.shape[0] == 0:
        return
    cdef Call call = Call(a_flat.shape[0], &a_flat[0], &b_flat[0], &y_flat[0])
    with nogil:
        core.run(add_slice, &call, ceil_div(call.n, SLICE), threads)
