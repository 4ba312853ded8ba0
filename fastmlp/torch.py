"""PyTorch's linear cross entropy on the CPU, computed by fastmlp's kernels: one line to change in a training script.

    from fastmlp.torch import linear_cross_entropy   # in place of torch.nn.functional's

    loss = linear_cross_entropy(hidden, head.weight, target, linear_bias=head.bias)
    loss.backward()

The logits never exist as a whole. If gradients are required, the forward pass computes them together with the loss,
some rows at a time, and the backward pass returns them: three products of N x H x V. Storing only statistics between
the passes would take a fourth product, to recompute the logits, and no less memory, since the backward pass needs the
gradients' memory anyway. The backward pass computes the gradients itself if the upstream gradient is not one number
(reduction="none"), and when a retained graph is used again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fastmlp.errors import missing_name, require
from fastmlp.functional import _linear_loss
from fastmlp.ops.backend import ops_of

try:
    import torch
except ModuleNotFoundError:
    require("torch", "fastmlp.torch")
    raise
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

__all__ = ["LinearCrossEntropyLoss", "linear_cross_entropy"]

if not TYPE_CHECKING:  # for type checkers any name would be there
    __getattr__, __dir__ = missing_name(__name__, __all__)

# PyTorch leaves some functions without types, which a strict check of a program that imports this file would report.
UNTYPED: Any = torch
NARROW = (torch.float32, torch.bfloat16)
FLOATS = (*NARROW, torch.float64)
NO_GRADIENTS = (False, False, False)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: None = None,
) -> Tensor:
    """The cross entropy between `target` and the logits `input @ linear_weight.T + linear_bias`, and its gradients.

    As `torch.nn.functional.linear_cross_entropy` of PyTorch 2.13, on the CPU:

    input            (N, H) or (H,)   rows of the batch
    linear_weight    (V, H)           read in place if contiguous, like the other tensors; or (V, d1, ..., H)
    target           (N,) or ()       classes in [0, V), int64 or int32; (N, d1, ...) with such a weight; or
                     the logits' shape, (N, V, d1, ...): probabilities, of the input's type; they get no gradient
    linear_bias      (V,) or None     (V, d1, ...) with such a weight
    weight           (V,) or None     of each class; gets no gradient
    reduction        "mean": the sum of the rows' losses, each weighted, over the sum of their weights; "sum"; "none"
    ignore_index     rows with this target do not count; None: -100, and the only value for probabilities
    label_smoothing  share of the truth that is spread over all classes, 0 to 1
    options          only None: there is nothing to choose, and no logits are stored

    Returns the loss in nats, of the input's type: a scalar, or one a row for "none". The mean over no row is NaN, its
    gradients are 0, as in PyTorch. With torch.get_num_threads() threads.

    float32 is computed in float32, or in bfloat16 with sums of float32 where PyTorch may do so too: inside of
    torch.autocast, whose loss is float32, and where torch.backends.mkldnn.matmul.fp32_precision is "bf16". bfloat16
    tensors are copied to float32 in each call, their gradients rounded once. float64 goes through NumPy's reference,
    which is meant for checks: it stores the logits, and is slow.

    Gradients are computed for those of input, linear_weight and linear_bias that require one; there is no second
    derivative, and no derivative in forward mode. torch.compile leaves the call out of its graph.

    Probabilities, and weights of more than two dimensions, do store the logits.

    Raises NotImplementedError for PyTorch's other features (`options`, other devices), TypeError for other types,
    ValueError for shapes that do not fit and for numbers out of their range, IndexError for targets out of theirs.

    >>> import torch
    >>> hidden, target = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([2, 0])
    >>> weight = torch.zeros(3, 2, requires_grad=True)
    >>> loss = linear_cross_entropy(hidden, weight, target)
    >>> loss.backward()
    >>> round(loss.item(), 4), weight.grad[0]  # ln 3: all are as likely
    (1.0986, tensor([-0.8333,  0.6667]))
    """
    if options is not None:
        raise NotImplementedError(f"options: expected None, got {options!r}")
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    floats = {"input": input, "linear_weight": linear_weight, "linear_bias": linear_bias, "weight": weight}
    given = {name: tensor for name, tensor in floats.items() if tensor is not None}
    _check_places({**given, "target": target})
    _check_types(given, target, autocast)
    _check_shapes(input, linear_weight, target, linear_bias, weight, ignore_index)
    for name, tensor in (("weight", weight), ("target", target)):
        if tensor is not None and tensor.requires_grad:
            raise NotImplementedError(f"{name}: expected a tensor that requires no gradient, got one that does")
    settings = _Settings(
        reduction,
        -100 if ignore_index is None else ignore_index,
        label_smoothing,
        _precision(input.dtype, autocast),
        torch.float32 if autocast and input.dtype == torch.bfloat16 else input.dtype,
    )
    tensors = (input, linear_weight, linear_bias, target, weight)
    if torch.compiler.is_compiling():
        return cast(Tensor, UNTYPED._dynamo.disable(_apply)(settings, *tensors))
    return _apply(settings, *tensors)


class LinearCrossEntropyLoss(torch.nn.Module):
    """The last layer and its loss as a module: `linear_cross_entropy` with its own weight and optional bias.

    As `torch.nn.LinearCrossEntropyLoss` of PyTorch 2.13, with its names in the state_dict ("linear.weight",
    "linear.bias" and "weight"), so that each loads the other's weights.

    in_features   H
    num_classes   V
    out_features  (d1, ...): losses at d1 * ... places of each row; ():  one loss a row
    bias          whether there is one
    device, dtype of the weight and the bias
    reduction, weight, ignore_index, label_smoothing, options: as in `linear_cross_entropy`

    Called with input and target of the shapes that `linear_cross_entropy` takes. Raises what that raises.

    >>> import torch
    >>> criterion = LinearCrossEntropyLoss(4, 10, bias=True)
    >>> loss = criterion(torch.ones(3, 4), torch.tensor([1, 2, -100]))
    >>> loss.backward()
    >>> [(name, tuple(parameter.grad.shape)) for name, parameter in criterion.named_parameters()]
    [('linear.weight', (10, 4)), ('linear.bias', (10,))]
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: None = None,
    ) -> None:
        super().__init__()
        if weight is not None and weight.shape != (num_classes,):
            raise ValueError(f"weight: expected shape ({num_classes},), got {tuple(weight.shape)}")
        self.reduction, self.ignore_index, self.label_smoothing = reduction, ignore_index, label_smoothing
        self.options, self.num_classes, self.out_features = options, num_classes, tuple(out_features)
        rows = math.prod(self.out_features, start=num_classes)
        self.linear = torch.nn.Linear(in_features, rows, bias, device, dtype)
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        layer, shape = self.linear, (self.num_classes, *self.out_features)
        return linear_cross_entropy(
            input,
            layer.weight.reshape(*shape, layer.in_features),
            target,
            linear_bias=None if layer.bias is None else layer.bias.reshape(shape),
            weight=self.get_buffer("weight"),
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )

    def extra_repr(self) -> str:
        """The options, as PyTorch shows them."""
        layer = self.linear
        sizes = f"in_features={layer.in_features}, num_classes={self.num_classes}, out_features={self.out_features}"
        return (
            f"{sizes}, bias={layer.bias is not None}, reduction={self.reduction}, ignore_index={self.ignore_index},"
            f" label_smoothing={self.label_smoothing}, options={self.options}"
        )


# ------------------------------------------------------------------------------------------------------------ autograd


@dataclass(frozen=True)
class _Settings:
    """The arguments that are no tensors; fp32_precision is that of float32 products."""

    reduction: str
    ignore_index: int
    label_smoothing: float
    fp32_precision: str
    loss_dtype: torch.dtype


def _apply(settings: _Settings, *tensors: Any) -> Tensor:
    """Return the loss of _run's `tensors`, with a backward pass if one of them requires a gradient."""
    # a traced graph would hold the loss as a constant
    if UNTYPED.jit.is_tracing() or get_proxy_mode() is not None:
        raise NotImplementedError("fastmlp.torch: not while a graph is traced")
    given = [tensor for tensor in tensors if tensor is not None]
    if any(map(torch._C._functorch.is_functorch_wrapped_tensor, given)):
        raise NotImplementedError("fastmlp.torch: none of torch.func's transforms, such as grad and vmap")
    if any(UNTYPED.autograd.forward_ad.unpack_dual(tensor).tangent is not None for tensor in given):
        raise NotImplementedError("fastmlp.torch: no derivative in forward mode")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        function: Any = _LinearCrossEntropy
        return cast(Tensor, function.apply(settings, *tensors))
    return cast(Tensor, _run(settings, *tensors)[0])


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, settings: _Settings, *tensors: Any) -> Tensor | None:
        ctx.settings = settings
        ctx.save_for_backward(*tensors)
        grads = NO_GRADIENTS if settings.reduction == "none" else ctx.needs_input_grad[1:4]
        loss, ctx.gradients = _run(settings, *tensors, grads=grads)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError("fastmlp.torch: no gradient of the gradient, which create_graph=True asks for")
        tensors = ctx.saved_tensors  # an error if a backward pass has freed them, or if they were changed
        gradients, ctx.gradients = ctx.gradients, None  # not kept: the receiver may write to them
        if gradients is None:
            _, gradients = _run(ctx.settings, *tensors, grads=ctx.needs_input_grad[1:4], upstream=upstream)
        elif upstream != 1:
            with np.errstate(all="ignore"):
                for gradient in gradients:  # not by PyTorch, whose threads hang in a forked child
                    if gradient is not None:
                        np.multiply(gradient, upstream.item(), out=gradient)
        return (None, *map(_gradient_of, tensors, gradients), None, None)


def _gradient_of(tensor: Tensor | None, gradient: Any) -> Tensor | None:
    """Return an array as the gradient of a tensor, in its type and shape."""
    return None if tensor is None or gradient is None else torch.from_numpy(gradient).to(tensor.dtype).view_as(tensor)


def _run(
    settings: _Settings,
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    *,
    grads: tuple[bool, bool, bool] = NO_GRADIENTS,
    upstream: Tensor | None = None,
) -> tuple[Tensor | None, tuple[Any, ...] | None]:
    """Return the loss, and as arrays those gradients of input, linear_weight and linear_bias that are wanted.

    With an upstream gradient the loss is None.
    """
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32

    def array(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.detach().to(dtype).contiguous().resolve_neg().numpy()

    loss, gradients = _linear_loss.linear_cross_entropy(
        array(input),
        array(linear_weight),
        array(target) if target.is_floating_point() else target.contiguous().numpy(),
        array(linear_bias),
        array(weight),
        reduction=settings.reduction,
        ignore_index=settings.ignore_index,
        label_smoothing=settings.label_smoothing,
        grads=grads,
        upstream=None if upstream is None else upstream.double().numpy(),
        threads=torch.get_num_threads(),
        fp32_precision=settings.fp32_precision,
    )
    if loss is None:
        return None, gradients
    return torch.from_numpy(loss).to(settings.loss_dtype), gradients


def _precision(dtype: torch.dtype, autocast: bool) -> str:
    """Return the precision of float32 products: bf16 for bfloat16 tensors and where PyTorch would use it."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # since PyTorch 2.9
    allowed = autocast or dtype == torch.bfloat16 or getattr(matmul, "fp32_precision", None) == "bf16"
    return "bf16" if allowed and "bf16" in ops_of(np.dtype(np.float32)).precisions() else "auto"


# -------------------------------------------------------------------------------------------------------------- checks


def _check_places(tensors: Mapping[str, Any]) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        if tensor.device.type != "cpu":
            raise NotImplementedError(f"{name}: expected a tensor on the CPU, got one on {tensor.device}")
        if tensor.layout != torch.strided:
            raise NotImplementedError(f"{name}: expected a dense tensor, got {tensor.layout}")


def _check_types(floats: Mapping[str, Tensor], target: Tensor, autocast: bool) -> None:
    """Raise TypeError unless all have one type; under autocast float32 and bfloat16 may be mixed."""
    if target.is_floating_point():
        floats = {**floats, "target": target}
    elif target.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"target: expected int64 or int32, got {target.dtype}")
    allowed: tuple[torch.dtype, ...] = FLOATS
    for name, tensor in floats.items():
        if tensor.dtype not in allowed:
            wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
            raise TypeError(f"{name}: expected {wanted}, got {tensor.dtype}")
        if name == "input":
            allowed = NARROW if autocast and tensor.dtype in NARROW else (tensor.dtype,)


def _check_shapes(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
) -> None:
    if input.dim() not in (1, 2) or (input.dim() == 1 and linear_weight.dim() > 2):
        wanted = "(N, H) or (H,)" if linear_weight.dim() <= 2 else "(N, H) for a weight of more than two dimensions"
        raise ValueError(f"input: expected shape {wanted}, got {tuple(input.shape)}")
    batch, (classes, *places) = tuple(input.shape[:-1]), (*linear_weight.shape[:-1],) or (0,)
    probable = target.is_floating_point()
    if probable and ignore_index is not None:
        raise ValueError(f"ignore_index: expected None with probabilities, got {ignore_index}")
    expected = {
        "linear_weight": (linear_weight, (classes, *places, input.shape[-1])),
        "target": (target, (*batch, classes, *places) if probable else (*batch, *places)),
        "linear_bias": (linear_bias, (classes, *places)),
        "weight": (weight, (classes,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
    if classes == 0:
        raise ValueError("linear_weight: expected at least one class, got none")
