"""What the layers above the ops do with a caller's arrays: convert what can be converted, refuse the rest by name."""

from typing import Any

import numpy as np

__all__ = ["as_array", "as_floats", "as_ids", "check_shape", "float_type", "refuse_mask"]

Array = np.ndarray
INTEGERS = (np.dtype(np.int32), np.dtype(np.int64))


def float_type(dtype: Any, name: str = "dtype") -> np.dtype[Any]:
    """float32 for None; NotImplementedError for another of NumPy's types, TypeError for what is none."""
    try:
        known = np.dtype(np.float32 if dtype is None else dtype)
    except TypeError:
        raise TypeError(f"{name}: expected np.float32 or np.float64, got {dtype!r}") from None
    if known not in (np.float32, np.float64):
        raise NotImplementedError(f"{name}: expected float32 or float64, got {known}")
    return known


def as_array(name: str, value: Any) -> Array:
    """`value` as NumPy has it, a tensor where it lies. TypeError for what NumPy makes no array of, and for a mask."""
    refuse_mask(name, value)
    if hasattr(value, "detach"):  # a tensor that may need a gradient, which is none of ours
        value = value.detach()
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected an array, got {type(value).__name__} ({error})") from error


def refuse_mask(name: str, value: Any) -> None:
    """Raise TypeError for a masked array: NumPy would make a plain one of it without a word."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array, got a masked one, whose mask would be lost")


def as_floats(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """`value` in a float type, in C order; the same array where it is so already.

    value  any array of floats or integers, in any layout and byte order, or what NumPy makes one of
    Raises TypeError for what holds no such numbers.
    """
    if type(value) is np.ndarray and value.dtype == dtype and value.flags.c_contiguous and value.flags.aligned:
        return value
    array = as_array(name, value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}")
    return np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def as_ids(name: str, value: Any) -> Array:
    """`value` in C order, as int32 where it is that already, else as int64. TypeError for other than integers."""
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
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
