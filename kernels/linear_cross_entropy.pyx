"""The last layer, softmax and cross entropy in one: 98 % of a training step.

The vocabulary is cut into slices, a function of its size alone, which the threads take as they come free; a slice is
walked in blocks of BLOCK words, whose weights stay in the cache while they are used. In a block the logits are
transposed, (words, lanes): the rows of the batch lie side by side, padded to whole vectors, so that the weights are
read where they lie and every sum over words is vertical.

    sweep one, a slice at a time                               what a slice hands back
        logits = W h^T + b                                         highest  (lanes)  of its logits
        highest, sum: running over the blocks                      sum      (lanes)  of exp(logit - highest)
        e = exp(logits - highest)       kept: (V, lanes)           the logits of the targets in it
    the slices are put together: lse, losses
    sweep two, a slice at a time
        p = (e * exp(highest - lse) - truth) * row_scale           in place of e; highest as it was for that block
        dh^T += W^T p                                              dh^T  (H, lanes), added up in slice order
        dW = p h, db = sum of p                                    or, at once, the update of W and b by them

Work memory, in floats, beside the arguments; L is B padded to whole vectors and an odd number of cache lines, S the
number of slices (at most 64), n the threads:

    forward    (H + 3 S + n BLOCK + 8) L                       nothing of the size of B V
    backward   the same + H B + (S H + n) L + n BLOCK (H + 1)  dh's parts, and a block's gradient
    both       the same + (V + V / BLOCK) L for the exponentials, where V L is at most KEEP_AT_MOST; beyond it nothing
               of the size of B V either: the logits are made again, exactly, in sweep two
    update     as both: there is no gradient of the size of W
"""

from libc.float cimport FLT_MAX
from libc.math cimport NAN, isfinite, log
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from core cimport (
    adagrad_rule, adamw_rule, core_api, ids_t, import_core, matrix, momentum_rule, sgd_rule, update_rule
)

cdef const core_api *core = import_core()

cdef enum:
    BLOCK = 120                # words: a multiple of every variant's tile rows
    CACHE_LINE = 16            # floats
    SLICES_AT_MOST = 64
    STREAM_FROM = 1 << 21      # floats of dW: more than the caches would keep for whoever reads it next
    DEPTH_CHUNK = 512          # rows of the batch that dW sums in one go, so that its error does not grow with them
    KEEP_AT_MOST = 1 << 26     # floats of exponentials that are kept between the sweeps: 256 MiB
    SLICE_COLUMNS = 16         # of dh, when the slices' parts are added up


ctypedef struct Call:
    long B
    long H
    long V
    long lanes              # B padded to whole vectors
    long stride             # floats between the words of a block of logits
    long panel              # lanes of a panel
    long blocks
    long slices
    bint keep               # the exponentials of sweep one serve sweep two
    double label_smoothing
    const float *h          # (B, H)
    float *weight           # (V, H), written where `rule` is set
    float *bias             # (V,) or NULL, likewise
    float *dh               # (B, H)
    float *dweight          # (V, H); NULL where the gradients go into an update
    float *dbias            # (V,) or NULL
    const update_rule *rule  # NULL, or what to do with the gradients at once; the state that it keeps, or NULL:
    float *weight_state     # (V, H)
    float *weight_state2    # (V, H)
    float *bias_state       # (V,)
    float *bias_state2      # (V,)
    # work memory; (stride) arrays are one float a lane, 0 in the padding
    int64_t *targets        # (B,) ids, -1 for an ignored row
    float *row_scale        # (stride) and four more of its kind in one piece
    float *smoothing_shift  # (stride) row_scale * label_smoothing / V
    float *lse              # (stride)
    float *target_logits    # (stride)
    float *row_highest      # (stride)
    double *row_sum         # (stride)
    float *highest          # (slices, stride)
    float *sum              # (slices, stride)
    float *logit_sum        # (slices, stride)
    float *block_highest    # (blocks, stride) `highest` as each block left it
    float *h_lanes          # (panels of lanes, H, panel): h^T
    float *h_columns        # (panels of columns, B, panel): h
    float *exponentials     # (V, stride) where they are kept, else (threads, BLOCK, stride)
    float *dh_parts         # (slices, H, stride)
    float *scale            # (threads, stride)
    bint stream             # dW is large: its blocks are made in the cache and copied past it
    float *block_gradient   # (threads, BLOCK, H + 1) where a block's gradient is made for an update or the copy: dW, db


cdef long ceil_div(long a, long b) noexcept nogil:
    return (a + b - 1) // b


cdef void set_sizes(Call *call) noexcept nogil:
    cdef long vector = core.simd.lanes
    call.panel = 2 * vector
    call.lanes = ceil_div(call.B, vector) * vector
    call.stride = ceil_div(call.lanes, CACHE_LINE) * CACHE_LINE
    if call.stride >= 8 * CACHE_LINE and call.stride % (2 * CACHE_LINE) == 0:
        call.stride += CACHE_LINE  # a stride of a power of two would crowd a block into few sets of the cache
    call.blocks = ceil_div(call.V, BLOCK)
    call.slices = min(call.blocks, min(SLICES_AT_MOST, max(16, call.blocks // 8)))
    call.stream = call.dweight != NULL and call.V * call.H >= STREAM_FROM
    call.keep = call.keep and call.V * call.stride <= KEEP_AT_MOST


cdef void *carve(char **at, size_t size) noexcept nogil:
    """The next `size` bytes of the work memory, in whole cache lines; with *at = NULL only the sum is kept."""
    cdef char *here = at[0]
    at[0] += ceil_div(size, 64) * 64
    return here


cdef size_t lay_out(Call *call, char *work, bint gradients, size_t threads) noexcept nogil:
    """Point the arrays of the call into `work`; returns the bytes that takes."""
    cdef char *at = work
    cdef size_t lane_array = call.stride * sizeof(float), own_gradients
    call.targets = <int64_t *> carve(&at, call.B * sizeof(int64_t))
    call.row_scale = <float *> carve(&at, 5 * lane_array)
    call.smoothing_shift = call.row_scale + call.stride
    call.lse = call.smoothing_shift + call.stride
    call.target_logits = call.lse + call.stride
    call.row_highest = call.target_logits + call.stride
    call.row_sum = <double *> carve(&at, call.stride * sizeof(double))
    call.highest = <float *> carve(&at, call.slices * lane_array)
    call.sum = <float *> carve(&at, call.slices * lane_array)
    call.logit_sum = <float *> carve(&at, call.slices * lane_array)
    call.block_highest = <float *> carve(&at, call.blocks * lane_array if call.keep else 0)
    call.h_lanes = <float *> carve(&at, ceil_div(call.lanes, call.panel) * call.panel * call.H * sizeof(float))
    call.exponentials = <float *> carve(&at, (call.V if call.keep else threads * BLOCK) * lane_array)
    if gradients:
        call.h_columns = <float *> carve(&at, ceil_div(call.H, call.panel) * call.panel * call.B * sizeof(float))
        call.dh_parts = <float *> carve(&at, call.slices * call.H * lane_array)
        call.scale = <float *> carve(&at, threads * lane_array)
        own_gradients = threads * BLOCK * (call.H + 1) if call.rule or call.stream else 0
        call.block_gradient = <float *> carve(&at, own_gradients * sizeof(float))
    return at - work


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
    """Where the block that begins with word `first` has its logits, then exponentials, then gradients."""
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
    cdef float *logit_sum = call.logit_sum + slice * call.stride
    cdef float *logits
    cdef const float *bias
    cdef long lane, block, first, words, row, word
    for lane in range(call.stride):
        highest[lane] = -FLT_MAX
        sum[lane] = 0
        logit_sum[lane] = 0
    for block in range(slice * call.blocks // call.slices, (slice + 1) * call.blocks // call.slices):
        first = block * BLOCK
        words = min(BLOCK, call.V - first)
        bias = call.bias + first if call.bias else NULL
        logits = block_of(call, first, hand)
        make_logits(call, first, words, logits)
        for row in range(call.B):
            word = call.targets[row] - first
            if 0 <= word < words:
                call.target_logits[row] = logits[word * call.stride + row] + (bias[word] if bias else 0)
        core.simd.exponentials(words, call.lanes, call.stride, bias, logits, highest, sum,
                               logit_sum if call.label_smoothing else NULL)
        if call.keep:
            memcpy(call.block_highest + block * call.stride, highest, call.stride * sizeof(float))


cdef void update_block(Call *call, long first, long words, const float *dweight, const float *dbias) noexcept nogil:
    cdef long at = first * call.H
    core.simd.update(call.rule, words * call.H, dweight, call.weight_state + at if call.weight_state else NULL,
                     call.weight_state2 + at if call.weight_state2 else NULL, call.weight + at)
    if call.bias:
        core.simd.update(call.rule, words, dbias, call.bias_state + first if call.bias_state else NULL,
                         call.bias_state2 + first if call.bias_state2 else NULL, call.bias + first)


cdef void sweep_two(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef float *parts = call.dh_parts + slice * call.H * call.stride
    cdef float *scale = call.scale + hand * call.stride
    cdef float *own_gradient = call.block_gradient + hand * BLOCK * (call.H + 1)
    cdef float *dweight
    cdef float *p
    cdef long block, first, words, row, word, column, lane
    cdef long first_block = slice * call.blocks // call.slices
    for block in range(first_block, (slice + 1) * call.blocks // call.slices):
        first = block * BLOCK
        words = min(BLOCK, call.V - first)
        p = block_of(call, first, hand)
        if call.keep:
            core.simd.rescale(call.lanes, call.block_highest + block * call.stride, call.lse, call.row_scale, scale)
        else:
            scale = call.row_scale
            make_logits(call, first, words, p)
            core.simd.probabilities(words, call.lanes, call.stride, call.bias + first if call.bias else NULL, call.lse,
                                    p)
        core.simd.scale_lanes(words, call.lanes, call.stride, scale, call.smoothing_shift, p)
        for row in range(call.B):
            word = call.targets[row] - first
            if 0 <= word < words:
                p[word * call.stride + row] -= <float> ((1 - call.label_smoothing) * call.row_scale[row])
        lane = 0
        while lane < call.lanes:  # dh^T += W^T p
            core.simd.product(call.H, words, matrix(call.weight + first * call.H, 1, call.H), p + lane, call.stride,
                              min(call.panel, call.lanes - lane), parts + lane, call.stride, 1, block > first_block)
            lane += call.panel
        dweight = own_gradient if call.rule or call.stream else call.dweight + first * call.H
        column = 0
        while column < call.H:  # dW = p h
            row = 0
            while row < call.B:
                core.simd.product(words, min(DEPTH_CHUNK, call.B - row), matrix(p + row, call.stride, 1),
                                  call.h_columns + column * call.B + row * call.panel, call.panel,
                                  min(call.panel, call.H - column), dweight + column, call.H, 1, row > 0)
                row += DEPTH_CHUNK
            column += call.panel
        if call.rule:
            core.simd.lane_sums(words, call.B, call.stride, p, own_gradient + BLOCK * call.H)
            update_block(call, first, words, own_gradient, own_gradient + BLOCK * call.H)
        elif call.stream:
            core.simd.stream(words * call.H, own_gradient, call.dweight + first * call.H)
        if call.dbias:
            core.simd.lane_sums(words, call.B, call.stride, p, call.dbias + first)


cdef void add_dh(void *context, long slice, int hand) noexcept nogil:
    """SLICE_COLUMNS columns of dh, from the slices' parts."""
    cdef Call *call = <Call *> context
    cdef float *total = call.scale + hand * call.stride
    cdef long column, row
    for column in range(slice * SLICE_COLUMNS, min((slice + 1) * SLICE_COLUMNS, call.H)):
        core.simd.add_slices(call.slices, call.H * call.stride, call.lanes, call.dh_parts + column * call.stride, total)
        for row in range(call.B):
            call.dh[row * call.H + column] = total[row]


cdef void put_slices_together(Call *call, float *lse, float *losses) noexcept nogil:
    cdef long row, slice
    cdef double loss, logit_sum, row_lse
    core.simd.combine(call.slices, call.stride, call.highest, call.sum, call.row_highest, call.row_sum)
    for row in range(call.B):
        row_lse = call.row_highest[row] + log(call.row_sum[row])
        lse[row] = call.lse[row] = <float> row_lse
        loss = 0
        if call.targets[row] >= 0:
            loss = (1 - call.label_smoothing) * (row_lse - call.target_logits[row])
            if call.label_smoothing:
                logit_sum = 0
                for slice in range(call.slices):
                    logit_sum += call.logit_sum[slice * call.stride + row]
                loss += call.label_smoothing * (row_lse - logit_sum / call.V)
        losses[row] = <float> loss


cdef bint all_finite(const float[::1] losses) noexcept nogil:
    cdef long row
    for row in range(losses.shape[0]):
        if not isfinite(losses[row]):
            return False
    return True


cdef bint run(Call *call, const ids_t[::1] targets, const float[::1] row_scale, const float[::1] lse_kept,
              float[::1] lse, float[::1] losses, int threads) except -1:
    """Sweep one unless lse_kept is given, sweep two where the call has a place for gradients.

    False where an update is given up because a loss is infinite or no number; dh is then NaN.
    """
    cdef bint gradients = call.dh != NULL
    cdef bint forward = lse_kept is None
    cdef bint go_on = True
    cdef long row
    call.keep = gradients and forward
    set_sizes(call)
    threads = min(threads, SLICES_AT_MOST)  # more could not work at once, but each has memory of its own
    cdef size_t needed = lay_out(call, NULL, gradients, threads)
    cdef void *work = core.take(needed)
    if work == NULL:
        raise MemoryError(f"linear_cross_entropy: no memory for {needed:,} bytes")
    with nogil:
        lay_out(call, <char *> work, gradients, threads)
        memset(call.row_scale, 0, 5 * call.stride * sizeof(float))  # and the four arrays behind it
        for row in range(call.B):
            call.targets[row] = targets[row] if row_scale[row] != 0 else -1
            call.row_scale[row] = row_scale[row]
            call.smoothing_shift[row] = <float> (row_scale[row] * call.label_smoothing / call.V)
        core.run(pack_lanes, call, ceil_div(call.B, call.panel), threads)
        if forward:
            core.run(sweep_one, call, call.slices, threads)
            put_slices_together(call, &lse[0], &losses[0])
            go_on = call.rule == NULL or all_finite(losses)
        else:
            memcpy(call.lse, &lse_kept[0], call.B * sizeof(float))
        if not go_on:
            for row in range(call.B * call.H):
                call.dh[row] = NAN
        elif gradients:
            core.run(pack_columns, call, ceil_div(call.H, call.panel), threads)
            core.run(sweep_two, call, call.slices, threads)
            core.run(add_dh, call, ceil_div(call.H, SLICE_COLUMNS), threads)
        core.give(work)
    return go_on


cdef bint begin(Call *call, const float[:, ::1] h, const float[:, ::1] weight, const float[::1] bias, float[:, ::1] dh,
                float[:, ::1] dweight, float[::1] dbias, double label_smoothing) except -1:
    """Fill in the arguments; False where there is nothing to do."""
    call.B, call.H, call.V = h.shape[0], h.shape[1], weight.shape[0]
    call.label_smoothing = label_smoothing
    if call.V == 0:
        raise ValueError("linear_cross_entropy: weight: expected at least one word, got none")
    call.dh = call.dweight = call.dbias = NULL
    call.rule = NULL
    call.weight_state = call.weight_state2 = call.bias_state = call.bias_state2 = NULL
    if dweight is not None:
        call.dweight = &dweight[0, 0]
    if dbias is not None:
        call.dbias = &dbias[0]
    if call.B == 0:
        if dweight is not None:
            dweight[:, :] = 0
        if dbias is not None:
            dbias[:] = 0
        return False
    if dh is not None:
        call.dh = &dh[0, 0]
    call.h, call.weight = &h[0, 0], <float *> &weight[0, 0]
    call.bias = <float *> &bias[0] if bias is not None else NULL
    return True


def linear_cross_entropy_forward(const float[:, ::1] h, const float[:, ::1] weight, const float[::1] bias,
                                 const ids_t[::1] targets, const float[::1] row_scale, float[::1] lse,
                                 float[::1] losses, *, double label_smoothing=0.0, int threads=1):
    """lse and losses of the rows of the batch."""
    cdef Call call
    if begin(&call, h, weight, bias, None, None, None, label_smoothing):
        run[ids_t](&call, targets, row_scale, None, lse, losses, threads)


def linear_cross_entropy_backward(const float[:, ::1] h, const float[:, ::1] weight, const float[::1] bias,
                                  const ids_t[::1] targets, const float[::1] row_scale, const float[::1] lse,
                                  float[:, ::1] dh, float[:, ::1] dweight, float[::1] dbias, *,
                                  double label_smoothing=0.0, int threads=1):
    """The gradients, with the logits made again."""
    cdef Call call
    if begin(&call, h, weight, bias, dh, dweight, dbias, label_smoothing):
        run[ids_t](&call, targets, row_scale, lse, None, None, threads)


def linear_cross_entropy(const float[:, ::1] h, const float[:, ::1] weight, const float[::1] bias,
                         const ids_t[::1] targets, const float[::1] row_scale, float[::1] lse, float[::1] losses,
                         float[:, ::1] dh, float[:, ::1] dweight, float[::1] dbias, *, double label_smoothing=0.0,
                         int threads=1):
    """Losses and gradients in one: the exponentials are made once."""
    cdef Call call
    if begin(&call, h, weight, bias, dh, dweight, dbias, label_smoothing):
        run[ids_t](&call, targets, row_scale, None, lse, losses, threads)


def _sgd(*, double lr, double weight_decay=0.0):
    return sgd_rule(lr, weight_decay)


def _momentum(*, double lr, double momentum=0.9, double weight_decay=0.0):
    return momentum_rule(lr, momentum, weight_decay)


def _adagrad(*, double lr, double eps=1e-10, double weight_decay=0.0):
    return adagrad_rule(lr, eps, weight_decay)


def _adamw(*, double lr, long step, double beta1=0.9, double beta2=0.999, double eps=1e-8, double weight_decay=0.01):
    return adamw_rule(lr, step, beta1, beta2, eps, weight_decay)


RULES = {"sgd": (_sgd, 0), "momentum": (_momentum, 1), "adagrad": (_adagrad, 1), "adamw": (_adamw, 2)}


def linear_cross_entropy_update(const float[:, ::1] h, float[:, ::1] weight, float[::1] bias,
                                const ids_t[::1] targets, const float[::1] row_scale, float[:, ::1] weight_state,
                                float[:, ::1] weight_state2, float[::1] bias_state, float[::1] bias_state2,
                                float[::1] lse, float[::1] losses, float[:, ::1] dh, *, str rule,
                                double label_smoothing=0.0, int threads=1, **options):
    """Losses, dh and the update of weight and bias in one; a block's gradient never leaves the cache."""
    cdef Call call
    cdef update_rule the_rule
    if rule not in RULES:
        raise ValueError(f"linear_cross_entropy_update: rule: expected one of {', '.join(RULES)}, got {rule!r}")
    make_rule, states = RULES[rule]
    if ((states > 0 and (weight_state is None or (bias is not None and bias_state is None)))
            or (states > 1 and (weight_state2 is None or (bias is not None and bias_state2 is None)))):
        raise ValueError(f"linear_cross_entropy_update: {rule} needs {states} arrays of state for each parameter")
    the_rule = make_rule(**options)
    if not begin(&call, h, weight, bias, dh, None, None, label_smoothing):
        return True
    call.rule = &the_rule
    if states > 0:
        call.weight_state = &weight_state[0, 0]
        call.bias_state = &bias_state[0] if bias is not None else NULL
    if states > 1:
        call.weight_state2 = &weight_state2[0, 0]
        call.bias_state2 = &bias_state2[0] if bias is not None else NULL
    return run[ids_t](&call, targets, row_scale, None, lse, losses, threads)
