"""Embedding: looking words up, and the sparse gradient of that.

The backward pass sorts the batch's positions by id; equal ids then lie side by side, in the order of the batch, and the
order of their sum is fixed. A batch has a few hundred to a few thousand ids: sorting them beats any table over the
vocabulary.
"""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memset

from core cimport ceil_div, core_api, id_at, ids_t, import_core

cdef const core_api *core = import_core()

cdef enum:
    SLICE = 128      # words
    SMALL = 1 << 15  # numbers to copy below which a second thread does not pay


ctypedef struct Lookup:
    long words             # B * T
    long context           # T
    long places            # S
    long columns           # D
    const char *ids
    int id_size
    const float *weight
    float *emb


cdef inline long position_of(long word, long context, long places) noexcept nogil:
    """Where a word's embedding lies, in embeddings."""
    return word // context * places + word % context


cdef void look_up_slice(void *context, long slice, int hand) noexcept nogil:
    cdef Lookup *call = <Lookup *> context
    cdef long D = call.columns, i
    for i in range(slice * SLICE, min((slice + 1) * SLICE, call.words)):
        memcpy(call.emb + position_of(i, call.context, call.places) * D,
               call.weight + id_at(call.ids, call.id_size, i) * D, D * sizeof(float))


cdef inline int useful(int threads, long numbers) noexcept nogil:
    return threads if numbers >= SMALL else 1


cdef void look_up(const float[:, ::1] weight, const ids_t[:, ::1] ids, float[:, :, ::1] emb, int threads) noexcept:
    cdef Lookup call
    call.context, call.places, call.columns = ids.shape[1], emb.shape[1], emb.shape[2]
    call.words = ids.shape[0] * call.context
    if call.words == 0 or call.columns == 0:
        return
    call.ids, call.id_size = <const char *> &ids[0, 0], sizeof(ids_t)
    call.weight, call.emb = &weight[0, 0], &emb[0, 0, 0]
    with nogil:
        core.run(look_up_slice, &call, ceil_div(call.words, SLICE), useful(threads, call.words * call.columns))


def embedding_forward(const float[:, ::1] weight, ids, float[:, :, ::1] emb, *, int threads=1):
    """emb[:, :T] = weight[ids]."""
    if ids.itemsize == sizeof(int32_t):
        look_up[int32_t](weight, ids, emb, threads)
    else:
        look_up[int64_t](weight, ids, emb, threads)


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


ctypedef struct Sum:
    long words              # B * T
    long unique
    long columns            # D
    const float *demb
    const Occurrence *by_id
    long *starts            # (U + 1,)  where each id's occurrences begin
    float *drows


cdef void sum_slice(void *context, long slice, int hand) noexcept nogil:
    """The sums of the gradients of some ids; of rows beyond the last id nothing."""
    cdef Sum *call = <Sum *> context
    cdef long D = call.columns, first = slice * SLICE, last = min(first + SLICE, call.words), row, i, j
    cdef const float *gradient
    cdef float *total
    for row in range(first, min(last, call.unique)):
        total = call.drows + row * D
        memcpy(total, call.demb + call.by_id[call.starts[row]].position * D, D * sizeof(float))
        for i in range(call.starts[row] + 1, call.starts[row + 1]):
            gradient = call.demb + call.by_id[i].position * D
            for j in range(D):
                total[j] += gradient[j]
    first = max(first, call.unique)
    if first < last:
        memset(call.drows + first * D, 0, (last - first) * D * sizeof(float))


cdef long sum_up(const ids_t[:, ::1] ids, const float[:, :, ::1] demb, ids_t[::1] rows,
                 float[:, ::1] drows, int threads) except -1:
    cdef long T = ids.shape[1], words = ids.shape[0] * T, i
    cdef Occurrence *found
    cdef const ids_t *first
    cdef Sum call
    if words == 0:
        return 0
    call.words, call.unique, call.columns = words, 0, demb.shape[2]
    found = <Occurrence *> core.take(2 * words * sizeof(Occurrence) + (words + 1) * sizeof(long))
    if found == NULL:
        raise MemoryError("embedding_backward: no memory to sort the ids")
    first = &ids[0, 0]
    with nogil:
        for i in range(words):
            found[i] = Occurrence(first[i], position_of(i, T, demb.shape[1]))
        call.by_id, call.starts = sorted_by_id(found, found + words, words), <long *> (found + 2 * words)
        for i in range(words):
            if i == 0 or call.by_id[i].id != call.by_id[i - 1].id:
                rows[call.unique] = <ids_t> call.by_id[i].id
                call.starts[call.unique] = i
                call.unique += 1
        call.starts[call.unique] = words
        for i in range(call.unique, words):
            rows[i] = -1
        if call.columns:
            call.demb, call.drows = &demb[0, 0, 0], &drows[0, 0]
            core.run(sum_slice, &call, ceil_div(words, SLICE), useful(threads, words * call.columns))
        core.give(found)
    return call.unique


def embedding_backward(ids, const float[:, :, ::1] demb, rows, float[:, ::1] drows, *, int threads=1):
    """Write the unique ids, ascending, and their gradients' sums in the order of the batch. Return their number."""
    if ids.itemsize == sizeof(int32_t):
        return sum_up[int32_t](ids, demb, rows, drows, threads)
    return sum_up[int64_t](ids, demb, rows, drows, threads)
