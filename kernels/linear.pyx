"""The linear layer: three products, each (rows x lanes) = (rows x depth) (depth x lanes), by one routine.

Of a product's two operands the smaller is packed into panels, which the threads then share; the other is read where it
lies. The result's rows are cut into slices, and the depth into chunks whose sums are added up, so that the panels of a
chunk stay in the cache and rounding errors do not grow with the depth.
"""

from core cimport COLUMN_BLOCK, core_api, import_core, matrix

cdef const core_api *core = import_core()

cdef enum:
    SLICE_ROWS = 48    # of a result: a multiple of every variant's tile
    DEPTH_CHUNK = 512  # of the sums that are made in one go
    SMALL = 1 << 18    # multiply-adds that are not worth a second thread


ctypedef struct Product:
    long rows           # result[i, j] = sum over k of left[i, k] * right[k, j]
    long lanes
    long depth
    matrix left         # left(i, k)
    matrix right        # right(j, k): lanes are its rows
    float *panels       # right, packed: [panel][k][lane]
    float *result
    long result_row
    long result_lane
    long panel          # lanes of a panel


cdef void pack_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Product *call = <Product *> context
    cdef long first = slice * call.panel
    cdef matrix lanes = call.right
    lanes.data += first * lanes.row
    core.simd.pack(lanes, call.depth, min(call.panel, call.lanes - first), call.panels + first * call.depth)


cdef void product_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Product *call = <Product *> context
    cdef long first = slice * SLICE_ROWS, chunk = 0, lane
    cdef matrix left
    while chunk < call.depth:
        lane = 0
        while lane < call.lanes:
            left = call.left
            left.data += first * left.row + chunk * left.step
            core.simd.product(
                min(SLICE_ROWS, call.rows - first),
                min(DEPTH_CHUNK, call.depth - chunk),
                left,
                call.panels + lane * call.depth + chunk * call.panel,
                call.panel,
                min(call.panel, call.lanes - lane),
                call.result + first * call.result_row + lane * call.result_lane,
                call.result_row,
                call.result_lane,
                chunk > 0,
            )
            lane += call.panel
        chunk += DEPTH_CHUNK


cdef int product(Product call, int threads) except -1 nogil:
    """Compute call.result; rows and lanes change places where that packs the smaller operand."""
    cdef Product turned
    if call.rows < call.lanes:
        turned = call
        turned.rows, turned.lanes = call.lanes, call.rows
        turned.left, turned.right = call.right, call.left
        turned.result_row, turned.result_lane = call.result_lane, call.result_row
        call = turned
    call.panel = 2 * core.simd.lanes
    cdef long panels = (call.lanes + call.panel - 1) // call.panel
    call.panels = <float *> core.take(panels * call.panel * call.depth * sizeof(float))
    if call.panels == NULL:
        raise MemoryError("linear: no memory for the packed operand")
    if call.rows * call.lanes * call.depth < SMALL:
        threads = 1
    core.run(pack_slice, &call, panels, threads)
    core.run(product_slice, &call, (call.rows + SLICE_ROWS - 1) // SLICE_ROWS, threads)
    core.give(call.panels)
    return 0


def linear_forward(const float[:, ::1] x, const float[:, ::1] weight, const float[::1] bias, float[:, ::1] y, *,
                   int threads=1):
    """y = x W^T + b."""
    cdef long B = x.shape[0], inputs = x.shape[1], outputs = weight.shape[0]
    if B == 0 or outputs == 0:
        return
    if inputs == 0:
        y[:, :] = 0
    cdef Product call
    call.rows, call.lanes, call.depth = B, outputs, inputs
    call.result, call.result_row, call.result_lane = &y[0, 0], outputs, 1
    with nogil:
        if inputs > 0:
            call.left = matrix(&x[0, 0], inputs, 1)
            call.right = matrix(&weight[0, 0], inputs, 1)
            product(call, threads)
        if bias is not None:
            core.simd.add_bias(B, outputs, &bias[0], &y[0, 0])


ctypedef struct ColumnSums:
    long rows
    long columns
    const float *x
    float *sums


cdef void column_sums_slice(void *context, long slice, int hand) noexcept nogil:
    cdef ColumnSums *call = <ColumnSums *> context
    cdef long first = slice * COLUMN_BLOCK
    core.simd.column_sums(call.rows, call.columns, min(COLUMN_BLOCK, call.columns - first), call.x + first,
                          call.sums + first)


def linear_backward(const float[:, ::1] dy, const float[:, ::1] x, const float[:, ::1] weight, float[:, ::1] dx,
                    float[:, ::1] dweight, float[::1] dbias, *, int threads=1):
    """dx = dy W, dW = dy^T x, db = sum of dy over the batch."""
    cdef long B = x.shape[0], inputs = x.shape[1], outputs = weight.shape[0]
    cdef Product call
    cdef ColumnSums bias_call
    if B == 0 or outputs == 0:  # sums of nothing
        dweight[:, :] = 0
        if dbias is not None:
            dbias[:] = 0
        if dx is not None:
            dx[:, :] = 0
        return
    with nogil:
        if inputs > 0:
            call.rows, call.lanes, call.depth = outputs, inputs, B
            call.left = matrix(&dy[0, 0], 1, outputs)
            call.right = matrix(&x[0, 0], 1, inputs)
            call.result, call.result_row, call.result_lane = &dweight[0, 0], inputs, 1
            product(call, threads)
        if inputs > 0 and dx is not None:
            call.rows, call.lanes, call.depth = B, inputs, outputs
            call.left = matrix(&dy[0, 0], outputs, 1)
            call.right = matrix(&weight[0, 0], 1, inputs)
            call.result, call.result_row, call.result_lane = &dx[0, 0], inputs, 1
            product(call, threads)
        if dbias is not None:
            bias_call = ColumnSums(B, outputs, &dy[0, 0], &dbias[0])
            core.run(column_sums_slice, &bias_call, (outputs + COLUMN_BLOCK - 1) // COLUMN_BLOCK,
                     threads if B * outputs >= SMALL else 1)
