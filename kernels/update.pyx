"""The optimizers' updates, PyTorch's rules: for a dense gradient, and for the rows of a sparse one.

The form for rows walks the parameter with a pointer into the ascending ids: a row with a gradient gets it; the stretch
up to the next one gets zeros where the rule moves it all the same, and is not touched where it does not, or where the
caller has updated the other rows already (`only_rows`).
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from core cimport (
    adagrad_rule, adamw_rule, ceil_div, core_api, ids_t, import_core, momentum_rule, sgd_rule, state_at, update_rule
)

cdef const core_api *core = import_core()

cdef enum:
    SLICE = 65536      # elements
    SLICE_ROWS = 2048


ctypedef struct Dense:
    const update_rule *rule
    long n
    const float *grad
    float *state
    float *state2
    float *param


cdef void dense_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Dense *call = <Dense *> context
    cdef long first = slice * SLICE
    core.simd.update(call.rule, min(SLICE, call.n - first), call.grad + first, state_at(call.state, first),
                     state_at(call.state2, first), call.param + first)


cdef update_dense(update_rule rule, grad, state, state2, param, int threads):
    cdef const float[::1] grad_flat = grad.reshape(-1)
    cdef float[::1] param_flat = param.reshape(-1), flat
    cdef Dense call
    call.rule, call.n, call.state, call.state2 = &rule, grad_flat.shape[0], NULL, NULL
    if call.n == 0:
        return
    call.grad, call.param = &grad_flat[0], &param_flat[0]
    if state is not None:
        flat = state.reshape(-1)
        call.state = &flat[0]
    if state2 is not None:
        flat = state2.reshape(-1)
        call.state2 = &flat[0]
    with nogil:
        core.run(dense_slice, &call, ceil_div(call.n, SLICE), threads)


def update_sgd(grad, param, *, double lr, double weight_decay=0.0, int threads=1):
    """param -= lr * (grad + weight_decay * param)."""
    update_dense(sgd_rule(lr, weight_decay), grad, None, None, param, threads)


def update_momentum(grad, velocity, param, *, double lr, double momentum=0.9, double weight_decay=0.0, int threads=1):
    """velocity = momentum * velocity + grad + weight_decay * param; param -= lr * velocity."""
    update_dense(momentum_rule(lr, momentum, weight_decay), grad, velocity, None, param, threads)


def update_adagrad(grad, squares, param, *, double lr, double eps=1e-10, double weight_decay=0.0, int threads=1):
    """squares += g^2; param -= lr * g / (sqrt(squares) + eps)."""
    update_dense(adagrad_rule(lr, eps, weight_decay), grad, squares, None, param, threads)


def update_adamw(grad, mean, square, param, *, double lr, long step, double beta1=0.9, double beta2=0.999,
                 double eps=1e-8, double weight_decay=0.01, int threads=1):
    """Adam with decoupled weight decay; `step` is 1 for the first update."""
    update_dense(adamw_rule(lr, step, beta1, beta2, eps, weight_decay), grad, mean, square, param, threads)


ctypedef struct Rows:
    const update_rule *rule
    bint every_row      # rows without a gradient move too
    long unique
    long V
    long D
    const int64_t *rows
    const float *drows
    float *state
    float *state2
    float *param


cdef void apply_rows(const Rows *call, long first, long last, const float *grad) noexcept nogil:
    """Update rows first..last - 1 by their gradient `grad`, NULL for zeros."""
    cdef long at = first * call.D
    core.simd.update(call.rule, (last - first) * call.D, grad, state_at(call.state, at), state_at(call.state2, at),
                     call.param + at)


cdef void rows_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Rows *call = <Rows *> context
    cdef long row = slice * SLICE_ROWS, last = min(row + SLICE_ROWS, call.V), following
    cdef long i = 0, high = call.unique, middle
    while i < high:  # binary search: the first id in this slice or after it
        middle = (i + high) // 2
        if call.rows[middle] < row:
            i = middle + 1
        else:
            high = middle
    while row < last:
        following = min(call.rows[i], last) if i < call.unique else last
        if call.every_row and following > row:
            apply_rows(call, row, following, NULL)
        if following < last:
            apply_rows(call, following, following + 1, call.drows + i * call.D)
            i += 1
        row = following + 1


cdef update_rows(update_rule rule, bint every_row, const ids_t[::1] rows, const float[:, ::1] drows,
                 float[:, ::1] state, float[:, ::1] state2, float[:, ::1] param, int threads):
    cdef Rows call
    cdef int64_t *wide
    cdef long i
    call.rule, call.every_row, call.unique = &rule, every_row, rows.shape[0]
    call.V, call.D = param.shape[0], param.shape[1]
    if call.V == 0 or call.D == 0:
        return
    if not every_row and call.unique * call.D < SLICE:
        threads = 1  # so little is not worth waking another
    wide = <int64_t *> malloc((call.unique + 1) * sizeof(int64_t))
    if wide == NULL:
        raise MemoryError("update: no memory for the ids")
    call.rows, call.param = wide, &param[0, 0]
    call.drows = &drows[0, 0] if call.unique > 0 else NULL
    call.state = &state[0, 0] if state is not None else NULL
    call.state2 = &state2[0, 0] if state2 is not None else NULL
    with nogil:
        for i in range(call.unique):
            wide[i] = rows[i]
        core.run(rows_slice, &call, ceil_div(call.V, SLICE_ROWS), threads)
        free(wide)


def update_sgd_rows(const ids_t[::1] rows, const float[:, ::1] drows, float[:, ::1] param, *, double lr,
                    double weight_decay=0.0, bint only_rows=False, int threads=1):
    """update_sgd for a sparse gradient."""
    update_rows[ids_t](sgd_rule(lr, weight_decay), weight_decay != 0 and not only_rows, rows, drows, None, None, param,
                       threads)


def update_momentum_rows(const ids_t[::1] rows, const float[:, ::1] drows, float[:, ::1] velocity,
                         float[:, ::1] param, *, double lr, double momentum=0.9, double weight_decay=0.0,
                         bint only_rows=False, int threads=1):
    """update_momentum for a sparse gradient; every row moves, as its velocity does, unless `only_rows`."""
    update_rows[ids_t](momentum_rule(lr, momentum, weight_decay), not only_rows, rows, drows, velocity, None, param,
                       threads)


def update_adagrad_rows(const ids_t[::1] rows, const float[:, ::1] drows, float[:, ::1] squares,
                        float[:, ::1] param, *, double lr, double eps=1e-10, double weight_decay=0.0,
                        bint only_rows=False, int threads=1):
    """update_adagrad for a sparse gradient."""
    update_rows[ids_t](adagrad_rule(lr, eps, weight_decay), weight_decay != 0 and not only_rows, rows, drows, squares,
                       None, param, threads)


def update_adamw_rows(const ids_t[::1] rows, const float[:, ::1] drows, float[:, ::1] mean, float[:, ::1] square,
                      float[:, ::1] param, *, double lr, long step, double beta1=0.9, double beta2=0.999,
                      double eps=1e-8, double weight_decay=0.01, bint only_rows=False, int threads=1):
    """update_adamw for a sparse gradient; every row moves, as its running mean does, unless `only_rows`."""
    update_rows[ids_t](adamw_rule(lr, step, beta1, beta2, eps, weight_decay), not only_rows, rows, drows, mean, square,
                       param, threads)


# -------------------------------------------------------------------------- for the ops that update where they multiply


def _sgd(*, double lr, double weight_decay=0.0):
    return sgd_rule(lr, weight_decay)


def _momentum(*, double lr, double momentum=0.9, double weight_decay=0.0):
    return momentum_rule(lr, momentum, weight_decay)


def _adagrad(*, double lr, double eps=1e-10, double weight_decay=0.0):
    return adagrad_rule(lr, eps, weight_decay)


def _adamw(*, double lr, long step, double beta1=0.9, double beta2=0.999, double eps=1e-8, double weight_decay=0.01):
    return adamw_rule(lr, step, beta1, beta2, eps, weight_decay)


RULES = {"sgd": (_sgd, 0), "momentum": (_momentum, 1), "adagrad": (_adagrad, 1), "adamw": (_adamw, 2)}


def rule_of(str op, str rule, weight_state, weight_state2):
    """Return what makes an update_rule of options, and how many arrays of state the rule has; `op` is for errors."""
    if rule not in RULES:
        raise ValueError(f"{op}: rule: expected one of {', '.join(RULES)}, got {rule!r}")
    make_rule, states = RULES[rule]
    if (states > 0 and weight_state is None) or (states > 1 and weight_state2 is None):
        raise ValueError(f"{op}: {rule} needs {states} arrays of state for weight")
    return make_rule, states
