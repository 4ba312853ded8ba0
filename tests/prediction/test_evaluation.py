"""Loss and perplexity: over known words, and over all words only if <unk> was trained."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastmlp.data.windows import Batch, Windows
from fastmlp.network.network import Network
from fastmlp.ops import Ops
from fastmlp.prediction.evaluation import ROWS, Evaluation, evaluate, perplexity
from fastmlp.prediction.generation import softmax
from tests.helpers import NUMPY
from tests.networks import WINDOW, small_language


def random_windows(rng: np.random.Generator, words: int, unknown: list[int]) -> Windows:
    ids = rng.integers(0, 8, words).astype(np.int32)
    ids[unknown] = 8
    return Windows(ids, 3)


@pytest.mark.parametrize("unk_trained", [False, True])
def test_unknown_words_are_left_out_and_counted(ops: Ops, unk_trained: bool, rng: np.random.Generator) -> None:
    language = small_language(rng, ops, unk_trained=unk_trained)
    windows = random_windows(rng, 2 * ROWS + 40, [5, 6, 300])
    done: list[int] = []
    found = evaluate(language, windows.targets, windows.before, watch=done.append)
    assert done == [ROWS, ROWS, len(windows) - 2 * ROWS]
    weights = {name: array.copy() for name, array in language.network.parameters.items()}
    if not unk_trained:
        language.network.parameters["embedding.weight"][-1] = weights["embedding.weight"][:-1].mean(axis=0)
    losses = language.network.losses(windows.take(np.arange(len(windows))))
    language.network.load_state_dict(language.network.state_dict() | weights)
    known = windows.targets != 8
    assert (found.words, found.unknown) == (len(windows) - 3, 3)
    assert found.loss == pytest.approx(losses[known].mean(), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    if unk_trained:
        assert found.loss_with_unknown == pytest.approx(losses.mean(), rel=1e-6)
    else:
        assert found.loss_with_unknown is None


def test_chosen_windows_only(rng: np.random.Generator) -> None:
    language = small_language(rng, NUMPY)
    windows = random_windows(rng, 100, [])
    chosen = np.array([3, 50, 96])
    losses = language.losses(windows, chosen)
    np.testing.assert_allclose(losses, language.network.losses(windows.take(chosen)), rtol=1e-6)
    np.testing.assert_allclose(losses, language.losses(windows)[chosen], rtol=1e-5)


def test_where_no_word_is_known_there_is_no_loss(rng: np.random.Generator) -> None:
    found = evaluate(small_language(rng, NUMPY), np.full(7, 8, np.int32))
    assert math.isnan(found.loss)
    assert (found.words, found.unknown) == (0, 7)


def test_the_perplexity_of_a_lost_network_is_still_a_number() -> None:
    assert perplexity(math.log(100)) == pytest.approx(100)
    assert math.isfinite(perplexity(1e6))


NETWORKS = pytest.mark.parametrize(
    "parts", [{}, WINDOW, {**WINDOW, "tied": True}], ids=["widths", "averages", "averages and tied"]
)


@NETWORKS
@pytest.mark.parametrize("unk_trained", [False, True])
def test_a_cursor_expects_what_an_evaluation_finds(
    ops: Ops, unk_trained: bool, parts: dict[str, Any], rng: np.random.Generator
) -> None:
    """Word by word, from the beginning of a text and after others; an unknown word among them."""
    language = small_language(rng, ops, unk_trained=unk_trained, **parts)
    before, ids = [1, 8, 2], rng.integers(0, 8, 12).astype(np.int32)
    ids[5] = 8
    for history in ([], before, [*before, *range(8), *before]):
        cursor, expected = language.cursor(history), []
        for word in ids:
            expected.append(np.log(softmax(cursor.logits())[word]))
            cursor.add(int(word))
        found = language.log_probabilities(ids, np.array(history, np.int32))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@NETWORKS
@pytest.mark.parametrize("unk_trained", [False, True])
def test_an_unknown_word_is_read_as_the_mean_and_adds_nothing_further_back(
    ops: Ops, unk_trained: bool, parts: dict[str, Any], rng: np.random.Generator
) -> None:
    """Its embedding means something only where training saw it; no weight is written to."""
    language = small_language(rng, ops, unk_trained=unk_trained, **parts)
    ids = rng.integers(0, 8, 60).astype(np.int32)
    ids[[3, 20, 21, 40]] = 8
    network, windows = language.network, language.windows(ids, np.array([2, 8, 1, 8, 5, 6, 7], np.int32))
    before = {name: array.tobytes() for name, array in network.state_dict().items()}
    found = language.losses(windows)
    assert {name: array.tobytes() for name, array in network.state_dict().items()} == before

    state = {name: array.copy() for name, array in network.state_dict().items()}
    if network.shape.tied:
        state["output.weight"] = state["embedding.weight"].copy()  # what is guessed is as it was
    near, far, targets = windows.take(np.arange(len(windows)))
    if not unk_trained:
        state["embedding.weight"][-1] = state["embedding.weight"][:-1].mean(axis=0, dtype=np.float64)
        far = None if far is None else np.where(far == 8, np.int32(-1), far)
    apart = Network(replace(network.shape, tied=False), ops, parameters=state)
    np.testing.assert_allclose(found, apart.losses(Batch(near, far, targets)), rtol=1e-5, atol=1e-6)
    logits = network.logits(near, windows.take(np.arange(len(windows))).far, unknown=language.unknown_embedding())
    np.testing.assert_allclose(logits, apart.logits(near, far), rtol=1e-4, atol=1e-5)


def test_a_notebook_shows_a_table() -> None:
    shown = Evaluation(words=10, loss=1.0, unknown=2, loss_with_unknown=2.0)._repr_html_()
    assert re.findall(r"<td[^>]*>(.*?)</td>", shown) == ["2.72", "1.0000 nats per word", "10", "2", "7.39"]
    known = Evaluation(words=10, loss=1.0, unknown=0, loss_with_unknown=1.0)._repr_html_()
    assert "vocabulary" not in known
    assert "with them" not in known
