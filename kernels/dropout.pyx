"""dropout, whose mask is made again in the backward pass: Philox4x32-10 needs no state but the number of a block."""

from libc.stdint cimport int64_t, uint32_t

from core cimport ceil_div, core_api, dropout_mask, import_core, mask_of

cdef const core_api *core = import_core()

cdef enum:
    BLOCK = 8      # elements of which a count gives the numbers
    SLICE = 16384  # elements, whole blocks: some ten microseconds of work


ctypedef struct Call:
    long n
    dropout_mask mask
    const float *x
    float *y


cdef void mask_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * SLICE
    core.simd.dropout(&call.mask, first // BLOCK, min(SLICE, call.n - first), call.x + first, call.y + first)


def dropout_forward(x, const int64_t[::1] counter, y, *, uint32_t layer, double p, int threads=1):
    """y = x / (1 - p) where the mask keeps x, else 0."""
    cdef const float[::1] x_flat = x.ravel()
    cdef float[::1] y_flat = y.ravel()
    cdef Call call
    if x_flat.shape[0] == 0:
        return
    call.n, call.x, call.y = x_flat.shape[0], &x_flat[0], &y_flat[0]
    call.mask = mask_of(counter, layer, p)
    with nogil:
        core.run(mask_slice, &call, ceil_div(call.n, SLICE), threads)


def dropout_backward(dy, const int64_t[::1] counter, dx, *, uint32_t layer, double p, int threads=1):
    """dx = dy / (1 - p) where the same mask keeps x, else 0."""
    dropout_forward(dy, counter, dx, layer=layer, p=p, threads=threads)
