"""Where a module's ops run: at once in new arrays, or bound to fixed arrays, so that a pass can be replayed.

A layer states which op it runs on which arrays; its place decides how. The default place behaves like PyTorch: it uses
the fastest back-end and a new array for each result. The trainer's network is bound to one back-end and to arrays that
are made once: its first pass records the calls, and batches of the same size replay them. In a small step the caches
are empty between kernels: looking up names and checking shapes again would cost a tenth of the step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fastmlp.arrays import empty
from fastmlp.ops import Ops, backend
from fastmlp.threads import default_threads

__all__ = ["AT_ONCE", "Bound", "Place"]

Array = np.ndarray
Result = TypeVar("Result")


class Place:
    """Run each op at once, on the library's back-end and threads, with a new array for each result.

    bound  whether each pass uses the arrays of the pass before
    """

    bound = False

    def replay(self, name: str, rows: int, make: Callable[[], Result]) -> Result:
        """Return the result of a pass; a bound place replays it if it recorded `name` for as many rows."""
        return make()

    def run(self, op: str, *arrays: Array | None, **options: Any) -> Any:
        """Call an op by its name; the float type of the last array selects the back-end."""
        dtype = next(array.dtype for array in reversed(arrays) if array is not None)
        return getattr(backend.ops_of(dtype), op)(*arrays, threads=default_threads(), **options)

    def call(self, function: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Call a function that is not an op but belongs to a pass."""
        function(*arguments, **options)

    def array(self, module: object, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an uninitialized array for a module to write to.

        name   tells the module's arrays apart
        shape  the first axis may be the rows of a batch
        """
        return empty(shape, dtype)

    def over(self, module: object, name: str, x: Array) -> Array:
        """Return an array like x for a result; it may be x itself if x is no longer needed."""
        return empty(x.shape, x.dtype)

    def keep(self, *arrays: Array) -> None:
        """Keep later modules of the pass from overwriting arrays that the backward pass reads."""


AT_ONCE = Place()


class Bound(Place):
    """Run one back-end's ops in arrays that are made once; a smaller batch uses their first rows.

    ops      the back-end
    threads  the number of threads; no result depends on it
    """

    bound = True

    def __init__(self, ops: Ops, threads: int) -> None:
        self.ops, self.threads = ops, threads
        self._arrays: dict[tuple[int, str], Array] = {}
        self._kept: set[int] = set()  # ids of the arrays that the current pass must not overwrite
        self._rows = 0
        self._passes: dict[str, tuple[list[Callable[[], object]], Any]] = {}  # for batches of _rows: calls, result
        self._calls: list[Callable[[], object]] | None = None  # of the pass that is being recorded

    def begin(self, rows: int) -> None:
        """Forget the passes of batches of another size, before their arrays are asked for and may be replaced."""
        if rows != self._rows:
            self._passes.clear()
            self._rows = rows

    def forget(self, name: str) -> None:
        """Record a pass anew when it comes next."""
        self._passes.pop(name, None)

    def replay(self, name: str, rows: int, make: Callable[[], Result]) -> Result:
        """Return the result of a pass; record its calls for the first batch of a size, replay them for later ones.

        name  of the pass
        rows  of the batch
        make  runs the pass; it must make the same calls on the same arrays each time
        """
        self.begin(rows)
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
        if self._calls is not None:
            self._calls.append(self.again(op, *arrays, **options))
        return getattr(self.ops, op)(*arrays, threads=self.threads, **options)

    def again(self, op: str, *arrays: Array | None, **options: Any) -> Callable[..., Any]:
        """Return a function that calls an op on arrays that it has run on before, and does not check them again."""
        function = getattr(self.ops, op)
        return partial(getattr(function, "again", function), *arrays, threads=self.threads, **options)

    def call(self, function: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Call a function that is not an op; ops that it calls are not recorded separately."""
        recording, self._calls = self._calls, None
        try:
            function(*arguments, **options)
        finally:
            self._calls = recording
        if recording is not None:
            recording.append(partial(function, *arguments, **options))

    def array(self, module: object, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return the same array each time, or its first rows; make a larger one if it has too few."""
        key = id(module), name
        whole = self._arrays.get(key)
        if whole is None or len(whole) < shape[0] or whole.shape[1:] != shape[1:] or whole.dtype != dtype:
            whole = self._arrays[key] = empty(shape, dtype)
        return whole[: shape[0]]

    def over(self, module: object, name: str, x: Array) -> Array:
        """Return x itself if it is this place's and not kept: the result then stays in the caches."""
        own = any(x.base is (array if array.base is None else array.base) for array in self._arrays.values())
        return x if own and id(x.base) not in self._kept else self.array(module, name, x.shape, x.dtype)

    def keep(self, *arrays: Array) -> None:
        """Keep the rest of the pass from overwriting these arrays."""
        self._kept.update(id(array.base) for array in arrays if array.base is not None)
