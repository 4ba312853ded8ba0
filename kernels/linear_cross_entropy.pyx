"""The last layer, softmax and cross entropy in one: 98 % of a training step.

The vocabulary is cut into slices, a function of its size alone, each taken by the next free thread; a slice is
processed in blocks of words, whose weights stay in the cache while they are used. In a block the logits are
transposed, (words, lanes): the rows of the batch lie side by side, padded to whole vectors, so that the weights are
read in place and every sum over words is vertical.

    sweep one, a slice at a time                               results of a slice
        logits = W h^T + b                                         highest  (lanes)  of its logits
        e = exp(logits - base)  kept: (V, lanes)                   sum      (lanes)  of exp(logit - highest)
                                                                   the logits of the targets in it
    the slices are combined: highest, log_sum, losses
    sweep two, a slice at a time
        p = (e * exp(base - highest - log_sum) - truth) * row_scale
        dh^T += W^T p                                              dh^T  (H, lanes), added up in slice order
        db = sum of p
        dW = p h                                                   or, at once, the update of W by it

A block's exponentials are relative to its base, in float32 the highest logit of the slice so far. The rows are ordered
by the block of their target, so that a block need not look for its own.

The products are computed in float32 ("ieee"), or from tiles of bf16 (simd/tiles.h) with float32 sums: with each number
rounded once ("bf16"), or as the sum of two bf16 ("bf16x3"). Both go through the sweeps above. With tiles the weights,
h, e and p have P planes, 1 or 2, and everything between the products is float32; the target's p, where 1 is subtracted,
is taken from its float32 logit. Tiles are made a panel of lanes at a time, by two walks over the panel of a block that
leave each number in the first cache: one from logits to e, relative to the base of the block before unless a logit is
far above it; and one from e to both kinds of tiles of p, which the two products of sweep two take. In sweep one a block
is cut into strips, whose weights stay in the first cache with a panel.

Without an update, a long batch goes through both sweeps in pieces (rows_at_once): then the exponentials can be stored
between the sweeps for any length of batch, and a block stays in the caches. dW and db are summed over the pieces.
A gradient that is not wanted is not computed. All rows count: the check of the arrays (fastmlp/ops/contract.py) leaves
out ignored rows.

A function `between` the sweeps may put other words' statistics to those of the words here: for a vocabulary of which W
is a part. A target of -1 is in no block, and its logit is that function's to say.

An update leaves out the rows of W that are held and hands their gradients back, for a caller who has others to add; so
it does with db. A pointer into their ascending ids goes along with the words of a block.

Work memory, in floats, beside the arguments; B are the rows that go at once, L is B padded to whole vectors, and from
128 on to an odd number of cache lines, S the number of slices (at most 32), n the threads:

    forward    (H + 3 S + n BLOCK + 9) L                       nothing of the size of B V
    backward   the same + H B + (S H + n) L + n BLOCK H        dh's parts, and a block's gradient
    both       the same + (V + V / BLOCK) L for the exponentials, where they take at most KEEP_AT_MOST; beyond it
               nothing of the size of B V either: the logits are made again, exactly, in sweep two
    update     as both, with all rows at once: there is no gradient of the size of W; 2 U more for int32 ids of the
               U rows that are held

and with tiles, where L is B and H is padded to 32:

    forward    (P H / 2 + 3 S + n + 11) L + n BLOCK (P H / 2 + 32)
    backward   the same + (P H / 2 + S H + 3 n P BLOCK / 2 + n) L + n (32 H + 17 BLOCK)
    both       the same + (P V / 2 + V / STRIP) L, as above, less n P BLOCK / 2 L
"""

from libc.float cimport FLT_MAX
from libc.math cimport INFINITY, NAN, exp, isfinite, log
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memcpy, memset

import numpy

from core cimport (
    TILE, TILE_DEPTH, TILE_VALUES, bf16, ceil_div, core_api, ids_t, import_core, matrix, operand, result, state_at,
    upcoming, update_rule
)
from tiles cimport (
    PANEL, array_of, consecutive, nothing, planes_of, round_up, rows_of, split_left, split_right, values_of
)

from fastmlp._kernels.update import rule_of

cdef const core_api *core = import_core()

cdef enum:
    BLOCK = 120                # words: a multiple of every variant's tile rows
    BLOCK_OF_TILES = 128       # words: a multiple of 32
    STRIP_OF_TILES = 1 << 13   # bf16 of a strip's weights at most: a third of the first cache
    CACHE_LINE = 16            # floats
    SLICES_AT_MOST = 32
    STREAM_FROM = 1 << 21      # floats of dW: more than the caches hold until dW is read
    DEPTH_CHUNK = 512          # rows of the batch in one sum of dW, so that its error does not grow with the rows
    KEEP_AT_MOST = 1 << 28     # bytes of exponentials stored between the sweeps
    ROWS_AT_LEAST = 128        # of a piece of the batch, if W is not updated,
    ROWS_AT_MOST = 256         # and with tiles, which take less time for a row than for reading W:
    ROWS_OF_TILES_AT_MOST = 512
    SLICE_COLUMNS = 16         # columns of dh in a slice of the sum of its parts


ctypedef struct Call:
    long B
    long H
    long V
    int planes              # of bf16 in a number; 0: the products are of float32
    long lanes              # B padded to whole vectors, or to whole panels of tiles
    long stride             # floats between the words of a block of logits
    long panel              # lanes of a panel
    long block              # words of a block
    long blocks
    long strip              # words of a strip of a block, whose weights stay in the first cache in sweep one
    long strips             # of all blocks
    long slices
    bint keep               # sweep two uses the stored exponentials of sweep one
    bint gradients          # there is a sweep two
    bint add                # add to the gradients of W and b: those of the pieces before
    double label_smoothing
    const float *h          # (B, H)
    float *weight           # (V, H), written where `rule` is set
    const float *bias       # (V,) or NULL
    float *dh               # (B, H) or NULL
    float *dweight          # (V, H) or NULL; NULL where the gradient goes into an update
    float *dbias            # (V,) or NULL
    const update_rule *rule  # NULL, or what to do with the gradient of W at once; the state that it keeps, or NULL:
    float *weight_state     # (V, H)
    float *weight_state2    # (V, H)
    long held_rows          # rows of W that are not updated
    const int64_t *held     # (held_rows,) which ones, ascending
    float *dheld            # (held_rows, H) where their gradients go
    void *between           # NULL, or the Python function that is called between the sweeps
    # work memory; (stride) arrays are one float a lane, 0 in the padding, but for row_highest
    int64_t *targets        # (B,) ids
    float *row_scale        # (stride) and four more of its kind in one piece
    float *smoothing_shift  # (stride) row_scale * label_smoothing / V
    float *row_highest      # (stride)
    float *row_log_sum      # (stride)
    float *target_logits    # (stride) of the targets; then, for tiles, their probabilities
    double *row_sum         # (stride)
    float *highest          # (slices, stride)
    float *sum              # (slices, stride)
    float *differences      # (slices, stride) sums of logit - highest
    float *strip_base       # (strips, stride) what a strip's exponentials are relative to
    long *rows_by_target    # (B,) rows in the order of their targets' strips
    long *targets_before    # (strips + 1) how many of them have targets before a strip
    float *h_lanes          # (panels of lanes, H, panel): h^T
    float *h_columns        # (panels of columns, B, panel): h
    float *exponentials     # (V, stride) if they are stored, else (threads, block, stride)
    float *dh_parts         # (slices, H, stride), with tiles dh^T in tiles of 16 x 16, (slices, stride, columns)
    float *scale            # (threads, stride)
    bint stream             # dW is large: its blocks are made in the cache and copied past it
    float *block_gradient   # (threads, block, H) where a block's dW is made for an update or the copy
    # and for products of tiles, in planes; the first size is that of a plane
    long columns            # H padded to whole panels
    long h_plane
    long weight_plane
    long block_plane        # (exponentials and p of a block: its panels of lanes, each (block, PANEL))
    long kept_plane         # of the exponentials
    bf16 *h_pairs           # (stride x H) h^T, for the logits
    bf16 *h_column_pairs    # (H x stride) h, for dW
    bf16 *weight_tiles      # (block x H) a thread, then (H x block)
    bf16 *exponential_tiles  # (blocks x block x stride) if they are stored, else (block x stride) a thread
    bf16 *p_tiles           # (block x stride) a thread
    bf16 *p_pairs           # (block x stride) a thread
    float *panel_logits     # (threads, strip, PANEL)
    float *base             # (threads, stride) what a slice's exponentials are relative to


cdef bint makes_dweight(const Call *call) noexcept nogil:
    return call.dweight != NULL or call.rule != NULL


cdef void set_sizes(Call *call) noexcept nogil:
    cdef long vector = core.simd.lanes
    call.panel = 2 * vector
    if call.planes:
        call.block = BLOCK_OF_TILES
        call.strip = call.block
        while call.strip > PANEL and call.strip * call.planes * call.H > STRIP_OF_TILES:
            call.strip //= 2
        call.lanes = call.stride = round_up(call.B, PANEL)
    else:
        call.block = call.strip = BLOCK
        call.lanes = round_up(call.B, vector)
        call.stride = round_up(call.lanes, CACHE_LINE)
        if call.stride >= 8 * CACHE_LINE and call.stride % (2 * CACHE_LINE) == 0:
            call.stride += CACHE_LINE  # with a stride of a power of two a block would use few sets of the cache
    call.columns = round_up(call.H, PANEL)
    call.blocks = ceil_div(call.V, call.block)
    call.strips = ceil_div(call.V, call.strip)
    call.slices = min(call.blocks, SLICES_AT_MOST)
    call.stream = call.dweight != NULL and call.V * call.H >= STREAM_FROM
    call.keep = call.keep and call.V * call.stride * (2 * call.planes if call.planes else 4) <= KEEP_AT_MOST


cdef void *reserve(char **at, size_t size) noexcept nogil:
    """Return the next `size` bytes of the work memory, in whole cache lines; with *at = NULL only count them."""
    cdef char *here = at[0]
    at[0] += ceil_div(size, 64) * 64
    return here


cdef size_t lay_out(Call *call, char *work, size_t threads) noexcept nogil:
    """Point the arrays of the call into `work`; return the number of bytes."""
    cdef char *at = work
    cdef size_t lane_array = call.stride * sizeof(float), size
    call.targets = <int64_t *> reserve(&at, call.B * sizeof(int64_t))
    call.row_scale = <float *> reserve(&at, 5 * lane_array)
    call.smoothing_shift = call.row_scale + call.stride
    call.row_highest = call.smoothing_shift + call.stride
    call.row_log_sum = call.row_highest + call.stride
    call.target_logits = call.row_log_sum + call.stride
    call.row_sum = <double *> reserve(&at, call.stride * sizeof(double))
    call.rows_by_target = <long *> reserve(&at, call.B * sizeof(long))
    call.targets_before = <long *> reserve(&at, (call.strips + 1) * sizeof(long))
    call.highest = <float *> reserve(&at, call.slices * lane_array)
    call.sum = <float *> reserve(&at, call.slices * lane_array)
    call.differences = <float *> reserve(&at, call.slices * lane_array)
    call.strip_base = <float *> reserve(&at, call.strips * lane_array if call.keep else 0)
    if call.planes:
        lay_out_tiles(call, &at, threads)
    else:
        call.h_lanes = <float *> reserve(&at, round_up(call.lanes, call.panel) * call.H * sizeof(float))
        call.exponentials = <float *> reserve(&at, (call.V if call.keep else threads * BLOCK) * lane_array)
        if call.gradients:
            size = round_up(call.H, call.panel) * call.B if makes_dweight(call) else 0
            call.h_columns = <float *> reserve(&at, size * sizeof(float))
            call.dh_parts = <float *> reserve(&at, call.slices * call.H * lane_array if call.dh else 0)
            size = threads * BLOCK * call.H if call.rule or call.stream else 0
            call.block_gradient = <float *> reserve(&at, size * sizeof(float))
    if call.gradients:
        call.scale = <float *> reserve(&at, threads * lane_array)
    return at - work


cdef void lay_out_tiles(Call *call, char **at, size_t threads) noexcept nogil:
    cdef size_t number = call.planes * sizeof(bf16)
    call.h_plane = values_of(call.stride, call.H)
    call.weight_plane = values_of(call.block, call.H)
    call.block_plane = call.stride * call.block
    call.kept_plane = (call.blocks if call.keep else 1) * call.block_plane
    call.h_pairs = <bf16 *> reserve(at, call.h_plane * number)
    call.weight_tiles = <bf16 *> reserve(at, threads * call.weight_plane * number)
    call.panel_logits = <float *> reserve(at, threads * call.strip * PANEL * sizeof(float))
    call.base = <float *> reserve(at, threads * call.stride * sizeof(float))
    cdef size_t dh_parts = call.slices * call.stride * call.columns * sizeof(float)
    cdef size_t gradient = threads * (PANEL * call.columns + call.block * (TILE + 1)) * sizeof(float)
    if call.gradients:
        call.h_column_pairs = <bf16 *> reserve(at, call.h_plane * number if makes_dweight(call) else 0)
        call.exponential_tiles = <bf16 *> reserve(at, (1 if call.keep else threads) * call.kept_plane * number)
        call.p_tiles = <bf16 *> reserve(at, threads * call.block_plane * number)
        call.p_pairs = <bf16 *> reserve(at, threads * call.block_plane * number)
        call.dh_parts = <float *> reserve(at, dh_parts if call.dh else 0)
        call.block_gradient = <float *> reserve(at, gradient)


cdef void pack_lanes(void *context, long panel, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = panel * call.panel
    core.simd.pack(matrix(call.h + first * call.H, call.H, 1), call.H, min(call.panel, call.B - first),
                   call.h_lanes + first * call.H)


cdef void pack_columns(void *context, long panel, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = panel * call.panel
    core.simd.pack(matrix(call.h + first, 1, call.H), call.B, min(call.panel, call.H - first),
                   call.h_columns + first * call.B)


cdef float *block_of(Call *call, long first, int hand) noexcept nogil:
    """Return the memory for the logits, then exponentials, then gradients of the block that begins at word `first`."""
    return call.exponentials + (first if call.keep else hand * BLOCK) * call.stride


cdef void make_logits(Call *call, long first, long words, float *logits) noexcept nogil:
    """logits^T = W h^T, without the bias."""
    cdef long lane = 0
    while lane < call.lanes:
        core.simd.product(words, call.H, matrix(call.weight + first * call.H, call.H, 1),
                          call.h_lanes + lane * call.H, call.panel, min(call.panel, call.lanes - lane),
                          logits + lane, call.stride, 1, False)
        lane += call.panel


cdef void sweep_one(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef float *highest = call.highest + slice * call.stride
    cdef float *sum = call.sum + slice * call.stride
    cdef float *differences = call.differences + slice * call.stride
    cdef float *logits
    cdef const float *bias
    cdef long lane, block, first, words, at, row, word
    cdef long first_block = slice * call.blocks // call.slices
    for lane in range(call.stride):
        highest[lane] = -FLT_MAX
        sum[lane] = 0
        differences[lane] = 0
    for block in range(first_block, (slice + 1) * call.blocks // call.slices):
        first = block * BLOCK
        words = min(BLOCK, call.V - first)
        bias = call.bias + first if call.bias else NULL
        logits = block_of(call, first, hand)
        make_logits(call, first, words, logits)
        for at in range(call.targets_before[block], call.targets_before[block + 1]):
            row = call.rows_by_target[at]
            word = call.targets[row] - first
            call.target_logits[row] = logits[word * call.stride + row] + (bias[word] if bias else 0)
        core.simd.exponentials(words, call.lanes, call.stride, (block - first_block) * BLOCK, bias, logits, highest,
                               sum, differences if call.label_smoothing else NULL)
        if call.keep:
            memcpy(call.strip_base + block * call.stride, highest, call.stride * sizeof(float))


cdef long held_from(const Call *call, long word) noexcept nogil:
    """How many of the rows that are held come before a word."""
    cdef long low = 0, high = call.held_rows, middle
    while low < high:
        middle = (low + high) // 2
        if call.held[middle] < word:
            low = middle + 1
        else:
            high = middle
    return low


cdef void update_rows(Call *call, long first, long rows, const float *dweight) noexcept nogil:
    """Update rows of W that lie behind each other by their gradients, likewise, or by zeros where that is NULL."""
    cdef long at = first * call.H
    core.simd.update(call.rule, rows * call.H, dweight, state_at(call.weight_state, at),
                     state_at(call.weight_state2, at), call.weight + at)


cdef void update_weight(Call *call, long first, long words, const float *dweight, long row) noexcept nogil:
    """Update the rows of some words by their gradients, which lie `row` floats apart; those held are handed back."""
    cdef long i = held_from(call, first), word
    for word in range(words):
        if i < call.held_rows and call.held[i] == first + word:
            memcpy(call.dheld + i * call.H, dweight + word * row, call.H * sizeof(float))
            i += 1
        else:
            update_rows(call, first + word, 1, dweight + word * row)


cdef void update_by_zero(Call *call) noexcept nogil:
    """Gradients of 0: what the rule remembers goes on, and weights decay, but for the rows that are held."""
    cdef long i, first = 0
    for i in range(call.held_rows):
        update_rows(call, first, call.held[i] - first, NULL)
        first = call.held[i] + 1
    update_rows(call, first, call.V - first, NULL)
    if call.held_rows:
        memset(call.dheld, 0, call.held_rows * call.H * sizeof(float))


cdef void hand_back(const Call *call, long count, const float *gradient, float *to) noexcept nogil:
    """Write a gradient of W or b to its array, or add it to the array."""
    cdef long i
    if call.add:
        for i in range(count):
            to[i] += gradient[i]
    else:
        memcpy(to, gradient, count * sizeof(float))


cdef void sweep_two(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef float[BLOCK] dbias
    cdef bint past_the_cache
    cdef float *parts = call.dh_parts + slice * call.H * call.stride
    cdef float *scale = call.scale + hand * call.stride
    cdef float *own_gradient = call.block_gradient + hand * BLOCK * call.H
    cdef float *dweight
    cdef float *p
    cdef long block, first, words, at, row, column, lane
    cdef long first_block = slice * call.blocks // call.slices
    for block in range(first_block, (slice + 1) * call.blocks // call.slices):
        first = block * BLOCK
        words = min(BLOCK, call.V - first)
        p = block_of(call, first, hand)
        if call.keep:
            core.simd.rescale(call.lanes, call.strip_base + block * call.stride, call.row_highest,
                              call.row_log_sum, call.row_scale, scale)
        else:
            scale = call.row_scale
            make_logits(call, first, words, p)
            core.simd.probabilities(words, call.lanes, call.stride, call.bias + first if call.bias else NULL,
                                    call.row_highest, call.row_log_sum, p)
        core.simd.scale_lanes(words, call.lanes, call.stride, scale, call.smoothing_shift, p)
        for at in range(call.targets_before[block], call.targets_before[block + 1]):
            row = call.rows_by_target[at]
            p[(call.targets[row] - first) * call.stride + row] -= <float> (
                (1 - call.label_smoothing) * call.row_scale[row])
        lane = 0
        while call.dh and lane < call.lanes:  # dh^T += W^T p
            core.simd.product(call.H, words, matrix(call.weight + first * call.H, 1, call.H), p + lane, call.stride,
                              min(call.panel, call.lanes - lane), parts + lane, call.stride, 1, block > first_block)
            lane += call.panel
        past_the_cache = call.stream and not call.add
        dweight = own_gradient
        if call.dweight and not past_the_cache:
            dweight = call.dweight + first * call.H
        column = 0
        while makes_dweight(call) and column < call.H:  # dW = p h
            row = 0
            while row < call.B:
                core.simd.product(words, min(DEPTH_CHUNK, call.B - row), matrix(p + row, call.stride, 1),
                                  call.h_columns + column * call.B + row * call.panel, call.panel,
                                  min(call.panel, call.H - column), dweight + column, call.H, 1,
                                  call.add or row > 0)
                row += DEPTH_CHUNK
            column += call.panel
        if call.rule:
            update_weight(call, first, words, own_gradient, call.H)
        elif past_the_cache:
            core.simd.stream(words, call.H, own_gradient, call.H, call.dweight + first * call.H)
        if call.dbias:
            core.simd.lane_sums(words, call.B, call.stride, p, dbias)
            hand_back(call, words, dbias, call.dbias + first)


cdef void add_dh(void *context, long slice, int hand) noexcept nogil:
    """Sum SLICE_COLUMNS columns of dh over the slices' parts."""
    cdef Call *call = <Call *> context
    cdef float *total = call.scale + hand * call.stride
    cdef long column, row
    for column in range(slice * SLICE_COLUMNS, min((slice + 1) * SLICE_COLUMNS, call.H)):
        core.simd.add_slices(call.slices, call.H * call.stride, call.lanes, call.dh_parts + column * call.stride, total)
        for row in range(call.B):
            call.dh[row * call.H + column] = total[row]


# ------------------------------------------------------------------------------------------- the same, of tiles of bf16


cdef void split_lanes(void *context, long panel, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = panel * PANEL
    split_right(core.tiles, matrix(call.h + first * call.H, call.H, 1), min(PANEL, call.B - first), call.H, call.planes,
                call.h_plane, call.h_pairs + first * round_up(call.H, TILE_DEPTH))


cdef void split_columns(void *context, long panel, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = panel * PANEL
    split_right(core.tiles, matrix(call.h + first, 1, call.H), min(PANEL, call.H - first), call.B, call.planes,
                call.h_plane, call.h_column_pairs + first * call.stride)


cdef void split_weights(Call *call, long first, long words, bf16 *tiles) noexcept nogil:
    split_left(core.tiles, matrix(call.weight + first * call.H, call.H, 1), words, call.H, call.planes,
               call.weight_plane, tiles)


cdef bf16 *exponentials_of(Call *call, long block, int hand) noexcept nogil:
    """Return the memory for the exponentials of a block."""
    return call.exponential_tiles + (block if call.keep else hand * call.planes) * call.block_plane


cdef void make_panel(Call *call, long lane, long words, const bf16 *weights, float *logits,
                     upcoming after) noexcept nogil:
    """Compute the logits of PANEL lanes, without the bias."""
    core.tiles.product(
        round_up(words, PANEL) // TILE,
        PANEL // TILE,
        call.H,
        call.planes,
        consecutive(weights, call.weight_plane, call.H),
        consecutive(call.h_pairs + lane * round_up(call.H, TILE_DEPTH), call.h_plane, call.H),
        rows_of(logits, PANEL),
        False,
        after,
    )


cdef void sweep_one_tiles(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef float *highest = call.highest + slice * call.stride
    cdef float *sum = call.sum + slice * call.stride
    cdef float *differences = call.differences + slice * call.stride if call.label_smoothing else NULL
    cdef float *base = call.base + hand * call.stride
    cdef bf16 *weights = call.weight_tiles + hand * call.planes * call.weight_plane
    cdef float *logits = call.panel_logits + hand * call.strip * PANEL
    cdef const float *bias
    cdef const float *next_words
    cdef bf16 *tiles = NULL
    cdef long share, panel, lane, strip, first, words, at, row, word, words_before = 0
    cdef long a_block = call.block // call.strip  # strips
    for lane in range(call.stride):
        highest[lane] = -FLT_MAX
        sum[lane] = base[lane] = 0
        call.differences[slice * call.stride + lane] = 0
    core.tiles.begin()
    for strip in range(slice * call.blocks // call.slices * a_block,
                       min((slice + 1) * call.blocks // call.slices * a_block, call.strips)):
        first = strip * call.strip
        words = min(call.strip, call.V - first)
        bias = call.bias + first if call.bias else NULL
        split_weights(call, first, words, weights)
        next_words = call.weight + (first + words) * call.H
        share = min(call.strip, call.V - first - words) * call.H * PANEL // call.stride
        if call.keep:
            tiles = exponentials_of(call, strip // a_block, hand) + strip % a_block * call.strip * PANEL
        at = call.targets_before[strip]
        for panel in range(call.stride // PANEL):
            lane = panel * PANEL
            make_panel(call, lane, words, weights, logits, array_of(next_words + panel * share, share * sizeof(float)))
            while at < call.targets_before[strip + 1] and call.rows_by_target[at] < lane + PANEL:
                row = call.rows_by_target[at]
                word = call.targets[row] - first
                call.target_logits[row] = logits[word * PANEL + row - lane] + (bias[word] if bias else 0)
                at += 1
            core.tiles.exponentials(words, words_before, bias, logits, highest + lane, base + lane, sum + lane,
                                    differences + lane if differences else NULL, call.planes, call.kept_plane,
                                    tiles + lane * call.block if tiles else NULL)
        if call.keep:
            memcpy(call.strip_base + strip * call.stride, base, call.stride * sizeof(float))
        words_before += words
    core.tiles.settle(words_before, call.stride, highest, base, sum, differences)
    core.tiles.end()


cdef void make_probabilities(Call *call, long strip, long words, bf16 *weights, float *logits,
                             bf16 *tiles) noexcept nogil:
    """Compute what was not kept, with a base that makes probabilities of the exponentials."""
    cdef long first = strip * call.strip, at = call.targets_before[strip], panel, lane, row
    split_weights(call, first, words, weights)
    for panel in range(call.stride // PANEL):
        lane = panel * PANEL
        make_panel(call, lane, words, weights, logits, nothing())
        core.simd.probabilities(words, PANEL, PANEL, call.bias + first if call.bias else NULL, call.row_highest + lane,
                                call.row_log_sum + lane, logits)
        while at < call.targets_before[strip + 1] and call.rows_by_target[at] < lane + PANEL:
            row = call.rows_by_target[at]
            call.target_logits[row] = logits[(call.targets[row] - first) * PANEL + row - lane]
            at += 1
        core.tiles.split_rows(words, PANEL, PANEL, logits, call.planes, call.kept_plane, TILE_VALUES,
                              tiles + lane * call.block)


cdef bf16 rounded(float x) noexcept nogil:
    """Round to the nearest bf16, halves to even."""
    cdef uint32_t bits
    memcpy(&bits, &x, sizeof(bits))
    return <bf16> ((bits + 0x7fff + (bits >> 16 & 1)) >> 16)


cdef float widened(bf16 x) noexcept nogil:
    cdef uint32_t bits = <uint32_t> x << 16
    cdef float widened_x
    memcpy(&widened_x, &bits, sizeof(bits))
    return widened_x


cdef void put(float value, int planes, long plane, bf16 *at) noexcept nogil:
    at[0] = rounded(value)
    if planes == 2:
        at[plane] = rounded(value - widened(at[0]))


cdef void make_p(Call *call, long block, long words, int hand, float *sums) noexcept nogil:
    """Make p of a block, in tiles of both kinds, and sum it over the lanes: sums (block, TILE).

    The target's p replaces that of an exponential of 0.
    """
    cdef bf16 *weights = call.weight_tiles + hand * call.planes * call.weight_plane
    cdef float *logits = call.panel_logits + hand * call.strip * PANEL
    cdef float *own_scale = call.scale + hand * call.stride
    cdef float *scale = own_scale if call.keep else call.row_scale
    cdef bf16 *exponentials = exponentials_of(call, block, hand)
    cdef bf16 *p = call.p_tiles + hand * call.planes * call.block_plane
    cdef bf16 *pairs = call.p_pairs + hand * call.planes * call.block_plane
    cdef long a_block = call.block // call.strip, depth = round_up(words, TILE_DEPTH)
    cdef long strip, within, some, at, panel, lane, row, word
    cdef float value
    memset(sums, 0, call.block * TILE * sizeof(float))
    for strip in range(block * a_block, min((block + 1) * a_block, call.strips)):
        within = (strip - block * a_block) * call.strip
        some = min(call.strip, words - within)
        if call.keep:
            core.simd.rescale(call.stride, call.strip_base + strip * call.stride, call.row_highest, call.row_log_sum,
                              call.row_scale, scale)
        else:
            make_probabilities(call, strip, some, weights, logits, exponentials + within * PANEL)
        for at in range(call.targets_before[strip], call.targets_before[strip + 1]):
            row = call.rows_by_target[at]
            word = call.targets[row] - block * call.block
            put(0, call.planes, call.kept_plane,
                exponentials + (row // PANEL * call.block + word) * PANEL + row % PANEL)
        for panel in range(call.stride // PANEL):
            lane = panel * PANEL
            core.tiles.dlogits(some, scale + lane, call.smoothing_shift + lane, call.planes,
                               exponentials + lane * call.block + within * PANEL, call.kept_plane,
                               p + lane * call.block + within * PANEL, pairs + lane * depth + within * TILE,
                               call.block_plane, depth * TILE, sums + within * TILE)
        for at in range(call.targets_before[strip], call.targets_before[strip + 1]):
            row = call.rows_by_target[at]
            word = call.targets[row] - block * call.block
            value = <float> ((call.target_logits[row] - (1 - call.label_smoothing)) * call.row_scale[row])
            sums[word * TILE] += value
            value -= call.smoothing_shift[row]
            lane = row // PANEL * PANEL
            put(value, call.planes, call.block_plane, p + lane * call.block + word * PANEL + row % PANEL)
            put(value, call.planes, call.block_plane,
                core.tiles.pair_of(words, word, row % PANEL, pairs + lane * depth))


cdef upcoming exponentials_after(Call *call, long block) noexcept nogil:
    """The kept exponentials of the next block."""
    cdef upcoming after = nothing()
    if call.keep and block + 1 < call.blocks:
        after.arrays[0] = exponentials_of(call, block + 1, 0)
        if call.planes == 2:
            after.arrays[1] = exponentials_of(call, block + 1, 0) + call.kept_plane
        after.bytes = call.block_plane * sizeof(bf16)
    return after


cdef upcoming weights_of(Call *call, long first, long words) noexcept nogil:
    """What an update reads and writes of some words."""
    cdef upcoming after = array_of(call.weight + first * call.H, words * call.H * sizeof(float))
    if call.rule and call.weight_state:
        after.arrays[1] = call.weight_state + first * call.H
        if call.weight_state2:
            after.arrays[2] = call.weight_state2 + first * call.H
    return after


cdef void sweep_two_tiles(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef float *part = call.dh_parts + slice * call.stride * call.columns
    cdef bf16 *weights = call.weight_tiles + hand * call.planes * call.weight_plane
    cdef bf16 *p = call.p_tiles + hand * call.planes * call.block_plane
    cdef bf16 *pairs = call.p_pairs + hand * call.planes * call.block_plane
    cdef float *dweight = call.block_gradient + hand * (PANEL * call.columns + call.block * (TILE + 1))
    cdef float *sums = dweight + PANEL * call.columns
    cdef float *dbias = sums + call.block * TILE
    cdef long block, first, words, panel, word, row, some
    cdef long first_block = slice * call.blocks // call.slices
    core.tiles.begin()
    for block in range(first_block, (slice + 1) * call.blocks // call.slices):
        first = block * call.block
        words = min(call.block, call.V - first)
        make_p(call, block, words, hand, sums)
        if call.dh:  # dh^T += W^T p
            split_left(core.tiles, matrix(call.weight + first * call.H, 1, call.H), call.H, words, call.planes,
                       call.weight_plane, weights)
            core.tiles.product(
                call.columns // TILE,
                call.stride // TILE,
                words,
                call.planes,
                consecutive(weights, call.weight_plane, words),
                consecutive(pairs, call.block_plane, words),
                result(part, TILE, TILE * TILE, TILE * call.columns),
                block > first_block,
                exponentials_after(call, block),
            )
        for panel in range(ceil_div(words, PANEL) if makes_dweight(call) else 0):  # dW = p h
            word = panel * PANEL
            some = min(PANEL, words - word)
            core.tiles.product(
                PANEL // TILE,
                ceil_div(call.H, TILE),
                call.B,
                call.planes,
                operand(p + word * PANEL, call.block_plane, TILE_VALUES, call.block * PANEL),
                consecutive(call.h_column_pairs, call.h_plane, call.B),
                rows_of(dweight, call.columns),
                False,
                weights_of(call, first + word, some),
            )
            if call.rule:
                update_weight(call, first + word, some, dweight, call.columns)
            elif call.stream and not call.add:
                core.simd.stream(some, call.H, dweight, call.columns, call.dweight + (first + word) * call.H)
            else:
                for row in range(some):
                    hand_back(call, call.H, dweight + row * call.columns, call.dweight + (first + word + row) * call.H)
        if call.dbias:
            core.simd.lane_sums(words, TILE, TILE, sums, dbias)
            hand_back(call, words, dbias, call.dbias + first)
    core.tiles.end()


cdef void add_dh_tiles(void *context, long panel, int hand) noexcept nogil:
    """Sum PANEL rows of dh over the slices' parts."""
    cdef Call *call = <Call *> context
    cdef long lane = panel * PANEL, tile, column
    for tile in range(ceil_div(call.H, TILE)):
        column = tile * TILE
        core.tiles.add_turned(call.slices, call.stride * call.columns, TILE * call.columns,
                              call.dh_parts + lane * call.columns + column * TILE, call.B - lane, call.H - column,
                              call.dh + lane * call.H + column, call.H)


# ------------------------------------------------------------------------------------------------------- the whole call


cdef double mean_difference(const Call *call, long row) noexcept nogil:
    """Return the mean of logit - row_highest over the vocabulary; a slice's sum is relative to its own highest."""
    cdef double total = 0
    cdef long slice, at, first, end
    for slice in range(call.slices):
        at = slice * call.stride + row
        first = slice * call.blocks // call.slices * call.block
        end = min((slice + 1) * call.blocks // call.slices * call.block, call.V)
        total += call.differences[at] + (<double> call.highest[at] - call.row_highest[row]) * (end - first)
    return total / call.V


cdef int combine_slices(Call *call, float *highest, float *log_sum, float *losses) except -1 nogil:
    cdef long row
    cdef double loss, row_log_sum
    core.simd.combine(call.slices, call.stride, call.highest, call.sum, call.row_highest, call.row_sum)
    if call.between:
        with gil:
            (<object> call.between)(numpy.asarray(<float[:call.B]> call.row_highest),
                                    numpy.asarray(<double[:call.B]> call.row_sum),
                                    numpy.asarray(<float[:call.B]> call.target_logits))
    for row in range(call.B):
        row_log_sum = log(call.row_sum[row])
        highest[row] = call.row_highest[row]
        log_sum[row] = call.row_log_sum[row] = <float> row_log_sum
        loss = (1 - call.label_smoothing) * (row_log_sum + (<double> call.row_highest[row] - call.target_logits[row]))
        if call.label_smoothing:
            loss += call.label_smoothing * (row_log_sum - mean_difference(call, row))
        losses[row] = <float> loss
    return 0


cdef bint all_finite(long count, const float *numbers) noexcept nogil:
    cdef long i
    for i in range(count):
        if not isfinite(numbers[i]):
            return False
    return True


cdef void fill_with_nan(float *numbers, long count) noexcept nogil:
    cdef long i
    for i in range(count):
        numbers[i] = NAN


cdef long rows_at_once(long rows, int planes) noexcept nogil:
    """Return the rows of a piece, about a quarter of the batch: its exponentials are then far below the batch's logits.

    With one plane of bf16, half of the batch, since the exponentials have half the size.
    """
    cdef long share = rows // (2 if planes == 1 else 4)
    cdef long piece = max(ROWS_AT_LEAST, min(share, ROWS_OF_TILES_AT_MOST if planes else ROWS_AT_MOST))
    return min(rows, round_up(ceil_div(rows, ceil_div(rows, piece)), PANEL))


cdef bint run(Call *call, targets, const float[::1] row_scale, const float[::1] highest, const float[::1] log_sum,
              float[::1] losses, int threads) except -1:
    """Call run_pieces for the type of the ids; Cython's own dispatch would take a microsecond."""
    if targets.itemsize == sizeof(int32_t):
        return run_pieces[int32_t](call, targets, row_scale, highest, log_sum, losses, threads)
    return run_pieces[int64_t](call, targets, row_scale, highest, log_sum, losses, threads)


cdef bint run_pieces(Call *call, const ids_t[::1] targets, const float[::1] row_scale, const float[::1] highest,
                     const float[::1] log_sum, float[::1] losses, int threads) except -1:
    """Run sweep one, which writes the statistics, if there is an array for losses, and sweep two if the call has arrays
    for gradients; piece by piece.

    False where an update is given up because a loss is infinite or no number; the gradients are then NaN.
    """
    cdef bint forward = losses is not None
    cdef bint go_on = True
    cdef long rows = call.B, first = 0
    cdef const float *h = call.h
    call.gradients = call.dh != NULL or call.dbias != NULL or makes_dweight(call)
    call.keep = call.gradients and forward
    if call.rule == NULL:
        call.B = rows_at_once(rows, call.planes)
    set_sizes(call)
    threads = min(threads, SLICES_AT_MOST)  # more could not work at once, but each would take memory
    cdef size_t needed = lay_out(call, NULL, threads)
    cdef char *work = <char *> core.take(needed)
    if work == NULL:
        raise MemoryError(f"linear_cross_entropy: no memory for {needed:,} bytes")
    try:
        with nogil:
            while first < rows:
                lay_out(call, work, threads)
                call.h = h + first * call.H
                go_on = run_rows(call, &targets[first], &row_scale[first], <float *> &highest[first],
                                 <float *> &log_sum[first], &losses[first] if forward else NULL, threads)
                first += call.B
                call.dh = call.dh + call.B * call.H if call.dh else NULL
                call.B = min(call.B, rows - first)
                call.add = True
                set_sizes(call)
    finally:
        core.give(work)
    return go_on


cdef void sort_targets(Call *call) noexcept nogil:
    """Order the rows that have a target by its strip, so that a strip need not look for its own."""
    cdef long row, strip, before = 0, count
    memset(call.targets_before, 0, (call.strips + 1) * sizeof(long))
    for row in range(call.B):
        if call.targets[row] >= 0:
            call.targets_before[call.targets[row] // call.strip] += 1
    for strip in range(call.strips + 1):
        count = call.targets_before[strip]
        call.targets_before[strip] = before
        before += count
    for row in range(call.B):
        if call.targets[row] >= 0:
            strip = call.targets[row] // call.strip
            call.rows_by_target[call.targets_before[strip]] = row
            call.targets_before[strip] += 1
    for strip in range(call.strips, 0, -1):  # each has moved on to where the next one begins
        call.targets_before[strip] = call.targets_before[strip - 1]
    call.targets_before[0] = 0


cdef bint run_rows(Call *call, const ids_t *targets, const float *row_scale, float *highest, float *log_sum,
                   float *losses, int threads) except -1 nogil:
    """Run the sweeps on one piece, whose work memory is laid out."""
    cdef long row
    memset(call.row_scale, 0, 5 * call.stride * sizeof(float))  # and the four arrays after it
    for row in range(call.B, call.stride):
        call.row_highest[row] = FLT_MAX  # the padding's logits are the bias: its p must be 0, not exp(bias)
    for row in range(call.B):
        call.targets[row] = targets[row]
        call.row_scale[row] = row_scale[row]
        call.smoothing_shift[row] = <float> (row_scale[row] * call.label_smoothing / call.V)
        if call.between:
            call.target_logits[row] = -INFINITY
    sort_targets(call)
    if call.planes:
        core.run(split_lanes, call, ceil_div(call.B, PANEL), threads)
    else:
        core.run(pack_lanes, call, ceil_div(call.B, call.panel), threads)
    if losses:
        core.run(sweep_one_tiles if call.planes else sweep_one, call, call.slices, threads)
        combine_slices(call, highest, log_sum, losses)
        if call.rule and not all_finite(call.B, losses):
            fill_with_nan(call.dh, call.B * call.H)
            fill_with_nan(call.dbias, call.V if call.dbias else 0)
            fill_with_nan(call.dheld, call.held_rows * call.H)
            return False
    else:
        memcpy(call.row_highest, highest, call.B * sizeof(float))
        memcpy(call.row_log_sum, log_sum, call.B * sizeof(float))
    if not call.gradients:
        return True
    if call.planes:
        if makes_dweight(call):
            core.run(split_columns, call, ceil_div(call.H, PANEL), threads)
        for row in range(call.B):
            call.target_logits[row] = <float> exp(
                <double> call.target_logits[row] - call.row_highest[row] - call.row_log_sum[row])
        core.run(sweep_two_tiles, call, call.slices, threads)
        if call.dh:
            core.run(add_dh_tiles, call, ceil_div(call.B, PANEL), threads)
    else:
        if makes_dweight(call):
            core.run(pack_columns, call, ceil_div(call.H, call.panel), threads)
        core.run(sweep_two, call, call.slices, threads)
        if call.dh:
            core.run(add_dh, call, ceil_div(call.H, SLICE_COLUMNS), threads)
    return True


cdef bint begin(Call *call, const float[:, ::1] h, const float[:, ::1] weight, const float[::1] bias, float[:, ::1] dh,
                float[:, ::1] dweight, float[::1] dbias, double label_smoothing, between,
                str fp32_precision) except -1:
    """Fill in the arguments; return False if there are no rows: then all gradients are 0."""
    call.planes = planes_of(fp32_precision)
    call.B, call.H, call.V = h.shape[0], h.shape[1], weight.shape[0]
    call.label_smoothing = label_smoothing
    if call.V == 0:
        raise ValueError("linear_cross_entropy: weight: expected at least one word, got none")
    call.dh = call.dweight = call.dbias = NULL
    call.add = False
    call.between = NULL if between is None else <void *> between
    call.rule = NULL
    call.weight_state = call.weight_state2 = call.dheld = NULL
    call.held_rows = 0
    if dweight is not None:
        call.dweight = &dweight[0, 0]
    if dbias is not None:
        call.dbias = &dbias[0]
    call.weight = <float *> &weight[0, 0]
    call.bias = &bias[0] if bias is not None else NULL
    if call.B == 0:
        if dweight is not None:
            dweight[:, :] = 0
        if dbias is not None:
            dbias[:] = 0
        return False
    if dh is not None:
        call.dh = &dh[0, 0]
    call.h = &h[0, 0]
    return True


def linear_cross_entropy_forward(const float[:, ::1] h, const float[:, ::1] weight, const float[::1] bias,
                                 targets, const float[::1] row_scale, float[::1] highest, float[::1] log_sum,
                                 float[::1] losses, *, double label_smoothing=0.0, between=None,
                                 str fp32_precision="auto", int threads=1):
    """Compute the statistics and losses of the batch's rows."""
    cdef Call call
    if begin(&call, h, weight, bias, None, None, None, label_smoothing, between, fp32_precision):
        run(&call, targets, row_scale, highest, log_sum, losses, threads)


def linear_cross_entropy_backward(const float[:, ::1] h, const float[:, ::1] weight, const float[::1] bias,
                                  targets, const float[::1] row_scale, const float[::1] highest,
                                  const float[::1] log_sum, float[:, ::1] dh, float[:, ::1] dweight,
                                  float[::1] dbias, *, double label_smoothing=0.0, str fp32_precision="auto",
                                  int threads=1):
    """Compute the gradients, from the logits computed again."""
    cdef Call call
    if begin(&call, h, weight, bias, dh, dweight, dbias, label_smoothing, None, fp32_precision):
        run(&call, targets, row_scale, highest, log_sum, None, threads)


def linear_cross_entropy(const float[:, ::1] h, const float[:, ::1] weight, const float[::1] bias,
                         targets, const float[::1] row_scale, float[::1] highest, float[::1] log_sum,
                         float[::1] losses, float[:, ::1] dh, float[:, ::1] dweight, float[::1] dbias, *,
                         double label_smoothing=0.0, between=None, str fp32_precision="auto", int threads=1):
    """Compute losses and gradients together: the exponentials are computed once."""
    cdef Call call
    if begin(&call, h, weight, bias, dh, dweight, dbias, label_smoothing, between, fp32_precision):
        run(&call, targets, row_scale, highest, log_sum, losses, threads)


def linear_cross_entropy_update(const float[:, ::1] h, float[:, ::1] weight, const float[::1] bias,
                                targets, const float[::1] row_scale, float[:, ::1] weight_state,
                                float[:, ::1] weight_state2, held, float[::1] highest, float[::1] log_sum,
                                float[::1] losses, float[:, ::1] dh, float[::1] dbias, float[:, ::1] dheld, *,
                                str rule, double label_smoothing=0.0, between=None, str fp32_precision="auto",
                                int threads=1, **options):
    """Losses, gradients of h, bias and what is held, and the update of weight; dW of a block never leaves the cache."""
    cdef Call call
    cdef update_rule the_rule
    cdef const int64_t[::1] held_ids
    make_rule, states = rule_of("linear_cross_entropy_update", rule, weight_state, weight_state2)
    if bias is not None and dbias is None:
        raise ValueError("linear_cross_entropy_update: dbias: expected an array for the gradient of bias, got None")
    if (held is None) != (dheld is None):
        given, lacking = ("dheld", "held") if held is None else ("held", "dheld")
        raise ValueError(f"linear_cross_entropy_update: {lacking}: expected an array, as {given} is one; got None")
    the_rule = make_rule(**options)
    cdef bint rows = begin(&call, h, weight, bias, dh, None, dbias, label_smoothing, between, fp32_precision)
    call.rule = &the_rule
    if states > 0:
        call.weight_state = &weight_state[0, 0]
    if states > 1:
        call.weight_state2 = &weight_state2[0, 0]
    if held is not None and len(held) > 0:
        held_ids = held.astype("int64", copy=False)
        call.held_rows, call.held, call.dheld = held_ids.shape[0], &held_ids[0], &dheld[0, 0]
    if not rows:
        update_by_zero(&call)
        return True
    return run(&call, targets, row_scale, highest, log_sum, losses, threads)
