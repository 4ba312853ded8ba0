"""What the ops take from the module `core`: its api and the shape of its parts (simd/core.h)."""

from libc.math cimport pow, rint, sqrt
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

ctypedef fused ids_t:
    int32_t
    int64_t


cdef extern from "core.h" nogil:
    enum:
        COLUMN_BLOCK

    ctypedef void (*slice_task)(void *context, long slice, int hand) noexcept nogil

    ctypedef struct matrix:
        const float *data
        long row
        long step

    ctypedef enum update_kind:
        SGD
        MOMENTUM
        ADAGRAD
        ADAMW

    ctypedef struct update_rule:
        update_kind kind
        float lr
        float weight_decay
        double beta1
        double beta2
        float eps
        float correction

    ctypedef struct dropout_mask:
        uint32_t key[2]
        uint32_t step
        uint32_t layer
        uint32_t threshold
        float scale

    ctypedef struct row_sums:
        float highest
        double exponentials
        double differences

    ctypedef struct simd_kernels:
        int lanes
        void (*pack)(matrix source, long depth, long lanes, const float *scale, float *panel) noexcept nogil
        void (*product)(long rows, long depth, matrix a, const float *panel, long panel_step, long lanes, float *c,
                        long c_row, long c_lane, bint accumulate) noexcept nogil
        void (*dots)(long words, long rows, long depth, const float *w, long w_row, const float *x, long x_row,
                     float *y, long y_row) noexcept nogil
        void (*add_bias)(long rows, long stride, long columns, const float *bias, float *y) noexcept nogil
        void (*column_sums)(long rows, long stride, long columns, const float *x, float *sums) noexcept nogil
        void (*highest_logits)(long words, long lanes, long stride, const float *bias, const float *logits,
                               float *highest) noexcept nogil
        void (*exponentials)(long words, long lanes, long stride, const float *bias, const float *base, float *logits,
                             float *highest, float *sum) noexcept nogil
        void (*settle)(long lanes, const float *highest, const float *base, float *sum) noexcept nogil
        void (*lane_sums)(long words, long lanes, long stride, const float *e, const float *scale,
                          float *sums) noexcept nogil
        void (*rescale)(long lanes, const float *base, const float *highest, const float *log_sum,
                        const float *row_scale, float *scale) noexcept nogil
        void (*combine)(long slices, long lanes, const float *highest, const float *sum, float *row_highest,
                        double *row_sum) noexcept nogil
        void (*add_slices)(long slices, long stride, long lanes, const float *parts, const float *factors,
                           long factor_stride, float *total) noexcept nogil
        row_sums (*row_statistics)(long n, const float *logits) noexcept nogil
        void (*row_dlogits)(long n, const float *logits, float highest, float log_sum, float scale, float shift,
                            float *dlogits) noexcept nogil
        row_sums (*row_softmax)(long n, const float *logits, float scale, float shift, float *dlogits) noexcept nogil
        void (*row_log_softmax)(long n, const float *x, float *y) noexcept nogil
        void (*row_softmax_backward)(long n, const float *dy, const float *y, float *dx) noexcept nogil
        void (*row_log_softmax_backward)(long n, const float *dy, const float *y, float *dx) noexcept nogil
        void (*tanh_forward)(long n, const float *x, float *y) noexcept nogil
        void (*tanh_backward)(long n, const float *dy, const float *y, float *dx) noexcept nogil
        void (*add)(long n, const float *a, const float *b, float *y) noexcept nogil
        void (*gelu_forward)(long n, const float *x, float *y) noexcept nogil
        void (*gelu_backward)(long n, const float *dy, const float *x, float *dx) noexcept nogil
        void (*dropout)(const dropout_mask *mask, uint64_t block, long n, const float *x, float *y) noexcept nogil
        void (*add_rows)(long words, const float *const *rows, const long *which, long sums, const float *factors,
                         long columns, bint anew, float *to) noexcept nogil
        void (*shift_average)(long n, float decay, const float *before, float gain, const float *added, float loss,
                              const float *dropped, float *to) noexcept nogil
        void (*batchnorm_statistics)(long rows, long stride, long columns, const float *x, float *mean,
                                     float *var) noexcept nogil
        void (*batchnorm_normalize)(long rows, long stride, long columns, const float *x, const float *mean,
                                    const float *inv_std, const float *weight, const float *bias,
                                    float *y) noexcept nogil
        void (*batchnorm_sums)(long rows, long stride, long columns, const float *dy, const float *x,
                               const float *mean, const float *inv_std, float *dweight, float *dbias) noexcept nogil
        void (*batchnorm_dx)(long rows, long stride, long columns, bint training, const float *dy, const float *x,
                             const float *weight, const float *mean, const float *inv_std, const float *dweight,
                             const float *dbias, float *dx) noexcept nogil
        void (*masked_gelu)(long rows, long stride, long columns, const float *x, const float *mean,
                            const float *inv_std, const float *weight, const float *bias, const dropout_mask *mask,
                            uint64_t first, float *y) noexcept nogil
        void (*masked_gelu_sums)(long rows, long stride, long columns, const float *dy, const float *x,
                                 const float *mean, const float *inv_std, const float *weight, const float *bias,
                                 const dropout_mask *mask, uint64_t first, float *dz, float *dweight,
                                 float *dbias) noexcept nogil
        void (*stream)(long rows, long columns, const float *source, long row, float *to) noexcept nogil
        void (*update)(const update_rule *rule, long n, const float *grad, float *state, float *state2,
                       float *param) noexcept nogil

    enum:
        TILE
        TILE_DEPTH
        TILE_VALUES

    ctypedef unsigned short bf16

    ctypedef struct operand:
        const bf16 *tiles
        long plane
        long line
        long step

    ctypedef struct result:
        float *sums
        long row
        long row_tile
        long column_tile

    ctypedef struct upcoming:
        const void *arrays[3]
        long bytes

    ctypedef struct tile_kernels:
        void (*begin)() noexcept nogil
        void (*end)() noexcept nogil
        void (*split_rows)(long rows, long depth, long row, const float *source, int planes, long plane, long tile_row,
                           bf16 *tiles) noexcept nogil
        void (*split_turned)(long rows, long depth, long step, const float *source, int planes, long plane,
                             long tile_row, bf16 *tiles) noexcept nogil
        void (*split_pairs)(long depth, long columns, long row, const float *source, const float *scale, int planes,
                            long plane, long tile_column, bf16 *tiles) noexcept nogil
        void (*split_columns)(long depth, long columns, long column, const float *source, int planes, long plane,
                              bf16 *tiles) noexcept nogil
        void (*highest_logits)(long words, const float *bias, const float *logits, float *highest) noexcept nogil
        void (*exponentials)(long words, const float *bias, const float *logits, const float *base, float *highest,
                             float *sum, int planes, bint past_the_cache, long plane, bf16 *tiles, long pairs_plane,
                             long tile_column, bf16 *pairs) noexcept nogil
        void (*add_turned)(long slices, long stride, long tile_column, const float *parts, const float *factors,
                           long factor_stride, long rows, long columns, float *to, long row) noexcept nogil
        void (*product)(long row_tiles, long column_tiles, long depth, int planes, operand a, operand b, result c,
                        bint accumulate, upcoming after) noexcept nogil

    ctypedef struct simd_variant:
        const char *name
        const simd_kernels *simd
        const tile_kernels *tiles

    ctypedef struct core_api:
        size_t size
        void (*run)(slice_task task, void *context, long slices, int threads) noexcept nogil
        void *(*take)(size_t size) noexcept nogil
        void (*give)(void *work) noexcept nogil
        const simd_kernels *simd
        const tile_kernels *tiles

    const core_api *import_core() except NULL


cdef inline long ceil_div(long a, long b) noexcept nogil:
    return (a + b - 1) // b


cdef inline int64_t id_at(const char *ids, int id_size, long i) noexcept nogil:
    """An id of an array of int32 or int64."""
    return (<const int32_t *> ids)[i] if id_size == sizeof(int32_t) else (<const int64_t *> ids)[i]


cdef inline float *state_at(float *state, long first) noexcept nogil:
    """What a rule keeps of the parameter from number `first` on; NULL where it keeps nothing."""
    return state + first if state else NULL


cdef inline update_rule sgd_rule(double lr, double weight_decay) noexcept nogil:
    return update_rule(SGD, lr, weight_decay, 0, 0, 0, 0)


cdef inline update_rule momentum_rule(double lr, double momentum, double weight_decay) noexcept nogil:
    return update_rule(MOMENTUM, lr, weight_decay, momentum, 0, 0, 0)


cdef inline update_rule adagrad_rule(double lr, double eps, double weight_decay) noexcept nogil:
    return update_rule(ADAGRAD, lr, weight_decay, 0, 0, eps, 0)


cdef inline update_rule adamw_rule(double lr, long step, double beta1, double beta2, double eps,
                                   double weight_decay) noexcept nogil:
    return update_rule(ADAMW, lr / (1 - pow(beta1, step)), 1 - lr * weight_decay, beta1, beta2, eps,
                       1 / sqrt(1 - pow(beta2, step)))


cdef inline dropout_mask mask_of(const int64_t[::1] counter, uint32_t layer, double p) noexcept:
    """The mask of a seed, a step and a layer, of which a share p is left out."""
    cdef uint64_t seed = counter[0]
    cdef dropout_mask mask
    mask.key[0], mask.key[1] = <uint32_t> seed, <uint32_t> (seed >> 32)
    mask.step, mask.layer = <uint32_t> counter[1], layer
    mask.threshold = <uint32_t> min(rint(p * 65536), 65535)
    mask.scale = <float> (1 / (1 - p))
    return mask


cdef inline void batch_statistics(const simd_kernels *simd, long rows, long stride, long columns, const float *x,
                                  float momentum, float eps, float *running_mean, float *running_var, float *mean,
                                  float *inv_std) noexcept nogil:
    """What batchnorm normalizes some columns by in training; the running statistics move towards it."""
    cdef float var[COLUMN_BLOCK]
    cdef double unbiased = rows / (rows - 1.0)
    cdef long i
    simd.batchnorm_statistics(rows, stride, columns, x, mean, var)
    for i in range(columns):
        running_mean[i] += momentum * (mean[i] - running_mean[i])
        running_var[i] += momentum * (<float> (var[i] * unbiased) - running_var[i])
        inv_std[i] = inverse_deviation(var[i], eps)


cdef inline float inverse_deviation(float var, float eps) noexcept nogil:
    return <float> (1 / sqrt(<double> var + eps))
