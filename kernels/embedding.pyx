"""Embedding: looking words up, and the sparse gradient of that.

The backward pass sorts the batch's positions by id; equal ids then lie side by side, in the order of the batch, and the
order of their sum is fixed. A batch has a few hundred to a few thousand ids: sorting them beats any table over the
vocabulary.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from core cimport core_api, ids_t, import_core

cdef const core_api *core = import_core()


cdef void look_up(const float[:, ::1] weight, const ids_t[:, ::1] ids, float[:, :, ::1] emb) noexcept:
    cdef long T = ids.shape[1], D = weight.shape[1], i, t
    cdef const ids_t *id_at
    cdef float *to
    if ids.shape[0] * T == 0 or D == 0:
        return
    with nogil:
        for i in range(ids.shape[0]):
            id_at = &ids[i, 0]
            to = &emb[i, 0, 0]
            for t in range(T):
                memcpy(to + t * D, &weight[id_at[t], 0], D * sizeof(float))


def embedding_forward(const float[:, ::1] weight, ids, float[:, :, ::1] emb, *, int threads=1):
    """emb[:, :T] = weight[ids]: a copy of B * T rows, over before a second thread is awake."""
    if ids.itemsize == sizeof(int32_t):
        look_up[int32_t](weight, ids, emb)
    else:
        look_up[int64_t](weight, ids, emb)


cdef enum:
    DIGITS = 256


ctypedef struct Occurrence:
    int64_t id
    int64_t position


cdef Occurrence *sorted_by_id(Occurrence *items, Occurrence *spare, long count) noexcept nogil:
    """Sort by ascending id, stably; return `items` or `spare`, whichever holds the result.

    A radix sort: byte by byte from the lowest to the highest that any id uses.
    """
    cdef long starts[DIGITS]
    cdef long i, start, digit
    cdef int64_t bits = 0
    cdef int shift = 0
    for i in range(count):
        bits |= items[i].id
    while shift < 64 and bits >> shift:
        memset(starts, 0, sizeof(starts))
        for i in range(count):
            starts[(items[i].id >> shift) % DIGITS] += 1
        start = 0
        for digit in range(DIGITS):
            starts[digit], start = start, start + starts[digit]
        for i in range(count):
            digit = (items[i].id >> shift) % DIGITS
            spare[starts[digit]] = items[i]
            starts[digit] += 1
        items, spare = spare, items
        shift += 8
    return items


cdef long sum_up(const ids_t[:, ::1] ids, const float[:, :, ::1] demb, ids_t[::1] rows,
                 float[:, ::1] drows) except -1:
    cdef long T = ids.shape[1], S = demb.shape[1], D = demb.shape[2], words = ids.shape[0] * T, i, j, unique = 0
    cdef Occurrence *found
    cdef Occurrence *by_id
    cdef const ids_t *id_at
    cdef const float *gradient
    cdef float *total = NULL
    if words == 0:
        return 0
    found = <Occurrence *> malloc(2 * words * sizeof(Occurrence))
    if found == NULL:
        raise MemoryError("embedding_backward: no memory to sort the ids")
    id_at = &ids[0, 0]
    with nogil:
        for i in range(words):
            found[i] = Occurrence(id_at[i], i // T * S + i % T)
        by_id = sorted_by_id(found, found + words, words)
        for i in range(words):
            gradient = &demb[0, 0, 0] + by_id[i].position * D
            if i == 0 or by_id[i].id != by_id[i - 1].id:
                rows[unique] = <ids_t> by_id[i].id
                total = &drows[0, 0] + unique * D
                memcpy(total, gradient, D * sizeof(float))
                unique += 1
            else:
                for j in range(D):
                    total[j] += gradient[j]
        for i in range(unique, words):
            rows[i] = -1
        memset(&drows[0, 0] + unique * D, 0, (words - unique) * D * sizeof(float))
        free(found)
    return unique


def embedding_backward(ids, const float[:, :, ::1] demb, rows, float[:, ::1] drows, *, int threads=1):
    """Write the unique ids, ascending, and their gradients' sums in the order of the batch. Return their number."""
    if ids.itemsize == sizeof(int32_t):
        return sum_up[int32_t](ids, demb, rows, drows)
    return sum_up[int64_t](ids, demb, rows, drows)
