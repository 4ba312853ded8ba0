"""Runs of every kind in every view and in every file: of earlier versions, of each tokenizer, the lectures' network."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from fastmlp.export import main as export
from fastmlp.language_model import LanguageModel
from fastmlp.prediction.generation import softmax
from fastmlp.trainer import train
from fastmlp.web.exported import page_with_model
from fastmlp.web.server import make_app
from fastmlp.web.shelf import Shelf
from tests.runs import learnable_text, small_config, write_text
from tests.web.conftest import HOST, TOKEN
from tests.web.test_exported import answers_of
from tests.web.test_server import ask, refused

OLD = Path(__file__).parents[1] / "data" / "runs_of_0e6bef8"
CHINESE = "从前有一个老人。他住在山上，每天读书。老人的儿子在城里。" * 60
NOVEL = "“Who is it?” asked Mr. Bold.\n\nThe bishop (he was old) said: it's the warden!\n\n" * 60
KINDS: dict[str, dict[str, Any]] = {
    "original": {"hidden": (300, 300), "optimizer": "sgd", "lr": 0.1, "schedule": "constant"},  # as --preset original
    "whitespace": {"tokenizer": "whitespace", "counts": True},
    "prose": {"tokenizer": "prose", "counts": True},
    "chinese": {"counts": True},
}
TEXTS = {"prose": NOVEL, "chinese": CHINESE}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "runs").mkdir()
    for name, options in KINDS.items():
        text = write_text(folder, TEXTS.get(name, learnable_text(200)))
        train(small_config(text, folder / "runs" / name, **options))
    for old in OLD.iterdir():
        if old.is_dir():
            shutil.copytree(old, folder / "runs" / f"old-{old.name}")
    ids = LanguageModel(context=2, embed=4, hidden=(8,), vocab_size=9, backend="numpy")
    ids.fit(np.tile(np.arange(9), 60), steps=20, batch_size=8)
    (folder / "runs" / "ids").mkdir()
    ids.save(folder / "runs" / "ids" / "model.safetensors")
    return folder


ALL = [*KINDS, "old-numpy", "old-numba", "old-cython"]


@pytest.mark.parametrize("run", ALL)
def test_every_view_of_a_run(kinds: Path, run: str) -> None:
    app = make_app(Shelf(kinds), TOKEN, HOST)
    text = TEXTS.get(run, learnable_text(3))[:200].strip()
    model = LanguageModel.load(kinds / "runs" / run)
    with TestClient(app, base_url=f"http://{HOST}") as client:
        facts = ask(client, "facts", run=run)
        assert ("counts" in facts["predictors"]) == KINDS.get(run, {}).get("counts", False)
        found = ask(client, "next", run=run, text=text, predictors=["network"], count=3)
        probabilities = [word["probability"] for word in found["words"]]
        if run != "prose":  # which writes no mark where it would be wrong
            want = [probability for _, probability in model.next_word(text, 3, mixture=False)]
            assert probabilities == pytest.approx(want, rel=1e-4)
        assert found["words"][0]["piece"]
        measured = ask(client, "surprise", run=run, text=text, predictors=["network"])
        assert measured["perplexity"] == pytest.approx(model.perplexity(text, mixture=False), rel=1e-4)
        joined = model.tokenizer.join(model.tokenizer.split(text))
        assert "".join(piece for piece, *_ in measured["words"]) == joined
        words = ask(client, "map", run=run, count=50)["words"]
        assert ask(client, "neighbors", run=run, word=words[0], count=2)["neighbors"]
        assert ask(client, "history", run=run)["metrics"]
        summary = {one["name"]: one for one in client.get(f"/{TOKEN}/api/overview").json()["runs"]}[run]
        assert summary["network_perplexity"] > 1
        assert summary["text"] == "story.txt"


@pytest.mark.parametrize("run", [*ALL, "ids"])
@pytest.mark.parametrize("ending", ["html", "onnx", "vec"])
def test_every_run_is_exported(kinds: Path, tmp_path: Path, run: str, ending: str) -> None:
    file = tmp_path / f"written.{ending}"
    assert export([str(kinds / "runs" / run), str(file)]) == 0
    assert file.stat().st_size > 200


def test_a_model_of_numbers_has_no_map_and_says_so(kinds: Path) -> None:
    app = make_app(Shelf(kinds, kinds / "runs" / "ids" / "model.safetensors"), TOKEN, HOST)
    with TestClient(app, base_url=f"http://{HOST}") as client:
        run = client.get(f"/{TOKEN}/api/overview").json()["first"]
        [(likeliest, _)] = LanguageModel.load(kinds / "runs" / "ids").next_word([3, 4], 1)
        assert ask(client, "next", run=run, text="3 4")["words"][0]["word"] == str(likeliest)
        assert refused(client, 404, "map", run=run) == "a model of ids has no words to draw"


@pytest.mark.parametrize(("run", "end"), [("prose", "\n\n"), ("whitespace", "\n")])
def test_a_text_goes_on_after_a_line_end(kinds: Path, run: str, end: str) -> None:
    """In the page of the server and in the exported one: as the word that it is, and without a space behind it."""
    text = TEXTS.get(run, learnable_text(3)).strip()
    model = LanguageModel.load(kinds / "runs" / run)
    mark = model.vocabulary.id_of(model.tokenizer.sentence_end)
    ids = [*model.vocabulary.encode(model.tokenizer.split(text)), mark]
    cursor = model._parts().cursor(ids)
    want = softmax(cursor.logits())
    question = {"text": text + end, "predictors": ["network"], "count": 3}
    with TestClient(make_app(Shelf(kinds), TOKEN, HOST), base_url=f"http://{HOST}") as client:
        served = ask(client, "next", run=run, **question)
    [exported] = answers_of(page_with_model(model._whole(), "a page"), ("next", question))
    for found, tolerance in ((served, 1e-3), (exported, 0.1)):
        assert not any(word["piece"].startswith((" ", "\n")) for word in found["words"])
        first = found["words"][0]
        of_all = sum(want[model.vocabulary.id_of(word["word"])] for word in found["words"])
        ratio = first["probability"] / sum(word["probability"] for word in found["words"])
        assert ratio == pytest.approx(want[model.vocabulary.id_of(first["word"])] / of_all, rel=tolerance)
