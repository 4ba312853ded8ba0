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

enum { ROWS = 8 };

static void begin(void)
{
}

static void end(void)
{
}

/* One plane's products, added to the sums. a and b: the first tiles of this block, of its row of tiles and its
 * columns. */
INLINE void add_products(const int columns, long depth, const bf16 *a, const bf16 *b, long b_column,
                         prefetch *wanted, __m512 sums[ROWS][2])
{
    for (long k = 0; k < depth; k += TILE_DEPTH, a += TILE_VALUES, b += TILE_VALUES) {
        prefetch_some(wanted);
        const long pairs = (depth - k < TILE_DEPTH ? depth - k + 1 : TILE_DEPTH) / 2;
        for (long pair = 0; pair < pairs; pair++) {
            __m512bh line[2];
            for (int j = 0; j < columns; j++)
                line[j] = (__m512bh)_mm512_load_si512(b + j * b_column + pair * TILE_DEPTH);
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                int value;
                memcpy(&value, a + i * TILE_DEPTH + 2 * pair, sizeof value);
                UNROLL
                for (int j = 0; j < columns; j++)
                    sums[i][j] = _mm512_dpbf16_ps(sums[i][j], (__m512bh)_mm512_set1_epi32(value), line[j]);
            }
        }
    }
}

INLINE void block(const int columns, long depth, int planes, const bf16 *a, long a_plane, const bf16 *b, long b_column,
                  long b_plane, float *c, long c_row, bool accumulate, prefetch *wanted)
{
    __m512 sums[ROWS][2];
    UNROLL
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < columns; j++)
            sums[i][j] = accumulate ? _mm512_loadu_ps(c + i * c_row + j * TILE) : _mm512_setzero_ps();
    for (int p = planes == 2 ? 0 : 2; p < 3; p++)
        add_products(columns, depth, a + PLANE_PRODUCTS[p].a * a_plane, b + PLANE_PRODUCTS[p].b * b_plane, b_column,
                     wanted, sums);
    UNROLL
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < columns; j++)
            _mm512_storeu_ps(c + i * c_row + j * TILE, sums[i][j]);
}

/* c, in rows of c_row floats, = a b or += a b; whole tiles of it are written. */
static void product(long row_tiles, long column_tiles, long depth, int planes, const bf16 *a, long a_plane,
                    const bf16 *b, long b_plane, float *c, long c_row, bool accumulate, const float *ahead,
                    long ahead_floats)
{
    const long strip = chunks_of(depth) * TILE_VALUES; /* a row of tiles of a, a column of b */
    prefetch wanted = prefetch_over(row_tiles * TILE / ROWS * ((column_tiles + 1) / 2) * chunks_of(depth), ahead,
                                    ahead_floats);
    for (long column = 0; column < column_tiles; column += 2)
        for (long row = 0; row < row_tiles * TILE; row += ROWS) {
            const bf16 *rows = a + row / TILE * strip + row % TILE * TILE_DEPTH;
            float *to = c + row * c_row + column * TILE;
            if (column + 1 < column_tiles)
                block(2, depth, planes, rows, a_plane, b + column * strip, strip, b_plane, to, c_row, accumulate,
                      &wanted);
            else
                block(1, depth, planes, rows, a_plane, b + column * strip, strip, b_plane, to, c_row, accumulate,
                      &wanted);
        }
}

const tile_kernels tiles_avx512_bf16 = TILE_KERNELS;
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
