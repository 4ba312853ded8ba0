"""Promise 16: models trained and used by several threads, and in a forked child."""

import contextlib
import hashlib
import json
import os
import pickle
import select
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fastmlp.language_model import LanguageModel
from fastmlp.ops import Ops
from tests.prediction.helpers import QUICK, SMALL, state_of
from tests.runs import learnable_text


def train_two(ops: Ops, *, at_once: bool) -> list[dict[str, bytes]]:
    """Two models of different sizes, large enough for two hands, each trained by a Python thread of its own."""
    ids = np.random.default_rng(3).integers(0, 1_500, 4_000)
    models = [
        LanguageModel(context=3, embed=6, hidden=(width,), vocab_size=1_500, backend=ops.backend, threads=2)
        for width in (64, 40)
    ]
    options = {**QUICK, "steps": 20, "val_fraction": 0.0}
    threads = [threading.Thread(target=model.fit, args=(ids,), kwargs=options) for model in models]
    for thread in threads:
        thread.start()
        if not at_once:
            thread.join()
    for thread in threads:
        thread.join()
    return [state_of(model) for model in models]


def test_promise_16_two_threads_that_train_at_once_get_the_bits_of_one_after_the_other(ops: Ops) -> None:
    want = train_two(ops, at_once=False)
    for _ in range(3):
        assert train_two(ops, at_once=True) == want


def test_promise_16_threads_that_use_one_model_get_its_own_answers(model: LanguageModel) -> None:
    """The network has one set of buffers, and <unk> another embedding while it is read."""

    def answers(seed: int) -> list[Any]:
        text = learnable_text(20) + "zebra"
        return [
            model.generate("anna paints", 20, seed=seed),
            model.perplexity(text),
            model.next_word("in", 2),
            pickle.dumps(model),
        ]

    want = [answers(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(answers, range(4))) == want


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_promise_16_a_forked_child_trains_and_writes_the_same(ops: Ops) -> None:
    """Although another thread of the parent is using the model."""
    model = LanguageModel(**{**SMALL, "backend": ops.backend, "threads": 2})
    model.fit(learnable_text(100), **QUICK)
    want = [model.generate("anna", 10, seed=1), hashlib.sha256(repr(state_of(model)).encode()).hexdigest()]
    child_reads, child_writes = os.pipe()
    in_use, forked = threading.Event(), threading.Event()

    def use() -> None:
        with model._lock:
            in_use.set()
            forked.wait()

    other = threading.Thread(target=use)
    other.start()
    in_use.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of threads, which is what is tested
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            text = model.generate("anna", 10, seed=1)
            model.fit(learnable_text(100), **QUICK)
            found = [text, hashlib.sha256(repr(state_of(model)).encode()).hexdigest()]
            os.write(child_writes, json.dumps(found).encode())
        os._exit(0)
    forked.set()
    other.join()
    os.close(child_writes)
    ready, _, _ = select.select([child_reads], [], [], 60)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert ready, "the child hangs"
    assert json.loads(os.read(child_reads, 10_000) or b"null") == want
    os.close(child_reads)
