"""The check of fastmlp/ops/contract.py, compiled: a training step hands over a hundred arrays, and the last layer
leaves nothing of the interpreter in the caches.

It accepts only arguments that the check in Python accepts. All others go to that check, which words the error; a few
rare ones, such as subclasses of ndarray, are accepted there only.
"""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

import numpy

from core cimport ids_t

cdef object ndarray = numpy.ndarray

cdef enum:
    MOST_ARRAYS = 16
    MOST_AXES = 3
    MOST_LETTERS = 8
    ANY_SHAPE = -1
    NONE = -1

ctypedef struct Want:
    int axes                     # how many, or ANY_SHAPE
    int letters[MOST_AXES][2]    # an axis is as long as one letter says, or as the product of two; else NONE
    bint longer[MOST_AXES]       # or at least as long
    int below                    # the letter whose size bounds the ids, or NONE
    int lowest                   # what bounds them on the other side
    bint ids
    bint int64s                  # they are no ids, and of that type
    bint written
    bint optional
    bint ascending
    bint by_row                  # an id of each row: those of ignored rows are not looked at


cdef bint same_letter(Py_ssize_t *sizes, const int *letters, bint longer, Py_ssize_t size) noexcept:
    """Whether an axis of that size fits; a letter that is new takes its size."""
    if longer:
        return size >= sizes[letters[0]]
    if letters[1] != NONE:
        return size == sizes[letters[0]] * sizes[letters[1]]
    if sizes[letters[0]] == NONE:
        sizes[letters[0]] = size
    return size == sizes[letters[0]]


cdef bint is_of_type(const Py_buffer *array, const Want *want) noexcept:
    """float32, or int32 or int64, in the byte order of this machine: the format is then a single letter."""
    cdef char letter = array.format[0]
    if array.format[1] != 0:
        return False
    if want.ids or want.int64s:
        return letter in (c"i", c"l", c"q") and (array.itemsize == 8 or (array.itemsize == 4 and want.ids))
    return letter == c"f"


cdef bint in_range(const ids_t *ids, Py_ssize_t count, uint64_t shift, uint64_t size, const float *row_scale,
                   bint ascending) noexcept:
    """Whether 0 <= id + shift < size for all ids, but for those of ignored rows; and each above the one before it."""
    cdef bint fits = True
    cdef uint32_t outside = 0, above
    cdef Py_ssize_t i
    if ids_t is int32_t:  # the sign of `outside` tells: without a comparison the compiler makes this a loop in vectors
        above = <uint32_t> (min(size, shift + (<uint64_t> 1 << 31)) - shift)
        for i in range(count):
            outside |= (<uint32_t> ids[i] + <uint32_t> shift) | (above - 1 - <uint32_t> ids[i])
        fits = outside >> 31 == 0
    else:
        for i in range(count):
            fits &= <uint64_t> ids[i] + shift < size  # a negative number is a large one of its unsigned type
    if not fits and row_scale != NULL:
        fits = True
        for i in range(count):
            fits &= <uint64_t> <int64_t> ids[i] + shift < size or row_scale[i] == 0
    if ascending:
        for i in range(1, count):
            fits &= ids[i] > ids[i - 1]
    return fits


cdef bint bounded(dict options) except -1:
    """Whether each option in contract.BOUNDS is a plain number within its bounds."""
    for name, value in options.items():
        if name == "threads" or name == "step":
            if type(value) is not int or value < 1:
                return False
        elif name == "layer":
            if type(value) is not int or not 0 <= value < 1 << 32:
                return False
        elif name == "p":
            if type(value) is not float or not 0.0 <= <double> value < 1.0:
                return False
        elif name == "label_smoothing":
            if type(value) is not float or not 0.0 <= <double> value <= 1.0:
                return False
    return True


cdef class Contract:
    """The arrays that an op takes, float32 and ids."""

    cdef Want wants[MOST_ARRAYS]
    cdef int count
    cdef Py_ssize_t sizes[MOST_LETTERS]  # of axes that are numbers; of letters NONE
    cdef int row_scale           # which argument that is, or NONE

    def __init__(self, arrays):
        """`arrays`: what `@contract` declared, an Array by each argument's name."""
        cdef int i, j
        letters, certain = {}, set()
        self.count, self.row_scale = len(arrays), NONE
        assert self.count <= MOST_ARRAYS
        for i, (name, array) in enumerate(arrays.items()):
            if name == "row_scale":
                self.row_scale = i
            self.wants[i] = Want(
                axes=ANY_SHAPE if array.axes is None else len(array.axes),
                letters=[[NONE, NONE], [NONE, NONE], [NONE, NONE]], longer=[False, False, False],
                below=NONE if array.below is None else letters.setdefault(array.below, len(letters)),
                lowest=array.lowest,
                ids=array.holds == "id", int64s=array.holds == "int64", written=array.written,
                optional=array.optional, ascending=array.ascending,
                by_row="row_scale" in arrays and array.axes == arrays["row_scale"].axes,
            )
            assert self.wants[i].axes <= MOST_AXES
            for j, axis in enumerate(array.axes or ()):
                self.wants[i].longer[j] = axis.endswith("+")
                factors = axis.rstrip("+").split("*")
                assert len(factors) <= 2
                assert certain.issuperset(factors) or not (len(factors) == 2 or self.wants[i].longer[j])
                if not array.optional:
                    certain.update(factors)
                for k, factor in enumerate(factors):
                    self.wants[i].letters[j][k] = letters.setdefault(factor, len(letters))
        assert len(letters) <= MOST_LETTERS
        for i in range(MOST_LETTERS):
            self.sizes[i] = NONE
        for letter, i in letters.items():
            if letter.isdigit():
                self.sizes[i] = int(letter)
        for array in arrays.values():
            if array.holds == "id":
                assert array.below is None or array.below in certain

    def fits(self, tuple arrays not None, dict options not None):
        """Whether an op may run on these arguments; an argument that is optional may be None."""
        return bounded(options) and self.arrays_fit(arrays)

    def counts_all_rows(self, tuple arrays not None):
        """Whether no row is ignored, that is no row_scale 0, of arrays that fit."""
        cdef const float[::1] row_scale = arrays[self.row_scale]
        cdef bint counted = True
        cdef Py_ssize_t i
        for i in range(row_scale.shape[0]):
            counted &= row_scale[i] != 0
        return counted

    cdef bint arrays_fit(self, tuple arrays) except -1:
        cdef Py_buffer views[MOST_ARRAYS]
        cdef int taken = 0, i
        cdef bint fits = len(arrays) == self.count
        memset(views, 0, sizeof(views))  # a view of None has neither format nor owner
        try:
            while fits and taken < self.count:
                argument = arrays[taken]
                if type(argument) is ndarray:
                    PyObject_GetBuffer(argument, &views[taken], PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
                else:
                    fits = argument is None and self.wants[taken].optional
                taken += 1
            return fits and self.agree(views)
        except (BufferError, ValueError):  # the object has no such view
            return False
        finally:
            for i in range(taken):
                PyBuffer_Release(&views[i])

    cdef bint agree(self, const Py_buffer *views) noexcept:
        """Whether each array is as declared, and all agree on the sizes."""
        cdef Py_ssize_t sizes[MOST_LETTERS]
        cdef const Py_buffer *first_of_any_shape = NULL
        cdef Py_ssize_t id_size = 0
        cdef int i, j
        for i in range(MOST_LETTERS):
            sizes[i] = self.sizes[i]
        for i in range(self.count):
            want, array = &self.wants[i], &views[i]
            if array.format == NULL:
                continue
            if (
                not is_of_type(array, want)
                or (want.ids and id_size not in (0, array.itemsize))
                or (want.written and array.readonly)
                or <size_t> array.buf % array.itemsize != 0
            ):
                return False
            if want.ids:
                id_size = array.itemsize
            if want.axes == ANY_SHAPE:
                if first_of_any_shape == NULL:
                    first_of_any_shape = array
                if array.ndim != first_of_any_shape.ndim:
                    return False
                for j in range(array.ndim):
                    if array.shape[j] != first_of_any_shape.shape[j]:
                        return False
            else:
                if array.ndim != want.axes:
                    return False
                for j in range(array.ndim):
                    if not same_letter(sizes, want.letters[j], want.longer[j], array.shape[j]):
                        return False
        for i in range(self.count):
            if (
                self.wants[i].ids
                and not self.wants[i].written
                and views[i].format != NULL
                and not self.ids_fit(views, i, sizes)
            ):
                return False
        return True

    cdef bint ids_fit(self, const Py_buffer *views, int which, const Py_ssize_t *sizes) noexcept:
        """Whether the ids of an argument are in their range."""
        want, array = &self.wants[which], &views[which]
        cdef uint64_t shift = -<int64_t> want.lowest
        cdef uint64_t size = shift + (sizes[want.below] if want.below != NONE else <uint64_t> 1 << 63)
        cdef const float *row_scale = <const float *> views[self.row_scale].buf if want.by_row else NULL
        cdef Py_ssize_t count = array.len // array.itemsize
        if array.itemsize == sizeof(int32_t):
            return in_range(<const int32_t *> array.buf, count, shift, size, row_scale, want.ascending)
        return in_range(<const int64_t *> array.buf, count, shift, size, row_scale, want.ascending)
