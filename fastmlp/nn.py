"""torch.nn's layers, with its names, arguments, defaults, layouts and state_dict keys, on arrays and fastmlp's kernels.

    model = Sequential(Embedding(27, 10), Flatten(), Linear(30, 9, bias=False), BatchNorm1d(9), Tanh(), Linear(9, 27))
    criterion, optimizer = CrossEntropyLoss(), SGD(model.parameters(), lr=0.1)  # SGD of fastmlp.optim
    loss = criterion(model(x), y)
    model.backward(criterion.backward())
    optimizer.step()

There is no tape. Each layer keeps what its last forward pass computed, and `backward` takes the gradient of its output,
writes those of its parameters, and returns that of its input; Sequential does so from the last layer to the first. What
differs from PyTorch follows from that:

  - `backward` replaces the gradients of the call before, it does not add to them: zero_grad() is not needed
  - an array that went through a layer must not be changed before that layer's backward pass
  - a module stands in a network once; weights cannot be shared by assignment
  - parameters are NumPy arrays, the same ones for good: read them, write to them in place (`layer.weight[...] = array`)

Parameters are float32 and run the best back-end that there is; with dtype=np.float64 they run the NumPy reference.
Inputs are converted to the parameters' type. FASTMLP_NUM_THREADS says how many threads work, else all cores do; no
result depends on it. Random numbers are NumPy's: `rng` is a seed or a Generator, which layers may share; without it
they differ from run to run. Their distributions are PyTorch's, the numbers of a seed are not.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, overload

import numpy as np

from fastmlp import _loss, functional
from fastmlp._arrays import as_array, as_floats, as_ids, check_shape, float_type
from fastmlp.backend import ops_of
from fastmlp.model import Gradient, RowGradient, dense
from fastmlp.threads import default_threads

__all__ = [
    "BatchNorm1d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "Linear",
    "LinearCrossEntropyLoss",
    "LoadResult",
    "Module",
    "Parameters",
    "ReLU",
    "Sequential",
    "Tanh",
]

Array = np.ndarray
Random = np.random.Generator | int | None
IGNORED = -100  # PyTorch's target of a row that does not count


class LoadResult(NamedTuple):
    """What load_state_dict did not find, and what it could not use.

    >>> Tanh().load_state_dict({"weight": np.zeros(3)}, strict=False)
    LoadResult(missing_keys=[], unexpected_keys=['weight'])
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


class Parameters(Sequence[Array]):
    """Parameters of modules: a sequence of plain NumPy arrays that knows where their gradients are.

    Two are joined with `+`, a slice is one too, so that an optimizer takes any of them or groups of them.

    >>> layer = Linear(3, 2, rng=1)
    >>> [array.shape for array in layer.parameters()]
    [(2, 3), (2,)]
    """

    def __init__(self, owners: Sequence[tuple["Module", str]]) -> None:
        """owners  for each parameter its module and its name there"""
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
    """What all layers share, and the base of your own: call super().__init__(), then assign modules to attributes.

    A module of your own has `forward` and `backward`. Its own parameters are made with register_parameter; its backward
    pass leaves the gradient of each in `grads`, by name.

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

    def __init__(self) -> None:
        self.training = True
        self.grads: dict[str, Gradient] = {}
        self._parameters: list[str] = []
        self._buffers: list[str] = []
        self._saved: Any = None  # by the forward pass for the backward pass
        self._room: dict[str, Array] = {}  # arrays for gradients, used again

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The forward pass."""
        return self.forward(*inputs, **named)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The output for an input; each module says which."""
        raise NotImplementedError(f"{type(self).__name__} has no forward pass")

    def backward(self, grad: Any) -> Any:
        """The gradient of the last forward pass's input, from that of its output; `grads` are written."""
        raise NotImplementedError(f"{type(self).__name__} has no backward pass")

    # ------------------------------------------------------------------------------------------- parameters and modules

    def register_parameter(self, name: str, array: Array | None) -> None:
        """Give the module a trained array under the name of a new attribute; None where there is none."""
        self._check_new(name)
        object.__setattr__(self, name, array)
        self._parameters.append(name)

    def register_buffer(self, name: str, array: Array | None) -> None:
        """Give the module an array that belongs to its state and is not trained; None where there is none."""
        self._check_new(name)
        object.__setattr__(self, name, array)
        self._buffers.append(name)

    def _check_new(self, name: str) -> None:
        """Raise ValueError for the name of what the module has already, and for one that is no key's part."""
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
        """Everything but what a backward pass would need."""
        return {**vars(self), "grads": {}, "_saved": None, "_room": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """The modules among its attributes."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """It and all modules below it, each by its path."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator["Module"]:
        """It and all modules below it."""
        return (module for _, module in self.named_modules())

    def parameters(self) -> Parameters:
        """All parameters, as an optimizer takes them: plain arrays, the same ones for good."""
        return Parameters([(module, name) for _, module, name in self._named("_parameters")])

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """All parameters with their keys in the state_dict."""
        return ((key, getattr(module, name)) for key, module, name in self._named("_parameters"))

    def gradients(self) -> list[Array | None]:
        """The gradient of each parameter, in the order of parameters(); None where no backward pass has left one.

        The next backward pass overwrites them: copy what is to be kept.
        """
        return [
            None if (gradient := module.grads.get(name)) is None else dense(gradient, getattr(module, name))
            for _, module, name in self._named("_parameters")
        ]

    def zero_grad(self) -> None:
        """Forget all gradients, so that an optimizer's step changes nothing before the next backward pass."""
        for module in self.modules():
            module.grads.clear()

    def _named(self, kind: str) -> Iterator[tuple[str, "Module", str]]:
        """Its arrays of a kind: key, module and name."""
        for path, module in self.named_modules():
            for name in getattr(module, kind):
                if getattr(module, name) is not None:
                    yield f"{path}.{name}" if path else name, module, name

    # -------------------------------------------------------------------------------------------------------- the mode

    def train(self, mode: bool = True) -> Self:
        """Behave as in training, or not, all modules below it too. Returns itself."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Behave as after training: running statistics, no dropout. Returns itself."""
        return self.train(False)

    # ------------------------------------------------------------------------------------------------------- the state

    def state_dict(self) -> dict[str, Array]:
        """Parameters and buffers by PyTorch's keys, in PyTorch's layouts; the arrays themselves, not copies.

        `{key: torch.from_numpy(array) for key, array in model.state_dict().items()}` loads in PyTorch.
        """
        return {
            f"{path}.{name}" if path else name: getattr(module, name)
            for path, module in self.named_modules()
            for name in (*module._parameters, *module._buffers)
            if getattr(module, name) is not None
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy parameters and buffers from a state_dict, of arrays or of PyTorch's tensors.

        strict  whether all keys must be there and no other; else those that are missing keep their values
        Returns the keys that were missing and those that were not known, as PyTorch does. Nothing is copied when a
        shape, a type or, if strict, a key does not fit: ValueError or TypeError.
        """
        own = self.state_dict()
        missing, unexpected = (
            [key for key in own if key not in state_dict],
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
        """Where the gradient of a parameter is written: the same array each time."""
        if name not in self._room:
            self._room[name] = np.empty_like(getattr(self, name))
        self.grads[name] = self._room[name]
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
        """What its repr shows."""
        return ""

    def __repr__(self) -> str:
        children = [f"  ({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        below = "\n".join(["", *children, ""]) if children else ""
        return f"{type(self).__name__}({self._arguments()}{below})"


class Sequential(Module):
    """Modules one after the other; `backward` goes through them from the last to the first.

    modules  in their order, or one OrderedDict of them by name
    Raises ValueError where a module stands in it twice: it keeps one forward pass only.

    >>> model = Sequential(Linear(3, 4, rng=1), Tanh(), Linear(4, 2, rng=2))
    >>> model(np.ones((5, 3))).shape
    (5, 2)
    >>> model.backward(np.ones((5, 2))).shape
    (5, 3)
    >>> list(model.state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *modules: "Module | OrderedDict[str, Module]") -> None:
        super().__init__()
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else dict(enumerate(modules))
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: module {name}: expected a Module, got {type(module).__name__}")
            if any(below is other for below in module.modules() for other in self.modules()):
                raise ValueError(f"Sequential: module {name} stands in it before; each may stand in it once")
            self._check_new(str(name))
            setattr(self, str(name), module)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...
    def __getitem__(self, index: int | slice) -> "Module | Sequential":
        if isinstance(index, slice):
            return Sequential(OrderedDict(list(self.named_children())[index]))
        return list(self)[index]

    def forward(self, input: Any) -> Any:
        """The last module's output."""
        for module in self:
            input = module(input)
        return input

    def backward(self, grad: Any) -> Any:
        """The gradient of the first module's input."""
        for module in reversed(list(self)):
            grad = module.backward(grad)
        return grad


class Linear(Module):
    """y = x W^T + b.

    in_features, out_features  I and O
    bias     whether there is a b
    weight   (O, I)  at the start U(-1/sqrt(I), 1/sqrt(I))
    bias     (O,)    likewise, or None
    rng      seed or Generator of the start

    >>> layer = Linear(3, 2)
    >>> layer.weight[...], layer.bias[...] = [[1, 2, 3], [0, 1, 0]], [10, 20]
    >>> layer([[1.0, 1.0, 1.0]]).tolist()
    [[16.0, 21.0]]
    """

    weight: Array
    bias: Array | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        rng: Random = None,
    ) -> None:
        super().__init__()
        _check_device(device)
        self.in_features, self.out_features = _size("in_features", in_features), _size("out_features", out_features)
        self.dtype, generator, bound = float_type(dtype), np.random.default_rng(rng), 1 / math.sqrt(in_features)
        for name, shape in (("weight", (out_features, in_features)), ("bias", (out_features,))):
            absent = name == "bias" and not bias
            uniform = None if absent else generator.uniform(-bound, bound, shape).astype(self.dtype)
            self.register_parameter(name, uniform)

    def forward(self, input: Any) -> Array:
        """input (..., I) -> (..., O). Raises ValueError for another last axis, TypeError for what are no numbers."""
        x = as_floats("Linear: input", input, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"Linear: input: expected shape (..., {self.in_features}), got {x.shape}")
        rows = x.reshape(-1, self.in_features)
        y = np.empty((len(rows), self.out_features), self.dtype)
        ops_of(self.dtype).linear_forward(rows, self.weight, self.bias, y, threads=default_threads())
        self._saved = x
        return y.reshape(*x.shape[:-1], self.out_features)

    def backward(self, grad: Any) -> Array:
        """grad (..., O) -> gradient of the input (..., I)."""
        x = self._kept()
        dy = self._upstream(grad, self.dtype, (*x.shape[:-1], self.out_features)).reshape(-1, self.out_features)
        dx = np.empty((len(dy), self.in_features), self.dtype)
        dbias = None if self.bias is None else self._gradient("bias")
        ops_of(self.dtype).linear_backward(
            dy,
            x.reshape(dx.shape),
            self.weight,
            dx,
            self._gradient("weight"),
            dbias,
            threads=default_threads(),
        )
        return dx.reshape(x.shape)

    def _arguments(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A row of numbers for each id.

    num_embeddings, embedding_dim  V and D
    padding_idx  an id whose row is 0 at the start and gets no gradient; below 0 it counts from the end
    max_norm, norm_type, scale_grad_by_freq, sparse  NotImplementedError for anything but PyTorch's defaults
    weight       (V, D)  at the start N(0, 1)
    rng          seed or Generator of the start

    >>> layer = Embedding(27, 2, rng=1)
    >>> layer([[0, 1, 2]]).shape
    (1, 3, 2)
    """

    weight: Array

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        rng: Random = None,
    ) -> None:
        super().__init__()
        _check_device(device)
        _refuse("Embedding", max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
        _refuse("Embedding", norm_type=norm_type != 2.0 and norm_type)
        self.num_embeddings = _size("num_embeddings", num_embeddings)
        self.embedding_dim = _size("embedding_dim", embedding_dim)
        if padding_idx is not None and not isinstance(padding_idx, int | np.integer):
            raise TypeError(f"padding_idx: expected an id, got {padding_idx!r}")
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx: expected an id below {num_embeddings}, got {padding_idx}")
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.dtype = float_type(dtype)
        weight = np.random.default_rng(rng).standard_normal((num_embeddings, embedding_dim)).astype(self.dtype)
        if padding_idx is not None:
            weight[padding_idx] = 0
        self.register_parameter("weight", weight)

    def forward(self, input: Any) -> Array:
        """input (...) ids in [0, V) -> (..., D). Raises IndexError for other ids, TypeError for other than integers."""
        ids = as_ids("Embedding: input", input)
        emb = np.empty((ids.size, 1, self.embedding_dim), self.dtype)
        try:
            ops_of(self.dtype).embedding_forward(self.weight, ids.reshape(-1, 1), emb, threads=default_threads())
        except IndexError:
            got = low if (low := int(ids.min())) < 0 else int(ids.max())
            raise IndexError(f"Embedding: input: expected ids in [0, {self.num_embeddings}), got {got}") from None
        self._saved = ids
        return emb.reshape(*ids.shape, self.embedding_dim)

    def backward(self, grad: Any) -> None:
        """grad (..., D); ids have no gradient."""
        ids = self._kept()
        demb = self._upstream(grad, self.dtype, (*ids.shape, self.embedding_dim))
        rows, drows = np.empty(ids.size, ids.dtype), np.empty((ids.size, self.embedding_dim), self.dtype)
        unique = ops_of(self.dtype).embedding_backward(
            ids.reshape(-1, 1), demb.reshape(-1, 1, self.embedding_dim), rows, drows, threads=default_threads()
        )
        rows, drows = rows[:unique], drows[:unique]
        if self.padding_idx is not None:
            counted = rows != self.padding_idx
            rows, drows = rows[counted], drows[counted]
        self.grads["weight"] = RowGradient(rows, drows)

    def _arguments(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class Flatten(Module):
    """Several axes as one, from start_dim to end_dim.

    >>> Flatten()(np.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Array:
        """Raises IndexError where an axis is not there, ValueError where they are in the wrong order."""
        x = np.asarray(input)
        first, last = (self._axis(name, getattr(self, name), x.ndim) for name in ("start_dim", "end_dim"))
        if first > last:
            raise ValueError(f"Flatten: expected start_dim not behind end_dim, got {first} and {last}")
        self._saved = x.shape
        return x.reshape(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])

    def backward(self, grad: Any) -> Array:
        """The gradient in the input's shape."""
        shape = self._kept()
        dy = np.asarray(grad)
        if dy.size != math.prod(shape):
            raise ValueError(f"Flatten.backward: grad: expected {math.prod(shape)} numbers, got shape {dy.shape}")
        return dy.reshape(shape)

    @staticmethod
    def _axis(name: str, axis: int, dimensions: int) -> int:
        dimensions = max(dimensions, 1)
        if not -dimensions <= axis < dimensions:
            raise IndexError(f"Flatten: {name}: expected an axis in [{-dimensions}, {dimensions - 1}], got {axis}")
        return axis % dimensions

    def _arguments(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class BatchNorm1d(Module):
    """Each channel normalized over the batch, then scaled and shifted; after training, by running statistics.

    num_features  C
    eps           added to the variance
    momentum      by how much the running statistics move towards a batch's; None: they are the mean over all batches
    affine        whether there are weight and bias; `bias` False leaves out the bias alone
    track_running_stats  else the batch's own statistics are used after training too
    weight, bias  (C,)  1 and 0 at the start
    running_mean, running_var  (C,)  0 and 1 at the start; num_batches_tracked ()
    Channels are the second axis, as in PyTorch. Those of makemore part 5 are the last of three: there swap the axes
    before and after, or reshape to (B * L, C).
    Source: Ioffe and Szegedy (2015), with PyTorch's running estimates.

    >>> layer = BatchNorm1d(1)
    >>> layer([[1.0], [3.0]]).round(3).tolist()
    [[-1.0], [1.0]]
    >>> print(layer.running_mean)
    [0.2]
    """

    weight: Array | None
    bias: Array | None
    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: Array | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_device(device)
        self.num_features, self.eps, self.momentum = _size("num_features", num_features), eps, momentum
        self.affine, self.track_running_stats, self.dtype = affine, track_running_stats, float_type(dtype)
        self.register_parameter("weight", np.ones(num_features, self.dtype) if affine else None)
        self.register_parameter("bias", np.zeros(num_features, self.dtype) if affine and bias else None)
        self.register_buffer("running_mean", np.zeros(num_features, self.dtype) if track_running_stats else None)
        self.register_buffer("running_var", np.ones(num_features, self.dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track_running_stats else None)

    def forward(self, input: Any) -> Array:
        """input (B, C), or (B, C, L) as PyTorch has it, -> the same shape.

        Raises ValueError for another shape, and for statistics of one value. No values: nothing happens.
        """
        x = as_floats("BatchNorm1d: input", input, self.dtype)
        if x.ndim not in (2, 3) or x.shape[1] != self.num_features:
            c = self.num_features
            raise ValueError(f"BatchNorm1d: input: expected shape (B, {c}) or (B, {c}, L), got {x.shape}")
        rows, of_batch = self._rows(x), x.size > 0 and (self.training or not self.track_running_stats)
        if of_batch and len(rows) == 1:
            raise ValueError(
                f"BatchNorm1d: input: expected more than one value a channel to train on, got shape {x.shape};"
                " eval() goes by the running statistics"
            )
        mean, inv_std, y = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype), np.empty_like(rows)
        ops_of(self.dtype).batchnorm_forward(
            rows,
            self._scale(),
            np.zeros(x.shape[1], x.dtype) if self.bias is None else self.bias,
            np.zeros(x.shape[1], x.dtype) if self.running_mean is None else self.running_mean,
            np.ones(x.shape[1], x.dtype) if self.running_var is None else self.running_var,
            mean,
            inv_std,
            y,
            training=of_batch,
            momentum=self._momentum(),
            eps=self.eps,
            threads=default_threads(),
        )
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked[...] += 1
        self._saved = rows, mean, inv_std, of_batch, x.shape
        return self._back(y, x.shape)

    def backward(self, grad: Any) -> Array:
        """grad of the output's shape -> gradient of the input."""
        rows, mean, inv_std, of_batch, shape = self._kept()
        dy = self._rows(self._upstream(grad, self.dtype, shape))
        dx = np.empty_like(rows)
        dweight, dbias = (
            np.empty_like(mean) if getattr(self, name) is None else self._gradient(name) for name in ("weight", "bias")
        )
        ops_of(self.dtype).batchnorm_backward(
            dy,
            rows,
            self._scale(),
            mean,
            inv_std,
            dx,
            dweight,
            dbias,
            training=of_batch,
            threads=default_threads(),
        )
        return self._back(dx, shape)

    def _momentum(self) -> float:
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.num_batches_tracked is None else 1 / (int(self.num_batches_tracked) + 1)

    def _scale(self) -> Array:
        return np.ones(self.num_features, self.dtype) if self.weight is None else self.weight

    @staticmethod
    def _rows(x: Array) -> Array:
        """(B, C, L) as rows (B*L, C)."""
        return x if x.ndim == 2 else np.ascontiguousarray(np.moveaxis(x, 1, 2)).reshape(-1, x.shape[1])

    @staticmethod
    def _back(rows: Array, shape: tuple[int, ...]) -> Array:
        if len(shape) == 2:
            return rows
        return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[0], shape[2], shape[1]), 2, 1))

    def _arguments(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"


class Tanh(Module):
    """tanh of each number.

    >>> Tanh()([0.0, 100.0]).tolist()
    [0.0, 1.0]
    """

    def forward(self, input: Any) -> Array:
        """Any shape; float64 stays float64, all else becomes float32."""
        x = as_floats("Tanh: input", input, _type_of(input))
        y = np.empty_like(x)
        ops_of(x.dtype).tanh_forward(x, y, threads=default_threads())
        self._saved = y
        return y

    def backward(self, grad: Any) -> Array:
        """grad of the output's shape -> gradient of the input: grad * (1 - output^2)."""
        y: Array = self._kept()
        dx = np.empty_like(y)
        ops_of(y.dtype).tanh_backward(self._upstream(grad, y.dtype, y.shape), y, dx, threads=default_threads())
        return dx


class ReLU(Module):
    """max(x, 0) of each number.

    >>> ReLU()([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        _refuse("ReLU", inplace=inplace)

    def forward(self, input: Any) -> Array:
        """Any shape; float64 stays float64, all else becomes float32."""
        x = as_floats("ReLU: input", input, _type_of(input))
        y: Array = np.maximum(x, x.dtype.type(0))
        self._saved = y
        return y

    def backward(self, grad: Any) -> Array:
        """grad of the output's shape -> gradient of the input: grad but where the output is 0."""
        y = self._kept()
        dx: Array = np.where(y == 0, y.dtype.type(0), self._upstream(grad, y.dtype, y.shape))
        return dx


class Dropout(Module):
    """In training, each number is 0 with probability p and else divided by 1 - p; after training, nothing happens.

    p    probability of 0
    rng  seed or Generator of what is dropped
    Source: Srivastava et al. (2014), scaled in training as PyTorch does.

    >>> Dropout(0.5, rng=1)(np.ones(6)).tolist()
    [2.0, 2.0, 0.0, 2.0, 0.0, 0.0]
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: Random = None) -> None:
        super().__init__()
        _refuse("Dropout", inplace=inplace)
        if not isinstance(p, int | float | np.number) or not 0 <= p <= 1:
            raise ValueError(f"p: expected a probability from 0 to 1, got {p!r}")
        self.p, self.rng = p, np.random.default_rng(rng)

    def forward(self, input: Any) -> Array:
        """Any shape; float64 stays float64, all else becomes float32."""
        x = as_floats("Dropout: input", input, _type_of(input))
        scale = np.ones((), x.dtype)
        if self.training and self.p:
            scale = (self.rng.random(x.shape) >= self.p) * x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        self._saved = scale, x.dtype, x.shape
        y: Array = x * scale
        return y

    def backward(self, grad: Any) -> Array:
        """grad of the output's shape -> gradient of the input."""
        scale, dtype, shape = self._kept()
        dx: Array = self._upstream(grad, dtype, shape) * scale
        return dx

    def _arguments(self) -> str:
        return f"p={self.p}"


class CrossEntropyLoss(Module):
    """How surprised a model is by the truth, in nats, from its logits: fastmlp.functional.cross_entropy as a module.

    weight           (C,)  how much each class counts; a buffer
    ignore_index     targets of this class do not count
    reduction        "mean", divided by the weights of the targets that count; "sum"; or "none"
    label_smoothing  share of each target that is spread over all classes
    size_average, reduce  NotImplementedError: say `reduction`

    >>> criterion = CrossEntropyLoss()
    >>> print(criterion(np.zeros((1, 4)), [2]).round(4))  # ln 4
    1.3863
    >>> criterion.backward().tolist()
    [[0.25, 0.25, -0.75, 0.25]]
    """

    weight: Array | None

    def __init__(
        self,
        weight: Any = None,
        size_average: Any = None,
        ignore_index: int = IGNORED,
        reduce: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _refuse("CrossEntropyLoss", size_average=size_average, reduce=reduce)
        _loss.check_options(reduction, ignore_index, label_smoothing)
        self.register_buffer("weight", None if weight is None else as_floats("weight", weight, _type_of(weight)).copy())
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing

    def forward(self, input: Any, target: Any) -> Any:
        """The loss: a number, or for "none" of the target's shape.

        input   (C,), (N, C) or (N, C, d1, ...)  logits; float64 stays float64, all else becomes float32
        target  (), (N,) or (N, d1, ...)         classes, or probabilities of the input's shape
        The mean over nothing is NaN. Raises IndexError for a class that is not there, ValueError for shapes.
        """
        name, x = "CrossEntropyLoss: target", as_floats("CrossEntropyLoss: input", input, _type_of(input))
        truth = as_array(name, target)
        truth = as_floats(name, truth, x.dtype) if truth.dtype.kind == "f" else as_ids(name, truth)
        weight = None if self.weight is None else as_floats("CrossEntropyLoss: weight", self.weight, x.dtype)
        loss = functional.cross_entropy(x, truth, weight, **self._options())
        self._saved = x, truth, weight, loss
        return loss[()]

    def backward(self, grad: Any = None) -> Array:
        """The gradient of the input.

        grad  of the loss: a number, 1 if None; for "none" an array of the target's shape
        """
        x, truth, weight, loss = self._kept()
        upstream = _loss_gradient(self, grad, x.dtype, loss.shape)
        return functional.cross_entropy_backward(upstream, x, truth, weight, **self._options())

    def _options(self) -> dict[str, Any]:
        names = ("ignore_index", "reduction", "label_smoothing")
        return {name: getattr(self, name) for name in names}


class LinearCrossEntropyLoss(Module):
    """The last layer and its loss in one: CrossEntropyLoss of Linear, whose logits are never kept.

    in_features, num_classes  H and V
    out_features   of K-dimensional losses: NotImplementedError for any
    bias           whether the layer has one
    reduction, weight, ignore_index, label_smoothing  as in CrossEntropyLoss
    options        how PyTorch cuts its work: NotImplementedError for any
    linear         the layer, its parameters linear.weight (V, H) and linear.bias (V,) at the start as in Linear
    fp32_precision "auto" keeps float32's accuracy; "ieee", "bf16x3" or "bf16" where the machine has it
    rng            seed or Generator of the start
    In training the forward pass finds the gradients too, in one sweep: those of the pass before are gone by then.

    >>> criterion = LinearCrossEntropyLoss(3, 4, rng=1)
    >>> criterion.linear.weight[...] = 0
    >>> print(criterion(np.ones((2, 3)), [0, 1]).round(4))  # ln 4
    1.3863
    >>> criterion.backward().shape
    (2, 3)
    """

    weight: Array | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
        fp32_precision: str = "auto",
        rng: Random = None,
    ) -> None:
        super().__init__()
        _refuse("LinearCrossEntropyLoss", out_features=out_features, options=options)
        self.in_features, self.num_classes, self.fp32_precision = in_features, num_classes, fp32_precision
        self.ignore_index = IGNORED if ignore_index is None else ignore_index
        _loss.check_options(reduction, self.ignore_index, label_smoothing)
        self.reduction, self.label_smoothing = reduction, label_smoothing
        self.linear = Linear(in_features, num_classes, bias, device, dtype, rng=rng)
        class_weight = None if weight is None else as_floats("weight", weight, self.linear.dtype).copy()
        if class_weight is not None:
            check_shape("weight", class_weight, (num_classes,))
        self.register_buffer("weight", class_weight)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss: a number, or for "none" of the target's shape.

        input   (H,) or (N, H)
        target  () or (N,)  classes; probabilities raise NotImplementedError
        """
        layer = self.linear
        x = as_floats("LinearCrossEntropyLoss: input", input, layer.dtype)
        targets = _classes("LinearCrossEntropyLoss", target)
        if x.ndim not in (1, 2) or x.shape[-1] != self.in_features or targets.shape != x.shape[:-1]:
            raise ValueError(
                f"LinearCrossEntropyLoss: expected input (N, {self.in_features}) and target (N,),"
                f" got {x.shape} and {targets.shape}"
            )
        self._saved = None  # the last gradients make room for these
        layer.grads.clear()
        loss, gradients = self._run(x, targets, grads=self.training and self.reduction != "none")
        self._saved = x, targets, gradients
        return np.asarray(loss).reshape(targets.shape if self.reduction == "none" else ())[()]

    def backward(self, grad: Any = None) -> Array:
        """The gradient of the input; those of the layer are left in it.

        grad  of the loss: a number, 1 if None; for "none" an array of the target's shape
        """
        x, targets, gradients = self._kept()
        upstream = _loss_gradient(self, grad, x.dtype, targets.shape)
        if gradients is None or (upstream != 1).any():
            each = upstream.reshape(-1) if self.reduction == "none" else upstream
            _, gradients = self._run(x, targets, grads=True, upstream=each)
        dinput, dweight, dbias = gradients
        self.linear.grads.update({"weight": dweight} if dbias is None else {"weight": dweight, "bias": dbias})
        self._saved = x, targets, gradients if upstream.ndim == 0 and upstream == 1 else None
        dx: Array = dinput.reshape(x.shape)
        return dx

    def _run(self, x: Array, targets: Array, *, grads: bool, upstream: Array | None = None) -> Any:
        return _loss.linear_cross_entropy(
            x.reshape(-1, self.in_features),
            self.linear.weight,
            targets.reshape(-1),
            self.linear.bias,
            self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            grads=grads,
            upstream=upstream,
            ops=ops_of(self.linear.dtype),
            threads=default_threads(),
            fp32_precision=self.fp32_precision,
        )

    def _arguments(self) -> str:
        return f"in_features={self.in_features}, num_classes={self.num_classes}, bias={self.linear.bias is not None}"


# ------------------------------------------------------------------------------------------------- what several share


def _type_of(value: Any) -> np.dtype[Any]:
    """float64 for an array or a tensor of it in any byte order, float32 for all else."""
    dtype = getattr(value, "dtype", None)
    name = str(getattr(dtype, "name", dtype))  # float64, torch.float64
    return np.dtype(np.float64 if name.endswith("float64") else np.float32)


def _refuse(module: str, **arguments: Any) -> None:
    """NotImplementedError for an argument of PyTorch's that asks for something."""
    for name, value in arguments.items():
        if value is not None and value is not False and value != ():
            raise NotImplementedError(f"{module}: {name} is not supported, got {value!r}")


def _check_device(device: Any) -> None:
    if device is not None and str(device) != "cpu":
        raise NotImplementedError(f"device: expected cpu, got {device}")


def _size(name: str, size: int) -> int:
    if not isinstance(size, int | np.integer):
        raise TypeError(f"{name}: expected a whole number, got {size!r}")
    if size < 1:
        raise ValueError(f"{name}: expected at least 1, got {size}")
    return size


def _classes(module: str, target: Any) -> Array:
    classes = as_array(f"{module}: target", target)
    if classes.dtype.kind == "f":
        raise NotImplementedError(f"{module}: target: class probabilities are not supported; expected class indices")
    return as_ids(f"{module}: target", classes)


def _loss_gradient(module: Any, grad: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """The gradient from above, of the loss's shape."""
    name = type(module).__name__
    if module.reduction != "none":
        shape = ()
    elif grad is None and shape:
        raise ValueError(f'{name}.backward: grad: expected shape {shape} with reduction="none", got None')
    upstream = as_floats(f"{name}.backward: grad", 1.0 if grad is None else grad, dtype)
    check_shape(f"{name}.backward: grad", upstream, shape)
    return upstream
