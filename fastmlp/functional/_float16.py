"""float16 for functions that compute in float32."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from fastmlp.arrays import FLOAT16, FLOAT32, Float16Error, lent_array

__all__ = ["takes_float16"]

Array = np.ndarray
P = ParamSpec("P")
R = TypeVar("R")


def takes_float16(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function take float16: it is given float32, and its results are float16 if no float was wider.

    What it changes in place is changed in what was given. A call without float16 costs a tenth of a microsecond more.
    """

    @wraps(function)
    def function_of_any_float(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return function(*arguments, **named)
        except Float16Error:
            pass  # outside, or an error of the second call would be shown with this one
        call = _Widened(arguments, named)
        return cast(R, call.narrowed(function(*call.arguments, **call.named)))

    return function_of_any_float


class _Widened:
    """The arguments of a call with float32 in place of float16.

    given   the arrays that were float16, each as it was given and with its float32
    narrow  whether no float was wider
    """

    def __init__(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        arrays = {id(value): _array_of(value) for value in (*arguments, *named.values())}
        self.narrow = all(array.dtype != FLOAT32 for array in arrays.values() if array is not None)
        self.given: list[tuple[Any, Array, Array]] = []
        self.arguments: Any = tuple(self._wide(value, arrays[id(value)]) for value in arguments)
        self.named: Any = {
            # an `out` that is narrower than the result stays, and is refused
            name: value if name == "out" and not self.narrow else self._wide(value, arrays[id(value)])
            for name, value in named.items()
        }

    def _wide(self, value: Any, array: Array | None) -> Any:
        if array is None or array.dtype.newbyteorder("=") != FLOAT16:
            return value
        if isinstance(value, np.generic):
            return np.float32(value)
        for given, _, wide in self.given:
            if given is value:  # an input that is the `out` too
                return wide
        wide = array.astype(FLOAT32)
        wide.flags.writeable = array.flags.writeable
        self.given.append((value, array, wide))
        return wide

    def narrowed(self, result: Any) -> Any:
        """Return the result with the types of what was given, after changing what was changed in place."""
        after = [(array, wide.astype(array.dtype)) for _, array, wide in self.given]
        changed = [(array, now) for array, now in after if now.tobytes() != array.tobytes()]
        for array, now in changed:  # found before, as `out` may overlap an input
            array[...] = now
        return tuple(map(self._narrow, result)) if isinstance(result, tuple) else self._narrow(result)

    def _narrow(self, result: Any) -> Any:
        for given, _, wide in self.given:
            if result is wide:
                return given
        return result.astype(FLOAT16) if self.narrow and result is not None else result


def _array_of(value: Any) -> Array | None:
    """Return an argument as an array of its memory; None for what is none, and for what the function will refuse."""
    if value is None or isinstance(value, bool | int | float | str | list | tuple):
        return None
    try:
        return lent_array("", "", value)
    except TypeError:
        return None
