"""LinearCrossEntropyLoss with a group: the loss and gradients of all classes, on ranks that have a part each."""

from typing import Any

import numpy as np
import pytest

from fastmlp.nn import LinearCrossEntropyLoss
from fastmlp.optim import SGD, AdamW
from tests.groups import ThreadRank, run_ranks

V, H, N = 301, 17, 12


def made(group: ThreadRank | None = None, **options: Any) -> LinearCrossEntropyLoss:
    return LinearCrossEntropyLoss(H, V, bias=True, rng=3, group=group, **options)


def inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    targets = rng.integers(0, V, N)
    targets[3] = -100
    return rng.standard_normal((N, H)).astype(np.float32), targets


def put_together(parts: list[np.ndarray]) -> np.ndarray:
    whole = np.empty((V, *parts[0].shape[1:]), parts[0].dtype)
    for rank, rows in enumerate(parts):
        whole[rank :: len(parts)] = rows
    return whole


def test_parts_begin_with_the_rows_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmlp.nn.head.ROWS_DRAWN", 7)
    want = made().linear
    parts = run_ranks(3, lambda group: made(group).linear)
    np.testing.assert_array_equal(put_together([part.weight for part in parts]), want.weight)
    np.testing.assert_array_equal(put_together([part.bias for part in parts]), want.bias)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [None, 0.5])
def test_promise_20_loss_and_gradients_are_those_of_the_whole(reduction: str, training: bool, grad: Any) -> None:
    x, targets = inputs()
    upstream = np.linspace(1, 2, N) if reduction == "none" else grad

    def work(group: ThreadRank | None) -> Any:
        criterion = made(group, reduction=reduction).train(training)
        loss = criterion(x, targets)
        dx = criterion.backward(upstream)
        return loss, dx.copy(), criterion.linear.grads["weight"].copy(), criterion.linear.grads["bias"].copy()

    want, parts = work(None), run_ranks(3, work)
    for part in parts:
        np.testing.assert_allclose(part[0], want[0], rtol=1e-5)
        np.testing.assert_allclose(part[1], want[1], rtol=1e-4, atol=1e-6)
    for number in (2, 3):
        together = put_together([part[number] for part in parts])
        np.testing.assert_allclose(together, want[number], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_promise_20_steps_are_those_of_the_whole(kind: Any) -> None:
    x, targets = inputs()

    def work(group: ThreadRank | None) -> Any:
        criterion = made(group)
        optimizer, losses = kind(criterion.parameters(), lr=0.1), []
        for _ in range(5):
            losses.append(criterion.step(x, targets, optimizer))
            criterion.backward()
            optimizer.step()
        return losses, criterion.linear.weight, criterion.linear.bias

    (want, weight, bias), parts = work(None), run_ranks(2, work)
    assert want[-1] < want[0]
    for losses, _, _ in parts:
        np.testing.assert_allclose(losses, want, rtol=1e-5)
    np.testing.assert_allclose(put_together([part[1] for part in parts]), weight, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(put_together([part[2] for part in parts]), bias, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"weight": np.ones(V)}, {"label_smoothing": 0.1}, {"out_features": (2,)}], ids=lambda it: next(iter(it))
)
def test_what_parts_do_not_have_is_refused(options: dict[str, Any]) -> None:
    def work(group: ThreadRank) -> None:
        with pytest.raises(NotImplementedError, match=f"with a group: {next(iter(options))} is not supported"):
            made(group, **options)

    run_ranks(2, work)


def test_probabilities_and_unknown_classes_are_refused() -> None:
    x, _ = inputs()

    def work(group: ThreadRank) -> None:
        criterion = made(group)
        with pytest.raises(NotImplementedError, match="with a group: probabilities as targets are not supported"):
            criterion(x, np.full((N, V), 1 / V))
        for wrong in (V, -1):
            with pytest.raises(IndexError, match=rf"targets: expected ids in \[0, 301\), got {wrong}"):
                criterion(x, np.full(N, wrong))
        with pytest.raises(ValueError, match=r"expected shape \(N, 17\)"):
            criterion(x[:, :3], np.zeros(N, int))

    run_ranks(2, work)
