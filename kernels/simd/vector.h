/* Vectors of LANES floats, and the kernels' functions on them.
 *
 * GCC's vector types (clang has them too) become registers of the instruction set that the including file names as its
 * target; a * b + c is contracted to a fused multiplication if there is one. */
#include <float.h>
#include <math.h>
#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef uint64_t wide __attribute__((vector_size(4 * LANES))); /* half as many lanes, twice as long */
typedef float vec_in_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* at any float's address */

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define SOME_STEPS _Pragma("clang loop unroll_count(4)")
#define ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define SOME_STEPS _Pragma("GCC unroll 4")
#define ELEMENTWISE _Pragma("GCC ivdep") /* an output may be an input: an element is read before it is written */
#endif

INLINE vec load(const float *at)
{
    return *(const vec_in_memory *)at;
}

INLINE void store(float *at, vec x)
{
    *(vec_in_memory *)at = x;
}

/* The first `count` floats, the rest 0; for the end of an array. */
INLINE vec load_some(const float *at, long count)
{
    if (count >= LANES)
        return load(at);
    vec x = {0};
    memcpy(&x, at, (size_t)count * sizeof *at);
    return x;
}

INLINE void store_some(float *at, vec x, long count)
{
    if (count >= LANES)
        store(at, x);
    else
        memcpy(at, &x, (size_t)count * sizeof *at);
}

INLINE vec all(float x)
{
    return x - (vec){0};
}

INLINE vec absolute(vec x)
{
    return (vec)((ivec)x & 0x7fffffff);
}

INLINE vec where(ivec condition, vec then, vec otherwise)
{
    return (vec)((condition & (ivec)then) | (~condition & (ivec)otherwise));
}

/* a > b ? a : b: a NaN in b is returned. One instruction of x86, which GCC does not find in `where`. */
INLINE vec highest_of(vec a, vec b)
{
#if LANES == 16 && defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif LANES == 8 && defined(__AVX__)
    return _mm256_max_ps(a, b);
#elif LANES == 4 && defined(__SSE__)
    return _mm_max_ps(a, b);
#else
    return where(a > b, a, b);
#endif
}

/* a < b ? a : b, likewise. */
INLINE vec lowest_of(vec a, vec b)
{
#if LANES == 16 && defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif LANES == 8 && defined(__AVX__)
    return _mm256_min_ps(a, b);
#elif LANES == 4 && defined(__SSE__)
    return _mm_min_ps(a, b);
#else
    return where(a < b, a, b);
#endif
}

INLINE ivec lane_numbers(void)
{
    ivec lane;
    for (int i = 0; i < LANES; i++)
        lane[i] = i;
    return lane;
}

/* x in the first `count` lanes, `otherwise` in the rest. */
INLINE vec first_lanes(vec x, long count, float otherwise)
{
    return where(lane_numbers() < (int)count, x, all(otherwise));
}

/* The last `count` of n floats, in the last lanes, the rest 0. */
INLINE vec load_last(const float *at, long n, long count)
{
    if (n < LANES)
        return load_some(at, n);
    return where(lane_numbers() >= LANES - (int)count, load(at + n - LANES), all(0));
}

/* Lane i of the result is lane i ^ width of x. */
INLINE vec swap_lanes(vec x, int width)
{
#ifdef __clang__ /* has no shuffle by a vector of lane numbers, but compiles this to one */
    vec swapped;
    for (int i = 0; i < LANES; i++)
        swapped[i] = x[i ^ width];
    return swapped;
#else
    return __builtin_shuffle(x, lane_numbers() ^ width);
#endif
}

/* Of two vectors, a over b, the 2 x 2 blocks of `width` lanes transposed. */
INLINE void swap_blocks(vec *a, vec *b, int width)
{
    const vec over = *a, under = *b;
#ifdef __clang__
    for (int i = 0; i < LANES; i++) {
        (*a)[i] = i & width ? under[i ^ width] : over[i];
        (*b)[i] = i & width ? under[i] : over[i ^ width];
    }
#else
    const ivec lane = lane_numbers(), second = (lane & width) != 0; /* b's lanes are numbered from LANES on */
    *a = __builtin_shuffle(over, under, (lane ^ (second & width)) + (second & LANES));
    *b = __builtin_shuffle(over, under, (lane ^ (~second & width)) + (second & LANES));
#endif
}

/* Numbers of 16 bits, a lane each. */
INLINE ivec load_numbers(const uint16_t *at)
{
#if LANES == 16 && defined(__AVX512F__) /* GCC makes two halves of it */
    return (ivec)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)at));
#else
    typedef uint16_t numbers __attribute__((vector_size(2 * LANES)));
    numbers some;
    memcpy(&some, at, sizeof some);
    return __builtin_convertvector(some, ivec);
#endif
}

/* The products of the low halves of all lanes. */
INLINE wide multiply_low_halves(wide a, wide b)
{
#if LANES == 16 && defined(__AVX512F__)
    return (wide)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif LANES == 8 && defined(__AVX2__)
    return (wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif LANES == 4 && defined(__SSE2__)
    return (wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#elif LANES == 4 && defined(__aarch64__)
    return (wide)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
#else /* clang makes one instruction of it for any target; its macros do not tell which one that is */
    return (a & UINT32_MAX) * (b & UINT32_MAX);
#endif
}

/* Lanes 0, 2, ... of a and of b in turn, or lanes 1, 3, ...: what one instruction of x86 does. */
INLINE wide every_other_lane(wide a, wide b, int first)
{
    wide mixed;
#ifdef __clang__
    for (int i = 0; i < LANES / 2; i++)
        mixed[i] = i % 2 ? b[i - 1 + first] : a[i + first];
#else
    for (int i = 0; i < LANES / 2; i++) /* the numbers of the lanes, b's from LANES / 2 on */
        mixed[i] = (uint64_t)(i % 2 ? LANES / 2 + i - 1 + first : i + first);
    mixed = __builtin_shuffle(a, b, mixed);
#endif
    return mixed;
}

/* LANES vectors as a square matrix, transposed in place: its 2 x 2 blocks of halves, then those of quarters, and so
 * on. */
INLINE void transpose(vec *rows)
{
    UNROLL
    for (int width = LANES / 2; width > 0; width /= 2)
        UNROLL
        for (int i = 0; i < LANES; i++)
            if (!(i & width))
                swap_blocks(&rows[i], &rows[i + width], width);
}

INLINE float sum_of_lanes(vec x)
{
    UNROLL
    for (int width = LANES / 2; width > 0; width /= 2)
        x += swap_lanes(x, width);
    return x[0];
}

INLINE float highest_lane(vec x)
{
    UNROLL
    for (int width = LANES / 2; width > 0; width /= 2)
        x = highest_of(x, swap_lanes(x, width));
    return x[0];
}

/* exp(x) for x <= 88 or NaN; 0 below -87, where float32 would soon lose its precision.
 *
 * exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer, which is
 * then in the low bits of the sum; shifted to where a float keeps its exponent they make 2^n. exp(r) - 1 = r + r^2
 * q(r); the coefficients of q are a minimax fit of degree 4 (Remez exchange in 40 digits, weighted for the relative
 * error of exp). Measured over [-87, 40] the relative error is at most 8.4e-8. */
INLINE vec exp_of(vec x)
{
    const float lowest = -87.0f, rounder = 12582912.0f; /* 1.5 * 2^23 */
    vec within = highest_of(all(lowest), x);
    vec shifted = within * 1.44269504f + rounder;
    vec n = shifted - rounder;
    vec r = within - n * 0.693145751953125f; /* ln 2 in two parts: the product with the first is exact */
    r = r - n * 1.42860677e-6f;
    vec q = r * 1.38202868e-3f + 8.36750586e-3f;
    q = q * r + 4.16681692e-2f;
    q = q * r + 1.66665330e-1f;
    q = q * r + 4.99999940e-1f;
    vec reduced = r * r * q + r;
    vec power = (vec)(((uvec)shifted << 23) + 0x3f800000u); /* unsigned: beyond 88 it wraps round, and is not used */
    return (vec)((ivec)(power * reduced + power) & ~(x < lowest));
}

/* tanh(x) = x P(x^2) / Q(x^2), both of degree 4: a minimax fit for the relative error over |x| <= 9.02 (Lawson's
 * reweighting); beyond that tanh is 1 in float32. Measured, the relative error is at most 3.2e-7. */
INLINE vec tanh_of(vec x)
{
    vec s = x * x;
    s = lowest_of(all(81.3604f), s);
    vec p = s * 1.3319122e-8f + 2.0583533e-5f;
    p = p * s + 3.4940385e-3f;
    p = p * s + 1.3379721e-1f;
    p = p * s + 1.0f;
    vec q = s * 7.762045e-7f + 3.2830986e-4f;
    q = q * s + 2.5871089e-2f;
    q = q * s + 4.6713036e-1f;
    q = q * s + 1.0f;
    vec y = x * p / q;
    return highest_of(all(-1.0f), lowest_of(all(1.0f), y));
}

/* |x|, but for gelu no larger than where its tail is 0: an infinity times 0 would be NaN. */
INLINE vec gelu_distance(vec x)
{
    return lowest_of(all(14.0f), absolute(x));
}

/* Phi(-t) = exp(-t^2 / 2) P(t) / Q(t), the area under the normal curve's tail: the quotient, of degrees 4 and 5, falls
 * from 1/2 like 1 / t, so that the area keeps its relative accuracy. A minimax fit for the relative error over [0, 14]
 * (Lawson's reweighting) of 6e-9, 1.6e-8 with these coefficients. */
INLINE vec normal_tail_ratio(vec t)
{
    vec p = t * 4.07760497e-3f + 4.0372517e-2f;
    p = p * t + 1.82461709e-1f;
    p = p * t + 4.37250733e-1f;
    p = p * t + 0.5f;
    vec q = t * 1.02209114e-2f + 1.01205699e-1f;
    q = q * t + 4.67428774e-1f;
    q = q * t + 1.19929028f;
    q = q * t + 1.67238641f;
    q = q * t + 1.0f;
    return p / q;
}

/* gelu(x) = max(x, 0) - t Phi(-t) with t = |x|: no difference where x < 0, and none that cancels where x > 0. Measured,
 * the relative error is at most 8e-7 above -5 and, with the rounding of t^2, 4.2e-6 at -13; below -13.2 it is 0. */
INLINE vec gelu_of(vec x)
{
    vec t = gelu_distance(x);
    vec tail = exp_of(t * t * -0.5f) * normal_tail_ratio(t);
    return highest_of(x, all(0.0f)) - t * tail;
}

/* Its derivative, Phi(x) + x phi(x): s = Phi(-t) - t phi(t) where x < 0 and 1 - s where x > 0. */
INLINE vec gelu_slope(vec x)
{
    vec t = gelu_distance(x);
    vec s = exp_of(t * t * -0.5f) * (normal_tail_ratio(t) - t * 0.398942280f); /* 1 / sqrt(2 pi) */
    return where(x > 0.0f, 1.0f - s, s);
}
