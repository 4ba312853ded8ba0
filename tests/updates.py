"""The rules by which ops update, for the tests of those that update where they multiply."""

import pytest

from tests.helpers import run

RULES = [
    {"rule": "sgd", "lr": 0.5},
    {"rule": "sgd", "lr": 0.5, "weight_decay": 0.3},
    {"rule": "momentum", "lr": 0.5},
    {"rule": "momentum", "lr": 0.5, "momentum": 0.5, "weight_decay": 0.3},
    {"rule": "adagrad", "lr": 0.5},
    {"rule": "adagrad", "lr": 0.5, "eps": 0.1, "weight_decay": 0.3},
    {"rule": "adamw", "lr": 0.5, "step": 3},
    {"rule": "adamw", "lr": 0.5, "step": 3, "beta1": 0.5, "beta2": 0.7, "eps": 0.1, "weight_decay": 0.3},
]
rules = pytest.mark.parametrize("options", RULES, ids=lambda options: " ".join(map(str, options.values())))

KEPT = {"sgd": (), "momentum": ("velocity",), "adagrad": ("squares",), "adamw": ("mean", "square")}


def update_by(ops, options, form, arrays, given, **others):
    """What update_<rule> makes of a parameter; its state is named as the last layer's."""
    rule, options = options["rule"], {name: value for name, value in options.items() if name != "rule"}
    state = {slot: given[f"weight_state{number}"] for slot, number in zip(KEPT[rule], ("", "2"), strict=False)}
    got = run(ops, f"update_{rule}{form}", {**arrays, **state, "param": given["weight"]}, **options, **others)
    slots = zip(KEPT[rule], ("", "2"), strict=False)
    return {"weight": got["param"], **{f"weight_state{number}": got[slot] for slot, number in slots}}
