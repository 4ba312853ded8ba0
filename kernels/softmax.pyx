"""Softmax of the rows of a matrix, or its logarithm, and the gradient of that."""

from core cimport ceil_div, core_api, import_core

cdef const core_api *core = import_core()

cdef enum:
    SLICE = 1 << 13  # numbers from which a second thread pays


ctypedef struct Call:
    long rows
    long columns
    long slice_rows
    bint log
    const float *dy
    const float *x
    float *y


cdef void forward_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * call.slice_rows, n = call.columns, row
    for row in range(first, min(first + call.slice_rows, call.rows)):
        if call.log:
            core.simd.row_log_softmax(n, call.x + row * n, call.y + row * n)
        else:
            core.simd.row_softmax(n, call.x + row * n, 1, 0, call.y + row * n)


cdef void backward_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = slice * call.slice_rows, n = call.columns, row
    for row in range(first, min(first + call.slice_rows, call.rows)):
        if call.log:
            core.simd.row_log_softmax_backward(n, call.dy + row * n, call.x + row * n, call.y + row * n)
        else:
            core.simd.row_softmax_backward(n, call.dy + row * n, call.x + row * n, call.y + row * n)


def softmax_forward(const float[:, ::1] x, float[:, ::1] y, *, bint log=False, int threads=1):
    """y = exp(x) / sum exp(x) over each row, or its logarithm, with the maximum subtracted first."""
    cdef long rows = x.shape[0], columns = x.shape[1]
    if rows == 0 or columns == 0:
        return
    cdef Call call = Call(rows, columns, ceil_div(SLICE, columns), log, NULL, &x[0, 0], &y[0, 0])
    with nogil:
        core.run(forward_slice, &call, ceil_div(rows, call.slice_rows), threads)


def softmax_backward(const float[:, ::1] dy, const float[:, ::1] y, float[:, ::1] dx, *, bint log=False, int threads=1):
    """dx = y (dy - sum dy y) over each row; of the logarithm, dx = dy - exp(y) sum dy."""
    cdef long rows = y.shape[0], columns = y.shape[1]
    if rows == 0 or columns == 0:
        return
    cdef Call call = Call(rows, columns, ceil_div(SLICE, columns), log, &dy[0, 0], &y[0, 0], &dx[0, 0])
    with nogil:
        core.run(backward_slice, &call, ceil_div(rows, call.slice_rows), threads)
