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

INLINE floats32 times(floats32 x, floats32 y)
{
    return (floats32){x.low * y.low, x.high * y.high};
}

INLINE floats32 all32(float x)
{
    return (floats32){_mm512_set1_ps(x), _mm512_set1_ps(x)};
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

/* Tiles of pairs of a matrix (depth x columns) whose rows are `row` floats apart. */
INLINE void split_into_pairs(long depth, long columns, long row, const float *from, const int planes, long plane,
                             long tile_column, bf16 *tiles)
{
    for (long k = 0; k < chunks_of(depth) * TILE_DEPTH; k += 2, from += 2 * row) {
        bf16 *line = tiles + k * TILE;
        long i = 0;
        for (; k + 1 < depth && i + TILE <= columns; i += TILE, line += tile_column)
            store_pairs((floats32){_mm512_loadu_ps(from + i), _mm512_loadu_ps(from + row + i)}, planes, plane, line);
        for (; i < columns; i += TILE, line += tile_column)
            store_pairs(load_two_rows(from + i, row, k, depth, columns - i), planes, plane, line);
    }
}

static void split_pairs(long depth, long columns, long row, const float *from, int planes, long plane, long tile_column,
                        bf16 *tiles)
{
    if (planes == 1)
        split_into_pairs(depth, columns, row, from, 1, plane, tile_column, tiles);
    else
        split_into_pairs(depth, columns, row, from, 2, plane, tile_column, tiles);
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

/* The last layer's two sweeps (linear_cross_entropy.pyx) take PANEL lanes, rows of the batch, at a time. A block of words
 * is to them an array (words, PANEL): of floats, or of bf16, which are then tiles of rows below each other. */
enum { PANEL = 2 * TILE };

/* How far a logit may lie above its base, to which exponentials are relative. So they are made in one walk over a
 * block, before its highest logit is known; bf16 has the exponents of float32. */
#define BASE_MARGIN 60.0f

/* exp(x) for x <= BASE_MARGIN or NaN; 0 below -87. Where one plane of bf16 follows, a minimax fit of degree 4, whose
 * relative error is at most 2.8e-06, and 0 at 0. */
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

typedef struct {
    floats32 highest, exponentials, differences; /* of a block, for each lane */
} panel_sums;

/* A logit that is NaN is not taken as the highest, but makes the sum of exponentials NaN. */
INLINE floats32 higher(floats32 logit, floats32 top)
{
    return (floats32){_mm512_max_ps(logit.low, top.low), _mm512_max_ps(logit.high, top.high)};
}

INLINE floats32 logits_of(const float *logits, const float *bias, long word)
{
    return plus(load_all(logits + word * PANEL), all32(bias != NULL ? bias[word] : 0));
}

/* Store the exponentials of a block and return its sums. */
INLINE panel_sums walk(long words, const float *bias, const float *logits, floats32 base, const bool differ,
                       const int planes, long plane, bf16 *tiles)
{
    panel_sums sums = {.highest = all32(-FLT_MAX)};
    for (long word = 0; word < words; word++) {
        floats32 logit = logits_of(logits, bias, word), above = minus(logit, base);
        floats32 e = {exponential(above.low, planes), exponential(above.high, planes)};
        sums.highest = higher(logit, sums.highest);
        sums.exponentials = plus(sums.exponentials, e);
        if (differ)
            sums.differences = plus(sums.differences, above);
        if (tiles != NULL)
            store_planes(e, planes, plane, tiles + word * PANEL);
    }
    return sums;
}

/* Give the sums so far another base. */
INLINE void rebase(long words_before, floats32 from, floats32 to, float *sum, float *differences)
{
    floats32 below = minus(from, to);
    store_all(sum, times(load_all(sum), (floats32){exponential(below.low, 2), exponential(below.high, 2)}));
    if (differences != NULL)
        store_all(differences, plus(load_all(differences), times(below, all32((float)words_before))));
}

INLINE void exponentials_in_planes(long words, long words_before, const float *bias, const float *logits,
                                   float *highest, float *base, float *sum, float *differences, const int planes,
                                   long plane, bf16 *tiles)
{
    floats32 top = load_all(highest), reference = load_all(base);
    if (words_before == 0) {
        for (long word = 0; word < words; word++)
            top = higher(logits_of(logits, bias, word), top);
        reference = top;
    }
    panel_sums block = walk(words, bias, logits, reference, differences != NULL, planes, plane, tiles);
    top = higher(block.highest, top);
    floats32 above = minus(minus(top, reference), all32(BASE_MARGIN));
    if (_mm512_cmp_ps_mask(above.low, _mm512_setzero_ps(), _CMP_GT_OQ) |
        _mm512_cmp_ps_mask(above.high, _mm512_setzero_ps(), _CMP_GT_OQ)) {
        rebase(words_before, reference, top, sum, differences);
        reference = top;
        block = walk(words, bias, logits, reference, differences != NULL, planes, plane, tiles);
    }
    store_all(highest, top);
    store_all(base, reference);
    store_all(sum, plus(load_all(sum), block.exponentials));
    if (differences != NULL)
        store_all(differences, plus(load_all(differences), block.differences));
    for (long word = words; tiles != NULL && word < whole_pairs(words); word++)
        store_planes(all32(0), planes, plane, tiles + word * PANEL);
}

/* Sweep one, a panel of a block. tiles = exp(logits + bias - base), unless NULL, and their sum is added to `sum`. Words
 * with logits far above the base so far, that of the first block's highest, raise it. `highest` begins as -FLT_MAX
 * (finite: words may have the logit -inf), the sums as 0. `differences`, unless NULL, sums logit - base over all words
 * so far, of which there were words_before: sums of the logits themselves would lose the differences between large
 * ones. */
static void exponentials(long words, long words_before, const float *bias, const float *logits, float *highest,
                         float *base, float *sum, float *differences, int planes, long plane, bf16 *tiles)
{
    if (planes == 1)
        exponentials_in_planes(words, words_before, bias, logits, highest, base, sum, differences, 1, plane, tiles);
    else
        exponentials_in_planes(words, words_before, bias, logits, highest, base, sum, differences, 2, plane, tiles);
}

/* After the last block of a slice: its sums relative to its highest logits. */
static void settle(long words, long lanes, const float *highest, const float *base, float *sum, float *differences)
{
    for (long lane = 0; lane < lanes; lane += PANEL)
        rebase(words, load_all(base + lane), load_all(highest + lane), sum + lane,
               differences != NULL ? differences + lane : NULL);
}

INLINE floats32 load_planes(const bf16 *line, int planes, long plane)
{
    floats32 x = widened_all(_mm512_load_si512(line));
    return planes == 2 ? plus(x, widened_all(_mm512_load_si512(line + plane))) : x;
}

/* The lines of two words in tiles of pairs, sixteen lanes each. The CPU interleaves in each quarter of a vector: the
 * first tile has the lanes 0-3, 8-11, 16-19 and 24-27 of the panel, the second one the rest (lane_of). */
INLINE void store_interleaved(floats32 x, floats32 y, const int planes, long plane, long tile_column, bf16 *line)
{
    for (int p = 0; p < planes; p++, line += plane) {
        __m512i even = rounded(x), odd = rounded(y);
        _mm512_store_si512(line, _mm512_unpacklo_epi16(even, odd));
        _mm512_store_si512(line + tile_column, _mm512_unpackhi_epi16(even, odd));
        if (planes == 2) {
            x = minus(x, widened_all(even));
            y = minus(y, widened_all(odd));
        }
    }
}

/* The lane of a panel in column `column` of its tile of pairs `tile`, 0 or 1. */
INLINE long lane_of(int tile, int column)
{
    return column / 4 * 8 + tile * 4 + column % 4;
}

INLINE void dlogits_in_planes(long words, const float *scale, const float *shift, const int planes,
                              const bf16 *exponentials, long from_plane, bf16 *tiles, bf16 *pairs, long plane,
                              long tile_column, float *sums)
{
    const floats32 factor = load_all(scale), less = load_all(shift);
    for (long word = 0; word < whole_pairs(words); word += 2, exponentials += 2 * PANEL, tiles += 2 * PANEL) {
        floats32 x[2];
        for (int i = 0; i < 2; i++) {
            x[i] = word + i < words
                       ? minus(times(load_planes(exponentials + i * PANEL, planes, from_plane), factor), less)
                       : all32(0);
            store_planes(x[i], planes, plane, tiles + i * PANEL);
            float *sum = sums + (word + i) * TILE;
            _mm512_storeu_ps(sum, _mm512_loadu_ps(sum) + x[i].low + x[i].high);
        }
        store_interleaved(x[0], x[1], planes, plane, tile_column, pairs + word * TILE);
    }
}

/* Sweep two, a panel of a block: exponentials become dlogits, exponentials * scale - shift, in tiles of rows, and in
 * tiles of pairs for the product over the words, tile_column values from a column to the next. sums (whole pairs of
 * tiles, 16): += the dlogits of each word, before
 * they are rounded. */
static void dlogits(long words, const float *scale, const float *shift, int planes, const bf16 *exponentials,
                    long from_plane, bf16 *tiles, bf16 *pairs, long plane, long tile_column, float *sums)
{
    if (planes == 1)
        dlogits_in_planes(words, scale, shift, 1, exponentials, from_plane, tiles, pairs, plane, tile_column, sums);
    else
        dlogits_in_planes(words, scale, shift, 2, exponentials, from_plane, tiles, pairs, plane, tile_column, sums);
}

/* Where the pair of tiles that `dlogits` made keeps a word's number of a lane. */
static bf16 *pair_of(long words, long word, long lane, bf16 *pairs)
{
    const long tile = lane % 8 / 4, column = lane / 8 * 4 + lane % 4;
    return pairs + (tile * chunks_of(words) + word / TILE_DEPTH) * TILE_VALUES + word % TILE_DEPTH / 2 * TILE_DEPTH +
           2 * column + word % 2;
}

/* Rows of dh: the transposed sum of the slices' parts of two tiles, 16 columns of dh x PANEL lanes as `dlogits` orders
 * them. */
static void add_turned(long slices, long stride, long tile_column, const float *parts, long rows, long columns,
                       float *to, long row)
{
    for (int tile = 0; tile < 2; tile++, parts += tile_column) {
        __m512i lines[TILE];
        for (int i = 0; i < TILE; i++) {
            __m512 sum = _mm512_setzero_ps();
            for (long slice = 0; slice < slices; slice++)
                sum += _mm512_loadu_ps(parts + slice * stride + i * TILE);
            lines[i] = (__m512i)sum;
        }
        transpose_pairs(lines);
        for (int j = 0; j < TILE; j++)
            if (lane_of(tile, j) < rows)
                _mm512_mask_storeu_ps(to + lane_of(tile, j) * row, first(columns), (__m512)lines[j]);
    }
}

/* Prefetch what comes after a product while it, which needs no memory, is computed: at each of its steps some lines. The
 * data is in the second-level cache when it is read. */
typedef struct {
    upcoming what;
    long next, lines; /* bytes so far, and lines a step */
} prefetcher;

INLINE prefetcher prefetch_over(long steps, upcoming what)
{
    return (prefetcher){what, 0, steps > 0 ? (what.bytes / 64 + steps) / steps : 0};
}

INLINE void prefetch_some(prefetcher *p)
{
    for (long i = 0; i < p->lines && p->next < p->what.bytes; i++, p->next += 64)
        for (int array = 0; array < 3 && p->what.arrays[array] != NULL; array++)
            _mm_prefetch((const char *)p->what.arrays[array] + p->next, _MM_HINT_T1);
}

/* Which planes a product takes, the smallest terms first; one plane has only the last of these. */
static const struct {
    int a, b;
} PLANE_PRODUCTS[] = {{1, 0}, {0, 1}, {0, 0}};

#define TILE_KERNELS                                                                                                   \
    {                                                                                                                  \
        .begin = begin, .end = end, .split_rows = split_rows, .split_turned = split_turned,                            \
        .split_pairs = split_pairs, .split_columns = split_columns, .exponentials = exponentials, .settle = settle,    \
        .dlogits = dlogits, .pair_of = pair_of, .add_turned = add_turned, .product = product                           \
    }
