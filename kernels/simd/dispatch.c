/* The variants of the kernels, and which of them this CPU and its system can run. */
#include "core.h"

extern const simd_kernels simd_portable;
static const simd_variant portable = {"portable", &simd_portable, NULL};

#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const simd_kernels simd_avx512, simd_avx2;
extern const tile_kernels tiles_amx, tiles_avx512_bf16;

static const simd_variant amx = {"amx", &simd_avx512, &tiles_amx};
static const simd_variant avx512_bf16 = {"avx512_bf16", &simd_avx512, &tiles_avx512_bf16};
static const simd_variant avx512 = {"avx512", &simd_avx512, NULL};
static const simd_variant avx2 = {"avx2", &simd_avx2, NULL};

const simd_variant *const simd_variants[] = {&amx, &avx512_bf16, &avx512, &avx2, &portable, NULL};

static bool runs_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
}

/* CPUID names the unit, XCR0 says that the system saves its registers, and Linux wants to be asked, once a process: a
 * thread that uses it needs a larger frame for signals. */
static bool runs_amx(void)
{
#if defined(FASTMLP_EMULATE_AMX)
    return true;
#elif defined(__linux__)
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, OSXSAVE = 1 << 27, TILE_STATE = 3 << 17 };
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a, b, c, d, xcr0, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return false;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    return (d & AMX_BF16) && (d & AMX_TILE) && (xcr0 & TILE_STATE) == TILE_STATE &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

bool simd_runs(const simd_variant *variant)
{
    __builtin_cpu_init(); /* reads CPUID, and XCR0 for what the system saves */
    if (variant == &amx)
        return runs_avx512() && __builtin_cpu_supports("avx512bf16") && runs_amx();
    if (variant == &avx512_bf16)
        return runs_avx512() && __builtin_cpu_supports("avx512bf16");
    if (variant == &avx512)
        return runs_avx512();
    return variant == &portable || (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
}

#else

#ifdef __aarch64__
extern const simd_kernels simd_neon;
static const simd_variant neon = {"neon", &simd_neon, NULL};

const simd_variant *const simd_variants[] = {&neon, &portable, NULL};
#else
const simd_variant *const simd_variants[] = {&portable, NULL};
#endif

bool simd_runs(const simd_variant *variant)
{
    (void)variant; /* each is compiled only where every CPU runs it */
    return true;
}

#endif
