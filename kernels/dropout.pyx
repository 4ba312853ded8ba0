"""dropout, whose mask is made again in the backward pass: Philox4x32-10 needs no state but the number of a block."""

from libc.math cimport rint
from libc.stdint cimport int64_t, uint32_t, uint64_t

from core cimport ceil_div, core_api, dropout_mask, import_core

cdef const core_api *core = import_core()

cdef enum:
    BLOCK = 4      # elements of which a count gives the words
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
    cdef uint64_t seed = counter[0]
    cdef Call call
    if x_flat.shape[0] == 0:
        return
    call.n, call.x, call.y = x_flat.shape[0], &x_flat[0], &y_flat[0]
    call.mask.key[0], call.mask.key[1] = <uint32_t> seed, <uint32_t> (seed >> 32)
    call.mask.step, call.mask.layer = <uint32_t> counter[1], layer
    call.mask.threshold = <uint32_t> min(rint(p * 4294967296.0), 4294967295.0)
    call.mask.scale = <float> (1 / (1 - p))
    with nogil:
        core.run(mask_slice, &call, ceil_div(call.n, SLICE), threads)


def dropout_backward(dy, const int64_t[::1] counter, dx, *, uint32_t layer, double p, int threads=1):
    """dx = dy / (1 - p) where the same mask keeps x, else 0."""
    dropout_forward(dy, counter, dx, layer=layer, p=p, threads=threads)
