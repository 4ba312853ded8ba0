"""The examples in the docstrings of the public modules run, with the shown results."""

import doctest
import importlib
import pkgutil
from typing import Any

import pytest

PACKAGES = ("functional", "nn", "optim")
WITH_EXAMPLES = [*PACKAGES, "optim.lr_scheduler"]  # one for each public name


def modules() -> list[str]:
    """The public modules, and those that packages hand names on from."""
    parts = [
        f"{package}.{part.name}"
        for package in PACKAGES
        for part in pkgutil.iter_modules(importlib.import_module(f"fastmlp.{package}").__path__)
    ]
    return ["language_model", "prediction.kneser_ney", "torch", "training.history", *PACKAGES, *parts]


@pytest.mark.parametrize("name", modules())
def test_examples_run(name):
    """Those of a package's parts with all of its public names, as a user has them."""
    if name == "torch":
        pytest.importorskip("torch")
    package = importlib.import_module(f"fastmlp.{name.partition('.')[0]}")
    names = {public: getattr(package, public) for public in package.__all__} if name.startswith(PACKAGES) else {}
    failed, _ = doctest.testmod(importlib.import_module(f"fastmlp.{name}"), extraglobs=names)
    assert not failed


def examples(public: Any) -> int:
    found = doctest.DocTestFinder(recurse=False).find(public, public.__name__)
    return sum(len(test.examples) for test in found)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_every_public_name_has_an_example(name):
    module = importlib.import_module(f"fastmlp.{name}")
    assert module.__all__
    assert [public for public in module.__all__ if not examples(getattr(module, public))] == []


def test_examples_are_looked_for_where_they_are():
    """A package only re-exports names; examples of its own would silently not be run."""
    counts = dict.fromkeys(PACKAGES, 0)
    for name in modules():
        module = importlib.import_module(f"fastmlp.{name}") if name != "torch" else None
        if module is not None and name.partition(".")[0] in counts:
            counts[name.partition(".")[0]] += sum(len(test.examples) for test in doctest.DocTestFinder().find(module))
    for name, count in counts.items():
        public = importlib.import_module(f"fastmlp.{name}")
        assert count >= sum(examples(getattr(public, each)) for each in public.__all__) > 0
