"""Batch normalization, by blocks of channels: each channel's sums over the batch belong to one slice."""

from core cimport COLUMN_BLOCK, batch_statistics, ceil_div, core_api, import_core, inverse_deviation

cdef const core_api *core = import_core()

cdef enum:
    SMALL = 1 << 15  # elements below which a second thread does not pay


ctypedef struct Call:
    long rows
    long channels
    bint training
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
    cdef long first = slice * COLUMN_BLOCK, columns = min(COLUMN_BLOCK, call.channels - first), i
    cdef float *mean = call.mean + first
    cdef float *inv_std = call.inv_std + first
    if call.training:
        batch_statistics(core.simd, call.rows, call.channels, columns, call.x + first, call.momentum, call.eps,
                         call.running_mean + first, call.running_var + first, mean, inv_std)
    else:
        for i in range(columns):
            mean[i] = call.running_mean[first + i]
            inv_std[i] = inverse_deviation(call.running_var[first + i], call.eps)
    core.simd.batchnorm_normalize(call.rows, call.channels, columns, call.x + first, mean, inv_std,
                                  call.weight + first, call.bias + first, call.y + first)


cdef void backward_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * COLUMN_BLOCK, columns = min(COLUMN_BLOCK, call.channels - first)
    core.simd.batchnorm_sums(call.rows, call.channels, columns, call.dy + first, call.x + first, call.mean + first,
                             call.inv_std + first, call.dweight + first, call.dbias + first)
    core.simd.batchnorm_dx(call.rows, call.channels, columns, call.training, call.dy + first, call.x + first,
                           call.weight + first, call.mean + first, call.inv_std + first, call.dweight + first,
                           call.dbias + first, call.dx + first)


cdef long slices(Call *call) noexcept nogil:
    return ceil_div(call.channels, COLUMN_BLOCK)


cdef int useful_threads(Call *call, int threads) noexcept nogil:
    return threads if call.rows * call.channels >= SMALL else 1


def batchnorm_forward(const float[:, ::1] x, const float[::1] weight, const float[::1] bias, float[::1] running_mean,
                      float[::1] running_var, float[::1] mean, float[::1] inv_std, float[:, ::1] y, *,
                      bint training=True, float momentum=0.1, float eps=1e-5, int threads=1):
    """y = (x - mean) * inv_std * weight + bias, with the batch's statistics or, when not training, the running ones."""
    cdef Call call
    call.rows, call.channels, call.training = x.shape[0], x.shape[1], training
    call.momentum, call.eps = momentum, eps
    if training and call.rows < 2:
        raise ValueError(f"batchnorm_forward: x: expected at least 2 rows to train on, got {call.rows}")
    if call.channels == 0:
        return
    with nogil:
        call.x = &x[0, 0] if call.rows > 0 else NULL
        call.y = &y[0, 0] if call.rows > 0 else NULL
        call.weight, call.bias = &weight[0], &bias[0]
        call.running_mean, call.running_var = &running_mean[0], &running_var[0]
        call.mean, call.inv_std = &mean[0], &inv_std[0]
        core.run(forward_slice, &call, slices(&call), useful_threads(&call, threads))


def batchnorm_backward(const float[:, ::1] dy, const float[:, ::1] x, const float[::1] weight, const float[::1] mean,
                       const float[::1] inv_std, float[:, ::1] dx, float[::1] dweight, float[::1] dbias, *,
                       bint training=True, int threads=1):
    """The gradients of x, weight and bias; when training, mean and variance depend on x too."""
    cdef Call call
    call.rows, call.channels, call.training = x.shape[0], x.shape[1], training
    if call.channels == 0:
        return
    with nogil:
        call.dy = &dy[0, 0] if call.rows > 0 else NULL
        call.x = &x[0, 0] if call.rows > 0 else NULL
        call.dx = &dx[0, 0] if call.rows > 0 else NULL
        call.weight = &weight[0]
        call.mean, call.inv_std = <float *> &mean[0], <float *> &inv_std[0]
        call.dweight, call.dbias = &dweight[0], &dbias[0]
        core.run(backward_slice, &call, slices(&call), useful_threads(&call, threads))
