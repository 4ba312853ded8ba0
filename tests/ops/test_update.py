"""update: PyTorch's SGD, momentum, Adagrad and AdamW, for a dense gradient and for one of a few rows."""

import numpy as np
import pytest

from tests import inputs
from tests.helpers import (
    Array,
    assert_close_like_numpy,
    assert_near,
    assert_same_bits_for_any_threads,
    cast,
    contract_of,
    precision,
    run,
)
from tests.inputs import REAL

# What a rule is tested with: rates so high that an update is of the parameter's own order.
RULES = [
    ("update_sgd", {"lr": 0.5}),
    ("update_sgd", {"lr": 0.5, "weight_decay": 0.3}),
    ("update_momentum", {"lr": 0.5}),
    ("update_momentum", {"lr": 0.5, "momentum": 0.5, "weight_decay": 0.3}),
    ("update_adagrad", {"lr": 0.5}),
    ("update_adagrad", {"lr": 0.5, "eps": 0.1, "weight_decay": 0.3}),
    ("update_adamw", {"lr": 0.5}),
    ("update_adamw", {"lr": 0.5, "beta1": 0.5, "beta2": 0.7, "eps": 0.1, "weight_decay": 0.3}),
]
# fmt: off
SHAPES = [(), (0,), (1,), (2,), (3,), (7,), (31,), (33,), (127, 1), (1, 129), (300, 3), (7, 3, 5), (301, 301),
          (REAL.V, REAL.D)]
ROWS = [  # V, D, U
    (1, 1, 1), (2, 3, 1), (3, 7, 0), (7, 2, 3), (31, 33, 31), (33, 127, 7), (301, 1, 129), (REAL.V, REAL.D, 99),
]
# fmt: on
rules = pytest.mark.parametrize(
    ("op", "options"), RULES, ids=lambda value: " ".join(value) if isinstance(value, dict) else value
)


def stepped(op: str, options: dict, step: int) -> dict:
    """The options of one step: AdamW alone counts."""
    return options | {"step": step} if "adamw" in op else options


@pytest.mark.sweep(every=5)
@rules
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_promise_2_agrees_with_float64(ops, rng, op, options, shape):
    assert_close_like_numpy(ops, [op], inputs.update(rng, *shape), **stepped(op, options, 3))


@pytest.mark.sweep(every=5)
@rules
@pytest.mark.parametrize("sizes", ROWS, ids=str)
def test_promise_2_agrees_with_float64_for_rows(ops, rng, op, options, sizes):
    assert_close_like_numpy(ops, [f"{op}_rows"], inputs.update_rows(rng, *sizes), **stepped(op, options, 3))


@rules
def test_promise_2_agrees_with_float64_on_the_first_step(ops, rng, op, options):
    """Where the state is what this one gradient makes it."""
    given = inputs.update(rng, 301)
    given |= {name: np.zeros_like(array) for name, array in given.items() if name not in ("grad", "param")}
    assert_close_like_numpy(ops, [op], given, **stepped(op, options, 1))


@pytest.mark.parametrize("step", [2, 1_000, 1_000_000])
def test_promise_2_agrees_with_float64_at_any_step(ops, rng, step):
    assert_close_like_numpy(ops, ["update_adamw"], inputs.update(rng, 33), lr=0.5, step=step)


@rules
@pytest.mark.parametrize("id_type", [np.int32, np.int64])
def test_rows_do_what_the_dense_form_does(ops, rng, op, options, id_type):
    given = cast(inputs.update_rows(rng, 129, 7, 33), id_type)
    given["grad"] = dense(given["rows"], given["drows"], given["param"])
    want = run(ops, op, given, **stepped(op, options, 3))
    got = run(ops, f"{op}_rows", given, **stepped(op, options, 3))
    for name, array in want.items():
        assert_near(got[name], array, 1e-6, name)


@pytest.mark.parametrize("op", ["update_sgd_rows", "update_adagrad_rows"])
def test_rows_without_weight_decay_touch_no_other_row(ops, rng, op):
    given = inputs.update_rows(rng, 129, 7, 33)
    others = np.setdiff1d(np.arange(129), given["rows"])
    for name, got in run(ops, op, given, lr=0.5).items():
        np.testing.assert_array_equal(got[others], given[name][others])
        assert (got[given["rows"]] != given[name][given["rows"]]).any(axis=1).all()


@rules
@pytest.mark.parametrize("sizes", ROWS, ids=str)
def test_promise_2_agrees_with_float64_for_nothing_but_the_rows(ops, rng, op, options, sizes):
    """The dense form on the rows of the parameter and of its state; all others stay as they are."""
    given = inputs.update_rows(rng, *sizes)
    rows, options = given["rows"], stepped(op, options, 3)
    assert_close_like_numpy(ops, [f"{op}_rows"], given, only_rows=True, **options)
    names = [name for name, want in contract_of(op).items() if want.written]
    want = run(ops, op, {"grad": given["drows"], **{name: given[name][rows] for name in names}}, **options)
    for name, got in run(ops, f"{op}_rows", given, only_rows=True, **options).items():
        assert_near(got[rows], want[name], 1e-6, name)
        others = np.setdiff1d(np.arange(len(got)), rows)
        assert got[others].tobytes() == given[name][others].tobytes(), name


def dense(rows: Array, drows: Array, like: Array) -> Array:
    """The dense gradient that a sparse one stands for."""
    gradient = np.zeros_like(like)
    gradient[rows] = drows
    return gradient


PYTORCH = {  # the optimizer, what makes it ours, and what it calls its state
    "update_sgd": ("SGD", {}, {}),
    "update_momentum": ("SGD", {"momentum": 0.9}, {"velocity": "momentum_buffer"}),
    "update_adagrad": ("Adagrad", {}, {"squares": "sum"}),
    "update_adamw": ("AdamW", {}, {"mean": "exp_avg", "square": "exp_avg_sq"}),
}


@rules
@pytest.mark.parametrize("form", ["dense", "rows"])
def test_promise_3_equals_pytorch_over_five_steps(ops, rng, torch, op, options, form):
    """From the state before the first step, each step with another gradient, and with PyTorch's own defaults."""
    optimizer, made_ours, states = PYTORCH[op]
    theirs = made_ours | {name: value for name, value in options.items() if name not in ("beta1", "beta2")}
    if "beta1" in options:
        theirs["betas"] = options["beta1"], options["beta2"]
    dtype, close = precision(ops)
    ours = cast({"param": inputs.normal(rng, 129, 7)}, dtype)
    ours |= {name: np.zeros_like(ours["param"]) for name in states}
    parameter = torch.tensor(ours["param"], dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, optimizer)([parameter], **theirs)
    for step in range(1, 6):
        sparse = cast(inputs.update_rows(rng, 129, 7, 33), dtype)
        grad = sparse["grad"] if form == "dense" else dense(sparse["rows"], sparse["drows"], ours["param"])
        called = op if form == "dense" else f"{op}_rows"
        given = {name: sparse[name] for name in contract_of(called) if name not in ours} | ours
        ours |= run(ops, called, given, **stepped(op, options, step))
        parameter.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
    assert_near(ours["param"], parameter, close, "param")
    for name, their_name in states.items():
        assert_near(ours[name], optimizer.state[parameter][their_name], close, name)


@rules
def test_promise_4_same_bits_for_any_threads(ops, rng, op, options):
    """Of so many rows that every back-end shares them out."""
    options = stepped(op, options, 3)
    given = inputs.update_rows(rng, 9_999, 31, 301)
    assert_same_bits_for_any_threads(ops, [op], given, **options)
    assert_same_bits_for_any_threads(ops, [f"{op}_rows"], given, **options)
    given = inputs.update_rows(rng, 9_999, 31, 9_000)
    assert_same_bits_for_any_threads(ops, [f"{op}_rows"], given, only_rows=True, **options)
