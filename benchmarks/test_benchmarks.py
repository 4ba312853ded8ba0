"""The benchmarks compare equal work, and a contender that cannot run is reported."""

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import bench_ranks, bench_window, ceilings, draw, peers, table, training
from benchmarks.bench_step import Steps
from benchmarks.contest import Contender, Contest, Result, Turn
from fastmlp import ops
from tests import helpers

OURS = Contender("ours", training.TRAINER, {"backend": "numpy"})
OTHERS = {
    "the same": {},
    "does not learn": {"lr": 1e-9},
    "learns at twice the rate": {"lr": 1.0},
    "fails": {"hidden": -1},
}


@pytest.fixture(autouse=True)
def without_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results here have no ceilings, which is an error if the kernels are required."""
    monkeypatch.delenv("FASTMLP_REQUIRE_KERNELS", raising=False)


@pytest.fixture(scope="module")
def contest() -> Iterator[Contest]:
    with Contest() as contest:
        yield contest


@pytest.fixture(scope="module")
def results(contest: Contest) -> dict[str, Result]:
    """The results of a smoke run's steps."""
    others = [replace(OURS, name=name, arguments={**OURS.arguments, **options}) for name, options in OTHERS.items()]
    return contest.run([OURS, *others], rounds=1, turn=Turn(seconds=0), batch_size=32)


def steps(results: dict[str, Result], other: str) -> Steps:
    return Steps(128, [OURS, replace(OURS, name=other)], {**results, ceilings.CONTENDER.name: Result(failed="no cc")})


def test_who_trains_the_same_is_compared(results: dict[str, Result]) -> None:
    assert not results["ours"].failed
    steps(results, "the same").assert_same_training()


@pytest.mark.parametrize("other", ["does not learn", "learns at twice the rate"])
def test_who_does_not_train_the_same_is_caught(other: str, results: dict[str, Result]) -> None:
    with pytest.raises(AssertionError, match=other):
        steps(results, other).assert_same_training()


def test_a_table_says_why_someone_failed(contest: Contest, results: dict[str, Result]) -> None:
    why = contest.failed["fails"]
    assert why == results["fails"].failed != ""
    steps(results, "fails").assert_same_training()
    ours = Contender("fails", "", {"precision": "ieee"}, {"FASTMLP_SIMD": "avx2"})
    by_size = {32: Steps(32, [ours], steps(results, "fails").results)}
    assert table.step_tables(by_size).count(why) == 3
    assert peers.unexpected(contest.failed) == {"fails": why}


def test_only_what_the_machine_has_not_excuses_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = dict.fromkeys(["PyTorch", "PyTorch, compiled", "PyTorch, compiled, AVX2"], "an error")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    assert peers.unexpected(failed) == failed
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert peers.unexpected(failed) == {"PyTorch": "an error"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert peers.unexpected(failed) == {}


def test_required_ceilings_do_not_fail_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {ceilings.CONTENDER.name: Result(failed="no compiler")}
    monkeypatch.delenv("FASTMLP_REQUIRE_KERNELS", raising=False)
    assert ceilings.highest(results) == {}
    monkeypatch.setenv("FASTMLP_REQUIRE_KERNELS", "1")
    with pytest.raises(RuntimeError, match="no compiler"):
        ceilings.highest(results)


def test_a_run_has_each_precision_on_its_best_variant_and_a_long_one_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with AMX."""
    precisions = {"amx": ("ieee", "bf16x3", "bf16"), "avx512": ("ieee",), "avx2": ("ieee",)}
    module = SimpleNamespace(chosen="amx", variants=lambda: list(precisions), variant=lambda: "amx")
    module.use_variant = lambda name: setattr(module, "chosen", name)
    module.precisions = lambda: precisions[module.chosen]
    monkeypatch.setattr(ops, "get_ops", lambda _: None)
    monkeypatch.setattr(helpers, "module_of", lambda _: module)
    names = [contender.name for contender in training.kernels()]
    assert names == ["fastmlp amx bf16x3", "fastmlp amx bf16", "fastmlp avx512 ieee", "fastmlp avx2 ieee"]
    usual, everybody = (training.contenders(long=long) for long in (False, True))
    assert [contender.name for contender in usual if training.variant(contender)] == names[:3]
    assert [contender.name for contender in everybody if training.variant(contender)] == names
    assert [one for one in everybody if one in usual] == usual
    others = {contender.name for contender in everybody} - {contender.name for contender in usual}
    assert others >= {names[3], "fastmlp NumPy", "PyTorch, compiled", "PyTorch, AVX2"}
    assert not any("AVX2" in contender.name or "compiled" in contender.name for contender in usual)
    assert module.chosen == "amx"


def test_words_per_second_are_drawn_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slowest contender has failed, the one before has no turn that counts."""

    def measured(_contest: Contest, network: str, contenders: Sequence[Contender], B: int) -> bench_window.Measured:
        turns = {c.name: bench_window.Turns([0.001 * B * i], losses=[1.0]) for i, c in enumerate(contenders, 1)}
        turns[contenders[-2].name].seconds = []
        turns[contenders[-1].name] = bench_window.Turns(failed="an error")
        return bench_window.Measured(network, B, contenders, turns, 1)

    monkeypatch.setattr(bench_window, "measure", measured)
    draw.main(["--out", str(tmp_path), "words-per-second"])
    assert (tmp_path / "words_per_second.png").stat().st_size > 10_000


def test_turns_beside_a_slow_matrix_unit_do_not_count() -> None:
    rate = [{bench_window.UNIT: 1e12 * share} for share in (1.0, 0.9, 0.5, 0.86, 1.0)]
    turns = bench_window.Turns([1.0, 2.0, 3.0, 4.0], rate[:-1], rate[1:])
    assert turns.counted(1e12) == [1.0, 4.0]
    assert turns.counted(None) == turns.seconds
    assert (turns.figure(1e12, 2), turns.figure(None, 2)) == (2.5, 2.5)
    assert np.isnan(turns.figure(1e12, 3))
    measured = bench_window.Measured("small", 128, [OURS], {"ours": turns}, 2)
    assert measured.best == 1e12
    assert "| 2 of 4 " in bench_window.describe(measured)


def test_the_model_of_ranks() -> None:
    """Two vocabularies with one rank give body and word; with more ranks the words are shared and messages come."""
    model, sizes = bench_ranks.Model.of((10, 3.0), (20, 4.0)), bench_ranks.Sizes(40, B=1, D=1)
    assert model.seconds(sizes, 1, latency=1, bandwidth=1, averages=0, near=0) == pytest.approx(2 + 4)
    # seven rounds; of the other rank 24 bytes of statistics and 32 of an order; half of dh, and half of the sum
    assert model.seconds(sizes, 2, latency=1, bandwidth=1, averages=0, near=0) == pytest.approx(2 + 2 + 7 + 24 + 32 + 4)
    assert bench_ranks.bytes_of_step(sizes, averages=3, near=10, ranks=4) == pytest.approx(3 * 56 + 2 * 12 + 30)


def test_hidden_layers_share_rows_where_the_network_is_fast() -> None:
    sizes = bench_ranks.Sizes(28_000)
    pays = {
        name: bench_ranks.sharing_rows_pays(sizes, 0.04, 2_500_000, 2, *line)
        for name, line in bench_ranks.NETWORKS.items()
    }
    assert pays == {"1 Gbit/s": False, "10 Gbit/s": True, "100 Gbit/s": True}
