"""Softmax and cross entropy over given logits, a row of the batch at a time."""

from core cimport core_api, ids_t, import_core

cdef const core_api *core = import_core()

cdef enum:
    SMALL = 1 << 14  # logits that are not worth a second thread


ctypedef struct Call:
    long words
    double label_smoothing
    const float *logits
    const float *row_scale
    const float *lse_kept
    float *lse
    float *target_logits  # losses, at first
    float *dlogits


cdef void forward_slice(void *context, long row, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef double logit_sum, loss
    cdef float lse = core.simd.row_lse(call.words, call.logits + row * call.words, &logit_sum)
    call.lse[row] = lse
    if call.row_scale[row] == 0:
        call.target_logits[row] = 0
        return
    loss = (1 - call.label_smoothing) * (<double> lse - call.target_logits[row])
    if call.label_smoothing:
        loss += call.label_smoothing * (lse - logit_sum / call.words)
    call.target_logits[row] = <float> loss


cdef void backward_slice(void *context, long row, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef float scale = call.row_scale[row]
    core.simd.row_dlogits(call.words, call.logits + row * call.words, call.lse_kept[row], scale,
                          <float> (scale * call.label_smoothing / call.words), call.dlogits + row * call.words)


def cross_entropy_forward(const float[:, ::1] logits, const ids_t[::1] targets, const float[::1] row_scale,
                          float[::1] lse, float[::1] losses, *, double label_smoothing=0.0, int threads=1):
    """losses = lse - logits[target], with the maximum taken out before the exponentials."""
    cdef long B = logits.shape[0], V = logits.shape[1], row
    cdef Call call
    if B == 0:
        return
    with nogil:
        for row in range(B):
            losses[row] = logits[row, targets[row]] if row_scale[row] != 0 else 0
        call.words, call.label_smoothing = V, label_smoothing
        call.logits, call.row_scale = &logits[0, 0], &row_scale[0]
        call.lse, call.target_logits = &lse[0], &losses[0]
        core.run(forward_slice, &call, B, threads if B * V >= SMALL else 1)


def cross_entropy_backward(const float[:, ::1] logits, const ids_t[::1] targets, const float[::1] row_scale,
                           const float[::1] lse, float[:, ::1] dlogits, *, double label_smoothing=0.0, int threads=1):
    """dlogits = (softmax(logits) - truth) * row_scale."""
    cdef long B = logits.shape[0], V = logits.shape[1], row
    cdef Call call
    if B == 0:
        return
    with nogil:
        call.words, call.label_smoothing = V, label_smoothing
        call.logits, call.row_scale, call.lse_kept = &logits[0, 0], &row_scale[0], &lse[0]
        call.dlogits = &dlogits[0, 0]
        core.run(backward_slice, &call, B, threads if B * V >= SMALL else 1)
        for row in range(B):
            if row_scale[row] != 0:
                dlogits[row, targets[row]] -= <float> ((1 - label_smoothing) * row_scale[row])
