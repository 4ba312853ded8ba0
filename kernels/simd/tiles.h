/* Tiles of bf16: conversion of numbers to them and back. Written once for every unit that multiplies them; the
 * including file names its target, AVX-512 with bf16 conversions, and adds `product`.
 *
 *      c (rows x columns) = a (rows x depth) b (depth x columns),    float32 sums of products of bf16
 *
 * An array of tiles stores its numbers in consecutive tiles of 1 KiB, so that sixteen lines of the cache follow
 * each other whatever the size of the matrix. The left operand lies in tiles of rows, the right one in tiles of pairs,
 * since the multiplication takes two steps of the depth at once.
 *
 *      tile of rows: 16 rows x 32 steps            tile of pairs: 32 steps x 16 columns
 *
 *              k = 0   1   2   3  ...  31              column = 0       1            15
 *      row  0 [ a00 a01|a02 a03|      ]        k = 0, 1 [ b00 b10|b01 b11|  ...        ]
 *      row  1 [ a10 a11|a12 a13|      ]        k = 2, 3 [ b20 b30|b21 b31|             ]
 *         ..  [                       ]             ..  [                              ]
 *      row 15 [                       ]        k 30, 31 [                              ]
 *
 *      order of the tiles:  tiles of rows [rows / 16][depth / 32],  tiles of pairs [columns / 16][depth / 32]
 *
 * Taken as 16 x 16 pairs of 32 bits, each kind is the other one's transpose: the tile of pairs of a matrix is the
 * transposed tile of rows of its transpose. Beyond the end of a matrix are zeros.
 *
 * A number x is kept in one bf16, x rounded, or in two planes, x rounded and the rest rounded: x = high + low
 * to 2^-17. A product of planes is high high + high low + low high: low low, at most 2^-18 of it, is left out. */
#include <immintrin.h>

#include "core.h"
#define LANES 16
#include "vector.h"

/* A thread's last words on a slice: what it stored past the cache is visible before the signal that the slice is done. */
INLINE void finish(void)
{
    _mm_sfence();
}

typedef struct {
    __m512 low, high; /* 32 numbers: the first sixteen and the rest */
} floats32;

INLINE __mmask16 first(long count)
{
    return count >= TILE ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

INLINE floats32 load_all(const float *from)
{
    return (floats32){_mm512_loadu_ps(from), _mm512_loadu_ps(from + TILE)};
}

INLINE void store_all(float *to, floats32 x)
{
    _mm512_storeu_ps(to, x.low);
    _mm512_storeu_ps(to + TILE, x.high);
}

/* The first `count` of 32 floats, the rest 0. */
INLINE floats32 load_first(const float *from, long count)
{
    return (floats32){_mm512_maskz_loadu_ps(first(count), from),
                      _mm512_maskz_loadu_ps(first(count - TILE), from + TILE)};
}

INLINE __m512i rounded(floats32 x)
{
    return (__m512i)_mm512_cvtne2ps_pbh(x.high, x.low);
}

INLINE __m512 widened(__m256i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

INLINE floats32 widened_all(__m512i x)
{
    return (floats32){widened(_mm512_castsi512_si256(x)), widened(_mm512_extracti64x4_epi64(x, 1))};
}

INLINE floats32 plus(floats32 x, floats32 y)
{
    return (floats32){x.low + y.low, x.high + y.high};
}

INLINE floats32 minus(floats32 x, floats32 y)
{
    return (floats32){x.low - y.low, x.high - y.high};
}

INLINE floats32 all32(float x)
{
    return (floats32){_mm512_set1_ps(x), _mm512_set1_ps(x)};
}

INLINE floats32 scaled(floats32 x, float low, float high)
{
    return (floats32){x.low * low, x.high * high};
}

/* Write 32 numbers into a line of a tile, in one plane or two. */
INLINE void store_planes(floats32 x, int planes, long plane, bf16 *line)
{
    __m512i high = rounded(x);
    _mm512_store_si512(line, high);
    if (planes == 2)
        _mm512_store_si512(line + plane, rounded(minus(x, widened_all(high))));
}

/* Rows or columns, filled up to whole pairs of tiles. */
INLINE long whole_pairs(long count)
{
    return (count + 2 * TILE - 1) / (2 * TILE) * (2 * TILE);
}

INLINE long chunks_of(long depth)
{
    return (depth + TILE_DEPTH - 1) / TILE_DEPTH;
}

/* Sixteen lines of sixteen pairs: line i, pair j goes to line j, pair i. Four rounds, each doubling the squares that
 * are in place: 1 and 2 pairs within a quarter of the vector, then 4 and 8 by whole quarters. */
INLINE void transpose_pairs(__m512i x[TILE])
{
    __m512i y[TILE];
    UNROLL
    for (int i = 0; i < TILE; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    UNROLL
    for (int i = 0; i < TILE; i += 4) { /* x[i + j], quarter q: column 4 q + j of lines i to i + 3 */
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i even_low = _mm512_shuffle_i32x4(x[j], x[j + 4], 0x88);
        __m512i odd_low = _mm512_shuffle_i32x4(x[j], x[j + 4], 0xdd);
        __m512i even_high = _mm512_shuffle_i32x4(x[j + 8], x[j + 12], 0x88);
        __m512i odd_high = _mm512_shuffle_i32x4(x[j + 8], x[j + 12], 0xdd);
        y[j] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
        y[j + 8] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
        y[j + 4] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        y[j + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
    UNROLL
    for (int i = 0; i < TILE; i++)
        x[i] = y[i];
}

/* Tiles of rows of a matrix whose rows are `row` floats apart; the rows are filled up to whole pairs of tiles.
 * tile_row, and tile_column below: values from a row (column) of tiles to the next, more than chunks of the depth where
 * the matrix is a part of a deeper one. */
INLINE void split_into_rows(long rows, long depth, long row, const float *from, const int planes, long plane,
                            long tile_row, bf16 *tiles)
{
    for (long i = 0; i < whole_pairs(rows); i++, from += row) {
        bf16 *line = tiles + i / TILE * tile_row + i % TILE * TILE_DEPTH;
        long k = 0;
        for (; i < rows && k + TILE_DEPTH <= depth; k += TILE_DEPTH, line += TILE_VALUES)
            store_planes(load_all(from + k), planes, plane, line);
        for (; k < depth; k += TILE_DEPTH, line += TILE_VALUES)
            store_planes(load_first(from + k, i < rows ? depth - k : 0), planes, plane, line);
    }
}

static void split_rows(long rows, long depth, long row, const float *from, int planes, long plane, long tile_row,
                       bf16 *tiles)
{
    if (planes == 1)
        split_into_rows(rows, depth, row, from, 1, plane, tile_row, tiles);
    else
        split_into_rows(rows, depth, row, from, 2, plane, tile_row, tiles);
}

/* A line of a tile of pairs, of bf16: one row's sixteen numbers are low, the other one's high. */
INLINE __m512i paired(__m512i rows)
{
    const __m512i pairs = _mm512_set_epi32(0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009,
                                           0x180008, 0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002,
                                           0x110001, 0x100000);
    return _mm512_permutexvar_epi16(pairs, rows);
}

INLINE void store_pairs(floats32 rows, const int planes, long plane, bf16 *line)
{
    __m512i high = rounded(rows);
    _mm512_store_si512(line, paired(high));
    if (planes == 2)
        _mm512_store_si512(line + plane, paired(rounded(minus(rows, widened_all(high)))));
}

/* Row k of a matrix and the next one, sixteen columns; 0 beyond its `depth` rows and `columns`. */
INLINE floats32 load_two_rows(const float *from, long row, long k, long depth, long columns)
{
    __mmask16 even = k < depth ? first(columns) : 0, odd = k + 1 < depth ? first(columns) : 0;
    return (floats32){_mm512_maskz_loadu_ps(even, from), _mm512_maskz_loadu_ps(odd, from + row)};
}

INLINE void split_into_pairs(long depth, long columns, long row, const float *from, const float *scale,
                             const int planes, long plane, long tile_column, bf16 *tiles)
{
    for (long k = 0; k < chunks_of(depth) * TILE_DEPTH; k += 2, from += 2 * row) {
        bf16 *line = tiles + k * TILE;
        float even = scale != NULL && k < depth ? scale[k] : 1, odd = scale != NULL && k + 1 < depth ? scale[k + 1] : 1;
        long i = 0;
        for (; k + 1 < depth && i + TILE <= columns; i += TILE, line += tile_column) {
            floats32 rows = {_mm512_loadu_ps(from + i), _mm512_loadu_ps(from + row + i)};
            store_pairs(scaled(rows, even, odd), planes, plane, line);
        }
        for (; i < columns; i += TILE, line += tile_column)
            store_pairs(scaled(load_two_rows(from + i, row, k, depth, columns - i), even, odd), planes, plane, line);
    }
}

/* Tiles of pairs of a matrix (depth x columns) whose rows are `row` floats apart, each times its scale (depth) unless
 * that is NULL. */
static void split_pairs(long depth, long columns, long row, const float *from, const float *scale, int planes,
                        long plane, long tile_column, bf16 *tiles)
{
    if (planes == 1)
        split_into_pairs(depth, columns, row, from, scale, 1, plane, tile_column, tiles);
    else
        split_into_pairs(depth, columns, row, from, scale, 2, plane, tile_column, tiles);
}

/* A tile of sixteen lines, in one plane or two, transposed. */
INLINE void store_transposed(__m512i lines[2][TILE], const int planes, long plane, bf16 *tile)
{
    for (int p = 0; p < planes; p++) {
        transpose_pairs(lines[p]);
        for (int j = 0; j < TILE; j++)
            _mm512_store_si512(tile + p * plane + j * TILE_DEPTH, lines[p][j]);
    }
}

INLINE void split_into_turned(long rows, long depth, long step, const float *from, const int planes, long plane,
                              long tile_row, bf16 *tiles)
{
    for (long i = 0; i < whole_pairs(rows); i += TILE)
        for (long k = 0; k < depth; k += TILE_DEPTH) {
            __m512i lines[2][TILE];
            for (int j = 0; j < TILE; j++) {
                floats32 x = load_two_rows(from + (k + 2 * j) * step + i, step, k + 2 * j, depth, rows - i);
                __m512i high = rounded(x);
                lines[0][j] = paired(high);
                if (planes == 2)
                    lines[1][j] = paired(rounded(minus(x, widened_all(high))));
            }
            store_transposed(lines, planes, plane, tiles + i / TILE * tile_row + k * TILE);
        }
}

/* Tiles of rows of the transpose of a matrix (depth x rows) whose rows are `step` floats apart; the rows of the result
 * are filled up to whole pairs of tiles. */
static void split_turned(long rows, long depth, long step, const float *from, int planes, long plane, long tile_row,
                         bf16 *tiles)
{
    if (planes == 1)
        split_into_turned(rows, depth, step, from, 1, plane, tile_row, tiles);
    else
        split_into_turned(rows, depth, step, from, 2, plane, tile_row, tiles);
}

INLINE void split_into_columns(long depth, long columns, long column, const float *from, const int planes, long plane,
                               bf16 *tiles)
{
    for (long i = 0; i < whole_pairs(columns); i += TILE)
        for (long k = 0; k < depth; k += TILE_DEPTH, tiles += TILE_VALUES) {
            __m512i lines[2][TILE];
            for (int j = 0; j < TILE; j++) {
                floats32 x = load_first(from + (i + j) * column + k, i + j < columns ? depth - k : 0);
                lines[0][j] = rounded(x);
                if (planes == 2)
                    lines[1][j] = rounded(minus(x, widened_all(lines[0][j])));
            }
            store_transposed(lines, planes, plane, tiles);
        }
}

/* Tiles of pairs of a matrix (depth x columns) whose columns are contiguous, and `column` floats apart; the columns are
 * filled up to whole pairs of tiles. */
static void split_columns(long depth, long columns, long column, const float *from, int planes, long plane, bf16 *tiles)
{
    if (planes == 1)
        split_into_columns(depth, columns, column, from, 1, plane, tiles);
    else
        split_into_columns(depth, columns, column, from, 2, plane, tiles);
}

/* The last layer (linear_cross_entropy.pyx) takes PANEL lanes, rows of the batch, at a time. A block of words is then an
 * array (words, PANEL): of floats, or of bf16, which are tiles of rows below each other. */
enum { PANEL = 2 * TILE };

/* exp(x) for x <= 88 or NaN; 0 below -87. Where one plane of bf16 follows, a minimax fit of degree 4, whose
 * relative error is at most 2.8e-06, and 0 at 0; measured over [-87, 40] 3.2e-6. */
INLINE __m512 exponential(__m512 x, const int planes)
{
    if (planes == 2)
        return (__m512)exp_of((vec)x);
    const __m512 rounder = _mm512_set1_ps(12582912.0f); /* 1.5 * 2^23, as in exp_of */
    __m512 n = _mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), rounder) - rounder;
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693147182f), x);
    __m512 q = _mm512_fmadd_ps(r, _mm512_set1_ps(0.041513849f), _mm512_set1_ps(0.16787474f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.50003016f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.99996686f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ), q, n);
}

/* A logit that is NaN is not taken as the highest, but makes the sum of exponentials NaN. */
INLINE floats32 higher(floats32 logit, floats32 top)
{
    return (floats32){_mm512_max_ps(logit.low, top.low), _mm512_max_ps(logit.high, top.high)};
}

INLINE floats32 logits_of(const float *logits, const float *bias, long word)
{
    return plus(load_all(logits + word * PANEL), all32(bias != NULL ? bias[word] : 0));
}

/* The highest logit + bias of each lane of a panel; -FLT_MAX (finite) where all are -inf. */
static void highest_logits(long words, const float *bias, const float *logits, float *highest)
{
    floats32 top = all32(-FLT_MAX);
    for (long word = 0; word < words; word++)
        top = higher(logits_of(logits, bias, word), top);
    store_all(highest, top);
}

/* The lines of two words, of one plane, in tiles of pairs, sixteen lanes each. The CPU interleaves in each quarter of a
 * vector: the first tile has the lanes 0-3, 8-11, 16-19 and 24-27 of the panel, the second one the rest (lane_of). */
INLINE void store_interleaved(__m512i even, __m512i odd, long tile_column, bf16 *line)
{
    _mm512_store_si512(line, _mm512_unpacklo_epi16(even, odd));
    _mm512_store_si512(line + tile_column, _mm512_unpackhi_epi16(even, odd));
}

/* The lane of a panel in column `column` of its tile of pairs `tile`, 0 or 1. */
INLINE long lane_of(int tile, int column)
{
    return column / 4 * 8 + tile * 4 + column % 4;
}

INLINE void exponentials_in_planes(long words, const float *bias, const float *logits, const float *base,
                                   float *highest, float *sum, const int planes, const bool past_the_cache, long plane,
                                   bf16 *tiles, long pairs_plane, long tile_column, bf16 *pairs)
{
    const floats32 reference = load_all(base);
    floats32 top = load_all(highest), total = all32(0);
    for (long word = 0; word < (tiles != NULL || pairs != NULL ? whole_pairs(words) : words); word += 2) {
        floats32 e[2] = {all32(0), all32(0)};
        for (int i = 0; i < 2 && word + i < words; i++) {
            floats32 logit = logits_of(logits, bias, word + i), above = minus(logit, reference);
            e[i] = (floats32){exponential(above.low, planes), exponential(above.high, planes)};
            top = higher(logit, top);
            total = plus(total, e[i]);
        }
        for (int p = 0; p < planes; p++) {
            __m512i lines[2];
            for (int i = 0; i < 2; i++) {
                lines[i] = rounded(e[i]);
                void *line = tiles + (word + i) * PANEL + p * plane;
                if (tiles != NULL && past_the_cache)
                    _mm512_stream_si512(line, lines[i]);
                else if (tiles != NULL)
                    _mm512_store_si512(line, lines[i]);
                if (planes == 2)
                    e[i] = minus(e[i], widened_all(lines[i]));
            }
            if (pairs != NULL)
                store_interleaved(lines[0], lines[1], tile_column, pairs + word * TILE + p * pairs_plane);
        }
    }
    store_all(highest, top);
    store_all(sum, plus(load_all(sum), total));
}

/* A panel of a block: exp(logits + bias - base) in tiles of rows, past the cache where they are read again much later,
 * and in tiles of pairs for a product over the words, tile_column values from a column to the next, unless NULL; their
 * sum, before they are rounded, is added to `sum`. `highest` becomes the highest logit so far. A base lies less than 88
 * below it, or the sum may be infinite. */
static void exponentials(long words, const float *bias, const float *logits, const float *base, float *highest,
                         float *sum, int planes, bool past_the_cache, long plane, bf16 *tiles, long pairs_plane,
                         long tile_column, bf16 *pairs)
{
    if (planes == 2)
        exponentials_in_planes(words, bias, logits, base, highest, sum, 2, past_the_cache, plane, tiles, pairs_plane,
                               tile_column, pairs);
    else if (past_the_cache)
        exponentials_in_planes(words, bias, logits, base, highest, sum, 1, true, plane, tiles, pairs_plane, tile_column,
                               pairs);
    else
        exponentials_in_planes(words, bias, logits, base, highest, sum, 1, false, plane, tiles, pairs_plane,
                               tile_column, pairs);
}

/* Rows of dh: added to them is the transposed sum of the slices' parts, each times its factors (PANEL), factor_stride
 * from a slice's to the next, of two tiles: 16 columns of dh x PANEL lanes as `exponentials` orders them. */
static void add_turned(long slices, long stride, long tile_column, const float *parts, const float *factors,
                       long factor_stride, long rows, long columns, float *to, long row)
{
    for (int tile = 0; tile < 2; tile++, parts += tile_column) {
        __m512i lines[TILE], lanes;
        for (int i = 0; i < TILE; i++)
            ((int *)&lanes)[i] = (int)lane_of(tile, i);
        for (int i = 0; i < TILE; i++) {
            __m512 sum = _mm512_setzero_ps();
            for (long slice = 0; slice < slices; slice++) {
                floats32 factor = load_all(factors + slice * factor_stride);
                sum += _mm512_loadu_ps(parts + slice * stride + i * TILE) *
                       _mm512_permutex2var_ps(factor.low, lanes, factor.high);
            }
            lines[i] = (__m512i)sum;
        }
        transpose_pairs(lines);
        for (int j = 0; j < TILE; j++)
            if (lane_of(tile, j) < rows) {
                float *at = to + lane_of(tile, j) * row;
                _mm512_mask_storeu_ps(at, first(columns), _mm512_maskz_loadu_ps(first(columns), at) + (__m512)lines[j]);
            }
    }
}

/* Which planes a product takes, the smallest terms first; one plane has only the last of these. */
static const struct {
    int a, b;
} PLANE_PRODUCTS[] = {{1, 0}, {0, 1}, {0, 0}};

#define TILE_KERNELS                                                                                                   \
    {                                                                                                                  \
        .begin = begin, .end = end, .split_rows = split_rows, .split_turned = split_turned,                            \
        .split_pairs = split_pairs, .split_columns = split_columns, .highest_logits = highest_logits,                  \
        .exponentials = exponentials, .add_turned = add_turned, .product = product                                     \
    }
