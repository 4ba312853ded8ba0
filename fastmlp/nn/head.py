"""The output layer of a network that predicts one of many classes: a linear layer with its loss and update."""

import math
from typing import Any

import numpy as np

from fastmlp.distributed.part import Part
from fastmlp.nn.embedding import Embedding
from fastmlp.nn.linear import Linear
from fastmlp.nn.module import UNDRAWN, Module, Random
from fastmlp.ops.gradient import FusingOptimizer, RowGradient

__all__ = ["Head"]

Array = np.ndarray
ROWS_DRAWN = 1 << 14  # of each part, at once


class Head(Linear):
    """A linear layer that computes softmax, cross entropy and update in one op, which never stores the logits.

    Called as a layer, it returns the logits. `losses` computes the losses alone; `learn` and `step` also compute
    gradients, and `loss_backward` then returns that of the input. `step` never stores the gradient of the whole weight.
    Arguments as in Linear, and
    tied_to         an embedding that shares its weight with this layer; the weight stays the embedding's parameter
    fp32_precision  of the products, but those of `losses`, as in LinearCrossEntropyLoss
    part            of the classes, where ranks share them out: the layer has its rows alone. Targets are of all
                    classes, losses and the input's gradient are those of all parts, and all ranks have the same batch
    """

    _made: tuple[Array, ...] = (np.empty(0),)  # the results of the last batch, if the place is bound

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        fp32_precision: str = "auto",
        rng: Random = None,
        tied_to: Embedding | None = None,
        part: Part | None = None,
    ) -> None:
        rows, own_rng = (out_features, rng) if part is None else (part.words, UNDRAWN)
        super().__init__(in_features, rows, bias, device, dtype, fp32_precision=fp32_precision, rng=own_rng)
        self.part = part
        if part is not None and rng is not UNDRAWN:
            self._draw_part(np.random.default_rng(rng), part)
        self._weight_owner: tuple[Module] = (self if tied_to is None else tied_to,)  # in a tuple: not a child
        if tied_to is not None:
            if tied_to.weight.shape != self.weight.shape or tied_to.dtype != self.dtype:
                raise ValueError(f"tied_to: expected a weight of {self.weight.shape}, got {tied_to.weight.shape}")
            self._parameters.remove("weight")
            self.weight = tied_to.weight

    def _draw_part(self, rng: np.random.Generator, part: Part) -> None:
        """Draw the initial values of all classes as Linear does, and keep those of this part."""
        bound, size, rank = 1 / math.sqrt(self.in_features), part.group.size, part.group.rank
        for first in range(0, part.words, ROWS_DRAWN):
            rows = min(ROWS_DRAWN * size, part.vocabulary - first * size)
            drawn = rng.uniform(-bound, bound, (rows, self.in_features))
            self.weight[first : first + ROWS_DRAWN] = drawn[rank::size]
        if self.bias is not None:
            self.bias[...] = part.of(rng.uniform(-bound, bound, part.vocabulary))

    @property
    def tied(self) -> bool:
        """Whether the weight belongs to an embedding."""
        return self._weight_owner[0] is not self

    def losses(self, h: Array, targets: Array, row_scale: Array, *, fp32_precision: str = "auto") -> Array:
        """Return the loss of each row (B,) in nats.

        h          (B, H)
        targets    (B,)    classes
        row_scale  (B,)    0 ignores a row: its loss is 0
        """
        highest, log_sum, losses, _ = self._results(h)
        targets, options = self._of_part(targets, row_scale)
        inputs = h, self.weight, self.bias, targets, row_scale
        found = highest, log_sum, losses
        self.place.run("linear_cross_entropy_forward", *inputs, *found, fp32_precision=fp32_precision, **options)
        return losses

    def learn(self, h: Array, targets: Array, row_scale: Array) -> Array:
        """Return the losses as in `losses`, and store the gradients of sum(row_scale * loss) in `grads`.

        A tied weight's gradient is stored in the embedding, whose backward pass replaces it: the caller adds both.
        """
        *found, dh = self._results(h)
        dweight = self._weight_owner[0]._gradient("weight")
        dbias = None if self.bias is None else self._gradient("bias")
        targets, options = self._of_part(targets, row_scale)
        inputs = h, self.weight, self.bias, targets, row_scale
        outputs = *found, dh, dweight, dbias
        self.place.run("linear_cross_entropy", *inputs, *outputs, fp32_precision=self.fp32_precision, **options)
        self._add_up(dh)
        self._saved = dh
        return found[-1]

    def step(
        self,
        h: Array,
        targets: Array,
        row_scale: Array,
        optimizer: FusingOptimizer,
        *,
        held: RowGradient | None = None,
        label_smoothing: float = 0.0,
    ) -> Array:
        """Return the losses as in `losses`, and update the weight; `optimizer.step` then updates the bias.

        optimizer        of the weight and the bias
        held             of `hold`, with tied weights: rows that are not updated here; `finish` adds their gradient to
                         the embedding's
        label_smoothing  as in LinearCrossEntropyLoss
        If a loss is infinite or NaN, nothing is updated and `loss_backward` returns None.
        """
        *found, dh = self._results(h)
        [owner] = self._weight_owner
        dbias = None if self.bias is None else self._gradient("bias")
        held_rows, dheld = (None, None) if held is None else (held.rows, held.drows)
        targets, options = self._of_part(targets, row_scale)
        try:
            updated = optimizer.step_with(
                "linear_cross_entropy_update",
                owner,
                "weight",
                (h, self.weight, self.bias, targets, row_scale),
                (held_rows, *found, dh, dbias, dheld),
                finishes=owner is self,
                label_smoothing=label_smoothing,
                fp32_precision=self.fp32_precision,
                **options,
            )
        except BaseException:
            self.grads.clear()  # the bias's was entered, and is not made
            raise
        if updated:  # on all ranks or on none
            self._add_up(dh)
        else:
            self.grads.clear()
        saved = dh if updated else None
        if saved is not self._saved:  # setting an attribute of a module takes long
            self._saved = saved
        return found[-1]

    def loss_backward(self) -> Array | None:
        """Return the input's gradient from the last `learn` or `step`; None if a loss of `step` was not finite."""
        dh: Array | None = self._saved
        return dh

    def hold(self, rows: Array) -> RowGradient:
        """Return a place for the gradient of tied rows that `step` is not to update, and `finish` adds.

        rows  (U,)  those that the embedding looks up, ascending
        """
        return RowGradient(rows, self.place.array(self, "dheld", (len(rows), self.in_features), self.dtype))

    def finish(self, held: RowGradient) -> None:
        """After the embedding's backward pass, add the held rows' gradient: `optimizer.step` updates by the sum."""
        [embedding] = self._weight_owner
        gradient = embedding.grads["weight"]
        assert isinstance(gradient, RowGradient)
        rows, drows, _ = gradient
        self.place.run("add", drows, held.drows, drows)
        embedding.grads["weight"] = RowGradient(rows, drows, alone=True)

    def _of_part(self, targets: Array, row_scale: Array) -> tuple[Array, dict[str, Any]]:
        """Return the targets as ids of the weight's rows, and the op's options for a part."""
        if self.part is None:
            return targets, {}
        wrong = (row_scale != 0) & ((targets < 0) | (targets >= self.part.vocabulary))
        if wrong.any():  # no part would have it
            raise IndexError(f"targets: expected ids in [0, {self.part.vocabulary}), got {targets[wrong][0]}")
        return self.part.local(targets), {"between": self.part.combine}

    def _add_up(self, dh: Array) -> None:
        """Make the parts' shares of the input's gradient the whole."""
        if self.part is not None:
            self.part.group.allreduce(dh)

    def _results(self, h: Array) -> tuple[Array, ...]:
        """Return the arrays for highest logits, logarithms of the sums, losses (B,) and dh (B, H)."""
        if self.place.bound and len(self._made[-1]) == len(h):
            return self._made
        per_row = (self.place.array(self, name, (len(h),), h.dtype) for name in ("highest", "log_sum", "losses"))
        made = *per_row, self.place.array(self, "dh", h.shape, h.dtype)
        if self.place.bound:
            self._made = made
        return made
