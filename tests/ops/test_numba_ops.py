"""What is particular to the Numba back-end: its bounds, its threads, its memory, its compilation.

Each op's own tests compare it with the reference.
"""

import importlib
import math
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import numba
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import fastmlp.ops
from fastmlp.ops import OPS, Ops, get_ops, numba_ops, reference, team
from fastmlp.ops.contract import checked
from fastmlp.ops.numba_ops import _jit, _products
from fastmlp.ops.numba_ops._arithmetic import exp_nonpositive
from fastmlp.ops.team import cut, run_slices
from tests import inputs
from tests.helpers import NUMPY, arguments, relative_norm, run
from tests.inputs import example, options_of

NUMBA = get_ops("numba")
LAST_LAYER = importlib.import_module("fastmlp.ops.numba_ops.linear_cross_entropy")  # whose name is the op's too


def run_all(ops: Ops, **sizes: int) -> dict[str, dict[str, np.ndarray]]:
    """What every op writes for its example of these sizes."""
    return {op: run(ops, op, example(op, **sizes), **options_of(op)) for op in OPS}


# ------------------------------------------------------------------------------------------------------------- bounds


@pytest.fixture(scope="module")
def checking_bounds() -> ModuleType:
    """The back-end imported once more, to be compiled with bounds checks: those reach what kernels call only so."""
    name, njit = numba_ops.__name__, numba.njit
    as_it_is = {key: sys.modules.pop(key) for key in list(sys.modules) if f"{key}.".startswith(f"{name}.")}
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(numba, "njit", lambda **options: njit(**(options | {"cache": False, "boundscheck": True})))
            return importlib.import_module(name)
    finally:
        sys.modules.update(as_it_is)
        fastmlp.ops.numba_ops = numba_ops


def test_promise_12_kernels_stay_inside_their_arrays(checking_bounds):
    declared = np.dtype("f4"), lambda: ("ieee",)
    tables = {op: checked(getattr(checking_bounds, op), getattr(reference, op), *declared) for op in OPS}
    ops = Ops("numba", **tables)
    for B, T, D, H, V in [(2, 1, 1, 1, 2), (3, 2, 5, 7, 31), (33, 4, 31, 33, 129), (130, 1, 3, 17, 385)]:
        sizes = {"B": B, "T": T, "D": D, "H": H, "V": V}
        got, want = run_all(ops, **sizes), run_all(NUMBA, **sizes)
        for op, outputs in want.items():
            for name, output in outputs.items():
                assert relative_norm(got[op][name], output) < 1e-4, f"{op}: {name} at {sizes}"


def test_promise_12_the_bounds_are_checked(checking_bounds):
    """Or the test above would prove nothing; also in a kernel that another kernel calls."""
    table, ids = np.zeros((3, 2), np.float32), np.array([3], np.int32)
    with pytest.raises(IndexError):
        checking_bounds.embedding._embedding_forward(table, ids, np.zeros((1, 2), np.float32), 0, 1, 1, 1)
    with pytest.raises(IndexError):
        checking_bounds.update._update_sgd_rows(ids, np.zeros((1, 2), np.float32), table, np.float32(1), np.float32(0))
    with pytest.raises(IndexError):
        checking_bounds.gelu._gelu_forward(np.zeros(4, np.float32), np.zeros(5, np.float32))


# ------------------------------------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("op", OPS)
def test_promise_4_same_bits_for_any_threads(monkeypatch, op):
    slices = []

    def counting(work: Callable[[int, int], object], pieces: list[tuple[int, int]], threads: int) -> None:
        slices.append(len(pieces))
        run_slices(work, pieces, threads)

    monkeypatch.setattr(team, "run_slices", counting)
    monkeypatch.setattr(_jit, "SMALLEST", 64)
    monkeypatch.setattr(_products, "SMALLEST_PRODUCT", 64)
    monkeypatch.setattr(_products, "NARROWEST", 8)
    given = example(op, B=65, T=3, D=31, H=33, V=1_001)
    want = run(NUMBA, op, given, **options_of(op), threads=1)
    for threads in (2, 3):
        got = run(NUMBA, op, given, **options_of(op), threads=threads)
        for name in want:
            assert got[name].tobytes() == want[name].tobytes(), f"{name}: {threads} threads"
    assert max(slices, default=0) > 1 or op == "embedding_backward"  # which one thread does


def blas_threads() -> list[int]:
    """The threads of NumPy's BLAS, and of what was loaded before the first product: another test may load more."""
    return [library["num_threads"] for library in _products._blas().info()]


@pytest.fixture
def two_blas_threads() -> Iterator[None]:
    if not blas_threads():
        pytest.skip("a BLAS whose threads cannot be set")
    with threadpool_limits(limits=2, user_api="blas"):
        yield


def test_promise_4_blas_has_one_thread_in_a_slice_and_its_own_afterwards(two_blas_threads):
    """Else it would add in an order that its number of threads decides, and bits with it."""
    before, seen = blas_threads(), []
    _products.run_products(lambda first, last: seen.extend(blas_threads()), cut(100, 1), threads=2)
    assert set(seen) == {1}
    assert blas_threads() == before
    with pytest.raises(OSError, match="of a slice"), _products.one_thread:
        raise OSError("of a slice")
    assert blas_threads() == before


def test_promise_16_blas_gets_its_threads_back_from_the_last_one_out(two_blas_threads):
    before = blas_threads()
    with _products.one_thread:
        with _products.one_thread:
            pass
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_promise_16_a_child_that_is_forked_meanwhile_has_blas_threads_of_its_own(two_blas_threads):
    before = blas_threads()
    with _products.one_thread:
        child = os.fork()
        if child == 0:
            os._exit(0 if blas_threads() == before and not _products.one_thread.lock.locked() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_a_blas_that_cannot_be_told_is_left_alone(monkeypatch):
    """As macOS's: no library that threadpoolctl knows."""
    monkeypatch.setattr(_products, "_blas", lambda: ThreadpoolController().select(user_api="none"))
    c = np.empty((3, 5), np.float32)
    _products.multiply(np.ones((3, 2), np.float32), np.ones((2, 5), np.float32), c, threads=2)
    assert (c == 2).all()


@pytest.mark.parametrize("shape", [(40, 9), (9, 40), (1, 40), (40, 1), (40, 40)], ids=str)
def test_products_in_slices_of_either_side(monkeypatch, shape):
    monkeypatch.setattr(_products, "SMALLEST_PRODUCT", 1)
    monkeypatch.setattr(_products, "NARROWEST", 3)
    (rows, columns), rng = shape, np.random.default_rng(0)
    a, b, added = rng.standard_normal((rows, 7)), rng.standard_normal((columns, 7)).T, rng.standard_normal(columns)
    c = np.full(shape, np.nan)
    _products.multiply(a, b, c, 2, added)
    np.testing.assert_allclose(c, a @ b + added, rtol=1e-12)


def last_layer(rows: int, words: int, seed: int = 0) -> inputs.Inputs:
    return inputs.linear_cross_entropy(np.random.default_rng(seed), rows, 31, words)


def test_promise_16_two_python_threads_at_once():
    given = [last_layer(rows, 3_000, seed=rows) for rows in (33, 65)]
    want = [run(NUMBA, "linear_cross_entropy", each) for each in given]
    start, wrong = threading.Barrier(2, timeout=20), []

    def train(each: inputs.Inputs, right: dict[str, np.ndarray]) -> None:
        start.wait()
        for _ in range(30):
            got = run(NUMBA, "linear_cross_entropy", each, threads=2)
            wrong.extend(name for name in right if got[name].tobytes() != right[name].tobytes())

    callers = [threading.Thread(target=train, args=pair) for pair in zip(given, want, strict=True)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
        assert not caller.is_alive()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_promise_16_a_forked_child_works():
    given = last_layer(33, 3_000)
    want = run(NUMBA, "linear_cross_entropy", given, threads=2)  # the parent has workers now, the child will not
    child = os.fork()
    if child == 0:
        status = 1
        try:
            got = run(NUMBA, "linear_cross_entropy", given, threads=2)
            status = 0 if all(got[name].tobytes() == want[name].tobytes() for name in want) else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


# ------------------------------------------------------------------------------------------------------------- memory


def test_the_work_array_is_kept_and_what_it_holds_does_not_matter():
    given = last_layer(33, 3_000)
    want = run(NUMBA, "linear_cross_entropy", given)
    (buffer,) = _jit.spare
    buffer[:] = np.nan
    got = run(NUMBA, "linear_cross_entropy", given)
    assert all(got[name].tobytes() == want[name].tobytes() for name in want)
    assert np.isfinite(buffer).any(), "it was not used again"
    run(NUMBA, "linear_cross_entropy", last_layer(2, 3_000))
    assert _jit.spare[0] is buffer, "a smaller call let go of it"


def test_a_second_caller_gets_a_work_array_of_its_own():
    with _jit.work_arrays((5,)) as (one,), _jit.work_arrays((5,)) as (other,):
        assert not np.shares_memory(one, other)


def test_after_an_error_the_work_array_is_not_used_again():
    """Another thread may still be writing to it."""
    with pytest.raises(KeyboardInterrupt), _jit.work_arrays((5,)):
        raise KeyboardInterrupt
    assert len(_jit.spare) == 0


def peak_memory(call: Callable[[], object]) -> int:
    """The bytes that a call takes at most: NumPy and Numba's kernels take theirs from Python, which counts them."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("most_kept", [LAST_LAYER.MOST_KEPT, 0], ids=["kept", "made again"])
def test_promise_15_passes_take_the_memory_that_they_state(monkeypatch, most_kept, threads):
    """Called one at a time, or where it would be too much, they keep nothing of the size of batch times vocabulary."""
    monkeypatch.setattr(LAST_LAYER, "MOST_KEPT", most_kept)
    rows, width, words, step = 600, 3, 20_000, LAST_LAYER.STEP
    given = inputs.mean_over_batch(inputs.linear_cross_entropy(np.random.default_rng(0), rows, width, words))
    given |= run(NUMPY, "linear_cross_entropy_forward", given)
    given |= {"weight_state": None, "weight_state2": None, **inputs.NOTHING_HELD}
    slices = len(cut(words, 2 * step, multiple_of=step))
    scratch = threads * 4 * LAST_LAYER.block_words(rows) * rows
    sums, dh_parts = 20 * rows * slices, 4 * rows * width * (slices + threads)
    kept = 4 * rows * words * (1 + 1 / step) if most_kept else scratch
    stated = {
        "linear_cross_entropy_forward": scratch + sums,
        "linear_cross_entropy_backward": scratch + dh_parts,
        "linear_cross_entropy": kept + sums + dh_parts,
        "linear_cross_entropy_update": kept + sums + dh_parts,
    }
    for op, memory in stated.items():
        arrays = arguments(op, given, np.copy)
        options = {"rule": "sgd", "lr": 0.1} if op.endswith("update") else {}
        call = partial(getattr(NUMBA, op), *arrays.values(), **options, threads=threads)
        call()  # compiles
        _jit.spare.clear()
        peak = peak_memory(call)
        assert peak < 1.1 * memory, op
        assert peak > 0.9 * memory or threads > 1, f"{op}: the measure is blind"  # they need not work at the same time


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_above_the_bound_the_logits_are_made_again(monkeypatch, label_smoothing):
    given = last_layer(33, 3_000)
    kept = run(NUMBA, "linear_cross_entropy", given, label_smoothing=label_smoothing)
    _jit.spare.clear()
    monkeypatch.setattr(LAST_LAYER, "MOST_KEPT", 4 * 33 * 3_000 - 1)
    again = run(NUMBA, "linear_cross_entropy", given, label_smoothing=label_smoothing)
    assert _jit.spare[0].size < 33 * 3_000
    for name in kept:
        assert relative_norm(again[name], kept[name]) < 2e-6, name


@pytest.mark.parametrize("most_kept", [LAST_LAYER.MOST_KEPT, 0], ids=["kept", "made again"])
@pytest.mark.parametrize("op", ["linear_cross_entropy", "linear_cross_entropy_update"])
def test_promise_2_slices_of_several_blocks(monkeypatch, op, most_kept):
    """Which only batches of hundreds of rows have."""
    monkeypatch.setattr(LAST_LAYER, "BLOCK_LOGITS", 1)
    monkeypatch.setattr(LAST_LAYER, "MOST_KEPT", most_kept)
    given, options = example(op, B=33, H=31, V=9_000), options_of(op)
    assert cut(9_000, 256, 128)[0][1] > LAST_LAYER.block_words(33) == 128
    got, want = run(NUMBA, op, given, **options, threads=2), run(NUMPY, op, given, **options)
    for name in want:
        assert relative_norm(got[name], want[name]) < 1e-5, name


# --------------------------------------------------------------------------------------------------------- arithmetic


def units_off(got: np.ndarray, want: np.ndarray) -> float:
    """The largest error, in units in the last place of the float32 nearest to the wanted number."""
    return float((np.abs(got - want) / np.spacing(np.abs(want).astype(np.float32))).max())


def test_exp_is_exact_to_two_units_in_the_last_place():
    x = np.concatenate([np.linspace(-87, 0, 4_001), -np.logspace(-30, 1, 999)]).astype(np.float32)
    got = np.array([exp_nonpositive(each) for each in x])
    assert units_off(got, np.exp(x.astype(np.float64))) < 2


def test_exp_at_the_ends():
    values = {0.0: 1, -100.0: 4e-44, -105.0: 0, -1e4: 0, -math.inf: 0, math.nan: math.nan}
    for x, want in values.items():
        np.testing.assert_allclose(exp_nonpositive(np.float32(x)), want, rtol=0.1)


def test_tanh_is_exact_to_three_units_in_the_last_place_near_0_and_far():
    x = np.concatenate([np.linspace(0, 20, 4_001), np.logspace(-44, 30, 999)]).astype(np.float32)
    x = np.concatenate([x, -x])
    y = np.empty_like(x)
    NUMBA.tanh_forward(x, y)
    assert units_off(y, np.tanh(x.astype(np.float64))) < 3
    assert (np.signbit(y) == np.signbit(x)).all()


def test_tanh_at_the_ends():
    y = np.empty(4, np.float32)
    NUMBA.tanh_forward(np.array([np.inf, -np.inf, np.nan, -0.0], np.float32), y)
    np.testing.assert_array_equal(y, [1, -1, np.nan, 0])


@pytest.mark.parametrize("op", ["linear_cross_entropy", "linear_cross_entropy_forward"])
def test_words_masked_by_an_infinite_bias_have_no_probability(op):
    """Also where they fill a block: what is subtracted there must not be infinite."""
    given = last_layer(5, 400)
    given["bias"][:256] = -np.inf
    given["targets"] = np.arange(395, 400, dtype=np.int32)
    got = run(NUMBA, op, given)
    rest = given | {name: given[name][256:] for name in ("weight", "bias")} | {"targets": given["targets"] - 256}
    want = run(NUMPY, op, rest)
    assert relative_norm(got["losses"], want["losses"]) < 1e-6
    if op == "linear_cross_entropy":
        assert not got["dweight"][:256].any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("threads", [1, 2])
def test_products_of_infinity_come_without_a_warning(monkeypatch, threads):
    """The losses tell of it; NumPy would warn in each slice."""
    monkeypatch.setattr(_products, "SMALLEST_PRODUCT", 1)
    monkeypatch.setattr(_products, "NARROWEST", 2)
    y = np.empty((9, 3), np.float32)
    NUMBA.linear_forward(np.full((9, 2), np.inf, np.float32), np.zeros((3, 2), np.float32), None, y, threads=threads)
    assert np.isnan(y).all()


# -------------------------------------------------------------------------------------------------------- compilation

COUNTING = """
import sys

import numpy as np
from fastmlp.ops import OPS, get_ops, numba_ops
from tests.helpers import arguments, cast
from tests.inputs import example, options_of

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{numba_ops.__name__}.")]
    kernels = {name: value for module in modules for name, value in vars(module).items()}
    return {name: len(value.signatures) for name, value in kernels.items() if hasattr(value, "signatures")}

numba_ops.compile_ops(np.dtype("DTYPE"))
before = compiled()
for op in OPS:
    arrays = arguments(op, cast(example(op, B=9, T=3, D=4, H=6, V=300), np.dtype("DTYPE")), np.copy)
    for name, array in arrays.items():
        if array is not None:
            array.flags.writeable = True
    for threads in (1, 2):
        getattr(numba_ops, op)(*arrays.values(), **options_of(op), threads=threads)
late = [name for name, count in compiled().items() if count != before[name]]
assert not late, late
assert before["_exponentials"] == before["_dlogits"] == before["_update_adagrad_rows"] == 1, before
"""


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_compile_ops_leaves_nothing_to_compile(dtype):
    subprocess.run([sys.executable, "-c", COUNTING.replace("DTYPE", dtype)], check=True, timeout=300)


def test_promise_17_without_a_folder_to_cache_in_kernels_compile_all_the_same(monkeypatch):
    monkeypatch.setattr("numba.core.caching.CompileResultCacheImpl._locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(numba_ops.tanh._tanh_backward.py_func)
    kernel = _jit.jit(numba_ops.tanh._tanh_backward.py_func)
    dx = np.empty(1, np.float32)
    kernel(np.full(1, 2, np.float32), np.full(1, 0.5, np.float32), dx)
    assert dx == 1.5


def doubled(x):
    return x + x


@pytest.mark.parametrize("jit", [_jit.jit, _jit.jit_any_order])
def test_machine_code_is_kept_so_that_the_next_process_need_not_compile(jit, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert jit(doubled)(2.0) == 4.0
    assert len(list(tmp_path.rglob("*.nbc"))) == 1
