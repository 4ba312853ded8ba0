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

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

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

INLINE floats32 minus(floats32 x, floats32 y)
{
    return (floats32){x.low - y.low, x.high - y.high};
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
INLINE void transpose(__m512i x[TILE])
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
 * tile_row: values from a row of tiles to the next, more than chunks of the depth where the matrix is a part of a wider
 * one. */
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

/* Tiles of pairs of a matrix (depth x columns) whose rows are `row` floats apart. */
INLINE void split_into_pairs(long depth, long columns, long row, const float *from, const int planes, long plane,
                             bf16 *tiles)
{
    const long tile_column = chunks_of(depth) * TILE_VALUES;
    for (long k = 0; k < chunks_of(depth) * TILE_DEPTH; k += 2, from += 2 * row) {
        bf16 *line = tiles + k * TILE;
        long i = 0;
        for (; k + 1 < depth && i + TILE <= columns; i += TILE, line += tile_column)
            store_pairs((floats32){_mm512_loadu_ps(from + i), _mm512_loadu_ps(from + row + i)}, planes, plane, line);
        for (; i < columns; i += TILE, line += tile_column)
            store_pairs(load_two_rows(from + i, row, k, depth, columns - i), planes, plane, line);
    }
}

static void split_pairs(long depth, long columns, long row, const float *from, int planes, long plane, bf16 *tiles)
{
    if (planes == 1)
        split_into_pairs(depth, columns, row, from, 1, plane, tiles);
    else
        split_into_pairs(depth, columns, row, from, 2, plane, tiles);
}

/* A tile of sixteen lines, in one plane or two, transposed. */
INLINE void store_transposed(__m512i lines[2][TILE], const int planes, long plane, bf16 *tile)
{
    for (int p = 0; p < planes; p++) {
        transpose(lines[p]);
        for (int j = 0; j < TILE; j++)
            _mm512_store_si512(tile + p * plane + j * TILE_DEPTH, lines[p][j]);
    }
}

INLINE void split_into_turned(long rows, long depth, long step, const float *from, const int planes, long plane,
                              bf16 *tiles)
{
    for (long i = 0; i < whole_pairs(rows); i += TILE)
        for (long k = 0; k < depth; k += TILE_DEPTH, tiles += TILE_VALUES) {
            __m512i lines[2][TILE];
            for (int j = 0; j < TILE; j++) {
                floats32 x = load_two_rows(from + (k + 2 * j) * step + i, step, k + 2 * j, depth, rows - i);
                __m512i high = rounded(x);
                lines[0][j] = paired(high);
                if (planes == 2)
                    lines[1][j] = paired(rounded(minus(x, widened_all(high))));
            }
            store_transposed(lines, planes, plane, tiles);
        }
}

/* Tiles of rows of the transpose of a matrix (depth x rows) whose rows are `step` floats apart; the rows of the result
 * are filled up to whole pairs of tiles. */
static void split_turned(long rows, long depth, long step, const float *from, int planes, long plane, bf16 *tiles)
{
    if (planes == 1)
        split_into_turned(rows, depth, step, from, 1, plane, tiles);
    else
        split_into_turned(rows, depth, step, from, 2, plane, tiles);
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

/* Exponentials become dlogits, in place: tiles = tiles * scale - shift, with a scale and a shift for every lane;
 * sums[word] is their sum before they are rounded. */
static void dlogits(long words, long lanes, int planes, long plane, const float *scale, const float *shift, bf16 *tiles,
                    float *sums)
{
    for (long word = 0; word < words; word++) {
        __m512 total = _mm512_setzero_ps();
        bf16 *line = tiles + word / TILE * chunks_of(lanes) * TILE_VALUES + word % TILE * TILE_DEPTH;
        for (long lane = 0; lane < lanes; lane += TILE_DEPTH, line += TILE_VALUES) {
            floats32 x = widened_all(_mm512_load_si512(line));
            if (planes == 2) {
                floats32 rest = widened_all(_mm512_load_si512(line + plane));
                x = (floats32){x.low + rest.low, x.high + rest.high};
            }
            x.low = x.low * _mm512_loadu_ps(scale + lane) - _mm512_loadu_ps(shift + lane);
            x.high = x.high * _mm512_loadu_ps(scale + lane + TILE) - _mm512_loadu_ps(shift + lane + TILE);
            total += x.low + x.high;
            store_planes(x, planes, plane, line);
        }
        sums[word] = _mm512_reduce_add_ps(total);
    }
}

/* Tiles of rows of the transpose: of (words x lanes), filled up to whole chunks, tiles of (lanes x words). The lanes
 * of two words side by side are already lines of pairs. */
static void turn(long words, long lanes, int planes, long plane, const bf16 *tiles, long turned_plane, bf16 *turned)
{
    const long tile_row = chunks_of(lanes) * TILE_VALUES;
    for (int p = 0; p < planes; p++, tiles += plane, turned += turned_plane)
        for (long lane = 0; lane < lanes; lane += TILE)
            for (long word = 0; word < words; word += TILE_DEPTH) {
                const bf16 *from = tiles + word / TILE * tile_row + lane / TILE_DEPTH * TILE_VALUES + lane % TILE_DEPTH;
                __m512i lines[TILE];
                for (int j = 0; j < TILE; j++) {
                    const bf16 *pair = from + 2 * j / TILE * tile_row + 2 * j % TILE * TILE_DEPTH;
                    __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)pair));
                    __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(pair + TILE_DEPTH)));
                    lines[j] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
                }
                transpose(lines);
                bf16 *to = turned + (lane / TILE * chunks_of(words) + word / TILE_DEPTH) * TILE_VALUES;
                for (int j = 0; j < TILE; j++)
                    _mm512_store_si512(to + j * TILE_DEPTH, lines[j]);
            }
}

/* Prefetch data for after a product while the product, which needs no memory, is computed: at each of its steps a few
 * lines of an array of floats. The data is in the second-level cache when it is read. */
typedef struct {
    const float *next, *end;
    long lines; /* a step */
} prefetch;

INLINE prefetch prefetch_over(long steps, const float *ahead, long ahead_floats)
{
    return (prefetch){ahead, ahead + ahead_floats, steps > 0 ? (ahead_floats / 16 + steps) / steps : 0};
}

INLINE void prefetch_some(prefetch *wanted)
{
    for (long i = 0; i < wanted->lines && wanted->next < wanted->end; i++, wanted->next += 16)
        _mm_prefetch(wanted->next, _MM_HINT_T1);
}

/* Which planes a product takes, the smallest terms first; one plane has only the last of these. */
static const struct {
    int a, b;
} PLANE_PRODUCTS[] = {{1, 0}, {0, 1}, {0, 0}};

#define TILE_KERNELS                                                                                                   \
    {                                                                                                                  \
        .begin = begin, .end = end, .split_rows = split_rows, .split_turned = split_turned,                            \
        .split_pairs = split_pairs, .split_columns = split_columns, .dlogits = dlogits, .turn = turn,                  \
        .product = product                                                                                             \
    }
