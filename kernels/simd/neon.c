/* The kernels for 64-bit ARM: vectors of four floats, NEON's, which every such CPU has; a tile of 12 x 2 sums, two vectors
 * of the panel and a vector of broadcast values for each four rows fill 29 of the 32 registers. */
#ifdef __aarch64__
#define VARIANT neon
#define LANES 4
#define TILE_ROWS 12
#include "variant.h"
#endif
