"""The examples in the docstrings of the public modules run, and give what they say."""

import doctest
import importlib
import importlib.util
from types import ModuleType
from typing import Any

import pytest

PUBLIC = ["functional", "history", "language_model", "nn", "optim", "torch"]
WITH_EXAMPLES = ["functional", "nn", "optim"]  # one for each public name
THERE = [name for name in PUBLIC if importlib.util.find_spec(f"fastmlp.{name}")]


@pytest.fixture(params=THERE)
def module(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "torch":
        pytest.importorskip("torch")
    return importlib.import_module(f"fastmlp.{request.param}")


def test_examples_run(module):
    failed, _ = doctest.testmod(module)
    assert not failed


def examples(public: Any) -> int:
    found = doctest.DocTestFinder(recurse=False).find(public, public.__name__)
    return sum(len(test.examples) for test in found)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_every_public_name_has_an_example(name):
    module = importlib.import_module(f"fastmlp.{name}")
    assert module.__all__
    assert [public for public in module.__all__ if not examples(getattr(module, public))] == []
