"""fastmlp.torch: PyTorch's linear cross entropy and its gradients, in PyTorch's own graph."""

import itertools
import os
import subprocess
import sys
import threading
from types import ModuleType

import numpy as np
import pytest

from fastmlp.functional import _loss
from tests.helpers import CLOSE, SAME_LOSSES, allowed, assert_near, relative_norm, require_ops

torch = pytest.importorskip("torch")
make_fx = pytest.importorskip("torch.fx.experimental.proxy_tensor").make_fx
functional = torch.nn.functional
PARAMETERS = ("input", "linear_weight", "linear_bias")


@pytest.fixture(autouse=True)
def kernels():
    require_ops("cython")


@pytest.fixture
def door() -> ModuleType:
    import fastmlp.torch

    return fastmlp.torch


@pytest.fixture
def asked(monkeypatch):
    """Record the calls of the kernels."""
    calls, real = [], _loss.linear_cross_entropy

    def spy(*args, **options):
        calls.append(options)
        return real(*args, **options)

    monkeypatch.setattr(_loss, "linear_cross_entropy", spy)
    return calls


def example(dtype=torch.float32, *, N=21, H=6, V=11, seed=2003, **left_out):
    """Tensors by PyTorch's names; some rows have the target -100."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    target = torch.randint(0, V, (N,), generator=generator)
    target[4::5] = -100
    given = {"input": normal(N, H), "linear_weight": normal(V, H), "target": target, "linear_bias": normal(V)}
    for name in PARAMETERS:
        given[name].requires_grad_()
    return {**given, "weight": normal(V).abs() + 0.5, **left_out}


def call(function, given, **options):
    positional = [given[name] for name in ("input", "linear_weight", "target")]
    return function(*positional, linear_bias=given["linear_bias"], weight=given["weight"], **options)


def copied(given, dtype=None):
    """The same, with gradients of their own."""
    return {
        name: tensor
        if tensor is None or not tensor.is_floating_point()
        else tensor.detach().to(dtype or tensor.dtype, copy=True).requires_grad_(tensor.requires_grad)
        for name, tensor in given.items()
    }


def loss_and_gradients(function, given, upstream=None, **options):
    given = copied(given)
    loss = call(function, given, **options)
    loss.backward(torch.ones_like(loss) if upstream is None else upstream)
    return loss.detach(), [None if given[name] is None else given[name].grad for name in PARAMETERS]


def theirs(given, upstream=None, **options):
    """PyTorch's own, in float64."""
    upstream = None if upstream is None else upstream.double()
    return loss_and_gradients(functional.linear_cross_entropy, copied(given, torch.float64), upstream, **options)


def distance(got, want):
    return relative_norm(got.double().numpy(), want.numpy())


def assert_same(got, want, close):
    """Losses and gradients; as NaN as each other."""
    for one, other in zip([got[0], *got[1]], [want[0], *want[1]], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_near(one, other, close)


# ------------------------------------------------------------------------------------------------- what is computed


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("left_out", [{}, {"linear_bias": None}, {"weight": None}], ids=str)
@pytest.mark.parametrize("name", ["float64", "float32"])
def test_promise_3_equals_pytorch(door, reduction, label_smoothing, left_out, name):
    dtype = getattr(torch, name)
    given = example(dtype, **left_out)
    upstream = torch.linspace(-1, 2, 21, dtype=dtype) if reduction == "none" else torch.tensor(-1.5, dtype=dtype)
    for ignore_index, from_above in itertools.product((None, 5), (None, upstream)):
        given["target"][4::5] = -100 if ignore_index is None else ignore_index
        options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": ignore_index}
        got = loss_and_gradients(door.linear_cross_entropy, given, from_above, **options)
        assert got[0].dtype == dtype
        assert_same(got, theirs(given, from_above, **options), CLOSE[name])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_promise_1_gradient(door, reduction, label_smoothing):
    given = example(torch.float64, N=6, H=4, V=5)

    def loss_of(*parameters):
        tensors = {**given, **dict(zip(PARAMETERS, parameters, strict=True))}
        return call(door.linear_cross_entropy, tensors, reduction=reduction, label_smoothing=label_smoothing)

    assert torch.autograd.gradcheck(loss_of, [given[name] for name in PARAMETERS])


def at_the_start(N, H, V):
    """Hidden units of order one, logits well below it."""
    given = example(N=N, H=H, V=V, weight=None)
    with torch.no_grad():
        given["input"].tanh_()
        given["linear_weight"] *= 0.3 * H**-0.5
        given["linear_bias"] *= 0.1
    return given


def parts(gradients, target):
    """Masks of the target classes' rows and of all others: errors in the latter would be hidden by the former."""
    dinput, dweight, dbias = gradients
    true = torch.zeros(len(dweight), dtype=torch.bool)
    true[target[target >= 0]] = True
    return {"input": dinput} | {
        f"{name}, {which}": gradient[rows]
        for name, gradient in (("weight", dweight), ("bias", dbias))
        for which, rows in (("targets", true), ("others", ~true))
    }


SIZES = [(1, 1, 2), (33, 31, 127), (128, 300, 2_777), (700, 77, 1_001)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_promise_2_float32(door, sizes, reduction):
    given = at_the_start(*sizes)
    target = given["target"]
    _, exact = theirs(given, reduction=reduction)
    _, plain = loss_and_gradients(functional.linear_cross_entropy, given, reduction=reduction)
    _, got = loss_and_gradients(door.linear_cross_entropy, given, reduction=reduction)
    exact, plain, got = (parts(gradients, target) for gradients in (exact, plain, got))
    for name, want in exact.items():
        assert distance(got[name], want) <= allowed(distance(plain[name], want)), name


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_bfloat16(door, sizes, reduction):
    """The same numbers in float64 are the truth; PyTorch's own bfloat16 says what may be expected."""
    given = copied(at_the_start(*sizes), torch.bfloat16)
    loss, exact = theirs(given, reduction=reduction)
    _, plain = loss_and_gradients(functional.linear_cross_entropy, given, reduction=reduction)
    ours, got = loss_and_gradients(door.linear_cross_entropy, given, reduction=reduction)
    assert {tensor.dtype for tensor in (ours, *got)} == {torch.bfloat16}
    assert distance(ours, loss) <= CLOSE["bf16"]
    exact, plain, got = (parts(gradients, given["target"]) for gradients in (exact, plain, got))
    for name, want in exact.items():
        assert distance(got[name], want) <= max(CLOSE["bf16"], 2 * distance(plain[name], want)), name


def test_autocast(door, asked):
    """Of float32 weights and what autocast made of the layer before; the loss is float32, and gradients fit."""
    given = at_the_start(33, 31, 127)
    given["input"] = given["input"].detach().bfloat16().requires_grad_()
    want = theirs(given)
    with torch.autocast("cpu", torch.bfloat16):
        ours = loss_and_gradients(door.linear_cross_entropy, given)
    assert [tensor.dtype for tensor in (ours[0], *ours[1])] == [torch.float32, torch.bfloat16, *[torch.float32] * 2]
    assert_same(ours, want, CLOSE["bf16"])
    has_bf16 = "bf16" in require_ops("cython").precisions()
    assert [options["fp32_precision"] for options in asked] == ["bf16" if has_bf16 else "auto"]


def test_products_of_bfloat16_where_pytorch_may_make_them_so(door, asked):
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        got = loss_and_gradients(door.linear_cross_entropy, example())
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    assert_same(got, theirs(example()), 2 * CLOSE["bf16"])
    loss_and_gradients(door.linear_cross_entropy, example())
    has_bf16 = "bf16" in require_ops("cython").precisions()
    assert [options["fp32_precision"] for options in asked] == ["bf16" if has_bf16 else "auto", "auto"]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("rows", [0, 5])
def test_nothing_counts(door, reduction, rows):
    """Every row ignored, or none there: NaN for the mean, and gradients of 0."""
    given = example(N=rows)
    given["target"][:] = -100
    got = loss_and_gradients(door.linear_cross_entropy, given, reduction=reduction)
    assert_same(got, theirs(given, reduction=reduction), 0)
    assert not any(gradient.any() for gradient in got[1])


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_one_row_without_a_batch(door, reduction):
    given = example(N=1)
    single = {**given, "input": given["input"].detach()[0].requires_grad_(), "target": given["target"][0]}
    got = loss_and_gradients(door.linear_cross_entropy, single, reduction=reduction)
    assert got[0].shape == ()
    assert_same(got, theirs(single, reduction=reduction), CLOSE["float32"])


def test_no_width(door):
    """The loss then depends on the bias alone."""
    given = example(H=0)
    got = loss_and_gradients(door.linear_cross_entropy, given)
    assert_same(got, theirs(given), CLOSE["float32"])


def test_any_layout_and_int32(door):
    given = example()
    other = {name: tensor.detach() for name, tensor in given.items()}
    other["input"] = other["input"].t().contiguous().t()
    other["linear_weight"] = torch.stack([other["linear_weight"]] * 2, dim=1)[:, 0]
    other["linear_bias"] = torch.stack([other["linear_bias"]] * 2, dim=1)[:, 1]
    other["weight"] = other["weight"].flip(0).flip(0)
    other["target"] = torch.stack([other["target"].int()] * 3, dim=1)[:, 2]
    assert not other["input"].is_contiguous()
    assert not other["linear_weight"].is_contiguous()
    for name in PARAMETERS:
        other[name].requires_grad_()
    loss = call(door.linear_cross_entropy, other)
    loss.backward()
    want, gradients = loss_and_gradients(door.linear_cross_entropy, given)
    assert torch.equal(loss, want)
    for name, gradient in zip(PARAMETERS, gradients, strict=True):
        assert torch.equal(other[name].grad, gradient)


# ----------------------------------------------------------------------------------------------------- in the graph


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=3)), ids=str)
def test_only_gradients_that_are_wanted_are_made(door, asked, wanted, reduction):
    given = example(N=40, H=40, V=300)
    _, gradients = theirs(given, reduction=reduction)
    for name, want in zip(PARAMETERS, wanted, strict=True):
        given[name].requires_grad_(want)
    loss = call(door.linear_cross_entropy, given, reduction=reduction)
    assert loss.requires_grad == any(wanted)
    if any(wanted):
        loss.sum().backward()
    assert asked[-1]["grads"] == wanted
    assert len(asked) == (2 if any(wanted) and reduction == "none" else 1)
    for name, want, gradient in zip(PARAMETERS, wanted, gradients, strict=True):
        assert (given[name].grad is not None) == want
        assert not want or distance(given[name].grad, gradient) <= CLOSE["float32"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_none_is_made_without_a_graph(door, asked, mode):
    with mode():
        loss = call(door.linear_cross_entropy, example())
    assert not loss.requires_grad
    assert [options["grads"] for options in asked] == [(False, False, False)]
    assert distance(loss, theirs(example())[0]) <= CLOSE["float32"]


def test_autograd_grad_of_some(door):
    given = example()
    (dweight,) = torch.autograd.grad(call(door.linear_cross_entropy, given), given["linear_weight"])
    assert distance(dweight, theirs(given)[1][1]) <= CLOSE["float32"]
    assert given["linear_weight"].grad is None


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_add_up_over_calls_and_backward_passes(door, reduction):
    """A second call, and the second backward pass of a graph that is kept; none writes to what another gave."""
    given = example()
    _, once = theirs(given, reduction=reduction)
    for _ in range(2):
        loss = call(door.linear_cross_entropy, given, reduction=reduction).sum()
        loss.backward(retain_graph=True)
    kept = [given[name].grad for name in PARAMETERS]
    for name in PARAMETERS:
        given[name].grad = None
    loss.backward()
    for name, gradient, two in zip(PARAMETERS, once, kept, strict=True):
        assert distance(two, 2 * gradient) <= CLOSE["float32"]
        assert distance(given[name].grad, gradient) <= CLOSE["float32"]


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_graph_that_is_not_kept_serves_once(door, reduction):
    loss = call(door.linear_cross_entropy, example(), reduction=reduction).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_tied_embeddings(door):
    """One weight is both embedding and output layer."""
    given, words = example(linear_bias=None), torch.arange(21) % 11
    gradients = []
    for function, dtype in ((functional.linear_cross_entropy, torch.float64), (door.linear_cross_entropy, None)):
        tensors = copied(given, dtype)
        tensors["input"] = functional.embedding(words, tensors["linear_weight"]).tanh()
        call(function, tensors).backward()
        gradients.append(tensors["linear_weight"].grad)
    assert distance(gradients[1], gradients[0]) <= CLOSE["float32"]


def test_no_gradient_of_the_gradient(door):
    given = example(torch.float64)
    loss = call(door.linear_cross_entropy, given)
    with pytest.raises(NotImplementedError, match="no gradient of the gradient"):
        torch.autograd.grad(loss, given["input"], create_graph=True)


@pytest.mark.parametrize("name", PARAMETERS)
def test_no_derivative_in_forward_mode(door, name):
    given = {key: tensor.detach() for key, tensor in example().items()}
    with torch.autograd.forward_ad.dual_level():
        given[name] = torch.autograd.forward_ad.make_dual(given[name], torch.ones_like(given[name]))
        with pytest.raises(NotImplementedError, match="no derivative in forward mode"):
            call(door.linear_cross_entropy, given)


@pytest.mark.parametrize("transform", ["grad", "vmap", "make_fx", "trace"])
def test_no_transforms_and_no_traces(door, transform):
    """A trace would have the loss as a constant."""
    given = {key: tensor.detach() for key, tensor in example().items()}

    def loss(x):
        return call(door.linear_cross_entropy, {**given, "input": x})

    x = given["input"]
    calls = {
        "grad": lambda: torch.func.grad(loss)(x),
        "vmap": lambda: torch.vmap(loss)(torch.stack([x, x])),
        "make_fx": lambda: make_fx(loss)(x),
        "trace": lambda: torch.jit.trace(loss, (x,)),
    }
    with pytest.raises(NotImplementedError, match=r"fastmlp\.torch: (none of torch\.func|not while a graph is traced)"):
        calls[transform]()


def test_a_tensor_that_is_negated_when_it_is_read(door):
    given = example()
    want = call(door.linear_cross_entropy, {**given, "input": -given["input"]})
    assert call(door.linear_cross_entropy, {**given, "input": torch._neg_view(given["input"])}) == want


@pytest.mark.parametrize("name", [*PARAMETERS, "target", "weight"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_is_saved_may_not_be_changed(door, name, reduction):
    given = example()
    loss = call(door.linear_cross_entropy, given, reduction=reduction).sum()
    with torch.no_grad():
        given[name].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_hooks_may_keep_and_change_gradients(door):
    given = example()
    given["linear_weight"].register_hook(lambda gradient: gradient.mul_(2))
    call(door.linear_cross_entropy, given).backward()
    assert distance(given["linear_weight"].grad, 2 * theirs(given)[1][1]) <= CLOSE["float32"]


def test_trains_as_pytorch_does(door):
    """Ten steps from the same weights."""
    losses = []
    for module in (torch.nn.LinearCrossEntropyLoss, door.LinearCrossEntropyLoss):
        torch.manual_seed(7)
        network = torch.nn.Sequential(torch.nn.Embedding(50, 20), torch.nn.Linear(20, 20), torch.nn.Tanh())
        criterion = module(20, 50, bias=True, label_smoothing=0.1)
        optimizer = torch.optim.AdamW([*network.parameters(), *criterion.parameters()], lr=0.01)
        words = torch.randint(0, 50, (11, 64))
        for step in range(10):
            loss = criterion(network(words[step]), words[step + 1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(losses[10:], losses[:10], rtol=SAME_LOSSES)
    assert losses[9] != losses[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_pytorchs(door, asked, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        loss_and_gradients(door.linear_cross_entropy, example(), reduction="none")
    finally:
        torch.set_num_threads(before)
    assert [options["threads"] for options in asked] == [threads] * 2


def test_same_bits_in_two_python_threads_at_once(door):
    given = example(N=300, H=40, V=2_000)
    want = loss_and_gradients(door.linear_cross_entropy, given)
    got = [[] for _ in range(2)]

    def work(mine):
        mine.extend(loss_and_gradients(door.linear_cross_entropy, given) for _ in range(5))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [len(mine) for mine in got] == [5, 5]
    for loss, gradients in itertools.chain(*got):
        assert torch.equal(loss, want[0])
        assert all(map(torch.equal, gradients, want[1]))


IN_A_FORKED_CHILD = """
import os
import torch
from fastmlp.torch import linear_cross_entropy

torch.set_num_threads(2)
hidden, target = torch.ones(300, 40), torch.zeros(300, dtype=torch.int64)
weight = torch.linspace(-1, 1, 2_000 * 40).reshape(2_000, 40).requires_grad_()
linear_cross_entropy(hidden, weight, target).backward()
want, weight.grad = weight.grad, None
child = os.fork()
if child == 0:
    (2 * linear_cross_entropy(hidden, weight, target)).backward()
    os._exit(0 if (weight.grad.numpy() == 2 * want.numpy()).all() else 1)  # PyTorch's own threads hang in a child
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_promise_16_a_forked_child_works():
    subprocess.run([sys.executable, "-c", IN_A_FORKED_CHILD], check=True, timeout=60)


def test_inside_of_torch_compile(door):
    """The call is left out of the graph; the other parts are compiled, and gradients flow through."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    @torch.compile(backend=backend)
    def loss_of(given):
        hidden = given["input"].tanh() * 2
        return call(door.linear_cross_entropy, {**given, "input": hidden}) * 3

    given = example()
    loss = loss_of(given)
    loss.backward()
    assert len(graphs) == 2
    tensors = copied(given, torch.float64)
    want = 3 * call(functional.linear_cross_entropy, {**tensors, "input": tensors["input"].tanh() * 2})
    want.backward()
    assert distance(loss.detach(), want.detach()) <= CLOSE["float32"]
    for name in PARAMETERS:
        assert distance(given[name].grad, tensors[name].grad) <= CLOSE["float32"]


# ----------------------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "classes as floats": ("target", torch.ones(21), ValueError, r"target: expected shape \(21, 11\), got \(21,\)"),
    "probabilities of another type": (
        "target",
        torch.ones(21, 11).double(),
        TypeError,
        "target: expected float32, got",
    ),
    "learned target": ("target", torch.ones(21, 11, requires_grad=True), NotImplementedError, "target: .* no gradient"),
    "two places": ("linear_weight", torch.ones(11, 2, 6), ValueError, r"target: expected shape \(21, 2\), got \(21,\)"),
    "elsewhere": ("input", torch.ones(21, 6, device="meta"), NotImplementedError, "input: .* on the CPU, .* on meta"),
    "sparse": ("linear_weight", torch.ones(11, 6).to_sparse(), NotImplementedError, "linear_weight: .*dense"),
    "learned": ("weight", torch.ones(11, requires_grad=True), NotImplementedError, "weight: .* requires no gradient"),
    "no tensor": ("input", np.ones((21, 6)), TypeError, "input: expected a tensor, got ndarray"),
    "float16": ("input", torch.ones(21, 6).half(), TypeError, "input: expected .* got torch.float16"),
    "mixed": ("linear_weight", torch.ones(11, 6).bfloat16(), TypeError, "linear_weight: expected float32, got"),
    "bool": ("target", torch.ones(21) == 1, TypeError, "target: expected int64 or int32, got torch.bool"),
    "three axes": ("input", torch.ones(3, 7, 6), ValueError, r"input: expected .* got \(3, 7, 6\)"),
    "other width": ("linear_weight", torch.ones(11, 5), ValueError, r"linear_weight: expected .*6\), got \(11, 5\)"),
    "no width": ("linear_weight", torch.ones(()), ValueError, r"linear_weight: expected .* got \(\)"),
    "few targets": ("target", torch.ones(20).long(), ValueError, r"target: expected .*\(21,\), got \(20,\)"),
    "long bias": ("linear_bias", torch.ones(12), ValueError, r"linear_bias: expected .*\(11,\), got \(12,\)"),
    "long weight": ("weight", torch.ones(12), ValueError, r"weight: expected .*\(11,\), got \(12,\)"),
    "too high": ("target", torch.full((21,), 11), IndexError, r"target: expected classes in \[0, 11\), got 11"),
    "below 0": ("target", torch.full((21,), -1), IndexError, r"target: expected classes in \[0, 11\), got -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(door, case):
    name, tensor, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call(door.linear_cross_entropy, {**example(), name: tensor})


def test_refuses_no_class(door):
    with pytest.raises(ValueError, match="linear_weight: expected at least one class, got none"):
        door.linear_cross_entropy(torch.ones(3, 6), torch.ones(0, 6), torch.zeros(3).long())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": "0.1"}, "label_smoothing: expected a number, got '0.1'"),
        ({"ignore_index": "none"}, "ignore_index: expected an integer, got 'none'"),
        ({"ignore_index": 1.5}, "ignore_index: expected an integer, got 1.5"),
    ],
)
def test_refuses_options_of_another_type(door, options, message):
    with pytest.raises(TypeError, match=message):
        call(door.linear_cross_entropy, example(), **options)


def test_refuses_options(door):
    with pytest.raises(NotImplementedError, match="options: expected None"):
        call(door.linear_cross_entropy, example(), options=torch.nn.LinearCrossEntropyOptions())
    with pytest.raises(ValueError, match="reduction: expected one of mean, sum, none, got 'average'"):
        call(door.linear_cross_entropy, example(), reduction="average")
    with pytest.raises(ValueError, match=r"label_smoothing: expected a number from 0 to 1, got 1\.5"):
        call(door.linear_cross_entropy, example(), label_smoothing=1.5)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
try:
    import fastmlp.torch
except ImportError as error:
    assert str(error) == "fastmlp.torch needs torch, which is not installed: pip install torch", error
else:
    raise SystemExit("imported")
"""


def test_without_pytorch_it_says_what_to_install():
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True, timeout=60)


# --------------------------------------------------------------------------------------------------------- the module


@pytest.mark.parametrize(
    "options", [{}, {"bias": True, "weight": torch.ones(11), "reduction": "none"}], ids=["", "all"]
)
def test_module_is_pytorchs(door, options):
    """The same arguments, initial weights, names and losses; weights go both ways."""
    torch.manual_seed(7)
    theirs_ = torch.nn.LinearCrossEntropyLoss(6, 11, **options)
    torch.manual_seed(7)
    ours = door.LinearCrossEntropyLoss(6, 11, **options)
    for name, tensor in theirs_.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    with torch.no_grad():
        theirs_.linear.weight *= 2
    ours.load_state_dict(theirs_.state_dict())
    theirs_.load_state_dict(ours.state_dict())
    given = example()
    torch.testing.assert_close(ours(given["input"], given["target"]), theirs_(given["input"], given["target"]))


def test_module_shows_itself(door):
    for options in ({}, {"bias": True, "reduction": "sum", "ignore_index": 3, "label_smoothing": 0.1}):
        assert repr(door.LinearCrossEntropyLoss(6, 11, **options)) == repr(
            torch.nn.LinearCrossEntropyLoss(6, 11, **options)
        )


def test_module_refuses(door):
    with pytest.raises(ValueError, match=r"weight: expected shape \(11,\), got \(12,\)"):
        door.LinearCrossEntropyLoss(6, 11, weight=torch.ones(12))
