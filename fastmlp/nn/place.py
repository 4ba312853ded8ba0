"""Where a module's ops run: at once, in new arrays, or bound to arrays that are kept, so that a pass can be replayed.

A layer says once which op it runs on which arrays; its place decides the rest. By default that is PyTorch's meaning:
the best back-end, a new array for each result. The trainer's network is bound to one back-end and to arrays of its own:
the calls of its first pass are recorded, and a batch of the same size replays them. Between the kernels of a small step
the caches are empty, and a layer that looked up its names and checked its shapes anew would cost a tenth of the step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fastmlp.ops import Ops, backend
from fastmlp.threads import default_threads

__all__ = ["AT_ONCE", "Bound", "Place"]

Array = np.ndarray
Result = TypeVar("Result")


class Place:
    """Runs each op at once, on the library's back-end and threads, and makes a new array for each result.

    bound  whether a pass finds its arrays where the pass before did
    """

    bound = False

    def replay(self, name: str, rows: int, make: Callable[[], Result]) -> Result:
        """What a pass gives; `name` and `rows` tell a bound place whether it was made before."""
        return make()

    def bind(self, op: str, *arrays: Array | None) -> Callable[..., Any]:
        """A call of an op on these arrays, which takes the op's options."""
        return partial(self.run, op, *arrays)

    def run(self, op: str, *arrays: Array | None, **options: Any) -> Any:
        """Call an op by its name; the float type of its last array decides on the back-end."""
        dtype = next(array.dtype for array in reversed(arrays) if array is not None)
        return getattr(backend.ops_of(dtype), op)(*arrays, threads=default_threads(), **options)

    def call(self, function: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Call what is no op, but belongs to a pass."""
        function(*arguments, **options)

    def array(self, module: object, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array for a module to write to, with nothing in it.

        name   tells the module's arrays apart
        shape  whose first axis may be a batch's rows
        """
        return np.empty(shape, dtype)

    def over(self, module: object, name: str, x: Array) -> Array:
        """An array like x for a result: x itself where nobody needs it any more."""
        return np.empty_like(x)

    def keep(self, *arrays: Array) -> None:
        """Let no later module of the pass write over arrays, which the backward pass reads."""


AT_ONCE = Place()


class Bound(Place):
    """Runs one back-end's ops in arrays that are made once; a smaller batch uses their leading rows.

    ops      the back-end
    threads  how many threads may work; no result depends on it
    """

    bound = True

    def __init__(self, ops: Ops, threads: int) -> None:
        self.ops, self.threads = ops, threads
        self._arrays: dict[tuple[int, str], Array] = {}
        self._kept: set[int] = set()  # ids of the arrays that the pass in the making writes no result over
        self._rows = 0
        self._passes: dict[str, tuple[list[Callable[[], object]], Any]] = {}  # of batches of _rows: calls and result
        self._calls: list[Callable[[], object]] | None = None  # of the pass that is being recorded

    def replay(self, name: str, rows: int, make: Callable[[], Result]) -> Result:
        """The result of a pass, whose calls are recorded when it is first made for a batch of this size.

        name  of the pass
        rows  of the batch
        make  runs the pass; it must make the same calls on the same arrays each time
        """
        if rows != self._rows:
            self._passes.clear()
            self._rows = rows
        if name in self._passes:
            calls, result = self._passes[name]
            for call in calls:
                call()
            return result  # type: ignore[no-any-return]
        self._calls = calls = []
        self._kept.clear()
        try:
            result = make()
        finally:
            self._calls = None
        self._passes[name] = calls, result
        return result

    def run(self, op: str, *arrays: Array | None, **options: Any) -> Any:
        """Call an op of the back-end."""
        function = getattr(self.ops, op)
        if self._calls is not None:
            self._calls.append(partial(function, *arrays, threads=self.threads, **options))
        return function(*arrays, threads=self.threads, **options)

    def bind(self, op: str, *arrays: Array | None) -> Callable[..., Any]:
        """A call of an op on these arrays, which takes the op's options."""
        return partial(getattr(self.ops, op), *arrays, threads=self.threads)

    def call(self, function: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Call what is no op; the ops that it calls in turn are no calls of their own."""
        recording, self._calls = self._calls, None
        try:
            function(*arguments, **options)
        finally:
            self._calls = recording
        if recording is not None:
            recording.append(partial(function, *arguments, **options))

    def array(self, module: object, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """The same array each time, or the leading rows of it; a larger one where it has too few."""
        key = id(module), name
        whole = self._arrays.get(key)
        if whole is None or len(whole) < shape[0] or whole.shape[1:] != shape[1:] or whole.dtype != dtype:
            whole = self._arrays[key] = np.empty(shape, dtype)
        return whole[: shape[0]]

    def over(self, module: object, name: str, x: Array) -> Array:
        """x, where it is of this place and not kept: a result in the caches, not in an array from memory."""
        own = any(x.base is array for array in self._arrays.values())
        return x if own and id(x.base) not in self._kept else self.array(module, name, x.shape, x.dtype)

    def keep(self, *arrays: Array) -> None:
        """Write no result over these arrays."""
        self._kept.update(id(array.base) for array in arrays if array.base is not None)
