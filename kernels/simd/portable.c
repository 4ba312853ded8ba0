/* The kernels in plain C, for any CPU: vectors of four floats, which every current instruction set has (SSE2 among
 * them), and tiles of 6 x 2 of them in sixteen registers. */
#define VARIANT portable
#define LANES 4
#define TILE_ROWS 6
#include "variant.h"
