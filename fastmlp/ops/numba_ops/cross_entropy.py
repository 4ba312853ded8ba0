"""cross_entropy in Numba."""

import math

import numpy as np

from fastmlp.ops import team
from fastmlp.ops.numba_ops._arithmetic import exp_nonpositive, highest_of, sums_below
from fastmlp.ops.numba_ops._jit import jit, read_only, rows_worth_waking
from fastmlp.ops.numba_ops.softmax import softmax_row

Array = np.ndarray


def targets_looked_at(targets: Array, row_scale: Array) -> Array:
    """Return targets as int64; ignored rows get -1, which is no word's id."""
    return np.where(row_scale != 0, targets, -1).astype(np.int64, copy=False)


def cross_entropy_forward(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    *,
    label_smoothing: float = 0.0,
    threads: int = 1,
) -> None:
    """Sliced over the rows of the batch."""
    inputs = read_only(logits), targets_looked_at(targets, row_scale), float(label_smoothing)
    slices = team.cut(len(logits), rows_worth_waking(logits))
    outputs = highest, log_sum, losses
    team.run_slices(lambda first, last: _cross_entropy_forward(first, last, *inputs, *outputs), slices, threads)


@jit
def _cross_entropy_forward(
    first: int,
    last: int,
    logits: Array,
    targets: Array,
    label_smoothing: float,
    highest: Array,
    log_sum: Array,
    losses: Array,
) -> None:
    for i in range(first, last):
        highest[i] = log_sum[i] = losses[i] = 0
        if targets[i] < 0:
            continue
        row = logits[i]
        top = highest_of(row)
        total, below = sums_below(row, top)
        exact_log_sum = math.log(total)
        loss = (1 - label_smoothing) * (exact_log_sum + (np.float64(top) - row[targets[i]]))
        if label_smoothing:
            loss += label_smoothing * (exact_log_sum - below / row.size)
        highest[i], log_sum[i], losses[i] = top, exact_log_sum, loss


def cross_entropy_backward(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    dlogits: Array,
    *,
    label_smoothing: float = 0.0,
    threads: int = 1,
) -> None:
    """Sliced over the rows of the batch."""
    inputs = read_only(logits), targets_looked_at(targets, row_scale), read_only(row_scale)
    arguments = *inputs, read_only(highest), read_only(log_sum), float(label_smoothing), dlogits
    slices = team.cut(len(logits), rows_worth_waking(logits))
    team.run_slices(lambda first, last: _cross_entropy_backward(first, last, *arguments), slices, threads)


@jit
def _cross_entropy_backward(
    first: int,
    last: int,
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    label_smoothing: float,
    dlogits: Array,
) -> None:
    spread = np.float32(label_smoothing / logits.shape[1])
    for i in range(first, last):
        row, drow, top, rest, scale = logits[i], dlogits[i], highest[i], log_sum[i], row_scale[i]
        if targets[i] < 0:
            drow[:] = 0
            continue
        for j in range(row.size):
            drow[j] = (exp_nonpositive(row[j] - top - rest) - spread) * scale
        drow[targets[i]] -= np.float32(1 - label_smoothing) * scale


def cross_entropy(
    logits: Array,
    targets: Array,
    row_scale: Array,
    highest: Array,
    log_sum: Array,
    losses: Array,
    dlogits: Array,
    *,
    label_smoothing: float = 0.0,
    threads: int = 1,
) -> None:
    """Sliced over the rows of the batch."""
    inputs = read_only(logits), targets_looked_at(targets, row_scale), float(label_smoothing)
    scale = read_only(row_scale)

    def rows(first: int, last: int) -> None:
        _cross_entropy_forward(first, last, *inputs, highest, log_sum, losses)
        _dlogits_of_softmax(first, last, *inputs, scale, dlogits)

    team.run_slices(rows, team.cut(len(logits), rows_worth_waking(logits)), threads)


@jit
def _dlogits_of_softmax(
    first: int, last: int, logits: Array, targets: Array, label_smoothing: float, row_scale: Array, dlogits: Array
) -> None:
    spread = np.float32(label_smoothing / logits.shape[1])
    for i in range(first, last):
        drow, scale = dlogits[i], row_scale[i]
        if targets[i] < 0:
            drow[:] = 0
            continue
        softmax_row(logits[i], drow)
        for j in range(drow.size):
            drow[j] = (drow[j] - spread) * scale
        drow[targets[i]] -= np.float32(1 - label_smoothing) * scale
