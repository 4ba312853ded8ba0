"""exp, tanh and sums as arithmetic that LLVM vectorises."""

import math
from typing import Any

import numpy as np

from fastmlp.ops.numba_ops._jit import jit, jit_any_order

Array = np.ndarray
LANES = 64  # running maxima computed side by side
PIECE = 4096  # numbers added up in float32 before their sum is added to one in float64


#
# With n = round(x / ln 2) and r = x - n ln 2, exp(x) = 2^n exp(r), |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an
# integer and leaves n in the low bits of the sum, from where it is shifted into the exponent of 2^n; ln 2 is subtracted
# in two parts, the first with so few bits that its product with n is exact.
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

#
# The tail of the normal distribution is Phi(-t) = exp(-t^2 / 2) P(t) / Q(t), of degrees 4 and 5: the quotient, which
# falls from 1/2 like 1 / t, within 6e-9 of it over [0, 14], found as above.

_TAIL_IS_0 = np.float32(14.5)  # exp of -14.5^2 / 2 is
_MINUS_HALF = np.float32(-0.5)
_HALF = np.float32(0.5)
_P1, _P2, _P3, _P4 = np.array([0.437250733, 0.182461709, 0.040372517, 0.00407760497], np.float32)
_R1, _R2, _R3, _R4, _R5 = np.array([1.67238641, 1.19929028, 0.467428774, 0.101205699, 0.0102209114], np.float32)
_NORMAL_DENSITY = np.float32(1 / math.sqrt(2 * math.pi))


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
    """Return 2^n as a float32, for n of _expm1_parts (whose constant is shifted out), -126 <= n <= 127."""
    return np.int32((n + 127) << 23).view(np.float32)


@jit
def exp_nonpositive(x: Any) -> Any:
    """Return exp(x) for x <= 0, within 2 units in the last place, with gradual underflow; NaN stays NaN."""
    x = _EXP_IS_0 if x < _EXP_IS_0 else x
    n, expm1 = _expm1_parts(x)
    return (_ONE + expm1) * _power_of_2(n + _SCALE_UP) * _SCALE_DOWN


@jit
def tanh_of(x: Any) -> Any:
    """tanh(|x|) = |expm1(-2|x|)| / (expm1(-2|x|) + 2), with the sign of x: as exact near 0 as elsewhere."""
    minus_2x = -_TWO * abs(x)
    n, expm1 = _expm1_parts(_TANH_IS_1 if minus_2x < _TANH_IS_1 else minus_2x)
    power = _power_of_2(n)
    expm1 = power * expm1 + (power - _ONE)
    size = abs(expm1) / (expm1 + _TWO)
    return np.int32(_bits(size) | (_bits(x) & _SIGN)).view(np.float32)


@jit
def _tail_parts(x: Any) -> Any:
    """(t, exp(-t^2 / 2), P(t) / Q(t)) of t = |x|, but no larger than where the tail is 0; NaN stays NaN."""
    t = abs(x)
    t = _TAIL_IS_0 if t > _TAIL_IS_0 else t
    p = (((_P4 * t + _P3) * t + _P2) * t + _P1) * t + _HALF
    q = ((((_R5 * t + _R4) * t + _R3) * t + _R2) * t + _R1) * t + _ONE
    return t, exp_nonpositive(_MINUS_HALF * t * t), p / q


@jit
def gelu_of(x: Any) -> Any:
    """x Phi(x) = max(x, 0) - t Phi(-t) with t = |x|: no difference below 0, and none that cancels above."""
    t, density, ratio = _tail_parts(x)
    return (x if x > _ZERO else _ZERO) - t * (density * ratio)


@jit
def gelu_slope(x: Any) -> Any:
    """Phi(x) + x phi(x): s = Phi(-t) - t phi(t) below 0, 1 - s above."""
    t, density, ratio = _tail_parts(x)
    s = density * (ratio - t * _NORMAL_DENSITY)
    return _ONE - s if x > _ZERO else s


@jit_any_order
def row_sum(row: Array) -> Any:
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
def column_sums(a: Array, first: int, last: int, sums: Array) -> None:
    """Columns first to last of the sum of a's rows, in float64."""
    totals = np.zeros(last - first)
    for i in range(len(a)):
        row = a[i, first:last]
        for j in range(row.size):
            totals[j] += row[j]
    for j in range(totals.size):
        sums[first + j] = totals[j]


@jit
def highest_of(row: Array) -> Any:
    """Return the largest number, ignoring NaN. In lanes: LLVM does not vectorise a single running maximum."""
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
def sums_below(row: Array, highest: Any) -> Any:
    """Return the sums of exp(row - highest) and of row - highest, added as in row_sum."""
    total = below = 0.0
    for start in range(0, row.size, PIECE):
        piece = row[start : start + PIECE]
        part: Any = np.float32(0)
        part_below: Any = np.float32(0)
        for j in range(piece.size):
            difference = piece[j] - highest
            part += exp_nonpositive(difference)
            part_below += difference
        total += part
        below += part_below
    return total, below
