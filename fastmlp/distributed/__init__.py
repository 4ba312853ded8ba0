"""A training shared out over processes: groups of ranks, and the parts of a vocabulary that they own.

    group = mpi_group()                                   # under mpiexec -n 4 python script.py
    model.fit(Path("hp.txt"), group=group)                # a LanguageModel: the weights are rank 0's
    criterion = nn.LinearCrossEntropyLoss(300, 1_000_000, group=group)    # the loss of words of which each has a part

Every rank owns each size-th word's row of the output layer, of the embedding, and of what the optimizer remembers of
them; the hidden layers are small, and every rank computes them alike. `Group` is all that a rank asks of the others:
`MPIGroup` has it from mpi4py, `Alone` is a single process. benchmarks/README.md says what travels, and what it gains.
"""

from fastmlp.distributed.group import Alone, Group
from fastmlp.distributed.mpi import MPIGroup, mpi_group
from fastmlp.distributed.part import Part

__all__ = ["Alone", "Group", "MPIGroup", "Part", "mpi_group"]
