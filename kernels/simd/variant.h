/* The vector kernels, written once and compiled once for each instruction set: the including file sets VARIANT, LANES
 * and TILE_ROWS and names its target. Nothing here uses threads or allocates; callers go through core.h's table. */
#include "core.h"
#include "vector.h"
#ifdef __SSE__
#include <xmmintrin.h>
#endif

#define PASTE(a, b) a##b
#define TABLE_NAME(variant) PASTE(simd_, variant)

enum { PANEL = 2 * LANES, LINE = 16 /* floats of a cache line */, ROWS_AHEAD = 8, FLOATS_AHEAD = 512 };
enum { APART = 1024 }; /* floats: rows so far apart, or a multiple of it, have one set of the first cache */

/* --------------------------------------------------------------------------------------------------------- products
 *
 *   c (rows x lanes) = a (rows x depth) b (depth x lanes)
 *
 * b's lanes lie side by side in a panel, PANEL floats a step of the depth; a's values are broadcast in place, in any
 * layout, but for rows that are APART. A tile of TILE_ROWS x PANEL sums stays in registers over the whole depth:
 *
 *            panel                 each step of the depth reads one row of the panel and TILE_ROWS values of a,
 *        k  [v0 | v1]              and does TILE_ROWS x 2 multiply-adds
 *   a  [ ]  [sums   ]
 *   .  [ ]  [  of   ]
 *   .  [ ]  [ tile  ] */

/* A square of `pack` whose lanes' values lie side by side; `steps` and `lanes` of it are there. */
INLINE void pack_square(const float *source, long row, long steps, long lanes, float *panel)
{
    vec square[LANES];
    UNROLL
    for (int i = 0; i < LANES; i++)
        square[i] = i < lanes ? load_some(source + i * row, steps) : (vec){0};
    transpose(square);
    UNROLL
    for (int i = 0; i < LANES; i++)
        if (i < steps)
            store(panel + i * PANEL, square[i]);
}

/* `pack` where the lanes' values lie side by side: a step of the depth after the other, since each may be a page apart
 * from the next, and the first cache has room for few lines of the same place. */
INLINE void pack_columns(matrix source, long depth, long lanes, const float *scale, float *panel)
{
    const float *from = source.data, *end = from + lanes + (depth - 1) * source.step;
    for (long k = 0; k < depth; k++, from += source.step, panel += PANEL) {
        __builtin_prefetch(from + ROWS_AHEAD * source.step);
        __builtin_prefetch(from + ROWS_AHEAD * source.step + lanes - 1);
        UNROLL
        for (int lane = 0; lane < PANEL; lane += LANES) { /* beyond a row's end the next row is read */
            const long there = lanes - lane > 0 ? lanes - lane : 0;
            vec v = end - from - lane >= LANES ? load(from + lane) : load_some(from + lane, there);
            if (scale != NULL)
                v *= scale[k];
            store(panel + lane, there < LANES ? first_lanes(v, there, 0) : v);
        }
    }
}

/* Lanes of a panel: panel[k][lane] = source(lane, k), 0 for lane >= lanes. One of the source's two strides is 1; where it
 * is read by columns, they are multiplied by their scale (depth), unless NULL. */
static void pack(matrix source, long depth, long lanes, const float *scale, float *panel)
{
    if (source.row == 1) {
        pack_columns(source, depth, lanes, scale, panel);
        return;
    }
    for (long lane = 0; lane < PANEL; lane += LANES) {
        const long there = lanes - lane > 0 ? lanes - lane : 0;
        const float *from = source.data + lane * source.row;
        float *to = panel + lane;
        if (there < LANES || depth < LANES)
            for (long k = 0; k < depth; k += LANES)
                pack_square(from + k, source.row, depth - k, there, to + k * PANEL);
        else
            for (long k = 0; k < depth; k += LANES) { /* the last square is whole too, and overlaps the one before */
                long first = k + LANES <= depth ? k : depth - LANES;
                pack_square(from + first, source.row, LANES, LANES, to + first * PANEL);
            }
    }
}

/* A square of a tile whose result is transposed: of each of its lanes `rows` values side by side. */
INLINE void store_square(const float *values, const int rows, long lanes, float *c, long c_lane, bool accumulate)
{
    vec square[LANES];
    UNROLL
    for (int i = 0; i < LANES; i++)
        square[i] = i < rows ? load(values + i * PANEL) : (vec){0};
    transpose(square);
    UNROLL
    for (int i = 0; i < LANES; i++)
        if (i < lanes) {
            float *at = c + i * c_lane;
            store_some(at, accumulate ? load_some(at, rows) + square[i] : square[i], rows);
        }
}

/* A line of each row of a tile, one behind the other. */
INLINE void copy_lines(const int rows, const float *const *threes, long a_row, float *lines)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < LINE; j += LANES)
            store(lines + i * LINE + j, load(threes[i / 3] + i % 3 * a_row + j));
}

/* One step of the depth. */
INLINE void tile_step(const int rows, const int vectors, const float *const *threes, long a_row, int step,
                      const float *panel, vec sums[TILE_ROWS][2])
{
    vec b[2];
    for (int j = 0; j < vectors; j++)
        b[j] = load(panel + j * LANES);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            sums[i][j] += threes[i / 3][i % 3 * a_row + step] * b[j];
}

/* One tile. `rows` and `vectors` are constants where it is inlined, and so are a_step and panel_step where they are the
 * usual ones: a step of the depth is then an offset in the instruction. apart: rows that lie whole pages apart have one
 * set of the first cache, which keeps eight of their lines or twelve; they are copied, sixteen steps at a time.
 *
 * The hardware does not prefetch the values of a, twelve short streams or one with a long stride: the next
 * tile's are prefetched while this one is computed (single thread, B = 32: 98 GFLOP/s instead of 75 from memory). So
 * are the lines of c, for which the end would wait (33 MB of dW at B = 32: 6 ms instead of 8). */
INLINE void tile(const int rows, const int vectors, const bool apart, long depth, const float *a, long a_row,
                 long a_step, const float *panel, long panel_step, long lanes, float *c, long c_row, long c_lane,
                 bool accumulate)
{
    vec sums[TILE_ROWS][2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            sums[i][j] = (vec){0};
    if (c_row == 1)
        for (int j = 0; j < lanes; j++)
            __builtin_prefetch(c + j * c_lane + rows - 1, 1);
    else
        for (int i = 0; i < rows; i++)
            for (int j = vectors * LANES - 1; j >= 0; j -= LINE)
                __builtin_prefetch(c + i * c_row + j, 1);
    const float *threes[(TILE_ROWS + 2) / 3]; /* a register for each row's offset would be too many: three share one */
    for (int i = 0; i < rows; i += 3)
        threes[i / 3] = a + i * a_row;
    float lines[TILE_ROWS * LINE];
    const float *copied[(TILE_ROWS + 2) / 3];
    for (int i = 0; i < rows; i += 3)
        copied[i / 3] = lines + i * LINE;
    long k = 0;
    for (; a_step == 1 && k + LINE <= depth; k += LINE, panel += LINE * panel_step) {
        if (apart)
            copy_lines(rows, threes, a_row, lines);
        for (int i = 0; i < rows; i++)
            if (apart) /* into the second cache: in the first one they would drive each other out */
                __builtin_prefetch(threes[i / 3] + (i % 3 + rows) * a_row, 0, 2);
            else
                __builtin_prefetch(threes[i / 3] + (i % 3 + rows) * a_row);
        SOME_STEPS
        for (int step = 0; step < LINE; step++)
            tile_step(rows, vectors, apart ? copied : threes, apart ? LINE : a_row, step, panel + step * panel_step,
                      sums);
        for (int i = 0; i < rows; i += 3)
            threes[i / 3] += LINE;
    }
    SOME_STEPS
    for (; k < depth; k++, panel += panel_step) { /* all of the depth, or what is left of it */
        if (a_step != 1)
            __builtin_prefetch(threes[0] + 2 * rows);
        tile_step(rows, vectors, threes, a_row, 0, panel, sums);
        for (int i = 0; i < rows; i += 3)
            threes[i / 3] += a_step;
    }
    if (c_lane == 1 && lanes == vectors * LANES) {
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < vectors; j++) {
                float *at = c + i * c_row + j * LANES;
                store(at, accumulate ? load(at) + sums[i][j] : sums[i][j]);
            }
        return;
    }
    float values[TILE_ROWS][PANEL];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            store(&values[i][j * LANES], sums[i][j]);
    if (c_row == 1)  /* a transposed result: what each lane gives lies side by side */
        for (int first = 0; first < rows; first += LANES)
            for (int lane = 0; lane < vectors * LANES; lane += LANES)
                store_square(&values[first][lane], rows - first < LANES ? rows - first : LANES, lanes - lane,
                             c + first + lane * c_lane, c_lane, accumulate);
    else  /* a remainder smaller than a vector */
        for (int i = 0; i < rows; i++)
            for (long lane = 0; lane < lanes; lane++) {
                float *at = c + i * c_row + lane * c_lane;
                *at = accumulate ? *at + values[i][lane] : values[i][lane];
            }
}

INLINE void tiles(const int vectors, const bool apart, long rows, long depth, const float *a, long a_row, long a_step,
                  const float *panel, long panel_step, long lanes, float *c, long c_row, long c_lane, bool accumulate)
{
    long i = 0;
    for (; i + TILE_ROWS <= rows; i += TILE_ROWS)
        tile(TILE_ROWS, vectors, apart, depth, a + i * a_row, a_row, a_step, panel, panel_step, lanes, c + i * c_row,
             c_row, c_lane, accumulate);
    for (; i + 4 <= rows; i += 4)
        tile(4, vectors, apart, depth, a + i * a_row, a_row, a_step, panel, panel_step, lanes, c + i * c_row,
             c_row, c_lane, accumulate);
    for (; i + 2 <= rows; i += 2)
        tile(2, vectors, apart, depth, a + i * a_row, a_row, a_step, panel, panel_step, lanes, c + i * c_row,
             c_row, c_lane, accumulate);
    for (; i < rows; i++)
        tile(1, vectors, apart, depth, a + i * a_row, a_row, a_step, panel, panel_step, lanes, c + i * c_row,
             c_row, c_lane, accumulate);
}

/* c (rows x lanes) = a b for one panel, or c += a b. panel_step: floats between the rows of the panel, PANEL where it
 * was packed; the element of c in row i and lane j is c[i * c_row + j * c_lane]. */
static void product(long rows, long depth, matrix a, const float *panel, long panel_step, long lanes, float *c,
                    long c_row, long c_lane, bool accumulate)
{
    if (LANES >= 8 && lanes > LANES && a.step == 1 && panel_step == PANEL && a.row % APART == 0)
        /* with vectors of four a line is four loads and stores: too many */
        tiles(2, true, rows, depth, a.data, a.row, 1, panel, PANEL, lanes, c, c_row, c_lane, accumulate);
    else if (lanes > LANES && a.step == 1 && panel_step == PANEL) /* the usual cases, with constants */
        tiles(2, false, rows, depth, a.data, a.row, 1, panel, PANEL, lanes, c, c_row, c_lane, accumulate);
    else if (lanes > LANES && a.row == 1 && a.step == PANEL && panel_step == PANEL)
        tiles(2, false, rows, depth, a.data, 1, PANEL, panel, PANEL, lanes, c, c_row, c_lane, accumulate);
    else if (lanes > LANES && a.step == 1)
        tiles(2, false, rows, depth, a.data, a.row, 1, panel, panel_step, lanes, c, c_row, c_lane, accumulate);
    else if (lanes > LANES && a.row == 1)
        tiles(2, false, rows, depth, a.data, 1, a.step, panel, panel_step, lanes, c, c_row, c_lane, accumulate);
    else if (lanes > LANES)
        tiles(2, false, rows, depth, a.data, a.row, a.step, panel, panel_step, lanes, c, c_row, c_lane, accumulate);
    else if (a.step == 1)
        tiles(1, false, rows, depth, a.data, a.row, 1, panel, panel_step, lanes, c, c_row, c_lane, accumulate);
    else
        tiles(1, false, rows, depth, a.data, a.row, a.step, panel, panel_step, lanes, c, c_row, c_lane, accumulate);
}

/* Products of `words` rows of w and `rows` of x, a vector of sums each. The last vector of the depth overlaps the one
 * before, and has zeros where it does. */
INLINE void dots_block(const int words, const int rows, long depth, const float *w, long w_row, const float *x,
                       long x_row, float *y, long y_row)
{
    vec sums[4][4] = {0};
    long k = 0;
    for (; k + LANES <= depth; k += LANES)
        UNROLL
        for (int i = 0; i < words; i++) {
            vec some = load(w + i * w_row + k);
            UNROLL
            for (int j = 0; j < rows; j++)
                sums[i][j] += some * load(x + j * x_row + k);
        }
    if (k < depth)
        UNROLL
        for (int i = 0; i < words; i++) {
            vec some = load_last(w + i * w_row, depth, depth - k);
            UNROLL
            for (int j = 0; j < rows; j++)
                sums[i][j] += some * load_last(x + j * x_row, depth, depth - k);
        }
    UNROLL
    for (int i = 0; i < words; i++)
        UNROLL
        for (int j = 0; j < rows; j++)
            y[j * y_row + i] = sum_of_lanes(sums[i][j]);
}

INLINE void dots_rows(const int rows, long words, long depth, const float *w, long w_row, const float *x, long x_row,
                      float *y, long y_row)
{
    long word = 0;
    for (; word + 4 <= words; word += 4)
        dots_block(4, rows, depth, w + word * w_row, w_row, x, x_row, y + word, y_row);
    for (; word < words; word++)
        dots_block(1, rows, depth, w + word * w_row, w_row, x, x_row, y + word, y_row);
}

/* y[row * y_row + word] = the product of row `word` of w and row `row` of x, for few rows of x: the time is
 * that of reading w. */
static void dots(long words, long rows, long depth, const float *w, long w_row, const float *x, long x_row, float *y,
                 long y_row)
{
    long row = 0;
    for (; row + 4 <= rows; row += 4)
        dots_rows(4, words, depth, w, w_row, x + row * x_row, x_row, y + row * y_row, y_row);
    for (; row + 2 <= rows; row += 2)
        dots_rows(2, words, depth, w, w_row, x + row * x_row, x_row, y + row * y_row, y_row);
    for (; row < rows; row++)
        dots_rows(1, words, depth, w, w_row, x + row * x_row, x_row, y + row * y_row, y_row);
}

/* Some columns of y (rows, stride) += bias. */
static void add_bias(long rows, long stride, long columns, const float *bias, float *y)
{
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < columns; i++)
            y[row * stride + i] += bias[i];
}

/* Sums of up to COLUMN_BLOCK columns of x (rows, stride) over the rows, in double: their error does not grow with the
 * rows. */
INLINE void sum_columns(long rows, long stride, long columns, const float *x, double *sums)
{
    for (long i = 0; i < COLUMN_BLOCK; i++)
        sums[i] = 0;
    for (long row = 0; row < rows; row++) {
        for (long i = 0; i < columns; i += LINE) /* prefetch: the CPU does not foresee reads a page apart */
            __builtin_prefetch(x + (row + ROWS_AHEAD) * stride + i);
        for (long i = 0; i < columns; i++)
            sums[i] += x[row * stride + i];
    }
}

static void column_sums(long rows, long stride, long columns, const float *x, float *sums)
{
    double wide[COLUMN_BLOCK];
    sum_columns(rows, stride, columns, x, wide);
    for (long i = 0; i < columns; i++)
        sums[i] = (float)wide[i];
}

/* ------------------------------------------------------------------------------------- linear cross entropy, by blocks
 *
 * A block of logits is (words, lanes): a word's scores for the rows of the batch lie side by side, so that maximum and
 * sum over the words are vertical, a register for each vector of lanes. `lanes` is the padded batch, a multiple of
 * LANES. */

/* The highest logit + bias of each lane; -FLT_MAX (finite) where all are -inf. */
static void highest_logits(long words, long lanes, long stride, const float *bias, const float *logits, float *highest)
{
    for (long lane = 0; lane < lanes; lane += LANES) {
        vec top = all(-FLT_MAX);
        for (long word = 0; word < words; word++)
            top = highest_of(load(logits + word * stride + lane) + (bias != NULL ? bias[word] : 0), top);
        store(highest + lane, top);
    }
}

/* logits = exp(logits + bias - base), whose sum is added to `sum`; `highest` becomes the highest logit so far. If a base
 * lies 88 below it or more, neither is to be used. */
static void exponentials(long words, long lanes, long stride, const float *bias, const float *base, float *logits,
                         float *highest, float *sum)
{
    for (long lane = 0; lane < lanes; lane += LANES) {
        const vec reference = load(base + lane);
        vec top = load(highest + lane), total = load(sum + lane);
        for (long word = 0; word < words; word++) {
            float *at = logits + word * stride + lane;
            vec logit = load(at) + (bias != NULL ? bias[word] : 0);
            vec e = exp_of(logit - reference);
            store(at, e);
            top = highest_of(logit, top);
            total += e;
        }
        store(sum + lane, total);
        store(highest + lane, top);
    }
}

/* After the last block of a slice: its sums relative to its highest logits. */
static void settle(long lanes, const float *highest, const float *base, float *sum)
{
    for (long lane = 0; lane < lanes; lane += LANES)
        store(sum + lane, load(sum + lane) * exp_of(load(base + lane) - load(highest + lane)));
}

/* sums[word] = sum of e * scale over the first `lanes` lanes. */
static void lane_sums(long words, long lanes, long stride, const float *e, const float *scale, float *sums)
{
    for (long word = 0; word < words; word++) {
        vec total = {0};
        for (long lane = 0; lane < lanes; lane += LANES)
            total += load_some(e + word * stride + lane, lanes - lane) * load_some(scale + lane, lanes - lane);
        sums[word] = sum_of_lanes(total);
    }
}

/* scale = exp(base - highest - log_sum) * row_scale: what makes dlogits of exponentials relative to the base. The two are
 * subtracted one after the other: for large logits their sum would lose significant digits. */
static void rescale(long lanes, const float *base, const float *highest, const float *log_sum, const float *row_scale,
                    float *scale)
{
    for (long lane = 0; lane < lanes; lane += LANES) {
        vec below = load(base + lane) - load(highest + lane) - load(log_sum + lane);
        store(scale + lane, exp_of(below) * load(row_scale + lane));
    }
}

/* Combine the slices of the vocabulary: the row's maximum and, in double, its sum relative to that. */
static void combine(long slices, long lanes, const float *highest, const float *sum, float *row_highest,
                    double *row_sum)
{
    for (long lane = 0; lane < lanes; lane += LANES) {
        vec top = load(highest + lane);
        for (long slice = 1; slice < slices; slice++)
            top = highest_of(load(highest + slice * lanes + lane), top);
        store(row_highest + lane, top);
        for (int i = 0; i < LANES; i++)
            row_sum[lane + i] = 0;
        for (long slice = 0; slice < slices; slice++) {
            const long at = slice * lanes + lane;
            vec part = load(sum + at) * exp_of(load(highest + at) - top);
            for (int i = 0; i < LANES; i++)
                row_sum[lane + i] += part[i];
        }
    }
}

/* total (lanes) = sum of the slices' parts, in slice order, each times its factors, unless NULL; those of slice s begin
 * at parts + s * stride and at factors + s * factor_stride. */
static void add_slices(long slices, long stride, long lanes, const float *parts, const float *factors,
                       long factor_stride, float *total)
{
    for (long lane = 0; lane < lanes; lane += LANES) {
        vec sum = {0};
        for (long slice = 0; slice < slices; slice++) {
            vec part = load_some(parts + slice * stride + lane, lanes - lane);
            sum += factors != NULL ? part * load_some(factors + slice * factor_stride + lane, lanes - lane) : part;
        }
        store_some(total + lane, sum, lanes - lane);
    }
}

/* Copy rows that lie `row` floats apart to memory that is not read soon: past the caches if the CPU can, so that the
 * old contents are not read first. */
static void stream(long rows, long columns, const float *from, long row, float *to)
{
    for (; rows > 0; rows--, from += row, to += columns) {
        long i = 0;
#ifdef __SSE__
        for (; i < columns && (uintptr_t)(to + i) % sizeof(__m128) != 0; i++)
            to[i] = from[i];
        for (; i + 4 <= columns; i += 4)
            _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
#endif
        for (; i < columns; i++)
            to[i] = from[i];
    }
#ifdef __SSE__
    _mm_sfence(); /* the stores are visible before the signal that they are done */
#endif
}

/* ----------------------------------------------------------------------- softmax and cross entropy, a row at a time */

INLINE float highest_of_row(long n, const float *x)
{
    vec top = all(-FLT_MAX);
    for (long i = 0; i < n; i += LANES) {
        vec some = load_some(x + i, n - i);
        top = highest_of(n - i < LANES ? first_lanes(some, n - i, -FLT_MAX) : some, top);
    }
    return highest_lane(top);
}

/* The sums of one row, from differences to its highest logit: for large logits lse itself would lose significant
 * digits. If e is not NULL it gets the exponentials of these differences. Sums go to double every COLUMN_BLOCK
 * vectors. */
INLINE row_sums sum_up_row(long n, const float *logits, float *e)
{
    row_sums sums = {.highest = highest_of_row(n, logits)};
    for (long i = 0; i < n; i += COLUMN_BLOCK * LANES) {
        vec exponentials = {0}, differences = {0};
        for (long j = i; j < n && j < i + COLUMN_BLOCK * LANES; j += LANES) {
            vec difference = load_some(logits + j, n - j) - sums.highest;
            vec exponential = exp_of(difference);
            if (e != NULL)
                store_some(e + j, exponential, n - j);
            differences += n - j < LANES ? first_lanes(difference, n - j, 0) : difference;
            exponentials += n - j < LANES ? first_lanes(exponential, n - j, 0) : exponential;
        }
        sums.differences += sum_of_lanes(differences);
        sums.exponentials += sum_of_lanes(exponentials);
    }
    return sums;
}

static row_sums row_statistics(long n, const float *logits)
{
    return sum_up_row(n, logits, NULL);
}

/* dlogits = softmax(logits) * scale - shift for one row. */
static row_sums row_softmax(long n, const float *logits, float scale, float shift, float *dlogits)
{
    row_sums sums = sum_up_row(n, logits, dlogits);
    scale = (float)(scale / sums.exponentials);
    for (long i = 0; i < n; i += LANES)
        store_some(dlogits + i, load_some(dlogits + i, n - i) * scale - shift, n - i);
    return sums;
}

static void row_log_softmax(long n, const float *x, float *y)
{
    row_sums sums = sum_up_row(n, x, NULL);
    float log_sum_exp = (float)log(sums.exponentials);
    for (long i = 0; i < n; i += LANES)
        store_some(y + i, load_some(x + i, n - i) - sums.highest - log_sum_exp, n - i);
}

/* dx = y (dy - sum dy y) */
static void row_softmax_backward(long n, const float *dy, const float *y, float *dx)
{
    double total = 0;
    for (long i = 0; i < n; i += COLUMN_BLOCK * LANES) {
        vec part = {0};
        for (long j = i; j < n && j < i + COLUMN_BLOCK * LANES; j += LANES)
            part += load_some(dy + j, n - j) * load_some(y + j, n - j);
        total += sum_of_lanes(part);
    }
    for (long i = 0; i < n; i += LANES)
        store_some(dx + i, load_some(y + i, n - i) * (load_some(dy + i, n - i) - (float)total), n - i);
}

/* dx = dy - exp(y) sum dy */
static void row_log_softmax_backward(long n, const float *dy, const float *y, float *dx)
{
    double total = 0;
    for (long i = 0; i < n; i += COLUMN_BLOCK * LANES) {
        vec part = {0};
        for (long j = i; j < n && j < i + COLUMN_BLOCK * LANES; j += LANES)
            part += load_some(dy + j, n - j);
        total += sum_of_lanes(part);
    }
    for (long i = 0; i < n; i += LANES)
        store_some(dx + i, load_some(dy + i, n - i) - exp_of(load_some(y + i, n - i)) * (float)total, n - i);
}

/* dlogits = exp(logits - highest - log_sum) * scale - shift for one row. */
static void row_dlogits(long n, const float *logits, float highest, float log_sum, float scale, float shift,
                        float *dlogits)
{
    for (long i = 0; i < n; i += LANES)
        store_some(dlogits + i, exp_of(load_some(logits + i, n - i) - highest - log_sum) * scale - shift,
                   n - i);
}

/* ------------------------------------------------------------------------------------------------------------- tanh */

static void tanh_forward(long n, const float *x, float *y)
{
    long i = 0;
    for (; i + LANES <= n; i += LANES)
        store(y + i, tanh_of(load(x + i)));
    if (i < n)
        store_some(y + i, tanh_of(load_some(x + i, n - i)), n - i);
}

static void tanh_backward(long n, const float *dy, const float *y, float *dx)
{
    ELEMENTWISE
    for (long i = 0; i < n; i++)
        dx[i] = dy[i] * (1 - y[i] * y[i]);
}

static void add(long n, const float *a, const float *b, float *y)
{
    ELEMENTWISE
    for (long i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

/* ------------------------------------------------------------------------------------------------------------- gelu */

static void gelu_forward(long n, const float *x, float *y)
{
    long i = 0;
    for (; i + LANES <= n; i += LANES)
        store(y + i, gelu_of(load(x + i)));
    if (i < n)
        store_some(y + i, gelu_of(load_some(x + i, n - i)), n - i);
}

static void gelu_backward(long n, const float *dy, const float *x, float *dx)
{
    long i = 0;
    for (; i + LANES <= n; i += LANES)
        store(dx + i, load(dy + i) * gelu_slope(load(x + i)));
    if (i < n)
        store_some(dx + i, load_some(dy + i, n - i) * gelu_slope(load_some(x + i, n - i)), n - i);
}

/* ------------------------------------------------------------------------------------------------------------ dropout
 *
 * Philox4x32-10 on as many blocks as there are wide lanes: a word lies in the low half of its lane, and what is in the
 * high half takes no part in the next product. */

enum { PHILOX_ROUNDS = 10, WIDE_LANES = LANES / 2 };

typedef struct {
    wide first, second; /* of each round */
} round_keys;

static void schedule(const uint32_t key[2], round_keys *keys)
{
    uint32_t first = key[0], second = key[1];
    for (int i = 0; i < PHILOX_ROUNDS; i++, first += 0x9E3779B9u, second += 0xBB67AE85u) {
        keys[i].first = (wide){0} + first;
        keys[i].second = (wide){0} + second;
    }
}

enum { MASK_BLOCK = 8, NUMBERS = WIDE_LANES * MASK_BLOCK };

/* The numbers of the blocks from `block` on, of 16 bits, eight a block, in the order of the elements. Lanes 0, 2, ...
 * have the first half of the blocks, lanes 1, 3, ... the second one. */
INLINE void random_numbers(const round_keys *keys, uint64_t block, const dropout_mask *mask, uint16_t numbers[NUMBERS])
{
    wide c0, c2 = (wide){0} + mask->step, c3 = (wide){0} + mask->layer;
    for (int i = 0; i < WIDE_LANES; i++)
        c0[i] = (uint64_t)(i / 2 + i % 2 * (WIDE_LANES / 2));
    c0 += block;
    wide c1 = c0 >> 32;
    UNROLL
    for (int i = 0; i < PHILOX_ROUNDS; i++) {
        wide product0 = multiply_low_halves(c0, (wide){0} + 0xD2511F53u);
        wide product2 = multiply_low_halves(c2, (wide){0} + 0xCD9E8D57u);
        c0 = product2 >> 32 ^ c1 ^ keys[i].first;
        c1 = product2;
        c2 = product0 >> 32 ^ c3 ^ keys[i].second;
        c3 = product0;
    }
    wide early = (c0 & UINT32_MAX) | c1 << 32, late = (c2 & UINT32_MAX) | c3 << 32;
    wide in_order[2] = {every_other_lane(early, late, 0), every_other_lane(early, late, 1)};
    memcpy(numbers, in_order, sizeof in_order);
}

/* Nothing is left out, and what is kept is not scaled. */
INLINE bool keeps_all(const dropout_mask *mask)
{
    return mask->scale == 1;
}

enum { ROW_NUMBERS = COLUMN_BLOCK + 2 * NUMBERS };

/* The numbers of up to COLUMN_BLOCK elements from any one on, where a part of a row may begin. NULL: it keeps all. */
INLINE const uint16_t *numbers_of(const round_keys *keys, uint64_t element, long n, const dropout_mask *mask,
                                  uint16_t room[ROW_NUMBERS])
{
    const long before = (long)(element % MASK_BLOCK);
    if (keeps_all(mask))
        return NULL;
    for (long i = 0; i < before + n; i += NUMBERS)
        random_numbers(keys, (element - (uint64_t)before + (uint64_t)i) / MASK_BLOCK, mask, room + i);
    return room + before;
}

/* A vector of elements, the first of which has numbers[i]. */
INLINE vec kept(vec x, const uint16_t *numbers, long i, const dropout_mask *mask)
{
    if (numbers == NULL)
        return x;
    return (vec)((ivec)(x * mask->scale) & (load_numbers(numbers + i) >= (int)mask->threshold));
}

/* y = x * scale where the mask keeps it, else 0, for n elements from MASK_BLOCK * block on. */
static void dropout(const dropout_mask *mask, uint64_t block, long n, const float *x, float *y)
{
    round_keys keys[PHILOX_ROUNDS];
    uint16_t numbers[NUMBERS];
    if (keeps_all(mask)) {
        if (x != y)
            memcpy(y, x, (size_t)n * sizeof *x);
        return;
    }
    schedule(mask->key, keys);
    long i = 0;
    for (; i + NUMBERS <= n; i += NUMBERS, block += WIDE_LANES) {
        random_numbers(keys, block, mask, numbers);
        UNROLL
        for (long j = 0; j < NUMBERS; j += LANES)
            store(y + i + j, kept(load(x + i + j), numbers, j, mask));
    }
    if (i < n)
        random_numbers(keys, block, mask, numbers);
    for (long j = 0; i + j < n; j += LANES)
        store_some(y + i + j, kept(load_some(x + i + j, n - i - j), numbers, j, mask), n - i - j);
}

/* ---------------------------------------------------------------------------------------------------- context averages
 *
 * Rows of a table, scattered over memory, times factors, a sum for each of several factors: a row is read once for all
 * sums of a pair, and asked for while those before it are added. */

INLINE void add_rows_block(const int sums, const int vectors, long words, const float *const *rows, const long *which,
                           long factors_row, const float *factors, long column, long count, long columns, bool anew,
                           float *to)
{
    vec totals[2][4];
    UNROLL
    for (int i = 0; i < sums; i++)
        UNROLL
        for (int j = 0; j < vectors; j++)
            totals[i][j] = anew ? (vec){0} : load_some(to + i * columns + column + j * LANES, count);
    for (long k = 0; k < words; k++) {
        const float *row = rows[k] + column, *factor = factors + which[k] * factors_row;
        if (k + ROWS_AHEAD < words)
            UNROLL
            for (int j = 0; j < vectors * LANES; j += LINE)
                __builtin_prefetch(rows[k + ROWS_AHEAD] + column + j);
        UNROLL
        for (int j = 0; j < vectors; j++) {
            vec some = load_some(row + j * LANES, count);
            UNROLL
            for (int i = 0; i < sums; i++)
                totals[i][j] += some * factor[i];
        }
    }
    UNROLL
    for (int i = 0; i < sums; i++)
        UNROLL
        for (int j = 0; j < vectors; j++)
            store_some(to + i * columns + column + j * LANES, totals[i][j], count);
}

INLINE void add_rows_to(const int sums, long words, const float *const *rows, const long *which, long factors_row,
                        const float *factors, long columns, bool anew, float *to)
{
    long i = 0;
    for (; i + 4 * LANES <= columns; i += 4 * LANES)
        add_rows_block(sums, 4, words, rows, which, factors_row, factors, i, LANES, columns, anew, to);
    for (; i + LANES <= columns; i += LANES)
        add_rows_block(sums, 1, words, rows, which, factors_row, factors, i, LANES, columns, anew, to);
    if (i < columns)
        add_rows_block(sums, 1, words, rows, which, factors_row, factors, i, columns - i, columns, anew, to);
}

/* to (sums, columns): to[i] = the sum of factors[which[k]][i] * rows[k] over the words in their order, `factors` being
 * (?, sums); added to what is there unless anew. */
static void add_rows(long words, const float *const *rows, const long *which, long sums, const float *factors,
                     long columns, bool anew, float *to)
{
    long i = 0;
    for (; i + 2 <= sums; i += 2)
        add_rows_to(2, words, rows, which, sums, factors + i, columns, anew, to + i * columns);
    if (i < sums)
        add_rows_to(1, words, rows, which, sums, factors + i, columns, anew, to + i * columns);
}

/* to = decay * before + gain * added - loss * dropped; either of the two may be NULL, for zeros. */
static void shift_average(long n, float decay, const float *before, float gain, const float *added, float loss,
                          const float *dropped, float *to)
{
    for (long i = 0; i < n; i++)
        to[i] = decay * before[i] + gain * (added != NULL ? added[i] : 0) - loss * (dropped != NULL ? dropped[i] : 0);
}

/* ---------------------------------------------------------------------------------------------------------- batchnorm
 *
 * For up to COLUMN_BLOCK columns (channels) of matrices whose rows are `stride` apart; the reference gives the
 * equations. */

/* A kernel compiled once more for a whole block, in loops of a constant length: a seventh less time. */
#define BY_BLOCK(kernel, ...)                              \
    (columns == COLUMN_BLOCK                               \
         ? kernel(rows, stride, COLUMN_BLOCK, __VA_ARGS__) \
         : kernel(rows, stride, columns, __VA_ARGS__))

INLINE void statistics_of_columns(long rows, long stride, long columns, const float *x, float *mean, float *var)
{
    double sums[COLUMN_BLOCK], squares[COLUMN_BLOCK] = {0};
    sum_columns(rows, stride, columns, x, sums);
    for (long i = 0; i < columns; i++)
        sums[i] /= (double)rows;
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < columns; i++) {
            double distance = x[row * stride + i] - sums[i];
            squares[i] += distance * distance;
        }
    for (long i = 0; i < columns; i++) {
        mean[i] = (float)sums[i];
        var[i] = (float)(squares[i] / (double)rows);
    }
}

/* Mean and biased variance of each column, each summed separately in double. */
static void batchnorm_statistics(long rows, long stride, long columns, const float *x, float *mean, float *var)
{
    BY_BLOCK(statistics_of_columns, x, mean, var);
}

/* A row of batchnorm's output; scale = inv_std * weight. */
INLINE void normalize_row(long columns, const float *x, const float *mean, const float *scale, const float *bias,
                          float *y)
{
    for (long i = 0; i < columns; i++)
        y[i] = (x[i] - mean[i]) * scale[i] + bias[i];
}

static void batchnorm_normalize(long rows, long stride, long columns, const float *x, const float *mean,
                                const float *inv_std, const float *weight, const float *bias, float *y)
{
    float scale[COLUMN_BLOCK];
    for (long i = 0; i < columns; i++)
        scale[i] = inv_std[i] * weight[i];
    for (long row = 0; row < rows; row++)
        normalize_row(columns, x + row * stride, mean, scale, bias, y + row * stride);
}

/* What a row adds to the sums over the rows of dy * xhat and of dy. */
INLINE void add_row_to_sums(long columns, const float *dy, const float *x, const float *mean, const float *inv_std,
                            double *products, double *sums)
{
    for (long i = 0; i < columns; i++) {
        float d = dy[i];
        sums[i] += d;
        products[i] += d * ((x[i] - mean[i]) * inv_std[i]);
    }
}

static void batchnorm_sums(long rows, long stride, long columns, const float *dy, const float *x, const float *mean,
                           const float *inv_std, float *dweight, float *dbias)
{
    double products[COLUMN_BLOCK] = {0}, sums[COLUMN_BLOCK] = {0};
    for (long row = 0; row < rows; row++) {
        for (long i = 0; i < columns; i += LINE)
            __builtin_prefetch(x + (row + ROWS_AHEAD) * stride + i);
        add_row_to_sums(columns, dy + row * stride, x + row * stride, mean, inv_std, products, sums);
    }
    for (long i = 0; i < columns; i++) {
        dweight[i] = (float)products[i];
        dbias[i] = (float)sums[i];
    }
}

static void batchnorm_dx(long rows, long stride, long columns, bool training, const float *dy, const float *x,
                         const float *weight, const float *mean, const float *inv_std, const float *dweight,
                         const float *dbias, float *dx)
{
    float scale[COLUMN_BLOCK], mean_dy[COLUMN_BLOCK] = {0}, slope[COLUMN_BLOCK] = {0};
    for (long i = 0; i < columns; i++)
        scale[i] = weight[i] * inv_std[i];
    for (long i = 0; training && i < columns; i++) {
        mean_dy[i] = dbias[i] / (float)rows;
        slope[i] = dweight[i] / (float)rows * inv_std[i];
    }
    for (long row = 0; row < rows; row++)
        ELEMENTWISE
        for (long i = 0; i < columns; i++) {
            long at = row * stride + i;
            dx[at] = (dy[at] - mean_dy[i] - (x[at] - mean[i]) * slope[i]) * scale[i];
        }
}

/* --------------------------------------------------------------------------------------------- batchnorm_gelu_dropout
 *
 * For columns as above, the first of them at element `first` of the mask: a row's part goes from op to op in the
 * first-level cache. */

INLINE void masked_gelu_of_columns(long rows, long stride, long columns, const float *x, const float *mean,
                                   const float *inv_std, const float *weight, const float *bias,
                                   const dropout_mask *mask, uint64_t first, float *y)
{
    float scale[COLUMN_BLOCK], z[COLUMN_BLOCK];
    uint16_t room[ROW_NUMBERS];
    round_keys keys[PHILOX_ROUNDS];
    schedule(mask->key, keys);
    for (long i = 0; i < columns; i++)
        scale[i] = inv_std[i] * weight[i];
    for (long row = 0; row < rows; row++, x += stride, y += stride, first += (uint64_t)stride) {
        for (long i = 0; i < columns; i += LINE)
            __builtin_prefetch(y + ROWS_AHEAD * stride + i, 1);
        normalize_row(columns, x, mean, scale, bias, z);
        const uint16_t *numbers = numbers_of(keys, first, columns, mask, room);
        for (long i = 0; i < columns; i += LANES) {
            vec some = gelu_of(load_some(z + i, columns - i));
            store_some(y + i, kept(some, numbers, i, mask), columns - i);
        }
    }
}

/* y = dropout(gelu(batchnorm(x))) */
static void masked_gelu(long rows, long stride, long columns, const float *x, const float *mean, const float *inv_std,
                        const float *weight, const float *bias, const dropout_mask *mask, uint64_t first, float *y)
{
    BY_BLOCK(masked_gelu_of_columns, x, mean, inv_std, weight, bias, mask, first, y);
}

INLINE void masked_gelu_sums_of_columns(long rows, long stride, long columns, const float *dy, const float *x,
                                        const float *mean, const float *inv_std, const float *weight,
                                        const float *bias, const dropout_mask *mask, uint64_t first, float *dz,
                                        float *dweight, float *dbias)
{
    float scale[COLUMN_BLOCK], z[COLUMN_BLOCK];
    double products[COLUMN_BLOCK] = {0}, sums[COLUMN_BLOCK] = {0};
    uint16_t room[ROW_NUMBERS];
    round_keys keys[PHILOX_ROUNDS];
    schedule(mask->key, keys);
    for (long i = 0; i < columns; i++)
        scale[i] = inv_std[i] * weight[i];
    for (long row = 0; row < rows; row++, dy += stride, x += stride, dz += stride, first += (uint64_t)stride) {
        for (long i = 0; i < columns; i += LINE) {
            __builtin_prefetch(x + ROWS_AHEAD * stride + i);
            __builtin_prefetch(dy + ROWS_AHEAD * stride + i);
        }
        normalize_row(columns, x, mean, scale, bias, z);
        const uint16_t *numbers = numbers_of(keys, first, columns, mask, room);
        for (long i = 0; i < columns; i += LANES) {
            vec some = kept(load_some(dy + i, columns - i), numbers, i, mask);
            store_some(dz + i, some * gelu_slope(load_some(z + i, columns - i)), columns - i);
        }
        add_row_to_sums(columns, dz, x, mean, inv_std, products, sums);
    }
    for (long i = 0; i < columns; i++) {
        dweight[i] = (float)products[i];
        dbias[i] = (float)sums[i];
    }
}

/* dz, the gradient of z = batchnorm(x), for that of y, and what batchnorm_sums makes of it. */
static void masked_gelu_sums(long rows, long stride, long columns, const float *dy, const float *x, const float *mean,
                             const float *inv_std, const float *weight, const float *bias, const dropout_mask *mask,
                             uint64_t first, float *dz, float *dweight, float *dbias)
{
    BY_BLOCK(masked_gelu_sums_of_columns, dy, x, mean, inv_std, weight, bias, mask, first, dz, dweight, dbias);
}

/* -------------------------------------------------------------------------------------------- update, PyTorch's rules
 *
 * `grad` may be NULL, for zeros: rows of a sparse gradient without an entry. */

static void sgd(long n, const float *grad, float *param, float lr, float weight_decay)
{
    for (long i = 0; i < n; i++)
        param[i] -= lr * ((grad != NULL ? grad[i] : 0) + weight_decay * param[i]);
}

static void momentum(long n, const float *grad, float *velocity, float *param, float lr, float momentum,
                     float weight_decay)
{
    for (long i = 0; i < n; i++) {
        float v = momentum * velocity[i] + ((grad != NULL ? grad[i] : 0) + weight_decay * param[i]);
        velocity[i] = v;
        param[i] -= lr * v;
    }
}

static void adagrad(long n, const float *grad, float *squares, float *param, float lr, float eps, float weight_decay)
{
    for (long i = 0; i < n; i++) {
        float g = (grad != NULL ? grad[i] : 0) + weight_decay * param[i];
        float s = squares[i] + g * g;
        squares[i] = s;
        param[i] -= lr * g / (sqrtf(s) + eps);
    }
}

/* lr = rate / (1 - beta1^step), decay = 1 - rate * weight_decay, correction = 1 / sqrt(1 - beta2^step) */
INLINE void adamw_line(long n, const float *grad, float *mean, float *square, float *param, float lr, float decay,
                       double beta1, double beta2, float correction, float eps)
{
    /* 1 - 0.999 in float32 is 1.3e-5 off: the difference is taken before it is rounded */
    const float new1 = 1 - beta1, old2 = beta2, new2 = 1 - beta2;
    for (long i = 0; i < n; i++) {
        float g = grad != NULL ? grad[i] : 0;
        float m = mean[i] + new1 * (g - mean[i]);
        float s = old2 * square[i] + new2 * (g * g);
        mean[i] = m;
        square[i] = s;
        param[i] = decay * param[i] - lr * m / (sqrtf(s) * correction + eps);
    }
}

/* The CPU foresees each of these three streams, but not as far ahead as memory is slow. */
static void adamw(long n, const float *grad, float *mean, float *square, float *param, float lr, float decay,
                  double beta1, double beta2, float correction, float eps)
{
    for (; n > 0; n -= LINE, mean += LINE, square += LINE, param += LINE) {
        __builtin_prefetch(mean + FLOATS_AHEAD, 1);
        __builtin_prefetch(square + FLOATS_AHEAD, 1);
        __builtin_prefetch(param + FLOATS_AHEAD, 1);
        if (n >= LINE)
            adamw_line(LINE, grad, mean, square, param, lr, decay, beta1, beta2, correction, eps);
        else
            adamw_line(n, grad, mean, square, param, lr, decay, beta1, beta2, correction, eps);
        if (grad != NULL)
            grad += LINE;
    }
}

static void update(const update_rule *rule, long n, const float *grad, float *state, float *state2, float *param)
{
    switch (rule->kind) {
    case SGD:
        sgd(n, grad, param, rule->lr, rule->weight_decay);
        break;
    case MOMENTUM:
        momentum(n, grad, state, param, rule->lr, rule->beta1, rule->weight_decay);
        break;
    case ADAGRAD:
        adagrad(n, grad, state, param, rule->lr, rule->eps, rule->weight_decay);
        break;
    case ADAMW:
        adamw(n, grad, state, state2, param, rule->lr, rule->weight_decay, rule->beta1, rule->beta2, rule->correction,
              rule->eps);
    }
}

const simd_kernels TABLE_NAME(VARIANT) = {
    .lanes = LANES,
    .pack = pack,
    .product = product,
    .dots = dots,
    .add_bias = add_bias,
    .column_sums = column_sums,
    .highest_logits = highest_logits,
    .exponentials = exponentials,
    .settle = settle,
    .lane_sums = lane_sums,
    .rescale = rescale,
    .combine = combine,
    .add_slices = add_slices,
    .row_statistics = row_statistics,
    .row_dlogits = row_dlogits,
    .row_softmax = row_softmax,
    .row_log_softmax = row_log_softmax,
    .row_softmax_backward = row_softmax_backward,
    .row_log_softmax_backward = row_log_softmax_backward,
    .tanh_forward = tanh_forward,
    .tanh_backward = tanh_backward,
    .add = add,
    .gelu_forward = gelu_forward,
    .gelu_backward = gelu_backward,
    .dropout = dropout,
    .add_rows = add_rows,
    .shift_average = shift_average,
    .batchnorm_statistics = batchnorm_statistics,
    .batchnorm_normalize = batchnorm_normalize,
    .batchnorm_sums = batchnorm_sums,
    .batchnorm_dx = batchnorm_dx,
    .masked_gelu = masked_gelu,
    .masked_gelu_sums = masked_gelu_sums,
    .stream = stream,
    .update = update,
};
