"""Conversion and checks of a caller's arrays, for the layers above the ops; errors name the argument."""

import math
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

__all__ = ["as_array", "as_floats", "as_ids", "check_shape", "empty", "float_type", "refuse_mask"]

Array = np.ndarray
INTEGERS = (np.dtype(np.int32), np.dtype(np.int64))
LINE, PAGE = 64, 4096  # bytes
APART = 10 * LINE  # of a page, from one large array to the next

_number_of_large_arrays = count()


def empty(shape: tuple[int, ...], dtype: Any, make: Callable[..., Array] = np.empty) -> Array:
    """Return an uninitialized array; a large one begins at a cache line, which NumPy does not promise.

    A vector then lies in one line instead of two. Large arrays begin at different places of their pages: a CPU holds a
    load back behind a store to the same place of another page, and a cache has room for a few lines of the same place.

    make  np.empty or np.zeros, whose memory takes none until it is written to
    """
    dtype = np.dtype(dtype)
    size = math.prod(map(int, shape)) * dtype.itemsize
    if size < PAGE:
        return make(shape, dtype)
    room = make(size + PAGE, np.uint8)
    start = (next(_number_of_large_arrays) * APART - room.__array_interface__["data"][0]) % PAGE
    array: Array = room[start : start + size].view(dtype).reshape(shape)
    return array


def float_type(dtype: Any, name: str = "dtype") -> np.dtype[Any]:
    """Return the float type, float32 for None. Raise NotImplementedError for other NumPy types, else TypeError."""
    try:
        known = np.dtype(np.float32 if dtype is None else dtype)
    except TypeError:
        raise TypeError(f"{name}: expected np.float32 or np.float64, got {dtype!r}") from None
    if known not in (np.float32, np.float64):
        raise NotImplementedError(f"{name}: expected float32 or float64, got {known}")
    return known


def as_array(name: str, value: Any) -> Array:
    """Return `value` as an array, a tensor without a copy. Raise TypeError for a masked or an impossible array.

    Tensors of a float type that NumPy lacks, such as bfloat16, are converted to float32.
    """
    refuse_mask(name, value)
    if hasattr(value, "detach"):  # a PyTorch tensor; autograd does not follow it here
        value = value.detach()
        if value.is_floating_point() and value.dtype.itemsize < FLOAT32.itemsize:
            value = value.float()
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected an array, got {type(value).__name__} ({error})") from error


def refuse_mask(name: str, value: Any) -> None:
    """Raise TypeError for a masked array: NumPy would drop the mask silently."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array, got a masked one, whose mask would be lost")


def as_floats(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """Return `value` in a float type and in C order; the same array if it is so already.

    value  any array of floats or integers, in any layout and byte order, or what NumPy converts to one
    Raises TypeError for other types.
    """
    if type(value) is np.ndarray and value.dtype == dtype and value.flags.c_contiguous and value.flags.aligned:
        return value
    array = as_array(name, value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}")
    return np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def as_ids(name: str, value: Any) -> Array:
    """Return `value` in C order, as int32 if it is int32, else as int64. Raise TypeError for non-integers."""
    array = as_array(name, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.dtype == np.uint64 and array.size and (highest := int(array.max())) > np.iinfo(np.int64).max:
        raise IndexError(f"{name}: expected ids of at most 64 bits with their sign, got {highest}")
    dtype = array.dtype if array.dtype in INTEGERS else np.dtype(np.int64)
    return np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError for another shape."""
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}{transposed(array, shape)}")


def transposed(array: Array, shape: tuple[int | str, ...]) -> str:
    """Return the end of an error about a matrix of another shape: that its transpose has this one, where it has.

    shape  the expected one; an axis of any size is "any"
    """
    fits = len(shape) == array.ndim == 2 and all(
        wanted in ("any", got) for wanted, got in zip(shape, array.shape[::-1], strict=True)
    )
    return ": transposed? Its .T has that shape" if fits else ""


ArrayLike = Any  # an array, or an object that shares its memory without a copy
DType = np.dtype[Any]
Shape = tuple[int, ...]

FLOAT16, FLOAT32, FLOAT64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
WHOLE, NUMBERS = (int, np.integer), (int, float, np.integer, np.floating)
INT32, INT64 = np.dtype(np.int32), np.dtype(np.int64)


class Float16Error(Exception):
    """An argument is float16, which the function takes as float32 (fastmlp.functional._float16)."""


def lent_array(name: str, argument: str, given: ArrayLike) -> Array:
    """Return an array that shares the object's memory. Raise TypeError if it would have to be copied."""
    refuse_mask(f"{name}: {argument}", given)
    if isinstance(given, np.ndarray | np.generic):
        return np.asarray(given)
    try:
        return np.from_dlpack(given) if hasattr(given, "__dlpack__") else np.asarray(given, copy=False)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        why = str(error).partition("\n")[0]
        raise TypeError(
            f"{name}: {argument}: expected an array or what gives its memory, got {type(given).__name__}: {why}"
        ) from None


def listed(name: str, argument: str, given: ArrayLike, dtype: DType | None = None) -> ArrayLike:
    """Return a list, a tuple or a number of Python as an array, of `dtype` if it holds floats; all else as it is."""
    if not isinstance(given, list | tuple | int | float):
        return given
    array = as_array(f"{name}: {argument}", given)
    return array if dtype is None or array.dtype.kind != "f" else array.astype(dtype)


def float_array(name: str, argument: str, given: ArrayLike, dtype: DType | None = None) -> Array:
    """Return a C-contiguous array of float32 or float64, copied only if necessary. Raise Float16Error for float16.

    dtype  the type of the floats before it in the call; None: this is the first
    """
    if type(given) is Array and given.dtype is FLOAT32 and given.flags.carray and (dtype is None or dtype is FLOAT32):
        return given
    array = lent_array(name, argument, listed(name, argument, given, dtype or FLOAT32))
    own = array.dtype.newbyteorder("=")
    if own == FLOAT16 and (dtype is None or dtype == FLOAT32):
        raise Float16Error
    if own not in (FLOAT16, FLOAT32, FLOAT64):
        raise TypeError(f"{name}: {argument}: expected float32 or float64, got {array.dtype}")
    if dtype is not None and own != dtype:
        raise TypeError(f"{name}: {argument}: expected {dtype}, as the other floats are, got {array.dtype}")
    return np.require(array, own, ["C", "A"])


def id_array(name: str, argument: str, given: ArrayLike) -> Array:
    """Return a C-contiguous array of int32 or int64, converted from any integers."""
    if type(given) is Array and (given.dtype is INT64 or given.dtype is INT32) and given.flags.carray:
        return given
    array = lent_array(name, argument, listed(name, argument, given))
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: {argument}: expected integers, got {array.dtype}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(INT64).max:
        raise IndexError(f"{name}: {argument}: expected numbers of int64, got {array.max()}")
    return np.require(array, INT32 if array.dtype.newbyteorder("=") == INT32 else INT64, ["C", "A"])


def upstream_gradient(name: str, argument: str, given: ArrayLike, shape: Shape, dtype: DType) -> Array:
    """Return the gradient of the output, of the output's shape; a plain number is accepted for a scalar."""
    if not shape and isinstance(given, NUMBERS):
        return np.asarray(number(name, argument, given), dtype)
    return of_shape(name, argument, float_array(name, argument, given, dtype), shape)


def number(name: str, argument: str, given: Any) -> Any:
    if not isinstance(given, NUMBERS):
        raise TypeError(f"{name}: {argument}: expected a number, got {given!r}")
    return given


def of_shape(name: str, argument: str, array: Array, shape: Shape) -> Array:
    check_shape(f"{name}: {argument}", array, shape)
    return array


def ids_out_of_range(name: str, argument: str, ids: Array, size: int) -> IndexError:
    low, high = int(ids.min()), int(ids.max())
    return IndexError(f"{name}: {argument}: expected ids in [0, {size}), got {low if low < 0 else high}")


def place_for(name: str, out: ArrayLike | None, shape: Shape, dtype: DType, *inputs: Array | None) -> Array:
    """Return the array for the result: `out` if the op can write to it, else a new array."""
    if out is None:
        return empty(shape, dtype)
    array = of_shape(name, "out", lent_array(name, "out", out), shape)
    if array.dtype != dtype:
        raise TypeError(f"{name}: out: expected {dtype}, got {array.dtype}")
    if not array.flags.writeable or isinstance(out, np.generic):
        raise ValueError(f"{name}: out: expected a writeable array, got a read-only one")
    if array.flags.carray and not any(x is not None and np.may_share_memory(array, x) for x in inputs):
        return array
    return empty(shape, dtype)


def hand_over(result: Array, out: ArrayLike | None) -> Array:
    """Return the result, in `out` if that was given."""
    if out is None or result is out:
        return result
    array = lent_array("", "out", out)
    if array.ctypes.data != result.ctypes.data or not array.flags.c_contiguous:
        array[...] = result
    return out  # type: ignore[no-any-return]
