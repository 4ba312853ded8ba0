"""The last layer, softmax and cross entropy in one: 98 % of a training step.

The vocabulary is cut into slices, a function of its size alone, each taken by the next free thread; a slice is
processed in blocks of words, whose weights stay in the cache while they are used. In a block the logits are
transposed, (words, lanes): the rows of the batch lie side by side, padded to whole vectors, so that the weights are
read in place and every sum over words is vertical.

    sweep one, a slice at a time                               results of a slice
        logits = W h^T + b                                         highest  (lanes)  of its logits
        e = exp(logits - base)  kept: (V, lanes)                   sum      (lanes)  of exp(logit - highest)
        dh^T += W^T e                                              dh^T  (H, lanes)
    the slices are combined: highest, log_sum, losses
    sweep two, a slice at a time
        s = exp(base - highest - log_sum) * row_scale
        db = e s
        dW = e (s h)                                           or, at once, the update of W by it
    at the end
        dh = the sum of s times the slices' dh, in their order

So the dlogits, e s less the truth, are never made: all that stands between them and e is a factor for each row, which
the smaller operand takes. A slice has one base, the highest logits of its first words; if others lie far above it, the
slice is done once more, relative to its highest. A target's e is left out: its dlogit is computed from its logit, and
what it adds to dh, db, dW and the sum is added to them, so that no loss of a row certain of it is below 0. So is what
smoothed labels take from all words, sums over W and h; where p is near it, the products' rounding is what is left in
dW. The rows are ordered by the block of their target, so that a block need not look for its own.

The products are of float32 ("ieee"), or of tiles of bf16 (simd/tiles.h) with float32 sums and each number rounded once
("bf16") or as the sum of two ("bf16x3"): h, s h, the weights and e then have P planes, 1 or 2. Everything between the
products is float32. Tiles of e, of both kinds, are made in the walk that computes it, a panel of lanes at a time; a
block is cut into strips, whose weights stay in the first cache with a panel; db comes with dW, [db dW] = e [s  s h].

Without an update, a long batch goes through both sweeps in pieces (rows_at_once): then the exponentials can be stored
between the sweeps for any length of batch, and a block stays in the caches. dW and db are summed over the pieces.
Exponentials that are not stored are made in sweep two, and dh with them. A gradient that is not wanted is not computed.
All rows count: the check of the arrays (fastmlp/ops/contract.py) leaves out ignored rows.

A function `between` the sweeps may put other words' statistics to those of the words here: for a vocabulary of which W
is a part. A target of -1 is in no block, and its logit is that function's to say.

An update leaves out the rows of W that are held and hands their gradients back, for a caller who has others to add; so
it does with db. A pointer into their ascending ids goes along with the words of a block.

Work memory, in floats, beside the arguments; B are the rows that go at once, L is B padded to whole vectors, and from
128 on to an odd number of cache lines, S the number of slices (at most 32), n the threads:

    forward    (H + 3 S + n BLOCK + 11) L                      nothing of the size of B V
    backward   the same + n H B + (S H + S + n) L + n BLOCK H  s h, dh's parts, and a block's gradient
    both       the same + V L for the exponentials, where they take at most KEEP_AT_MOST; beyond it nothing of the size
               of B V either: the logits are made again, exactly, in sweep two
    update     as both, with all rows at once: there is no gradient of the size of W; 2 U more for int32 ids of the
               U rows that are held
    labels     S H + 4 (H + 1) more if they are smoothed

and with tiles, where L is B and H is padded to 32:

    forward    (P H / 2 + 3 S + 11) L + n BLOCK (P H / 2 + 32)
    backward   the same + (S H + S + n P (BLOCK + H / 2 + 8) + 2 n) L + 32 n (H + 16)
    both       the same + P V / 2 L, as above, less n P BLOCK / 2 L
"""

from libc.float cimport FLT_MAX
from libc.math cimport INFINITY, NAN, exp, isfinite, log
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memcpy, memset

import numpy

from core cimport (
    COLUMN_BLOCK, TILE, TILE_DEPTH, TILE_VALUES, bf16, ceil_div, core_api, ids_t, import_core, matrix, operand, result,
    state_at, upcoming, update_rule
)
from tiles cimport (
    PANEL, array_of, consecutive, planes_of, round_up, rows_of, split_left, split_right, values_of
)

from fastmlp._kernels.update import rule_of

cdef const core_api *core = import_core()

# Of logits above their base: sums stay far from infinity, and s, which is smaller by e to that, from 0 (for any
# row_scale above 1e-20).
cdef float BASE_MARGIN = 40

cdef enum:
    BLOCK = 120                # words: a multiple of every variant's tile rows
    BLOCK_OF_TILES = 128       # words: a multiple of 32
    STRIP_OF_TILES = 1 << 13   # bf16 of a strip's weights at most: a third of the first cache
    CACHE_LINE = 16            # floats
    SLICES_AT_MOST = 32
    STREAM_FROM = 1 << 21      # floats of dW: more than the caches hold until dW is read
    DEPTH_CHUNK = 512          # rows of the batch in one sum of dW, so that its error does not grow with the rows
    KEEP_AT_MOST = 1 << 28     # bytes of exponentials stored between the sweeps
    PAST_THE_CACHE = 1 << 23   # bytes of them, in tiles, that the caches would not hold from sweep to sweep
    ROWS_AT_LEAST = 128        # of a piece of the batch, if W is not updated,
    ROWS_AT_MOST = 256         # and with tiles, which take less time for a row than for reading W:
    ROWS_OF_TILES_AT_MOST = 512
    SLICE_COLUMNS = 16         # columns of dh in a slice of the sum of its parts


ctypedef struct Call

ctypedef struct Steps:  # of the sweeps, with products of floats or of tiles; `words` is a block of them from `first` on
    # the exponentials relative to the slice's base, and what they add to its sums; begins: the base is made first, the
    # highest logits of the block's first words
    void (*make_exponentials)(Call *call, long slice, long first, long words, int hand, bint begins) noexcept nogil
    void (*add_dh)(Call *call, long slice, long first, long words, int hand) noexcept nogil  # dh^T += W^T e, its part
    void (*scale_h)(Call *call, long slice, int hand) noexcept nogil  # s h, with which e makes the slice's dW
    # and db; update W or hand back
    void (*make_dweight)(Call *call, long slice, long first, long words, int hand) noexcept nogil

ctypedef struct Call:
    Steps steps
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
    bint past_the_cache     # which are too many for the caches
    bint store              # this sweep stores the tiles that it makes
    bint forward            # there is a sweep one
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
    float *target_logits    # (stride) of the targets
    double *row_sum         # (stride)
    float *highest          # (slices, stride)
    float *sum              # (slices, stride)
    float *base             # (slices, stride) what a slice's exponentials are relative to, and
    float *factors          # (slices, stride) s, what makes dlogits of them
    long *rows_by_target    # (B,) rows in the order of their targets' strips
    long *targets_before    # (strips + 1) how many of them have targets before a strip
    float *h_lanes          # (panels of lanes, H, panel): h^T
    float *h_columns        # a thread's (panels of columns, B, panel): s h
    float *exponentials     # (V, stride) if they are stored, else (threads, block, stride)
    float *dh_parts         # (slices, H, stride), with tiles dh^T in tiles of 16 x 16, (slices, stride, columns)
    float *scale            # (threads, stride) sums of dh; with tiles (threads, 2 stride), s in two parts
    float *weight_sums      # (slices, H) sums of the rows of W, if labels are smoothed, and
    double *weight_sum      # (H + 1) of all, and of b
    double *shifts          # (H + 1) what they take from each row of dW, and of db
    bint stream             # dW is large: its blocks are made in the cache and copied past it
    float *block_gradient   # (threads, block, H) where a block's dW is made for an update or the copy
    # and for products of tiles, in planes; the first sizes are those of a plane
    long columns            # H padded to whole panels
    long h_plane
    long weight_plane
    long pairs_plane
    long kept_plane         # of the exponentials
    long column_plane
    bf16 *h_pairs           # (stride x H) h^T, for the logits
    bf16 *h_column_pairs    # a thread's: (stride x TILE) s and (stride x H) s h, for db and dW
    bf16 *weight_tiles      # a thread's: (strip x H), then (H x block)
    bf16 *exponential_tiles  # (V x stride) if they are stored, else a thread's (block x stride): panels of a block
    bf16 *pairs             # a thread's: (block x stride) exponentials of a block, for dh
    float *panel_logits     # (threads, strip, PANEL)


cdef bint makes_dweight(const Call *call) noexcept nogil:
    return call.dweight != NULL or call.rule != NULL


cdef bint wants_products(const Call *call) noexcept nogil:
    """Whether dW or db is wanted."""
    return makes_dweight(call) or call.dbias != NULL


cdef void set_sizes(Call *call) noexcept nogil:
    cdef long vector = core.simd.lanes
    call.panel = PANEL if call.planes else 2 * vector
    call.steps = OF_TILES if call.planes else OF_FLOATS
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
    call.columns = round_up(call.H, PANEL if call.planes else call.panel)
    call.blocks = ceil_div(call.V, call.block)
    call.strips = ceil_div(call.V, call.strip)
    call.slices = min(call.blocks, SLICES_AT_MOST)
    call.stream = call.dweight != NULL and call.V * call.H >= STREAM_FROM
    cdef long kept = call.V * call.stride * (2 * call.planes if call.planes else 4)
    call.keep = call.keep and kept <= KEEP_AT_MOST
    call.past_the_cache = call.keep and kept > PAST_THE_CACHE


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
    call.base = <float *> reserve(&at, call.slices * lane_array)
    call.factors = <float *> reserve(&at, call.slices * lane_array if call.gradients else 0)
    call.weight_sums = <float *> reserve(&at, call.slices * call.H * sizeof(float) if call.label_smoothing else 0)
    call.weight_sum = <double *> reserve(&at, 2 * (call.H + 1) * sizeof(double) if call.label_smoothing else 0)
    call.shifts = call.weight_sum + call.H + 1
    if call.planes:
        lay_out_tiles(call, &at, threads)
        return at - work
    call.h_lanes = <float *> reserve(&at, round_up(call.lanes, call.panel) * call.H * sizeof(float))
    call.exponentials = <float *> reserve(&at, (call.V if call.keep else threads * BLOCK) * lane_array)
    if call.gradients:
        size = threads * call.columns * call.B if makes_dweight(call) else 0
        call.h_columns = <float *> reserve(&at, size * sizeof(float))
        call.dh_parts = <float *> reserve(&at, call.slices * call.H * lane_array if call.dh else 0)
        size = threads * BLOCK * call.H if call.rule or call.stream else 0
        call.block_gradient = <float *> reserve(&at, size * sizeof(float))
        call.scale = <float *> reserve(&at, threads * lane_array)
    return at - work


cdef void lay_out_tiles(Call *call, char **at, size_t threads) noexcept nogil:
    cdef size_t number = call.planes * sizeof(bf16), lane_array = call.stride * sizeof(float)
    call.h_plane = values_of(call.stride, call.H)
    call.weight_plane = values_of(call.block, call.H)
    call.pairs_plane = call.stride * call.block
    call.kept_plane = call.stride * (round_up(call.V, PANEL) if call.keep else call.block)
    call.column_plane = (TILE + (round_up(call.H, TILE) if makes_dweight(call) else 0)) * call.stride
    call.h_pairs = <bf16 *> reserve(at, call.h_plane * number)
    call.weight_tiles = <bf16 *> reserve(at, threads * call.weight_plane * number)
    call.panel_logits = <float *> reserve(at, threads * call.strip * PANEL * sizeof(float))
    cdef bint tiles = wants_products(call)
    if call.gradients:
        call.pairs = <bf16 *> reserve(at, threads * call.pairs_plane * number if call.dh else 0)
        call.dh_parts = <float *> reserve(at, call.slices * call.columns * lane_array if call.dh else 0)
        call.exponential_tiles = <bf16 *> reserve(
            at, (1 if call.keep else threads) * call.kept_plane * number if tiles else 0)
        call.h_column_pairs = <bf16 *> reserve(at, threads * call.column_plane * number if tiles else 0)
        call.scale = <float *> reserve(at, threads * 2 * lane_array if tiles else 0)
        call.block_gradient = <float *> reserve(
            at, threads * PANEL * (TILE + call.columns) * sizeof(float) if tiles else 0)


# -------------------------------------------------------------------------------------------- what all products share

cdef long first_word(const Call *call, long slice) noexcept nogil:
    return min(slice * call.blocks // call.slices * call.block, call.V)


cdef void start(Call *call, long slice) noexcept nogil:
    cdef long lane
    for lane in range(slice * call.stride, (slice + 1) * call.stride):
        call.highest[lane] = -FLT_MAX
        call.sum[lane] = 0


cdef bint far_above(const Call *call, long slice) noexcept nogil:
    """Whether a slice has logits so far above its base that exponentials may be infinite.

    The padding counts: 0 times an infinity would be NaN in dW.
    """
    cdef long lane
    for lane in range(slice * call.stride, (slice + 1) * call.stride):
        if call.highest[lane] - call.base[lane] > BASE_MARGIN:
            return True
    return False


cdef void sum_weights(Call *call, long slice) noexcept nogil:
    """Sum a slice's rows of W: smoothed labels take the same from each word's dlogit."""
    cdef long first = first_word(call, slice), words = first_word(call, slice + 1) - first, column = 0
    while column < call.H:
        core.simd.column_sums(words, call.H, min(COLUMN_BLOCK, call.H - column), call.weight + first * call.H + column,
                              call.weight_sums + slice * call.H + column)
        column += COLUMN_BLOCK


cdef float target_dlogit(const Call *call, long row) noexcept nogil:
    """The target's dlogit: its exponential is left out of the products."""
    cdef double p = exp(<double> call.target_logits[row] - call.row_highest[row] - call.row_log_sum[row])
    return <float> ((p - (1 - call.label_smoothing)) * call.row_scale[row])


cdef void take_target(Call *call, long row, float *logit, float bias) noexcept nogil:
    """Keep the target's logit, and leave its exponential out."""
    call.target_logits[row] = logit[0] + bias
    logit[0] = -INFINITY


cdef void see_target(const Call *call, long slice, long row) noexcept nogil:
    """Compare the target with the highest logit so far; the sum of exponentials gets it last, exactly."""
    cdef long at = slice * call.stride + row
    call.highest[at] = max(call.highest[at], call.target_logits[row])


cdef void begin_dh(Call *call, long first, long words) noexcept nogil:
    """dh of the rows whose target is among some words: the target's part."""
    cdef long strip, at, row, column
    cdef float dlogit
    cdef const float *weight
    for strip in range(first // call.strip, ceil_div(first + words, call.strip)):
        for at in range(call.targets_before[strip], call.targets_before[strip + 1]):
            row = call.rows_by_target[at]
            dlogit = target_dlogit(call, row)
            weight = call.weight + call.targets[row] * call.H
            for column in range(call.H):
                call.dh[row * call.H + column] = dlogit * weight[column]


cdef void add_targets(Call *call, long first, long words, float *dweight, long row_length, float *dbias,
                      long dbias_step) noexcept nogil:
    """What the targets among some words of a strip add to their dW and db, and what smoothed labels take from them."""
    cdef long strip = first // call.strip, columns = call.H if makes_dweight(call) else 0, at, row, word, column
    cdef float dlogit
    for at in range(call.targets_before[strip], call.targets_before[strip + 1]):
        row = call.rows_by_target[at]
        word = call.targets[row] - first
        if 0 <= word < words:
            dlogit = target_dlogit(call, row)
            dbias[word * dbias_step] += dlogit
            for column in range(columns):
                dweight[word * row_length + column] += dlogit * call.h[row * call.H + column]
    for word in range(words if call.label_smoothing else 0):
        dbias[word * dbias_step] -= <float> call.shifts[call.H]
        for column in range(columns):
            dweight[word * row_length + column] -= <float> call.shifts[column]


cdef void add_shifts(Call *call) noexcept nogil:
    """Sum over the rows what smoothed labels take from each word's dlogit, and so from its db and dW."""
    cdef long row, column
    memset(call.shifts, 0, (call.H + 1) * sizeof(double))
    for row in range(call.B):
        call.shifts[call.H] += call.smoothing_shift[row]
        for column in range(call.H):
            call.shifts[column] += call.smoothing_shift[row] * call.h[row * call.H + column]


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


# ------------------------------------------------------------------------------------------------- products of float32


cdef void pack_lanes(void *context, long panel, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = panel * call.panel
    core.simd.pack(matrix(call.h + first * call.H, call.H, 1), call.H, min(call.panel, call.B - first),
                   NULL, call.h_lanes + first * call.H)


cdef float *block_of(Call *call, long first, int hand) noexcept nogil:
    """Return the memory for the logits, then exponentials, of the block that begins at word `first`."""
    return call.exponentials + (first if call.keep else hand * BLOCK) * call.stride


cdef void make_exponentials(Call *call, long slice, long first, long words, int hand, bint begins) noexcept nogil:
    """Compute the exponentials of a block relative to the slice's base, and add them to its sums.

    begins  whether the base is made first: the block's highest logits
    """
    cdef float *logits = block_of(call, first, hand)
    cdef const float *bias = call.bias + first if call.bias else NULL
    cdef long base = slice * call.stride, block = first // call.block, lane = 0, at, row, word
    while lane < call.lanes:
        core.simd.product(words, call.H, matrix(call.weight + first * call.H, call.H, 1),
                          call.h_lanes + lane * call.H, call.panel, min(call.panel, call.lanes - lane),
                          logits + lane, call.stride, 1, False)
        lane += call.panel
    if begins:
        core.simd.highest_logits(words, call.lanes, call.stride, bias, logits, call.base + base)
    for at in range(call.targets_before[block], call.targets_before[block + 1]):
        row = call.rows_by_target[at]
        word = call.targets[row] - first
        take_target(call, row, logits + word * call.stride + row, bias[word] if bias else 0)
    core.simd.exponentials(words, call.lanes, call.stride, bias, call.base + base, logits, call.highest + base,
                           call.sum + base)
    for at in range(call.targets_before[block], call.targets_before[block + 1]):
        see_target(call, slice, call.rows_by_target[at])


cdef void add_dh(Call *call, long slice, long first, long words, int hand) noexcept nogil:
    """dh^T += W^T e, the slice's part."""
    cdef float *part = call.dh_parts + slice * call.H * call.stride
    cdef float *e = block_of(call, first, hand)
    cdef long lane = 0
    while lane < call.lanes:
        core.simd.product(call.H, words, matrix(call.weight + first * call.H, 1, call.H), e + lane, call.stride,
                          min(call.panel, call.lanes - lane), part + lane, call.stride, 1,
                          first > first_word(call, slice))
        lane += call.panel


cdef void scale_h(Call *call, long slice, int hand) noexcept nogil:
    """Pack s h."""
    cdef const float *scale = call.factors + slice * call.stride
    cdef float *panels = call.h_columns + hand * call.columns * call.B
    cdef long column = 0
    while makes_dweight(call) and column < call.H:
        core.simd.pack(matrix(call.h + column, 1, call.H), call.B, min(call.panel, call.H - column), scale,
                       panels + column * call.B)
        column += call.panel


cdef void make_dweight(Call *call, long slice, long first, long words, int hand) noexcept nogil:
    """Compute db and dW of a block from its exponentials, and hand them back or update W."""
    cdef float[BLOCK] dbias
    cdef float *e = block_of(call, first, hand)
    cdef float *panels = call.h_columns + hand * call.columns * call.B
    cdef float *own_gradient = call.block_gradient + hand * BLOCK * call.H
    cdef float *dweight = own_gradient
    cdef bint past_the_cache = call.stream and not call.add
    cdef long row, column = 0
    if call.dweight and not past_the_cache:
        dweight = call.dweight + first * call.H
    while makes_dweight(call) and column < call.H:
        row = 0
        while row < call.B:
            core.simd.product(words, min(DEPTH_CHUNK, call.B - row), matrix(e + row, call.stride, 1),
                              panels + column * call.B + row * call.panel, call.panel,
                              min(call.panel, call.H - column), dweight + column, call.H, 1, call.add or row > 0)
            row += DEPTH_CHUNK
        column += call.panel
    core.simd.lane_sums(words, call.B, call.stride, e, call.factors + slice * call.stride, dbias)
    add_targets(call, first, words, dweight, call.H, dbias, 1)
    if call.dbias:
        hand_back(call, words, dbias, call.dbias + first)
    if call.rule:
        update_weight(call, first, words, own_gradient, call.H)
    elif past_the_cache:
        core.simd.stream(words, call.H, own_gradient, call.H, call.dweight + first * call.H)


cdef float smoothed(const Call *call, long row, long column) noexcept nogil:
    """What smoothed labels take from a number of dh."""
    return <float> (call.smoothing_shift[row] * call.weight_sum[column]) if call.label_smoothing else 0


cdef void end_dh(void *context, long slice, int hand) noexcept nogil:
    """Add the slices' parts to SLICE_COLUMNS columns of dh."""
    cdef Call *call = <Call *> context
    cdef float *total = call.scale + hand * call.stride
    cdef long column, row
    for column in range(slice * SLICE_COLUMNS, min((slice + 1) * SLICE_COLUMNS, call.H)):
        core.simd.add_slices(call.slices, call.H * call.stride, call.lanes, call.dh_parts + column * call.stride,
                             call.factors, call.stride, total)
        for row in range(call.B):
            call.dh[row * call.H + column] += total[row] - smoothed(call, row, column)


# ------------------------------------------------------------------------------------------- products of tiles of bf16


cdef void split_lanes(void *context, long panel, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = panel * PANEL
    split_right(core.tiles, matrix(call.h + first * call.H, call.H, 1), min(PANEL, call.B - first), call.H, call.planes,
                call.h_plane, call.h_pairs + first * round_up(call.H, TILE_DEPTH))


cdef bf16 *exponentials_of(Call *call, long first, int hand) noexcept nogil:
    """Return the memory for the exponentials of the words from `first` on."""
    return call.exponential_tiles + (first * call.stride if call.keep else hand * call.planes * call.kept_plane)


cdef bf16 *pairs_of(Call *call, int hand) noexcept nogil:
    return call.pairs + hand * call.planes * call.pairs_plane


cdef upcoming share_of_weights(const Call *call, long first, long panel) noexcept nogil:
    """The weights of a strip's words from `first` on, cut over the panels whose logits are made before."""
    cdef long words = min(call.strip, call.V - first), panels = call.stride // PANEL
    cdef long begin = words * panel // panels, end = words * (panel + 1) // panels
    return array_of(call.weight + (first + begin) * call.H, (end - begin) * call.H * sizeof(float))


cdef upcoming to_update(const Call *call, long first, long words) noexcept nogil:
    """What an update of some words reads, and writes."""
    cdef upcoming after = array_of(NULL, 0)
    if call.rule:
        after = array_of(call.weight + first * call.H, words * call.H * sizeof(float))
        after.arrays[1] = state_at(call.weight_state, first * call.H)
        after.arrays[2] = state_at(call.weight_state2, first * call.H)
    return after


cdef void make_exponential_tiles(Call *call, long slice, long first, long words, int hand,
                                 bint begins) noexcept nogil:
    cdef float *highest = call.highest + slice * call.stride
    cdef float *sum = call.sum + slice * call.stride
    cdef float *base = call.base + slice * call.stride
    cdef bf16 *weights = call.weight_tiles + hand * call.planes * call.weight_plane
    cdef bf16 *tiles = exponentials_of(call, first, hand) if call.store and wants_products(call) else NULL
    cdef bf16 *pairs = pairs_of(call, hand) if call.store and call.dh else NULL
    cdef float *logits = call.panel_logits + hand * call.strip * PANEL
    cdef const float *bias
    cdef long height = round_up(words, PANEL), strip, word, some, panel, lane, at, chosen, row, target
    for strip in range(first // call.strip, ceil_div(first + words, call.strip)):
        word = strip * call.strip
        some = min(call.strip, first + words - word)
        bias = call.bias + word if call.bias else NULL
        split_left(core.tiles, matrix(call.weight + word * call.H, call.H, 1), some, call.H, call.planes,
                   call.weight_plane, weights)
        at = call.targets_before[strip]
        for panel in range(call.stride // PANEL):
            lane = panel * PANEL
            core.tiles.product(
                round_up(some, PANEL) // TILE,
                PANEL // TILE,
                call.H,
                call.planes,
                consecutive(weights, call.weight_plane, call.H),
                consecutive(call.h_pairs + lane * round_up(call.H, TILE_DEPTH), call.h_plane, call.H),
                rows_of(logits, PANEL),
                False,
                share_of_weights(call, word + some, panel),
            )
            if begins and word == first:
                core.tiles.highest_logits(some, bias, logits, base + lane)
            chosen = at
            while at < call.targets_before[strip + 1] and call.rows_by_target[at] < lane + PANEL:
                row = call.rows_by_target[at]
                target = call.targets[row] - word
                take_target(call, row, logits + target * PANEL + row - lane, bias[target] if bias else 0)
                at += 1
            core.tiles.exponentials(
                some,
                bias,
                logits,
                base + lane,
                highest + lane,
                sum + lane,
                call.planes,
                call.past_the_cache,
                call.kept_plane,
                tiles + lane * height + (word - first) * PANEL if tiles else NULL,
                call.pairs_plane,
                height * TILE,
                pairs + lane * height + (word - first) * TILE if pairs else NULL,
            )
            for chosen in range(chosen, at):
                see_target(call, slice, call.rows_by_target[chosen])


cdef void add_dh_tiles(Call *call, long slice, long first, long words, int hand) noexcept nogil:
    """dh^T += W^T e, the slice's part."""
    cdef bf16 *weights = call.weight_tiles + hand * call.planes * call.weight_plane
    split_left(core.tiles, matrix(call.weight + first * call.H, 1, call.H), call.H, words, call.planes,
               call.weight_plane, weights)
    core.tiles.product(
        call.columns // TILE,
        call.stride // TILE,
        words,
        call.planes,
        consecutive(weights, call.weight_plane, words),
        consecutive(pairs_of(call, hand), call.pairs_plane, words),
        result(call.dh_parts + slice * call.stride * call.columns, TILE, TILE * TILE, TILE * call.columns),
        first > first_word(call, slice),
        array_of(NULL, 0),
    )


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


cdef bf16 *scaled_h(Call *call, int hand) noexcept nogil:
    return call.h_column_pairs + hand * call.planes * call.column_plane


cdef void scale_h_tiles(Call *call, long slice, int hand) noexcept nogil:
    """Make the right operand of [db dW] = e [s, s h].

    The first columns are s in two parts, so that db is no less exact for s being rounded.
    """
    cdef const float *scale = call.factors + slice * call.stride
    cdef float *parts = call.scale + 2 * hand * call.stride
    cdef bf16 *columns = scaled_h(call, hand)
    cdef long row, tile_column = round_up(call.B, TILE_DEPTH) * TILE
    for row in range(call.B):
        parts[2 * row] = widened(rounded(scale[row]))
        parts[2 * row + 1] = scale[row] - parts[2 * row]
    core.tiles.split_pairs(call.B, 2, 2, parts, NULL, call.planes, call.column_plane, tile_column, columns)
    if makes_dweight(call):
        core.tiles.split_pairs(call.B, call.H, call.H, call.h, scale, call.planes, call.column_plane, tile_column,
                               columns + tile_column)


cdef void make_dweight_tiles(Call *call, long slice, long first, long words, int hand) noexcept nogil:
    """Compute db and dW of some words from their exponentials, and hand them back or update W."""
    cdef bf16 *tiles = exponentials_of(call, first, hand)
    cdef long row_length = TILE + call.columns, column = 0 if call.dbias else 1
    cdef long columns = 1 + (ceil_div(call.H, TILE) if makes_dweight(call) else 0)
    cdef long tile_column = round_up(call.B, TILE_DEPTH) * TILE, height = round_up(words, PANEL)
    cdef float *sums = call.block_gradient + hand * PANEL * row_length
    cdef float *dweight = sums + TILE
    cdef float[PANEL] dbias
    cdef long panel, word, some, row
    for panel in range(ceil_div(words, PANEL)):
        word = first + panel * PANEL
        some = min(PANEL, first + words - word)
        core.tiles.product(
            PANEL // TILE,
            columns - column,
            call.B,
            call.planes,
            operand(tiles + panel * PANEL * PANEL, call.kept_plane, TILE_VALUES, height * PANEL),
            consecutive(scaled_h(call, hand) + column * tile_column, call.column_plane, call.B),
            rows_of(sums + column * TILE, row_length),
            False,
            to_update(call, word, some),
        )
        add_targets(call, word, some, dweight, row_length, sums, row_length)
        for row in range(some if call.dbias else 0):
            dbias[row] = sums[row * row_length] + sums[row * row_length + 1]
        if call.dbias:
            hand_back(call, some, dbias, call.dbias + word)
        if call.rule:
            update_weight(call, word, some, dweight, row_length)
        elif call.stream and not call.add:
            core.simd.stream(some, call.H, dweight, row_length, call.dweight + word * call.H)
        elif call.dweight:
            for row in range(some):
                hand_back(call, call.H, dweight + row * row_length, call.dweight + (word + row) * call.H)


cdef void end_dh_tiles(void *context, long panel, int hand) noexcept nogil:
    """Add the slices' parts to PANEL rows of dh."""
    cdef Call *call = <Call *> context
    cdef long lane = panel * PANEL, column = 0, row
    while column < call.H:
        core.tiles.add_turned(call.slices, call.stride * call.columns, TILE * call.columns,
                              call.dh_parts + lane * call.columns + column * TILE, call.factors + lane, call.stride,
                              call.B - lane, call.H - column, call.dh + lane * call.H + column, call.H)
        column += TILE
    for row in range(lane, min(lane + PANEL, call.B) if call.label_smoothing else lane):
        for column in range(call.H):
            call.dh[row * call.H + column] -= smoothed(call, row, column)


# ---------------------------------------------------------------------------------------------------------- the sweeps


cdef void go_through(Call *call, long slice, int hand, bint begins) noexcept nogil:
    """Sweep one over a slice."""
    cdef long first = first_word(call, slice), end = first_word(call, slice + 1), words
    start(call, slice)
    while first < end:
        words = min(call.block, end - first)
        call.steps.make_exponentials(call, slice, first, words, hand, begins)
        if call.keep and call.dh:
            call.steps.add_dh(call, slice, first, words, hand)
        begins = False
        first += words


cdef void sweep_one(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long lane = slice * call.stride
    if call.planes:
        core.tiles.begin()
    go_through(call, slice, hand, True)
    if far_above(call, slice):
        memcpy(call.base + lane, call.highest + lane, call.stride * sizeof(float))
        go_through(call, slice, hand, False)
    core.simd.settle(call.stride, call.highest + lane, call.base + lane, call.sum + lane)
    if call.planes:
        core.tiles.end()
    if call.label_smoothing:
        sum_weights(call, slice)


cdef void sweep_two(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long first = first_word(call, slice), end = first_word(call, slice + 1), lane = slice * call.stride, words
    if call.planes:
        core.tiles.begin()
    if not call.keep:
        memcpy(call.base + lane, call.row_highest, call.stride * sizeof(float))
        start(call, slice)
        if call.label_smoothing and not call.forward:
            sum_weights(call, slice)  # before they are updated; sweep one has done it else
    core.simd.rescale(call.stride, call.base + lane, call.row_highest, call.row_log_sum, call.row_scale,
                      call.factors + lane)
    if wants_products(call):
        call.steps.scale_h(call, slice, hand)
    while first < end:
        words = min(call.block, end - first)
        if not call.keep:
            call.steps.make_exponentials(call, slice, first, words, hand, False)
            if call.dh:
                call.steps.add_dh(call, slice, first, words, hand)
        if call.dh:
            begin_dh(call, first, words)
        if wants_products(call):
            call.steps.make_dweight(call, slice, first, words, hand)
        first += words
    if call.planes:
        core.tiles.end()


cdef Steps OF_FLOATS = Steps(make_exponentials, add_dh, scale_h, make_dweight)
cdef Steps OF_TILES = Steps(make_exponential_tiles, add_dh_tiles, scale_h_tiles, make_dweight_tiles)


# ------------------------------------------------------------------------------------------------------- the whole call


cdef void add_weight_sums(Call *call) noexcept nogil:
    cdef long slice, column, word
    if not call.label_smoothing:
        return
    memset(call.weight_sum, 0, (call.H + 1) * sizeof(double))
    for slice in range(call.slices):
        for column in range(call.H):
            call.weight_sum[column] += call.weight_sums[slice * call.H + column]
    for word in range(call.V if call.bias else 0):
        call.weight_sum[call.H] += call.bias[word]


cdef double mean_difference(const Call *call, long row) noexcept nogil:
    """Return the mean of logit - row_highest over the vocabulary."""
    cdef double total = call.weight_sum[call.H]
    cdef long column
    for column in range(call.H):
        total += call.weight_sum[column] * call.h[row * call.H + column]
    return total / call.V - call.row_highest[row]


cdef int combine_slices(Call *call, float *highest, float *log_sum, float *losses) except -1 nogil:
    cdef long row
    cdef double loss, row_log_sum
    core.simd.combine(call.slices, call.stride, call.highest, call.sum, call.row_highest, call.row_sum)
    for row in range(call.B):
        if call.targets[row] >= 0:
            call.row_sum[row] += exp(<double> call.target_logits[row] - call.row_highest[row])
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
    cdef bint go_on = True
    cdef long rows = call.B, first = 0
    cdef const float *h = call.h
    call.forward = losses is not None
    call.gradients = call.dh != NULL or call.dbias != NULL or makes_dweight(call)
    call.keep = call.gradients and call.forward
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
                                 <float *> &log_sum[first], &losses[first] if call.forward else NULL, threads)
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
    memset(call.base, 0, call.slices * call.stride * sizeof(float))
    core.run(split_lanes if call.planes else pack_lanes, call, ceil_div(call.B, call.panel), threads)
    if losses:
        call.store = call.keep
        core.run(sweep_one, call, call.slices, threads)
        add_weight_sums(call)
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
    if call.label_smoothing:
        add_shifts(call)
    if call.dh:
        memset(call.dh, 0, call.B * call.H * sizeof(float))
    call.store = True
    core.run(sweep_two, call, call.slices, threads)
    if not losses:
        add_weight_sums(call)
    if call.dh and call.planes:
        core.run(end_dh_tiles, call, ceil_div(call.B, PANEL), threads)
    elif call.dh:
        core.run(end_dh, call, ceil_div(call.H, SLICE_COLUMNS), threads)
    return True


cdef bint begin(Call *call, const float[:, ::1] h, const float[:, ::1] weight, const float[::1] bias, float[:, ::1] dh,
                float[:, ::1] dweight, float[::1] dbias, double label_smoothing, between,
                str fp32_precision) except -1:
    """Fill in the arguments; return False if there are no rows: then all gradients are 0."""
    call.planes = planes_of(core.tiles, fp32_precision)
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
