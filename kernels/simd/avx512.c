/* The kernels for AVX-512: vectors of sixteen floats; a tile of 12 x 2 sums and two vectors of the panel fill 26 of the
 * 32 registers, and the broadcast values come straight from memory in the multiplication. */
#ifdef __x86_64__
#ifdef __clang__ /* it ignores GCC's pragma */
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512")
#endif
#define VARIANT avx512
#define LANES 16
#define TILE_ROWS 12
#include "variant.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
