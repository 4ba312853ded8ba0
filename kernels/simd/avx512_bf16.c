/* Products of bf16 tiles by AVX-512's dot product of pairs, which Zen 4 does at the rate of a float32 multiplication
 * and so at twice its flops (Intel's CPUs do at half that: there it buys nothing, and AMX is the one to have).
 *
 * Sixteen registers keep the sums of 8 rows x 32 columns over the whole depth. A step, two of the depth, reads two
 * lines of b, whose two columns of tiles stay in the first cache while all rows of a pass by, and broadcasts a pair
 * from each row. */
#ifdef __x86_64__
#ifdef __clang__ /* it ignores GCC's pragma */
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,fma,prefer-vector-width=512")
#endif
#include "tiles.h"

enum { ROWS = 8, LINE_BYTES = 64, AHEAD_AT_MOST = 1 << 18 /* bytes of an array, of three in the second cache */ };

static void begin(void)
{
}

static void end(void)
{
    finish();
}

/* How much of what is upcoming is prefetched with each step of a product. */
typedef struct {
    upcoming what;
    long next, bytes; /* so far, and a step's */
} prefetcher;

INLINE prefetcher prefetch_over(long steps, upcoming what)
{
    if (steps == 0 || what.bytes > AHEAD_AT_MOST)
        return (prefetcher){{{NULL}, 0}, 0, 0};
    return (prefetcher){what, 0, (what.bytes / LINE_BYTES + steps) / steps * LINE_BYTES};
}

INLINE void prefetch_some(prefetcher *p)
{
    const long end = p->next + p->bytes < p->what.bytes ? p->next + p->bytes : p->what.bytes;
    for (; p->next < end; p->next += LINE_BYTES)
        for (int array = 0; array < 3 && p->what.arrays[array] != NULL; array++)
            _mm_prefetch((const char *)p->what.arrays[array] + p->next, _MM_HINT_T1);
}

/* One plane's products, added to the sums. rows and pairs: the first lines of this block's operands. */
INLINE void add_products(const int columns, long depth, const bf16 *rows, long rows_step, const bf16 *pairs,
                         const operand *b, prefetcher *ahead, __m512 sums[ROWS][2])
{
    for (long k = 0; k < depth; k += TILE_DEPTH, rows += rows_step, pairs += b->step) {
        prefetch_some(ahead);
        const long count = (depth - k < TILE_DEPTH ? depth - k + 1 : TILE_DEPTH) / 2;
        for (long pair = 0; pair < count; pair++) {
            __m512bh line[2];
            for (int j = 0; j < columns; j++)
                line[j] = (__m512bh)_mm512_load_si512(pairs + j * b->line + pair * TILE_DEPTH);
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                int value;
                memcpy(&value, rows + i * TILE_DEPTH + 2 * pair, sizeof value);
                UNROLL
                for (int j = 0; j < columns; j++)
                    sums[i][j] = _mm512_dpbf16_ps(sums[i][j], (__m512bh)_mm512_set1_epi32(value), line[j]);
            }
        }
    }
}

INLINE void block(const int columns, long depth, int planes, operand a, operand b, result c, bool accumulate,
                  prefetcher *ahead)
{
    __m512 sums[ROWS][2];
    UNROLL
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < columns; j++)
            sums[i][j] = accumulate ? _mm512_loadu_ps(c.sums + i * c.row + j * c.column_tile) : _mm512_setzero_ps();
    for (int p = planes == 2 ? 0 : 2; p < 3; p++)
        add_products(columns, depth, a.tiles + PLANE_PRODUCTS[p].a * a.plane, a.step,
                     b.tiles + PLANE_PRODUCTS[p].b * b.plane, &b, ahead, sums);
    UNROLL
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < columns; j++)
            _mm512_storeu_ps(c.sums + i * c.row + j * c.column_tile, sums[i][j]);
}

/* c = a b or += a b; whole tiles of it are written. */
static void product(long row_tiles, long column_tiles, long depth, int planes, operand a, operand b, result c,
                    bool accumulate, upcoming after)
{
    const long blocks = row_tiles * TILE / ROWS * ((column_tiles + 1) / 2);
    prefetcher ahead = prefetch_over(blocks * chunks_of(depth) * (planes == 2 ? 3 : 1), after);
    for (long column = 0; column < column_tiles; column += 2)
        for (long row = 0; row < row_tiles * TILE; row += ROWS) {
            const long tile = row / TILE, within = row % TILE;
            const operand rows = {a.tiles + tile * a.line + within * TILE_DEPTH, a.plane, a.line, a.step};
            const operand pairs = {b.tiles + column * b.line, b.plane, b.line, b.step};
            float *to = c.sums + tile * c.row_tile + within * c.row + column * c.column_tile;
            const result sums = {to, c.row, c.row_tile, c.column_tile};
            if (column + 1 < column_tiles)
                block(2, depth, planes, rows, pairs, sums, accumulate, &ahead);
            else
                block(1, depth, planes, rows, pairs, sums, accumulate, &ahead);
        }
}

const tile_kernels tiles_avx512_bf16 = TILE_KERNELS;
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
