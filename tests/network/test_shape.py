"""What a network is made of: it goes through JSON, and what cannot be is refused."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from fastmlp.network.network import Network
from fastmlp.network.shape import NetworkShape
from tests.helpers import NUMPY
from tests.networks import FAMILY, SHAPE

EVERY = {**FAMILY, "plain": SHAPE, "start": replace(SHAPE, dropout=(0.1, 0.0, 0.2), embed_std=0.02)}


@pytest.mark.parametrize("shape", [pytest.param(shape, id=name) for name, shape in EVERY.items()])
def test_a_shape_comes_back_from_json_as_it_was(shape: NetworkShape) -> None:
    again = NetworkShape.from_dict(shape.vocabulary, json.loads(json.dumps(shape.to_dict())))
    assert again == shape
    assert hash(again) == hash(shape)  # no list is left in it


def test_a_network_of_before_writes_what_it_wrote_before() -> None:
    """An older fastmlp reads its checkpoints."""
    assert SHAPE.to_dict() == {"context": 3, "embed": 5, "hidden": [17, 11]}
    assert NetworkShape(9).to_dict() == {"context": 4, "embed": 30, "hidden": [300, 300]}
    assert FAMILY["projection"].to_dict() == {**SHAPE.to_dict(), "projection": True}
    assert NetworkShape.from_dict(9, {}) == NetworkShape(9)


def test_what_this_version_does_not_know_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^its network has a, b, not known to this fastmlp; upgrade fastmlp$"):
        NetworkShape.from_dict(9, {**SHAPE.to_dict(), "b": 1, "a": None})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"averages": (0.5, 1.0), "reach": 3}, "averages: expected decays between 0 and 1, got (0.5, 1.0)"),
        ({"averages": (0.0,), "reach": 3}, "averages: expected decays between 0 and 1, got (0.0,)"),
        ({"averages": (0.5,)}, "reach: expected at least 1 with averages and 0 without, got 0"),
        ({"reach": 3}, "reach: expected at least 1 with averages and 0 without, got 3"),
        ({"averages": (0.5,), "reach": -1}, "reach: expected at least 1 with averages and 0 without, got -1"),
        ({"activation": "sine"}, "activation: expected one of tanh, gelu, relu, got 'sine'"),
        ({"tied": True}, "projection: expected one where the weights are tied"),
        ({"dropout": (0.1, 0.1)}, "dropout: expected three shares of at least 0 and below 1, got (0.1, 0.1)"),
        ({"dropout": (0.1, 0.1, 1.0)}, "dropout: expected three shares of at least 0 and below 1, got"),
        ({"dropout": (-0.1, 0.1, 0.5)}, "dropout: expected three shares of at least 0 and below 1, got"),
        ({"blocks": -1}, "blocks: expected at least 0, got -1"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        NetworkShape(9, **parts)


def test_the_parameters_of_each_part_are_counted() -> None:
    def count(**parts: Any) -> int:
        return Network(NetworkShape(100, 6, 10, (20,), **parts), NUMPY, seed=1).parameter_count()

    plain = count()
    assert plain == 100 * 10 + 60 * 20 + 40 + 100 * 21
    assert count(averages=(0.5, 0.9), reach=50) == plain + 2 * 10 * 20
    assert count(blocks=3) == count(blocks=3, residual=True) == plain + 3 * (20 * 20 + 40)
    assert count(projection=True) == plain + 20 * 10 + 10 - 100 * 10
    assert count(projection=True, tied=True) == count(projection=True) - 100 * 10
    assert count(dropout=(0.5, 0.5, 0.5), activation="gelu", embed_std=0.1) == plain
