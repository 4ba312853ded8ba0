"""Errors name the argument, what was expected and what came."""

import numpy as np
import pytest

import fastmlp.functional as F

X, W, IDS = np.ones((3, 4), np.float32), np.ones((5, 4), np.float32), np.array([0, 1, 2])
PROBABILITIES = np.ones((3, 5), np.float32)
ERRORS = [
    (lambda: F.embedding(np.array([5]), W), IndexError, r"embedding: input: expected ids in \[0, 5\), got 5"),
    (lambda: F.embedding(np.array([-1]), W), IndexError, r"embedding: input: expected ids in \[0, 5\), got -1"),
    (lambda: F.embedding(IDS, W[0]), ValueError, r"embedding: weight: expected shape \(V, D\), got \(4,\)"),
    (lambda: F.embedding(IDS, W, padding_idx=5), ValueError, r"padding_idx: expected None or .*, got 5"),
    (
        lambda: F.embedding(IDS, W, padding_idx=1.5),
        TypeError,
        "embedding: padding_idx: expected None or an id, got 1.5",
    ),
    (lambda: F.embedding(IDS, W, max_norm=1.0), NotImplementedError, "embedding: max_norm: expected None, got 1.0"),
    (lambda: F.embedding(IDS, W, sparse=True), NotImplementedError, "embedding: sparse: expected False"),
    (lambda: F.embedding_backward(W[:3], np.array([0, 9, 1]), W), IndexError, r"embedding_backward: input: .*got 9"),
    (lambda: F.embedding_backward(W, IDS, W), ValueError, r"embedding_backward: grad: expected shape \(3, 4\), got"),
    (lambda: F.linear(X, W[:, :3]), ValueError, r"linear: weight: expected shape .* with I = 4, got \(5, 3\)"),
    (lambda: F.linear(X, W, X[0]), ValueError, r"linear: bias: expected shape \(5,\), got \(4,\)"),
    (lambda: F.linear(X[0, 0], W), ValueError, r"linear: input: expected shape \(..., I\), got \(\)"),
    (lambda: F.linear_backward(X, X, W), ValueError, r"linear_backward: grad: expected shape \(3, 5\), got \(3, 4\)"),
    (lambda: F.batch_norm(X, None, None), ValueError, "batch_norm: running_mean: expected .* not training, got None"),
    (lambda: F.batch_norm(X, X[0], None, training=True), ValueError, "expected both or neither, got one"),
    (lambda: F.batch_norm(X, X[0], W[0, :3]), ValueError, r"running_var: expected shape \(4,\), got \(3,\)"),
    (lambda: F.batch_norm(X[0], None, None), ValueError, r"batch_norm: input: expected shape \(N, C\) or"),
    (lambda: F.batch_norm(X[:1], None, None, training=True), ValueError, "expected more than 1 value a channel"),
    (lambda: F.batch_norm(X, None, None, training=True, eps=0), ValueError, "batch_norm: eps: expected .*, got 0"),
    (lambda: F.batch_norm(X, X[0], X[0], eps=-1), ValueError, "batch_norm: eps: expected at least 0, got -1"),
    (
        lambda: F.batch_norm(X, X[0], X[0], momentum=None),
        TypeError,
        "batch_norm: momentum: expected a number, got None",
    ),
    (lambda: F.softmax(X, 2), IndexError, r"softmax: dim: expected an axis in \[-2, 2\), got 2"),
    (lambda: F.softmax(X, 0.5), TypeError, "softmax: dim: expected an integer, got 0.5"),
    (
        lambda: F.log_softmax(X, 1, dtype="int8"),
        NotImplementedError,
        "log_softmax: dtype: expected float32 or float64, got int8",
    ),
    (
        lambda: F.softmax(X, 1, dtype="no type"),
        TypeError,
        r"softmax: dtype: expected np\.float32 or np\.float64, got 'no",
    ),
    (lambda: F.softmax_backward(X, X, "last"), TypeError, "softmax_backward: dim: expected an integer, got 'last'"),
    (lambda: F.softmax_backward(X, W), ValueError, r"softmax_backward: grad: expected shape \(5, 4\), got \(3, 4\)"),
    (lambda: F.tanh_backward(X, W), ValueError, r"tanh_backward: grad: expected shape \(5, 4\), got \(3, 4\)"),
    (lambda: F.gelu_backward(X, W), ValueError, r"gelu_backward: grad: expected shape \(5, 4\), got \(3, 4\)"),
    (lambda: F.gelu(X, approximate="tanh"), NotImplementedError, "gelu: approximate: expected 'none', got 'tanh'"),
    (lambda: F.gelu(X, approximate="erf"), ValueError, "gelu: approximate: expected 'none', got 'erf'"),
    (
        lambda: F.gelu_backward(X, X, approximate="tanh"),
        NotImplementedError,
        "gelu_backward: approximate: expected 'none', got 'tanh'",
    ),
    (lambda: F.dropout(X, 1.5), ValueError, "dropout: p: expected a probability from 0 to 1, got 1.5"),
    (lambda: F.dropout(X, "half"), ValueError, "dropout: p: expected a probability from 0 to 1, got 'half'"),
    (
        lambda: F.dropout(X, seed=2**63),
        ValueError,
        "dropout: seed: expected a whole number .*, got 9223372036854775808",
    ),
    (lambda: F.dropout_backward(X, -1, seed=1), ValueError, "dropout_backward: p: expected a probability .*, got -1"),
    (lambda: F.dropout_backward(X, seed=0.5), ValueError, "dropout_backward: seed: expected a whole .*, got 0.5"),
    (lambda: F.cross_entropy(X, IDS + 2), IndexError, r"cross_entropy: target: expected ids in \[0, 4\), got 4"),
    (lambda: F.cross_entropy(X, IDS - 1, X[0]), IndexError, r"cross_entropy: target: expected ids in .*, got -1"),
    (lambda: F.cross_entropy(X, IDS[:2]), ValueError, r"target: expected shape \(3,\) for classes or \(3, 4\) for"),
    (lambda: F.cross_entropy(X, X.astype(int)), TypeError, "cross_entropy: target: expected probabilities"),
    (lambda: F.cross_entropy(X, X, ignore_index=2), ValueError, "ignore_index: expected a negative one .*, got 2"),
    (lambda: F.cross_entropy(X, IDS, ignore_index=None), TypeError, "ignore_index: expected an integer, got None"),
    (lambda: F.cross_entropy(X, IDS, reduction="avg"), ValueError, "reduction: expected one of .*, got 'avg'"),
    (lambda: F.cross_entropy(X, IDS, label_smoothing=1.1), ValueError, "label_smoothing: expected .*, got 1.1"),
    (
        lambda: F.cross_entropy(X, IDS, W[0, :3]),
        ValueError,
        r"cross_entropy: weight: expected shape \(4,\), got \(3,\)",
    ),
    (lambda: F.cross_entropy(X, IDS, size_average=True), NotImplementedError, "size_average, reduce: expected None"),
    (lambda: F.cross_entropy(X[:, :0], IDS), ValueError, r"cross_entropy: input: .*one class at least, got \(3, 0\)"),
    (lambda: F.linear_cross_entropy(X, W, IDS + 3), IndexError, r"linear_cross_entropy: target: .* in \[0, 5\), got 5"),
    (
        lambda: F.linear_cross_entropy(X, W, IDS - 1, weight=W[:, 0]),
        IndexError,
        r"linear_cross_entropy: target: .* got -1",
    ),
    (lambda: F.linear_cross_entropy(X, W[:, :3], IDS), ValueError, r"linear_weight: expected .* H = 4, .*got \(5, 3\)"),
    (lambda: F.linear_cross_entropy(X, W[None], IDS), ValueError, r"target: expected shape \(3, 5\) for classes or"),
    (lambda: F.linear_cross_entropy(X[0], W[None], IDS), ValueError, r"input: expected \(N, H\) as linear_weight has"),
    (
        lambda: F.linear_cross_entropy(X, W, PROBABILITIES, ignore_index=-100),
        ValueError,
        "ignore_index: expected None with probabilities, got -100",
    ),
    (lambda: F.linear_cross_entropy(X, W, PROBABILITIES > 0), TypeError, "target: expected probabilities.*got bool"),
    (lambda: F.linear_cross_entropy(X, W, X[:, 0]), TypeError, "target: expected integers, got float32"),
    (lambda: F.linear_cross_entropy(X, W, IDS, options=1), NotImplementedError, "options: expected None, got 1"),
    (lambda: F.linear_cross_entropy(X, W, IDS, linear_bias=X[0]), ValueError, r"linear_bias: expected shape \(5,\)"),
    (lambda: F.linear_cross_entropy(X[None], W, IDS), ValueError, r"input: expected shape \(N, H\) or \(H,\)"),
    (lambda: F.linear(X, W.T), ValueError, r"linear: weight: .* got \(4, 5\): transposed\? Its .T has that shape"),
    (lambda: F.linear_cross_entropy(X, W.T, IDS), ValueError, r"got \(4, 5\): transposed\? Its .T has that shape"),
    (lambda: F.embedding_backward(X.T, IDS, W), ValueError, r"got \(4, 3\): transposed\? Its .T has that shape"),
    (lambda: F.tanh(X, threads=0), ValueError, "threads: expected a whole number from 1 to 1024, got 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_promise_12_errors_name_argument_expected_and_got(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 1, 1)], ids=str)
def test_batch_norm_does_not_train_on_one_value_a_channel(shape):
    with pytest.raises(ValueError, match=r"^batch_norm: input: expected more than 1 value a channel to train on"):
        F.batch_norm(np.ones(shape), None, None, training=True)


@pytest.mark.parametrize("target", [np.zeros((3, 1), int), np.zeros((5, 1), int), np.zeros(5, int)], ids=np.shape)
def test_classes_of_another_shape_are_not_taken_for_probabilities(target):
    h, weight = np.ones((3, 4)), np.ones((5, 4))
    with pytest.raises(
        ValueError, match=r"^linear_cross_entropy: target: expected shape \(3,\) for classes or \(3, 5\) "
    ):
        F.linear_cross_entropy(h, weight, target)
