"""Run by mpiexec: a run with a vocabulary of a given size, and what it took of memory; a line of JSON on rank 0.

memory.py V FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.config import TrainConfig
from fastmlp.distributed import mpi_group
from fastmlp.trainer import open_run
from fastmlp.training.ranks import Leader, follow, meet

B, D, H = 32, 30, 256
WORDS = 20_000
WORD = 160  # bytes of a word and its place in the vocabulary, as Python has them
EXPONENTIALS, ACTIVATIONS = 1 << 28, 1 << 26  # at most: of the last layer's op; all else that the sizes here bound


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def formula(V: int, rank: int, ranks: int) -> int:
    """Return what fastmlp/trainer.py says of a rank, in bytes.

    Weights and AdamW's two numbers for each: of the words of this part, and of the hidden layers; on rank 0 the whole
    weights once more, for predictions, and the words themselves.
    """
    words, rest = V * (D + H + 1), 4 * D * H + 4 * H
    part = 4 * 3 * (words // ranks + rest)
    exponentials = min(EXPONENTIALS, 4 * (V // ranks) * (B + 16))
    gradients = 4 * (V // ranks + rest)
    return part + gradients + exponentials + ACTIVATIONS + (4 * (words + rest) + WORD * V if rank == 0 else 0)


def main() -> None:
    V, folder = int(sys.argv[1]), sys.argv[2]
    group = mpi_group()
    before = peak()
    met = meet(group, {})
    if group.rank:
        follow(group, met)
    else:
        options: dict[str, Any] = {"hidden": (H,), "embed": D, "vocab_size": V, "batch_size": B, "steps": 4}
        config = TrainConfig(**options, out=folder, val_fraction=0.0, precision="ieee", lr=0.001, threads=1)
        leader = Leader(group, met)
        ids = np.random.default_rng(1).integers(0, V, WORDS).astype(np.int32)
        with open_run(config, text=ids, leader=leader) as run:
            run.train()
        leader.end(0)
    found = group.share((peak() - before, formula(V, group.rank, group.size)))
    if group.rank == 0:
        json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
