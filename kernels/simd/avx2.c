/* The kernels for AVX2 with FMA: vectors of eight floats; a tile of 6 x 2 sums, two vectors of the panel and one broadcast
 * value fill fifteen of the sixteen registers. */
#ifdef __x86_64__
#pragma GCC target("avx2,fma")
#define VARIANT avx2
#define LANES 8
#define TILE_ROWS 6
#include "variant.h"
#endif
