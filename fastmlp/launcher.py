"""What the launcher of MPI's processes tells them, before MPI is there."""

import contextlib
import os

__all__ = ["launched"]

# Of its rank and how many there are a process learns from: Hydra (MPICH, Intel MPI) and Slurm's pmi2, Open MPI,
# MVAPICH, Slurm's pmix.
VARIABLES = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
)


def launched() -> tuple[int, int]:
    """Return this process's rank and the number of ranks, as its launcher says; (0, 1) if no launcher started it."""
    for rank, size in VARIABLES:
        with contextlib.suppress(ValueError, KeyError):
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1
