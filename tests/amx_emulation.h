/* AMX's tiles in plain C: kernels/simd/amx.c built with -DFASTMLP_EMULATE_AMX runs on a CPU without the unit, and the
 * sanitizers see what its loads and stores touch. Sums are made as the instruction's description has them: the products
 * of even and of odd steps apart, then together, then to what was there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
    int configured;
    union {
        float sums[16][16];
        uint16_t values[16][32];
    } tile[8];
} amx;

static void amx_must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "AMX: %s\n", what);
        abort();
    }
}

static void amx_configure(const void *config)
{
    const uint8_t *bytes = config;
    amx_must(bytes[0] == 1, "palette 1 is the only one");
    for (int t = 0; t < 8; t++)
        amx_must(bytes[48 + t] == 16 && bytes[16 + 2 * t] == 64 && bytes[17 + 2 * t] == 0, "a tile is 16 rows of 64 bytes");
    memset(&amx, 0, sizeof amx);
    amx.configured = 1;
}

static void amx_release(void)
{
    amx_must(amx.configured, "released twice");
    amx.configured = 0;
}

static void amx_zero(int t)
{
    amx_must(amx.configured, "not configured");
    memset(&amx.tile[t], 0, sizeof amx.tile[t]);
}

static void amx_load(int t, const void *from, long row)
{
    amx_must(amx.configured, "not configured");
    for (int i = 0; i < 16; i++)
        memcpy(amx.tile[t].values[i], (const char *)from + i * row, 64);
}

static void amx_store(int t, void *to, long row)
{
    amx_must(amx.configured, "not configured");
    for (int i = 0; i < 16; i++)
        memcpy((char *)to + i * row, amx.tile[t].values[i], 64);
}

static float amx_widened(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void amx_multiply(int sum, int a, int b)
{
    amx_must(amx.configured, "not configured");
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 16; column++) {
            float even = 0, odd = 0;
            for (int k = 0; k < 16; k++) {
                const uint16_t *pair = &amx.tile[b].values[k][2 * column];
                even += amx_widened(amx.tile[a].values[row][2 * k]) * amx_widened(pair[0]);
                odd += amx_widened(amx.tile[a].values[row][2 * k + 1]) * amx_widened(pair[1]);
            }
            amx.tile[sum].sums[row][column] += even + odd;
        }
}

#define TILE_CONFIGURE(config) amx_configure(&(config))
#define TILE_RELEASE() amx_release()
#define TILE_ZERO(t) amx_zero(t)
#define TILE_LOAD(t, from, row) amx_load(t, from, row)
#define TILE_STORE(t, to, row) amx_store(t, to, row)
#define TILE_MULTIPLY(sum, a, b) amx_multiply(sum, a, b)
