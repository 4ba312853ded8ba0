/* What the machine can do at most: loops of nothing but multiplications, and walks over memory. Compiled for this very
 * CPU by ceilings.py, which runs them on every core at once. A function returns something that depends on all of its
 * work, so that none of it may be left out. */
#include <stddef.h>
#include <string.h>

/* Twelve sums that do not wait for each other, more than latency x throughput of any CPU's multiplication. They are named
 * one by one: of an array the compiler keeps some in memory, and the rate falls to a third. Each begins with a number that
 * the compiler cannot know: of twelve equal sums it would make one. */
#define EACH_SUM(do) do(s0) do(s1) do(s2) do(s3) do(s4) do(s5) do(s6) do(s7) do(s8) do(s9) do(s10) do(s11)
enum { SUMS = 12 };

static volatile float unknown = 0.5f;

#define DECLARE(s) vector s = zero + unknown;
#define MULTIPLY_ADD(s) s = s * a + b;
#define ADD_UP(s) total += s;
#define MULTIPLY_ADD_RATE(name, bytes)                             \
    double name(long flop)                                         \
    {                                                              \
        typedef float vector __attribute__((vector_size(bytes)));  \
        const vector zero = {0}, a = zero + unknown, b = a;        \
        vector total = zero;                                       \
        EACH_SUM(DECLARE)                                          \
        for (long done = 0; done < flop; done += SUMS * bytes / 2) \
        {                                                          \
            EACH_SUM(MULTIPLY_ADD)                                 \
        }                                                          \
        EACH_SUM(ADD_UP)                                           \
        return total[0];                                           \
    }

/* What the portable kernels have: no instruction beyond the architecture's first, so no multiply-add in one on x86-64. */
#ifdef __x86_64__
__attribute__((target("arch=x86-64")))
#endif
MULTIPLY_ADD_RATE(vectors_of_16_bytes, 16)
#ifdef __AVX2__
MULTIPLY_ADD_RATE(vectors_of_32_bytes, 32)
#endif
#ifdef __AVX512F__
MULTIPLY_ADD_RATE(vectors_of_64_bytes, 64)
#endif

#ifdef __AVX512BF16__
#include <immintrin.h>

#define DECLARE_512(s) __m512 s = _mm512_set1_ps(unknown);
#define DOT(s) s = _mm512_dpbf16_ps(s, a, b);
#define ADD_UP_512(s) total = _mm512_add_ps(total, s);
double dot_products_of_bf16(long flop)
{
    const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(unknown), _mm512_set1_ps(unknown)), b = a;
    __m512 total = _mm512_setzero_ps();
    EACH_SUM(DECLARE_512)
    for (long done = 0; done < flop; done += SUMS * 64) {
        EACH_SUM(DOT)
    }
    EACH_SUM(ADD_UP_512)
    return _mm512_reduce_add_ps(total);
}
#endif

#if defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Four sums (16, 16) of products of four tiles (16, 32), as the microkernels have them: eight tile registers. */
double tiles_of_bf16(long flop)
{
    static const struct {
        unsigned char palette, start_row, reserved[14];
        unsigned short row_bytes[16];
        unsigned char rows[16];
    } shape = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    static unsigned short ones[16 * 32] __attribute__((aligned(64)));
    static __thread float sums[16 * 16] __attribute__((aligned(64)));
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) != 0)
        return -1; /* the system does not let us */
    for (int i = 0; i < 16 * 32; i++)
        ones[i] = 0x3f80;
    __asm__ volatile("" ::: "memory"); /* the intrinsics do not say that they read memory */
    _tile_loadconfig(&shape);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
    for (long done = 0; done < flop; done += 4 * 2 * 16 * 16 * 32) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(3, sums, 64);
    _tile_release();
    __asm__ volatile("" ::: "memory");
    return sums[0];
}
#endif

/* Memory is walked as a step walks the output weights: each core has one long piece, in vectors as wide as the CPU's,
 * and walks it again and again. */
#ifdef __AVX512F__
enum { WIDTH = 64 };
#else
enum { WIDTH = 32 };
#endif
typedef float walker __attribute__((vector_size(WIDTH)));

double read_memory(const float *memory, size_t bytes, int walks)
{
    const walker *at = (const walker *)memory;
    walker sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};
    while (walks-- > 0) {
        for (size_t i = 0; i + 4 <= bytes / WIDTH; i += 4)
            sum0 += at[i], sum1 += at[i + 1], sum2 += at[i + 2], sum3 += at[i + 3];
        __asm__ volatile("" ::: "memory"); /* or one walk would do for all */
    }
    return (sum0 + sum1 + sum2 + sum3)[0];
}

double rewrite_memory(float *memory, size_t bytes, int walks)
{
    walker *at = (walker *)memory;
    while (walks-- > 0)
        for (size_t i = 0; i < bytes / WIDTH; i++)
            at[i] = at[i] * 0.5f;
    return memory[0];
}
