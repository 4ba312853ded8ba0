"""The base class of all layers: named parameters, a state_dict, training and evaluation mode."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, overload

import numpy as np

from fastmlp.arrays import as_floats, as_ids, check_shape, empty
from fastmlp.nn.place import AT_ONCE, Place
from fastmlp.ops.gradient import Gradient, dense

__all__ = ["LoadResult", "Module", "Parameters"]

Array = np.ndarray
Random = np.random.Generator | int | None
UNDRAWN: Any = object()  # instead of an rng: weights are not drawn but 0 until they are set, which saves time


class LoadResult(NamedTuple):
    """The keys that load_state_dict did not find, and those that it did not know.

    >>> Tanh().load_state_dict({"weight": np.zeros(3)}, strict=False)
    LoadResult(missing_keys=[], unexpected_keys=['weight'])
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


class Parameters(Sequence[Array]):
    """Parameters of modules: a sequence of plain NumPy arrays that knows where their gradients are.

    `+` joins two of them, and a slice is one again: an optimizer takes any of these, or groups of them.

    >>> layer = Linear(3, 2, rng=1)
    >>> [array.shape for array in layer.parameters()]
    [(2, 3), (2,)]
    """

    def __init__(self, owners: Sequence[tuple["Module", str]]) -> None:
        """owners  the module of each parameter, and the parameter's name in it"""
        self.owners = tuple(owners)

    def __len__(self) -> int:
        return len(self.owners)

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> "Parameters": ...
    def __getitem__(self, index: int | slice) -> "Array | Parameters":
        if isinstance(index, slice):
            return Parameters(self.owners[index])
        module, name = self.owners[index]
        array: Array = getattr(module, name)
        return array

    def __add__(self, other: "Parameters") -> "Parameters":
        return Parameters(self.owners + other.owners) if isinstance(other, Parameters) else NotImplemented

    def __repr__(self) -> str:
        return f"Parameters({[param.shape for param in self]})"


class Module:
    """The base class of all layers. A subclass calls super().__init__(), then assigns modules to attributes.

    A subclass defines `forward` and `backward`. It creates parameters of its own with register_parameter, and its
    backward pass stores the gradient of each in `grads`, by name.

    training  whether batch normalization and dropout behave as in training
    grads     gradients of its own parameters by name, of the last backward pass

    >>> class Twice(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first, self.second = Linear(4, 3), Linear(3, 2)
    ...     def forward(self, x):
    ...         return self.second(self.first(x))
    ...     def backward(self, grad):
    ...         return self.first.backward(self.second.backward(grad))
    >>> [name for name, _ in Twice().named_parameters()]
    ['first.weight', 'first.bias', 'second.weight', 'second.bias']
    """

    place: Place = AT_ONCE  # where its ops run

    def __init__(self) -> None:
        self.training = True
        self.grads: dict[str, Gradient] = {}
        self._parameters: list[str] = []
        self._buffers: list[str] = []
        self._saved: Any = None  # what the forward pass saves for the backward pass
        self._room: dict[str, Array] = {}  # arrays for gradients, reused by each backward pass

    def __call__(self, *inputs: Any, **named: Any) -> Array:
        """Run the forward pass. A loss, one of NumPy's numbers, is typed as an array of no axes: it has its methods."""
        output: Array = self.forward(*inputs, **named)
        return output

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the output; each module defines its own inputs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward pass")

    def backward(self, grad: Any) -> Any:
        """Store the gradients of the parameters in `grads` and return the gradient of the last input."""
        raise NotImplementedError(f"{type(self).__name__} has no backward pass")

    # ------------------------------------------------------------------------------------------- parameters and modules

    def register_parameter(self, name: str, array: Array | None) -> None:
        """Add a trained array as a new attribute; None: the module lacks this parameter."""
        self._check_new(name)
        object.__setattr__(self, name, array)
        self._parameters.append(name)

    def register_buffer(self, name: str, array: Array | None) -> None:
        """Add an array that belongs to the state but is not trained; None: the module lacks this buffer."""
        self._check_new(name)
        object.__setattr__(self, name, array)
        self._buffers.append(name)

    def _check_new(self, name: str) -> None:
        """Raise ValueError if the name is already taken, is empty or contains a dot."""
        if not name or "." in name or hasattr(self, name):
            raise ValueError(f"{type(self).__name__}: expected a new name without a dot, got {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        own = vars(self)
        if isinstance(value, Module) and "_parameters" not in own:
            raise AttributeError(f"{type(self).__name__}.{name}: call super().__init__() before a module is assigned")
        if name in own.get("_parameters", ()) and value is not own[name]:
            raise TypeError(
                f"{type(self).__name__}.{name} is a parameter: write to it in place, {name}[...] = array"
                " (sharing it between modules is not supported)"
            )
        object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes without the place and without all that only a backward pass needs."""
        own = {name: value for name, value in vars(self).items() if name != "place"}
        return {**own, "grads": {}, "_saved": None, "_room": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Return the modules among the attributes, with their names."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield this module and all modules below it, each with its path."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator["Module"]:
        """Return this module and all modules below it."""
        return (module for _, module in self.named_modules())

    def parameters(self) -> Parameters:
        """Return all parameters in the form that an optimizer takes: plain arrays, always the same ones."""
        return Parameters([(module, name) for _, module, name in self.named_owners()])

    def named_owners(self) -> Iterator[tuple[str, "Module", str]]:
        """Return for each parameter its key in the state_dict, its module, and its name in the module."""
        return self._named("_parameters")

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Return all parameters with their keys in the state_dict."""
        return ((key, getattr(module, name)) for key, module, name in self._named("_parameters"))

    def gradients(self) -> list[Array | None]:
        """Return the gradient of each parameter, in the order of parameters(); None if it has no gradient.

        The next backward pass overwrites the gradients: copy those that you keep.
        """
        return [
            None if (gradient := module.grads.get(name)) is None else dense(gradient, getattr(module, name))
            for _, module, name in self._named("_parameters")
        ]

    def zero_grad(self) -> None:
        """Drop all gradients; until the next backward pass an optimizer's step changes nothing."""
        for module in self.modules():
            module.grads.clear()

    def _named(self, kind: str) -> Iterator[tuple[str, "Module", str]]:
        """Yield key, module and name of each parameter or buffer; `kind` is the attribute that lists the names."""
        for path, module in self.named_modules():
            for name in getattr(module, kind):
                if getattr(module, name) is not None:
                    yield f"{path}.{name}" if path else name, module, name

    # -------------------------------------------------------------------------------------------------------- the mode

    def train(self, mode: bool = True) -> Self:
        """Set training mode, or evaluation mode if `mode` is False, here and in all modules below. Return self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode: running statistics, no dropout. Return self."""
        return self.train(False)

    def run_in(self, place: Place) -> Self:
        """Run this module and all modules below it in a place. Return self."""
        for module in self.modules():
            module.place = place
        return self

    # ------------------------------------------------------------------------------------------------------- the state

    def state_dict(self) -> dict[str, Array]:
        """Return parameters and buffers by PyTorch's keys, in PyTorch's layouts: the arrays themselves, not copies.

        `{key: torch.from_numpy(array) for key, array in model.state_dict().items()}` loads in PyTorch.
        """
        return {
            f"{path}.{name}" if path else name: getattr(module, name)
            for path, module in self.named_modules()
            for name in (*module._parameters, *module._buffers)
            if getattr(module, name) is not None
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy parameters and buffers from a state_dict of arrays or of PyTorch's tensors.

        strict  whether the keys must match exactly; if False, arrays whose key is missing keep their values
        Tensors of bfloat16 and float16 are converted. A BatchNorm1d's state from before PyTorch counted its batches, a
        version below 2 or none in `state_dict._metadata`, may lack num_batches_tracked, which then keeps its value.
        Return the missing and the unexpected keys, as PyTorch does. Raise ValueError or TypeError, and copy nothing, if
        a shape, a type or, with `strict`, a key does not match.
        """
        own = self.state_dict()
        missing, unexpected = (
            [key for key in own if key not in state_dict and not _may_be_missing(key, state_dict)],
            [key for key in state_dict if key not in own],
        )
        if strict and (missing or unexpected):
            raise ValueError(
                f"state_dict: missing keys: {', '.join(missing) or 'none'};"
                f" unexpected keys: {', '.join(unexpected) or 'none'}"
            )
        given = {}
        for key, array in own.items():
            if key in state_dict:
                name, value = f"state_dict: {key}", state_dict[key]
                given[key] = as_ids(name, value) if array.dtype.kind == "i" else as_floats(name, value, array.dtype)
                check_shape(name, given[key], array.shape)
        for key, array in given.items():
            own[key][...] = array
        return LoadResult(missing, unexpected)

    # ----------------------------------------------------------------------------------------------- for the subclasses

    def _gradient(self, name: str) -> Array:
        """Return the array for a parameter's gradient, the same one each time, and enter it in `grads`."""
        if name not in self._room:
            param = getattr(self, name)
            self._room[name] = empty(param.shape, param.dtype)
        self.place.call(self.grads.__setitem__, name, self._room[name])
        return self._room[name]

    def _kept(self) -> Any:
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}.backward: expected a forward pass before it")
        return self._saved

    def _upstream(self, grad: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        name = f"{type(self).__name__}.backward: grad"
        array = as_floats(name, grad, dtype)
        check_shape(name, array, shape)
        return array

    def _arguments(self) -> str:
        """Return what repr shows in parentheses."""
        return ""

    def __repr__(self) -> str:
        children = [f"  ({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        below = "\n".join(["", *children, ""]) if children else ""
        return f"{type(self).__name__}({self._arguments()}{below})"


def _may_be_missing(key: str, state_dict: Mapping[str, Any]) -> bool:
    """Return whether older versions of PyTorch's layers had no such key."""
    path, _, name = key.rpartition(".")
    version = (getattr(state_dict, "_metadata", None) or {}).get(path, {}).get("version")
    return name == "num_batches_tracked" and (version is None or version < 2)


def drawn(rng: Random, shape: tuple[int, ...], dtype: np.dtype[Any], distribution: str, *arguments: float) -> Array:
    """Return initial weights drawn from one of a Generator's distributions; 0 if rng is UNDRAWN."""
    if rng is UNDRAWN:
        return empty(shape, dtype, np.zeros)
    weights = empty(shape, dtype)
    weights[...] = getattr(np.random.default_rng(rng), distribution)(*arguments, shape)
    return weights


def type_of(value: Any) -> np.dtype[Any]:
    """Return float64 for a float64 array or tensor in any byte order, float32 for everything else."""
    dtype = getattr(value, "dtype", None)
    name = str(getattr(dtype, "name", dtype))  # float64, torch.float64
    return np.dtype(np.float64 if name.endswith("float64") else np.float32)


def refuse(module: str, **arguments: Any) -> None:
    """Raise NotImplementedError if one of these arguments of PyTorch is set."""
    for name, value in arguments.items():
        if value is not None and value is not False and value != ():
            raise NotImplementedError(f"{module}: {name} is not supported, got {value!r}")


def check_device(device: Any) -> None:
    if device is not None and str(device) != "cpu":
        raise NotImplementedError(f"device: expected cpu, got {device}")


def checked_size(name: str, size: int) -> int:
    if not isinstance(size, int | np.integer):
        raise TypeError(f"{name}: expected a whole number, got {size!r}")
    if size < 1:
        raise ValueError(f"{name}: expected at least 1, got {size}")
    return int(size)
