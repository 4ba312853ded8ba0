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
    finish();
}

/* 32 rows x 32 columns, or the 16 columns that are left. */
INLINE void block(const bool two, long depth, int planes, operand a, operand b, result c, bool accumulate)
{
    const long bytes = c.row * (long)sizeof *c.sums;
    float *below = c.sums + c.row_tile;
    if (accumulate) {
        TILE_LOAD(0, c.sums, bytes);
        TILE_LOAD(2, below, bytes);
        if (two) {
            TILE_LOAD(1, c.sums + c.column_tile, bytes);
            TILE_LOAD(3, below + c.column_tile, bytes);
        }
    } else {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
    }
    for (int p = planes == 2 ? 0 : 2; p < 3; p++) {
        const bf16 *rows = a.tiles + PLANE_PRODUCTS[p].a * a.plane, *pairs = b.tiles + PLANE_PRODUCTS[p].b * b.plane;
        for (long k = 0; k < depth; k += TILE_DEPTH, rows += a.step, pairs += b.step) {
            TILE_LOAD(4, rows, 64);
            TILE_LOAD(6, pairs, 64);
            TILE_LOAD(5, rows + a.line, 64);
            TILE_MULTIPLY(0, 4, 6);
            TILE_MULTIPLY(2, 5, 6);
            if (two) {
                TILE_LOAD(7, pairs + b.line, 64);
                TILE_MULTIPLY(1, 4, 7);
                TILE_MULTIPLY(3, 5, 7);
            }
        }
    }
    TILE_STORE(0, c.sums, bytes);
    TILE_STORE(2, below, bytes);
    if (two) {
        TILE_STORE(1, c.sums + c.column_tile, bytes);
        TILE_STORE(3, below + c.column_tile, bytes);
    }
}

/* c = a b or += a b; whole tiles of it are written. row_tiles is even. Nothing is prefetched: the operands come from
 * the second cache through the same few buffers, and a product would lose what it gained. */
static void product(long row_tiles, long column_tiles, long depth, int planes, operand a, operand b, result c,
                    bool accumulate, upcoming after)
{
    (void)after;
    for (long column = 0; column < column_tiles; column += 2)
        for (long row = 0; row < row_tiles; row += 2) {
            const operand rows = {a.tiles + row * a.line, a.plane, a.line, a.step};
            const operand pairs = {b.tiles + column * b.line, b.plane, b.line, b.step};
            const result sums = {c.sums + row * c.row_tile + column * c.column_tile, c.row, c.row_tile, c.column_tile};
            if (column + 1 < column_tiles)
                block(true, depth, planes, rows, pairs, sums, accumulate);
            else
                block(false, depth, planes, rows, pairs, sums, accumulate);
        }
}

const tile_kernels tiles_amx = TILE_KERNELS;
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
