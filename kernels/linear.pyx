"""The linear layer: three products, each (rows x lanes) = (rows x depth) (depth x lanes), by one routine.

Of a product's two operands the smaller is packed into panels, which the threads then share; the other is read in
place. The result's rows are cut into slices, and the depth into chunks whose sums are added up, so that the panels of a
chunk stay in the cache and rounding errors do not grow with the depth.

A result that is small beside the depth (dx of the output layer sums over the vocabulary) is computed in parts of
the depth, which are summed in order: so the operands are read once, and there are many slices.

A few rows of x need no panels: y is computed by dot products, as fast as W can be read.
"""

from core cimport COLUMN_BLOCK, ceil_div, core_api, import_core, matrix

cdef const core_api *core = import_core()

cdef enum:
    TILE_ROWS = 12           # a multiple of every variant's tile rows
    SLICE_ROWS = 48          # of a result at most; fewer if there would be less than
    SLICES = 32              # slices: all threads wait for the last one
    DEPTH_CHUNK = 512        # of one sum
    PARTS = 16               # of the depth at most, if it has as many chunks
    PART_AT_MOST = 1 << 19   # floats of a result that is computed in parts
    FEW = 8                  # rows of x from which panels pay
    FEW_SLICE_ROWS = 768     # of W, for fewer rows: long sequential reads, which the CPU prefetches
    ADD_SLICE = 1 << 13      # floats of the result in a slice of adding up its parts
    SMALL = 1 << 18          # multiply-adds below which a second thread does not pay


ctypedef struct Product:
    long rows           # result[i, j] = sum over k of left[i, k] * right[k, j]
    long lanes
    long depth
    matrix left         # left(i, k)
    matrix right        # right(j, k): lanes are its rows
    float *result
    long result_row
    long result_lane
    bint turned         # rows and lanes are exchanged
    bint few            # dot products
    long slice_rows     # of a result
    long panels         # how many
    float *packed       # right: [panel][k][lane]
    long part_depth
    long parts          # how many; 1 where the depth is not cut
    float *sums         # (parts, rows * lanes), a part in the result's layout; or the result itself, in one part


ctypedef struct Call:
    Product products[2]
    int count           # of products
    long panel          # lanes of a panel
    long B
    long outputs
    const float *bias   # (outputs,) or NULL, for a forward pass
    const float *dy     # (B, outputs)
    float *dbias        # (outputs,) or NULL, for a backward pass
    Product *with_sums  # the product that also sums dy's columns, which it reads in slices, or NULL


cdef void add_product(Call *call, Product p) noexcept nogil:
    """Decide how to compute a product; rows and lanes are exchanged if that packs the smaller operand."""
    if p.rows < p.lanes:
        p.rows, p.lanes = p.lanes, p.rows
        p.left, p.right = p.right, p.left
        p.result_row, p.result_lane = p.result_lane, p.result_row
        p.turned = True
    p.few = p.lanes < FEW and p.left.step == 1 and p.right.step == 1 and p.result_row == 1
    p.slice_rows = FEW_SLICE_ROWS if p.few else SLICE_ROWS
    p.panels = 0 if p.few else ceil_div(p.lanes, call.panel)
    p.part_depth = p.depth
    if not p.few and p.depth >= PARTS * DEPTH_CHUNK and p.rows * p.lanes <= PART_AT_MOST:
        p.part_depth = ceil_div(p.depth, PARTS * DEPTH_CHUNK) * DEPTH_CHUNK
    p.parts = ceil_div(p.depth, p.part_depth)
    if not p.few and p.parts == 1:
        p.slice_rows = min(SLICE_ROWS, ceil_div(ceil_div(p.rows, SLICES), TILE_ROWS) * TILE_ROWS)
    call.products[call.count] = p
    call.count += 1


cdef void pack_slice(void *context, long slice, int hand) noexcept nogil:
    """Pack a panel."""
    cdef Call *call = <Call *> context
    cdef Product *p = call.products
    while slice >= p.panels:
        slice -= p.panels
        p += 1
    cdef long first = slice * call.panel
    cdef matrix lanes = p.right
    lanes.data += first * lanes.row
    core.simd.pack(lanes, p.depth, min(call.panel, p.lanes - first), p.packed + first * p.depth)


cdef long slices_of(Product *p) noexcept nogil:
    return ceil_div(p.rows, p.slice_rows) * p.parts


cdef void sum_columns(Call *call, long first, long columns) noexcept nogil:
    core.simd.column_sums(call.B, call.outputs, columns, call.dy + first, call.dbias + first)


cdef void multiply(Call *call, Product *p, long slice) noexcept nogil:
    """Some rows of a part of a result."""
    cdef long row_slices = ceil_div(p.rows, p.slice_rows), part = slice // row_slices
    cdef long first = slice % row_slices * p.slice_rows, rows = min(p.slice_rows, p.rows - first), lane
    cdef long k = part * p.part_depth, end = min(k + p.part_depth, p.depth)
    cdef float *sums = p.sums + part * p.rows * p.lanes + first * p.result_row
    cdef matrix left = p.left
    left.data += first * left.row + k * left.step
    if p.few:
        core.simd.dots(rows, p.lanes, p.depth, left.data, left.row, p.right.data, p.right.row, sums, p.result_lane)
    while not p.few and k < end:
        lane = 0
        while lane < p.lanes:
            core.simd.product(
                rows,
                min(DEPTH_CHUNK, end - k),
                left,
                p.packed + lane * p.depth + k * call.panel,
                call.panel,
                min(call.panel, p.lanes - lane),
                sums + lane * p.result_lane,
                p.result_row,
                p.result_lane,
                k > part * p.part_depth,
            )
            lane += call.panel
        left.data += DEPTH_CHUNK * left.step
        k += DEPTH_CHUNK
    if call.bias and part == 0 and p.turned:
        core.simd.add_bias(p.lanes, call.outputs, rows, call.bias + first, sums)
    elif call.bias and part == 0:
        core.simd.add_bias(rows, call.outputs, p.lanes, call.bias, sums)
    if p == call.with_sums and part == 0:
        sum_columns(call, first, rows)


cdef void product_slice(void *context, long slice, int hand) noexcept nogil:
    """A slice of one of the products, or COLUMN_BLOCK of the bias's gradient."""
    cdef Call *call = <Call *> context
    cdef int i
    for i in range(call.count):
        if slice < slices_of(&call.products[i]):
            multiply(call, &call.products[i], slice)
            return
        slice -= slices_of(&call.products[i])
    sum_columns(call, slice * COLUMN_BLOCK, min(COLUMN_BLOCK, call.outputs - slice * COLUMN_BLOCK))


cdef void add_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Product *p = <Product *> context
    cdef long first = slice * ADD_SLICE, size = p.rows * p.lanes
    core.simd.add_slices(p.parts, size, min(ADD_SLICE, size - first), p.sums + first, p.result + first)


cdef int run(Call *call, int threads) except -1 nogil:
    """Compute the products, and the sums of dy if they are wanted."""
    cdef long panels = 0, slices = ceil_div(call.outputs, COLUMN_BLOCK) if call.dbias and not call.with_sums else 0
    cdef long work = call.B * call.outputs if call.dbias else 0, floats = 0
    cdef Product *p
    cdef float *memory
    cdef int i
    for i in range(call.count):
        p = &call.products[i]
        panels += p.panels
        slices += slices_of(p)
        work += p.rows * p.lanes * p.depth
        floats += p.panels * call.panel * p.depth + (p.parts * p.rows * p.lanes if p.parts > 1 else 0)
    if work < SMALL:
        threads = 1
    memory = <float *> core.take(floats * sizeof(float)) if floats else NULL
    if floats and memory == NULL:
        raise MemoryError("linear: no memory for the packed operands")
    cdef float *free = memory
    for i in range(call.count):
        p = &call.products[i]
        p.packed = free
        free += p.panels * call.panel * p.depth
        p.sums = free if p.parts > 1 else p.result
        free += p.parts * p.rows * p.lanes if p.parts > 1 else 0
    core.run(pack_slice, call, panels, threads)
    core.run(product_slice, call, slices, threads)
    for i in range(call.count):
        p = &call.products[i]
        if p.parts > 1:
            core.run(add_slice, p, ceil_div(p.rows * p.lanes, ADD_SLICE), threads)
    core.give(memory)
    return 0


cdef Call new_call(long B, long outputs) noexcept nogil:
    cdef Call call
    call.count = 0
    call.panel = 2 * core.simd.lanes
    call.B, call.outputs = B, outputs
    call.bias, call.dy, call.dbias, call.with_sums = NULL, NULL, NULL, NULL
    return call


cdef Product new_product(long rows, long lanes, long depth, matrix left, matrix right, float *result) noexcept nogil:
    """result, of rows one after another, = left right."""
    cdef Product p
    p.rows, p.lanes, p.depth = rows, lanes, depth
    p.left, p.right = left, right
    p.result, p.result_row, p.result_lane, p.turned = result, lanes, 1, False
    return p


def linear_forward(const float[:, ::1] x, const float[:, ::1] weight, const float[::1] bias, float[:, ::1] y, *,
                   int threads=1):
    """y = x W^T + b."""
    cdef long B = x.shape[0], inputs = x.shape[1], outputs = weight.shape[0]
    cdef Call call = new_call(B, outputs)
    if B == 0 or outputs == 0:
        return
    if inputs == 0:  # sums of nothing
        y[:, :] = 0
        if bias is not None:
            core.simd.add_bias(B, outputs, outputs, &bias[0], &y[0, 0])
        return
    if bias is not None:
        call.bias = &bias[0]
    add_product(&call, new_product(B, outputs, inputs, matrix(&x[0, 0], inputs, 1), matrix(&weight[0, 0], inputs, 1),
                                   &y[0, 0]))
    with nogil:
        run(&call, threads)


def linear_backward(const float[:, ::1] dy, const float[:, ::1] x, const float[:, ::1] weight, float[:, ::1] dx,
                    float[:, ::1] dweight, float[::1] dbias, *, int threads=1):
    """dx = dy W, dW = dy^T x, db = sum of dy over the batch."""
    cdef long B = x.shape[0], inputs = x.shape[1], outputs = weight.shape[0]
    cdef Call call = new_call(B, outputs)
    if B == 0 or outputs == 0:  # sums of nothing
        dweight[:, :] = 0
        if dbias is not None:
            dbias[:] = 0
        if dx is not None:
            dx[:, :] = 0
        return
    call.dy = &dy[0, 0]
    if dbias is not None:
        call.dbias = &dbias[0]
    if inputs > 0 and dx is not None:
        add_product(&call, new_product(B, inputs, outputs, matrix(&dy[0, 0], outputs, 1),
                                       matrix(&weight[0, 0], 1, inputs), &dx[0, 0]))
    if inputs > 0:
        add_product(&call, new_product(outputs, inputs, B, matrix(&dy[0, 0], 1, outputs),
                                       matrix(&x[0, 0], 1, inputs), &dweight[0, 0]))
        if call.dbias and not call.products[call.count - 1].turned:
            call.with_sums = &call.products[call.count - 1]
    with nogil:
        run(&call, threads)
