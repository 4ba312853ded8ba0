"""A text as a network sees it: its parts, windows and batches."""

from fastmlp.data.batches import EpochBatches, RandomBatches, StretchBatches
from fastmlp.data.windows import Batch, Split, Windows, as_ids, evenly_spaced, split_ids

__all__ = [
    "Batch",
    "EpochBatches",
    "RandomBatches",
    "Split",
    "StretchBatches",
    "Windows",
    "as_ids",
    "evenly_spaced",
    "split_ids",
]
