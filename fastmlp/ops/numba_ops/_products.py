"""The two matrix products."""

import numpy as np

from fastmlp.ops.numba_ops._jit import jit, jit_any_order

Array = np.ndarray
SMALLEST_PRODUCT = 2**20  # multiplications of a slice of a product, at least: less is not worth a thread
PANEL = 128  # rows of the other operand that a product reuses from the cache


@jit_any_order
def rows_times_rows(a: Array, b: Array, c: Array) -> None:
    """c = a b^T: every row of `a` (I, K) times every row of `b` (J, K), into `c` (I, J).

    A tile of 4 x 2 sums stays in registers: 8 multiplications for 6 numbers read. Past the last row the last row
    is computed and written again.
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
def rows_times_matrix(a: Array, b: Array, add: bool, c: Array) -> None:
    """c = a b, or with `add` c += a b, for `a` (I, K) of any strides, `b` (K, J) and `c` (I, J).

    Four rows of c at a time: each pass over them adds four rows of b, 16 multiplications for 8 numbers read and 4
    written. Each panel of K is summed on its own and then added to c, so that errors hardly grow with K.
    """
    rows, depth = a.shape
    sums = np.empty((4, b.shape[1]), np.float32)
    s0, s1, s2, s3 = sums[0], sums[1], sums[2], sums[3]
    for panel in range(0, max(1, depth), PANEL):  # once if K is 0: then c is 0
        end = min(panel + PANEL, depth)
        fours = end - (end - panel) % 4
        for i in range(0, rows, 4):  # past the last row: the last again, with its sums unused
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


def rows_worth_a_slice(matrix: Array) -> int:
    """Return the least rows of a slice of a product with `matrix`."""
    return int(max(4, SMALLEST_PRODUCT // max(1, matrix.size)))
