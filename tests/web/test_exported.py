"""The exported page: its JavaScript computes what the network does, and it needs neither a server nor the network."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.export import main as export
from fastmlp.language_model import LanguageModel
from fastmlp.prediction.generation import drawing_probabilities
from fastmlp.prediction.neural import NeuralModel
from fastmlp.text.words import get_tokenizer
from fastmlp.web.bundle import bundle
from fastmlp.web.exported import page_with_model
from tests.helpers import NUMPY
from tests.networks import small_language
from tests.runs import learnable_text
from tests.web.browser import browser, until

ASK = """
const {page, asked} = JSON.parse(require("fs").readFileSync(0, "utf8"));
const part = (id) => page.match(new RegExp(`id="${id}">([^<]*)</script>`))[1];
const {buffer} = Uint8Array.from(atob(part("weights")), (character) => character.charCodeAt(0));
const inside = new Inside(JSON.parse(part("model")), buffer);
console.log(JSON.stringify(asked.map(([method, question]) => inside[method](question, () => {}))));
"""


def in_node(module: str, script: str, given: Any) -> Any:
    """What a script that follows a module prints, of what it is given on standard input."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to run the page's JavaScript")
    result = subprocess.run(
        [node, "--input-type=commonjs", "-e", bundle(module) + script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def answers(model: NeuralModel, *asked: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page with this model answers."""
    found: list[dict[str, Any]] = in_node("inside", ASK, {"page": page_with_model(model, "a page"), "asked": asked})
    return found


SHAPES: dict[str, dict[str, Any]] = {
    "original": {},
    "averages": {"averages": (0.5, 0.9), "reach": 4},
    "gelu and blocks": {"activation": "gelu", "blocks": 2, "residual": True},
    "relu, tied": {"activation": "relu", "projection": True, "tied": True},
    "projection": {"projection": True, "blocks": 1},
}


def round_to_bytes(model: NeuralModel) -> None:
    """Round the weights, so that the page, which has a byte for each, loses nothing."""
    for values in model.network.parameters.values():
        if values.ndim == 2:
            scale = np.abs(values).max(axis=1, keepdims=True) / 127
            values[...] = np.rint(values / scale) * scale


@pytest.mark.parametrize("unk_trained", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_it_computes_what_the_network_does(rng: np.random.Generator, shape: dict[str, Any], unk_trained: bool) -> None:
    model = small_language(rng, NUMPY, unk_trained=unk_trained, **shape)
    round_to_bytes(model)
    text = "The cat saw a dog. A bird sang, and the cat sang; dog dog the bird. and the cat"
    words = model.tokenizer.split(text)
    ids = model.vocabulary.encode(words)
    want = -model.log_probabilities(ids, ids[:0]) / np.log(2)
    [found] = answers(model, ("surprise", {"text": text}))
    np.testing.assert_allclose([bits for _, bits, _ in found["words"]], want, atol=1e-3)
    assert "".join(piece for piece, _, _ in found["words"]) == model.tokenizer.join(words)
    assert [known for _, _, known in found["words"]] == (ids != model.vocabulary.unk_id).tolist()
    assert found["unknown"] == 3


def test_its_perplexity_is_within_one_percent_of_the_networks(made: Path) -> None:
    model = LanguageModel.load(made / "runs" / "whole")
    text = learnable_text(800)[-12_000:]
    [found] = answers(model._parts(), ("surprise", {"text": text}))
    assert found["perplexity"] == pytest.approx(model.perplexity(text, mixture=False), rel=0.01)


@pytest.mark.parametrize(
    "limits",
    [{}, {"temperature": 0.5}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.7}, {"top_k": 4, "top_p": 0.5}],
    ids=str,
)
def test_it_draws_by_the_librarys_probabilities(rng: np.random.Generator, limits: dict[str, Any]) -> None:
    model = small_language(rng, NUMPY)
    round_to_bytes(model)
    logits = model.cursor(model.vocabulary.encode(["the", "cat"]).tolist()).logits()
    logits[-1] = -np.inf
    want = drawing_probabilities(logits, **limits)
    question = {"text": "the cat", "count": 5, **limits}
    found, *more = answers(model, *[("next", question)] * 200)
    order = np.argsort(-want, kind="stable")[:5]
    likely = [word for word in order if want[word] > 0]
    assert [word["word"] for word in found["words"]] == [model.vocabulary.words[word] for word in likely]
    np.testing.assert_allclose([word["probability"] for word in found["words"]], want[likely], rtol=1e-3)
    assert [word["piece"] for word in found["words"]] == [
        model.tokenizer.join(["x", model.vocabulary.words[word]])[1:] for word in likely
    ]
    drawn = [answer["drawn"].strip() for answer in more]
    often = [drawn.count(word) / len(drawn) for word in model.vocabulary.words]
    np.testing.assert_allclose(often, want, atol=0.12)


TEXTS = [
    "Don't -- seventeen-year-old; 3.14, (so) “said” he… U.S.",
    "Ἀρχή ΟΔΟΣ naïve cafe\u0301 \u0301x İstanbul שָׁלוֹם हिन्दी ½ ² x_y",
    "a---b a--b--c ''' . .. - ‑ soft\u00adhyphen zero\u200dwidth\ufeff",
    "one\ntwo \n\n three\x1cfour\u3000five\u2028six\x85seven <eos> <unk> </script>\n",
    "",
    " \n",
]


@pytest.mark.parametrize("name", ["words", "whitespace"])
def test_it_splits_texts_as_the_library_does(name: str) -> None:
    script = (
        f'console.log(JSON.stringify(JSON.parse(require("fs").readFileSync(0, "utf8")).map(TOKENIZERS.{name}.split)))'
    )
    assert in_node("tokenizers", script, TEXTS) == [get_tokenizer(name).split(text) for text in TEXTS]


def test_no_word_ends_the_page_early(rng: np.random.Generator) -> None:
    page = page_with_model(small_language(rng, NUMPY), "</title><script>alert(1)</script>")
    assert page.count("</script>") == page.count("<script") == 4
    assert re.findall(r"<title>(.*)</title>", page) == ["&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;"]
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("module", ["page", "exported", "worker"])
def test_the_modules_make_one_script(module: str, tmp_path: Path) -> None:
    """Without an import, and with each name declared once."""
    source = bundle(module)
    names = re.findall(r"^(?:async )?(?:class|const|function|let) (\w+)", source, re.MULTILINE)
    assert len(names) == len(set(names))
    assert not re.search(r"^(import|export)\b", source, re.MULTILINE)


def test_opened_from_disk_with_the_network_cut_off(made: Path, tmp_path: Path) -> None:
    assert export([str(made / "runs" / "whole"), str(tmp_path / "page.html")]) == 0
    text = learnable_text(30)
    model = LanguageModel.load(made / "runs" / "whole")
    [(likeliest, _)] = model.next_word("anna paints a", 1, mixture=False)
    with browser() as driver:
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        driver.get((tmp_path / "page.html").as_uri())

        def one(css: str) -> Any:
            return until(lambda: driver.find_elements("css selector", css))[0]

        one("#panel-write textarea").send_keys("anna paints a")
        until(lambda: one(".bar").get_attribute("data-word") == likeliest)
        one(".bar").click()
        until(lambda: one("#panel-write textarea").get_property("value") == f"anna paints a {likeliest}")
        one("#tab-surprise").click()
        driver.execute_script("document.querySelector('#panel-surprise textarea').value = arguments[0]", text)
        one("#panel-surprise .buttons button").click()
        found = float(until(lambda: one("#panel-surprise .status").get_attribute("data-perplexity")))
        wrong = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    assert found == pytest.approx(model.perplexity(text, mixture=False), rel=0.01)
    assert wrong == []
