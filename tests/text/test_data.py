import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastmlp.data.batches
from fastmlp.data.batches import EpochBatches, RandomBatches, StretchBatches
from fastmlp.data.windows import Batch, Windows, evenly_spaced, split_ids
from fastmlp.text import TextError

ROOT = Path(__file__).parents[2]


def numbered(count, context=1):
    """Windows whose targets say which window they are."""
    return Windows(np.arange(-context, count) + context, context)


def indices_of(batch, context=1):
    contexts, _, targets = batch
    np.testing.assert_array_equal(contexts, targets[:, None] - np.arange(context, 0, -1))
    return (targets - context).tolist()


# ---------------------------------------------------------------------------------------------------------- split_ids


@pytest.mark.parametrize(
    ("words", "val", "test", "sizes"),
    [
        (1_339_610, 0.05, 0.05, (1_205_649, 66_980, 66_981)),  # the yardstick's
        (100, 0.05, 0, (95, 5, 0)),
        (100, 0, 0.05, (95, 0, 5)),
        (100, 0, 0, (100, 0, 0)),
        (
            10,
            0.1,
            0.7,
            (2, 1, 7),
        ),  # 1 - 0.1 - 0.7 is 0.20000000000000007 in floats, 10 * (1 - 0.7) is 3.0000000000000004
        (1000, 0.3, 0.6, (100, 300, 600)),
        (30, 0.05, 0.05, (27, 1, 2)),
        (2, 0.5, 0, (1, 1, 0)),
    ],
)
def test_split_sizes(words, val, test, sizes):
    ids = np.arange(words)
    split = split_ids(ids, val, test)
    assert (split.train.size, split.val.size, split.test.size) == sizes
    np.testing.assert_array_equal(np.concatenate([split.train, split.val, split.test]), ids)
    assert {part.dtype for part in (split.train, split.val, split.test)} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("words", "val", "test", "error", "message"),
    [
        (0, 0.05, 0, TextError, "the text is too short: 0.95 of 0 words makes no training part; name a"),
        (1, 0.05, 0, TextError, "the text is too short: 0.95 of 1 word makes no training part; name a"),
        (10, 0.05, 0.05, TextError, "the text is too short: 0.05 of 10 words makes no validation part; name a"),
        (10, -0.1, 0, ValueError, "val_fraction: expected 0 <= fraction < 1, got -0.1"),
        (10, 0, 1, ValueError, "test_fraction: expected 0 <= fraction < 1, got 1"),
        (10, 0.5, 0.5, ValueError, "val_fraction + test_fraction: expected less than 1, got 1.0"),
        (10, float("nan"), 0, ValueError, "val_fraction: expected 0 <= fraction < 1, got nan"),
        (10, 0, float("inf"), ValueError, "test_fraction: expected 0 <= fraction < 1, got inf"),
    ],
)
def test_split_refuses(words, val, test, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        split_ids(np.arange(words), val, test)


# ------------------------------------------------------------------------------------------------------------ windows


@given(words=st.integers(2, 30), context=st.integers(1, 5), before=st.none() | st.integers(0, 9))
def test_windows_are_those_of_a_loop(words, context, before):
    ids = np.arange(100, 100 + words)
    if before is None and words <= context:
        return
    history = None if before is None else np.arange(context + before)
    windows = Windows(ids, context, history=history)
    text = ids.tolist() if history is None else [*history[before:].tolist(), *ids.tolist()]
    expected = [(text[place - context : place], text[place]) for place in range(context, len(text))]
    assert len(windows) == len(expected) == words - (context if history is None else 0)
    order = [*reversed(range(len(windows))), 0, 0]
    contexts, _, targets = windows.take(order)
    assert contexts.tolist() == [expected[index][0] for index in order]
    assert targets.tolist() == [expected[index][1] for index in order]
    assert contexts.dtype == targets.dtype == np.int32
    assert contexts.flags.c_contiguous
    assert targets.flags.c_contiguous


def test_every_word_of_a_part_is_predicted_once():
    split = split_ids(np.arange(1000), 0.05, 0.1)
    for before, part in ((split.train, split.val), (split.val, split.test)):
        windows = Windows(part, 4, history=before)
        contexts, _, targets = windows.take(np.arange(len(windows)))
        np.testing.assert_array_equal(targets, part)
        np.testing.assert_array_equal(contexts[:, -1], part - 1)


@pytest.mark.parametrize(
    "convert",
    [
        lambda ids: ids.astype(np.int64),
        lambda ids: ids.astype(np.uint8),
        lambda ids: ids.astype(np.int32).repeat(2)[::2],
        lambda ids: np.frombuffer(ids.astype(np.int32).tobytes(), np.int32),  # read-only
        lambda ids: ids.tolist(),
    ],
)
def test_promise_12_any_vector_of_integers_is_welcome(convert):
    contexts, _, targets = Windows(convert(np.arange(10)), 3, history=convert(np.arange(5))).take(convert(np.arange(2)))
    assert (contexts.tolist(), targets.tolist()) == ([[2, 3, 4], [3, 4, 0]], [0, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Windows(np.arange(4), 4), TextError, "the text is too short: 4 words where a context of 4 needs at"),
        (lambda: Windows(np.arange(1), 4), TextError, "the text is too short: 1 word where a context of 4 needs at"),
        (lambda: Windows(np.arange(0), 4, history=np.arange(9)), TextError, "the text is too short: 0 words where"),
        (lambda: Windows(np.arange(9), 4, history=np.arange(3)), ValueError, "history: expected at least 4 words, got"),
        (lambda: Windows(np.arange(9), 0), ValueError, "context: expected at least 1, got 0"),
        (lambda: Windows(np.arange(9), 4.0), TypeError, "context: expected an integer, got float"),
        (lambda: Windows(np.arange(9.0), 4), TypeError, "ids: expected integers, got float64"),
        (lambda: Windows(np.ones((3, 3), int), 4), ValueError, "ids: expected shape (N,), got (3, 3)"),
        (lambda: Windows(np.arange(9) - 1, 4), IndexError, "ids: expected ids in [0, 2147483648), got -1"),
        (lambda: Windows(np.arange(9) + 2**31 - 4, 4), IndexError, "ids: expected ids in [0, 2147483648), got 214748"),
        (lambda: numbered(9).take(np.array([0, 9])), IndexError, "indices: expected windows in [0, 9), got 9"),
        (lambda: numbered(9).take(np.array([-1])), IndexError, "indices: expected windows in [0, 9), got -1"),
        (lambda: numbered(9).take(np.array([2**64 - 1], np.uint64)), IndexError, "indices: expected windows in [0, 9"),
        (lambda: numbered(9).take(np.array([True])), TypeError, "indices: expected integers, got bool"),
        (lambda: numbered(9).take(np.array([[1]])), ValueError, "indices: expected shape (B,), got (1, 1)"),
        (lambda: evenly_spaced(numbered(9), 0), ValueError, "count: expected at least 1, got 0"),
        (lambda: RandomBatches(numbered(9), 0, 1), ValueError, "batch_size: expected at least 1, got 0"),
        (lambda: RandomBatches(numbered(9), 2.5, 1), TypeError, "batch_size: expected an integer, got float"),
        (lambda: RandomBatches(numbered(9), 2, -1), ValueError, "seed: expected at least 0, got -1"),
        (lambda: EpochBatches(numbered(9), 2, 2**63), ValueError, "seed: expected less than 2**63, got 92233720368547"),
        (lambda: EpochBatches(numbered(1), 2, 1), TextError, "the text is too short: one window makes no batch"),
        (lambda: RandomBatches(numbered(9), 2, 1).batch(-1), ValueError, "step: expected at least 0, got -1"),
        (lambda: EpochBatches(numbered(9), 2, 1).batch(-1), ValueError, "step: expected at least 0, got -1"),
        (lambda: EpochBatches(numbered(9), 2, 1).batch(0.5), TypeError, "step: expected an integer, got float"),
    ],
)
def test_promises_11_and_12_what_is_refused(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}") as caught:
        call()
    assert str(caught.value).isprintable()


@given(st.integers(1, 60), st.integers(1, 80))
def test_evenly_spaced(words, count):
    indices = evenly_spaced(numbered(words), count)
    assert len(indices) == min(count, words)
    assert indices[0] == 0
    gaps = np.diff([*indices.tolist(), words])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


# -------------------------------------------------------------------------------------------------- random numbers


def philox(key, counter):
    """Philox-4x64-10 (Salmon et al. 2011) in Python's integers: return the four numbers of a counter."""
    mask = (1 << 64) - 1
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * x0, 0xCA5A826395121157 * x2
        x0, x1, x2, x3 = (p1 >> 64) ^ x1 ^ k0, p1 & mask, (p0 >> 64) ^ x3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [x0, x1, x2, x3]


def random_integers(seed, use, position, count):
    """The stream that both kinds of batches are drawn from; NumPy counts up before it draws."""
    blocks = (philox((seed, use), (block + 1, 0, 0, position)) for block in range(count // 4 + 1))
    return [number for block in blocks for number in block][:count]


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (1, 0), (1, 9_999), (2**63 - 1, 2**40)])
def test_random_batch_is_philox_modulo_windows(seed, step):
    expected = [number % 1_000 for number in random_integers(seed, 1, step, 33)]
    assert indices_of(RandomBatches(numbered(1_000), 33, seed).batch(step)) == expected


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (1, 7)])
def test_epoch_is_windows_sorted_by_philox(seed, epoch):
    keys = [number >> 6 for number in random_integers(seed, 2, epoch, 50)]
    expected = sorted(range(50), key=lambda index: (keys[index], index))
    assert indices_of(EpochBatches(numbered(50), 50, seed).batch(epoch)) == expected


def test_promise_4_same_batches_in_fresh_processes():
    code = (
        "import numpy as np; from fastmlp.data import *\n"
        "windows = Windows(np.arange(100), 4)\n"
        "kinds = (RandomBatches, EpochBatches)\n"
        "print([kind(windows, 5, 1).batch(step).targets.tolist() for kind in kinds for step in (0, 40)])"
    )
    expected = [
        kind(Windows(np.arange(100), 4), 5, 1).batch(step).targets.tolist()
        for kind in (RandomBatches, EpochBatches)
        for step in (0, 40)
    ]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert run.stdout.strip() == str(expected), run.stderr


@pytest.mark.parametrize("kind", [RandomBatches, EpochBatches, StretchBatches])
def test_promise_6_a_batch_depends_on_nothing_but_seed_and_step(kind):
    windows = numbered(1_003, context=4)
    one_run = [indices_of(kind(windows, 80, 5).batch(step), 4) for step in range(40)]  # each from a fresh object
    batches = kind(windows, 80, 5)
    for step in (39, 3, 3, 25, *range(40)):
        assert indices_of(batches.batch(step), 4) == one_run[step]
    assert len({tuple(indices) for indices in one_run}) == 40
    assert all(indices_of(kind(windows, 80, 6).batch(step), 4) != one_run[step] for step in range(40))


@pytest.mark.parametrize("kind", [RandomBatches, EpochBatches, StretchBatches])
@pytest.mark.parametrize("rows", [1, 20, 33, 100])
def test_promise_6_a_batch_does_not_depend_on_what_is_made_with_it(monkeypatch, kind, rows):
    """Batches are made in pieces: here of 1, 2, 4 and 12; an epoch has 13 batches, and the last is short."""
    whole = kind(numbered(102), 8, 5)
    expected = [indices_of(whole.batch(step)) for step in range(40)]
    monkeypatch.setattr(fastmlp.data.batches, "_PIECE_ROWS", rows)
    batches = kind(numbered(102), 8, 5)
    for step in (*range(40), 39, 3, 12, 13, 3):
        assert indices_of(batches.batch(step)) == expected[step]


@pytest.mark.parametrize("kind", [RandomBatches, EpochBatches, StretchBatches])
def test_the_batches_of_a_piece_are_made_at_once_and_cannot_be_changed(monkeypatch, kind):
    batches, made = kind(numbered(5_000), 32, 1), []
    take = batches.windows.take
    monkeypatch.setattr(batches.windows, "take", lambda indices: made.append(len(indices)) or take(indices))
    for step in range(128):
        contexts, _, targets = batches.batch(step)
        for array in (contexts, targets):
            assert array.flags.c_contiguous
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
    assert made == [4_096]


@pytest.mark.parametrize("kind", [RandomBatches, EpochBatches, StretchBatches])
@pytest.mark.parametrize("rows", [1, 7, 32])
def test_a_batch_knows_its_different_words(kind, rows):
    """Of each batch of a piece, of several pieces, and of the short one at an epoch's end."""
    words = np.random.default_rng(1).integers(0, 2**31 - 1, 60)[np.random.default_rng(2).integers(0, 60, 9_001)]
    batches = kind(Windows(words, 3), rows, 1)
    for step in (0, 1, 100, 127, 128, 8_998 // rows, 9_000):
        batch = batches.batch(step)
        for found in (batch.different_words(), Batch(*batch).different_words()):
            np.testing.assert_array_equal(found, np.unique(batch.near))
            assert found.dtype == np.int32
        assert not batch.different_words().flags.writeable
        other = batch._replace(near=batch.near[:, :1])
        np.testing.assert_array_equal(other.different_words(), np.unique(other.near))


def test_random_batches_draw_each_window_equally_often():
    batches = RandomBatches(numbered(10), 100, 1)
    counts = Counter(index for step in range(1_000) for index in indices_of(batches.batch(step)))
    assert sorted(counts) == list(range(10))
    assert all(abs(count - 10_000) < 5 * 95 for count in counts.values())  # standard deviation 95


# ----------------------------------------------------------------------------------------------------- epoch batches


@pytest.mark.parametrize("kind", [EpochBatches, StretchBatches])
@given(
    words=st.integers(2, 200), batch_size=st.integers(1, 70), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 9)
)
def test_every_window_once_an_epoch(kind, words, batch_size, seed, epoch):
    batches = kind(numbered(words), batch_size, seed)
    first = epoch * batches.batches_per_epoch
    epoch_of_indices = [indices_of(batches.batch(first + place)) for place in range(batches.batches_per_epoch)]
    sizes = [len(indices) for indices in epoch_of_indices]
    seen = [index for indices in epoch_of_indices for index in indices]
    left_out = batch_size > 1 and words % batch_size == 1  # a last batch of one row
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert len(set(seen)) == len(seen) == words - left_out
    assert set(seen) <= set(range(words))
    assert batch_size == 1 or min(sizes) > 1


def test_every_order_is_equally_likely():
    batches = EpochBatches(numbered(3), 3, 1)
    counts = Counter(tuple(indices_of(batches.batch(epoch))) for epoch in range(6_000))
    assert set(counts) == set(permutations(range(3)))
    assert all(abs(count - 1_000) < 5 * 29 for count in counts.values())  # standard deviation 29


def test_no_window_is_left_out_for_ever():
    batches = EpochBatches(numbered(9), 4, 1)
    left_out = {
        (set(range(9)) - {index for place in (0, 1) for index in indices_of(batches.batch(2 * epoch + place))}).pop()
        for epoch in range(200)
    }
    assert left_out == set(range(9))


# --------------------------------------------------------------------------------------------------- stretch batches


def epoch_of(batches, epoch):
    """The windows of an epoch, in their order."""
    first = epoch * batches.batches_per_epoch
    return [index for place in range(batches.batches_per_epoch) for index in indices_of(batches.batch(first + place))]


def test_the_rows_of_a_batch_are_stretches_of_16_windows():
    batches = StretchBatches(numbered(4_096 + 15), 64, 1)
    for step in range(batches.batches_per_epoch - 1):
        rows = np.array(indices_of(batches.batch(step))).reshape(4, 16)
        np.testing.assert_array_equal(rows - rows[:, :1], np.broadcast_to(np.arange(16), (4, 16)))
    order = epoch_of(batches, 0)
    neighbours = np.diff(order[: 256 * 16 : 16])
    assert (neighbours == 16).mean() < 0.05  # the stretches themselves are in no order


def test_each_epoch_has_another_order_and_another_start():
    batches = StretchBatches(numbered(1_000), 50, 1)
    orders = [epoch_of(batches, epoch) for epoch in range(200)]
    assert len({tuple(order) for order in orders}) == 200
    firsts = Counter(order[0] % 16 for order in orders)
    assert len(firsts) == 16
    assert max(firsts.values()) < 200 / 16 + 5 * 3.5  # standard deviation 3.4
    assert len({order[0] // 16 for order in orders}) > 40  # of 62 stretches


def test_a_text_that_is_shorter_than_a_stretch_is_one():
    for words in (2, 15, 16):
        assert epoch_of(StretchBatches(numbered(words), 50, 1), 3) == list(range(words))
    batches = StretchBatches(numbered(20), 7, 1, stretch=100)
    assert [epoch_of(batches, epoch) for epoch in (0, 1)] == [list(range(20))] * 2
    with pytest.raises(ValueError, match=r"^stretch: expected at least 1, got 0$"):
        StretchBatches(numbered(20), 7, 1, stretch=0)


@given(words=st.integers(2, 60), stretch=st.integers(1, 9), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**40))
def test_stretches_are_sorted_by_philox_and_what_is_left_follows(words, stretch, seed, epoch):
    first = random_integers(seed, 3, epoch, 1)[0] % stretch
    whole = max(words - first, 0) // stretch
    keys = [number >> max(whole - 1, 0).bit_length() for number in random_integers(seed, 2, epoch, whole)]
    starts = [first + stretch * number for number in sorted(range(whole), key=lambda number: (keys[number], number))]
    in_stretches = [start + place for start in starts for place in range(stretch)]
    expected = in_stretches + sorted(set(range(words)) - set(in_stretches))
    assert indices_of(StretchBatches(numbered(words), words, seed, stretch).batch(epoch)) == expected


def test_promise_4_the_order_of_an_epoch_never_changes():
    """What a resumed run counts on, and the figures of a run that is made again."""
    batches = StretchBatches(numbered(100), 100, seed=1)
    orders = [indices_of(batches.batch(epoch)) for epoch in range(3)]
    starts = [[order[place] for place in range(0, 96, 16)] for order in orders]
    assert starts == [[73, 41, 9, 25, 57, 0], [70, 22, 6, 38, 54, 0], [27, 11, 75, 43, 59, 0]]
    assert indices_of(StretchBatches(numbered(9), 9, 1, 2).batch(0)) == [5, 6, 1, 2, 3, 4, 7, 8, 0]
    assert indices_of(EpochBatches(numbered(9), 9, 1).batch(0)) == [4, 2, 0, 6, 1, 5, 8, 7, 3]


def test_promise_16_threads_may_share_the_batches(monkeypatch):
    expected = [indices_of(EpochBatches(numbered(20), 20, 1).batch(epoch)) for epoch in range(20)]
    batches = EpochBatches(numbered(20), 20, 1)
    draw = fastmlp.data.batches._permutation

    def draw_slowly(*arguments):
        time.sleep(0.0005)  # lets the other thread in
        return draw(*arguments)

    monkeypatch.setattr(fastmlp.data.batches, "_permutation", draw_slowly)
    right = []

    def read(order):
        for _ in range(5):
            right.extend(
                batches.batch(epoch).targets.tolist() == [index + 1 for index in expected[epoch]] for epoch in order
            )

    threads = [threading.Thread(target=read, args=(order,)) for order in (range(20), range(19, -1, -1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 200


@given(
    words=st.integers(2, 30), context=st.integers(1, 4), reach=st.integers(1, 9), before=st.none() | st.integers(0, 9)
)
def test_what_lies_further_back_is_that_of_a_loop(words, context, reach, before):
    """-1 where the text has not begun, and padding for the words just before."""
    ids = np.arange(100, 100 + words)
    if before is None and words <= context:
        return
    history = None if before is None else np.arange(before)
    windows = Windows(ids, context, reach=reach, history=history, padding=77)
    text = [*range(before or 0), *ids.tolist()]
    first = context if before is None else before
    near, far, targets = windows.take(np.arange(len(windows)))
    for row, place in enumerate(range(first, len(text))):
        known = text[:place]
        assert near[row].tolist() == ([77] * context + known)[-context:]
        assert far[row].tolist() == ([-1] * reach + known[: max(place - context, 0)])[-reach:]
        assert targets[row] == text[place]
    assert far.dtype == np.int32
    assert far.flags.c_contiguous
    assert windows.before.tolist() == text[:first][-(context + reach) :] if before is not None else text[:first]
