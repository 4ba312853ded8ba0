"""What is particular to the compiled back-end: its variants and its team of threads."""

import os
import subprocess
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fastmlp.ops import get_ops
from tests import inputs
from tests.helpers import at_precision, module_of, relative_norm, require_ops, run, run_chain
from tests.inputs import example

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ops():
    return require_ops("cython")


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def a_step(ops, seed: int, threads: int) -> list[np.ndarray]:
    """A last layer large enough for several threads: its results for random numbers of the seed."""
    rng = np.random.default_rng(seed)
    B, H, V = 33, 64, 3_000
    h, weight = rng.standard_normal((B, H), np.float32), rng.standard_normal((V, H), np.float32)
    targets, row_scale = rng.integers(0, V, B), np.full(B, 1 / B, np.float32)
    outputs = [np.full(shape, np.nan, np.float32) for shape in ((B,), (B,), (B,), (B, H), (V, H))]
    ops.linear_cross_entropy(h, weight, None, targets, row_scale, *outputs, None, threads=threads)
    return outputs


def same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


# ----------------------------------------------------------------------------------------------------------- variants

VARIANTS = ["amx", "avx512_bf16", "avx512", "avx2", "neon", "portable"]  # the best first


@pytest.mark.usefixtures("ops")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variant_is_chosen_by_hand(variant):
    result = python("from fastmlp.ops.cython_ops import variant; print(variant())", FASTMLP_SIMD=variant)
    if "which this CPU runs" in result.stderr:
        pytest.skip(f"this CPU does not run {variant}")
    assert result.stdout.strip() == variant


@pytest.mark.usefixtures("ops")
def test_a_variant_that_is_not_there_is_an_error():
    result = python("from fastmlp.ops import get_ops; get_ops('cython')", FASTMLP_SIMD="sse9")
    assert result.returncode != 0
    assert "FASTMLP_SIMD: expected one of" in result.stderr
    assert "'sse9'" in result.stderr


@pytest.mark.usefixtures("ops")
def test_the_best_variant_runs_unless_another_is_chosen():
    result = python("from fastmlp.ops.cython_ops import *; print(variant(), *variants())", FASTMLP_SIMD="")
    current, *able = result.stdout.split()
    assert current == able[0]
    assert able == [name for name in VARIANTS if name in able]


def test_a_test_can_change_the_variant_and_with_it_the_precisions(ops):
    compiled = module_of(ops)
    before = compiled.variant()
    try:
        compiled.use_variant("portable")
        assert (compiled.variant(), ops.precisions()) == ("portable", ("ieee",))
        given = example("linear_cross_entropy")
        with pytest.raises(ValueError, match=r"fp32_precision: expected auto or one of .* here, ieee; got 'bf16'"):
            run(ops, "linear_cross_entropy", given, fp32_precision="bf16")
    finally:
        compiled.use_variant(before)
    with pytest.raises(ValueError, match=r"expected one of .*, which this CPU runs, got 'sse9'"):
        compiled.use_variant("sse9")


# ---------------------------------------------------------------------------------------------------------- not there

TRY = """
import fastmlp._kernels
from fastmlp.ops import BackendUnavailableError, get_ops
fastmlp._kernels.__path__ = [{folder!r}]
try:
    get_ops("cython")
except BackendUnavailableError as error:
    print(error)
"""
HOW_TO_BUILD = "with a C compiler at hand, `pip install -e .` in fastmlp's folder builds it"


def test_kernels_that_are_not_built_are_named_with_how_to_build_them(tmp_path):
    said = python(TRY.format(folder=str(tmp_path))).stdout.strip()
    assert said == (f"the cython back-end is not available: fastmlp._kernels.add is not built; {HOW_TO_BUILD}")


def test_kernels_that_fail_to_load_are_named_with_the_cause_and_how_to_build_them(tmp_path):
    broken = tmp_path / f"add{sysconfig.get_config_var('EXT_SUFFIX')}"
    broken.write_bytes(b"half a module")
    said = python(TRY.format(folder=str(tmp_path))).stdout.strip()
    assert said.startswith("the cython back-end is not available: a kernel fails to load (")
    assert str(broken) in said[: said.index(")")]
    assert said.endswith(f"; remove {broken}; {HOW_TO_BUILD}")
    assert "\n" not in said


# ------------------------------------------------------------------------------------------------ the team of threads


def test_promise_16_several_python_threads_at_once(ops):
    alone = [a_step(ops, seed, threads=1) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            together = list(pool.map(lambda seed: a_step(ops, seed, threads=2), range(4)))
            assert all(same_bits(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_promise_16_a_forked_child_works(ops):
    want = a_step(ops, 1, threads=2)  # the team is there before the fork
    child = os.fork()
    if child == 0:
        os._exit(0 if same_bits(a_step(ops, 1, threads=3), want) else 1)
    give_up = time.monotonic() + 60
    while (finished := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < give_up:
        time.sleep(0.01)
    if finished == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(finished[1]) == 0
    assert same_bits(a_step(ops, 1, threads=2), want)


def test_idle_threads_use_no_processor(ops):
    """An idle OpenMP team spins through such pauses: a second of processor time for a second of sleep."""
    x, spent = np.ones((64, 2_048), np.float32), 0.0
    y = np.empty_like(x)
    for _ in range(100):
        ops.tanh_forward(x, y, threads=2)
        before = time.process_time()  # the calls themselves may be as slow as they like
        time.sleep(0.005)
        spent += time.process_time() - before
    assert spent < 0.25


def test_signals_stay_with_the_main_thread(ops):
    a_step(ops, 1, threads=3)
    masks = {}
    for task in Path("/proc/self/task").iterdir() if Path("/proc/self/task").exists() else ():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        masks[int(task.name)] = int(status["SigBlk"].strip(), 16)
    if not masks:
        pytest.skip("this system does not show threads' signal masks")
    interrupt = 1 << (2 - 1)
    assert sum(bool(mask & interrupt) for mask in masks.values()) >= 2, "the team's workers block SIGINT"
    assert not masks[threading.main_thread().native_id] & interrupt


def test_more_threads_than_could_ever_work(ops):
    assert same_bits(a_step(ops, 1, threads=2**31 - 1), a_step(ops, 1, threads=1))


@pytest.mark.parametrize("threads", [256, 257, 1_024, 2**31 - 1])
def test_promise_12_more_threads_than_a_team_has_and_slices_for_all_of_them(ops, threads):
    a, y = np.arange(16_384 * 1_100, dtype=np.float32), np.zeros(16_384 * 1_100, np.float32)
    ops.add(a, a, y, threads=threads)
    np.testing.assert_array_equal(y, 2 * a)


# ------------------------------------------------------------------------------------------------------- work memory


@pytest.mark.parametrize("fp32_precision", ["ieee", "bf16x3", "bf16"])
def test_promise_2_exponentials_too_many_to_keep_are_made_again(ops, rng, fp32_precision):
    """B * V beyond the limit: the update agrees with two calls, which never keep any; so does one call, in pieces.

    It keeps the exponentials of a piece: in bf16 they are rounded then.
    """
    ops = at_precision(ops, fp32_precision)
    given = inputs.linear_cross_entropy(rng, 4_096 if fp32_precision == "bf16" else 2_048, 3, 33_100)
    given["targets"], given["row_scale"] = np.maximum(given["targets"], 0), np.maximum(given["row_scale"], 0.5)
    fused = run(ops, "linear_cross_entropy", given, threads=2)
    apart = run_chain(ops, ("linear_cross_entropy_forward", "linear_cross_entropy_backward"), given, threads=2)
    for name, got in fused.items():
        assert relative_norm(got, apart[name]) < (2**-9 if fp32_precision == "bf16" else 1e-6)
    nothing = {"weight_state": None, "weight_state2": None, **inputs.NOTHING_HELD}
    updated = run(ops, "linear_cross_entropy_update", given | nothing, rule="sgd", lr=1.0, threads=2)
    assert relative_norm(given["weight"] - updated["weight"], apart["dweight"]) < 1e-5
    assert relative_norm(updated["dbias"], apart["dbias"]) < 1e-5


INPUTS, STATISTICS = "h, weight, None, targets, row_scale", "highest, log_sum"
UPDATE = f"None, None, None, {STATISTICS}, losses, dh, None, None, rule='sgd', lr=0.1"


def peak_memory(code: str, rows: int = 1_024) -> int:
    """Return the peak megabytes of the process above those before `code` ran."""
    result = python(
        "import numpy as np\n"
        "from fastmlp.ops import get_ops\n"
        "ops = get_ops('cython')\n"
        f"B, H, V = {rows}, 16, 70_000\n"
        "f = lambda *shape: np.zeros(shape, np.float32)\n"
        "h, weight, targets, row_scale = f(B, H), f(V, H), np.zeros(B, np.int64), f(B)\n"
        "highest, log_sum, losses, dh, dweight = f(B), f(B), f(B), f(B, H), f(V, H)\n"
        "for array in (weight, dweight, row_scale): array[:] = 1\n"
        # not ru_maxrss, which begins with that of the parent
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        f"before = peak()\n{code}\nprint(peak() - before)"
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout) // 1024


@pytest.mark.usefixtures("ops")
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("share", "call"),
    [
        (
            1 / 8,
            f"ops.linear_cross_entropy_forward({INPUTS}, {STATISTICS}, losses, threads=2)",
        ),
        (
            1 / 8,
            f"ops.linear_cross_entropy_backward({INPUTS}, {STATISTICS}, dh, dweight, None)",
        ),
        (
            1 / 3,
            f"ops.linear_cross_entropy({INPUTS}, {STATISTICS}, losses, dh, dweight, None)",
        ),
        (1 / 8, f"ops.linear_cross_entropy_update({INPUTS}, {UPDATE})"),
    ],
    ids=["forward", "backward", "both", "update"],
)
def test_nothing_of_the_size_of_the_logits_is_kept_beyond_the_limit(call, share):
    """Both passes without an update keep the exponentials of a quarter of the rows."""
    logits = 1_024 * 70_000 * 4 // 2**20  # megabytes
    assert peak_memory(call) < logits * share


@pytest.mark.usefixtures("ops")
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_is_kept_below_the_limit_shows():
    """Otherwise the test above would detect nothing."""
    call = f"ops.linear_cross_entropy_update(h, weight, None, targets, row_scale, {UPDATE})"
    assert peak_memory(call, rows=512) > 512 * 70_000 * 4 // 2**20 / 2


def seconds_of_workers() -> float:
    """Processor time that the threads beside the main one have taken so far."""
    main = str(threading.main_thread().native_id)
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != main]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not show threads' time")
def test_workers_do_a_part_of_the_work(ops, rng):
    """By their processor time: a call of 0.1 s costs a worker that only waits for slices 0.2 ms."""
    given = inputs.linear_cross_entropy(rng, 256, 256, 20_000)
    run(ops, "linear_cross_entropy", given, threads=2)  # makes the team
    before = seconds_of_workers()
    for _ in range(20):  # on a busy machine it may take a few until a worker finds a core
        run(ops, "linear_cross_entropy", given, threads=2)
        if seconds_of_workers() - before > 0.05:
            return
    pytest.fail(f"workers ran for {seconds_of_workers() - before:.4f} s")


@pytest.mark.parametrize("variant", ["amx", "avx512_bf16", "avx512", "avx2", "portable"])
def test_three_products_of_bf16_evaluate_where_they_are_faster(variant: str) -> None:
    compiled = module_of(require_ops("cython"))
    if variant not in compiled.variants():
        pytest.skip(f"this CPU does not run {variant}")
    before = compiled.variant()
    try:
        compiled.use_variant(variant)
        assert get_ops("cython").precision_to_evaluate() == ("bf16x3" if variant == "amx" else "ieee")
    finally:
        compiled.use_variant(before)
    assert get_ops("numpy").precision_to_evaluate() == "ieee"
