"""batchnorm, gelu and dropout in training, by blocks of channels as batchnorm.

By themselves they write and read arrays in between that are larger than the caches. Here a part of a row goes through
all three at once; the backward pass makes batchnorm's output and the mask again, from x and the counter.
"""

from libc.stdint cimport int64_t, uint32_t

from core cimport (
    COLUMN_BLOCK, batch_statistics, ceil_div, core_api, dropout_mask, import_core, mask_of, slice_task,
)

cdef const core_api *core = import_core()

cdef enum:
    SMALL = 1 << 14  # elements below which a second thread does not pay


ctypedef struct Call:
    long rows
    long channels
    dropout_mask mask
    float momentum
    float eps
    const float *x
    const float *weight
    const float *bias
    float *running_mean
    float *running_var
    float *mean
    float *inv_std
    float *y
    const float *dy
    float *dx
    float *dweight
    float *dbias


cdef void forward_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * COLUMN_BLOCK, columns = min(COLUMN_BLOCK, call.channels - first)
    batch_statistics(core.simd, call.rows, call.channels, columns, call.x + first, call.momentum, call.eps,
                     call.running_mean + first, call.running_var + first, call.mean + first, call.inv_std + first)
    core.simd.masked_gelu(call.rows, call.channels, columns, call.x + first, call.mean + first, call.inv_std + first,
                          call.weight + first, call.bias + first, &call.mask, first, call.y + first)


cdef void backward_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * COLUMN_BLOCK, columns = min(COLUMN_BLOCK, call.channels - first)
    cdef float *dx = call.dx + first  # first of batchnorm's output, then of its input
    core.simd.masked_gelu_sums(call.rows, call.channels, columns, call.dy + first, call.x + first, call.mean + first,
                               call.inv_std + first, call.weight + first, call.bias + first, &call.mask, first, dx,
                               call.dweight + first, call.dbias + first)
    core.simd.batchnorm_dx(call.rows, call.channels, columns, True, dx, call.x + first, call.weight + first,
                           call.mean + first, call.inv_std + first, call.dweight + first, call.dbias + first, dx)


cdef void run_slices(slice_task task, Call *call, int threads) noexcept nogil:
    cdef int useful = threads if call.rows * call.channels >= SMALL else 1
    core.run(task, call, ceil_div(call.channels, COLUMN_BLOCK), useful)


def batchnorm_gelu_dropout_forward(const float[:, ::1] x, const float[::1] weight, const float[::1] bias,
                                   float[::1] running_mean, float[::1] running_var, const int64_t[::1] counter,
                                   float[::1] mean, float[::1] inv_std, float[:, ::1] y, *, float momentum=0.1,
                                   float eps=1e-5, uint32_t layer, double p, int threads=1):
    """y = dropout(gelu(batchnorm(x))) by the batch's statistics."""
    cdef Call call
    call.rows, call.channels = x.shape[0], x.shape[1]
    call.momentum, call.eps = momentum, eps
    if call.rows < 2:
        raise ValueError(f"batchnorm_gelu_dropout_forward: x: expected at least 2 rows to train on, got {call.rows}")
    if call.channels == 0:
        return
    call.mask = mask_of(counter, layer, p)
    with nogil:
        call.x, call.y = &x[0, 0], &y[0, 0]
        call.weight, call.bias = &weight[0], &bias[0]
        call.running_mean, call.running_var = &running_mean[0], &running_var[0]
        call.mean, call.inv_std = &mean[0], &inv_std[0]
        run_slices(forward_slice, &call, threads)


def batchnorm_gelu_dropout_backward(const float[:, ::1] dy, const float[:, ::1] x, const float[::1] weight,
                                    const float[::1] mean, const float[::1] inv_std, const float[::1] bias,
                                    const int64_t[::1] counter, float[:, ::1] dx, float[::1] dweight,
                                    float[::1] dbias, *, uint32_t layer, double p, int threads=1):
    """The gradients of x, weight and bias."""
    cdef Call call
    call.rows, call.channels = x.shape[0], x.shape[1]
    if call.channels == 0:
        return
    call.mask = mask_of(counter, layer, p)
    with nogil:
        call.dy = &dy[0, 0] if call.rows > 0 else NULL
        call.x = &x[0, 0] if call.rows > 0 else NULL
        call.dx = &dx[0, 0] if call.rows > 0 else NULL
        call.weight, call.bias = &weight[0], &bias[0]
        call.mean, call.inv_std = <float *> &mean[0], <float *> &inv_std[0]
        call.dweight, call.dbias = &dweight[0], &dbias[0]
        run_slices(backward_slice, &call, threads)
