/* The kernels for AVX2 with FMA: vectors of eight floats; a tile of 6 x 2 sums, two vectors of the panel and one
 * broadcast value fill fifteen of the sixteen registers. */
#ifdef __x86_64__
#ifdef __clang__ /* it ignores GCC's pragma */
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define VARIANT avx2
#define LANES 8
#define TILE_ROWS 6
#include "variant.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
