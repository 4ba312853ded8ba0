"""Model files: what they give back, and what is no model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp import checkpoint
from fastmlp.language_model import ModelError, load_language_model, model_file
from fastmlp.ops import Ops
from tests.helpers import NUMPY
from tests.networks import small_language


def save(path: Path, rng: np.random.Generator, **changes: Any) -> None:
    language = small_language(rng, NUMPY)
    metadata = {**language.metadata(), **changes}
    checkpoint.save(path, language.network.state_dict(), {k: v for k, v in metadata.items() if v is not None})


def test_a_model_comes_back_as_it_was(ops: Ops, rng: np.random.Generator, tmp_path: Path) -> None:
    language = small_language(rng, ops, unk_trained=True)
    extra = {"optimizer.mean.output.bias": np.ones(3, np.float32)}
    file = tmp_path / "model.safetensors"
    checkpoint.save(file, {**language.network.state_dict(), **extra}, language.metadata())
    loaded = load_language_model(file, ops)
    assert (loaded.vocabulary, loaded.tokenizer.name, loaded.unk_trained) == (language.vocabulary, "words", True)
    assert loaded.network.shape == language.network.shape
    for name, array in language.network.state_dict().items():
        assert loaded.network.state_dict()[name].tobytes() == array.tobytes()


def test_a_folder_stands_for_its_best_model_else_for_its_last(rng: np.random.Generator, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a folder without model\.safetensors; name a run's folder"):
        load_language_model(tmp_path, NUMPY)
    save(tmp_path / "last.safetensors", rng)
    assert model_file(tmp_path).name == "last.safetensors"
    save(tmp_path / "model.safetensors", rng)
    assert model_file(tmp_path).name == "model.safetensors"
    assert load_language_model(tmp_path, NUMPY).network.shape.context == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": None}, "it holds no language model: vocabulary missing"),
        ({"tokenizer": "syllables"}, "its tokenizer 'syllables' is not known to this fastmlp"),
        ({"network": {"context": 3, "embed": 4, "hidden": [7]}}, "expected shape"),
        ({"network": {"context": 3, "embed": 4, "hidden": [6, 6]}}, "missing: hidden.1"),
        ({"vocabulary": ["a", "b"]}, "expected <unk> as the last one"),
    ],
)
def test_what_is_no_model_is_refused(changes: Any, message: str, rng: np.random.Generator, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save(file, rng, **changes)
    with pytest.raises(ModelError, match=r"cannot load|model\.safetensors: ") as refused:
        load_language_model(file, NUMPY)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_text_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "hp.txt").write_text("It was a dark and stormy night.")
    with pytest.raises(ModelError, match=r"cannot load .*hp\.txt: "):
        load_language_model(tmp_path / "hp.txt", NUMPY)
    with pytest.raises(ModelError, match="there is no such file"):
        load_language_model(tmp_path / "nothing", NUMPY)
