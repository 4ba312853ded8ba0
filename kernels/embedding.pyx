"""Embedding: looking words up, and the sparse gradient of that.

The backward pass sorts the batch's positions by (id, position); equal ids then lie side by side, in the order of the
batch, and the order of their sum is fixed. A batch has a few hundred to a few thousand ids: sorting them beats any
table over the vocabulary.
"""

from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

from core cimport core_api, ids_t, import_core

cdef const core_api *core = import_core()


def embedding_forward(const float[:, ::1] weight, const ids_t[:, ::1] ids, float[:, :, ::1] emb, *, int threads=1):
    """emb = weight[ids]: a copy of B * T rows, over before a second thread is awake."""
    cdef long words = ids.shape[0] * ids.shape[1], D = weight.shape[1], i
    cdef const ids_t *id_at
    cdef float *to
    if words == 0 or D == 0:
        return
    id_at = &ids[0, 0]
    to = &emb[0, 0, 0]
    with nogil:
        for i in range(words):
            memcpy(to + i * D, &weight[id_at[i], 0], D * sizeof(float))


ctypedef struct Occurrence:
    long id
    long position


cdef int by_id_and_position(const void *left, const void *right) noexcept nogil:
    cdef const Occurrence *a = <const Occurrence *> left
    cdef const Occurrence *b = <const Occurrence *> right
    if a.id != b.id:
        return 1 if a.id > b.id else -1
    return 1 if a.position > b.position else -1


def embedding_backward(const ids_t[:, ::1] ids, const float[:, :, ::1] demb, ids_t[::1] rows, float[:, ::1] drows, *,
                       int threads=1):
    """The unique ids, ascending, and the sums of their gradients in the order of the batch. Returns how many."""
    cdef long words = ids.shape[0] * ids.shape[1], D = demb.shape[2], i, j, unique = 0
    cdef Occurrence *sorted_ids
    cdef const ids_t *id_at
    cdef const float *gradient
    cdef float *total = NULL
    if words == 0:
        return 0
    sorted_ids = <Occurrence *> malloc(words * sizeof(Occurrence))
    if sorted_ids == NULL:
        raise MemoryError("embedding_backward: no memory to sort the ids")
    id_at = &ids[0, 0]
    with nogil:
        for i in range(words):
            sorted_ids[i] = Occurrence(id_at[i], i)
        qsort(sorted_ids, words, sizeof(Occurrence), by_id_and_position)
        for i in range(words):
            gradient = &demb[0, 0, 0] + sorted_ids[i].position * D
            if i == 0 or sorted_ids[i].id != sorted_ids[i - 1].id:
                rows[unique] = <ids_t> sorted_ids[i].id
                total = &drows[0, 0] + unique * D
                memcpy(total, gradient, D * sizeof(float))
                unique += 1
            else:
                for j in range(D):
                    total[j] += gradient[j]
        for i in range(unique, words):
            rows[i] = -1
        memset(&drows[0, 0] + unique * D, 0, (words - unique) * D * sizeof(float))
        free(sorted_ids)
    return unique
