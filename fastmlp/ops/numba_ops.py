"""The ops in Numba: what runs where no compiler is. reference.py says what each op computes; here it says how.

An op cuts its problem into slices and hands them to a team of threads (team.py); a kernel, jitted, works on one slice.

 a. Numba has no vector types: LLVM vectorises innermost loops. So these run along contiguous memory, are as long as can
    be, have no branch, and read what they use several times into names before they write.
 b. Numba has no vector exp and tanh: they are written out below, as arithmetic that vectorises.
 c. No BLAS: its threads would fight ours, and np.dot in a jitted function needs SciPy. Two products are enough: rows
    times rows (x W^T) and rows times matrix (dy W, dy^T x).
 d. What takes long to compile gets its inputs as read-only views, and targets as int64: whatever the caller's arrays
    are, it is compiled for one set of types.
 e. A Python float is a float64 and makes all it meets one: numbers in float32 arithmetic are np.float32.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import njit

from fastmlp.ops.reference import dense_gradient, rule_of
from fastmlp.ops.team import cut, run_slices

Array = np.ndarray
Pieces = Callable[[int, int], tuple[Array, Array]]  # of a slice of the words: where its dweight and dbias go

SMALLEST = 2**17  # numbers an elementwise slice has at least: some 30 us of work, less is not worth waking a thread
SMALLEST_PRODUCT = 2**20  # multiplications a slice of a product has at least, likewise
BLOCK = 128  # words that go through the last layer at once: 128 rows of 300 weights stay in a core's second-level cache
PANEL = 128  # rows of the other operand that a product uses again and again before it turns to the next ones
LANES = 64  # running maxima side by side
PIECE = 4096  # numbers added up in float32 before their sum is added to one in float64
MOST_KEPT = (
    256 * 2**20
)  # bytes of exponentials that linear_cross_entropy keeps; were it more, it makes the logits again


def _compiled(function: Callable[..., Any], fastmath: set[str]) -> Any:
    """Compile on first use: without the GIL, 0/0 is NaN and no exception, machine code kept in Numba's cache folder."""
    try:
        return njit(nogil=True, error_model="numpy", fastmath=fastmath, cache=True)(function)
    except RuntimeError:  # "no locator available": no folder to write to, so each process compiles its own
        return njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)


def jit(function: Callable[..., Any]) -> Any:
    """A kernel whose products and sums may become fused multiply-adds. NaN and infinity are as IEEE says."""
    return _compiled(function, {"contract"})


def jit_any_order(function: Callable[..., Any]) -> Any:
    """A kernel whose sums may also be taken in any order, so that a loop that adds into one number is vectorised."""
    return _compiled(function, {"contract", "reassoc"})


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _rows_worth_waking(matrix: Array) -> int:
    """How many rows of `matrix` an elementwise slice has at least."""
    return int(max(1, SMALLEST // max(1, matrix.shape[1])))


def _bias_or_zeros(bias: Array | None, size: int) -> Array:
    return _read_only(np.zeros(size, np.float32) if bias is None else bias)


def _for_each_element(kernel: Callable[..., None], arrays: Sequence[Array], threads: int, *numbers: Any) -> None:
    """Run `kernel(*arrays, *numbers)` on slices of arrays of one shape, flattened."""
    flat = [array.reshape(-1) for array in arrays]
    slices = cut(flat[0].size, SMALLEST)
    if len(slices) == 1:
        kernel(*flat, *numbers)
    else:
        run_slices(lambda first, last: kernel(*(array[first:last] for array in flat), *numbers), slices, threads)


_spare: deque[Array] = deque(maxlen=1)  # pop and append are atomic: no lock that a fork could leave locked


@contextmanager
def _work_arrays(*shapes: tuple[int, ...]) -> Iterator[list[Array]]:
    """Float32 arrays to work in, uninitialised, cut from one buffer that is kept for the next call.

    A fresh buffer of 60 MB would cost page faults at every step. One is kept per process, at most as large as the
    largest call wanted; a second caller at the same time makes its own. After an error, when another thread may still
    write to it, it is dropped.
    """
    sizes = [math.prod(shape) for shape in shapes]
    try:
        buffer = _spare.pop()
    except IndexError:
        buffer = np.empty(0, np.float32)
    if buffer.size < sum(sizes):
        buffer = np.empty(sum(sizes), np.float32)
    ends = np.cumsum(sizes)
    yield [buffer[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)]
    _spare.append(buffer)


# ---------------------------------------------------------------------------------------------- exponential functions
#
# With n = round(x / ln 2) and r = x - n ln 2, exp(x) = 2^n exp(r), |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an
# integer and leaves n in the low bits of the sum, from where it is shifted into the exponent of 2^n; ln 2 is subtracted
# in two parts, the first with so few bits that n times it is exact.
#
# expm1(r) = r + r^2 q(r), with q the polynomial of degree 4 whose largest error relative to expm1(r), 1.32e-8, is
# smallest: found by Lawson's iteration (least squares, weights multiplied by the error until it is level) on 4,001
# Chebyshev points. A float32 rounds by 6e-8.

_INV_LN2 = np.float32(1 / math.log(2))
_LN2_HIGH = np.float32(355 / 512)
_LN2_LOW = np.float32(math.log(2) - 355 / 512)
_ROUNDER = np.float32(1.5 * 2**23)
_Q0 = np.float32(0.4999999815515327)
_Q1 = np.float32(0.16666543670139017)
_Q2 = np.float32(0.04166719964636784)
_Q3 = np.float32(0.008366513942302051)
_Q4 = np.float32(0.001388252274850957)
_ZERO = np.float32(0)
_ONE = np.float32(1)
_TWO = np.float32(2)
_LOWEST = np.float32(np.finfo(np.float32).min)
_EXP_IS_0 = np.float32(-105)  # exp of it is below half of the smallest float32
_TANH_IS_1 = np.float32(-40)  # of -2|x|: 1 - tanh is far below half a unit in the last place
_SCALE_UP = 64
_SCALE_DOWN = np.float32(2.0**-64)
_SIGN = np.int32(-(2**31))


@jit
def _bits(x: Any) -> Any:
    """The bits of a float32, as an int32."""
    return np.float32(x).view(np.int32)


@jit
def _expm1_parts(x: Any) -> Any:
    """(n + constant in the low bits, expm1(r)) of x = n ln 2 + r."""
    rounded = x * _INV_LN2 + _ROUNDER
    n = rounded - _ROUNDER
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    q = (((_Q4 * r + _Q3) * r + _Q2) * r + _Q1) * r + _Q0
    return _bits(rounded), r * r * q + r


@jit
def _power_of_2(n: Any) -> Any:
    """2^n as a float32, for n of _expm1_parts (whose constant is shifted out) with -126 <= n <= 127."""
    return np.int32((n + 127) << 23).view(np.float32)


@jit
def _exp(x: Any) -> Any:
    """exp(x) for x <= 0, within 2 units in the last place, gradually down to 0; NaN stays NaN."""
    x = _EXP_IS_0 if x < _EXP_IS_0 else x
    n, expm1 = _expm1_parts(x)
    return (_ONE + expm1) * _power_of_2(n + _SCALE_UP) * _SCALE_DOWN


@jit
def _tanh(x: Any) -> Any:
    """tanh(|x|) = |expm1(-2|x|)| / (expm1(-2|x|) + 2), with the sign of x: as exact near 0 as elsewhere."""
    minus_2x = -_TWO * abs(x)
    n, expm1 = _expm1_parts(_TANH_IS_1 if minus_2x < _TANH_IS_1 else minus_2x)
    power = _power_of_2(n)
    expm1 = power * expm1 + (power - _ONE)
    size = abs(expm1) / (expm1 + _TWO)
    return np.int32(_bits(size) | (_bits(x) & _SIGN)).view(np.float32)


# ----------------------------------------------------------------------------------------------------------- products


@jit_any_order
def _rows_times_rows(a: Array, b: Array, c: Array) -> None:
    """c = a b^T: every row of `a` (I, K) times every row of `b` (J, K), into `c` (I, J).

    A tile of 4 x 2 sums stays in registers: 8 multiplications for 6 numbers read. Past the last row it is the last row
    again that is worked on, and written again.
    """
    rows, others = len(a), len(b)
    for panel in range(0, others, PANEL):
        for i in range(0, rows, 4):
            i1, i2, i3 = min(i + 1, rows - 1), min(i + 2, rows - 1), min(i + 3, rows - 1)
            a0, a1, a2, a3 = a[i], a[i1], a[i2], a[i3]
            for j in range(panel, min(panel + PANEL, others), 2):
                j1 = min(j + 1, others - 1)
                b0, b1 = b[j], b[j1]
                c00 = c01 = c10 = c11 = c20 = c21 = c30 = c31 = np.float32(0)
                for k in range(b0.size):
                    c00 += a0[k] * b0[k]
                    c01 += a0[k] * b1[k]
                    c10 += a1[k] * b0[k]
                    c11 += a1[k] * b1[k]
                    c20 += a2[k] * b0[k]
                    c21 += a2[k] * b1[k]
                    c30 += a3[k] * b0[k]
                    c31 += a3[k] * b1[k]
                c[i, j], c[i, j1] = c00, c01
                c[i1, j], c[i1, j1] = c10, c11
                c[i2, j], c[i2, j1] = c20, c21
                c[i3, j], c[i3, j1] = c30, c31


@jit
def _rows_times_matrix(a: Array, b: Array, add: bool, c: Array) -> None:
    """c = a b, or with `add` c += a b, for `a` (I, K) of any strides, `b` (K, J) and `c` (I, J).

    Four rows of c at a time: each pass over them adds four rows of b, 16 multiplications for 8 numbers read and 4
    written. Each panel of K is summed apart and then added to c, so that errors hardly grow with K.
    """
    rows, depth = a.shape
    sums = np.empty((4, b.shape[1]), np.float32)
    s0, s1, s2, s3 = sums[0], sums[1], sums[2], sums[3]
    for panel in range(0, max(1, depth), PANEL):  # once if K is 0: then c is 0
        end = min(panel + PANEL, depth)
        fours = end - (end - panel) % 4
        for i in range(0, rows, 4):  # past the last row: the last again, its sums not used
            a0, a1, a2, a3 = a[i], a[min(i + 1, rows - 1)], a[min(i + 2, rows - 1)], a[min(i + 3, rows - 1)]
            sums[:] = 0
            for k in range(panel, fours, 4):
                b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
                a00, a01, a02, a03 = a0[k], a0[k + 1], a0[k + 2], a0[k + 3]
                a10, a11, a12, a13 = a1[k], a1[k + 1], a1[k + 2], a1[k + 3]
                a20, a21, a22, a23 = a2[k], a2[k + 1], a2[k + 2], a2[k + 3]
                a30, a31, a32, a33 = a3[k], a3[k + 1], a3[k + 2], a3[k + 3]
                for j in range(b0.size):
                    x0, x1, x2, x3 = b0[j], b1[j], b2[j], b3[j]
                    s0[j] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                    s1[j] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                    s2[j] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                    s3[j] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3
            for k in range(fours, end):
                b0 = b[k]
                a00, a10, a20, a30 = a0[k], a1[k], a2[k], a3[k]
                for j in range(b0.size):
                    x0 = b0[j]
                    s0[j] += a00 * x0
                    s1[j] += a10 * x0
                    s2[j] += a20 * x0
                    s3[j] += a30 * x0
            for row in range(min(4, rows - i)):
                for j in range(b.shape[1]):
                    c[i + row, j] = sums[row, j] + (c[i + row, j] if add or panel else np.float32(0))


# --------------------------------------------------------------------------------------------------------------- sums


@jit_any_order
def _sum(row: Array) -> Any:
    """Sum of the row: in float32 within a piece, in float64 from piece to piece."""
    total = 0.0
    for start in range(0, row.size, PIECE):
        piece = row[start : start + PIECE]
        part: Any = np.float32(0)
        for j in range(piece.size):
            part += piece[j]
        total += part
    return total


@jit
def _column_sums(a: Array, first: int, last: int, sums: Array) -> None:
    """Columns first to last of the sum of a's rows, in float64."""
    totals = np.zeros(last - first)
    for i in range(len(a)):
        row = a[i, first:last]
        for j in range(row.size):
            totals[j] += row[j]
    for j in range(totals.size):
        sums[first + j] = totals[j]


# ---------------------------------------------------------------------------------------------------------- embedding


def embedding_forward(weight: Array, ids: Array, emb: Array, *, threads: int = 1) -> None:
    """Sliced over the places of the batch."""
    ids, emb = ids.reshape(-1), emb.reshape(ids.size, weight.shape[1])
    slices = cut(ids.size, _rows_worth_waking(weight))
    run_slices(lambda first, last: _embedding_forward(weight, ids[first:last], emb[first:last]), slices, threads)


@jit
def _embedding_forward(weight: Array, ids: Array, emb: Array) -> None:
    for i in range(ids.size):
        word, place = weight[ids[i]], emb[i]
        for d in range(word.size):
            place[d] = word[d]


def embedding_backward(ids: Array, demb: Array, rows: Array, drows: Array, *, threads: int = 1) -> int:
    """A stable sort brings the places of each id together, in the order of the batch; one thread adds them up."""
    order = np.argsort(ids, axis=None, kind="stable")
    return int(_embedding_backward(order, ids.reshape(-1), demb.reshape(drows.shape), rows, drows))


@jit
def _embedding_backward(order: Array, ids: Array, demb: Array, rows: Array, drows: Array) -> int:
    unique = 0
    for u in range(rows.size):
        rows[u] = -1
        for d in range(drows.shape[1]):
            drows[u, d] = 0
    for place in order:
        if unique == 0 or rows[unique - 1] != ids[place]:
            rows[unique] = ids[place]
            unique += 1
        row, drow = drows[unique - 1], demb[place]
        for d in range(row.size):
            row[d] += drow[d]
    return unique


# ------------------------------------------------------------------------------------------------------------- linear


def linear_forward(x: Array, weight: Array, bias: Array | None, y: Array, *, threads: int = 1) -> None:
    """Sliced over the rows of the batch."""
    x, weight, bias = _read_only(x), _read_only(weight), _bias_or_zeros(bias, len(weight))
    slices = cut(len(x), _rows_worth_a_slice(weight))
    run_slices(lambda first, last: _linear_forward(x[first:last], weight, bias, y[first:last]), slices, threads)


@jit
def _linear_forward(x: Array, weight: Array, bias: Array, y: Array) -> None:
    _rows_times_rows(x, weight, y)
    for i in range(len(y)):
        row = y[i]
        for o in range(row.size):
            row[o] += bias[o]


def linear_backward(
    dy: Array, x: Array, weight: Array, dx: Array | None, dweight: Array, dbias: Array | None, *, threads: int = 1
) -> None:
    """dW and db sliced over the outputs, dx over the rows of the batch."""
    x, weight = _read_only(x), _read_only(weight)
    dbias = np.empty(len(weight), np.float32) if dbias is None else dbias

    slices = cut(len(weight), _rows_worth_a_slice(x))
    run_slices(lambda first, last: _linear_backward_weight(dy, x, first, last, dweight, dbias), slices, threads)
    if dx is not None:
        slices = cut(len(x), _rows_worth_a_slice(weight))
        run_slices(lambda first, last: _linear_backward_x(dy[first:last], weight, dx[first:last]), slices, threads)


@jit
def _linear_backward_weight(dy: Array, x: Array, first: int, last: int, dweight: Array, dbias: Array) -> None:
    _rows_times_matrix(dy[:, first:last].T, x, False, dweight[first:last])
    _column_sums(dy, first, last, dbias)


@jit
def _linear_backward_x(dy: Array, weight: Array, dx: Array) -> None:
    _rows_times_matrix(dy[:, 0 : len(weight)], weight, False, dx)


def _rows_worth_a_slice(matrix: Array) -> int:
    """How many rows times `matrix` a slice of a product has at least."""
    return int(max(4, SMALLEST_PRODUCT // max(1, matrix.size)))


# ---------------------------------------------------------------------------------------------------------- batchnorm


def batchnorm_forward(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    mean: Array,
    inv_std: Array,
    y: Array,
    *,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    threads: int = 1,
) -> None:
    """Sliced over the channels; statistics in float64."""
    rows, channels = x.shape
    if training and rows < 2:
        raise ValueError(f"batchnorm_forward: x: expected at least 2 rows to train on, got {rows}")
    inputs = _read_only(x), _read_only(weight), _read_only(bias), bool(training), float(momentum), float(eps)
    outputs = running_mean, running_var, mean, inv_std, y
    slices = cut(channels, SMALLEST // max(1, rows), multiple_of=16)
    run_slices(lambda first, last: _batchnorm_forward(first, last, *inputs, *outputs), slices, threads)


@jit
def _batchnorm_forward(
    first: int,
    last: int,
    x: Array,
    weight: Array,
    bias: Array,
    training: bool,
    momentum: float,
    eps: float,
    running_mean: Array,
    running_var: Array,
    mean: Array,
    inv_std: Array,
    y: Array,
) -> None:
    rows, channels = x.shape[0], last - first
    center, var = np.zeros(channels), np.zeros(channels)
    if training:
        for i in range(rows):
            row = x[i, first:last]
            for c in range(channels):
                center[c] += row[c]
        center /= rows
        for i in range(rows):
            row = x[i, first:last]
            for c in range(channels):
                var[c] += (row[c] - center[c]) ** 2
        var /= rows
        unbiased = rows / (rows - 1)
        for c in range(channels):
            running_mean[first + c] += momentum * (center[c] - running_mean[first + c])
            running_var[first + c] += momentum * (var[c] * unbiased - running_var[first + c])
    else:
        center[:] = running_mean[first:last]
        var[:] = running_var[first:last]
    for c in range(channels):
        mean[first + c] = center[c]
        inv_std[first + c] = 1 / math.sqrt(var[c] + eps)
    middle, scale, add = mean[first:last], inv_std[first:last] * weight[first:last], bias[first:last]
    for i in range(rows):
        row, out = x[i, first:last], y[i, first:last]
        for c in range(channels):
            out[c] = (row[c] - middle[c]) * scale[c] + add[c]


def batchnorm_backward(
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
    *,
    training: bool = True,
    threads: int = 1,
) -> None:
    """Sliced over the channels; sums over the batch in float64."""
    inputs = *(_read_only(array) for array in (dy, x, weight, mean, inv_std)), bool(training)
    outputs = dx, dweight, dbias
    slices = cut(x.shape[1], SMALLEST // max(1, len(x)), multiple_of=16)
    run_slices(lambda first, last: _batchnorm_backward(first, last, *inputs, *outputs), slices, threads)


@jit
def _batchnorm_backward(
    first: int,
    last: int,
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    training: bool,
    dx: Array,
    dweight: Array,
    dbias: Array,
) -> None:
    rows, channels = x.shape[0], last - first
    middle, inverse = mean[first:last], inv_std[first:last]
    dy_sum, dy_xhat_sum = np.zeros(channels), np.zeros(channels)
    for i in range(rows):
        row, dy_row = x[i, first:last], dy[i, first:last]
        for c in range(channels):
            dy_sum[c] += dy_row[c]
            dy_xhat_sum[c] += dy_row[c] * ((row[c] - middle[c]) * inverse[c])
    for c in range(channels):
        dbias[first + c] = dy_sum[c]
        dweight[first + c] = dy_xhat_sum[c]

    scale = weight[first:last] * inverse
    dy_mean = (dy_sum / rows).astype(np.float32)
    slope = (dy_xhat_sum / rows * inverse).astype(np.float32)
    for i in range(rows):
        row, dy_row, dx_row = x[i, first:last], dy[i, first:last], dx[i, first:last]
        for c in range(channels):
            if training:
                dx_row[c] = (dy_row[c] - dy_mean[c] - (row[c] - middle[c]) * slope[c]) * scale[c]
            else:
                dx_row[c] = dy_row[c] * scale[c]


# --------------------------------------------------------------------------------------------------------------- tanh


def tanh_forward(x: Array, y: Array, *, threads: int = 1) -> None:
    """Sliced over the elements."""
    _for_each_element(_tanh_forward, (x, y), threads)


@jit
def _tanh_forward(x: Array, y: Array) -> None:
    for i in range(y.size):
        y[i] = _tanh(x[i])


def tanh_backward(dy: Array, y: Array, dx: Array, *, threads: int = 1) -> None:
    """Sliced over the elements."""
    _for_each_element(_tanh_backward, (dy, y, dx), threads)


@jit
def _tanh_backward(dy: Array, y: Array, dx: Array) -> None:
    for i in range(dx.size):
        dx[i] = dy[i] * (_ONE - y[i] * y[i])


# ------------------------------------------------------------------------------------------------------------ softmax


def softmax_forward(x: Array, y: Array, *, log: bool = False, threads: int = 1) -> None:
    """Sliced over the rows."""
    kernel, x = _log_softmax_forward if log else _softmax_forward, _read_only(x)
    run_slices(lambda first, last: kernel(first, last, x, y), cut(len(x), _rows_worth_waking(x)), threads)


@jit
def _softmax_forward(first: int, last: int, x: Array, y: Array) -> None:
    for i in range(first, last):
        _softmax_row(x[i], y[i])


@jit
def _softmax_row(row: Array, p: Array) -> None:
    highest = _highest(row)
    for j in range(row.size):
        p[j] = _exp(row[j] - highest)
    scale = np.float32(1 / _sum(p))
    for j in range(row.size):
        p[j] *= scale


@jit
def _log_softmax_forward(first: int, last: int, x: Array, y: Array) -> None:
    for i in range(first, last):
        row, log_p = x[i], y[i]
        highest = _highest(row)
        log_sum = np.float32(math.log(_sums_below(row, highest)[0]))
        for j in range(row.size):
            log_p[j] = row[j] - highest - log_sum


def softmax_backward(dy: Array, y: Array, dx: Array, *, log: bool = False, threads: int = 1) -> None:
    """Sliced over the rows."""
    kernel, inputs = _log_softmax_backward if log else _softmax_backward, (_read_only(dy), _read_only(y))
    run_slices(lambda first, last: kernel(first, last, *inputs, dx), cut(len(y), _rows_worth_waking(y)), threads)


@jit
def _softmax_backward(first: int, last: int, dy: Array, y: Array, dx: Array) -> None:
    for i in range(first, last):
        dy_row, p, dx_row = dy[i], y[i], dx[i]
        for j in range(p.size):
            dx_row[j] = dy_row[j] * p[j]
        total = np.float32(_sum(dx_row))
        for j in range(p.size):
            dx_row[j] = p[j] * (dy_row[j] - total)


@jit
def _log_softmax_backward(first: int, last: int, dy: Array, y: Array, dx: Array) -> None:
    for i in range(first, last):
        dy_row, log_p, dx_row = dy[i], y[i], dx[i]
        total = np.float32(_sum(dy_row))
        for j in range(log_p.size):
            dx_row[j] = dy_row[j] - _exp(log_p[j]) * total


# ------------------------------------------------------------------------------------------------------ cross entropy


def _targets_looked_at(targets: Array, row_scale: Array) -> Array:
    """Targets as int64, with -1, no word's id, for the rows that are ignored."""
    return np.where(row_scale != 0, targets, -1).astype(np.int64, copy=False)


def cross_entropy_forward(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    *,
    label_smoothing: float = 0.0,
    threads: int = 1,
) -> None:
    """Sliced over the rows of the batch."""
    inputs = _read_only(logits), _targets_looked_at(targets, row_scale), float(label_smoothing)
    slices = cut(len(logits), _rows_worth_waking(logits))
    outputs = highest, log_sum, losses
    run_slices(lambda first, last: _cross_entropy_forward(first, last, *inputs, *outputs), slices, threads)


@jit
def _cross_entropy_forward(
    first: int,
    last: int,
    logits: Array,
    targets: Array,
    label_smoothing: float,
    highest: Array,
    log_sum: Array,
    losses: Array,
) -> None:
    for i in range(first, last):
        highest[i] = log_sum[i] = losses[i] = 0
        if targets[i] < 0:
            continue
        row = logits[i]
        top = _highest(row)
        total, below = _sums_below(row, top)
        exact_log_sum = math.log(total)
        loss = (1 - label_smoothing) * (exact_log_sum + (np.float64(top) - row[targets[i]]))
        if label_smoothing:
            loss += label_smoothing * (exact_log_sum - below / row.size)
        highest[i], log_sum[i], losses[i] = top, exact_log_sum, loss


@jit
def _highest(row: Array) -> Any:
    """The largest number; a NaN is passed over. In lanes side by side: LLVM vectorises no single running maximum."""
    lanes = np.full(min(LANES, row.size), _LOWEST)
    for start in range(0, row.size, LANES):
        piece = row[start : start + LANES]
        for j in range(piece.size):
            lanes[j] = piece[j] if piece[j] > lanes[j] else lanes[j]
    highest = _LOWEST
    for lane in lanes:
        highest = lane if lane > highest else highest
    return highest


@jit_any_order
def _sums_below(row: Array, highest: Any) -> Any:
    """Sums of exp(row - highest) and of row - highest, taken as in _sum."""
    total = below = 0.0
    for start in range(0, row.size, PIECE):
        piece = row[start : start + PIECE]
        part: Any = np.float32(0)
        part_below: Any = np.float32(0)
        for j in range(piece.size):
            difference = piece[j] - highest
            part += _exp(difference)
            part_below += difference
        total += part
        below += part_below
    return total, below


def cross_entropy_backward(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    dlogits: Array,
    *,
    label_smoothing: float = 0.0,
    threads: int = 1,
) -> None:
    """Sliced over the rows of the batch."""
    inputs = _read_only(logits), _targets_looked_at(targets, row_scale), _read_only(row_scale)
    arguments = *inputs, _read_only(highest), _read_only(log_sum), float(label_smoothing), dlogits
    slices = cut(len(logits), _rows_worth_waking(logits))
    run_slices(lambda first, last: _cross_entropy_backward(first, last, *arguments), slices, threads)


@jit
def _cross_entropy_backward(
    first: int,
    last: int,
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    label_smoothing: float,
    dlogits: Array,
) -> None:
    everywhere = np.float32(label_smoothing / logits.shape[1])
    for i in range(first, last):
        row, drow, top, rest, scale = logits[i], dlogits[i], highest[i], log_sum[i], row_scale[i]
        if targets[i] < 0:
            drow[:] = 0
            continue
        for j in range(row.size):
            drow[j] = (_exp(row[j] - top - rest) - everywhere) * scale
        drow[targets[i]] -= np.float32(1 - label_smoothing) * scale


def cross_entropy(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dlogits: Array,
    *,
    label_smoothing: float = 0.0,
    threads: int = 1,
) -> None:
    """Sliced over the rows of the batch."""
    inputs = _read_only(logits), _targets_looked_at(targets, row_scale), float(label_smoothing)
    scale = _read_only(row_scale)

    def rows(first: int, last: int) -> None:
        _cross_entropy_forward(first, last, *inputs, highest, log_sum, losses)
        _dlogits_of_softmax(first, last, *inputs, scale, dlogits)

    run_slices(rows, cut(len(logits), _rows_worth_waking(logits)), threads)


@jit
def _dlogits_of_softmax(
    first: int, last: int, logits: Array, targets: Array, label_smoothing: float, row_scale: Array, dlogits: Array
) -> None:
    everywhere = np.float32(label_smoothing / logits.shape[1])
    for i in range(first, last):
        drow, scale = dlogits[i], row_scale[i]
        if targets[i] < 0:
            drow[:] = 0
            continue
        _softmax_row(logits[i], drow)
        for j in range(drow.size):
            drow[j] = (drow[j] - everywhere) * scale
        drow[targets[i]] -= np.float32(1 - label_smoothing) * scale


# ----------------------------------------------------------------------------------------------- linear cross entropy
#
# The vocabulary is cut into at most 32 slices, each of blocks of BLOCK words. Logits are made transposed, (words,
# batch): the rows of W are the rows of the product, and maximum and sum of exponentials are taken side by side, one
# lane a row of the batch.
#
# Sweep one, per block:  e = exp(logits - shift), where shift is the slice's maximum so far. A slice hands back its
#                        maximum, its sum of exponentials and the logits of the targets; these make the losses and
#                        lse, log sum exp(logits), which is float64 here and loses no digit of large logits.
# Sweep two, per block:  dlogits = (e exp(shift - lse) - truth) row_scale, in place;
#                        dW = dlogits h, straight to its rows; db; dh += dlogits^T W, in each slice for itself.
#
# Between the sweeps e is kept, 4 B V bytes, unless that is more than MOST_KEPT. Then, and where forward and backward
# are called one at a time, sweep two makes the logits again, and shift is lse.
#
# Sums over the vocabulary: of exponentials in float32 within a block and in float64 from block to block; of dh in
# float32 within a slice and in float64 from slice to slice.


def linear_cross_entropy_forward(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    *,
    label_smoothing: float = 0.0,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """Sweep one, nothing kept. Memory: 4 * BLOCK * B bytes a thread, 20 * B a slice."""
    layer = _LastLayer(h, weight, bias, targets, row_scale, label_smoothing, threads)
    layer.sweep_one(layer.nothing, layer.nothing, highest, log_sum, losses)


def linear_cross_entropy_backward(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    dh: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    *,
    label_smoothing: float = 0.0,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """Sweep two, logits made again. Memory: 4 * BLOCK * B bytes a thread, 4 * B * H a slice."""
    layer = _LastLayer(h, weight, bias, targets, row_scale, label_smoothing, threads)
    with _work_arrays(layer.dh_parts(dh)) as (dh_parts,):
        kept = shifts = layer.nothing
        lse = highest + log_sum.astype(np.float64)
        layer.sweep_two(kept, shifts, lse, dh_parts, dh, layer.pieces_of(dweight, dbias))


def linear_cross_entropy(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dh: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    *,
    label_smoothing: float = 0.0,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """Both sweeps. Memory: as the backward pass, and 4 * B * V * (1 + 1 / BLOCK) where 4 * B * V <= MOST_KEPT."""
    layer = _LastLayer(h, weight, bias, targets, row_scale, label_smoothing, threads)
    with layer.work_arrays(dh) as (kept, shifts, dh_parts):
        lse = layer.sweep_one(kept, shifts, highest, log_sum, losses)
        layer.sweep_two(kept, shifts, lse, dh_parts, dh, layer.pieces_of(dweight, dbias))


def linear_cross_entropy_update(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    weight_state: Array | None,
    weight_state2: Array | None,
    bias_state: Array | None,
    bias_state2: Array | None,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dh: Array,
    *,
    rule: str,
    label_smoothing: float = 0.0,
    fp32_precision: str = "auto",
    threads: int = 1,
    **options: Any,
) -> bool:
    """Both sweeps; a slice's gradients go into the update while they are in the cache. Memory: as both, without dW."""
    update, weight_states, bias_states = rule_of(
        rule, globals(), (weight_state, weight_state2), None if bias is None else (bias_state, bias_state2)
    )

    def pieces(first: int, last: int) -> tuple[Array, Array]:
        return np.empty((last - first, weight.shape[1]), np.float32), np.empty(last - first, np.float32)

    def update_slice(first: int, last: int, dweight: Array, dbias: Array) -> None:
        update(dweight, *(state[first:last] for state in weight_states), weight[first:last], **options)
        if bias is not None:
            update(dbias, *(state[first:last] for state in bias_states), bias[first:last], **options)

    layer = _LastLayer(h, weight, bias, targets, row_scale, label_smoothing, threads)
    with layer.work_arrays(dh) as (kept, shifts, dh_parts):
        lse = layer.sweep_one(kept, shifts, highest, log_sum, losses)
        if not np.isfinite(losses).all():
            dh[...] = np.nan
            return False
        layer.sweep_two(kept, shifts, lse, dh_parts, dh, pieces, update_slice)
    return True


class _LastLayer:
    """What the two sweeps share: the inputs as kernels want them, and the slices of the vocabulary."""

    def __init__(
        self,
        h: Array,
        weight: Array,
        bias: Array | None,
        targets: Array,
        row_scale: Array,
        label_smoothing: float,
        threads: int,
    ) -> None:
        self.ignored = row_scale == 0
        h = np.where(self.ignored[:, None], np.float32(0), h) if self.ignored.any() else h
        self.h, self.weight, self.row_scale = _read_only(h), _read_only(weight), _read_only(row_scale)
        self.bias = _bias_or_zeros(bias, len(weight))
        self.targets = _targets_looked_at(targets, row_scale)
        self.label_smoothing, self.threads = label_smoothing, threads
        self.slices = cut(len(weight), 2 * BLOCK, multiple_of=BLOCK)
        self.nothing = np.empty((0, len(h)), np.float32)

    def _inputs(self, first: int, last: int) -> tuple[Array, Array, Array, Array]:
        """h, W, b and the targets of a slice, as if it were the whole vocabulary (other targets are no words of it)."""
        return self.h, self.weight[first:last], self.bias[first:last], self.targets - first

    def sweep_one(self, kept: Array, shifts: Array, highest: Array, log_sum: Array, losses: Array) -> Array:
        """Make the statistics and losses, and `kept` and `shifts` unless they are empty; return lse in float64.

        kept              (V, B) or (0, B)          out: e
        shifts            (V / BLOCK, B) or (0, B)  out: what was subtracted in each block
        highest, log_sum  (B,)                      out
        losses            (B,)                      out
        """
        tops = np.empty((len(self.slices), len(self.h)), np.float32)
        sums, logit_sums = np.empty(tops.shape), np.empty(tops.shape)
        target_logits = np.zeros(len(self.h), np.float32)

        def sweep(first: int, last: int) -> None:
            number = first // self.slices[0][1]
            outputs = kept[first:last], shifts[first // BLOCK :], tops[number], sums[number], logit_sums[number]
            _sweep_one(*self._inputs(first, last), bool(self.label_smoothing), *outputs, target_logits)

        run_slices(sweep, self.slices, self.threads)
        with np.errstate(all="ignore"):  # NaN and infinity come out in the losses, where they are looked for
            top = tops.max(axis=0).astype(np.float64)
            log_sums = np.log((sums * np.exp(tops - top)).sum(axis=0))
            lse: Array = top + log_sums
            losses[...] = (1 - self.label_smoothing) * (lse - target_logits)
            if self.label_smoothing:
                losses += self.label_smoothing * (lse - logit_sums.sum(axis=0) / len(self.weight))
        highest[...], log_sum[...] = top, log_sums
        for statistic in (highest, log_sum, losses):
            statistic[self.ignored] = 0
        return lse

    def dh_parts(self, dh: Array | None) -> tuple[int, ...]:
        """The shape of the slices' parts of dh: without rows where nobody wants it."""
        return len(self.slices), 0 if dh is None else len(self.h), self.h.shape[1]

    @contextmanager
    def work_arrays(self, dh: Array | None) -> Iterator[list[Array]]:
        """For a call of both sweeps: kept and shifts, empty where they would be too large, and dh_parts."""
        rows, words = len(self.h), len(self.weight)
        if 4 * rows * words > MOST_KEPT:
            words = 0
        with _work_arrays((words, rows), (-(-words // BLOCK), rows), self.dh_parts(dh)) as arrays:
            yield arrays

    def pieces_of(self, dweight: Array | None, dbias: Array | None) -> Pieces:
        """Where the gradients of a slice belong in those of all words; without rows where nobody wants that of W."""
        dw = np.empty((0, self.h.shape[1]), np.float32) if dweight is None else dweight
        db = np.empty(len(self.weight), np.float32) if dbias is None else dbias
        return lambda first, last: (dw[first:last], db[first:last])

    def sweep_two(
        self,
        kept: Array,
        shifts: Array,
        lse: Array,
        dh_parts: Array,
        dh: Array | None,
        pieces: Pieces,
        when_made: Callable[[int, int, Array, Array], None] = lambda first, last, dweight, dbias: None,
    ) -> None:
        """Make the gradients, from `kept` and `shifts` or, where they are empty, from the logits made again.

        kept, shifts             in:  of sweep one; `kept` is overwritten
        lse      (B,)            in:  in float64
        dh_parts (slices, B, H)  out: each slice's part of dh
        dh                       out: or None
        pieces                   where a slice's dweight and dbias go
        when_made                is told of a slice whose gradients, dh_parts among them, are made
        """
        lse[self.ignored] = np.finfo(np.float32).max  # their logits are the bias: p is 0, not exp(bias)
        at_target = np.float32(1 - self.label_smoothing)
        everywhere = np.float32(self.label_smoothing / len(self.weight))

        def sweep(first: int, last: int) -> None:
            number = first // self.slices[0][1]
            inputs = *self._inputs(first, last), self.row_scale, lse, at_target, everywhere, kept[first:last]
            dweight, dbias = pieces(first, last)
            _sweep_two(*inputs, shifts[first // BLOCK :], dh_parts[number], dweight, dbias)
            when_made(first, last, dweight, dbias)

        run_slices(sweep, self.slices, self.threads)
        if dh is None:
            return
        parts, total = dh_parts.reshape(len(self.slices), dh.size), dh.reshape(-1)
        slices = cut(dh.size, SMALLEST // len(self.slices))
        run_slices(lambda first, last: _column_sums(parts, first, last, total), slices, self.threads)
        dh[self.ignored] = 0


@jit
def _sweep_one(
    h: Array,
    weight: Array,
    bias: Array,
    targets: Array,
    with_logit_sums: bool,
    kept: Array,
    shifts: Array,
    highest: Array,
    sums: Array,
    logit_sums: Array,
    target_logits: Array,
) -> None:
    """One slice of sweep one.

    highest, sums  (B,)  out: the slice's maximum; its sum of exp(logits - maximum)
    logit_sums     (B,)  out: its sum of logits, for label smoothing
    target_logits  (B,)  out: logits of the targets that are in this slice
    """
    rows = len(h)
    scratch = np.empty((0 if len(kept) else BLOCK, rows), np.float32)
    highest_before, block_sum = np.empty(rows, np.float32), np.empty(rows, np.float32)
    highest[:] = _LOWEST
    sums[:] = 0
    logit_sums[:] = 0
    for start in range(0, len(weight), BLOCK):
        stop = min(start + BLOCK, len(weight))
        logits = kept[start:stop] if len(kept) else scratch[: stop - start]
        _transposed_logits(h, weight[start:stop], bias[start:stop], logits)
        for b in range(rows):
            if start <= targets[b] < stop:
                target_logits[b] = logits[targets[b] - start, b]

        highest_before[:] = highest
        for v in range(len(logits)):
            word = logits[v]
            for b in range(rows):
                highest[b] = word[b] if word[b] > highest[b] else highest[b]
            if with_logit_sums:
                for b in range(rows):
                    logit_sums[b] += word[b]
        block_sum[:] = 0
        for v in range(len(logits)):
            word = logits[v]
            for b in range(rows):
                e = _exp(word[b] - highest[b])
                word[b] = e
                block_sum[b] += e
        for b in range(rows):
            sums[b] = sums[b] * _exp(highest_before[b] - highest[b]) + block_sum[b]
        if len(kept):
            shifts[start // BLOCK] = highest


@jit
def _sweep_two(
    h: Array,
    weight: Array,
    bias: Array,
    targets: Array,
    row_scale: Array,
    lse: Array,
    at_target: Any,
    everywhere: Any,
    kept: Array,
    shifts: Array,
    dh: Array,
    dweight: Array,
    dbias: Array,
) -> None:
    """One slice of sweep two; the truth is `everywhere`, and `at_target` more at the target."""
    rows = len(h)
    scratch = np.empty((0 if len(kept) else BLOCK, rows), np.float32)
    rounded_lse, factor = lse.astype(np.float32), np.empty(rows, np.float32)
    dh[:] = 0
    for start in range(0, len(weight), BLOCK):
        stop = min(start + BLOCK, len(weight))
        if len(kept):
            dlogits, shift = kept[start:stop], shifts[start // BLOCK]
        else:
            dlogits, shift = scratch[: stop - start], rounded_lse
            _transposed_logits(h, weight[start:stop], bias[start:stop], dlogits)
            for v in range(len(dlogits)):
                word = dlogits[v]
                for b in range(rows):
                    word[b] = _exp(word[b] - shift[b])
        for b in range(rows):
            factor[b] = _exp(np.float32(shift[b] - lse[b]))
        for v in range(len(dlogits)):
            word = dlogits[v]
            for b in range(rows):
                word[b] = (word[b] * factor[b] - everywhere) * row_scale[b]
        for b in range(rows):
            if start <= targets[b] < stop:
                dlogits[targets[b] - start, b] -= at_target * row_scale[b]

        strided = dlogits[:, 0:rows]  # for Numba the same type as its transpose: one product to compile
        if len(dweight):
            _rows_times_matrix(strided, h, False, dweight[start:stop])
        if len(dh):
            _rows_times_matrix(strided.T, weight[start:stop], True, dh)
        for v in range(len(dlogits)):
            dbias[start + v] = _sum(dlogits[v])


@jit
def _transposed_logits(h: Array, weight: Array, bias: Array, logits: Array) -> None:
    """logits = W h^T + b, (words, batch)."""
    _rows_times_rows(weight, h, logits)
    for v in range(len(logits)):
        word = logits[v]
        for b in range(word.size):
            word[b] += bias[v]


# ------------------------------------------------------------------------------------------------------------- update


def update_sgd(grad: Array, param: Array, *, lr: float, weight_decay: float = 0.0, threads: int = 1) -> None:
    """Sliced over the elements."""
    _for_each_element(_update_sgd, (grad, param), threads, np.float32(lr), np.float32(weight_decay))


@jit
def _update_sgd(grad: Array, param: Array, lr: Any, weight_decay: Any) -> None:
    for i in range(param.size):
        param[i] -= lr * (grad[i] + weight_decay * param[i])


def update_momentum(
    grad: Array,
    velocity: Array,
    param: Array,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """Sliced over the elements."""
    numbers = np.float32(lr), np.float32(momentum), np.float32(weight_decay)
    _for_each_element(_update_momentum, (grad, velocity, param), threads, *numbers)


@jit
def _update_momentum(grad: Array, velocity: Array, param: Array, lr: Any, momentum: Any, weight_decay: Any) -> None:
    for i in range(param.size):
        p = param[i]
        v = momentum * velocity[i] + (grad[i] + weight_decay * p)
        velocity[i] = v
        param[i] = p - lr * v


def update_adagrad(
    grad: Array,
    squares: Array,
    param: Array,
    *,
    lr: float,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """Sliced over the elements."""
    numbers = np.float32(lr), np.float32(eps), np.float32(weight_decay)
    _for_each_element(_update_adagrad, (grad, squares, param), threads, *numbers)


@jit
def _update_adagrad(grad: Array, squares: Array, param: Array, lr: Any, eps: Any, weight_decay: Any) -> None:
    for i in range(param.size):
        p = param[i]
        g = grad[i] + weight_decay * p
        square = squares[i] + g * g
        squares[i] = square
        param[i] = p - lr * g / (math.sqrt(square) + eps)


def update_adamw(
    grad: Array,
    mean: Array,
    square: Array,
    param: Array,
    *,
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    threads: int = 1,
) -> None:
    """Sliced over the elements."""
    decay, rate, root = 1 - lr * weight_decay, lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    numbers = map(np.float32, (decay, rate, root, 1 - beta1, beta2, 1 - beta2, eps))
    _for_each_element(_update_adamw, (grad, mean, square, param), threads, *numbers)


@jit
def _update_adamw(
    grad: Array,
    mean: Array,
    square: Array,
    param: Array,
    decay: Any,
    rate: Any,
    root: Any,
    one_minus_beta1: Any,
    beta2: Any,
    one_minus_beta2: Any,
    eps: Any,
) -> None:
    """`rate` and `root` are lr and the square root of `square` with the bias of their averages corrected."""
    for i in range(param.size):
        g = grad[i]
        m = mean[i] + one_minus_beta1 * (g - mean[i])
        s = beta2 * square[i] + one_minus_beta2 * (g * g)
        p = decay * param[i] - rate * m / (math.sqrt(s) * root + eps)
        mean[i] = m
        square[i] = s
        param[i] = p


def update_sgd_rows(
    rows: Array, drows: Array, param: Array, *, lr: float, weight_decay: float = 0.0, threads: int = 1
) -> None:
    """Sliced over the rows of the gradient; with weight decay, where every row moves, the dense form."""
    if weight_decay:
        update_sgd(dense_gradient(rows, drows, param), param, lr=lr, weight_decay=weight_decay, threads=threads)
        return
    rate = np.float32(lr)
    slices = cut(len(rows), _rows_worth_waking(drows))
    run_slices(lambda first, last: _update_sgd_rows(rows[first:last], drows[first:last], param, rate), slices, threads)


@jit
def _update_sgd_rows(rows: Array, drows: Array, param: Array, lr: Any) -> None:
    for u in range(rows.size):
        _update_sgd(drows[u], param[rows[u]], lr, _ZERO)


def update_momentum_rows(
    rows: Array,
    drows: Array,
    velocity: Array,
    param: Array,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """The dense form: every row moves."""
    grad = dense_gradient(rows, drows, param)
    update_momentum(grad, velocity, param, lr=lr, momentum=momentum, weight_decay=weight_decay, threads=threads)


def update_adagrad_rows(
    rows: Array,
    drows: Array,
    squares: Array,
    param: Array,
    *,
    lr: float,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    threads: int = 1,
) -> None:
    """Sliced over the rows of the gradient; with weight decay, where every row moves, the dense form."""
    if weight_decay:
        grad = dense_gradient(rows, drows, param)
        update_adagrad(grad, squares, param, lr=lr, eps=eps, weight_decay=weight_decay, threads=threads)
        return
    arguments = squares, param, np.float32(lr), np.float32(eps)
    slices = cut(len(rows), _rows_worth_waking(drows))
    run_slices(
        lambda first, last: _update_adagrad_rows(rows[first:last], drows[first:last], *arguments), slices, threads
    )


@jit
def _update_adagrad_rows(rows: Array, drows: Array, squares: Array, param: Array, lr: Any, eps: Any) -> None:
    for u in range(rows.size):
        _update_adagrad(drows[u], squares[rows[u]], param[rows[u]], lr, eps, _ZERO)


def update_adamw_rows(
    rows: Array,
    drows: Array,
    mean: Array,
    square: Array,
    param: Array,
    *,
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    threads: int = 1,
) -> None:
    """The dense form: every row moves."""
    update_adamw(
        dense_gradient(rows, drows, param),
        mean,
        square,
        param,
        lr=lr,
        step=step,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
        threads=threads,
    )


# ------------------------------------------------------------------------------------------------------------ compiling


def compile_ops(ids_dtype: Any = np.int32) -> None:
    """Compile every kernel, or take it from Numba's cache, by running each op once on tiny arrays.

    ids_dtype  the type of the ids that are to come, int32 or int64
    """
    ids, rows = np.zeros((2, 1), ids_dtype), np.zeros(1, ids_dtype)
    targets, drows = np.zeros(2, ids_dtype), np.zeros((1, 2), np.float32)
    x, weight, dweight, running = np.zeros((4, 2, 2), np.float32)
    vector, dvector, mean, inv_std = np.ones((4, 2), np.float32)
    y, dy = np.zeros((2, 2, 2), np.float32)

    embedding_forward(weight, ids, np.empty((2, 1, 2), np.float32))
    embedding_backward(ids, np.zeros((2, 1, 2), np.float32), np.empty(2, ids_dtype), dy)
    linear_forward(x, weight, vector, y)
    linear_backward(dy, x, weight, y, dweight, dvector)
    batchnorm_forward(x, vector, vector, mean, running[0], mean, inv_std, y)
    batchnorm_backward(dy, x, vector, mean, inv_std, y, dvector, dvector)
    tanh_forward(x, y)
    tanh_backward(dy, y, x)
    cross_entropy_forward(x, targets, vector, mean, inv_std, dvector)
    cross_entropy_backward(x, targets, vector, mean, inv_std, y)
    cross_entropy(x, targets, vector, mean, inv_std, dvector, y)
    for log in (False, True):
        softmax_forward(x, y, log=log)
        softmax_backward(dy, y, x, log=log)
    linear_cross_entropy(x, weight, None, targets, vector, mean, inv_std, dvector, y, dweight, None)
    update_sgd(x, y, lr=0)
    update_momentum(x, running, y, lr=0)
    update_adagrad(x, running, y, lr=0)
    update_adamw(x, dy, running, y, lr=0, step=1)
    update_sgd_rows(rows, drows, y, lr=0)
    update_adagrad_rows(rows, drows, running, y, lr=0)
