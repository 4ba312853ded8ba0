"""What a run trains: a network, its optimizer and its batches, and of several ranks the part of each."""

import zlib
from collections.abc import Iterator

import numpy as np

from fastmlp.config import NETWORK_OPTIONS, TrainConfig
from fastmlp.data.batches import Batches
from fastmlp.data.corpus import Corpus, ToTrain
from fastmlp.data.windows import Batch
from fastmlp.distributed.group import Group
from fastmlp.errors import GroupError
from fastmlp.network.network import Network
from fastmlp.network.shape import NetworkShape
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.training.optimizer import make_optimizer, optimizer_state, set_learning_rate
from fastmlp.training.state import OPTIMIZER, all_finite

__all__ = ["Trainee", "make_network", "training_precision"]

Array = np.ndarray
OF_SHAPE = (*NETWORK_OPTIONS, "embed_std")


def training_precision(config: TrainConfig, backend: Backend) -> str:
    """Return how training makes its products: "auto" is the fastest that trains to the same loss.

    bf16 does, wherever it is to be had: the tests of the trainer lay the curves over each other.
    """
    here = backend.ops.precisions()
    if config.precision == "auto":
        return "bf16" if "bf16" in here else here[0]
    if config.precision not in here:
        kernels = " ".join(filter(None, (backend.ops.backend, backend.simd)))
        raise ConfigError(
            "precision", f"expected auto or {', '.join(here)}, which {kernels} has, got {config.precision!r}"
        )
    return config.precision


def make_network(
    config: TrainConfig, text: Corpus | ToTrain, backend: Backend, threads: int, group: Group | None = None
) -> Network:
    """Return the network that a configuration asks for, for the words of a text; with a group, this rank's part."""
    options = {name: getattr(config, name) for name in OF_SHAPE if name != "hidden"}
    to_train = text.to_train() if isinstance(text, Corpus) else text
    return Network(
        NetworkShape(to_train.size, hidden=config.widths, **options),
        backend.ops,
        threads=threads,
        fp32_precision=training_precision(config, backend),
        seed=config.seed,
        counts=to_train.counts() if config.output_bias == "frequencies" else None,
        group=group,
    )


class Trainee:
    """A rank's part of what is trained.

    arrays  weights, running statistics and the optimizer's state by their names in a checkpoint, sorted
    """

    def __init__(self, config: TrainConfig, text: ToTrain, backend: Backend, threads: int, group: Group) -> None:
        try:
            self.network = make_network(config, text, backend, threads, group)
        except ValueError as error:
            raise GroupError(f"{text.size:,} words cannot be shared out over {group.size} ranks") from error
        self.optimizer = make_optimizer(config, self.network.layers)
        self.batches: Batches = text.batches(config)
        remembered, _ = optimizer_state(self.optimizer, self.network.layers)
        state = {f"{OPTIMIZER}{name}": array for name, array in remembered.items()}
        self.arrays = dict(sorted({**self.network.state_dict(), **state}.items()))
        self.names = [*self.arrays]

    def rows(self, name: str) -> int | None:
        """Return how many rows an array has of all words; None if it is no array of words."""
        param = name if not name.startswith(OPTIMIZER) else name.removeprefix(OPTIMIZER).partition(".")[2]
        return self.network.rows_of(param) if self.network.is_of_part(param) else None

    def step(self, batch: Batch, number: int, rate: float) -> float:
        """Train on a batch, together with all ranks; return the mean loss."""
        set_learning_rate(self.optimizer, rate)
        return self.network.step(batch, self.optimizer, number)

    def gathered(self, name: str) -> Iterator[Array]:
        """Yield an array of all words in blocks, on rank 0; all ranks go through it together."""
        assert self.network.part is not None
        return self.network.part.gathered(self.arrays[name])

    def take(self, name: str, whole: Array | None) -> None:
        """Set an array, or this part's rows of it, from the one that rank 0 has."""
        own, part = self.arrays[name], self.network.part
        assert part is not None
        if self.rows(name) is not None:
            part.take_from_rank_0(whole, own)
        else:
            sent = own if whole is None else np.asarray(whole, own.dtype)
            own[...] = part.group.allgather(sent.reshape(-1))[0].reshape(own.shape)

    def check(self) -> tuple[int, int]:
        """Return the number of the first array that is not finite, or -1; and a checksum of what all ranks have."""
        checksum, bad = 0, -1
        for number, (name, array) in enumerate(self.arrays.items()):
            if bad < 0 and not all_finite(array):
                bad = number
            if self.rows(name) is None:
                checksum = zlib.crc32(array.tobytes(), checksum)
        return bad, checksum

    def set_updates(self, number: int) -> None:
        """Count so many updates as made."""
        for _, module, name in self.network.layers.named_owners():
            self.optimizer.remembered(module, name)["step"] = number
