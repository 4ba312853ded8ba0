"""fastmlp.functional with any number of threads, and called by two at once."""

import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastmlp.functional as F
from tests.functional.helpers import LARGE, copied, every_function, run_all


@every_function
def test_promise_4_same_bits_for_any_threads(name):
    arguments = LARGE[name]()
    want = getattr(F, name)(**copied(arguments), threads=1).tobytes()
    assert all(getattr(F, name)(**copied(arguments), threads=threads).tobytes() == want for threads in (2, 3))
    backward = getattr(F, f"{name}_backward")
    output = getattr(F, name)(**copied(arguments))
    takes = inspect.signature(backward).parameters
    given_ = {n: v for n, v in {"output": output, **arguments}.items() if n in takes}
    found = []
    for threads in (1, 2, 3):
        got = backward(np.ones_like(output), **copied(given_), threads=threads)
        found.append([g.tobytes() for g in (got if isinstance(got, tuple) else (got,)) if g is not None])
    assert found[0] == found[1] == found[2]


def test_promise_16_two_python_threads_at_once():
    inputs = [LARGE["linear_cross_entropy"]() for _ in range(8)]
    want = [run_all("linear_cross_entropy", arguments) for arguments in inputs]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda arguments: run_all("linear_cross_entropy", arguments), inputs))
    for ours, alone in zip(got, want, strict=True):
        assert all((a is None and b is None) or a.tobytes() == b.tobytes() for a, b in zip(ours, alone, strict=True))
