/* The core of the compiled ops: one team of threads, one work array, and the vector kernels of the instruction set
 * chosen for this process. They live in the extension module `core`; every other module reaches them through one
 * capsule, so that the whole library has a single team. */
#ifndef FASTMLP_CORE_H
#define FASTMLP_CORE_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

/* One slice of a call to `run`. `hand` numbers the thread that took it, 0 <= hand < threads: it indexes scratch memory
 * and must not change results. */
typedef void (*slice_task)(void *context, long slice, int hand);

/* Elements between the rows of a matrix and between the entries of a row: any layout, transposed ones included. */
typedef struct {
    const float *data;
    long row, step;
} matrix;

/* An optimizer's rule with the numbers that a step needs of it. */
typedef enum { SGD, MOMENTUM, ADAGRAD, ADAMW } update_kind;

typedef struct {
    update_kind kind;
    float lr;           /* adamw: lr / (1 - beta1^step) */
    float weight_decay; /* adamw: the factor of a parameter, 1 - lr * weight_decay */
    double beta1;       /* momentum: the momentum */
    double beta2;
    float eps;
    float correction;   /* 1 / sqrt(1 - beta2^step) */
} update_rule;

/* What a mask of dropout is made of: the reference says how. */
typedef struct {
    uint32_t key[2], step, layer;
    uint32_t threshold; /* the smallest number whose element is kept */
    float scale;
} dropout_mask;

/* Of a row of logits the highest, the sum of exp(logit - highest) and the sum of these differences. */
typedef struct {
    float highest;
    double exponentials, differences;
} row_sums;

/* The vector kernels, one table an instruction set; defined and documented in variant.h. A vector is `lanes`
 * floats, a panel two vectors. */
enum { COLUMN_BLOCK = 64 }; /* the most columns of one call to the kernels for columns */

typedef struct {
    int lanes;

    void (*pack)(matrix source, long depth, long lanes, const float *scale, float *panel);
    void (*product)(long rows, long depth, matrix a, const float *panel, long panel_step, long lanes, float *c,
                    long c_row, long c_lane, bool accumulate);
    void (*dots)(long words, long rows, long depth, const float *w, long w_row, const float *x, long x_row, float *y,
                 long y_row);
    void (*add_bias)(long rows, long stride, long columns, const float *bias, float *y);
    void (*column_sums)(long rows, long stride, long columns, const float *x, float *sums);

    void (*highest_logits)(long words, long lanes, long stride, const float *bias, const float *logits, float *highest);
    void (*exponentials)(long words, long lanes, long stride, const float *bias, const float *base, float *logits,
                         float *highest, float *sum);
    void (*settle)(long lanes, const float *highest, const float *base, float *sum);
    void (*lane_sums)(long words, long lanes, long stride, const float *e, const float *scale, float *sums);
    void (*rescale)(long lanes, const float *base, const float *highest, const float *log_sum, const float *row_scale,
                    float *scale);
    void (*combine)(long slices, long lanes, const float *highest, const float *sum, float *row_highest,
                    double *row_sum);
    void (*add_slices)(long slices, long stride, long lanes, const float *parts, const float *factors,
                       long factor_stride, float *total);

    row_sums (*row_statistics)(long n, const float *logits);
    void (*row_dlogits)(long n, const float *logits, float highest, float log_sum, float scale, float shift,
                        float *dlogits);
    row_sums (*row_softmax)(long n, const float *logits, float scale, float shift, float *dlogits);
    void (*row_log_softmax)(long n, const float *x, float *y);
    void (*row_softmax_backward)(long n, const float *dy, const float *y, float *dx);
    void (*row_log_softmax_backward)(long n, const float *dy, const float *y, float *dx);

    void (*tanh_forward)(long n, const float *x, float *y);
    void (*tanh_backward)(long n, const float *dy, const float *y, float *dx);

    void (*add)(long n, const float *a, const float *b, float *y);

    void (*gelu_forward)(long n, const float *x, float *y);
    void (*gelu_backward)(long n, const float *dy, const float *x, float *dx);

    void (*dropout)(const dropout_mask *mask, uint64_t block, long n, const float *x, float *y);

    void (*add_rows)(long words, const float *const *rows, const long *which, long sums, const float *factors,
                     long columns, bool anew, float *to);
    void (*shift_average)(long n, float decay, const float *before, float gain, const float *added, float loss,
                          const float *dropped, float *to);

    void (*batchnorm_statistics)(long rows, long stride, long columns, const float *x, float *mean, float *var);
    void (*batchnorm_normalize)(long rows, long stride, long columns, const float *x, const float *mean,
                                const float *inv_std, const float *weight, const float *bias, float *y);
    void (*batchnorm_sums)(long rows, long stride, long columns, const float *dy, const float *x, const float *mean,
                           const float *inv_std, float *dweight, float *dbias);
    void (*batchnorm_dx)(long rows, long stride, long columns, bool training, const float *dy, const float *x,
                         const float *weight, const float *mean, const float *inv_std, const float *dweight,
                         const float *dbias, float *dx);

    void (*masked_gelu)(long rows, long stride, long columns, const float *x, const float *mean, const float *inv_std,
                        const float *weight, const float *bias, const dropout_mask *mask, uint64_t first, float *y);
    void (*masked_gelu_sums)(long rows, long stride, long columns, const float *dy, const float *x, const float *mean,
                             const float *inv_std, const float *weight, const float *bias, const dropout_mask *mask,
                             uint64_t first, float *dz, float *dweight, float *dbias);

    void (*stream)(long rows, long columns, const float *from, long row, float *to);
    void (*update)(const update_rule *rule, long n, const float *grad, float *state, float *state2, float *param);
} simd_kernels;

/* Products of bf16 tiles; tiles.h documents the layouts and functions. A number is kept in `planes` bf16:
 * rounded once (1), or as the sum of two, high and low (2); the planes of an array lie `plane` values apart. */
enum { TILE = 16, TILE_DEPTH = 32, TILE_VALUES = TILE * TILE_DEPTH };

typedef uint16_t bf16;

typedef struct {
    const bf16 *tiles;
    long plane, line, step; /* values from a plane to the next, from a row or column of tiles, and along the depth */
} operand;

typedef struct {
    float *sums;
    long row, row_tile, column_tile; /* floats from a row to the next, and from a tile to the one below and beside it */
} result;

/* What is read after a product, up to three arrays of one length: a variant prefetches it meanwhile, if its products
 * leave room for that. */
typedef struct {
    const void *arrays[3];
    long bytes;
} upcoming;

typedef struct {
    void (*begin)(void); /* a thread calls these before its first product of a slice and after its last */
    void (*end)(void);

    void (*split_rows)(long rows, long depth, long row, const float *from, int planes, long plane, long tile_row,
                       bf16 *tiles);
    void (*split_turned)(long rows, long depth, long step, const float *from, int planes, long plane, long tile_row,
                         bf16 *tiles);
    void (*split_pairs)(long depth, long columns, long row, const float *from, const float *scale, int planes,
                        long plane, long tile_column, bf16 *tiles);
    void (*split_columns)(long depth, long columns, long column, const float *from, int planes, long plane,
                          bf16 *tiles);
    void (*highest_logits)(long words, const float *bias, const float *logits, float *highest);
    void (*exponentials)(long words, const float *bias, const float *logits, const float *base, float *highest,
                         float *sum, int planes, bool past_the_cache, long plane, bf16 *tiles, long pairs_plane,
                         long tile_column, bf16 *pairs);
    void (*add_turned)(long slices, long stride, long tile_column, const float *parts, const float *factors,
                       long factor_stride, long rows, long columns, float *to, long row);
    void (*product)(long row_tiles, long column_tiles, long depth, int planes, operand a, operand b, result c,
                    bool accumulate, upcoming after);
} tile_kernels;

/* The kernels of one instruction set. */
typedef struct {
    const char *name;
    const simd_kernels *simd;
    const tile_kernels *tiles; /* NULL: it has none, products are float32 only */
} simd_variant;

typedef struct {
    size_t size; /* of this and of the tables of kernels, as `core` was built */
    void (*run)(slice_task task, void *context, long slices, int threads);
    void *(*take)(size_t bytes);  /* a work array, 64-byte aligned; NULL if memory is out */
    void (*give)(void *work);
    const simd_kernels *simd;
    const tile_kernels *tiles;
} core_api;

#define CORE_CAPSULE "fastmlp._kernels.core.api"
#define CORE_SIZE (sizeof(core_api) + sizeof(simd_kernels) + sizeof(tile_kernels) + sizeof(upcoming))

/* The api of the module `core`; NULL with a Python exception set if it is not available. */
static inline const core_api *import_core(void)
{
    PyObject *module = PyImport_ImportModule("fastmlp._kernels.core");
    if (module == NULL)
        return NULL;
    PyObject *capsule = PyObject_GetAttrString(module, "api");
    Py_DECREF(module);
    if (capsule == NULL)
        return NULL;
    const core_api *api = (const core_api *)PyCapsule_GetPointer(capsule, CORE_CAPSULE);
    Py_DECREF(capsule); /* the module keeps it, and sys.modules the module */
    if (api != NULL && api->size != CORE_SIZE) { /* a build that failed half-way leaves old modules beside new ones */
        PyErr_SetString(PyExc_ImportError, "the compiled modules are of different builds: build them again");
        return NULL;
    }
    return api;
}

/* team.c */
void team_run(slice_task task, void *context, long slices, int threads);

/* work.c */
void *work_take(size_t bytes);
void work_give(void *work);

/* dispatch.c: the variants, the best first and NULL behind the last, and whether this CPU and its system run one */
extern const simd_variant *const simd_variants[];
bool simd_runs(const simd_variant *variant);

#endif
