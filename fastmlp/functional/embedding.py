"""Rows of a table by their ids."""

import numpy as np

from fastmlp.arrays import (
    WHOLE,
    ArrayLike,
    float_array,
    hand_over,
    id_array,
    ids_out_of_range,
    place_for,
    upstream_gradient,
)
from fastmlp.functional._float16 import takes_float16
from fastmlp.functional._shapes import threads_for
from fastmlp.ops.backend import ops_of

__all__ = ["embedding", "embedding_backward"]

Array = np.ndarray


@takes_float16
def embedding(
    input: ArrayLike,
    weight: ArrayLike,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Look up rows of a table: weight[input].

    input               (...)     ids, 0 <= id < V
    weight              (V, D)    one row a word
    padding_idx         an id, from the end if negative; no effect here: see embedding_backward
    scale_grad_by_freq  no effect here; see embedding_backward
    out                 (..., D)
    Returns (..., D). Raises IndexError for an id out of range; NotImplementedError for max_norm, which
    writes to the table while it is read, and for sparse, as NumPy has no sparse arrays.
    Source: torch.nn.functional.embedding.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.embedding(np.array([[2, 0]]), np.array([[0, 1], [2, 3], [4, 5]], np.float32))
    array([[[4., 5.],
            [0., 1.]]], dtype=float32)
    """
    if max_norm is not None:
        raise NotImplementedError(
            f"embedding: max_norm: expected None, got {max_norm}: rows would be rescaled in place in the forward pass"
        )
    if sparse:
        raise NotImplementedError("embedding: sparse: expected False: NumPy has no sparse arrays")
    ids, table = id_array("embedding", "input", input), float_array("embedding", "weight", weight)
    _check_table("embedding", table, padding_idx)
    width = table.shape[1]
    emb = place_for("embedding", out, (*ids.shape, width), table.dtype, ids, table)
    try:
        ops_of(table.dtype).embedding_forward(table, *_batch(ids, emb), threads=threads_for(threads, 0))
    except IndexError:
        raise ids_out_of_range("embedding", "input", ids, len(table)) from None
    return hand_over(emb, out)


@takes_float16
def embedding_backward(
    grad: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    padding_idx: int | None = None,
    scale_grad_by_freq: bool = False,
    *,
    threads: int | None = None,
) -> Array:
    """The gradient of the table: row i is the sum of `grad` over all places where the id is i.

    grad                (..., D)  gradient of embedding's output
    input, weight       those of embedding
    padding_idx         an id whose row gets no gradient
    scale_grad_by_freq  divide each row by how often its id occurs
    Returns dweight (V, D), 0 where no id is.
    Source: torch.nn.functional.embedding, its gradient.

    >>> import numpy as np
    >>> import fastmlp.functional as F
    >>> F.embedding_backward(np.ones((3, 2), np.float32), np.array([2, 0, 2]), np.zeros((3, 2), np.float32))
    array([[1., 1.],
           [0., 0.],
           [2., 2.]], dtype=float32)
    """
    name = "embedding_backward"
    ids, table = id_array(name, "input", input), float_array(name, "weight", weight)
    _check_table(name, table, padding_idx)
    demb = upstream_gradient(name, "grad", grad, (*ids.shape, table.shape[1]), table.dtype)
    words, width = table.shape
    rows, drows = np.empty(ids.size, ids.dtype), np.empty((ids.size, width), table.dtype)
    try:
        unique = ops_of(table.dtype).embedding_backward(
            *_batch(ids, demb), rows, drows, threads=threads_for(threads, drows.size)
        )
    except IndexError:  # below 0
        raise ids_out_of_range(name, "input", ids, words) from None
    rows, drows = rows[:unique], drows[:unique]
    if unique and rows[-1] >= words:  # they are in order
        raise ids_out_of_range(name, "input", ids, words)
    if scale_grad_by_freq:
        drows /= np.unique(ids, return_counts=True)[1][:, None].astype(table.dtype)
    dweight = np.zeros(table.shape, table.dtype)
    dweight[rows] = drows
    if padding_idx is not None:
        dweight[padding_idx] = 0
    return dweight


def _batch(ids: Array, emb: Array) -> tuple[Array, Array]:
    """Return ids as (B, T) and their embedding as (B, T, D)."""
    return (ids, emb) if ids.ndim == 2 else (ids.reshape(1, ids.size), emb.reshape(1, ids.size, emb.shape[-1]))


def _check_table(name: str, table: Array, padding_idx: int | None) -> None:
    if table.ndim != 2:
        raise ValueError(f"{name}: weight: expected shape (V, D), got {table.shape}")
    words = len(table)
    if padding_idx is not None and not isinstance(padding_idx, WHOLE):
        raise TypeError(f"{name}: padding_idx: expected None or an id, got {padding_idx!r}")
    if padding_idx is not None and not -words <= padding_idx < words:
        raise ValueError(f"{name}: padding_idx: expected None or an id in [{-words}, {words}), got {padding_idx}")
