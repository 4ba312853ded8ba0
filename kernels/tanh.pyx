"""tanh and its gradient, element by element."""

from core cimport ceil_div, core_api, import_core

cdef const core_api *core = import_core()

cdef enum:
    SLICE = 16384  # elements: a few microseconds of work


ctypedef struct Call:
    long n
    const float *dy
    const float *x
    float *y


cdef void forward_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * SLICE
    core.simd.tanh_forward(min(SLICE, call.n - first), call.x + first, call.y + first)


cdef void backward_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * SLICE
    core.simd.tanh_backward(min(SLICE, call.n - first), call.dy + first, call.x + first, call.y + first)


def tanh_forward(x, y, *, int threads=1):
    """y = tanh(x), a rational function of x that keeps the relative accuracy near 0."""
    cdef const float[::1] x_flat = x.ravel()
    cdef float[::1] y_flat = y.ravel()
    if x_flat.shape[0] == 0:
        return
    cdef Call call = Call(x_flat.shape[0], NULL, &x_flat[0], &y_flat[0])
    with nogil:
        core.run(forward_slice, &call, ceil_div(call.n, SLICE), threads)


def tanh_backward(dy, y, dx, *, int threads=1):
    """dx = dy * (1 - y^2)."""
    cdef const float[::1] dy_flat = dy.ravel()
    cdef const float[::1] y_flat = y.ravel()
    cdef float[::1] dx_flat = dx.ravel()
    if y_flat.shape[0] == 0:
        return
    cdef Call call = Call(y_flat.shape[0], &dy_flat[0], &y_flat[0], &dx_flat[0])
    with nogil:
        core.run(backward_slice, &call, ceil_div(call.n, SLICE), threads)
