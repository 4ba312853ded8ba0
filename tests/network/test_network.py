"""The whole network: its gradients, its start, and that it equals PyTorch (promise 3)."""

import gc
import math
import time
import weakref
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fastmlp.data.windows import Batch
from fastmlp.network.network import Network, WindowNetwork, mean
from fastmlp.network.shape import NetworkShape
from fastmlp.nn.containers import Residual
from fastmlp.nn.dropout import Dropout
from fastmlp.nn.place import Bound
from fastmlp.ops import BACKENDS, OPS, Ops
from fastmlp.ops.gradient import RowGradient
from fastmlp.optim import SGD, AdamW, Optimizer
from tests.helpers import NUMPY, allowed, clocked_ops, module_of, relative_norm, require_ops
from tests.networks import FAMILY, ROWS, SHAPE, batch, make_model, nonzero_state, torch_logits, torch_loss, torch_model

Array = np.ndarray
FAMILY_AND_PLAIN = [pytest.param(shape, id=name) for name, shape in {"plain": SHAPE, **FAMILY}.items()]


@pytest.fixture
def buffers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value of a hidden layer has an array of its own, so that none is overwritten by the next."""

    def over(place: Bound, module: object, name: str, x: Array) -> Array:
        return place.array(module, name, x.shape, x.dtype)

    monkeypatch.setattr(Bound, "over", over)


def everything(model: Network, batch: Batch) -> dict[str, Array]:
    """Every intermediate value and every gradient of a training batch, by name; sparse gradients made dense."""
    layers, output, shape = model.layers, model.layers.output, model.shape
    with pytest.MonkeyPatch.context() as patch:
        found = watch(layers, shape.activation, patch)
        found["loss"] = np.array(model.loss_and_gradients(batch))
    for name in ("highest", "log_sum", "losses"):
        found[name] = output.place.array(output, name, batch.targets.shape, found["emb"].dtype)
    for (name, param), gradient in zip(model.parameters.items(), layers.gradients(), strict=True):
        found[f"d{name}"] = dense(gradient, param)
    return {name: value.copy() for name, value in {**found, **model.statistics}.items()}


def watch(layers: WindowNetwork, activation: str, patch: pytest.MonkeyPatch) -> dict[str, Array]:
    """What the layers compute from now on, by the lectures' names, and the gradients of it."""
    values: dict[str, Array] = {}

    def keep(module: Any, name: str) -> None:
        forward, backward = module.forward, module.backward

        def kept_forward(*inputs: Array) -> Array:
            values[name] = forward(*inputs)
            return values[name]

        def kept_backward(grad: Array) -> Array:
            values[f"d{name}"] = grad
            return backward(grad)

        patch.setattr(module, "forward", kept_forward)
        patch.setattr(module, "backward", kept_backward)

    keep(layers.embedding, "emb")
    for i, layer in enumerate(layers.hidden):
        for name, value in (("linear", "hprebn"), ("batchnorm", "hpreact"), (activation, "h")):
            keep(getattr(layer, name), f"{value}.{i}")
        if isinstance(layer, Residual):
            keep(layer, f"sum.{i}")
    if hasattr(layers, "projection"):
        keep(layers.projection, "o")
    return values


def row_of(batch: Batch, row: int) -> Batch:
    return Batch(*(None if words is None else words[row : row + 1] for words in batch))


def dense(gradient: Any, param: Array) -> Array:
    if not isinstance(gradient, RowGradient):
        return gradient
    full = np.zeros_like(param)
    full[gradient.rows] = gradient.drows
    return full


def everything_by_torch(state: dict[str, Array], one: Batch, shape: NetworkShape) -> dict[str, Array]:
    """The same by PyTorch's autograd in float64."""
    torch = pytest.importorskip("torch")
    model = torch_model(state, shape, "float64")
    values = keep_values(model, shape)
    logits = torch_logits(model, one)
    losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(one.targets).long(), reduction="none")
    losses.mean().backward()
    highest = logits.amax(1)
    found = {"loss": losses.mean(), "losses": losses, "highest": highest, "log_sum": logits.logsumexp(1) - highest}
    for name, value in values.items():
        found |= {name: value, f"d{name}": value.grad}
    found |= {f"d{name}": param.grad for name, param in model.named_parameters()}
    found |= dict(model.named_buffers())
    return {name: value.detach().numpy() for name, value in found.items()}


def keep_values(model: Any, shape: NetworkShape) -> dict[str, Any]:
    """What the modules of a torch model compute from now on, by the names that it has here."""
    values: dict[str, Any] = {}

    def keep_as(name: str) -> Any:
        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            output.retain_grad()
            values[name] = output

        return keep

    model.embedding.register_forward_hook(keep_as("emb"))
    for i, layer in enumerate(model.hidden):
        layer.linear.register_forward_hook(keep_as(f"hprebn.{i}"))
        layer.batchnorm.register_forward_hook(keep_as(f"hpreact.{i}"))
        getattr(layer, shape.activation).register_forward_hook(keep_as(f"h.{i}"))
        if i >= len(shape.hidden) and shape.residual:
            layer.register_forward_hook(keep_as(f"sum.{i}"))
    if shape.projection:
        model.projection.register_forward_hook(keep_as("o"))
    return values


@pytest.mark.parametrize("shape", FAMILY_AND_PLAIN)
@pytest.mark.usefixtures("buffers_apart")
def test_every_intermediate_gradient_equals_autograd(shape: NetworkShape, rng: np.random.Generator) -> None:
    state, one = nonzero_state(rng, shape), batch(rng, shape)
    want = everything_by_torch(state, one, shape)
    got = everything(make_model(NUMPY, state, shape, dtype=np.float64), one)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert np.linalg.norm(value) > 0, name
        np.testing.assert_allclose(got[name], value, rtol=1e-9, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("shape", FAMILY_AND_PLAIN)
@pytest.mark.usefixtures("buffers_apart")
def test_promise_2_every_intermediate_gradient_in_float32(
    shape: NetworkShape, ops: Ops, rng: np.random.Generator
) -> None:
    state, one = nonzero_state(rng, shape), batch(rng, shape)
    want = everything(make_model(NUMPY, state, shape, dtype=np.float64), one)
    plain = everything(make_model(NUMPY, state, shape), one)
    got = everything(make_model(ops, state, shape, threads=2), one)
    for name, value in want.items():
        own_error = relative_norm(plain[name], value)
        assert relative_norm(got[name], value) <= allowed(own_error) < 1e-3, name


def test_values_in_one_buffer_give_the_same_gradients(
    ops: Ops, rng: np.random.Generator, request: pytest.FixtureRequest
) -> None:
    state, one = nonzero_state(rng), batch(rng)
    shared = everything(make_model(ops, state), one)
    request.getfixturevalue("buffers_apart")
    apart = everything(make_model(ops, state), one)
    overwritten = {f"{name}.{i}" for name in ("hpreact", "dhpreact", "dh") for i in range(2)}
    assert {name for name, value in apart.items() if value.tobytes() != shared[name].tobytes()} == overwritten


def torch_losses(
    state: dict[str, Array], shape: NetworkShape, batches: list[Batch], rule: str, lr: float
) -> list[float]:
    torch = pytest.importorskip("torch")
    model = torch_model(state, shape)
    optimizer = getattr(torch.optim, rule)(model.parameters(), lr=lr)
    losses = []
    for one in batches:
        loss = torch_loss(model, one)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "apart"])
@pytest.mark.parametrize(("rule", "lr", "rtol"), [(SGD, 0.1, 1e-4), (AdamW, 0.002, 1e-3)])
def test_promise_3_ten_losses_equal_pytorch(
    ops: Ops, rng: np.random.Generator, rule: Any, lr: float, rtol: float, fused: bool
) -> None:
    shape = NetworkShape(vocabulary=509, context=4, embed=6, hidden=(31, 23))
    state = nonzero_state(rng, shape)
    batches = [batch(rng, shape, rows=32) for _ in range(10)]
    model = make_model(ops, state, shape, threads=2)
    optimizer = rule(model.layers.parameters(), lr)
    losses = []
    for one in batches:
        if fused:
            losses.append(model.step(one, optimizer))
        else:
            losses.append(model.loss_and_gradients(one))
            optimizer.step()
    np.testing.assert_allclose(losses, torch_losses(state, shape, batches, rule.__name__, lr), rtol=rtol)
    changed = [name for name, param in model.parameters.items() if relative_norm(param, state[name]) > 1e-4]
    assert changed == list(model.parameters)  # all of the network learned, not the output's bias alone


@pytest.mark.parametrize("shape", [pytest.param(shape, id=name) for name, shape in FAMILY.items()])
def test_no_array_that_a_backward_pass_reads_is_written_over(
    shape: NetworkShape, ops: Ops, rng: np.random.Generator, request: pytest.FixtureRequest
) -> None:
    """Every part of a network, with dropout: its gradients are those of values that have arrays of their own."""
    shape = replace(shape, dropout=(0.2, 0.3, 0.4))
    state, one = nonzero_state(rng, shape), batch(rng, shape)

    def gradients() -> dict[str, Array]:
        model = make_model(ops, state, shape)
        model.layers.counter[...] = 5, 7
        losses = [np.array(model.loss_and_gradients(one)) for _ in range(2)]  # the second is replayed
        named = zip(model.parameters.items(), model.layers.gradients(), strict=True)
        found = {name: dense(gradient, param).copy() for (name, param), gradient in named}
        return {**found, "loss": losses[0], "loss again": losses[1]}

    shared = gradients()
    request.getfixturevalue("buffers_apart")
    for name, value in gradients().items():
        assert value.tobytes() == shared[name].tobytes(), name


def test_all_products_of_training_have_its_precision_and_those_of_predictions_the_one_asked_for(
    rng: np.random.Generator,
) -> None:
    """Whatever passes were recorded before, and whatever precision they had."""
    asked: list[str] = []

    def watched(name: str) -> Any:
        def op(*arrays: Array, fp32_precision: str = "none", **options: Any) -> Any:
            asked.append(fp32_precision)
            return getattr(NUMPY, name)(*arrays, **options)

        return op

    linear = [name for name in OPS if name.startswith("linear_")]
    shape = FAMILY["all"]
    parameters = nonzero_state(rng, shape)
    ops = replace(NUMPY, **{name: watched(name) for name in linear})
    model = Network(shape, ops, parameters=parameters, fp32_precision="bf16", dtype=np.float64)
    optimizer, layers = SGD(model.layers.parameters(), 0.1), len(shape.hidden) + shape.blocks + 1
    for rows in (ROWS, ROWS, ROWS - 1, ROWS):
        one = batch(rng, shape, rows=rows)
        model.losses(one)
        assert asked == ["auto"] * (layers + 1)
        asked.clear()
        model.step(one, optimizer)
        assert asked == ["bf16"] * (2 * layers + 1)
        asked.clear()
        model.losses(one, fp32_precision="bf16x3")
        assert asked == ["bf16x3"] * (layers + 1)
        asked.clear()
        model.loss_and_gradients(one)
        assert asked == ["bf16"] * (2 * layers + 1)
        asked.clear()


def test_every_dropout_has_a_mask_of_its_own() -> None:
    shape = replace(FAMILY["all"], dropout=(0.5, 0.5, 0.5))
    layers = WindowNetwork(shape)
    dropouts = [module for module in layers.modules() if isinstance(module, Dropout)]
    assert len(dropouts) == 1 + 3 + 1  # of the input, of each hidden layer, before the output
    masks = {dropout(np.ones((8, 8), np.float32)).tobytes() for dropout in dropouts}
    layers.counter[1] = 1
    assert len(masks | {dropout(np.ones((8, 8), np.float32)).tobytes() for dropout in dropouts}) == 10
    layers = WindowNetwork(replace(shape, dropout=(0.1, 0.2, 0.3)))
    assert [module.p for module in layers.modules() if isinstance(module, Dropout)] == [0.1, 0.2, 0.2, 0.2, 0.3]


def test_the_clock_counts_the_kernels_and_changes_nothing(ops: Ops, rng: np.random.Generator) -> None:
    """What benchmarks divide a step by: each kernel counts, once, and what is not a kernel does not."""
    clocked, seconds = clocked_ops(ops.backend)
    state, one = nonzero_state(rng), batch(rng)
    plain, timed = (make_model(which, state) for which in (ops, clocked))
    want = plain.step(one, SGD(plain.layers.parameters(), 0.1))  # compiles what is compiled on first use
    before, began = seconds(), time.perf_counter()
    assert before == 0
    assert timed.step(one, SGD(timed.layers.parameters(), 0.1)) == want
    assert 0 < seconds() <= time.perf_counter() - began
    before = seconds()
    clocked.tanh_forward(np.zeros(3, np.float32), np.zeros(3, np.float32))
    after = seconds()
    assert after > before
    with pytest.raises(TypeError, match="tanh_forward: y: expected a NumPy array"):
        clocked.tanh_forward(np.zeros(3, np.float32), None)
    assert seconds() == after


def test_first_loss_is_the_logarithm_of_the_vocabulary(rng: np.random.Generator) -> None:
    shape = NetworkShape(vocabulary=5_000)
    one = batch(rng, shape, rows=64)
    for seed in (1, 2, 3):
        loss = Network(shape, NUMPY, seed=seed).loss_and_gradients(one)
        assert loss == pytest.approx(math.log(5_000), rel=0.01)


def test_initial_weights_have_the_distributions_of_pytorch() -> None:
    shape = NetworkShape(vocabulary=2_000, context=4, embed=30, hidden=(300, 200))
    p = Network(shape, NUMPY, seed=1).parameters
    assert p["embedding.weight"].mean() == pytest.approx(0, abs=0.02)
    assert p["embedding.weight"].std() == pytest.approx(1, rel=0.02)
    for name, inputs in (("hidden.0.linear.weight", 120), ("hidden.1.linear.weight", 300)):
        bound = 1 / math.sqrt(inputs)
        assert abs(p[name]).max() <= bound
        assert p[name].min() == pytest.approx(-bound, rel=0.01)
        assert p[name].std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert p["output.weight"].std() == pytest.approx(0.01, rel=0.02)
    assert (p["hidden.0.batchnorm.weight"] == 1).all()
    assert not p["hidden.0.batchnorm.bias"].any()
    assert not p["output.bias"].any()


def test_initial_weights_are_a_function_of_the_seed() -> None:
    first, again, other = (Network(SHAPE, NUMPY, seed=seed).parameters for seed in (1, 1, 2))
    for name in ("embedding.weight", "hidden.0.linear.weight", "hidden.1.linear.weight", "output.weight"):
        assert first[name].tobytes() == again[name].tobytes()
        assert first[name].tobytes() != other[name].tobytes()


@pytest.mark.parametrize("shape", FAMILY_AND_PLAIN)
def test_a_state_dict_of_torch_goes_in_and_gives_the_same_outputs(
    shape: NetworkShape, ops: Ops, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    peer = torch_model(nonzero_state(rng, shape), shape).eval()
    state = {name: value.numpy() for name, value in peer.state_dict().items()}
    if shape.tied:
        assert np.array_equal(state.pop("output.weight"), state["embedding.weight"])  # PyTorch has it twice
    model = make_model(ops, state, shape)
    assert model.state_dict().keys() == state.keys()
    one = batch(rng, shape)
    with torch.no_grad():
        want = torch_logits(peer, one)
    np.testing.assert_allclose(model.logits(one.near, one.far), want, rtol=1e-4, atol=2e-6)
    losses = torch.nn.functional.cross_entropy(want, torch.from_numpy(one.targets).long(), reduction="none")
    np.testing.assert_allclose(model.losses(one), losses, rtol=1e-4)


def test_evaluation_uses_the_running_statistics_row_by_row(ops: Ops, rng: np.random.Generator) -> None:
    model = make_model(ops, nonzero_state(rng))
    one = batch(rng)
    before = {name: statistic.copy() for name, statistic in model.statistics.items()}
    together = model.losses(one)
    alone = [model.losses(row_of(one, i))[0] for i in range(ROWS)]
    np.testing.assert_allclose(alone, together, rtol=1e-5)
    for name, statistic in model.statistics.items():
        np.testing.assert_array_equal(statistic, before[name])


def test_a_smaller_batch_leaves_nothing_of_the_larger_one_behind(ops: Ops, rng: np.random.Generator) -> None:
    state, large, small = nonzero_state(rng), batch(rng), batch(rng, rows=5)
    used = make_model(ops, state)
    used.loss_and_gradients(large)
    used.load_state_dict(state)
    fresh = everything(make_model(ops, state), small)
    for name, value in everything(used, small).items():
        assert value.tobytes() == fresh[name].tobytes(), name


@pytest.mark.parametrize("shape", [SHAPE, replace(FAMILY["all"], dropout=(0.2, 0.3, 0.4))], ids=["plain", "all"])
def test_batches_of_other_sizes_and_evaluation_in_between_leave_training_alone(
    shape: NetworkShape, ops: Ops, rng: np.random.Generator
) -> None:
    """The hidden layers' ops are bound to the arrays of a batch: to those of the right one."""
    state, batches = nonzero_state(rng, shape), [batch(rng, shape, rows) for rows in (13, 5, 13, 13, 30, 13)]
    apart, mixed = (make_model(ops, state, shape) for _ in range(2))
    optimizers = [AdamW(model.layers.parameters(), 0.01) for model in (apart, mixed)]
    held_out = batch(rng, shape, rows=7)
    for number, one in enumerate(batches):
        alone = make_model(ops, apart.state_dict(), shape).losses(held_out)
        assert mixed.losses(held_out).tobytes() == alone.tobytes()
        first = held_out.near[:1], None if held_out.far is None else held_out.far[:1]
        assert mixed.logits(*first).tobytes() == make_model(ops, apart.state_dict(), shape).logits(*first).tobytes()
        mixed.losses(one)  # in the same arrays
        losses = [
            model.step(one, optimizer, number) for model, optimizer in zip((apart, mixed), optimizers, strict=True)
        ]
        assert losses[0] == losses[1]
        for name, array in apart.state_dict().items():
            assert array.tobytes() == mixed.state_dict()[name].tobytes(), name


def test_parameters_are_the_same_arrays_for_good(rng: np.random.Generator) -> None:
    model = make_model(NUMPY, nonzero_state(rng))
    for arrays in (model.parameters, model.statistics):
        with pytest.raises(TypeError, match="does not support item assignment"):
            arrays[next(iter(arrays))] = np.zeros(3)  # type: ignore[index]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_the_mean_loss_is_that_of_the_exact_sum(dtype: Any, rng: np.random.Generator) -> None:
    losses = rng.gamma(3, 2, ROWS).astype(dtype)
    exact = sum(Fraction(float(one)) for one in losses) / ROWS
    assert mean(losses) == pytest.approx(float(exact), rel=1e-15)
    losses[0] = np.nan
    assert math.isnan(mean(losses))
    losses[0] = np.inf
    assert mean(losses) == math.inf


def test_the_loss_of_a_batch_is_the_mean_of_its_rows(rng: np.random.Generator) -> None:
    model = make_model(NUMPY, nonzero_state(rng), dtype=np.float64)
    found = everything(model, batch(rng))
    assert found["loss"] == pytest.approx(found["losses"].mean(), rel=1e-15)


def test_training_counts_its_batches_and_refuses_a_batch_of_one(rng: np.random.Generator) -> None:
    model = make_model(NUMPY, nonzero_state(rng))
    one = batch(rng)
    model.loss_and_gradients(one)
    assert model.statistics["hidden.1.batchnorm.num_batches_tracked"] == 8
    with pytest.raises(ValueError, match="more than one value a channel to train on"):
        model.loss_and_gradients(row_of(one, 0))


def test_a_state_that_does_not_fit_is_refused_by_name(rng: np.random.Generator) -> None:
    state = nonzero_state(rng)
    with pytest.raises(ValueError, match=r"missing: output\.bias"):
        make_model(NUMPY, {name: array for name, array in state.items() if name != "output.bias"})
    with pytest.raises(ValueError, match=r"not known: output\.scale"):
        make_model(NUMPY, {**state, "output.scale": np.ones(3)})
    with pytest.raises(ValueError, match=r"output\.bias: expected shape \(97,\), got \(96,\)"):
        make_model(NUMPY, {**state, "output.bias": np.ones(96)})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocabulary": 0}, "vocabulary"),
        ({"context": 0}, "context"),
        ({"hidden": ()}, "hidden"),
        ({"hidden": (3, 0)}, "hidden"),
    ],
)
def test_a_network_without_width_is_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkShape(**{"vocabulary": 10, **sizes})


def test_the_originals_size_is_known() -> None:
    network = Network(NetworkShape(27_755), NUMPY, seed=1)
    assert network.parameter_count() == 27_755 * 30 + 120 * 300 + 600 + 300 * 300 + 600 + 27_755 * 301


def test_every_size_may_be_one(ops: Ops, rng: np.random.Generator) -> None:
    shape = NetworkShape(vocabulary=1, context=1, embed=1, hidden=(1,))
    model = Network(shape, ops, seed=1)
    one = batch(rng, shape, rows=5)
    assert model.loss_and_gradients(one) == 0  # the only word is certain
    assert all(np.isfinite(model.logits(one.near)).ravel())


def test_averages_need_the_words_before(rng: np.random.Generator) -> None:
    """Without them `forward` would average nothing and say nothing of it."""
    shape = replace(SHAPE, averages=(0.9,), reach=5)
    network, one = make_model(NUMPY, nonzero_state(rng, shape), shape), batch(rng, shape)
    with pytest.raises(TypeError, match="far: expected int32, got None"):
        network.forward(one.near, None, training=False)


@pytest.mark.parametrize("shape", [SHAPE, FAMILY["averages"]], ids=["plain", "averages"])
def test_words_of_another_shape_are_refused_and_after_them_all_is_as_before(
    rng: np.random.Generator, shape: Any
) -> None:
    """Whatever fails between two passes, the second is not that of words before it."""
    network, apart = (make_model(NUMPY, nonzero_state(np.random.default_rng(1), shape), shape) for _ in range(2))
    small, large = batch(rng, shape), batch(rng, shape, rows=2 * ROWS)
    large.near[0, 0] = shape.vocabulary
    wide = np.zeros((ROWS, 40), np.int32)
    faults: list[tuple[type[Exception], str, Array, Array | None]] = [
        (IndexError, "ids", large.near, large.far),
        (ValueError, "near: expected shape", wide, small.far),
        (ValueError, "near: expected shape", small.near[0], small.far),
        (TypeError, "near: expected int32", small.near.astype(np.int64), small.far),
    ]
    if shape.reach:
        faults.append((ValueError, "far: expected shape", small.near, wide))
    for error, message, near, far in faults:
        network.losses(batch(rng, shape))
        with pytest.raises(error, match=message):
            network.forward(near, far, training=False)
        np.testing.assert_array_equal(network.losses(small), apart.losses(small))


@pytest.mark.parametrize("evaluated_after", range(3))
def test_an_evaluation_of_as_many_rows_leaves_the_steps_as_they_are(
    rng: np.random.Generator, evaluated_after: int
) -> None:
    """Also a step with more different words than any before it, which needs a larger array."""
    shape = FAMILY["all"]
    state, batches = nonzero_state(rng, shape), [batch(rng, shape) for _ in range(4)]
    for one, different in zip(batches, (1, 1, 2, 9), strict=True):
        one.near[...] %= different
    networks = [make_model(NUMPY, state, shape) for _ in range(2)]
    optimizers = [AdamW(network.layers.parameters(), 0.001) for network in networks]
    for number, one in enumerate(batches):
        losses = [network.step(one, optimizer) for network, optimizer in zip(networks, optimizers, strict=True)]
        assert losses[0] == losses[1]
        if number == evaluated_after:
            networks[0].losses(one)
    for name, array in networks[0].state_dict().items():
        np.testing.assert_array_equal(array, networks[1].state_dict()[name], err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rule", "changes"), [(SGD, {"momentum": 0.9}), (AdamW, {"weight_decay": 0.5})])
def test_a_replayed_step_goes_by_the_state_and_the_options_that_the_optimizer_has_by_then(
    rng: np.random.Generator, backend: str, rule: type[Optimizer], changes: dict[str, Any]
) -> None:
    """Not by those of the step that was recorded, or of another optimizer: as a network that has recorded nothing."""
    ops, shape = require_ops(backend), FAMILY["all"]
    one, small = batch(rng, shape), batch(rng, shape, 3)
    replays, anew = (make_model(ops, nonzero_state(rng, shape), shape) for _ in range(2))
    first, other = (rule(replays.layers.parameters(), rate) for rate in (0.1, 0.2))
    initial = first.state_dict()["state"]
    for options in ({}, changes, {"lr": 0.01}):
        first.param_groups[0].update(options)
        for state in (initial, first.state_dict()["state"]):
            for optimizer, given in ((other, one), (first, one), (first, one), (first, small), (first, one)):
                replays.step(given, optimizer)
            first.load_state_dict({**first.state_dict(), "state": state})
            fresh = rule(anew.layers.parameters(), 0.1)
            fresh.load_state_dict(first.state_dict())
            anew.load_state_dict(replays.state_dict())
            assert replays.step(one, first) == anew.step(one, fresh)
            for name, array in replays.state_dict().items():
                np.testing.assert_array_equal(array, anew.state_dict()[name], err_msg=name)


def test_a_network_keeps_no_optimizer_but_the_last_one(rng: np.random.Generator) -> None:
    network, kept = make_model(NUMPY, nonzero_state(rng, SHAPE), SHAPE), []
    for _ in range(3):
        optimizer = AdamW(network.layers.parameters())
        network.step(batch(rng, SHAPE), optimizer)
        kept.append(weakref.ref(optimizer))
    gc.collect()
    assert [each() for each in kept] == [None, None, optimizer]


def test_a_replayed_pass_checks_ids_and_the_precision_again(rng: np.random.Generator) -> None:
    ops = require_ops("cython")
    compiled, shape = module_of(ops), FAMILY["all"]
    before, one = compiled.variant(), batch(rng, shape)
    network = make_model(ops, nonzero_state(rng, shape), shape, fp32_precision=ops.precisions()[0])
    optimizer = AdamW(network.layers.parameters(), 0.001)
    for _ in range(2):
        network.step(one, optimizer)
    for name in ("near", "far", "targets"):
        wrong = one._replace(**{name: np.full_like(getattr(one, name), shape.vocabulary)})
        with pytest.raises(IndexError, match="expected ids in"):
            network.step(wrong, optimizer)
    if network.fp32_precision == "ieee":
        pytest.skip("every variant here has its precision")
    try:
        compiled.use_variant("portable")
        with pytest.raises(ValueError, match="fp32_precision: expected auto or one of"):
            network.step(one, optimizer)
    finally:
        compiled.use_variant(before)
