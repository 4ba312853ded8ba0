"""A run of several ranks, of which each owns a part of the words: rank 0 leads it, the others follow.

Rank 0 alone has the text, the folder, the console and the loop (training/run.py). It first sends a plan: the
configuration and the ids to train on. From then on the others wait for its orders, and obey them together with it:

    STEP     the next batch, which each takes from the ids, at a learning rate
    GATHER   the rows of an array of all words go to rank 0, which evaluates, draws texts and saves with whole weights
    PUT      the rows, or all, of an array come from rank 0, which has loaded a checkpoint
    UPDATES  how many updates the optimizer has made, likewise
    CHECK    whether all numbers are finite, and what every rank has is the same
    RELEASE  another plan comes, or the end

With an order each of the others says whether a signal has asked it to stop.
"""

import contextlib
import hashlib
import os
import platform
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp import __version__
from fastmlp.config import TrainConfig, to_dict, with_rules
from fastmlp.data.corpus import Corpus, ToTrain
from fastmlp.data.windows import Batch, Windows
from fastmlp.distributed.group import Group
from fastmlp.errors import DivergedError, GroupError
from fastmlp.files.checkpoint import Blocks
from fastmlp.network.network import Network
from fastmlp.ops import backend as backends
from fastmlp.ops.backend import Backend
from fastmlp.options import system_path
from fastmlp.text.reading import Text
from fastmlp.threads import MOST_THREADS, VARIABLE, default_threads, usable_cores
from fastmlp.training.state import TrainingState, is_of_words
from fastmlp.training.trainee import Trainee, training_precision

__all__ = ["Leader", "Rank", "StateOfRanks", "follow", "followed", "leading", "meet"]

Array = np.ndarray
STEP, GATHER, PUT, UPDATES, CHECK, RELEASE = range(6)
OWN = ("threads", "debug", "json", "quiet", "overwrite", "resume", "mpi")  # options in which ranks may differ


@dataclass(frozen=True)
class Rank:
    """What a rank says of itself.

    host, cores  its machine, and which of its cores the process may use
    bound        whether it may use fewer than the machine has
    version      of fastmlp
    options      that it was given
    text         SHA-256 of the text that it was given in memory; None: the text is in files
    """

    host: str
    cores: frozenset[int]
    bound: bool
    version: str
    options: dict[str, Any]
    text: str | None


def this_rank(options: Mapping[str, Any], text: Text | Array | None = None) -> Rank:
    """Describe this process."""
    can_tell = hasattr(os, "sched_getaffinity")
    cores = frozenset(os.sched_getaffinity(0)) if can_tell else frozenset(range(usable_cores()))
    compared = {name: value for name, value in options.items() if name not in OWN}
    bound = len(cores) < (os.cpu_count() or 1)
    return Rank(platform.node(), cores, bound, __version__, compared, _digest(text))


def _digest(text: Text | Array | None) -> str | None:
    if text is None:
        return None
    if isinstance(text, Text):
        return text.sha256
    return hashlib.sha256(np.ascontiguousarray(text, "<i8").tobytes()).hexdigest()


def meet(group: Group, options: Mapping[str, Any], text: Text | Array | None = None) -> list[Rank]:
    """Return what every rank says of itself; raise GroupError, on all, if one differs from rank 0.

    options  that this rank was given
    """
    ranks: list[Rank] = group.share(this_rank(options, text))
    first = ranks[0]
    for number, rank in enumerate(ranks):
        name = f"rank {number} on {rank.host}"
        if rank.version != first.version:
            raise GroupError(f"{name} has fastmlp {rank.version}, and rank 0 on {first.host} {first.version}")
        for option in sorted({*first.options, *rank.options}):
            one, other = (str(who.options.get(option, "nothing")) for who in (rank, first))
            if one != other:
                raise GroupError(f"{name} was given another {option} than rank 0: {one}, not {other}")
        if rank.text != first.text:
            raise GroupError(f"{name} was given another text than rank 0: the same text goes to every rank")
    return ranks


def threads_of(ranks: list[Rank], number: int, given: int | None) -> int:
    """Return the threads of a rank: as given, else its share of the cores, of which each is for all that may use it."""
    if given is not None or os.environ.get(VARIABLE, "").strip():
        return default_threads(given)
    own = ranks[number]
    others = [rank.cores for rank in ranks if rank.host == own.host]
    share = sum(1 / sum(core in cores for cores in others) for core in own.cores)
    return max(1, min(int(share + 1e-9), MOST_THREADS))


def notices_of(ranks: list[Rank]) -> Iterator[str]:
    """Yield what is odd in how ranks lie on their machines."""
    for host in dict.fromkeys(rank.host for rank in ranks):
        here = [rank for rank in ranks if rank.host == host]
        used = frozenset[int]().union(*(rank.cores for rank in here))
        if all(rank.bound and len(rank.cores) == 1 for rank in here):
            yield (
                f"the launcher has bound each rank on {host} to one core; for all cores of the machine start them with"
                " mpiexec --bind-to none"
            )
        elif len(here) > len(used):
            yield f"{len(here)} ranks share {len(used)} cores of {host}: fewer ranks would be faster"


@dataclass(frozen=True)
class Plan:
    """What rank 0 tells the others of a run before its first order.

    config   the complete configuration
    size     V
    ids      (N,) to train on; None: those of the plan before
    padding  the id that stands before them
    files    SHA-256 of the files that were read, by name
    """

    config: dict[str, Any]
    size: int
    ids: Array | None
    padding: int
    files: dict[str, str]


@dataclass(frozen=True)
class Ended:
    """Instead of a plan: there is none."""

    status: int
    reason: str | None = None


def _compare_backends(group: Group, ranks: list[Rank], backend: Backend, precision: str) -> None:
    """Raise GroupError, on all ranks, if one computes in another way than rank 0: the hidden layers would drift."""
    own = " ".join(filter(None, (backend.ops.backend, backend.simd, precision)))
    found = group.share(own)
    for number, other in enumerate(found):
        if other != found[0]:
            raise GroupError(
                f"rank {number} on {ranks[number].host} runs {other}, and rank 0 on {ranks[0].host} {found[0]}:"
                " FASTMLP_SIMD and --backend choose what all of them have (python -m fastmlp.info shows it)"
            )


class Leader:
    """Rank 0: gives the orders.

    signal  the number of the signal that has asked another rank to stop; 0: none
    """

    def __init__(self, group: Group, ranks: list[Rank]) -> None:
        """ranks  result of `meet`"""
        self.group, self.ranks = group, ranks
        self.signal = 0
        self._sent: Array | None = None  # the ids of the last plan
        self._trainee: Trainee | None = None
        self._waiting = True  # whether all others wait for an order, or for a plan where there is no trainee
        self._filled: Network | None = None  # the network that has the weights as they are now

    def threads(self, given: int | None) -> int:
        """Return the threads of this rank."""
        return threads_of(self.ranks, 0, given)

    def notices(self) -> Iterator[str]:
        """Yield what is odd in how ranks lie on their machines."""
        return notices_of(self.ranks)

    @property
    def others_wait(self) -> bool:
        """Whether all others wait for an order."""
        return self._waiting

    @property
    def hosts(self) -> int:
        """How many machines there are."""
        return len({rank.host for rank in self.ranks})

    def begin(self, config: TrainConfig, corpus: Corpus, backend: Backend, threads: int) -> Trainee:
        """Send the plan of a run; return this rank's part of it."""
        self.release()
        self._waiting = False
        text, padding = corpus.to_train(), corpus.padding()
        ids = None if self._sent is text.train.targets else text.train.targets
        files = {file.name: digest for file in corpus.files if (digest := _digest_of_file(file.name)) is not None}
        self.group.share(Plan(to_dict(config), text.size, ids, padding, files))
        self._sent = text.train.targets
        differing = self.group.share(None)
        for number, name in enumerate(differing):
            if name is not None:
                host = self.ranks[number].host
                raise GroupError(f"{name} on rank {number} ({host}) is another text than on rank 0: copy one to all")
        _compare_backends(self.group, self.ranks, backend, training_precision(config, backend))
        self._trainee = Trainee(config, text, backend, threads, self.group)
        self._waiting = True
        return self._trainee

    @contextlib.contextmanager
    def _order(self, what: int, number: int = 0, rate: float = 0.0) -> Iterator[Trainee]:
        """Give an order; within, this rank obeys it too."""
        assert self._trainee is not None
        self._waiting = False
        told = self.group.allgather(np.array([[what, number, rate, 0]], np.float64))
        self.signal = max(self.signal, *(int(each[0, 3]) for each in told))
        yield self._trainee
        self._waiting = True

    def step(self, batch: Batch, number: int, rate: float) -> float:
        """Train on the batch of a step, at a learning rate; return the mean loss."""
        self._filled = None
        with self._order(STEP, number, rate) as trainee:
            return trainee.step(batch, number, rate)

    def whole_network(self) -> Network:
        """Return a network of all words, for predictions, that has room for the weights."""
        assert self._trainee is not None
        own = self._trainee.network
        zeros = {
            name: np.broadcast_to(array.dtype.type(0), self._shape(name)) for name, array in own.state_dict().items()
        }
        return Network(own.shape, own.ops, threads=own.threads, parameters=zeros)

    def fill(self, network: Network) -> None:
        """Give a network of all words the weights as they are now."""
        assert self._trainee is not None
        if self._filled is network:
            return
        for name, array in network.state_dict().items():
            if self._trainee.rows(name) is None:
                array[...] = self._trainee.arrays[name]
                continue
            first = 0
            for block in self.gathered(name):
                array[first : first + len(block)] = block
                first += len(block)
        self._filled = network

    def gathered(self, name: str) -> Iterator[Array]:
        """Yield an array of all words, a block of rows after the other."""
        assert self._trainee is not None
        with self._order(GATHER, self._trainee.names.index(name)) as trainee:
            yield from trainee.gathered(name)

    def tensors(self) -> dict[str, Array | Blocks]:
        """Return weights and optimizer state by their names in a checkpoint; what has rows of words comes in blocks."""
        assert self._trainee is not None
        arrays = self._trainee.arrays
        return {
            name: arrays[name]
            if self._trainee.rows(name) is None
            else Blocks(arrays[name].dtype, self._shape(name), partial(self.gathered, name))
            for name in arrays
        }

    def _shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array with all words."""
        assert self._trainee is not None
        rows, own = self._trainee.rows(name), self._trainee.arrays[name].shape
        return own if rows is None else (rows, *own[1:])

    def put(self, tensors: Mapping[str, Array], updates: int) -> None:
        """Set all arrays, and the optimizer's number of updates, on all ranks.

        Raise ValueError, before anything is set, if one is missing, is not known or has another shape.
        """
        assert self._trainee is not None
        self._filled, arrays = None, self._trainee.arrays
        if arrays.keys() != tensors.keys():
            raise ValueError(f"state: expected {', '.join(arrays)}, got {', '.join(tensors)}")
        for name in arrays:
            if tensors[name].shape != self._shape(name):
                raise ValueError(f"state: {name}: expected shape {self._shape(name)}, got {tensors[name].shape}")
        for number, name in enumerate(arrays):
            with self._order(PUT, number) as trainee:
                trainee.take(name, tensors[name])
        with self._order(UPDATES, updates) as trainee:
            trainee.set_updates(updates)

    def not_finite(self) -> str | None:
        """Return the name of an array with a number that is infinite or none, on any rank; None if there is none.

        Raise DivergedError if what all ranks have is not the same on each.
        """
        with self._order(CHECK) as trainee:
            found = self.group.share(trainee.check())
        for number, (_, checksum) in enumerate(found):
            if checksum != found[0][1]:
                raise DivergedError(
                    f"the hidden layers of rank {number} on {self.ranks[number].host} are no longer those of rank 0:"
                    " its processor or memory may be at fault; the last checkpoint is whole"
                )
        bad = [number for number, _ in found if number >= 0]
        return trainee.names[min(bad)] if bad else None

    def release(self) -> None:
        """Let the others go from the last plan, so that another can come."""
        if self._trainee is not None:
            with self._order(RELEASE):
                pass
            self._trainee = None

    def end(self, status: int, reason: str | None = None) -> None:
        """End the run on all ranks, with an exit status: by an order if the others wait for one, else by force.

        reason  of a failure, for the others' callers
        """
        if not self._waiting:
            self.group.abort(status)
            return
        self.release()
        self._waiting = False
        self.group.share(Ended(status, reason))


def _digest_of_file(name: str) -> str | None:
    """Return the SHA-256 of a regular file as it is on the disk; None if there is no such file here."""
    path = Path(system_path(name))
    with contextlib.suppress(OSError, ValueError):
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def follow(group: Group, ranks: list[Rank], signaled: Callable[[], int] = lambda: 0) -> Ended:
    """Do what rank 0 says until its run is over; return its exit status, and the reason if it failed.

    ranks     result of `meet`
    signaled  returns the number of a signal that has asked this rank to stop, else 0
    """
    ids: Array | None = None
    while True:
        plan = group.share(None)[0]
        if isinstance(plan, Ended):
            return plan
        ids = plan.ids if plan.ids is not None else ids
        _check_files(group, plan)
        config = TrainConfig.layered(with_rules(plan.config))
        backend = backends.choose_backend(config.backend)
        _compare_backends(group, ranks, backend, training_precision(config, backend))
        if backend.compile_ops is not None:
            backend.compile_ops()
        assert ids is not None
        train = Windows(ids, config.context, reach=config.reach, history=ids[:0], padding=plan.padding)
        own_threads = threads_of(ranks, group.rank, config.threads)
        _obey(group, Trainee(config, ToTrain(plan.size, train), backend, own_threads, group), signaled)


def _check_files(group: Group, plan: Plan) -> None:
    """Raise GroupError, on all ranks, if a file of the text is here too, and another than rank 0's."""
    here = {name: _digest_of_file(name) for name in plan.files}
    other = next((name for name, digest in here.items() if digest not in (None, plan.files[name])), None)
    for number, name in enumerate(group.share(other)):
        if name is not None:
            raise GroupError(f"{name} is another text on rank {number} than on rank 0")


def _obey(group: Group, trainee: Trainee, signaled: Callable[[], int]) -> None:
    """Do what rank 0 says until it releases this rank."""
    with np.errstate(all="ignore"):  # what overflows shows in the loss
        while True:
            told = group.allgather(np.array([[0, 0, 0, signaled()]], np.float64))
            what, number, rate = int(told[0][0, 0]), int(told[0][0, 1]), float(told[0][0, 2])
            if what == STEP:
                trainee.step(trainee.batches.batch(number), number, rate)
            elif what == GATHER:
                for _ in trainee.gathered(trainee.names[number]):
                    pass
            elif what == PUT:
                trainee.take(trainee.names[number], None)
            elif what == UPDATES:
                trainee.set_updates(number)
            elif what == CHECK:
                group.share(trainee.check())
            else:
                return


@contextlib.contextmanager
def leading(group: Group, options: Mapping[str, Any], text: Text | Array | None) -> Iterator[Leader]:
    """Yield what leads the others, which call `followed`, for as long as the block lasts.

    An error in it is raised on all ranks; where the others wait for this one in the midst of a step, all processes end.
    """
    leader = Leader(group, meet(group, options, text))
    try:
        yield leader
    except GroupError:  # all ranks have it
        raise
    except BaseException as error:
        if not leader.others_wait:
            traceback.print_exc()
        leader.end(1, f"{type(error).__name__}: {error}")
        raise
    leader.end(0)


def followed(group: Group, options: Mapping[str, Any], text: Text | Array | None) -> None:
    """Follow rank 0 to the end of its block of `leading`; raise GroupError if that ended with an error.

    An error here ends all processes, but one that all ranks have.
    """
    try:
        ended = follow(group, meet(group, options, text))
    except GroupError:
        raise
    except BaseException:
        traceback.print_exc()
        group.abort(1)
        raise
    if ended.reason is not None:
        raise GroupError(f"rank 0 has failed: {ended.reason}")


@dataclass(frozen=True)
class StateOfRanks(TrainingState):
    """The state of a run that rank 0 leads: `model` has all words, `optimizer` is of rank 0's part."""

    leader: Leader

    def weights(self) -> dict[str, Array]:
        """As in TrainingState; they come from all ranks."""
        self.leader.fill(self.model.network)
        return super().weights()

    def model_tensors(self) -> dict[str, Array | Blocks]:
        """As in TrainingState, in blocks that come from all ranks."""
        tensors, names = self.leader.tensors(), self.model.network.state_dict()
        return {**{name: tensors[name] for name in names}, **self._words()}

    def to_checkpoint(self) -> tuple[dict[str, Array | Blocks], dict[str, Any]]:
        """As in TrainingState, in blocks that come from all ranks."""
        return {**self.leader.tensors(), **self._words()}, self._training_metadata()

    def from_checkpoint(self, tensors: dict[str, Array], metadata: dict[str, Any]) -> None:
        """As in TrainingState, for all ranks."""
        arrays = {name: array for name, array in tensors.items() if not is_of_words(name)}
        self.leader.put(arrays, metadata["optimizer_steps"])
        self._set_progress(metadata)

    def not_finite(self) -> str | None:
        """As in TrainingState, on any rank."""
        return self.leader.not_finite()
