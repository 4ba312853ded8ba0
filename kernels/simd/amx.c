/* Products of bf16 tiles by AMX: eight tile registers of 16 lines x 64 bytes, and one instruction that multiplies a
 * tile of rows with a tile of pairs and adds to a tile of 16 x 16 float32 sums.
 *
 * Four registers keep the sums of 32 rows x 32 columns over the whole depth; a step of 32 loads two tiles of a and two
 * of b for four multiplications:
 *
 *                 tmm6   tmm7      tiles of pairs of b
 *          tmm4 [ tmm0   tmm1 ]
 *          tmm5 [ tmm2   tmm3 ]    the sums
 *     tiles of rows of a
 *
 * The registers are configured and given back by each thread for each slice: while they are in use every switch of
 * threads saves 8 KiB more. */
#ifdef __x86_64__
#ifdef __clang__ /* it ignores GCC's pragma; GCC's assembler knows AMX without being told */
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,fma,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,fma,prefer-vector-width=512")
#endif
#include "tiles.h"

#ifdef FASTMLP_EMULATE_AMX /* tests/amx_emulation.h: the same instructions in plain C, for machines without */
#include "amx_emulation.h"
#else
/* The compiler knows nothing of tile registers; "memory" tells it that what it has stored is read, and the reverse. */
#define TILE_CONFIGURE(config) __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory")
#define TILE_RELEASE() __asm__ volatile("tilerelease" : : : "memory")
#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : :)
#define TILE_LOAD(t, from, row) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(from), "r"((long)(row)) : "memory")
#define TILE_STORE(t, to, row) \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(to), "r"((long)(row)) : "memory")
#define TILE_MULTIPLY(sum, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)
#endif

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static const tile_config all_whole = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE},
};

static void begin(void)
{
    TILE_CONFIGURE(all_whole);
}

static void end(void)
{
    TILE_RELEASE();
}

/* 32 rows x 32 columns, or the 16 columns that are left. */
INLINE void block(const bool two, long depth, int planes, const bf16 *a, long a_row, long a_plane, const bf16 *b,
                  long b_column, long b_plane, float *c, long c_row, bool accumulate, prefetch *wanted)
{
    const long bytes = c_row * (long)sizeof *c;
    float *below = c + TILE * c_row;
    if (accumulate) {
        TILE_LOAD(0, c, bytes);
        TILE_LOAD(2, below, bytes);
        if (two) {
            TILE_LOAD(1, c + TILE, bytes);
            TILE_LOAD(3, below + TILE, bytes);
        }
    } else {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
    }
    for (int p = planes == 2 ? 0 : 2; p < 3; p++) {
        const bf16 *rows = a + PLANE_PRODUCTS[p].a * a_plane, *pairs = b + PLANE_PRODUCTS[p].b * b_plane;
        for (long k = 0; k < depth; k += TILE_DEPTH, rows += TILE_VALUES, pairs += TILE_VALUES) {
            prefetch_some(wanted);
            TILE_LOAD(4, rows, 64);
            TILE_LOAD(6, pairs, 64);
            TILE_LOAD(5, rows + a_row, 64);
            TILE_MULTIPLY(0, 4, 6);
            TILE_MULTIPLY(2, 5, 6);
            if (two) {
                TILE_LOAD(7, pairs + b_column, 64);
                TILE_MULTIPLY(1, 4, 7);
                TILE_MULTIPLY(3, 5, 7);
            }
        }
    }
    TILE_STORE(0, c, bytes);
    TILE_STORE(2, below, bytes);
    if (two) {
        TILE_STORE(1, c + TILE, bytes);
        TILE_STORE(3, below + TILE, bytes);
    }
}

/* c, in rows of c_row floats, = a b or += a b; whole tiles of it are written. row_tiles is even. */
static void product(long row_tiles, long column_tiles, long depth, int planes, const bf16 *a, long a_plane,
                    const bf16 *b, long b_plane, float *c, long c_row, bool accumulate, const float *ahead,
                    long ahead_floats)
{
    const long strip = chunks_of(depth) * TILE_VALUES; /* a row of tiles of a, a column of b */
    prefetch wanted = prefetch_over(row_tiles / 2 * ((column_tiles + 1) / 2) * chunks_of(depth), ahead, ahead_floats);
    for (long column = 0; column < column_tiles; column += 2)
        for (long row = 0; row < row_tiles; row += 2) {
            const bf16 *rows = a + row * strip, *pairs = b + column * strip;
            float *to = c + row * TILE * c_row + column * TILE;
            if (column + 1 < column_tiles)
                block(true, depth, planes, rows, strip, a_plane, pairs, strip, b_plane, to, c_row, accumulate,
                      &wanted);
            else
                block(false, depth, planes, rows, strip, a_plane, pairs, strip, b_plane, to, c_row, accumulate,
                      &wanted);
        }
}

const tile_kernels tiles_amx = TILE_KERNELS;
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
