"""Ranks that are processes under mpiexec: losses, bits, checkpoints, and every way to fail."""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.config import OPTIMIZERS
from fastmlp.distributed import Alone
from fastmlp.files import checkpoint
from fastmlp.trainer import train as train_here
from tests.distributed import faulty, launch, memory
from tests.distributed.losses import KINDS, losses
from tests.distributed.test_run import outcome_but_name
from tests.runs import flags, lines_in, metrics_of, process, window_config, window_options, write_text

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="mpiexec of MPICH is a POSIX program"),
    pytest.mark.usefixtures("quick_picture"),
]
LONG = {"steps": 100_000, "save_every": 20, "eval_every": 5_000, "sample_every": 50_000, "log_every": 10}
SAID = "stopping after this step and saving; another Ctrl-C stops at once"


def options(**others: Any) -> list[str]:
    return [*flags(window_options(precision="ieee", **others)), "--threads", "1"]


# ---------------------------------------------------------------------------------------------------- losses and bits


@pytest.mark.parametrize("count", [1, 2, 3])
def test_promise_20_losses_under_mpiexec_are_those_of_one_process(tmp_path: Path, count: int) -> None:
    status, out, err = launch.finished(*launch.python(count, "-m", "tests.distributed.losses"), folder=tmp_path)
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["size"] == count
    for kind in KINDS:
        for rule in OPTIMIZERS:
            want, got = losses(Alone(), kind, rule), found["losses"][f"{kind} {rule}"]
            if count == 1:
                assert got == want, (kind, rule)
            np.testing.assert_allclose(got, want, rtol=1e-5 if rule == "sgd" else 1e-4, err_msg=f"{kind} {rule}")


def test_promise_20_under_mpiexec_the_same_number_of_ranks_has_the_same_bits(tmp_path: Path) -> None:
    """And one rank those of the command without mpiexec."""
    write_text(tmp_path)
    for count, name in ((1, "one"), (3, "first"), (3, "again")):
        arguments = ["story.txt", *options(), "--out", name, "--quiet"]
        assert launch.finished(*launch.train(count, *arguments), folder=tmp_path) == (0, "", "")
    assert outcome_but_name(tmp_path / "again") == outcome_but_name(tmp_path / "first")
    arguments = ["-m", "fastmlp.train", "story.txt", *options(), "--out", "alone", "--quiet"]
    with process(*arguments, cwd=tmp_path) as child:
        assert child.communicate() == ("", "")
    assert outcome_but_name(tmp_path / "one") == outcome_but_name(tmp_path / "alone")
    assert outcome_but_name(tmp_path / "first") != outcome_but_name(tmp_path / "alone")  # the seam shows, far behind


def test_promise_20_a_run_resumes_with_three_ranks_two_and_one(tmp_path: Path) -> None:
    file = write_text(tmp_path)
    steps = ("15", "22", "30")
    for count, total in zip((3, 2, 1), steps, strict=True):
        arguments = ["story.txt", *options(schedule="constant", warmup=0, steps=total), "--out", "run"]
        status, out, err = launch.finished(*launch.train(count, *arguments, "--resume"), folder=tmp_path)
        assert (status, err) == (0, "")
    assert "resuming  after step 22" in out
    train_here(window_config(file, tmp_path / "alone", precision="ieee", schedule="constant", warmup=0))
    want, got = metrics_of(tmp_path / "alone"), metrics_of(tmp_path / "run")
    losses_of = [{line["step"]: line["val_loss"] for line in lines if "val_loss" in line} for lines in (want, got)]
    assert losses_of[0][30] == pytest.approx(losses_of[1][30], rel=1e-3)


def test_the_ranks_are_in_the_first_lines_and_help_comes_once(tmp_path: Path) -> None:
    write_text(tmp_path)
    status, out, err = launch.finished(*launch.train(2, "story.txt", *options(), "--out", "run"), folder=tmp_path)
    assert (status, err) == (0, "")
    assert out.count("\nrunning ") == 1
    assert "1 thread in each of 2 ranks on 1 machine" in out
    assert out.count("to go on:") == 1
    status, out, err = launch.finished(*launch.train(2, "--help"), folder=tmp_path)
    assert (status, err) == (0, "")
    assert out.count("usage:") == 1


def test_standard_input_is_read_by_rank_0_alone(tmp_path: Path) -> None:
    text = write_text(tmp_path)
    command = " ".join(map(str, [launch.mpiexec(), *launch.train(2, "-", *options(), "--out", "run", "--quiet")]))
    with process("-c", f"import os; os.system({f'{command} < {text}'!r})", cwd=tmp_path) as child:
        assert child.communicate() == ("", "")
    assert checkpoint.load(tmp_path / "run/last.safetensors")[1]["step"] == 30


def test_fit_under_mpiexec(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from fastmlp import LanguageModel\n"
        "from fastmlp.distributed import mpi_group\n"
        "from tests.runs import learnable_text\n"
        "group, model = mpi_group(), LanguageModel(embed=8, hidden=12, reach=10, backend='numpy')\n"
        "history = model.fit(learnable_text(), steps=20, group=group)\n"
        "print(group.rank, history.losses[-1], model.generate('anna', 3, seed=1) if group.rank == 0 else '')\n"
    )
    status, out, err = launch.finished(*launch.python(2, script), folder=tmp_path)
    assert (status, err) == (0, "")
    first, second = sorted(out.splitlines())
    assert first.split()[1] == second.split()[1]
    assert first.split()[2] == "anna"


# ------------------------------------------------------------------------------------------------ one fails, all end


def assert_one_message(err: str, *parts: str) -> None:
    """A single line with all of these."""
    [line] = err.splitlines()
    for part in parts:
        assert part in line


def assert_resumes(folder: Path, count: int, out: str = "run") -> None:
    """The checkpoint is whole, if there is one, and the run goes on from it for some steps."""
    last = folder / out / "last.safetensors"
    step = checkpoint.load(last)[1]["step"] if last.exists() else 0
    arguments = ["story.txt", *options(**{**LONG, "steps": step + 5}), "--out", out, "--resume", "--quiet"]
    assert launch.finished(*launch.train(count, *arguments), folder=folder) == (0, "", "")
    assert checkpoint.load(last)[1]["step"] == step + 5
    assert not list((folder / out).glob(".fastmlp-*"))[1:]  # the lock file, and nothing else


def running(folder: Path, count: int) -> Any:
    write_text(folder)
    return launch.ranks(*launch.train(count, "story.txt", *options(**LONG), "--out", "run"), folder=folder)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_promise_20_a_signal_to_mpiexec_saves_on_all_ranks(tmp_path: Path, number: int, status: int) -> None:
    with running(tmp_path, 2) as child:
        launch.until(lambda: lines_in(tmp_path / "run") > 5)
        child.send_signal(number)
        out, err = child.communicate(timeout=launch.SECONDS)
    assert child.returncode == status
    assert [line for line in err.splitlines() if line and not line.startswith("[mpiexec@")] == [SAID]
    assert out.count("stopped after step") == 1
    assert_resumes(tmp_path, 2)


@pytest.mark.parametrize("rank", [0, 1])
def test_promise_20_a_signal_to_one_rank_saves_on_all(tmp_path: Path, rank: int) -> None:
    with running(tmp_path, 2) as child:
        of_ranks = launch.pids(tmp_path, 2)
        launch.until(lambda: lines_in(tmp_path / "run") > 5)
        os.kill(of_ranks[rank], signal.SIGTERM)
        out, err = child.communicate(timeout=launch.SECONDS)
        launch.until(lambda: not any(map(launch.alive, of_ranks)))
    assert child.returncode == 143
    assert err.strip() in ("", SAID)
    assert out.count("stopped after step") == 1
    assert_resumes(tmp_path, 2)


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.thorough), 2])
def test_promise_20_a_second_ctrl_c_on_one_rank_stops_all_at_once(tmp_path: Path, rank: int) -> None:
    """Three ranks of which only one hears of it; it may be too fast to need the second."""
    with running(tmp_path, 3) as child:
        of_ranks = launch.pids(tmp_path, 3)
        launch.until(lambda: lines_in(tmp_path / "run") > 5)
        for _ in range(2):
            os.kill(of_ranks[rank], signal.SIGINT)
            time.sleep(0.0002)
        child.communicate(timeout=launch.SECONDS)
        launch.until(lambda: not any(map(launch.alive, of_ranks)))
    assert child.returncode == 130
    assert_resumes(tmp_path, 3)


def test_promise_20_killed_at_random_moments_the_others_end_and_the_run_resumes(
    tmp_path: Path, endurance: bool, tell: Callable[[str], None]
) -> None:
    """And with the same number of ranks it ends with the bits of a run that was left alone."""
    write_text(tmp_path)
    total = {
        "steps": 3_000 if endurance else 300,
        "save_every": 10,
        "eval_every": 100,
        "sample_every": 150,
        "log_every": 10,
    }
    whole = ["story.txt", *options(**total), "--out", "whole", "--quiet"]
    assert launch.finished(*launch.train(3, *whole), folder=tmp_path) == (0, "", "")
    arguments = ["story.txt", *options(**total), "--out", "run", "--resume", "--quiet"]
    chance, seconds, killed = random.Random(3), [], 0
    for number in range(40 if endurance else 4):
        with launch.ranks(*launch.train(3, *arguments), folder=tmp_path) as child:
            of_ranks = launch.pids(tmp_path, 3)
            lines = lines_in(tmp_path / "run")
            launch.until(lambda lines=lines: lines_in(tmp_path / "run") > lines or child.poll() is not None)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.2))
            began = time.monotonic()
            if launch.alive(of_ranks[number % 3]):
                os.kill(of_ranks[number % 3], signal.SIGKILL)
                killed += 1
            child.communicate(timeout=launch.SECONDS)
            launch.until(lambda of_ranks=of_ranks: not any(map(launch.alive, of_ranks)))  # type: ignore[misc]
            seconds.append(time.monotonic() - began)
    assert killed
    tell(f"{killed} ranks killed; the others ended within {max(seconds):.2f} s")
    status, _, err = launch.finished(*launch.train(3, *arguments), folder=tmp_path)
    assert status == 0, err
    assert outcome_but_name(tmp_path / "run") == outcome_but_name(tmp_path / "whole")


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.thorough), 2])
def test_promise_20_an_exception_on_one_rank_ends_all_with_its_message(tmp_path: Path, rank: int) -> None:
    write_text(tmp_path)
    arguments = [faulty.__file__, rank, "raises", "story.txt", *options(**LONG), "--out", "run", "--quiet"]
    status, _, err = launch.finished(*launch.python(3, *arguments), folder=tmp_path)
    assert status == 1
    assert_one_message(err, "not enough memory: none is left", *([f"rank {rank} on"] if rank else []))
    assert_resumes(tmp_path, 3)


@pytest.mark.parametrize("rank", [0, 1])
def test_promise_20_a_rank_that_kills_itself_in_a_step_ends_all(tmp_path: Path, rank: int) -> None:
    write_text(tmp_path)
    arguments = [faulty.__file__, rank, "kills", "story.txt", *options(**LONG), "--out", "run", "--quiet"]
    status, out, err = launch.finished(*launch.python(2, *arguments), folder=tmp_path)
    assert (status, err) == (9, "")
    assert out.count("Killed (signal 9)") == 1  # the launcher's words
    assert_resumes(tmp_path, 2)


def test_promise_20_a_full_disk_on_rank_0_ends_all_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    write_text(tmp_path)
    arguments = [faulty.__file__, 0, "full", "story.txt", *options(**LONG), "--out", "run", "--quiet"]
    status, _, err = launch.finished(*launch.python(2, *arguments), folder=tmp_path)
    assert status == 1
    assert_one_message(err, "cannot write run/", " bytes): No space left on device")
    assert_resumes(tmp_path, 2)


# ------------------------------------------------------------------------------------- ranks that do not fit together


def both(first: list[object], second: list[object]) -> list[object]:
    """The arguments of mpiexec that start two ranks in different ways."""
    return [*first, ":", *second]


def test_promise_20_a_rank_with_other_options_is_named(tmp_path: Path) -> None:
    write_text(tmp_path)
    one, other = (launch.train(1, "story.txt", "--lr", rate, "--out", "run") for rate in ("0.1", "0.2"))
    status, _, err = launch.finished(*both(one, other), folder=tmp_path)
    assert status == 2
    assert_one_message(err, "rank 1 on ", "was given another lr than rank 0: 0.2, not 0.1")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("counts", [(1, 1), (2, 1)], ids=str)
def test_promise_20_a_wrong_option_on_any_rank_is_said_once(tmp_path: Path, counts: tuple[int, int]) -> None:
    write_text(tmp_path)
    right, wrong = launch.train(counts[0], "story.txt"), launch.train(counts[1], "story.txt", "--stepz", 3)
    status, _, err = launch.finished(*both(right, wrong), folder=tmp_path)
    assert status == 2
    assert_one_message(err, f"rank {counts[0]} on ", "--stepz: no such option")
    status, _, err = launch.finished(*launch.train(3, "story.txt", "--stepz", 3), folder=tmp_path)
    assert status == 2
    assert_one_message(err, "python -m fastmlp.train: --stepz: no such option")


def test_promise_20_a_rank_that_sees_another_text_is_named(tmp_path: Path) -> None:
    for name, more in (("one", ""), ("other", "more words.\n")):
        (tmp_path / name).mkdir()
        file = write_text(tmp_path / name)
        file.write_text(file.read_text() + more)
    one, other = (
        ["-wdir", tmp_path / name, *launch.train(1, "story.txt", "--out", "run")] for name in ("one", "other")
    )
    status, _, err = launch.finished(*both(one, other), folder=tmp_path)
    assert status == 2
    assert_one_message(err, "story.txt on rank 1 (", "is another text than on rank 0")
    assert not (tmp_path / "one/run").exists()


def test_promise_20_a_rank_without_the_text_needs_none(tmp_path: Path) -> None:
    """It comes from rank 0, as do the checkpoint and the options of a run that is resumed."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    write_text(tmp_path / "one")
    for arguments in (["story.txt", *options(), "--out", "run"], ["--resume", "--out", "run", "--steps", 40]):
        one, other = (["-wdir", tmp_path / name, *launch.train(1, *arguments, "--quiet")] for name in ("one", "other"))
        assert launch.finished(*both(one, other), folder=tmp_path) == (0, "", "")
    assert checkpoint.load(tmp_path / "one/run/last.safetensors")[1]["step"] == 40
    assert not [*(tmp_path / "other").iterdir()]


def test_promise_20_a_rank_of_another_version_or_with_other_kernels_is_named(tmp_path: Path) -> None:
    write_text(tmp_path)
    arguments = [faulty.__file__, 1, "version", "story.txt", "--out", "run"]
    status, _, err = launch.finished(*launch.python(2, *arguments), folder=tmp_path)
    assert status == 2
    assert_one_message(err, "rank 1 on ", "has fastmlp 0.0.1, and rank 0 on ")
    one, other = (launch.train(1, "story.txt", "--out", "run", "--backend", name) for name in ("numpy", "numba"))
    status, _, err = launch.finished(*both(one, other), folder=tmp_path)
    assert status == 2
    assert_one_message(err, "rank 1 on ", "another backend than rank 0: numba, not numpy")


def test_promise_20_a_rank_with_other_vector_instructions_is_named(tmp_path: Path) -> None:
    from tests.helpers import module_of, require_ops

    write_text(tmp_path)
    if len(variants := module_of(require_ops("cython")).variants()) < 2:
        pytest.skip(f"this CPU has one variant: {variants}")
    arguments = launch.train(1, "story.txt", "--out", "run", "--precision", "ieee")
    with_variant = [["-env", "FASTMLP_SIMD", variant, *arguments] for variant in variants[:2]]
    status, _, err = launch.finished(*both(*with_variant), folder=tmp_path)
    assert status == 2
    assert_one_message(err, "rank 1 on ", f"runs cython {variants[1]} ieee, and rank 0 on ")


def test_without_mpi4py_several_processes_are_refused_in_one_line(tmp_path: Path) -> None:
    """Not four single runs that write over each other."""
    write_text(tmp_path)
    (tmp_path / "lacking/mpi4py").mkdir(parents=True)
    (tmp_path / "lacking/mpi4py/__init__.py").write_text("raise ModuleNotFoundError('no mpi4py', name='mpi4py')")
    path = os.pathsep.join([str(tmp_path / "lacking"), launch.environment()["PYTHONPATH"]])
    arguments = launch.train(4, "story.txt", "--out", "run")
    status, out, err = launch.finished(*arguments, folder=tmp_path, PYTHONPATH=path)
    assert (status, out) == (2, "")
    assert_one_message(err, "MPI has started 4 ranks, but mpi4py is not installed: pip install 'fastmlp[mpi]'")
    assert not (tmp_path / "run").exists()


def test_ranks_of_another_mpi_than_mpi4pys_are_refused(tmp_path: Path) -> None:
    write_text(tmp_path)
    launch.mpiexec()
    other = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}
    with process(
        "-W", "ignore", "-m", "fastmlp.train", "story.txt", env=launch.environment(**other), cwd=tmp_path
    ) as child:
        _, err = child.communicate()
    assert child.returncode == 2
    assert "the launcher has started 4 ranks, but each finds itself alone: mpi4py runs " in err


def test_mpi_that_is_asked_for_is_imported_though_no_launcher_is_seen(tmp_path: Path) -> None:
    """A single rank is the ordinary run."""
    write_text(tmp_path)
    launch.mpiexec()
    arguments = ["-m", "fastmlp.train", "story.txt", *options(), "--quiet", "--out", "run", "--mpi"]
    with process(*arguments, cwd=tmp_path) as child:
        assert child.communicate() == ("", "")
    assert child.returncode == 0
    assert checkpoint.load(tmp_path / "run/last.safetensors")[1]["step"] == 30


# ------------------------------------------------------------------------------------------------------------- memory


def test_promise_20_a_rank_takes_the_memory_of_its_part(
    tmp_path: Path, endurance: bool, tell: Callable[[str], None]
) -> None:
    """In the long form of a million words."""
    V = 1_000_000 if endurance else 150_000
    status, out, err = launch.finished(*launch.python(2, memory.__file__, V, "run"), folder=tmp_path)
    assert (status, err) == (0, "")
    found = json.loads(out)
    for rank, (taken, formula) in enumerate(found):
        tell(f"rank {rank}: {taken / 1e6:,.0f} MB, by the formula {formula / 1e6:,.0f} MB")
        assert taken <= formula
    alone = memory.formula(V, 1, 1)
    assert found[1][0] < 0.75 * alone
