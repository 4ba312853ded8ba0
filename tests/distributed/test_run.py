"""A run whose words are shared out over ranks, which here are threads: rank 0 leads, the others follow."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp import LanguageModel
from fastmlp.config import OPTIMIZERS, TrainConfig
from fastmlp.errors import CheckpointError, DivergedError, GroupError
from fastmlp.events import Event, Reporter, Running
from fastmlp.files import checkpoint
from fastmlp.text import Text
from fastmlp.trainer import open_run, train
from fastmlp.training import ranks as training_ranks
from fastmlp.training.keeper import Folder
from fastmlp.training.ranks import Leader, Rank, follow, followed, leading, meet, notices_of, threads_of
from tests.groups import AbortedError, ThreadRank, run_ranks
from tests.runs import learnable_text, metrics_of, outcome, small_options, stop_after, window_options, write_text

pytestmark = pytest.mark.usefixtures("quick_picture")
IEEE = {"precision": "ieee"}


def shared(
    config: TrainConfig,
    size: int,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    reporter: Any = None,
) -> list[Any]:
    """Run a configuration on so many ranks; return rank 0's result, and what the others were told at the end."""

    def work(group: ThreadRank) -> Any:
        met = meet(group, {})
        if group.rank:
            return follow(group, met)
        leader = Leader(group, met)
        with open_run(config, resume=resume, leader=leader, reporter=reporter) as run:
            result = run.train(should_stop)
        leader.end(0)
        return result

    return run_ranks(size, work)


def begin(config: TrainConfig, leader: Leader) -> None:
    """Open a run on rank 0."""
    with open_run(config, leader=leader):
        pass


def config_of(file: Path, out: Path, kind: str, **options: Any) -> TrainConfig:
    chosen = window_options if kind == "window" else small_options
    return TrainConfig(files=(str(file),), out=str(out), **chosen(**{**IEEE, **options}))


@pytest.mark.parametrize("kind", ["window", "layers"])
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_promise_20_a_run_has_the_losses_of_one_process(tmp_path: Path, kind: str, rule: str) -> None:
    """With validation, samples, counts and mixture, which are made with the weights of all ranks."""
    file, rates = write_text(tmp_path), {"adamw": 0.002, "sgd": 0.1, "momentum": 0.02, "adagrad": 0.02}
    options = {"optimizer": rule, "lr": rates[rule]}
    train(config_of(file, tmp_path / "alone", kind, **options))
    result, *others = shared(config_of(file, tmp_path / "shared", kind, **options), 3)
    assert result.finished
    assert [ended.status for ended in others] == [0, 0]
    want, got = metrics_of(tmp_path / "alone"), metrics_of(tmp_path / "shared")
    assert [line["step"] for line in got] == [line["step"] for line in want]
    for line, other in zip(got, want, strict=True):
        assert line.keys() == other.keys()
        for name in ("loss", "val_loss", "kept_val_loss", "counts_val_loss"):
            if name in other:
                assert line[name] == pytest.approx(other[name], rel=1e-4), name
    assert (tmp_path / "shared/samples.txt").read_text() == (tmp_path / "alone/samples.txt").read_text()


@pytest.mark.parametrize("kind", ["window", "layers"])
def test_promise_20_one_rank_has_the_bits_of_the_ordinary_run(tmp_path: Path, kind: str) -> None:
    file = write_text(tmp_path)
    for name, run in (("alone", train), ("shared", lambda config: shared(config, 1))):
        run(config_of(file, tmp_path / name, kind))
    assert outcome_but_name(tmp_path / "shared") == outcome_but_name(tmp_path / "alone")


def test_promise_20_better_weights_of_all_ranks_wait_in_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "save_is_due", lambda _keeper, step, *, is_best: step == 24)
    file, folders = write_text(tmp_path), (tmp_path / "alone", tmp_path / "shared")
    train(config_of(file, folders[0], "window"), should_stop=stop_after(25))
    shared(config_of(file, folders[1], "window"), 3, should_stop=stop_after(25))
    (want, facts), (got, others) = (checkpoint.load(folder / "model.safetensors") for folder in folders)
    assert facts["step"] == others["step"] < 24
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-2, atol=1e-4)


def outcome_but_name(folder: Path) -> dict[str, Any]:
    """The results of a run, without where it was."""
    found = outcome(folder)
    for name in ("model.safetensors", "last.safetensors"):
        found[name][1]["config"].pop("out", None)
    return found


def test_promise_20_checkpoints_go_from_three_ranks_to_two_to_one_and_back(tmp_path: Path) -> None:
    file = write_text(tmp_path)
    train(config_of(file, tmp_path / "alone", "window", steps=40))
    config = config_of(file, tmp_path / "run", "window", steps=40)
    shared(config, 3, should_stop=stop_after(9))
    assert checkpoint.load(tmp_path / "run/last.safetensors")[1]["step"] == 9
    shared(config, 2, resume=True, should_stop=stop_after(9))
    train(config, resume=True, should_stop=stop_after(9))
    shared(config, 3, resume=True)
    want, got = metrics_of(tmp_path / "alone"), metrics_of(tmp_path / "run")
    assert [line["step"] for line in got] == [line["step"] for line in want]
    for line, other in zip(got, want, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)
    tensors, metadata = checkpoint.load(tmp_path / "run/last.safetensors")
    others, other_metadata = checkpoint.load(tmp_path / "alone/last.safetensors")
    assert {name: array.shape for name, array in tensors.items()} == {
        name: array.shape for name, array in others.items()
    }
    assert metadata["optimizer_steps"] == other_metadata["optimizer_steps"] == 40


def test_promise_20_stopped_and_resumed_the_bits_are_those_of_a_run_that_was_not(tmp_path: Path) -> None:
    file = write_text(tmp_path)
    shared(config_of(file, tmp_path / "whole", "window"), 2)
    config = config_of(file, tmp_path / "run", "window")
    for steps in (7, 13):
        shared(config, 2, resume=True, should_stop=stop_after(steps))
    shared(config, 2, resume=True)
    assert outcome_but_name(tmp_path / "run") == outcome_but_name(tmp_path / "whole")


def test_a_checkpoint_in_blocks_has_the_bytes_of_one_that_is_written_whole(tmp_path: Path) -> None:
    """Those of one rank are saved in blocks too."""
    file = write_text(tmp_path)
    for name, run in (("alone", train), ("shared", lambda config: shared(config, 1))):
        (tmp_path / name).mkdir()
        run(config_of(file, tmp_path / name / "run", "window"))
    for name in ("model.safetensors", "last.safetensors"):
        ours, theirs = (checkpoint.load(tmp_path / who / "run" / name)[0] for who in ("shared", "alone"))
        checkpoint.save(tmp_path / "ours", ours, {})
        checkpoint.save(tmp_path / "theirs", theirs, {})
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_time_budget_is_measured_with_all_ranks(tmp_path: Path) -> None:
    options = {"minutes": 0.02, "steps": None}
    result, *_ = shared(config_of(write_text(tmp_path), tmp_path / "run", "window", **options), 2)
    assert result.finished
    assert result.step > 0


def test_the_ranks_are_reported(tmp_path: Path) -> None:
    class Heard(Reporter):
        def report(self, event: Event) -> None:
            events.append(event)

    events: list[Event] = []
    shared(config_of(write_text(tmp_path), tmp_path / "run", "layers"), 2, reporter=Heard())
    [running] = [event for event in events if isinstance(event, Running)]
    assert (running.ranks, running.hosts) == (2, 1)


# ----------------------------------------------------------------------------------------------------------- failures


def test_promise_13_a_loss_that_is_no_number_ends_all_ranks(tmp_path: Path) -> None:
    config = config_of(write_text(tmp_path), tmp_path / "run", "layers", optimizer="sgd", lr=1e30, warmup=0)

    def work(group: ThreadRank) -> Any:
        met = meet(group, {})
        if group.rank:
            return follow(group, met)
        leader = Leader(group, met)
        with pytest.raises(DivergedError, match="the loss is"), open_run(config, leader=leader) as run:
            run.train()
        leader.end(1, "diverged")
        return None

    _, ended = run_ranks(2, work)
    assert (ended.status, ended.reason) == (1, "diverged")


def test_promise_7_a_disk_that_is_full_on_rank_0_leaves_the_checkpoint_and_ends_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(write_text(tmp_path), tmp_path / "run", "window")
    shared(config, 2, should_stop=stop_after(9))
    before = (tmp_path / "run/last.safetensors").read_bytes()

    real = os.fsync

    def full(descriptor: int) -> None:
        if ".fastmlp-" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")
        real(descriptor)

    def work(group: ThreadRank) -> Any:
        met = meet(group, {})
        if group.rank:
            return follow(group, met)
        leader = Leader(group, met)
        with open_run(config, leader=leader, resume=True) as run:
            monkeypatch.setattr("fastmlp.files.atomic.os.fsync", full)
            with pytest.raises(CheckpointError, match=r"cannot write .* bytes\): No space left on device"):
                run.train()
        leader.end(1)
        return None

    _, ended = run_ranks(2, work)
    assert ended.status == 1
    assert (tmp_path / "run/last.safetensors").read_bytes() == before
    assert not list((tmp_path / "run").glob(".fastmlp-*.tmp"))


def test_a_failure_in_the_midst_of_a_step_aborts_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for this rank's numbers, not for an order."""
    config = config_of(write_text(tmp_path), tmp_path / "run", "window")

    def fail(*_: Any) -> None:
        if threading.current_thread() is thread_of_rank_0[0]:
            raise MemoryError("none is left")

    thread_of_rank_0: list[threading.Thread] = []

    def work(group: ThreadRank) -> Any:
        if group.rank:
            return followed(group, {}, None)
        thread_of_rank_0.append(threading.current_thread())
        with leading(group, {}, None) as leader, open_run(config, leader=leader) as run:
            monkeypatch.setattr("fastmlp.network.context.ContextOfPart.backward", fail)
            run.train()
        return None

    with pytest.raises(AbortedError, match="1"):
        run_ranks(2, work)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        # as with a processor that computes in another way, or a bit that memory has flipped
        ("projection.bias", 1e-6, r"the hidden layers of rank 1 on .* are no longer those of rank 0"),
        ("embedding.weight", np.inf, "embedding.weight is no longer finite"),
    ],
)
def test_what_one_rank_alone_has_lost_is_found_before_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float, message: str
) -> None:
    config = config_of(write_text(tmp_path), tmp_path / "run", "window", save_every=1)
    real = training_ranks.Trainee.step

    def step(self: Any, batch: Any, number: int, rate: float) -> float:
        loss = real(self, batch, number, rate)
        if self.network.part.group.rank == 1:
            self.network.parameters[name].flat[0] += value
        return loss

    def work(group: ThreadRank) -> Any:
        met = meet(group, {})
        if group.rank:
            return follow(group, met)
        leader = Leader(group, met)
        with pytest.raises(DivergedError, match=message), open_run(config, leader=leader) as run:
            run.train()
        leader.end(1)
        return None

    monkeypatch.setattr(training_ranks.Trainee, "step", step)
    run_ranks(3, work)
    assert not (tmp_path / "run/last.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ({"lr": "0.2"}, None, "rank 1 on .* was given another lr than rank 0: 0.2, not 0.1"),
        ({}, None, "rank 1 on .* was given another lr than rank 0: nothing, not 0.1"),
        ({"lr": "0.1"}, Text("other words", ()), "rank 1 on .* was given another text than rank 0"),
    ],
)
def test_a_rank_with_other_options_or_another_text_is_named(options: Any, text: Any, message: str) -> None:
    def work(group: ThreadRank) -> None:
        with pytest.raises(GroupError, match=message):
            meet(group, options if group.rank == 1 else {"lr": "0.1"}, text if group.rank == 1 else None)

    run_ranks(3, work)


def test_a_rank_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = training_ranks.this_rank

    def older(group: ThreadRank) -> Any:
        described = real({})
        version = "0.0.1" if group.rank == 2 else described.version
        return Rank(described.host, described.cores, described.bound, version, {}, None)

    def work(group: ThreadRank) -> None:
        own.rank = group
        with pytest.raises(GroupError, match=r"rank 2 on .* has fastmlp 0.0.1, and rank 0 on .* "):
            meet(group, {})

    own = threading.local()
    monkeypatch.setattr(training_ranks, "this_rank", lambda *_: older(own.rank))
    run_ranks(3, work)


def test_a_text_that_is_another_one_on_another_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks read the same name in folders of their own."""
    config = config_of(write_text(tmp_path), tmp_path / "run", "layers")
    real = training_ranks._digest_of_file
    monkeypatch.setattr(
        training_ranks,
        "_digest_of_file",
        lambda name: real(name) if threading.current_thread() is first[0] else "another digest",
    )
    first: list[threading.Thread] = []

    def work(group: ThreadRank) -> None:
        met = meet(group, {})
        if group.rank:
            with pytest.raises(GroupError, match="is another text on rank 1 than on rank 0"):
                follow(group, met)
            return
        first.append(threading.current_thread())
        with pytest.raises(GroupError, match=r"story.txt on rank 1 \(.*\) is another text than on rank 0"):
            begin(config, Leader(group, met))

    run_ranks(2, work)
    assert not (tmp_path / "run").exists()


def test_more_ranks_than_words_are_refused(tmp_path: Path) -> None:
    config = config_of(write_text(tmp_path), tmp_path / "run", "layers", vocab_size=2)

    def work(group: ThreadRank) -> None:
        met = meet(group, {})
        with pytest.raises(GroupError, match="words cannot be shared out over 5 ranks"):
            follow(group, met) if group.rank else begin(config, Leader(group, met))

    run_ranks(5, work)


def test_a_signal_to_another_rank_stops_and_saves(tmp_path: Path) -> None:
    config = config_of(write_text(tmp_path), tmp_path / "run", "window")

    def work(group: ThreadRank) -> Any:
        met = meet(group, {})
        if group.rank:
            orders = iter(range(12))
            return follow(group, met, lambda: 0 if next(orders, None) is not None else 15)
        leader = Leader(group, met)
        with open_run(config, leader=leader) as run:
            result = run.train(lambda: leader.signal != 0)
        assert leader.signal == 15
        leader.end(143)
        return result

    result, ended = run_ranks(2, work)
    assert not result.finished
    assert ended.status == 143
    assert checkpoint.load(tmp_path / "run/last.safetensors")[1]["step"] == result.step


# -------------------------------------------------------------------------------------------------- threads and cores


def ranks_on(*cores: set[int], host: str = "a", bound: bool = False) -> list[Rank]:
    return [Rank(host, frozenset(each), bound, "", {}, None) for each in cores]


@pytest.mark.parametrize(
    ("cores", "threads"),
    [
        ([{0, 1, 2, 3}], [4]),
        ([{0, 1, 2, 3}, {0, 1, 2, 3}], [2, 2]),
        ([{0, 1, 2}, {0, 1, 2}], [1, 1]),
        ([{0, 1}, {2, 3, 4}], [2, 3]),
        ([{0}, {0}, {0}], [1, 1, 1]),
        ([{0, 1, 2, 3}, {2, 3}], [3, 1]),
    ],
    ids=str,
)
def test_a_rank_has_its_share_of_the_cores(
    cores: list[set[int]], threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTMLP_NUM_THREADS", raising=False)
    met = [*ranks_on(*cores), *ranks_on({0, 1, 2, 3, 4, 5}, host="b")]
    assert [threads_of(met, number, None) for number in range(len(met))] == [*threads, 6]
    assert threads_of(met, 0, 7) == 7
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "5")
    assert threads_of(met, 0, None) == 5


def test_bound_ranks_and_too_many_are_noticed() -> None:
    assert not [*notices_of(ranks_on({0, 1}, {0, 1}))]
    [bound] = notices_of(ranks_on({0}, {1}, bound=True))
    assert "bound each rank on a to one core" in bound
    assert "--bind-to none" in bound
    [crowded] = notices_of([*ranks_on({0, 1}, {0, 1}, {0, 1}), *ranks_on({0}, host="b")])
    assert crowded == "3 ranks share 2 cores of a: fewer ranks would be faster"


# -------------------------------------------------------------------------------------------------------- the library

FIT: dict[str, Any] = {"steps": 20, "batch_size": 16, "log_every": 5, "eval_every": 10, "precision": "ieee"}


@pytest.mark.parametrize("sizes", [{"hidden": (12, 10)}, {"hidden": 12, "reach": 10}], ids=["layers", "window"])
def test_fit_with_a_group(sizes: dict[str, Any]) -> None:
    text = learnable_text()
    alone = LanguageModel(context=3, embed=8, backend="numpy", **sizes)
    want = alone.fit(text, progress=False, **FIT)

    def work(group: ThreadRank) -> Any:
        model = LanguageModel(context=3, embed=8, backend="numpy", **sizes)
        history = model.fit(text, group=group, progress=False, **FIT)
        return history, model.perplexity(text) if group.rank == 0 else None

    (history, perplexity), (other, _) = run_ranks(2, work)
    np.testing.assert_allclose(history.losses, want.losses, rtol=1e-4)
    np.testing.assert_array_equal(other.losses, history.losses)
    assert perplexity == pytest.approx(alone.perplexity(text), rel=1e-3)


def test_fit_with_an_error_on_rank_0_raises_on_all() -> None:
    def work(group: ThreadRank) -> Any:
        model = LanguageModel(context=3, embed=8, hidden=(12,), backend="numpy")
        with pytest.raises(Exception) as caught:
            model.fit(learnable_text(), group=group, progress=False, **{**FIT, "optimizer": "sgd", "lr": 1e30})
        return type(caught.value).__name__, str(caught.value)

    (first, _), (second, reason) = run_ranks(2, work)
    assert (first, second) == ("DivergedError", "GroupError")
    assert reason.startswith("rank 0 has failed: DivergedError: the loss is")


def test_fit_with_another_text_on_a_rank_is_refused_on_all() -> None:
    def work(group: ThreadRank) -> None:
        model = LanguageModel(context=3, embed=8, hidden=(12,), backend="numpy")
        text = learnable_text() + ("more words. " if group.rank else "")
        with pytest.raises(GroupError, match=r"rank 1 on .* was given another text than rank 0"):
            model.fit(text, group=group, progress=False, **FIT)

    run_ranks(2, work)
