"""What the ops with products of bf16 tiles share: how their operands are cut and laid out (simd/tiles.h)."""

from core cimport TILE, TILE_DEPTH, TILE_VALUES, bf16, ceil_div, matrix, operand, result, tile_kernels, \
    upcoming

cdef enum:
    PANEL = 2 * TILE  # rows and columns of products of tiles: what a matrix unit makes at once


cdef inline int planes_of(const tile_kernels *tiles, str fp32_precision) except -1:
    """Return the number of bf16 for a float32; 0: the products are of float32.

    Raise ValueError if the variant has no tiles: it may be another one than when the call was checked.
    """
    cdef int planes = 1 if fp32_precision == "bf16" else 2 if fp32_precision == "bf16x3" else 0
    if planes and tiles == NULL:
        raise ValueError(f"fp32_precision: expected auto or one of this variant's, ieee, got {fp32_precision!r}")
    return planes


cdef inline long round_up(long a, long b) noexcept nogil:
    return ceil_div(a, b) * b


cdef inline long values_of(long lines, long depth) noexcept nogil:
    """Return how many bf16 a plane of an operand has: its rows or columns, in whole panels, times its depth."""
    return round_up(lines, PANEL) * round_up(depth, TILE_DEPTH)


cdef inline operand consecutive(const bf16 *tiles, long plane, long depth) noexcept nogil:
    """An operand whose tiles lie behind each other, first along the depth."""
    return operand(tiles, plane, ceil_div(depth, TILE_DEPTH) * TILE_VALUES, TILE_VALUES)


cdef inline result rows_of(float *sums, long row) noexcept nogil:
    """The result of a product as a matrix whose rows are `row` floats apart."""
    return result(sums, row, row * TILE, TILE)


cdef inline upcoming array_of(const void *array, long bytes) noexcept nogil:
    cdef upcoming after
    after.arrays[0], after.arrays[1], after.arrays[2], after.bytes = array, NULL, NULL, bytes
    return after


cdef inline void split_left(const tile_kernels *tiles, matrix left, long rows, long depth, int planes, long plane,
                            bf16 *to) noexcept nogil:
    """Make tiles of rows of a left operand, left(row, k). One of its two strides is 1."""
    cdef long tile_row = round_up(depth, TILE_DEPTH) * TILE
    if left.step == 1:
        tiles.split_rows(rows, depth, left.row, left.data, planes, plane, tile_row, to)
    else:
        tiles.split_turned(rows, depth, left.step, left.data, planes, plane, tile_row, to)


cdef inline void split_right(const tile_kernels *tiles, matrix right, long columns, long depth, int planes, long plane,
                             bf16 *to) noexcept nogil:
    """Make tiles of pairs of a right operand, right(column, k). One of its two strides is 1."""
    if right.step == 1:
        tiles.split_columns(depth, columns, right.row, right.data, planes, plane, to)
    else:
        tiles.split_pairs(depth, columns, right.step, right.data, NULL, planes, plane,
                          round_up(depth, TILE_DEPTH) * TILE, to)
