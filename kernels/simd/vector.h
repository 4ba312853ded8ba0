/* Vectors of LANES floats, and the kernels' functions on them.
 *
 * GCC's vector types (clang has them too) become registers of the instruction set that the including file names as its
 * target; a * b + c is contracted to a fused multiplication if there is one. */
#include <float.h>
#include <math.h>
#include <string.h>

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float vec_in_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* at any float's address */

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define UNROLL _Pragma("GCC unroll 16")
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

INLINE vec where(ivec condition, vec then, vec otherwise)
{
    return (vec)((condition & (ivec)then) | (~condition & (ivec)otherwise));
}

/* a > b ? a : b: a NaN in b is returned. */
INLINE vec highest_of(vec a, vec b)
{
    return where(a > b, a, b);
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

/* exp(x) for x <= 0 or NaN; 0 below -87, where float32 would soon lose its precision.
 *
 * exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer, which is
 * then in the low bits of the sum; shifted to where a float keeps its exponent they make 2^n. exp(r) - 1 = r + r^2
 * q(r); the coefficients of q are a minimax fit of degree 4 (Remez exchange in 40 digits, weighted for the relative
 * error of exp). Measured over [-87, 0] the relative error is at most 8.4e-8. */
INLINE vec exp_nonpositive(vec x)
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
    vec power = (vec)(((ivec)shifted << 23) + 0x3f800000);
    return (vec)((ivec)(power * reduced + power) & ~(x < lowest));
}

/* tanh(x) = x P(x^2) / Q(x^2), both of degree 4: a minimax fit for the relative error over |x| <= 9.02 (Lawson's
 * reweighting); beyond that tanh is 1 in float32. Measured, the relative error is at most 3.2e-7. */
INLINE vec tanh_of(vec x)
{
    vec s = x * x;
    s = where(s > 81.3604f, all(81.3604f), s);
    vec p = s * 1.3319122e-8f + 2.0583533e-5f;
    p = p * s + 3.4940385e-3f;
    p = p * s + 1.3379721e-1f;
    p = p * s + 1.0f;
    vec q = s * 7.762045e-7f + 3.2830986e-4f;
    q = q * s + 2.5871089e-2f;
    q = q * s + 4.6713036e-1f;
    q = q * s + 1.0f;
    vec y = x * p / q;
    y = where(y > 1.0f, all(1.0f), y);
    return where(y < -1.0f, all(-1.0f), y);
}
