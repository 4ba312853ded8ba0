"""ONNX files: valid, and onnxruntime computes the network's logits from them."""

import json
from typing import Any

import numpy as np
import pytest

from fastmlp.errors import ModelError
from fastmlp.prediction import onnx as onnx_file
from fastmlp.prediction.neural import NeuralModel
from fastmlp.prediction.onnx import onnx_bytes, varint
from tests.helpers import NUMPY
from tests.networks import small_language

onnx = pytest.importorskip("onnx", reason="no onnx to read what was written")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime to run what was written")

SHAPES: dict[str, dict[str, Any]] = {
    "original": {},
    "averages": {"averages": (0.5, 0.9), "reach": 4},
    "gelu and blocks": {"activation": "gelu", "blocks": 2, "residual": True},
    "relu, tied": {"activation": "relu", "projection": True, "tied": True},
    "all": {
        **{"averages": (0.7, 0.95), "reach": 6, "blocks": 1, "residual": True, "activation": "gelu"},
        **{"projection": True, "tied": True},
    },
}


def logits_of(written: bytes, model: NeuralModel, near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """What onnxruntime computes."""
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    given = {"near": near.astype(np.int64)}
    if model.network.shape.averages:
        given["far"] = far.astype(np.int64)
    [found] = session.run(["logits"], given)
    return np.asarray(found)


@pytest.mark.parametrize("unk_trained", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_onnxruntime_computes_the_networks_logits(
    rng: np.random.Generator, shape: dict[str, Any], unk_trained: bool
) -> None:
    """Of any number of rows, where the text has just begun and where words are unknown."""
    model = small_language(rng, NUMPY, unk_trained=unk_trained, **shape)
    sizes = model.network.shape
    near = rng.integers(0, sizes.vocabulary, (5, sizes.context), dtype=np.int32)
    far = rng.integers(0, sizes.vocabulary, (5, max(1, sizes.reach)), dtype=np.int32)
    near[1, 0] = far[2, -1] = sizes.vocabulary - 1
    far[0], far[1, :2] = -1, -1
    want = model.network.logits(near, far if sizes.reach else None, unknown=model.unknown_embedding())
    written = onnx_bytes(model)
    onnx.checker.check_model(onnx.load_from_string(written), full_check=True)
    np.testing.assert_allclose(logits_of(written, model, near, far), want, rtol=1e-5, atol=1e-5)


def test_it_says_what_the_ids_mean(rng: np.random.Generator) -> None:
    model = small_language(rng, NUMPY)
    said = {prop.key: prop.value for prop in onnx.load_from_string(onnx_bytes(model)).metadata_props}
    assert json.loads(said["vocabulary"]) == list(model.vocabulary.words)
    assert (said["tokenizer"], said["rules"]) == ("words", str(model.tokenizer.rules))


def test_a_network_that_no_file_can_hold_is_refused(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_language(rng, NUMPY)
    size = sum(array.nbytes for array in model.network.parameters.values())
    monkeypatch.setattr(onnx_file, "LARGEST", size)
    onnx_bytes(model)
    monkeypatch.setattr(onnx_file, "LARGEST", size - 1)
    with pytest.raises(ModelError, match="an ONNX file holds 2 GB"):
        onnx_bytes(model)


@pytest.mark.parametrize(
    ("value", "want"), [(0, b"\0"), (1, b"\1"), (127, b"\x7f"), (128, b"\x80\1"), (150, b"\x96\1"), (300, b"\xac\2")]
)
def test_numbers_are_written_as_protocol_buffers_have_them(value: int, want: bytes) -> None:
    assert varint(value) == want
