"""linear_cross_entropy in Numba: two sweeps over the vocabulary."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.gradient import Between, check_places, rule_of
from fastmlp.ops.numba_ops import update as rules
from fastmlp.ops.numba_ops._arithmetic import _LOWEST, column_sums, exp_nonpositive, row_sum
from fastmlp.ops.numba_ops._jit import bias_or_zeros, cut_elements, jit, read_only, work_arrays
from fastmlp.ops.numba_ops._products import rows_times_matrix, rows_times_rows
from fastmlp.ops.numba_ops.cross_entropy import targets_looked_at

Array = np.ndarray
Pieces = Callable[[int, int], tuple[Array, Array]]  # (first word, last word) -> the slice's dweight and dbias
BLOCK = 128  # words that go through the last layer at once: 128 rows of 300 weights stay in a core's second-level cache
MOST_KEPT = 256 * 2**20  # bytes of exponentials that may be stored; beyond it the logits are computed again

# The vocabulary is cut into at most 32 slices, each of blocks of BLOCK words. Logits are made transposed, (words,
# batch): the rows of W are the rows of the product, and maximum and sum of exponentials are taken side by side, one
# lane a row of the batch.
#
# Sweep one, per block:  e = exp(logits - shift), where shift is the slice's maximum so far. A slice hands back its
#                        maximum, its sum of exponentials and the logits of the targets; these make highest, log_sum
#                        and the losses.
# Sweep two, per block:  dlogits = (e exp(shift - highest - log_sum) - truth) row_scale, in place;
#                        dW = dlogits h, straight to its rows; db; dh += dlogits^T W, in each slice for itself.
#
# Between the sweeps e is stored, 4 B V bytes, unless that is more than MOST_KEPT. In that case, and if forward and
# backward are called one at a time, sweep two computes the logits again, and shift is highest.
#
# Sums over the vocabulary: of exponentials in float32 within a block and in float64 from block to block; of dh in
# float32 within a slice and in float64 from slice to slice.


def linear_cross_entropy_forward(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    *,
    label_smoothing: float = 0.0,
    between: Between | None = None,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """Sweep one, nothing stored. Memory: 4 * BLOCK * B bytes a thread, 20 * B a slice."""
    layer = _LastLayer(h, weight, bias, targets, row_scale, label_smoothing, threads)
    layer.sweep_one(layer.nothing, layer.nothing, highest, log_sum, losses, between)


def linear_cross_entropy_backward(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    dh: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    *,
    label_smoothing: float = 0.0,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """Sweep two, logits computed again. Memory: 4 * BLOCK * B bytes a thread, 4 * B * H a slice."""
    layer = _LastLayer(h, weight, bias, targets, row_scale, label_smoothing, threads)
    with work_arrays(layer.dh_parts(dh)) as (dh_parts,):
        kept = shifts = layer.nothing
        exact_log_sum = log_sum.astype(np.float64)
        layer.sweep_two(kept, shifts, highest, exact_log_sum, dh_parts, dh, layer.pieces_of(dweight, dbias))


def linear_cross_entropy(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dh: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    *,
    label_smoothing: float = 0.0,
    between: Between | None = None,
    fp32_precision: str = "auto",
    threads: int = 1,
) -> None:
    """Both sweeps. Memory: as the backward pass, and 4 * B * V * (1 + 1 / BLOCK) where 4 * B * V <= MOST_KEPT."""
    layer = _LastLayer(h, weight, bias, targets, row_scale, label_smoothing, threads)
    with layer.work_arrays(dh) as (kept, shifts, dh_parts):
        exact_log_sum = layer.sweep_one(kept, shifts, highest, log_sum, losses, between)
        layer.sweep_two(kept, shifts, highest, exact_log_sum, dh_parts, dh, layer.pieces_of(dweight, dbias))


def linear_cross_entropy_update(
    h: Array,
    weight: Array,
    bias: Array | None,
    targets: Array,
    row_scale: Array,
    weight_state: Array | None,
    weight_state2: Array | None,
    held: Array | None,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dh: Array,
    dbias: Array | None,
    dheld: Array | None,
    *,
    rule: str,
    label_smoothing: float = 0.0,
    between: Between | None = None,
    fp32_precision: str = "auto",
    threads: int = 1,
    **options: Any,
) -> bool:
    """Both sweeps; a slice's gradient goes into the update while it is in the cache. Memory: as both, without dW.

    Rows that are held are put back after their slice's update.
    """
    update, states = rule_of("linear_cross_entropy_update", rule, vars(rules), (weight_state, weight_state2))
    check_places(bias, dbias, held, dheld)
    changed = *states, weight
    db = np.empty(len(weight), np.float32) if dbias is None else dbias

    def pieces(first: int, last: int) -> tuple[Array, Array]:
        return np.empty((last - first, weight.shape[1]), np.float32), db[first:last]

    def update_slice(first: int, last: int, dweight: Array, _dbias: Array) -> None:
        parts = [array[first:last] for array in changed]
        if held is None or dheld is None:
            update(dweight, *parts, **options)
            return
        begin, end = np.searchsorted(held, (first, last))
        here = held[begin:end] - first
        dheld[begin:end] = dweight[here]
        before = [part[here] for part in parts]
        update(dweight, *parts, **options)
        for part, rows in zip(parts, before, strict=True):
            part[here] = rows

    layer = _LastLayer(h, weight, bias, targets, row_scale, label_smoothing, threads)
    with layer.work_arrays(dh) as (kept, shifts, dh_parts):
        exact_log_sum = layer.sweep_one(kept, shifts, highest, log_sum, losses, between)
        if not np.isfinite(losses).all():
            for gradient in (dh, dbias, dheld):
                if gradient is not None:
                    gradient[...] = np.nan
            return False
        layer.sweep_two(kept, shifts, highest, exact_log_sum, dh_parts, dh, pieces, update_slice)
    return True


class _LastLayer:
    """The inputs of both sweeps in the form that kernels need, and the slices of the vocabulary."""

    def __init__(
        self,
        h: Array,
        weight: Array,
        bias: Array | None,
        targets: Array,
        row_scale: Array,
        label_smoothing: float,
        threads: int,
    ) -> None:
        self.h, self.weight, self.row_scale = read_only(h), read_only(weight), read_only(row_scale)
        self.bias = bias_or_zeros(bias, len(weight))
        self.targets = targets_looked_at(targets, row_scale)
        self.label_smoothing, self.threads = label_smoothing, threads
        self.slices = team.cut(len(weight), 2 * BLOCK, multiple_of=BLOCK)
        self.nothing = np.empty((0, len(h)), np.float32)

    def _inputs(self, first: int, last: int) -> tuple[Array, Array, Array, Array]:
        """Return h, W, b and the targets of a slice, with ids counted from its first word (others are no ids of it)."""
        return self.h, self.weight[first:last], self.bias[first:last], self.targets - first

    def sweep_one(
        self, kept: Array, shifts: Array, highest: Array, log_sum: Array, losses: Array, between: Between | None
    ) -> Array:
        """Compute the statistics and losses, and `kept` and `shifts` unless they are empty; return log_sum in float64.

        kept              (V, B) or (0, B)          out: e
        shifts            (V / BLOCK, B) or (0, B)  out: what was subtracted in each block
        highest, log_sum  (B,)                      out
        losses            (B,)                      out
        between           or None: between the sweeps, see the reference
        """
        tops = np.empty((len(self.slices), len(self.h)), np.float32)
        sums, logit_sums = np.empty(tops.shape), np.empty(tops.shape)
        target_logits = np.full(len(self.h), 0 if between is None else -np.inf, np.float32)

        def sweep(first: int, last: int) -> None:
            number = first // self.slices[0][1]
            outputs = kept[first:last], shifts[first // BLOCK :], tops[number], sums[number], logit_sums[number]
            _sweep_one(*self._inputs(first, last), bool(self.label_smoothing), *outputs, target_logits)

        team.run_slices(sweep, self.slices, self.threads)
        with np.errstate(all="ignore"):  # NaN and infinity are found in the losses
            top = tops.max(axis=0).astype(np.float64)
            total = (sums * np.exp(tops - top)).sum(axis=0)
            if between is not None:
                between(top, total, target_logits)
            log_sums: Array = np.log(total)
            losses[...] = (1 - self.label_smoothing) * (log_sums + (top - target_logits))
            if self.label_smoothing:
                losses += self.label_smoothing * (log_sums + (top - logit_sums.sum(axis=0) / len(self.weight)))
        highest[...], log_sum[...] = top, log_sums
        return log_sums

    def dh_parts(self, dh: Array | None) -> tuple[int, ...]:
        """Return the shape of the slices' parts of dh; without rows if dh is not wanted."""
        return len(self.slices), 0 if dh is None else len(self.h), self.h.shape[1]

    @contextmanager
    def work_arrays(self, dh: Array | None) -> Iterator[list[Array]]:
        """Return work arrays for both sweeps: kept and shifts, empty if too large, and dh_parts."""
        rows, words = len(self.h), len(self.weight)
        if 4 * rows * words > MOST_KEPT:
            words = 0
        with work_arrays((words, rows), (-(-words // BLOCK), rows), self.dh_parts(dh)) as arrays:
            yield arrays

    def pieces_of(self, dweight: Array | None, dbias: Array | None) -> Pieces:
        """Return the function that finds a slice's part of dweight (without rows if it is not wanted) and of dbias."""
        dw = np.empty((0, self.h.shape[1]), np.float32) if dweight is None else dweight
        db = np.empty(len(self.weight), np.float32) if dbias is None else dbias
        return lambda first, last: (dw[first:last], db[first:last])

    def sweep_two(
        self,
        kept: Array,
        shifts: Array,
        highest: Array,
        log_sum: Array,
        dh_parts: Array,
        dh: Array | None,
        pieces: Pieces,
        when_made: Callable[[int, int, Array, Array], None] = lambda first, last, dweight, dbias: None,
    ) -> None:
        """Compute the gradients from `kept` and `shifts` or, if they are empty, from the logits computed again.

        kept, shifts             in:  of sweep one; `kept` is overwritten
        highest, log_sum (B,)    in:  the latter in float64
        dh_parts (slices, B, H)  out: each slice's part of dh
        dh                       out: or None
        pieces                   the arrays of a slice's dweight and dbias
        when_made                called for a slice when its gradients, dh_parts included, are complete
        """
        at_target = np.float32(1 - self.label_smoothing)
        spread = np.float32(self.label_smoothing / len(self.weight))

        def sweep(first: int, last: int) -> None:
            number = first // self.slices[0][1]
            inputs = *self._inputs(first, last), self.row_scale, highest, log_sum, at_target, spread
            dweight, dbias = pieces(first, last)
            _sweep_two(*inputs, kept[first:last], shifts[first // BLOCK :], dh_parts[number], dweight, dbias)
            when_made(first, last, dweight, dbias)

        team.run_slices(sweep, self.slices, self.threads)
        if dh is None:
            return
        parts, total = dh_parts.reshape(len(self.slices), dh.size), dh.reshape(-1)
        slices = cut_elements(dh.size, times=len(self.slices))
        team.run_slices(lambda first, last: column_sums(parts, first, last, total), slices, self.threads)


@jit
def _sweep_one(
    h: Array,
    weight: Array,
    bias: Array,
    targets: Array,
    with_logit_sums: bool,
    kept: Array,
    shifts: Array,
    highest: Array,
    sums: Array,
    logit_sums: Array,
    target_logits: Array,
) -> None:
    """One slice of sweep one.

    highest, sums  (B,)  out: the slice's maximum; its sum of exp(logits - maximum)
    logit_sums     (B,)  out: its sum of logits, for label smoothing
    target_logits  (B,)  out: logits of the targets that are in this slice
    """
    rows = len(h)
    scratch = np.empty((0 if len(kept) else BLOCK, rows), np.float32)
    highest_before, block_sum = np.empty(rows, np.float32), np.empty(rows, np.float32)
    highest[:] = _LOWEST
    sums[:] = 0
    logit_sums[:] = 0
    for start in range(0, len(weight), BLOCK):
        stop = min(start + BLOCK, len(weight))
        logits = kept[start:stop] if len(kept) else scratch[: stop - start]
        _transposed_logits(h, weight[start:stop], bias[start:stop], logits)
        for b in range(rows):
            if start <= targets[b] < stop:
                target_logits[b] = logits[targets[b] - start, b]

        highest_before[:] = highest
        for v in range(len(logits)):
            word = logits[v]
            for b in range(rows):
                highest[b] = word[b] if word[b] > highest[b] else highest[b]
            if with_logit_sums:
                for b in range(rows):
                    logit_sums[b] += word[b]
        block_sum[:] = 0
        for v in range(len(logits)):
            word = logits[v]
            for b in range(rows):
                e = exp_nonpositive(word[b] - highest[b])
                word[b] = e
                block_sum[b] += e
        for b in range(rows):
            sums[b] = sums[b] * exp_nonpositive(highest_before[b] - highest[b]) + block_sum[b]
        if len(kept):
            shifts[start // BLOCK] = highest


@jit
def _sweep_two(
    h: Array,
    weight: Array,
    bias: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    at_target: Any,
    spread: Any,
    kept: Array,
    shifts: Array,
    dh: Array,
    dweight: Array,
    dbias: Array,
) -> None:
    """One slice of sweep two; the truth is `spread` for each word, plus `at_target` for the target."""
    rows = len(h)
    scratch = np.empty((0 if len(kept) else BLOCK, rows), np.float32)
    factor = np.empty(rows, np.float32)
    dh[:] = 0
    for start in range(0, len(weight), BLOCK):
        stop = min(start + BLOCK, len(weight))
        if len(kept):
            dlogits, shift = kept[start:stop], shifts[start // BLOCK]
        else:
            dlogits, shift = scratch[: stop - start], highest
            _transposed_logits(h, weight[start:stop], bias[start:stop], dlogits)
            for v in range(len(dlogits)):
                word = dlogits[v]
                for b in range(rows):
                    word[b] = exp_nonpositive(word[b] - shift[b])
        for b in range(rows):
            factor[b] = exp_nonpositive(np.float32(shift[b] - highest[b] - log_sum[b]))
        for v in range(len(dlogits)):
            word = dlogits[v]
            for b in range(rows):
                word[b] = (word[b] * factor[b] - spread) * row_scale[b]
        for b in range(rows):
            if start <= targets[b] < stop:
                dlogits[targets[b] - start, b] -= at_target * row_scale[b]

        strided = dlogits[:, 0:rows]  # the same Numba type as its transpose: one product to compile
        if len(dweight):
            rows_times_matrix(strided, h, False, dweight[start:stop])
        if len(dh):
            rows_times_matrix(strided.T, weight[start:stop], True, dh)
        for v in range(len(dlogits)):
            dbias[start + v] = row_sum(dlogits[v])


@jit
def _transposed_logits(h: Array, weight: Array, bias: Array, logits: Array) -> None:
    """logits = W h^T + b, (words, batch)."""
    rows_times_rows(weight, h, logits)
    for v in range(len(logits)):
        word = logits[v]
        for b in range(word.size):
            word[b] += bias[v]
