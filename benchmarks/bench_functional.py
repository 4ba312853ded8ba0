"""fastmlp.functional on arrays of the network's sizes beside equivalent NumPy code; and the cost of a tiny call.

NumPy's side takes softmax, loss and gradients as the lectures write them, in float32, with as many temporaries. Both
sides give new arrays. dropout is left out: both must compute the same, and of one seed NumPy makes another mask.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np
import pytest

import fastmlp.functional as F
from benchmarks.conftest import in_contest
from benchmarks.contest import SMOKE, Clock, Contender, Contest, Result, Turn, timed
from benchmarks.report import markdown_table
from benchmarks.setting import BATCH_SIZES, batch_sizes, taking_part
from tests.inputs import REAL, normal

Array = np.ndarray
LEAST_SECONDS = 0.5e-3  # between two readings of the clock
PLAY = "benchmarks.bench_functional:play"
CONTENDERS = [Contender(name, PLAY, {"contender": name}) for name in ("fastmlp", "NumPy")]


@cache
def arrays(B: int, V: int, H: int, D: int, T: int) -> dict[str, Any]:
    """Make the functions' inputs, by the letters of the reference; once, since it takes longer than most of them."""
    rng = np.random.default_rng(2003)
    logits = normal(rng, B, V)
    return {
        "h": normal(rng, B, H),
        "dh": normal(rng, B, H),
        "hidden": normal(rng, H, H, scale=H**-0.5),
        "scale": normal(rng, H),
        "shift": normal(rng, H),
        "mean": np.zeros(H, np.float32),
        "var": np.ones(H, np.float32),
        "ids": rng.integers(0, V, (B, T)),
        "table": normal(rng, V, D),
        "demb": normal(rng, B, T, D),
        "logits": logits,
        "dlogits": normal(rng, B, V),
        "p": F.softmax(logits, 1),
        "log_p": F.log_softmax(logits, 1),
        "target": rng.integers(0, V, B),
        "output": normal(rng, V, H, scale=H**-0.5),
        "bias": normal(rng, V),
    }


FUNCTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "embedding": lambda a: F.embedding(a["ids"], a["table"]),
    "embedding_backward": lambda a: F.embedding_backward(a["demb"], a["ids"], a["table"]),
    "linear": lambda a: F.linear(a["h"], a["hidden"], a["scale"]),
    "linear_backward": lambda a: F.linear_backward(a["dh"], a["h"], a["hidden"], a["scale"]),
    "batch_norm": lambda a: F.batch_norm(a["h"], a["mean"], a["var"], a["scale"], a["shift"], True),
    "batch_norm_backward": lambda a: F.batch_norm_backward(a["dh"], a["h"], None, None, a["scale"], a["shift"], True),
    "tanh": lambda a: F.tanh(a["h"]),
    "tanh_backward": lambda a: F.tanh_backward(a["dh"], a["h"]),
    "gelu": lambda a: F.gelu(a["h"]),
    "gelu_backward": lambda a: F.gelu_backward(a["dh"], a["h"]),
    "softmax": lambda a: F.softmax(a["logits"], 1),
    "softmax_backward": lambda a: F.softmax_backward(a["dlogits"], a["p"], 1),
    "log_softmax": lambda a: F.log_softmax(a["logits"], 1),
    "log_softmax_backward": lambda a: F.log_softmax_backward(a["dlogits"], a["log_p"], 1),
    "cross_entropy": lambda a: F.cross_entropy(a["logits"], a["target"]),
    "cross_entropy_backward": lambda a: F.cross_entropy_backward(1.0, a["logits"], a["target"]),
    "linear_cross_entropy": lambda a: F.linear_cross_entropy(a["h"], a["output"], a["target"], linear_bias=a["bias"]),
    "linear_cross_entropy_backward": lambda a: F.linear_cross_entropy_backward(
        1.0, a["h"], a["output"], a["target"], linear_bias=a["bias"]
    ),
}


def plain_embedding_backward(a: dict[str, Any]) -> Array:
    dtable = np.zeros_like(a["table"])
    np.add.at(dtable, a["ids"], a["demb"])
    return dtable


def plain_linear_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    return dy @ weight, dy.T @ x, dy.sum(0)


def plain_batch_norm(a: dict[str, Any]) -> Array:
    x, rows = a["h"], len(a["h"])
    mean, var = x.mean(0), x.var(0)
    a["mean"] += np.float32(0.1) * (mean - a["mean"])
    a["var"] += np.float32(0.1) * (var * np.float32(rows / (rows - 1)) - a["var"])
    return (x - mean) / np.sqrt(var + np.float32(1e-5)) * a["scale"] + a["shift"]


def plain_batch_norm_backward(a: dict[str, Any]) -> tuple[Array, Array, Array]:
    x, dy, rows = a["h"], a["dh"], len(a["h"])
    inv_std = 1 / np.sqrt(x.var(0) + np.float32(1e-5))
    xhat = (x - x.mean(0)) * inv_std
    dweight, dbias = (dy * xhat).sum(0), dy.sum(0)
    return a["scale"] * inv_std / rows * (rows * dy - dbias - xhat * dweight), dweight, dbias


erf = np.vectorize(math.erf, otypes=[np.float32])  # NumPy has none


def plain_gelu_backward(dy: Array, x: Array) -> Array:
    density = np.exp(-x * x / 2) / np.float32(math.sqrt(2 * math.pi))
    return dy * ((1 + erf(x / np.float32(math.sqrt(2)))) / 2 + x * density)


def plain_log_softmax(x: Array) -> Array:
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def plain_softmax(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def plain_cross_entropy(logits: Array, target: Array) -> Array:
    return -plain_log_softmax(logits)[np.arange(len(target)), target].mean()


def plain_cross_entropy_backward(logits: Array, target: Array) -> Array:
    dlogits = plain_softmax(logits)
    dlogits[np.arange(len(target)), target] -= 1
    dlogits /= len(target)
    return dlogits


PLAIN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "embedding": lambda a: a["table"][a["ids"]],
    "embedding_backward": plain_embedding_backward,
    "linear": lambda a: a["h"] @ a["hidden"].T + a["scale"],
    "linear_backward": lambda a: plain_linear_backward(a["dh"], a["h"], a["hidden"]),
    "batch_norm": plain_batch_norm,
    "batch_norm_backward": plain_batch_norm_backward,
    "tanh": lambda a: np.tanh(a["h"]),
    "tanh_backward": lambda a: a["dh"] * (1 - a["h"] ** 2),
    "gelu": lambda a: a["h"] * (1 + erf(a["h"] / np.float32(math.sqrt(2)))) / 2,
    "gelu_backward": lambda a: plain_gelu_backward(a["dh"], a["h"]),
    "softmax": lambda a: plain_softmax(a["logits"]),
    "softmax_backward": lambda a: a["p"] * (a["dlogits"] - (a["dlogits"] * a["p"]).sum(1, keepdims=True)),
    "log_softmax": lambda a: plain_log_softmax(a["logits"]),
    "log_softmax_backward": lambda a: a["dlogits"] - np.exp(a["log_p"]) * a["dlogits"].sum(1, keepdims=True),
    "cross_entropy": lambda a: plain_cross_entropy(a["logits"], a["target"]),
    "cross_entropy_backward": lambda a: plain_cross_entropy_backward(a["logits"], a["target"]),
    "linear_cross_entropy": lambda a: plain_cross_entropy(a["h"] @ a["output"].T + a["bias"], a["target"]),
    "linear_cross_entropy_backward": lambda a: plain_linear_backward(
        plain_cross_entropy_backward(a["h"] @ a["output"].T + a["bias"], a["target"]), a["h"], a["output"]
    ),
}


def play(clock: Clock, contender: str, function: str, B: int) -> None:
    """A contender: call a function repeatedly; each tick reports the sum over its first results."""
    given = arrays(B, REAL.V, REAL.H, REAL.D, REAL.T)
    work = {"fastmlp": FUNCTIONS, "NumPy": PLAIN}[contender][function]
    found = work(given)
    total = float(sum(np.abs(part).sum(dtype=np.float64) for part in (found if isinstance(found, tuple) else (found,))))
    calls = math.ceil(LEAST_SECONDS / timed(lambda: work(given)))
    while True:
        for _ in range(calls):
            work(given)
        clock.tick(total, pieces=calls)


def measure_function(
    contest: Contest, function: str, sizes: Sequence[int], *, smoke: bool = False
) -> dict[int, dict[str, Result]]:
    """Return both results by batch size; they must agree."""
    rounds, turn = (1, SMOKE) if smoke else (5, Turn(seconds=0.05, least=2))
    by_size = {}
    for B in sizes:
        results = by_size[B] = contest.run(CONTENDERS, rounds=rounds, turn=turn, function=function, B=B)
        assert not [result.failed for result in results.values() if result.failed]
        assert np.allclose(*(result.values[0] for result in results.values()), rtol=1e-4), function
    return by_size


def describe(by_size: dict[int, dict[str, Result]], function: str) -> str:
    """A table with a line a batch size."""
    rows = []
    for B, results in by_size.items():
        ours, numpy = (results[contender.name].median for contender in CONTENDERS)
        rows.append([f"B = {B}", f"{1e3 * ours:.3f}", f"{1e3 * numpy:.3f}", f"{numpy / ours:.2f}"])
    return markdown_table([function, *(f"{c.name}, ms" for c in CONTENDERS), "times the better"], rows)


@pytest.fixture(scope="session")
def results_of(contest: Contest, smoke: bool, long: bool) -> Callable[[str], dict[int, dict[str, Result]]]:
    sizes = taking_part(BATCH_SIZES, long=long)
    return cache(lambda function: measure_function(contest, function, sizes, smoke=smoke))


@in_contest
@batch_sizes
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("contender", CONTENDERS, ids=attrgetter("name"))
def bench_functional(record, show, results_of, contender, function, B):
    by_size = results_of(function)
    if (contender, B) == (CONTENDERS[0], BATCH_SIZES[0]):
        show(describe(by_size, function))
    record(contender, by_size[B][contender.name], f"{function}, B = {B}", function=function, B=B)


@pytest.mark.parametrize("function", FUNCTIONS)
def bench_tiny_call(benchmark, smoke, function):
    """Measure the overhead of a call, on arrays of a few numbers."""
    given, work = arrays(B=4, V=8, H=4, D=4, T=2), FUNCTIONS[function]
    benchmark.group = "a tiny call"
    benchmark.pedantic(work, args=(given,), rounds=1 if smoke else 100, iterations=1 if smoke else 200, warmup_rounds=2)
