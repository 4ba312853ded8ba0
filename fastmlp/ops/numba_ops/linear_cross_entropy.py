"""linear_cross_entropy in Numba: two sweeps over the vocabulary, with BLAS's products."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.gradient import Between, check_places, rule_of
from fastmlp.ops.numba_ops import update as rules
from fastmlp.ops.numba_ops._arithmetic import _LOWEST, column_sums, exp_nonpositive, row_sum
from fastmlp.ops.numba_ops._jit import bias_or_zeros, cut_elements, jit, read_only, work_arrays
from fastmlp.ops.numba_ops._products import run_products
from fastmlp.ops.numba_ops.cross_entropy import targets_looked_at

Array = np.ndarray
Pieces = Callable[[int, int], tuple[Array, Array]]  # (first word, end) -> the block's dweight and dbias
STEP = 128  # words: slices and blocks are multiples of it
BLOCK_LOGITS = 2**18  # logits of a block, at most: a megabyte, which stays in a core's second-level cache
MOST_KEPT = 256 * 2**20  # bytes of exponentials that may be stored; beyond it the logits are computed again

# The vocabulary is cut into at most 32 slices, and a slice into blocks of as many words as BLOCK_LOGITS allows. Logits
# are made transposed, (words, batch), so that maximum and sum of exponentials are taken side by side, one lane a row
# of the batch. BLAS makes the products of a block, and a kernel what lies between them.
#
# Sweep one, per block:  logits = W h^T; e = exp(logits + b - shift), where shift is the slice's maximum so far. A slice
#                        hands back its maximum, its sum of exponentials and the logits of the targets; these make
#                        highest, log_sum and the losses.
# Sweep two, per block:  dlogits = (e exp(shift - highest - log_sum) - truth) row_scale, in place; db;
#                        dh += dlogits^T W, in each slice for itself; dW = dlogits h, straight to its rows.
#
# Between the sweeps e is stored, 4 B V bytes, unless that is more than MOST_KEPT. In that case, and if forward and
# backward are called one at a time, sweep two computes the logits again, and shift is highest.
#
# Sums over the vocabulary: of exponentials in float32 within a block and in float64 from block to block; of dh in
# float32 within a slice and in float64 from slice to slice.


def block_words(rows: int) -> int:
    """Return the most words of a block."""
    return STEP * max(1, BLOCK_LOGITS // (STEP * max(1, rows)))


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
    """Sweep one, nothing stored. Memory: a block of logits a thread, 4 * B * block_words(B) bytes; 20 * B a slice."""
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
    """Sweep two, logits computed again. Memory: a block of logits and 4 * B * H bytes a thread, 4 * B * H a slice."""
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
    """Both sweeps.

    Memory: as the backward pass, but 4 * B * V * (1 + 1 / STEP) bytes for all logits where 4 * B * V <= MOST_KEPT.
    """
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
    """Both sweeps; a block's gradient goes into the update while it is in the cache. Memory: as both; dW of a block.

    Rows that are held are put back after their block's update.
    """
    update, states = rule_of("linear_cross_entropy_update", rule, vars(rules), (weight_state, weight_state2))
    check_places(bias, dbias, held, dheld)
    changed = *states, weight
    db = np.empty(len(weight), np.float32) if dbias is None else dbias

    def pieces(first: int, last: int) -> tuple[Array, Array]:
        return np.empty((last - first, weight.shape[1]), np.float32), db[first:last]

    def update_block(first: int, last: int, dweight: Array, _dbias: Array) -> None:
        parts = [array[first:last] for array in changed]
        if held is None or dheld is None:
            update(dweight, *parts, **options)
            return
        begin, end = np.searchsorted(held, np.array((first, last), held.dtype))
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
        layer.sweep_two(kept, shifts, highest, exact_log_sum, dh_parts, dh, pieces, update_block)
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
        self.slices = team.cut(len(weight), 2 * STEP, multiple_of=STEP)
        self.block = block_words(len(h))
        self.nothing = np.empty((0, len(h)), np.float32)

    def blocks(self, first: int, last: int, kept: Array) -> Iterator[tuple[int, int, Array]]:
        """Return first word, end and logits of each block of a slice: those that are kept, or scratch memory."""
        scratch = kept[first:last] if len(kept) else np.empty((min(self.block, last - first), len(self.h)), np.float32)
        for start in range(first, last, self.block):
            stop = min(start + self.block, last)
            yield start, stop, scratch[start - first : stop - first] if len(kept) else scratch[: stop - start]

    def make_logits(self, start: int, stop: int, logits: Array) -> None:
        """logits = W h^T, (words, B): the bias is not yet in them."""
        np.matmul(self.weight[start:stop], self.h.T, out=logits)

    def sweep_one(
        self, kept: Array, shifts: Array, highest: Array, log_sum: Array, losses: Array, between: Between | None
    ) -> Array:
        """Compute the statistics and losses, and `kept` and `shifts` unless they are empty; return log_sum in float64.

        kept              (V, B) or (0, B)          out: e
        shifts            (V / STEP, B) or (0, B)   out: what was subtracted in each block, at its first word
        highest, log_sum  (B,)                      out
        losses            (B,)                      out
        between           or None: between the sweeps, see the reference
        """
        tops = np.full((len(self.slices), len(self.h)), _LOWEST)
        sums, logit_sums = np.zeros(tops.shape), np.zeros(tops.shape)
        target_logits = np.full(len(self.h), 0 if between is None else -np.inf, np.float32)
        with_logit_sums = bool(self.label_smoothing)

        def sweep(first: int, last: int) -> None:
            number = first // self.slices[0][1]
            outputs = tops[number], sums[number], logit_sums[number], target_logits
            for start, stop, logits in self.blocks(first, last, kept):
                self.make_logits(start, stop, logits)
                _exponentials(logits, self.bias[start:stop], self.targets - start, with_logit_sums, *outputs)
                if len(kept):
                    shifts[start // STEP] = tops[number]

        run_products(sweep, self.slices, self.threads)
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
        with work_arrays((words, rows), (-(-words // STEP), rows), self.dh_parts(dh)) as arrays:
            yield arrays

    def pieces_of(self, dweight: Array | None, dbias: Array | None) -> Pieces:
        """Return the function that finds a block's part of dweight (without rows if it is not wanted) and of dbias."""
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
        pieces                   the arrays of a block's dweight and dbias
        when_made                called for a block when its gradients, its part of dh included, are complete
        """
        at_target = np.float32(1 - self.label_smoothing)
        spread = np.float32(self.label_smoothing / len(self.weight))

        def sweep(first: int, last: int) -> None:
            part = dh_parts[first // self.slices[0][1]]
            more = np.empty_like(part[: len(part) if last - first > self.block else 0])
            for start, stop, dlogits in self.blocks(first, last, kept):
                if not len(kept):
                    self.make_logits(start, stop, dlogits)
                bias = self.bias[start : start if len(kept) else stop]
                shift = read_only(shifts[start // STEP] if len(kept) else highest)
                dweight, dbias = pieces(start, stop)
                truth = self.targets - start, self.row_scale, at_target, spread
                _dlogits(dlogits, bias, shift, read_only(highest), log_sum, *truth, dbias)
                if len(part):
                    np.matmul(dlogits.T, self.weight[start:stop], out=part if start == first else more)
                if start > first:
                    part += more
                if len(dweight):
                    np.matmul(dlogits, self.h, out=dweight)
                when_made(start, stop, dweight, dbias)

        run_products(sweep, self.slices, self.threads)
        if dh is None:
            return
        parts, total = dh_parts.reshape(len(self.slices), dh.size), dh.reshape(-1)
        slices = cut_elements(dh.size, times=len(self.slices))
        team.run_slices(lambda first, last: column_sums(parts, first, last, total), slices, self.threads)


@jit
def _exponentials(
    logits: Array,
    bias: Array,
    targets: Array,
    with_logit_sums: bool,
    highest: Array,
    sums: Array,
    logit_sums: Array,
    target_logits: Array,
) -> None:
    """A block of sweep one.

    logits         (words, B)  in: without the bias; out: e
    bias           (words,)    in
    targets        (B,)        in: counted from the block's first word
    highest, sums  (B,)        in/out: the slice's maximum so far; its sum of exp(logits - maximum)
    logit_sums     (B,)        in/out: its sum of logits, for label smoothing
    target_logits  (B,)        out: logits of the targets that are in this block
    """
    words, rows = logits.shape
    before, block_sum = highest.copy(), np.zeros(rows, np.float32)
    for v in range(words):
        word, b_v = logits[v], bias[v]
        for b in range(rows):
            logit = word[b] + b_v
            word[b] = logit
            highest[b] = logit if logit > highest[b] else highest[b]
        if with_logit_sums:
            for b in range(rows):
                logit_sums[b] += word[b]
    for b in range(rows):
        if 0 <= targets[b] < words:  # left out of a float32 sum in which the others would be lost beside it
            target_logits[b] = logits[targets[b], b]
            logits[targets[b], b] = -np.inf
    for v in range(words):
        word = logits[v]
        for b in range(rows):
            e = exp_nonpositive(word[b] - highest[b])
            word[b] = e
            block_sum[b] += e
    for b in range(rows):
        sums[b] = sums[b] * exp_nonpositive(before[b] - highest[b]) + block_sum[b]
        if 0 <= targets[b] < words:
            logits[targets[b], b] = exp_nonpositive(target_logits[b] - highest[b])
            sums[b] += logits[targets[b], b]


@jit
def _dlogits(
    dlogits: Array,
    bias: Array,
    shift: Array,
    highest: Array,
    log_sum: Array,
    targets: Array,
    row_scale: Array,
    at_target: Any,
    spread: Any,
    dbias: Array,
) -> None:
    """A block of sweep two; the truth is `spread` for each word, plus `at_target` for the target.

    dlogits  (words, B)        in: e, or the logits without the bias; out
    bias     (0,) or (words,)  in: it tells which
    shift    (B,)              in: what was, or is to be, subtracted in the exponential
    targets  (B,)              in: counted from the block's first word
    """
    words, rows = dlogits.shape
    factor = np.empty(rows, np.float32)
    for b in range(rows):
        factor[b] = exp_nonpositive(np.float32(shift[b] - highest[b] - log_sum[b]))
    if bias.size:
        for v in range(words):
            word, b_v = dlogits[v], bias[v]
            for b in range(rows):
                word[b] = exp_nonpositive(word[b] + b_v - shift[b])
    of_targets = np.zeros(rows, np.float32)  # p - 1 in float64: p may be near 1
    for b in range(rows):
        if 0 <= targets[b] < words:
            p = dlogits[targets[b], b] * math.exp(np.float64(shift[b]) - highest[b] - log_sum[b])
            of_targets[b] = (p - at_target - spread) * row_scale[b]
    for v in range(words):
        word = dlogits[v]
        for b in range(rows):
            word[b] = (word[b] * factor[b] - spread) * row_scale[b]
    for b in range(rows):
        if 0 <= targets[b] < words:
            dlogits[targets[b], b] = of_targets[b]
    for v in range(words):
        dbias[v] = row_sum(dlogits[v])
