"""Softmax and cross entropy over given logits, a row of the batch at a time."""

from libc.math cimport log
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from core cimport core_api, ids_t, import_core, row_sums, slice_task

cdef const core_api *core = import_core()

cdef enum:
    SMALL = 1 << 14  # logits below which a second thread does not pay


ctypedef struct Call:
    long words
    double label_smoothing
    const float *logits
    const float *row_scale
    float *highest        # in or out, as log_sum
    float *log_sum
    float *target_logits  # losses, at first
    float *dlogits


cdef void keep_loss(Call *call, long row, row_sums sums) noexcept nogil:
    """Write the statistics, and the loss over the target's logit."""
    cdef double loss, log_sum = log(sums.exponentials)
    call.highest[row] = sums.highest
    call.log_sum[row] = <float> log_sum
    loss = (1 - call.label_smoothing) * (log_sum + (<double> sums.highest - call.target_logits[row]))
    if call.label_smoothing:
        loss += call.label_smoothing * (log_sum - sums.differences / call.words)
    call.target_logits[row] = <float> loss


cdef float shift(Call *call, long row) noexcept nogil:
    """Return what smoothing subtracts from each logit's gradient in the row."""
    return <float> (call.row_scale[row] * call.label_smoothing / call.words)


cdef bint ignored(Call *call, long row) noexcept nogil:
    """Whether a row is ignored; if so, write 0 to its outputs without reading its logits."""
    if call.row_scale[row] != 0:
        return False
    if call.target_logits:
        call.highest[row] = call.log_sum[row] = call.target_logits[row] = 0
    if call.dlogits:
        memset(call.dlogits + row * call.words, 0, call.words * sizeof(float))
    return True


cdef void forward_slice(void *context, long row, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    if not ignored(call, row):
        keep_loss(call, row, core.simd.row_statistics(call.words, call.logits + row * call.words))


cdef void backward_slice(void *context, long row, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    if not ignored(call, row):
        core.simd.row_dlogits(call.words, call.logits + row * call.words, call.highest[row], call.log_sum[row],
                              call.row_scale[row], shift(call, row), call.dlogits + row * call.words)


cdef void both_slice(void *context, long row, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    if not ignored(call, row):
        keep_loss(call, row, core.simd.row_softmax(call.words, call.logits + row * call.words, call.row_scale[row],
                                                   shift(call, row), call.dlogits + row * call.words))


cdef void pick_targets(Call *call, long rows, const ids_t[::1] targets) noexcept nogil:
    """Write the target's logit of each row that counts to the place of its loss."""
    cdef long row
    for row in range(rows):
        if call.row_scale[row] != 0:
            call.target_logits[row] = call.logits[row * call.words + targets[row]]


cdef void take_truth(Call *call, long rows, const ids_t[::1] targets) noexcept nogil:
    """Subtract the truth from the gradient at the target of each row that counts."""
    cdef long row
    for row in range(rows):
        if call.row_scale[row] != 0:
            call.dlogits[row * call.words + targets[row]] -= <float> (
                (1 - call.label_smoothing) * call.row_scale[row])


cdef void run_rows(slice_task task, Call *call, long rows, const ids_t[::1] targets, int threads) noexcept:
    with nogil:
        if call.target_logits:
            pick_targets(call, rows, targets)
        core.run(task, call, rows, threads if rows * call.words >= SMALL else 1)
        if call.dlogits:
            take_truth(call, rows, targets)


cdef int run(slice_task task, const float[:, ::1] logits, targets, const float[::1] row_scale,
             const float[::1] highest, const float[::1] log_sum, float[::1] losses, float[:, ::1] dlogits,
             double label_smoothing, int threads) except -1:
    """Run a task over the rows; outputs that it does not compute are None. With losses it writes the statistics."""
    cdef Call call
    cdef long rows = logits.shape[0]
    if rows == 0:
        return 0
    call.words, call.label_smoothing = logits.shape[1], label_smoothing
    call.logits, call.row_scale = &logits[0, 0], &row_scale[0]
    call.highest, call.log_sum = <float *> &highest[0], <float *> &log_sum[0]
    call.target_logits = &losses[0] if losses is not None else NULL
    call.dlogits = &dlogits[0, 0] if dlogits is not None else NULL
    if targets.itemsize == sizeof(int32_t):  # chosen here: Cython's own choice by type takes a microsecond
        run_rows[int32_t](task, &call, rows, targets, threads)
    else:
        run_rows[int64_t](task, &call, rows, targets, threads)
    return 0


def cross_entropy_forward(const float[:, ::1] logits, targets, const float[::1] row_scale, float[::1] highest,
                          float[::1] log_sum, float[::1] losses, *, double label_smoothing=0.0, int threads=1):
    """losses = highest + log_sum - logits[target], with the maximum subtracted before the exponentials."""
    run(forward_slice, logits, targets, row_scale, highest, log_sum, losses, None, label_smoothing, threads)


def cross_entropy_backward(const float[:, ::1] logits, targets, const float[::1] row_scale, const float[::1] highest,
                           const float[::1] log_sum, float[:, ::1] dlogits, *, double label_smoothing=0.0,
                           int threads=1):
    """dlogits = (softmax(logits) - truth) * row_scale."""
    run(backward_slice, logits, targets, row_scale, highest, log_sum, None, dlogits, label_smoothing, threads)


def cross_entropy(const float[:, ::1] logits, targets, const float[::1] row_scale, float[::1] highest,
                  float[::1] log_sum, float[::1] losses, float[:, ::1] dlogits, *, double label_smoothing=0.0,
                  int threads=1):
    """Compute losses and gradient together: the exponentials are computed once."""
    run(both_slice, logits, targets, row_scale, highest, log_sum, losses, dlogits, label_smoothing, threads)
