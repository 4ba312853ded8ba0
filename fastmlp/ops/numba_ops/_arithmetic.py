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
