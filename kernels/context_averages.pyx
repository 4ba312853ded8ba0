"""Averages of the words before a context, by decays.

Rows of a batch are often neighbours in a text, whose windows are shifted by one word: then with the word that came in
and the one that dropped out f = a f_before + sqrt(1 - a) (e(new) - a^K e(old)), two rows of the table instead of K. So
that no error grows and no slice needs another's, every sixteenth row is made anew.
"""

from libc.math cimport sqrt
from libc.stdint cimport int64_t
from libc.string cimport memcmp

from core cimport ceil_div, core_api, id_at, import_core

cdef const core_api *core = import_core()

cdef enum:
    ANEW = 16     # rows: a slice, too
    FEW = 4       # words that are not worth a difference
    WORDS = 128   # whose rows are gathered at a time


ctypedef struct Call:
    long rows
    long words             # K
    long averages          # A
    long places            # S
    long columns           # D
    const float *weight
    const char *far
    int id_size
    const float *decays
    float *factors         # (K + 1, A): sqrt(1 - a) a^k
    float *emb


cdef inline const float *row_of(const Call *call, long row, long word) noexcept nogil:
    """The embedding of a word of `far`, NULL where there is none."""
    cdef int64_t id = id_at(call.far, call.id_size, row * call.words + word)
    return call.weight + id * call.columns if id >= 0 else NULL


cdef inline float *averages_of(const Call *call, long row) noexcept nogil:
    return call.emb + ((row + 1) * call.places - call.averages) * call.columns


cdef inline bint is_shifted(const Call *call, long row) noexcept nogil:
    """Whether its words are those of the row before it from the second on, and one more."""
    cdef long common = (call.words - 1) * call.id_size
    cdef const char *first
    if row % ANEW == 0 or call.words <= FEW:
        return False
    first = call.far + row * call.words * call.id_size
    return memcmp(first, first - common, common) == 0


cdef void gather(const Call *call, long row) noexcept nogil:
    cdef const float *rows[WORDS]
    cdef long which[WORDS]
    cdef long k = 0, last, count
    while True:
        last, count = min(k + WORDS, call.words), 0
        for k in range(k, last):
            rows[count], which[count] = row_of(call, row, call.words - 1 - k), k
            count += rows[count] != NULL
        core.simd.add_rows(count, rows, which, call.averages, call.factors, call.columns, last <= WORDS,
                           averages_of(call, row))
        k = last
        if k == call.words:
            return


cdef void average_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Call *call = <Call *> context
    cdef long row, i, D = call.columns
    cdef const float *before
    for row in range(slice * ANEW, min((slice + 1) * ANEW, call.rows)):
        if not is_shifted(call, row):
            gather(call, row)
            continue
        before = averages_of(call, row - 1)
        for i in range(call.averages):
            core.simd.shift_average(D, call.decays[i], before + i * D, call.factors[i],
                                    row_of(call, row, call.words - 1), call.factors[call.words * call.averages + i],
                                    row_of(call, row - 1, 0), averages_of(call, row) + i * D)


def context_averages_forward(const float[:, ::1] weight, far, const float[::1] decays, float[:, :, ::1] emb, *,
                             int threads=1):
    """sqrt(1 - a) * sum a^k weight[far[:, K - 1 - k]] for each decay a, in the last places of each row of emb."""
    cdef const unsigned char[::1] ids = far.reshape(-1).view("B")  # char has a sign on x86 and none on ARM
    cdef Call call
    cdef long i, k
    cdef double factor
    call.rows, call.words, call.id_size = far.shape[0], far.shape[1], far.itemsize
    call.averages, call.places, call.columns = decays.shape[0], emb.shape[1], emb.shape[2]
    if call.rows == 0 or call.averages == 0 or call.columns == 0:
        return
    call.factors = <float *> core.take((call.words + 1) * call.averages * sizeof(float))
    if call.factors == NULL:
        raise MemoryError("context_averages_forward: no memory for the powers of the decays")
    with nogil:
        for i in range(call.averages):
            factor = sqrt(1 - <double> decays[i])
            for k in range(call.words + 1):
                call.factors[k * call.averages + i] = <float> factor
                factor *= decays[i]
        call.weight = &weight[0, 0]
        call.far = <const char *> &ids[0] if call.words > 0 else NULL
        call.decays, call.emb = &decays[0], &emb[0, 0, 0]
        core.run(average_slice, &call, ceil_div(call.rows, ANEW), threads)
        core.give(call.factors)
