"""The last layer of a vocabulary that is shared out: `between` of linear_cross_entropy and its update."""

import numpy as np
import pytest

from fastmlp.distributed.part import Part
from tests import inputs
from tests.groups import run_ranks
from tests.helpers import (
    NUMPY,
    allowed,
    arguments,
    cast,
    relative_norm,
    run,
)
from tests.ops.test_linear_cross_entropy import BAD, CHANGED, UPDATE, in_training
from tests.updates import RULES

FORWARD, BOTH = "linear_cross_entropy_forward", "linear_cross_entropy"
rules = pytest.mark.parametrize("options", RULES[::2], ids=lambda options: options["rule"])
SIZES = [(5, 31, 301, 2), (33, 31, 301, 3), (130, 7, 1_000, 2), (2, 3, 3, 3), (301, 40, 129, 2)]  # B, H, V, ranks


@pytest.fixture
def ops(ops_at_each_precision):
    return ops_at_each_precision


def given_to(part, given):
    """What is this part's of inputs."""
    mine = {"targets": part.local(given["targets"])}
    for name in ("weight", "bias", "weight_state", "weight_state2"):
        if given.get(name) is not None:
            mine[name] = np.ascontiguousarray(part.of(given[name]))
    if given.get("held") is not None:
        rows = part.local(given["held"])
        mine["held"] = rows[rows >= 0]
    return {**given, **mine}


def shared_out(ops, op, given, ranks, **options):
    """Run an op on each rank's part, and return what all of them make together."""

    def work(group):
        part = Part(group, len(given["weight"]))
        mine = given_to(part, given)
        made = run(ops, op, mine, between=part.combine, **options)
        if "dh" in made:
            made["dh"] = made["dh"].copy()
            group.allreduce(made["dh"])
        return mine, made

    results = run_ranks(ranks, work)
    whole = {}
    for name in results[0][1]:
        of_ranks = [made[name] for _, made in results]
        if name in ("dweight", "dbias", *CHANGED):
            whole[name] = np.empty((len(given["weight"]), *of_ranks[0].shape[1:]), of_ranks[0].dtype)
            for rank, array in enumerate(of_ranks):
                whole[name][rank::ranks] = array
        elif name == "dheld":
            whole[name] = np.empty((len(given["held"]), of_ranks[0].shape[1]), of_ranks[0].dtype)
            for rank, array in enumerate(of_ranks):
                whole[name][given["held"] % ranks == rank] = array
        else:
            for array in of_ranks[1:]:
                assert array.tobytes() == of_ranks[0].tobytes(), f"{name}: not the same on all ranks"
            whole[name] = of_ranks[0]
    return whole


def assert_close(ops, op, given, ranks, **options):
    """To the float64 reference, about as closely as the op is where it has all words."""
    got = shared_out(ops, op, given, ranks, **options)
    exact = run(NUMPY, op, cast(given, np.float64), **options)
    alone = run(ops, op, given, **options)
    assert got.keys() == exact.keys()
    for name in exact:
        if name != "returned":
            bound = 2 * allowed(relative_norm(alone[name], exact[name]))
            assert relative_norm(got[name], exact[name]) <= bound, name


@pytest.mark.parametrize("op", [FORWARD, BOTH])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_promise_20_parts_together_are_the_whole(ops, rng, op, sizes):
    *shape, ranks = sizes
    assert_close(ops, op, inputs.linear_cross_entropy(rng, *shape), ranks)


@rules
@pytest.mark.parametrize("with_held", [False, True], ids=["nothing held", "rows held"])
def test_promise_20_parts_together_make_the_update_of_the_whole(ops, rng, options, with_held):
    assert_close(ops, UPDATE, in_training(rng, 33, 31, 301, with_held=with_held), 3, **options)


@pytest.mark.parametrize("op", [FORWARD, BOTH, UPDATE])
def test_promise_20_one_part_has_the_bits_of_the_whole(ops, rng, op):
    given = in_training(rng, 33, 31, 301, with_held=True)
    options = RULES[-1] if op == UPDATE else {}
    got, want = shared_out(ops, op, given, 1, **options), run(ops, op, given, **options)
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].tobytes() == want[name].tobytes(), name


def test_promise_20_parts_have_the_same_bits_again(ops, rng):
    given = in_training(rng, 33, 31, 301)
    first, again = (shared_out(ops, UPDATE, given, 3, **RULES[-1]) for _ in range(2))
    for name in first:
        assert first[name].tobytes() == again[name].tobytes(), name


def high_in_one_part(given):
    """Where the other parts' exponentials vanish beside those of one."""
    given["bias"][::3] += 10_000


def apart(given):
    given["bias"][::3] -= 80


@pytest.mark.parametrize("rows", [high_in_one_part, apart])
def test_promise_20_parts_that_lie_far_from_each_other(ops, rng, rows):
    given = inputs.linear_cross_entropy(rng, 33, 31, 301)
    rows(given)
    assert_close(ops, BOTH, given, 3)


@pytest.mark.parametrize(("name", "place", "bad"), BAD, ids=str)
def test_promise_13_a_number_that_is_none_stops_the_update_of_every_part(ops, rng, name, place, bad):
    """Whichever part it is in."""
    given = in_training(rng, 5, 31, 301, with_held=True)
    given[name][place] = bad

    def work(group):
        part = Part(group, 301)
        mine = given_to(part, given)
        arrays = arguments(UPDATE, mine)
        with np.errstate(all="ignore"):
            assert getattr(ops, UPDATE)(*arrays.values(), between=part.combine, **RULES[-1]) is False
        for changed in CHANGED:
            assert arrays[changed].tobytes() == mine[changed].tobytes()
        assert np.isnan(arrays["dh"]).all()

    run_ranks(3, work)


def test_an_exception_between_the_sweeps_changes_nothing_and_the_next_call_works(ops, rng):
    given = in_training(rng, 33, 31, 301)
    want = run(ops, UPDATE, given, **RULES[-1])

    def fail(*_statistics):
        raise InterruptedError("as a rank that has died")

    arrays = arguments(UPDATE, given)
    for _ in range(3):
        with pytest.raises(InterruptedError, match="as a rank that has died"):
            getattr(ops, UPDATE)(*arrays.values(), between=fail, **RULES[-1])
    for name in CHANGED:
        assert arrays[name].tobytes() == given[name].tobytes()
    assert run(ops, UPDATE, given, **RULES[-1])["weight"].tobytes() == want["weight"].tobytes()


def test_promise_12_a_target_of_another_part_needs_the_function_that_knows_its_logit(ops, rng):
    for op, options in ((FORWARD, {}), (BOTH, {}), (UPDATE, RULES[0])):
        arrays = arguments(op, in_training(rng, 5, 3, 7))
        arrays["targets"] = np.array([0, -1, 2, 3, 6], np.int32)
        arrays["row_scale"] = np.ones(5, np.float32)
        with pytest.raises(IndexError, match=rf"^{op}: targets: expected ids in \[0, 7\), got -1"):
            getattr(ops, op)(*arrays.values(), **options)
        with pytest.raises(ValueError, match=rf"^{op}: label_smoothing: expected 0 with between, got 0.1"):
            getattr(ops, op)(*arrays.values(), between=lambda *_: None, label_smoothing=0.1, **options)
        arrays["targets"][1] = -2
        with pytest.raises(IndexError, match=rf"^{op}: targets: expected ids in \[-1, 7\), got -2"):
            getattr(ops, op)(*arrays.values(), between=lambda *_: None, **options)
