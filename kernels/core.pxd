"""What the ops take from the module `core`: its api and the shape of its parts (simd/core.h)."""

from libc.stdint cimport int32_t, int64_t

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

    ctypedef struct simd_kernels:
        const char *name
        int lanes
        int tile_rows
        void (*pack)(matrix source, long depth, long lanes, float *panel) noexcept nogil
        void (*product)(long rows, long depth, matrix a, const float *panel, long panel_step, long lanes, float *c,
                        long c_row, long c_lane, bint accumulate) noexcept nogil
        void (*add_bias)(long rows, long columns, const float *bias, float *y) noexcept nogil
        void (*column_sums)(long rows, long stride, long columns, const float *x, float *sums) noexcept nogil
        void (*exponentials)(long words, long lanes, long stride, const float *bias, float *logits, float *highest,
                             float *sum, float *logit_sum) noexcept nogil
        void (*probabilities)(long words, long lanes, long stride, const float *bias, const float *lse,
                              float *logits) noexcept nogil
        void (*scale_lanes)(long words, long lanes, long stride, const float *scale, const float *shift,
                            float *p) noexcept nogil
        void (*lane_sums)(long words, long lanes, long stride, const float *p, float *sums) noexcept nogil
        void (*rescale)(long lanes, const float *highest, const float *lse, const float *row_scale,
                        float *scale) noexcept nogil
        void (*combine)(long slices, long lanes, const float *highest, const float *sum, float *row_highest,
                        double *row_sum) noexcept nogil
        void (*add_slices)(long slices, long stride, long lanes, const float *parts, float *total) noexcept nogil
        float (*row_lse)(long n, const float *logits, double *logit_sum) noexcept nogil
        void (*row_dlogits)(long n, const float *logits, float lse, float scale, float shift,
                            float *dlogits) noexcept nogil
        void (*tanh_forward)(long n, const float *x, float *y) noexcept nogil
        void (*tanh_backward)(long n, const float *dy, const float *y, float *dx) noexcept nogil
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
        void (*sgd)(long n, const float *grad, float *param, float lr, float weight_decay) noexcept nogil
        void (*momentum)(long n, const float *grad, float *velocity, float *param, float lr, float momentum,
                         float weight_decay) noexcept nogil
        void (*adagrad)(long n, const float *grad, float *squares, float *param, float lr, float eps,
                        float weight_decay) noexcept nogil
        void (*adamw)(long n, const float *grad, float *mean, float *square, float *param, float step_size,
                      float decay, double beta1, double beta2, float correction, float eps) noexcept nogil

    ctypedef struct core_api:
        void (*run)(slice_task task, void *context, long slices, int threads) noexcept nogil
        void *(*take)(size_t size) noexcept nogil
        void (*give)(void *work) noexcept nogil
        const simd_kernels *simd

    const core_api *import_core() except NULL
