"""The linear layer: three products, each (rows x lanes) = (rows x depth) (depth x lanes), by one routine.

Of a product's two operands one, mostly the smaller, is packed into panels that the threads share; the other is read in
place, or where it is read by columns, whose values lie in few sets of the cache, packed as each thread comes to it. The
result's rows are cut into slices, and the depth into chunks whose sums are added up, so that the panels of a
chunk stay in the cache and rounding errors do not grow with the depth.

A result that is small beside the depth (dx of the output layer sums over the vocabulary) is computed in parts of
the depth, which are summed in order: so the operands are read once, and there are many slices.

A few rows of x need no panels: y is computed by dot products, as fast as W can be read.

Products of tiles of bf16 (simd/tiles.h) have both operands in tiles, made before the product by all threads, a chunk of
the depth after the other. Their slices are blocks of rows and lanes whose operands fit in the second cache. They never
exchange rows and lanes; and a few rows are computed in float32, which takes less time than to make tiles of W.

An update takes the weight's gradient as it is computed: with tiles a block at a time, which is stored nowhere; else it
is in work memory.

Work memory: the panels, and for each thread a slice of the other operand; or with tiles both operands in 2 or 4 bytes a
number and a block of the result for each thread; and the parts of results that are computed in parts.
"""

from libc.string cimport memcpy

from core cimport (
    COLUMN_BLOCK, TILE, TILE_DEPTH, bf16, ceil_div, core_api, import_core, matrix, state_at, update_rule
)
from tiles cimport (
    PANEL, array_of, consecutive, planes_of, round_up, rows_of, split_left, split_right, values_of
)

from fastmlp._kernels.update import rule_of

cdef const core_api *core = import_core()

cdef enum:
    TILE_ROWS = 12           # a multiple of every variant's tile rows
    SLICE_ROWS = 48          # rows of a slice of a result at most
    SLICES = 32              # slices of a result at least, if it has the rows: all threads wait for the last one
    PANELS_KEPT = 1 << 18    # floats: each slice reads all panels, and if the second cache does not keep them,
    LARGE_SLICE_ROWS = 144   # slices have up to so many rows,
    LARGE_SLICES = 4         # and there are so many a thread
    DEPTH_CHUNK = 1024       # steps of the depth in one sum
    DEPTH_CHUNK_OF_COLUMNS = 256  # if the left operand is read by columns, unless it is packed and the result turned
    STEPS_PACKED = 64        # of the depth at a time
    PART_DEPTH = 512         # of a part at least,
    CHUNK_OF_TILES = 256     # of which two panels lie in the first cache
    PARTS = 16               # of the depth at most, if it has as many chunks
    PART_AT_MOST = 1 << 19   # floats of a result that is computed in parts
    FEW = 8                  # rows of x from which panels pay
    FEW_SLICE_ROWS = 768     # of W, for fewer rows: long sequential reads, which the CPU prefetches
    ADD_SLICE = 1 << 13      # floats of the result in a slice of adding up its parts
    SMALL = 1 << 18          # multiply-adds below which a second thread does not pay
    SLICES_OF_TILES = 16     # at least, where there is so much: larger ones read each operand less often
    BLOCK_AT_MOST = 256      # rows and lanes of a slice of tiles
    WHOLE_ROW = 2048         # lanes that a slice of PANEL rows may have instead, in the same memory,
    WHOLE_OPERAND = 1 << 19  # if the right operand has no more bf16: half of the second cache
    CACHE_LINE = 16          # floats


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
    bint packs_left     # a slice's rows, before they are multiplied
    long depth_chunk
    long slice_rows     # of a result
    long slice_lanes
    long panels         # how many
    float *packed       # right: [panel][k][lane]
    bf16 *left_tiles    # both operands: [chunk of the depth][panel][tile], of which there may be two planes
    bf16 *right_tiles
    long part_depth
    long parts          # how many; 1 where the depth is not cut
    float *sums         # (parts, rows * lanes), a part in the result's layout; or the result itself, in one part
    bint updates        # the result is dW, by which the weight is updated; it is in work memory,
    bint at_once        # or nowhere: a block of it goes into the update


ctypedef struct Call:
    Product products[2]
    int count           # of products
    int planes          # of bf16 in a number; 0: the products are of float32
    int threads
    long panel          # lanes of a panel
    float *blocks       # with tiles (threads, BLOCK_AT_MOST, block_row): a slice's result
    float *left_panels  # (threads, groups of rows, depth_chunk, panel) or NULL: a slice of a left operand, packed
    long B
    long outputs
    const float *bias   # (outputs,) or NULL, for a forward pass
    const float *dy     # (B, outputs)
    float *dbias        # (outputs,) or NULL, for a backward pass
    const update_rule *rule  # what to do with dW, or NULL
    float *weight       # (outputs, inputs), and what the rule keeps of it, or NULL
    float *weight_state
    float *weight_state2
    Product *with_sums  # the product that also sums dy's columns, which it reads in slices, or NULL


cdef void add_product(Call *call, Product p) noexcept nogil:
    """Decide how to compute a product; rows and lanes are exchanged if that packs the smaller operand, or the left one
    where it is less than a fourth: packing the right one only copies if it is read by columns, and sums stay as they
    lie.
    """
    cdef bint large
    cdef long slices
    if p.rows * (1 if p.right.step == 1 else 4) < p.lanes and not call.planes:
        p.rows, p.lanes = p.lanes, p.rows
        p.left, p.right = p.right, p.left
        p.result_row, p.result_lane = p.result_lane, p.result_row
        p.turned = True
    p.few = not call.planes and p.lanes < FEW and p.left.step == 1 and p.right.step == 1 and p.result_row == 1
    p.packs_left = not call.planes and not p.few and p.left.step != 1 and call.panel >= TILE_ROWS
    p.depth_chunk = DEPTH_CHUNK if p.left.step == 1 or p.packs_left and p.turned else DEPTH_CHUNK_OF_COLUMNS
    p.slice_rows = FEW_SLICE_ROWS if p.few else SLICE_ROWS
    p.slice_lanes = p.lanes
    p.panels = 0 if p.few else ceil_div(p.lanes, call.panel)
    if call.planes:
        p.panels = panels_of(p.left, p.rows, p.depth) + panels_of(p.right, p.lanes, p.depth)
    p.part_depth = p.depth
    if not p.few and p.depth >= PARTS * PART_DEPTH and p.rows * p.lanes <= PART_AT_MOST:
        p.part_depth = ceil_div(p.depth, PARTS * PART_DEPTH) * PART_DEPTH
    p.parts = ceil_div(p.depth, p.part_depth)
    p.at_once = p.updates and call.planes and p.parts == 1
    if call.planes:
        p.slice_rows = p.slice_lanes = BLOCK_AT_MOST
        if (p.at_once and p.lanes <= WHOLE_ROW and p.rows >= SLICES_OF_TILES * PANEL
                and call.planes * values_of(p.lanes, p.depth) <= WHOLE_OPERAND):
            p.slice_rows, p.slice_lanes = PANEL, p.lanes  # so an update goes through memory without a gap
        while p.slice_rows > PANEL and slices_of(&p) < SLICES_OF_TILES:
            p.slice_rows //= 2
            if slices_of(&p) < SLICES_OF_TILES:
                p.slice_lanes //= 2
    elif not p.few and p.parts == 1:
        # a number is one sum in the order of the depth, however the rows are cut: the threads may decide on that
        large = p.lanes * p.depth > PANELS_KEPT and not (p.packs_left and p.turned)
        slices = min(SLICES, LARGE_SLICES * call.threads) if large else SLICES
        p.slice_rows = min(LARGE_SLICE_ROWS if large else SLICE_ROWS,
                           ceil_div(ceil_div(p.rows, slices), TILE_ROWS) * TILE_ROWS)
    call.products[call.count] = p
    call.count += 1


cdef void pack_slice(void *context, long slice, int hand) noexcept nogil:
    """Pack a panel."""
    cdef Call *call = <Call *> context
    cdef Product *p = call.products
    while slice >= p.panels:
        slice -= p.panels
        p += 1
    if call.planes:
        split_panel(call, p, slice)
        return
    cdef long first = slice * call.panel
    cdef matrix lanes = p.right
    lanes.data += first * lanes.row
    core.simd.pack(lanes, p.depth, min(call.panel, p.lanes - first), NULL, p.packed + first * p.depth)


cdef long tiles_at(long lines, long depth, long first, long k) noexcept nogil:
    """Return where the tiles of an operand's panel begin in the chunk that begins at k."""
    return values_of(lines, k) + first * round_up(min(CHUNK_OF_TILES, depth - k), TILE_DEPTH)


cdef long panels_of(matrix lines, long count, long depth) noexcept nogil:
    """Return in how many pieces an operand's tiles are made; each reads whole rows of what is in memory."""
    return ceil_div(count, PANEL) if lines.step == 1 else ceil_div(depth, TILE_DEPTH)


cdef void split_panel(Call *call, Product *p, long panel) noexcept nogil:
    """Make some of a product's tiles."""
    cdef long of_lanes = panels_of(p.right, p.lanes, p.depth)
    if panel < of_lanes:
        split_operand(call, p.right, p.lanes, p.depth, panel, False, p.right_tiles)
    else:
        split_operand(call, p.left, p.rows, p.depth, panel - of_lanes, True, p.left_tiles)


cdef void split_operand(Call *call, matrix lines, long count, long depth, long panel, bint is_left,
                        bf16 *tiles) noexcept nogil:
    """Make the tiles of PANEL lines of an operand; of TILE_DEPTH steps of all of them if it is read by columns."""
    cdef long plane = values_of(count, depth), first = panel * PANEL, k = panel * TILE_DEPTH, chunk, some, tile_line
    if lines.step != 1:
        chunk = k // CHUNK_OF_TILES * CHUNK_OF_TILES
        tile_line = round_up(min(CHUNK_OF_TILES, depth - chunk), TILE_DEPTH) * TILE
        tiles += tiles_at(count, depth, 0, chunk) + (k - chunk) * TILE
        lines.data += k * lines.step
        some = min(TILE_DEPTH, depth - k)
        if is_left:
            core.tiles.split_turned(count, some, lines.step, lines.data, call.planes, plane, tile_line, tiles)
        else:
            core.tiles.split_pairs(some, count, lines.step, lines.data, NULL, call.planes, plane, tile_line, tiles)
        return
    lines.data += first * lines.row
    k = 0
    while k < depth:
        some = min(CHUNK_OF_TILES, depth - k)
        if is_left:
            split_left(core.tiles, lines, min(PANEL, count - first), some, call.planes, plane,
                       tiles + tiles_at(count, depth, first, k))
        else:
            split_right(core.tiles, lines, min(PANEL, count - first), some, call.planes, plane,
                        tiles + tiles_at(count, depth, first, k))
        lines.data += CHUNK_OF_TILES
        k += CHUNK_OF_TILES


cdef long slices_of(Product *p) noexcept nogil:
    return ceil_div(p.rows, p.slice_rows) * ceil_div(p.lanes, p.slice_lanes) * p.parts


cdef void update(Call *call, long at, long count, const float *dweight) noexcept nogil:
    """Update `count` weights from number `at` on."""
    core.simd.update(call.rule, count, dweight, state_at(call.weight_state, at), state_at(call.weight_state2, at),
                     call.weight + at)


cdef void update_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef Product *p = &call.products[call.count - 1]
    cdef long first = slice * ADD_SLICE
    update(call, first, min(ADD_SLICE, p.rows * p.lanes - first), p.result + first)


cdef void sum_columns(Call *call, long first, long columns) noexcept nogil:
    core.simd.column_sums(call.B, call.outputs, columns, call.dy + first, call.dbias + first)


cdef long group_floats(Call *call, long chunk) noexcept nogil:
    """Return the floats from a group of packed rows to the next; a power of two would use few sets of the cache."""
    return chunk * call.panel + 4 * CACHE_LINE


cdef long rows_of_group(Call *call, Product *p, long rows) noexcept nogil:
    """Return how many of a slice's rows are multiplied at a time."""
    return min(rows, call.panel // TILE_ROWS * TILE_ROWS) if p.packs_left else rows


cdef void pack_left(Call *call, matrix left, long rows, long of_group, long depth, long chunk,
                    float *packed) noexcept nogil:
    """Pack a slice's rows by groups, some steps of the depth of all of them after the other: a line of memory, which
    several groups read, is then still in the second cache, which has room for few lines that are a page apart."""
    cdef long k = 0, group
    while k < depth:
        group = 0
        while group < rows:
            core.simd.pack(matrix(left.data + group * left.row + k * left.step, left.row, left.step),
                           min(STEPS_PACKED, depth - k), min(of_group, rows - group), NULL,
                           packed + group // of_group * group_floats(call, chunk) + k * call.panel)
            group += of_group
        k += STEPS_PACKED


cdef void multiply(Call *call, Product *p, long slice, int hand) noexcept nogil:
    """Some rows of a part of a result."""
    cdef long row_slices = ceil_div(p.rows, p.slice_rows), part = slice // row_slices
    cdef long first = slice % row_slices * p.slice_rows, rows = min(p.slice_rows, p.rows - first), lane
    cdef long k = part * p.part_depth, end = min(k + p.part_depth, p.depth)
    cdef float *sums = p.sums + part * p.rows * p.lanes + first * p.result_row
    cdef float *packed = call.left_panels + hand * left_panel(call) if p.packs_left else NULL
    cdef long of_group = rows_of_group(call, p, rows), group, depth
    cdef matrix operand, left = p.left
    left.data += first * left.row + k * left.step
    if p.few:
        core.simd.dots(rows, p.lanes, p.depth, left.data, left.row, p.right.data, p.right.row, sums, p.result_lane)
    while not p.few and k < end:
        depth = min(p.depth_chunk, end - k)
        if p.packs_left:
            pack_left(call, left, rows, of_group, depth, p.depth_chunk, packed)
        lane = 0
        while lane < p.lanes:
            group = 0
            while group < rows:
                operand = matrix(left.data + group * left.row, left.row, left.step)
                if p.packs_left:
                    operand = matrix(packed + group // of_group * group_floats(call, p.depth_chunk), 1, call.panel)
                core.simd.product(
                    min(of_group, rows - group),
                    depth,
                    operand,
                    p.packed + lane * p.depth + k * call.panel,
                    call.panel,
                    min(call.panel, p.lanes - lane),
                    sums + group * p.result_row + lane * p.result_lane,
                    p.result_row,
                    p.result_lane,
                    k > part * p.part_depth,
                )
                group += of_group
            lane += call.panel
        left.data += p.depth_chunk * left.step
        k += p.depth_chunk
    if call.bias and part == 0 and p.turned:
        core.simd.add_bias(p.lanes, call.outputs, rows, call.bias + first, sums)
    elif call.bias and part == 0:
        core.simd.add_bias(rows, call.outputs, p.lanes, call.bias, sums)
    if p == call.with_sums and part == 0:
        group = 0
        while group < rows:
            sum_columns(call, first + group, min(COLUMN_BLOCK, rows - group))
            group += COLUMN_BLOCK


cdef void multiply_tiles(Call *call, Product *p, long slice, int hand) noexcept nogil:
    """A block of a part of a result."""
    cdef long lane_slices = ceil_div(p.lanes, p.slice_lanes)
    cdef long slices = lane_slices * ceil_div(p.rows, p.slice_rows)
    cdef long part = slice // slices, row = slice % slices // lane_slices * p.slice_rows
    cdef long lane = slice % lane_slices * p.slice_lanes, i
    cdef long rows = min(p.slice_rows, p.rows - row), lanes = min(p.slice_lanes, p.lanes - lane)
    cdef long k = part * p.part_depth, end = min(k + p.part_depth, p.depth), depth
    cdef float *sums = p.sums + part * p.rows * p.lanes + row * p.lanes + lane
    cdef float *block = call.blocks + hand * BLOCK_AT_MOST * (BLOCK_AT_MOST + CACHE_LINE)
    cdef long block_row = round_up(lanes, TILE) + CACHE_LINE  # a power of two would use few sets of the cache
    core.tiles.begin()
    while k < end:
        depth = min(CHUNK_OF_TILES, end - k)
        core.tiles.product(
            round_up(rows, PANEL) // TILE,
            ceil_div(lanes, TILE),
            depth,
            call.planes,
            consecutive(p.left_tiles + tiles_at(p.rows, p.depth, row, k), values_of(p.rows, p.depth), depth),
            consecutive(p.right_tiles + tiles_at(p.lanes, p.depth, lane, k), values_of(p.lanes, p.depth), depth),
            rows_of(block, block_row),
            k > part * p.part_depth,
            array_of(NULL, 0),
        )
        k += CHUNK_OF_TILES
    core.tiles.end()
    if p.at_once:
        for i in range(rows):
            update(call, (row + i) * p.lanes + lane, lanes, block + i * block_row)
        return
    for i in range(rows):
        memcpy(sums + i * p.lanes, block + i * block_row, lanes * sizeof(float))
    if call.bias and part == 0:
        core.simd.add_bias(rows, p.lanes, lanes, call.bias + lane, sums)


cdef void product_slice(void *context, long slice, int hand) noexcept nogil:
    """A slice of one of the products, or COLUMN_BLOCK of the bias's gradient."""
    cdef Call *call = <Call *> context
    cdef int i
    for i in range(call.count):
        if slice < slices_of(&call.products[i]):
            if call.planes:
                multiply_tiles(call, &call.products[i], slice, hand)
            else:
                multiply(call, &call.products[i], slice, hand)
            return
        slice -= slices_of(&call.products[i])
    sum_columns(call, slice * COLUMN_BLOCK, min(COLUMN_BLOCK, call.outputs - slice * COLUMN_BLOCK))


cdef void add_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Product *p = <Product *> context
    cdef long first = slice * ADD_SLICE, size = p.rows * p.lanes
    core.simd.add_slices(p.parts, size, min(ADD_SLICE, size - first), p.sums + first, NULL, 0,
                         p.result + first)


cdef float *reserve(float **at, long floats) noexcept nogil:
    """Return the next `floats` of the work memory, in whole cache lines; with *at = NULL only count them."""
    cdef float *here = at[0]
    at[0] += round_up(floats, CACHE_LINE)
    return here


cdef long left_panel(Call *call) noexcept nogil:
    """Return the floats of a slice's packed rows; large slices have the smaller chunk."""
    cdef long of_group = call.panel // TILE_ROWS * TILE_ROWS
    return max(ceil_div(LARGE_SLICE_ROWS, of_group) * group_floats(call, DEPTH_CHUNK_OF_COLUMNS),
               ceil_div(SLICE_ROWS, of_group) * group_floats(call, DEPTH_CHUNK))


cdef long lay_out(Call *call, float *memory, int threads) noexcept nogil:
    """Point the arrays of the call into `memory`; return the number of floats."""
    cdef float *at = memory
    cdef Product *p
    cdef bint packs_left = False
    cdef int i
    if call.planes:
        call.blocks = reserve(&at, <long> threads * BLOCK_AT_MOST * (BLOCK_AT_MOST + CACHE_LINE))
    for i in range(call.count):
        p = &call.products[i]
        if call.planes:
            p.left_tiles = <bf16 *> reserve(&at, call.planes * values_of(p.rows, p.depth) // 2)
            p.right_tiles = <bf16 *> reserve(&at, call.planes * values_of(p.lanes, p.depth) // 2)
        else:
            p.packed = reserve(&at, p.panels * call.panel * p.depth)
        if p.updates:
            p.result = reserve(&at, 0 if p.at_once else p.rows * p.lanes)
        p.sums = reserve(&at, p.parts * p.rows * p.lanes) if p.parts > 1 else p.result
        packs_left = packs_left or p.packs_left
    call.left_panels = reserve(&at, threads * left_panel(call)) if packs_left else NULL
    return at - memory


cdef int run(Call *call, int threads) except -1 nogil:
    """Compute the products, and the sums of dy if they are wanted."""
    cdef long panels = 0, slices = ceil_div(call.outputs, COLUMN_BLOCK) if call.dbias and not call.with_sums else 0
    cdef long work = call.B * call.outputs if call.dbias else 0, floats
    cdef Product *p
    cdef int i
    for i in range(call.count):
        p = &call.products[i]
        panels += p.panels
        slices += slices_of(p)
        work += p.rows * p.lanes * p.depth
    threads = 1 if work < SMALL else min(threads, max(panels, slices))  # more would only take memory
    floats = lay_out(call, NULL, threads)
    cdef float *memory = <float *> core.take(floats * sizeof(float)) if floats else NULL
    if floats and memory == NULL:
        raise MemoryError("linear: no memory for the packed operands")
    lay_out(call, memory, threads)
    core.run(pack_slice, call, panels, threads)
    core.run(product_slice, call, slices, threads)
    for i in range(call.count):
        p = &call.products[i]
        if p.parts > 1:
            core.run(add_slice, p, ceil_div(p.rows * p.lanes, ADD_SLICE), threads)
        if p.updates and not p.at_once:
            core.run(update_slice, call, ceil_div(p.rows * p.lanes, ADD_SLICE), threads)
    core.give(memory)
    return 0


cdef Call new_call(long B, long outputs, int planes, int threads) noexcept nogil:
    cdef Call call
    call.count, call.threads = 0, min(threads, SLICES)
    call.planes = 0 if B < FEW else planes
    call.panel = PANEL if call.planes else 2 * core.simd.lanes
    call.B, call.outputs = B, outputs
    call.bias, call.dy, call.dbias, call.with_sums, call.rule = NULL, NULL, NULL, NULL, NULL
    return call


cdef Product new_product(long rows, long lanes, long depth, matrix left, matrix right, float *result) noexcept nogil:
    """result, of rows one after another, = left right."""
    cdef Product p
    p.rows, p.lanes, p.depth = rows, lanes, depth
    p.left, p.right = left, right
    p.result, p.result_row, p.result_lane, p.turned, p.updates = result, lanes, 1, False, result == NULL
    return p


def linear_forward(const float[:, ::1] x, const float[:, ::1] weight, const float[::1] bias, float[:, ::1] y, *,
                   str fp32_precision="auto", int threads=1):
    """y = x W^T + b."""
    cdef long B = x.shape[0], inputs = x.shape[1], outputs = weight.shape[0]
    cdef Call call = new_call(B, outputs, planes_of(core.tiles, fp32_precision), threads)
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


cdef bint backward(Call *call, const float[:, ::1] dy, const float[:, ::1] x, const float[:, ::1] weight,
                   float[:, ::1] dx, float *dweight, float[::1] dbias, int threads) except -1:
    """dx = dy W, db = sum of dy over the batch, and dW = dy^T x, which is stored or, where that is NULL, updates W."""
    cdef long B = x.shape[0], inputs = x.shape[1], outputs = weight.shape[0]
    call.dy = &dy[0, 0]
    if dbias is not None:
        call.dbias = &dbias[0]
    if inputs > 0 and dx is not None:
        add_product(call, new_product(B, inputs, outputs, matrix(&dy[0, 0], outputs, 1),
                                      matrix(&weight[0, 0], 1, inputs), &dx[0, 0]))
    if inputs > 0:
        add_product(call, new_product(outputs, inputs, B, matrix(&dy[0, 0], 1, outputs), matrix(&x[0, 0], 1, inputs),
                                      dweight))
        if call.dbias and not call.planes and not call.products[call.count - 1].turned:
            call.with_sums = &call.products[call.count - 1]
    with nogil:
        run(call, threads)
    return True


def linear_backward(const float[:, ::1] dy, const float[:, ::1] x, const float[:, ::1] weight, float[:, ::1] dx,
                    float[:, ::1] dweight, float[::1] dbias, *, str fp32_precision="auto", int threads=1):
    """Compute the gradients of the input, the weight and the bias."""
    cdef Call call = new_call(x.shape[0], weight.shape[0], planes_of(core.tiles, fp32_precision), threads)
    if x.shape[0] == 0 or weight.shape[0] == 0:  # sums of nothing
        dweight[:, :] = 0
        nothing_came(dx, dbias)
        return
    backward(&call, dy, x, weight, dx, &dweight[0, 0] if x.shape[1] else NULL, dbias, threads)


cdef void nothing_came(float[:, ::1] dx, float[::1] dbias):
    if dbias is not None:
        dbias[:] = 0
    if dx is not None:
        dx[:, :] = 0


def linear_update(const float[:, ::1] dy, const float[:, ::1] x, float[:, ::1] weight, float[:, ::1] weight_state,
                  float[:, ::1] weight_state2, float[:, ::1] dx, float[::1] dbias, *, str rule,
                  str fp32_precision="auto", int threads=1, **options):
    """Compute the gradients of input and bias, and update the weight; with tiles, by blocks of dW in the cache."""
    cdef Call call = new_call(x.shape[0], weight.shape[0], planes_of(core.tiles, fp32_precision), threads)
    make_rule, states = rule_of("linear_update", rule, weight_state, weight_state2)
    cdef update_rule the_rule = make_rule(**options)
    call.rule, call.weight, call.weight_state, call.weight_state2 = &the_rule, &weight[0, 0], NULL, NULL
    if states > 0:
        call.weight_state = &weight_state[0, 0]
    if states > 1:
        call.weight_state2 = &weight_state2[0, 0]
    if x.shape[0] == 0 or weight.shape[0] == 0:
        nothing_came(dx, dbias)
        if weight.shape[0] and weight.shape[1]:  # a gradient of zeros
            core.simd.update(call.rule, weight.shape[0] * weight.shape[1], NULL, call.weight_state, call.weight_state2,
                             call.weight)
        return
    backward(&call, dy, x, weight, dx, NULL, dbias, threads)
