"""The loss with PyTorch's reductions, ignored targets, class weights and label smoothing, against PyTorch's own."""

import numpy as np
import pytest

from fastmlp.functional import _loss
from tests.helpers import CLOSE, NUMPY, assert_near, require_ops

IGNORED = 3
INPUTS = ("input", "linear_weight", "linear_bias")

reductions = pytest.mark.parametrize("reduction", _loss.REDUCTIONS)
class_weights = pytest.mark.parametrize("class_weight", [False, True], ids=["", "class weights"])


@pytest.fixture(params=["float64", "float32", "numba", "cython"])
def kind(request):
    """The reference in float64 and float32, and the other back-ends: (ops, float type, how close)."""
    if request.param.startswith("float"):
        return NUMPY, np.dtype(request.param), CLOSE[request.param]
    return require_ops(request.param), np.dtype(np.float32), CLOSE["float32"]


def example(rng, dtype, *, N=13, H=6, V=11, bias=True, class_weight=True):
    """A target comes twice, one class has the weight 0, and every fifth row has the target IGNORED."""
    given = {
        "input": rng.standard_normal((N, H)),
        "linear_weight": rng.standard_normal((V, H)),
        "linear_bias": rng.standard_normal(V) if bias else None,
        "class_weight": rng.uniform(0.5, 2, V) * (np.arange(V) != 7) if class_weight else None,
    }
    target = rng.integers(0, V, N)
    target[:4] = 5, 7, 5, V - 1
    target[4::5] = IGNORED
    return {name: None if array is None else array.astype(dtype) for name, array in given.items()} | {"target": target}


def pytorch(torch, given, upstream=None, **options):
    """Its loss and gradients, in float64."""
    tensors = {name: None if array is None else torch.from_numpy(array) for name, array in given.items()}
    for name in (*INPUTS, "class_weight"):
        if tensors[name] is not None:
            tensors[name] = tensors[name].double().requires_grad_(name in INPUTS)
    logits = torch.nn.functional.linear(*(tensors[name] for name in INPUTS))
    weight, target = tensors["class_weight"], tensors["target"]
    loss = torch.nn.functional.cross_entropy(logits, target, weight=weight, **options)
    loss.backward(torch.ones_like(loss) if upstream is None else torch.as_tensor(upstream, dtype=torch.float64))
    return loss.detach(), [None if tensors[name] is None else tensors[name].grad for name in INPUTS]


def ours(ops, given, *, grads=True, **options):
    return _loss.linear_cross_entropy(**given, **options, grads=grads, ops=ops, threads=2)


def assert_same(got, want, close, what):
    if want is None:
        assert got is None, what
    else:
        assert_near(got, want, close, what)


def assert_equals_pytorch(torch, kind, given, upstream=None, **options):
    ops, dtype, close = kind
    want, gradients = pytorch(torch, given, upstream, **options)
    loss, _ = ours(ops, given, grads=False, **options)
    assert loss.dtype == dtype
    assert_same(loss, want, close, "loss")
    loss, got = ours(ops, given, upstream=upstream, **options)
    if upstream is None:
        assert_same(loss, want, close, "loss, with gradients")
    for name, gradient, true in zip(INPUTS, got, gradients, strict=True):
        assert_same(gradient, true, close, f"gradient of {name}")
        assert gradient is None or gradient.dtype == dtype


@reductions
@class_weights
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignore_index", [-100, IGNORED])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_equals_pytorch(torch, rng, kind, reduction, class_weight, label_smoothing, ignore_index, bias):
    given = example(rng, kind[1], bias=bias, class_weight=class_weight)
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": ignore_index}
    assert_equals_pytorch(torch, kind, given, **options)


@pytest.mark.parametrize("label_smoothing", [1e-6, 1e-3])
def test_promise_2_a_little_smoothing_of_sure_rows_loses_no_digits(torch, rng, kind, label_smoothing):
    """The target's logit and the log of all exponentials' sum are large and nearly the same."""
    given = example(rng, kind[1], N=64, H=40, V=200)
    given["input"] *= 5
    given["target"] = (given["input"] @ given["linear_weight"].T + given["linear_bias"]).argmax(1)
    options = {"reduction": "none", "label_smoothing": label_smoothing, "ignore_index": -100}
    loss, _ = ours(kind[0], given, **options)
    assert_same(loss, pytorch(torch, given, **options)[0], kind[2], "loss")


@reductions
@class_weights
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradient_from_above(torch, rng, kind, reduction, class_weight, label_smoothing):
    """One that is 0 for some rows, whose targets are looked at all the same."""
    given = example(rng, kind[1], class_weight=class_weight)
    upstream = rng.standard_normal(given["target"].shape) if reduction == "none" else np.float64(-1.5)
    if reduction == "none":
        upstream[:2] = 0
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": IGNORED}
    assert_equals_pytorch(torch, kind, given, upstream, **options)
    given["target"][0] = 11
    with pytest.raises(IndexError, match=r"target: expected classes in \[0, 11\), got 11"):
        ours(kind[0], given, upstream=upstream, **options)


@reductions
@class_weights
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_nothing_counted(torch, rng, kind, reduction, class_weight, label_smoothing):
    """All rows ignored: a mean of NaN, sums of 0, gradients of 0."""
    given = example(rng, kind[1], class_weight=class_weight)
    given["target"][:] = IGNORED
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": IGNORED}
    assert_equals_pytorch(torch, kind, given, **options)
    loss, gradients = ours(kind[0], given, **options)
    assert np.isnan(loss) if reduction == "mean" else not loss.any()
    assert not any(gradient.any() for gradient in gradients)


@reductions
@class_weights
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_an_ignored_row_is_not_looked_at(rng, kind, reduction, class_weight, label_smoothing):
    given = example(rng, kind[1], class_weight=class_weight)
    given["target"][:2] = IGNORED
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": IGNORED}
    want = ours(kind[0], given, **options)
    given["input"][given["target"] == IGNORED] = np.nan
    got = ours(kind[0], given, **options)
    for array, true in zip([got[0], *got[1]], [want[0], *want[1]], strict=True):
        np.testing.assert_array_equal(array, true)


@reductions
@class_weights
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_no_rows(torch, rng, kind, reduction, class_weight, label_smoothing):
    given = example(rng, kind[1], class_weight=class_weight)
    given["input"], given["target"] = given["input"][:0], given["target"][:0]
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": -100}
    assert_equals_pytorch(torch, kind, given, **options)


@reductions
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_all_weights_are_zero(torch, rng, kind, reduction, label_smoothing):
    given = example(rng, kind[1])
    given["class_weight"][:] = 0
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": IGNORED}
    assert_equals_pytorch(torch, kind, given, **options)


@reductions
def test_many_classes_and_targets_that_come_again(torch, rng, kind, reduction):
    """More classes than are put right at a time, and a weighted class of which the softmax's part cancels."""
    given = example(rng, kind[1], N=40, H=5, V=2 * _loss.BLOCK + 3)
    given["target"][10:20] = 2 * _loss.BLOCK
    given["class_weight"][8:] -= given["class_weight"][8:].mean()
    assert_equals_pytorch(torch, kind, given, reduction=reduction, label_smoothing=0.3, ignore_index=IGNORED)


def test_int32_targets(rng, kind):
    given = example(rng, kind[1])
    options = {"reduction": "mean", "label_smoothing": 0.1, "ignore_index": IGNORED}
    want, gradients = ours(kind[0], given, **options)
    loss, got = ours(kind[0], given | {"target": given["target"].astype(np.int32)}, **options)
    assert loss == want
    for gradient, same in zip(got, gradients, strict=True):
        np.testing.assert_array_equal(gradient, same)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"reduction": "average"}, ValueError, "reduction: expected one of mean, sum, none, got 'average'"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing: expected a number from 0 to 1, got 1.5"),
        ({"label_smoothing": float("nan")}, ValueError, "label_smoothing: expected a number from 0 to 1, got nan"),
        ({"ignore_index": 5}, IndexError, r"target: expected classes in \[0, 11\), got -100"),
    ],
)
def test_refuses(rng, change, error, message):
    given = example(rng, np.float64)
    given["target"][1] = -100
    options = {"reduction": "mean", "label_smoothing": 0.1, "ignore_index": -100} | change
    with pytest.raises(error, match=message):
        ours(NUMPY, given, **options)
