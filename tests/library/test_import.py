"""The modules that `import fastmlp` loads, and its public names."""

import json
import subprocess
import sys
import tomllib
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path

import pytest

import fastmlp

ROOT = Path(__file__).parents[2]
HEAVY = {"numpy", "numba", "matplotlib", "torch", "safetensors", "tqdm"}


def imported_by(code: str) -> set[str]:
    """Return the modules that a fresh Python has imported after this code."""
    code += "\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(json.loads(done.stdout))


def test_importing_fastmlp_imports_nothing_that_takes_time() -> None:
    modules = imported_by("import fastmlp; fastmlp.__version__; dir(fastmlp)")
    assert not HEAVY & modules
    assert [name for name in modules if name.startswith("fastmlp.")] == []


def test_the_language_model_brings_numpy_when_it_is_asked_for_and_no_picture_nor_torch() -> None:
    modules = imported_by("from fastmlp import LanguageModel; LanguageModel()")
    assert {"numpy", "fastmlp.language_model"} <= modules
    assert not {"numba", "matplotlib", "torch", "tqdm", "fastmlp.trainer"} & modules


def test_counting_brings_numpy_and_no_back_end() -> None:
    modules = imported_by("from fastmlp import KneserNey; KneserNey().fit('to be or not to be.')")
    assert "numpy" in modules
    assert not {"numba", "matplotlib", "torch", "tqdm", "fastmlp.trainer", "fastmlp.language_model"} & modules


@pytest.mark.parametrize("name", fastmlp._SUBMODULES)
def test_submodules_are_imported_when_they_are_asked_for(name: str) -> None:
    if find_spec(f"fastmlp.{name}") is None or (name == "torch" and find_spec("torch") is None):
        pytest.skip(f"no fastmlp.{name} here")
    assert f"fastmlp.{name}" in imported_by(f"import fastmlp; fastmlp.{name}")
    assert name in dir(fastmlp)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fastmlp' has no attribute 'languagemodel'"):
        fastmlp.languagemodel  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_are_told_that_it_is_typed() -> None:
    assert resources.files("fastmlp").joinpath("py.typed").is_file()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert "py.typed" in settings["setuptools"]["package-data"]["fastmlp"]
    assert settings["mypy"]["strict"] is True
    assert "fastmlp" in settings["mypy"]["files"]


@pytest.mark.parametrize(
    ("module", "missing"),
    [("functional", "layer_norm"), ("nn", "LayerNorm"), ("optim", "RMSprop"), ("optim.lr_scheduler", "OneCycleLR")],
)
def test_a_name_that_only_pytorch_has_is_refused_with_what_exists(module: str, missing: str) -> None:
    """As an AttributeError too, so that hasattr and from-imports work as they do everywhere."""
    found = import_module(f"fastmlp.{module}")
    with pytest.raises(NotImplementedError, match=rf"fastmlp\.{module} has no {missing}; it has .*{found.__all__[0]}"):
        getattr(found, missing)
    assert not hasattr(found, missing)
    with pytest.raises(AttributeError, match="__nothing__"):
        found.__nothing__  # noqa: B018
    shown = {"lr_scheduler"} if module == "optim" else set()
    assert set(dir(found)) == {*found.__all__, *shown}


def test_dir_of_the_package_shows_the_public_names() -> None:
    assert set(dir(fastmlp)) == {*fastmlp.__all__, *fastmlp._SUBMODULES}
