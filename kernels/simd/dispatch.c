/* Which variant of the vector kernels runs: the best one that this CPU and its system can, or the one asked for. */
#include <string.h>

#include "core.h"

extern const simd_kernels simd_portable;
#if defined(__x86_64__)
extern const simd_kernels simd_avx512, simd_avx2;
#endif

const char *const simd_names[] = {"avx512", "avx2", "portable", NULL};

static const simd_kernels *find(const char *name)
{
#if defined(__x86_64__)
    __builtin_cpu_init(); /* reads CPUID, and XCR0 for what the system saves */
    if (strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"))
        return &simd_avx512;
    if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &simd_avx2;
#endif
    return strcmp(name, "portable") == 0 ? &simd_portable : NULL;
}

const simd_kernels *simd_choose(const char *name)
{
    if (name != NULL)
        return find(name);
    const simd_kernels *best = NULL;
    for (int i = 0; best == NULL; i++)
        best = find(simd_names[i]);
    return best;
}
