"""gelu and its gradient, element by element."""

from core cimport ceil_div, core_api, import_core

cdef const core_api *core = import_core()

cdef enum:
    SLICE = 16384  # elements: some ten microseconds of work


ctypedef struct Call:
    long n
    const float *dy
    const float *x
    float *y


cdef void forward_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * SLICE
    core.simd.gelu_forward(min(SLICE, call.n - first), call.x + first, call.y + first)


cdef void backward_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * SLICE
    core.simd.gelu_backward(min(SLICE, call.n - first), call.dy + first, call.x + first, call.y + first)


def gelu_forward(x, y, *, int threads=1):
    """y = x Phi(x), by the tail of the normal distribution, which keeps its relative accuracy far below 0."""
    cdef const float[::1] x_flat = x.ravel()
    cdef float[::1] y_flat = y.ravel()
    if x_flat.shape[0] == 0:
        return
    cdef Call call = Call(x_flat.shape[0], NULL, &x_flat[0], &y_flat[0])
    with nogil:
        core.run(forward_slice, &call, ceil_div(call.n, SLICE), threads)


def gelu_backward(dy, x, dx, *, int threads=1):
    """dx = dy (Phi(x) + x phi(x))."""
    cdef const float[::1] dy_flat = dy.ravel()
    cdef const float[::1] x_flat = x.ravel()
    cdef float[::1] dx_flat = dx.ravel()
    if x_flat.shape[0] == 0:
        return
    cdef Call call = Call(x_flat.shape[0], &dy_flat[0], &x_flat[0], &dx_flat[0])
    with nogil:
        core.run(backward_slice, &call, ceil_div(call.n, SLICE), threads)
