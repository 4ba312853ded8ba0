"""Batch normalization, GELU and dropout in sequence run as one op, and nobody can tell but by the time it takes."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fastmlp import nn
from fastmlp.nn.place import Place
from fastmlp.ops import Ops

Array = np.ndarray
WIDTH = 7
FUSED = "batchnorm_gelu_dropout"


class Recording(Place):
    """Runs ops at once and notes their names."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def run(self, op: str, *arrays: Array | None, **options: Any) -> Any:
        self.ran.append(op)
        return super().run(op, *arrays, **options)


def layers(p: float = 0.3, dtype: Any = np.float32, **of_batchnorm: Any) -> nn.Sequential:
    batchnorm = nn.BatchNorm1d(WIDTH, dtype=dtype, **of_batchnorm)
    rng = np.random.default_rng(5)
    for array in batchnorm.parameters():
        array[...] = rng.normal(size=WIDTH)
    return nn.Sequential(batchnorm, nn.GELU(), nn.Dropout(p, rng=3))


def forward_one_by_one(model: nn.Sequential, x: Any) -> Any:
    for module in model:
        x = module(x)
    return x


def backward_one_by_one(model: nn.Sequential, grad: Any) -> Any:
    for module in reversed(list(model)):
        grad = module.backward(grad)
    return grad


def trace(model: nn.Sequential, forward: Any, backward: Any, batches: Any) -> Iterator[tuple[str, Any]]:
    """Yield all that a user sees of some passes."""
    for x, dy in batches:
        y = forward(x)
        yield "y", (y.dtype, y.shape, y.tobytes())
        dx = backward(dy)
        yield "dx", (dx.dtype, dx.shape, dx.tobytes())
        yield "gradients", [None if each is None else each.tobytes() for each in model.gradients()]
        yield "state", {name: array.tobytes() for name, array in model.state_dict().items()}
        yield "random state", model[2].rng.bit_generator.state


def batches(*shape: int, count: int = 3, dtype: Any = np.float32) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(1)
    return [tuple(rng.normal(size=(2, *shape)).astype(dtype)) for _ in range(count)]


def assert_unseen(make: Callable[[], nn.Sequential], given: Any, *, fused: bool) -> None:
    """Assert that the model's passes are those of its modules one by one, and whether one op made them."""
    model, plain, place = make(), make(), Recording()
    model.run_in(place)
    got = trace(model, model, model.backward, given)
    want = trace(plain, lambda x: forward_one_by_one(plain, x), lambda grad: backward_one_by_one(plain, grad), given)
    for (name, mine), (_, its) in zip(got, want, strict=True):
        assert mine == its, name
    ran = [f"{FUSED}_forward", f"{FUSED}_backward"] * len(given)
    assert place.ran == ran if fused else not {*ran} & {*place.ran}


@pytest.mark.parametrize("p", [0.0, 0.3, 0])
@pytest.mark.parametrize(
    "options",
    [{}, {"affine": False}, {"bias": False}, {"momentum": None}, {"track_running_stats": False}, {"eps": 0.1}],
    ids=str,
)
def test_one_op_gives_the_bits_of_the_modules_one_by_one(
    ops: Ops, library_runs: Any, p: float, options: dict[str, Any]
) -> None:
    library_runs(ops)
    assert_unseen(lambda: layers(p, **options), batches(13, WIDTH), fused=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float64_stays_float64(dtype: Any) -> None:
    for given in (batches(13, WIDTH), batches(13, WIDTH, dtype=np.float64)):
        assert_unseen(lambda: layers(dtype=dtype), given, fused=True)
    lists = [(x.tolist(), dy.tolist()) for x, dy in batches(13, WIDTH)]
    assert_unseen(lambda: layers(dtype=dtype), lists, fused=True)


def counted(layer: int) -> nn.Sequential:
    model = layers()
    model[2].counter, model[2].layer = np.array([3, 9]), layer
    return model


def test_masks_are_those_of_the_dropouts_seed_step_and_layer() -> None:
    for layer in (0, 2):
        assert_unseen(lambda layer=layer: counted(layer), batches(13, WIDTH), fused=True)


def evaluated(model: nn.Sequential, *which: int) -> nn.Sequential:
    for number in which:
        model[number].eval()
    return model


def test_what_the_op_does_not_do_the_modules_do() -> None:
    given = batches(13, WIDTH)
    assert_unseen(lambda: layers().eval(), given, fused=False)
    assert_unseen(lambda: evaluated(layers(), 0), given, fused=False)
    assert_unseen(lambda: evaluated(layers(), 1, 2), given, fused=True)
    assert_unseen(lambda: layers(track_running_stats=False).eval(), given, fused=True)
    assert_unseen(lambda: layers(1.0), given, fused=False)
    assert_unseen(layers, batches(13, WIDTH, 5), fused=False)
    assert_unseen(layers, batches(0, WIDTH), fused=False)


def test_where_nothing_is_left_out_nothing_is_drawn() -> None:
    for model in (layers(0.0), evaluated(layers(), 2), layers().eval()):
        before = model[2].rng.bit_generator.state
        model(np.eye(WIDTH))
        forward_one_by_one(model, np.eye(WIDTH))
        assert model[2].rng.bit_generator.state == before


class OwnBatchNorm(nn.BatchNorm1d):
    def forward(self, input: Any) -> Array:
        return 2 * super().forward(input)


class OwnGELU(nn.GELU):
    def backward(self, grad: Any) -> Array:
        return 2 * super().backward(grad)


class OwnDropout(nn.Dropout):
    def forward(self, input: Any) -> Array:
        return input + 1

    def backward(self, grad: Any) -> Array:
        return grad


def with_own(number: int, module: nn.Module) -> nn.Sequential:
    modules = list(layers())
    modules[number] = module
    return nn.Sequential(*modules)


def watched(number: int, method: str) -> nn.Sequential:
    """One method of a module is replaced, as one does to see what goes through."""
    model = layers()
    original = getattr(model[number], method)
    setattr(model[number], method, lambda given: 2 * original(given))
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_own(0, OwnBatchNorm(WIDTH)),
        lambda: with_own(1, OwnGELU()),
        lambda: with_own(2, OwnDropout(rng=3)),
        *(lambda number=number, method=method: watched(number, method)
          for number in range(3) for method in ("forward", "backward")),
    ],
)  # fmt: skip
def test_modules_of_ones_own_are_called(make: Callable[[], nn.Sequential]) -> None:
    assert_unseen(make, batches(13, WIDTH), fused=False)


def test_modules_in_another_place_are_called() -> None:
    for number in range(3):
        places, model = (Recording(), Recording()), layers()
        model.run_in(places[0])[number].run_in(places[1])
        model.backward(model(np.eye(WIDTH)))
        assert not [op for place in places for op in place.ran if op.startswith(FUSED)]
        assert all(place.ran for place in places)


def test_all_of_a_longer_sequence_that_can_be_fused_is() -> None:
    place = Recording()
    model = nn.Sequential(nn.GELU(), *layers(), *layers(), nn.BatchNorm1d(WIDTH), nn.GELU(), nn.Tanh()).run_in(place)
    model.backward(model(np.eye(WIDTH)))
    forward = ["gelu_forward", f"{FUSED}_forward", f"{FUSED}_forward", "batchnorm_forward", "gelu_forward"]
    assert place.ran[:6] == [*forward, "tanh_forward"]
    backward = [op.replace("forward", "backward") for op in forward]
    assert place.ran[6:] == ["tanh_backward", *reversed(backward)]


def test_modules_may_be_called_by_themselves_at_any_time(rng: np.random.Generator) -> None:
    """Forward or backward, one by one, by slices or together: each goes on from the last pass of each module."""
    model, plain = layers(eps=0.1), layers(eps=0.1)
    whole = {"forward": model, "backward": model.backward}
    by_one = {
        "forward": lambda x: forward_one_by_one(model, x),
        "backward": lambda grad: backward_one_by_one(model, grad),
    }
    sliced = {
        "forward": lambda x: model[1:](model[:1](x)),
        "backward": lambda grad: model[:2].backward(model[2:].backward(grad)),
    }
    ways = [whole, by_one, sliced]
    for forward, between, backward in np.ndindex(3, 6, 3):
        x, dy, other = (rng.normal(size=(13, WIDTH)).astype(np.float32) for _ in range(3))
        for _ in range(2):  # the second pass is the one that counts
            y = ways[forward]["forward"](x)
            want = forward_one_by_one(plain, x)
            np.testing.assert_array_equal(y, want)
        if between < 3:  # one module runs once more
            for each in (model, plain):
                each[between](other)
        elif between == 3:  # one goes back, and later once more
            for each in (model, plain):
                each[1].backward(dy)
        elif between == 4:  # one runs once more, and then leaves nothing
            for each in (model, plain):
                each[2].p = 1.0
                each[2](other)
                each[2].p = 0.3
        np.testing.assert_array_equal(ways[backward]["backward"](dy), backward_one_by_one(plain, dy))
        for mine, its in zip(model.gradients(), plain.gradients(), strict=True):
            np.testing.assert_array_equal(mine, its)
        for name, array in plain.state_dict().items():
            np.testing.assert_array_equal(model.state_dict()[name], array, err_msg=name)


def test_errors_are_those_of_the_modules() -> None:
    good = np.ones((4, WIDTH), np.float32)

    def after_forward(model: nn.Sequential, grad: Any) -> None:
        model(good)
        model.backward(grad)

    for error, message, call in [
        (RuntimeError, r"^Dropout\.backward: expected a forward pass before it", lambda model: model.backward(good)),
        (ValueError, r"^BatchNorm1d: input: expected shape \(B, 7\)", lambda model: model(np.ones((4, 6)))),
        (ValueError, r"^BatchNorm1d: input: expected more than one value a channel", lambda model: model(good[:1])),
        (TypeError, r"^BatchNorm1d: input: ", lambda model: model([["word"]])),
        (ValueError, r"^Dropout\.backward: grad: ", lambda model: after_forward(model, good[:3])),
    ]:
        model = layers()
        with pytest.raises(error, match=message):
            call(model)
    model = layers()
    state = model.state_dict()["0.running_mean"].tobytes(), model[2].rng.bit_generator.state
    with pytest.raises(ValueError, match="more than one value"):
        model(good[:1])
    assert (model.state_dict()["0.running_mean"].tobytes(), model[2].rng.bit_generator.state) == state


def test_a_model_can_be_pickled_between_the_passes() -> None:
    model = layers()
    x, dy = batches(13, WIDTH)[0]
    model(x)
    other = pickle.loads(pickle.dumps(model))
    with pytest.raises(RuntimeError, match=r"^Dropout\.backward: expected a forward pass before it"):
        other.backward(dy)
    np.testing.assert_array_equal(other(x), model(x))
    np.testing.assert_array_equal(other.backward(dy), model.backward(dy))
