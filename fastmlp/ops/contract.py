"""The contract of an op's arguments: what each array must be, checked before any kernel runs.

A reference op declares its arguments once, by name, with `@contract(...)`; `get_ops` holds every back-end to that
declaration. Axis letters bind to the first size seen and must agree from then on, so `x (B, I)` and `weight (O, I)`
share I; an axis "T+" is at least as long as T. What does not fit is refused with the op's and the argument's name, what
was expected and what came: TypeError for a wrong type, ValueError for a wrong shape or layout, IndexError for an id out
of range.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

__all__ = ["Array", "checked", "contract", "floats", "ids", "inout", "int64s", "optional", "out", "out_ids"]

Op = TypeVar("Op", bound=Callable[..., Any])
BOUNDS = {  # of options
    "threads": (1, math.inf),
    "step": (1, math.inf),
    "label_smoothing": (0, 1),
    "layer": (0, 2**32 - 1),
    "p": (0, math.nextafter(1, 0)),  # 1 itself is not allowed
}
INTEGERS = (np.dtype(np.int32), np.dtype(np.int64))


@dataclass(frozen=True)
class Array:
    """One array argument: its axes, its type and its use by the op."""

    axes: tuple[str, ...] | None  # None: any shape, the same for every such argument of the op
    holds: str = "float"  # "float"; "id": int32 or int64; or "int64"
    written: bool = False
    optional: bool = False
    below: str | None = None  # ids must be below the size of this axis
    lowest: int = 0  # ids must be at least that: with -1 there may be places where no id is
    ascending: bool = False  # ids must be ascending and unique
    elsewhere: str | None = None  # with this option ids may be -1: what they stand for is not in this call's arrays

    def describe(self) -> str:
        """Return the axes, as written in error messages and the reference's docstrings."""
        axes = self.axes or ("...",)
        return f"({', '.join(axes)}{',' * (len(axes) == 1)})"


def _axes(axes: tuple[str, ...]) -> tuple[str, ...] | None:
    return None if axes == ("...",) else axes


def floats(*axes: str) -> Array:
    """A float array that the op reads; `"..."` alone stands for any shape."""
    return Array(_axes(axes))


def optional(array: Array) -> Array:
    """The same argument, or None."""
    return replace(array, optional=True)


def ids(
    *axes: str, below: str | None = None, lowest: int = 0, ascending: bool = False, elsewhere: str | None = None
) -> Array:
    """An int32 or int64 array of ids from `lowest` on; where `below` names an axis, each is below its size."""
    return Array(axes, "id", below=below, lowest=lowest, ascending=ascending, elsewhere=elsewhere)


def int64s(*axes: str) -> Array:
    """An int64 array of numbers that are no ids; an axis that is a number measures that."""
    return Array(axes, "int64")


def out(*axes: str) -> Array:
    """A float array of the caller that the op overwrites completely; of an axis `"T+"` only T places."""
    return Array(_axes(axes), written=True)


def out_ids(*axes: str) -> Array:
    """An id array of the caller, of the same type as the op's ids, that the op overwrites completely."""
    return Array(axes, "id", written=True)


inout = out
"""A float array that the op reads and updates: checked like `out`."""


def contract(**arrays: Array) -> Callable[[Op], Op]:
    """Declare the array arguments of an op, in the order of its parameters."""

    def declare(op: Op) -> Op:
        names = tuple(inspect.signature(op).parameters)[: len(arrays)]
        assert names == tuple(arrays), f"{op.__name__}: contract {tuple(arrays)} is not the signature's {names}"
        op.arrays = arrays  # type: ignore[attr-defined]
        return op

    return declare


def checked(
    op: Callable[..., Any],
    reference: Callable[..., Any],
    dtype: np.dtype | None,
    precisions: Callable[[], tuple[str, ...]],
    compiled: Callable[[dict[str, Array]], Any] | None = None,
) -> Callable[..., Any]:
    """`op` behind its contract.

    reference   the op of the same name that declares it
    dtype       the float type that every float array must have; None: any, but one for all
    precisions  the values that the back-end has for fp32_precision, beside "auto"
    compiled    makes the same check in a tenth of the time if dtype is float32: kernels/contract.pyx
    """
    arrays: dict[str, Array] = reference.arrays  # type: ignore[attr-defined]
    expected = tuple(arrays.items())
    signature = inspect.signature(reference)  # a compiled function's own signature may be wrong
    quick: Any = None if compiled is None else compiled(arrays)
    # rows of `logits` are too large to copy: an op with logits skips ignored rows itself
    scales = list(arrays).index("row_scale") if "row_scale" in arrays and "logits" not in arrays else None

    @functools.wraps(op)
    def checked_op(*args: Any, **options: Any) -> Any:
        if not (fits := quick is not None and quick.fits(args, options)):
            _check(op.__name__, expected, args, dtype, options)
            _check_bounds(op.__name__, options)
        if options.get("between") is not None and options.get("label_smoothing"):
            raise ValueError(
                f"{op.__name__}: label_smoothing: expected 0 with between, got {options['label_smoothing']}"
            )
        asked = options.get("fp32_precision", "auto")
        if asked != "auto" and asked not in precisions():
            wanted = f"auto or one of those that this back-end has here, {', '.join(precisions())}"
            raise ValueError(f"{op.__name__}: fp32_precision: expected {wanted}; got {asked!r}")
        if scales is not None and not (fits and quick.counts_all_rows(args)):
            counted = np.flatnonzero(args[scales])
            if len(counted) < len(args[scales]):
                return _on_counted_rows(op, expected, args, options, counted)
        return op(*args, **options)

    reads_ids = any(array.holds == "id" and not array.written for array in arrays.values())
    # `again` is for a call on the same arrays as one before: only ids and the rows that count may have changed. Options
    # are then an optimizer's, which has checked them; whether the variant has a precision the kernels ask themselves.
    checked_op.again = checked_op if reads_ids or "row_scale" in arrays else op  # type: ignore[attr-defined]
    checked_op.__signature__ = signature  # type: ignore[attr-defined]
    return checked_op


def _on_counted_rows(
    op: Callable[..., Any],
    expected: tuple[tuple[str, Array], ...],
    args: tuple[Any, ...],
    options: dict[str, Any],
    counted: np.ndarray,
) -> Any:
    """Call an op on the rows that are not ignored; ignored rows are not read, and their outputs are 0.

    counted  the indices of the rows that are not ignored
    """
    by_row = [
        array is not None and want.axes is not None and want.axes[0] == "B"
        for array, (_, want) in zip(args, expected, strict=True)
    ]
    some = [array[counted] if rows else array for array, rows in zip(args, by_row, strict=True)]
    returned = op(*some, **options)
    for array, part, rows, (name, want) in zip(args, some, by_row, expected, strict=True):
        if rows and want.written:
            array[...] = np.nan if returned is False and name == "dh" else 0
            array[counted] = part
    return returned


def _check(
    op: str,
    expected: tuple[tuple[str, Array], ...],
    args: tuple[Any, ...],
    dtype: np.dtype | None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    sizes: dict[str, int] = {}
    common_shape: tuple[int, ...] | None = None
    id_dtype: np.dtype | None = None
    if len(args) != len(expected):
        names = ", ".join(name for name, _ in expected)
        raise TypeError(f"{op}: expected {len(expected)} arrays ({names}), got {len(args)}")
    for (name, want), array in zip(expected, args, strict=True):
        if array is None and want.optional:
            continue
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{op}: {name}: expected a NumPy array, got {type(array).__name__}")
        if want.holds == "id":
            if array.dtype not in INTEGERS or (id_dtype is not None and array.dtype != id_dtype):
                wanted = "int32 or int64" if id_dtype is None else id_dtype
                raise TypeError(f"{op}: {name}: expected {wanted}, got {array.dtype}")
            id_dtype = array.dtype
        elif want.holds == "int64":
            if array.dtype != np.int64:
                raise TypeError(f"{op}: {name}: expected int64, got {array.dtype}")
        else:
            if array.dtype != dtype and (dtype is not None or array.dtype.kind != "f"):
                raise TypeError(f"{op}: {name}: expected {dtype or 'a float type'}, got {array.dtype}")
            dtype = array.dtype
        if want.axes is None:
            common_shape = array.shape if common_shape is None else common_shape
            fits = array.shape == common_shape
        else:
            fits = array.ndim == len(want.axes) and all(
                _size(axis, size, sizes) == size for axis, size in zip(want.axes, array.shape, strict=True)
            )
        if not fits:
            known = {axis: size for axis, size in sizes.items() if want.axes and {axis, f"{axis}+"} & {*want.axes}}
            where = f" with {', '.join(f'{axis} = {size}' for axis, size in known.items())}" if known else ""
            shape = want.describe() if want.axes else common_shape
            raise ValueError(f"{op}: {name}: expected shape {shape}{where}, got {array.shape}")
        if not array.flags.c_contiguous:
            raise ValueError(f"{op}: {name}: expected a C-contiguous array, got strides {array.strides}")
        if not array.flags.aligned:
            where = f"address {array.ctypes.data:#x}"
            raise ValueError(f"{op}: {name}: expected an aligned array, got {where} for {array.dtype}")
        if want.written and not array.flags.writeable:
            raise ValueError(f"{op}: {name}: expected a writeable array, got a read-only one")
    for (name, want), array in zip(expected, args, strict=True):
        if want.elsewhere is not None and options.get(want.elsewhere) is not None:
            want = replace(want, lowest=-1)
        if want.holds == "id" and not want.written and array is not None and array.size:
            _check_ids(op, name, want, array, sizes[want.below] if want.below else None, expected, args)


def _check_bounds(op: str, options: dict[str, Any]) -> None:
    for name in options.keys() & BOUNDS:
        low, high = BOUNDS[name]
        if not low <= options[name] <= high:
            wanted = f"at least {low}" if high == math.inf else f"a number from {low} to {high}"
            if name == "p":
                wanted = "a probability below 1"
            raise ValueError(f"{op}: {name}: expected {wanted}, got {options[name]}")


def _size(axis: str, seen: int, sizes: dict[str, int]) -> int:
    """What an axis must measure: "B*T" is a product of axes bound before and "T+" at least one; a new letter binds."""
    if axis.isdigit():
        return int(axis)
    if axis.endswith("+"):
        return max(sizes[axis[:-1]], seen)
    return math.prod(sizes[factor] for factor in axis.split("*")) if "*" in axis else sizes.setdefault(axis, seen)


def _check_ids(
    op: str,
    name: str,
    want: Array,
    array: np.ndarray,
    size: int | None,
    expected: tuple[tuple[str, Array], ...],
    args: tuple[Any, ...],
) -> None:
    for (other, given), value in zip(expected, args, strict=True):
        if other == "row_scale" and given.axes == want.axes:  # the id of an ignored row is not looked at
            array = array[value != 0]
    if not array.size:
        return
    low, high = int(array.min()), int(array.max())
    if low < want.lowest or (size is not None and high >= size):
        wanted = f"ids of at least {want.lowest}" if size is None else f"ids in [{want.lowest}, {size})"
        raise IndexError(f"{op}: {name}: expected {wanted}, got {low if low < want.lowest else high}")
    if want.ascending and not (array[1:] > array[:-1]).all():
        raise ValueError(f"{op}: {name}: expected ascending ids without duplicates")
