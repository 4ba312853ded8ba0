"""The losses."""

import math
from typing import Any, Never, cast

import numpy as np

from fastmlp import functional
from fastmlp.arrays import as_array, as_floats, as_ids, check_shape
from fastmlp.distributed.group import Group
from fastmlp.distributed.part import Part
from fastmlp.functional import _loss
from fastmlp.functional._linear_loss import is_fused, linear_cross_entropy
from fastmlp.functional.linear_cross_entropy import checked_inputs
from fastmlp.nn.head import Head
from fastmlp.nn.module import Module, Random, checked_size, refuse, type_of
from fastmlp.ops.gradient import FusingOptimizer
from fastmlp.threads import default_threads

__all__ = ["CrossEntropyLoss", "LinearCrossEntropyLoss"]

Array = np.ndarray
IGNORED = -100  # PyTorch's default ignore_index


def _missing(loss: np.generic, name: str) -> Never:
    """Say what to write instead of PyTorch's loss.backward()."""
    if name == "backward":
        raise AttributeError(
            "a loss of fastmlp.nn is a number: instead of loss.backward() write model.backward(criterion.backward())"
        )
    raise AttributeError(f"{loss.dtype} has no attribute {name!r}")


# NumPy's numbers, and NumPy's again after any arithmetic and in a pickle. NumPy takes the type of its numbers from the
# first base: a second one in front of it would make objects of them.
class _Float32(np.float32):
    __slots__ = ()
    __getattr__ = _missing


class _Float64(np.float64):
    __slots__ = ()
    __getattr__ = _missing


def _number(loss: Array) -> Array:
    """Return a loss without axes as a number, one with axes as it is."""
    if loss.ndim:
        return loss
    return cast(Array, (_Float64 if loss.dtype == np.float64 else _Float32)(loss[()]))


class CrossEntropyLoss(Module):
    """The cross entropy of logits and targets in nats: fastmlp.functional.cross_entropy as a module.

    weight           (C,)  weight of each class; a buffer
    ignore_index     targets of this class are ignored
    reduction        "mean" (the sum divided by the weights of all targets not ignored), "sum" or "none"
    label_smoothing  share of each target that is spread over all classes
    size_average, reduce  raise NotImplementedError; use `reduction`

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
        refuse("CrossEntropyLoss", size_average=size_average, reduce=reduce)
        _loss.check_options(reduction, ignore_index, label_smoothing)
        self.register_buffer("weight", None if weight is None else as_floats("weight", weight, type_of(weight)).copy())
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing

    def forward(self, input: Any, target: Any) -> Array:
        """Return the loss: a number, or with reduction "none" one loss per target.

        input   (C,), (N, C) or (N, C, d1, ...)  logits; float64 stays float64, every other type becomes float32
        target  (), (N,) or (N, d1, ...)         classes, or probabilities of the input's shape
        The mean over no target is NaN. Raise IndexError for an unknown class, ValueError for shapes that do not match.
        """
        name, x = "CrossEntropyLoss: target", as_floats("CrossEntropyLoss: input", input, type_of(input))
        truth = as_array(name, target)
        truth = as_floats(name, truth, x.dtype) if truth.dtype.kind == "f" else as_ids(name, truth)
        weight = None if self.weight is None else as_floats("CrossEntropyLoss: weight", self.weight, x.dtype)
        loss = functional.cross_entropy(x, truth, weight, **self._options())
        self._saved = x, truth, weight, loss
        return _number(loss)

    def backward(self, grad: Any = None) -> Array:
        """Return the gradient of the input.

        grad  gradient of the loss: a number, None means 1; with reduction "none" an array of the loss's shape
        """
        x, truth, weight, loss = self._kept()
        upstream = _loss_gradient(self, grad, x.dtype, loss.shape)
        return functional.cross_entropy_backward(upstream, x, truth, weight, **self._options())

    def _options(self) -> dict[str, Any]:
        names = ("ignore_index", "reduction", "label_smoothing")
        return {name: getattr(self, name) for name in names}


class LinearCrossEntropyLoss(Module):
    """The last layer and its loss in one: CrossEntropyLoss of Linear, without storing the logits.

    in_features, num_classes  H and V
    out_features   (d1, ...) for losses at d1 * ... places of each row: the layer then has V * d1 * ... rows
    bias           whether the layer has a bias
    reduction, weight, ignore_index, label_smoothing  as in CrossEntropyLoss
    options        how PyTorch splits the work; any value raises NotImplementedError
    linear         the layer; its parameters linear.weight (V * d1 * ..., H) and linear.bias start as in Linear
    fp32_precision "ieee" or "auto": products in float32; "bf16x3" and "bf16" if the CPU supports them
    rng            seed or Generator of the initial values
    group          of ranks (fastmlp.distributed) that share the classes out: each has every size-th row of the weight,
                   from its rank on, and calls the same methods with the same inputs. Targets are of all classes; the
                   loss and the input's gradient are those of the whole layer, on every rank. Not with class weights,
                   label_smoothing, out_features or probabilities
    Probabilities as targets, and out_features, store the logits. In training mode the forward pass also computes the
    gradients, in one sweep, and first drops the previous ones.

    >>> criterion = LinearCrossEntropyLoss(3, 4, rng=1)
    >>> criterion.linear.weight[...] = 0
    >>> print(criterion(np.ones((2, 3)), [0, 1]).round(4))  # ln 4
    1.3863
    >>> criterion.backward().shape
    (2, 3)
    """

    weight: Array | None
    out_features: tuple[int, ...] = ()  # older pickles have none

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
        group: Group | None = None,
    ) -> None:
        super().__init__()
        refuse("LinearCrossEntropyLoss", options=options)
        if group is not None:
            with_group = {
                "weight": weight is not None,
                "label_smoothing": label_smoothing or None,
                "out_features": out_features,
            }
            refuse("LinearCrossEntropyLoss with a group", **with_group)
        self.in_features, self.num_classes, self.fp32_precision = in_features, num_classes, fp32_precision
        self.ignore_index = ignore_index
        _loss.check_options(reduction, IGNORED if ignore_index is None else ignore_index, label_smoothing)
        self.reduction, self.label_smoothing = reduction, label_smoothing
        self.out_features = tuple(checked_size("out_features", size) for size in out_features)
        rows = math.prod(self.out_features, start=checked_size("num_classes", num_classes))
        part = None if group is None else Part(group, rows)
        self.linear = Head(in_features, rows, bias, device, dtype, fp32_precision=fp32_precision, rng=rng, part=part)
        class_weight = None if weight is None else as_floats("weight", weight, self.linear.dtype).copy()
        if class_weight is not None:
            check_shape("weight", class_weight, (num_classes,))
        self.register_buffer("weight", class_weight)

    def forward(self, input: Any, target: Any) -> Array:
        """Return the loss: a number, or with reduction "none" an array of the shape of a target of classes.

        input   (H,) or (N, H)
        target  () or (N, d1, ...)  classes; or (V,) or (N, V, d1, ...)  probabilities
        """
        x, targets = self._checked(input, target)
        run = self._run if self.linear.part is None else self._run_part
        loss, gradients = run(x, targets, grads=self.training and self.reduction != "none")
        self._saved = x, targets, gradients
        return _number(loss)

    def step(self, input: Any, target: Any, optimizer: FusingOptimizer) -> Array:
        """Return the loss and update the layer's weight on the way: the weight's gradient is never stored.

        input, target  as in `forward`
        optimizer      of fastmlp.optim, with the layer's parameters; its own `step` then updates the bias
        `backward()` returns the input's gradient from before the update. If a loss is infinite or NaN, nothing is
        updated and the gradients are NaN. Raise NotImplementedError for reduction "none", class weights, out_features
        and probabilities.
        """
        if self.reduction == "none" or self.weight is not None:
            raise NotImplementedError('LinearCrossEntropyLoss.step: not with reduction="none", nor with class weights')
        x, targets = self._checked(input, target)
        if self.linear.part is None and not is_fused(self._shaped_weight(), targets):
            raise NotImplementedError("LinearCrossEntropyLoss.step: not with out_features, nor with probabilities")
        rows, classes = x.reshape(-1, self.in_features), targets.reshape(-1)
        row_scale, total = self._row_scale(classes, x.dtype)
        losses = self.linear.step(rows, classes, row_scale, optimizer, label_smoothing=self.label_smoothing)
        dinput = self.linear.loss_backward()
        self._saved = x, targets, (np.full_like(rows, np.nan) if dinput is None else dinput, None, None)
        with np.errstate(invalid="ignore"):  # the mean over no row is NaN, as in PyTorch
            return _number(np.asarray(losses.sum(dtype=np.float64) / np.float64(total), x.dtype))

    def _row_scale(self, classes: Array, dtype: np.dtype[Any]) -> tuple[Array, int]:
        """Return the weight of each row's loss in the reduced one, and by what their sum is divided."""
        counted = classes != (IGNORED if self.ignore_index is None else self.ignore_index)
        total = int(counted.sum()) if self.reduction == "mean" else 1
        with np.errstate(divide="ignore"):
            return np.where(counted, 1 / np.float64(total), 0).astype(dtype), total

    def backward(self, grad: Any = None) -> Array:
        """Return the gradient of the input and store the gradients of the layer in it.

        grad  gradient of the loss: a number, None means 1; with reduction "none" an array of the loss's shape
        """
        x, targets, gradients = self._kept()
        upstream = _loss_gradient(self, grad, x.dtype, self._loss_shape(x))
        if gradients is not None and gradients[1] is None:  # of `step`
            if upstream != 1:
                raise ValueError("LinearCrossEntropyLoss.backward: after `step` the gradient of the loss is 1")
            dinput: Array = gradients[0]
            return dinput.reshape(x.shape)
        if gradients is None or (upstream != 1).any():
            run = self._run if self.linear.part is None else self._run_part
            _, gradients = run(x, targets, grads=True, upstream=upstream)
        dinput, dweight, dbias = gradients
        self.linear.grads["weight"] = dweight.reshape(self.linear.weight.shape)
        if dbias is not None:
            self.linear.grads["bias"] = dbias.reshape(-1)
        self._saved = x, targets, gradients if upstream.ndim == 0 and upstream == 1 else None
        dx: Array = dinput.reshape(x.shape)
        return dx

    def _checked(self, input: Any, target: Any) -> tuple[Array, Array]:
        """Return the input, and the classes or probabilities, as arrays; drop the gradients of the last pass."""
        name = type(self).__name__
        x, truth = as_floats(f"{name}: input", input, self.linear.dtype), as_array(f"{name}: target", target)
        truth = as_floats(f"{name}: target", truth, x.dtype) if truth.dtype.kind == "f" else truth
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"{name}: input: expected shape (N, {self.in_features}), got {x.shape}")
        options = self.reduction, self.ignore_index, self.label_smoothing, None
        part = self.linear.part
        if part is not None and truth.dtype.kind == "f":
            raise NotImplementedError(f"{name} with a group: probabilities as targets are not supported")
        # of a part the check sees a weight of all classes, which takes no memory
        shaped = self._shaped_weight() if part is None else np.broadcast_to(x.dtype.type(0), self._whole_shape(part))
        _, _, targets, *_ = checked_inputs(name, x, shaped, truth, None, None, *options)
        self._saved = None
        self.linear.grads.clear()
        return x, targets

    def _whole_shape(self, part: Part) -> tuple[int, int]:
        return part.vocabulary, self.in_features

    def _shaped_weight(self) -> Array:
        return self.linear.weight.reshape(self.num_classes, *self.out_features, self.in_features)

    def _loss_shape(self, x: Array) -> tuple[int, ...]:
        return (*x.shape[:-1], *self.out_features) if self.reduction == "none" else ()

    def _run_part(self, x: Array, targets: Array, *, grads: bool, upstream: Array | None = None) -> Any:
        """As `_run`, where ranks share the classes out."""
        rows, classes = x.reshape(-1, self.in_features), targets.reshape(-1)
        row_scale, total = self._row_scale(classes, x.dtype)
        if upstream is not None:
            row_scale = row_scale * upstream.reshape(-1)
        if grads:
            losses = self.linear.learn(rows, classes, row_scale)
            dweight, dbias = (self.linear.grads.get(name) for name in ("weight", "bias"))
            gradients = self.linear.loss_backward(), dweight, dbias
        else:
            losses, gradients = self.linear.losses(rows, classes, row_scale, fp32_precision=self.fp32_precision), None
        if self.reduction == "none":
            return losses.reshape(targets.shape), gradients
        with np.errstate(invalid="ignore"):  # the mean over no row is NaN, as in PyTorch
            return (losses.sum(dtype=np.float64) / np.float64(total)).astype(x.dtype), gradients

    def _run(self, x: Array, targets: Array, *, grads: bool, upstream: Array | None = None) -> Any:
        bias = None if self.linear.bias is None else self.linear.bias.reshape(self.num_classes, *self.out_features)
        return linear_cross_entropy(
            x,
            self._shaped_weight(),
            targets,
            bias,
            self.weight,
            reduction=self.reduction,
            ignore_index=IGNORED if self.ignore_index is None else self.ignore_index,
            label_smoothing=self.label_smoothing,
            grads=grads,
            upstream=upstream,
            threads=default_threads(),
            fp32_precision=self.fp32_precision,
        )

    def _arguments(self) -> str:
        return f"in_features={self.in_features}, num_classes={self.num_classes}, bias={self.linear.bias is not None}"


def _loss_gradient(module: Any, grad: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Return the gradient of the loss, in the loss's shape."""
    name = type(module).__name__
    if module.reduction != "none":
        shape = ()
    elif grad is None and shape:
        raise ValueError(f'{name}.backward: grad: expected shape {shape} with reduction="none", got None')
    upstream = as_floats(f"{name}.backward: grad", 1.0 if grad is None else grad, dtype)
    check_shape(f"{name}.backward: grad", upstream, shape)
    return upstream
