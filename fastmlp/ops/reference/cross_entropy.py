"""cross_entropy: softmax and negative log-likelihood of given logits."""

from typing import Any

import numpy as np

from fastmlp.ops.contract import contract, floats, ids, out

Array = np.ndarray


def _counted(row_scale: Array) -> Any:
    """Return an index of the rows that are not ignored; a slice, which copies nothing, if all are."""
    return slice(None) if row_scale.all() else np.flatnonzero(row_scale)


@contract(
    logits=floats("B", "V"),
    targets=ids("B", below="V"),
    row_scale=floats("B"),
    highest=out("B"),
    log_sum=out("B"),
    losses=out("B"),
)
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
    """Compute the loss of each true next word: how much it surprises the model.

    logits     (B, V)  in:  scores, any scale
    targets    (B,)    in:  ids of the true next words, 0 <= id < V
    row_scale  (B,)    in:  see the top of this file
    highest    (B,)    out: the largest logit, for the backward pass, as is
    log_sum    (B,)    out: log sum exp(logits - highest); both are 0 where row_scale is 0
    losses     (B,)    out: log sum exp(logits) - logits[target], in nats, not scaled; 0 where row_scale is 0
    label_smoothing    share of the true word's probability that is spread over all V words, itself included
    """
    counted = _counted(row_scale)
    highest[...] = log_sum[...] = losses[...] = 0
    rows, true = logits[counted], targets[counted]
    top = rows.max(axis=1)
    below = rows - top[:, None]
    log_sums = np.log(np.exp(below).sum(axis=1))
    loss = (1 - label_smoothing) * (log_sums - below[np.arange(true.size), true])
    if label_smoothing:
        loss += label_smoothing * (log_sums - below.mean(axis=1))
    highest[counted], log_sum[counted], losses[counted] = top, log_sums, loss


@contract(
    logits=floats("B", "V"),
    targets=ids("B", below="V"),
    row_scale=floats("B"),
    highest=floats("B"),
    log_sum=floats("B"),
    dlogits=out("B", "V"),
)
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
    """dlogits = (softmax(logits) - truth) * row_scale, where truth is 1 at the target, smoothed as in the forward pass.

    logits, targets, row_scale  in:  as in the forward pass
    highest, log_sum  (B,)      in:  outputs of the forward pass
    dlogits  (B, V)             out: 0 where row_scale is 0; it may be logits
    """
    counted = np.flatnonzero(row_scale)
    np.subtract(logits, highest[:, None], out=dlogits)
    dlogits -= log_sum[:, None]
    dlogits[row_scale == 0] = 0  # row_scale makes their results 0, but not a NaN
    np.exp(dlogits, out=dlogits)
    if label_smoothing:
        dlogits -= label_smoothing / logits.shape[1]
    dlogits[counted, targets[counted]] -= 1 - label_smoothing
    dlogits *= row_scale[:, None]


@contract(
    logits=floats("B", "V"),
    targets=ids("B", below="V"),
    row_scale=floats("B"),
    highest=out("B"),
    log_sum=out("B"),
    losses=out("B"),
    dlogits=out("B", "V"),
)
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
    """Forward and backward in one.

    The arguments are those of cross_entropy_forward, then the gradient of cross_entropy_backward.
    """
    inputs = logits, targets, row_scale, highest, log_sum
    cross_entropy_forward(*inputs, losses, label_smoothing=label_smoothing)
    cross_entropy_backward(*inputs, dlogits, label_smoothing=label_smoothing)
