"""The exported page: its JavaScript computes what the network does, and it needs neither a server nor the network."""

import json
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.errors import ModelError
from fastmlp.export import main as export
from fastmlp.language_model import LanguageModel
from fastmlp.prediction.generation import drawing_probabilities
from fastmlp.prediction.mixture import Mixture
from fastmlp.prediction.neural import NeuralModel
from fastmlp.text.words import get_tokenizer
from fastmlp.web.bundle import bundle
from fastmlp.web.characters import tables
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
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def answers(model: NeuralModel, *asked: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page with this model answers."""
    return answers_of(page_with_model(Mixture(model), "a page"), *asked)


def answers_of(page: str, *asked: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What a page answers."""
    found: list[dict[str, Any]] = in_node("inside", ASK, {"page": page, "asked": asked})
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
    "彼は「本」を読む。中文文字，ABC 。ภาษาไทย ကျောင်းသား ស្រី ﬁne Ｆｕｌｌ ﷲ ㄅ",
    "'tis `int`s the dog`s &rsquo;s &#39;em צה\"ל ک\u200cم می\u200cخواهم a\u200cb",
    "''Tis', he said. \"He 'said' so.\" “‘A’” «x» ‹y› (z [q]) Mr. Bold. A. I. D——n __init__ a_b _x_ 1,000: 10:30, i.e.",
    "the dogs' 'old' bone; ‘it’s’ the 'Bishop's'\n \n\n\t(\"Yes!\" — he...) Éa. 𝔘nd 𐐀𐐨. éa 3.5% —— –1 1–2 – a",
    "",
    " \n",
]


@pytest.mark.parametrize("rules", [1, 2])
@pytest.mark.parametrize("name", ["words", "whitespace", "prose"])
def test_it_splits_and_joins_texts_as_the_library_does(name: str, rules: int) -> None:
    """Whatever the character: browsers may know others than this Python, so here only those of both."""
    story = " ".join(TEXTS) + learnable_text(20)
    tokenizer = get_tokenizer(name, rules=rules)
    if name == "prose":
        tokenizer = get_tokenizer(name, tokenizer.fit(story)[0].capitalized, rules=rules)
    every = "".join(
        f"a{chr(code)}b. {chr(code)} c " for code in range(1, 0x3000) if unicodedata.category(chr(code))[0] != "C"
    )
    texts = [*TEXTS, story, *(every[start : start + 20] for start in range(0, len(every), 20))]
    script = """
const {described, texts} = JSON.parse(require("fs").readFileSync(0, "utf8"));
const tokenizer = tokenizerOf(described);
console.log(JSON.stringify(texts.map((text) => {
  const [words, joiner] = [tokenizer.split(text), tokenizer.joiner()];
  return [words, words.map((word) => joiner.add(word)), joiner.excluded().sort()];
})));
"""
    described = {"name": name, "rules": rules, "capitalized": sorted(tokenizer.capitalized), "characters": tables()}
    found = in_node("tokenizers", script, {"described": described, "texts": texts})
    wrong = []
    for text, answer in zip(texts, found, strict=True):
        words, joiner = tokenizer.split(text), tokenizer.joiner()
        pieces = [joiner.add(word) for word in words]
        if answer[:2] != [words, pieces] or sorted(answer[2]) != sorted(joiner.excluded()):
            wrong.append((text, words, answer[0]))
    assert not [text for text, *_ in wrong if text in (*TEXTS, story)], wrong
    assert len(wrong) <= 6  # letters that have become lower case, or no longer, with a new version of Unicode


@pytest.mark.parametrize("tokenizer", ["words", "whitespace", "prose"])
def test_a_page_of_every_tokenizer(tokenizer: str) -> None:
    model = LanguageModel(context=2, embed=4, hidden=(8,), tokenizer=tokenizer, backend="numpy")
    text = "Anna paints (a red) door. She said: “it is red!”\n\nBoris sells bread.\n" * 20
    model.fit(text, steps=30, batch_size=16)
    asked = text[:120]
    page = page_with_model(model._whole(), "a page")
    measured, capitals, after = answers_of(
        page,
        ("surprise", {"text": asked}),
        ("next", {"text": "ANNA", "count": 30}),
        ("next", {"text": "she said: “it is (", "count": 100}),
    )
    assert measured["perplexity"] == pytest.approx(model.perplexity(asked, mixture=False), rel=0.01)
    joined = model.tokenizer.join(model.tokenizer.split(asked))
    assert "".join(piece for piece, *_ in measured["words"]) == joined
    assert capitals["unknown"] == []  # as the vocabulary has it
    if tokenizer == "prose":  # a bracket that opens is not closed at once, nor what is not open, nor the paragraph
        assert not {")", "”", "<p>", "(", "“"} & {word["word"] for word in after["words"]}


def test_a_page_of_numbers() -> None:
    model = LanguageModel(context=1, embed=4, hidden=(8,), vocab_size=4, backend="numpy")
    model.fit([0, 1, 2, 3] * 50, steps=30, batch_size=16)
    [found] = answers_of(page_with_model(model._whole(), "numbers"), ("next", {"text": "1 2", "count": 1}))
    assert found["words"][0]["piece"].strip() == str(model.next_word([1, 2], 1)[0][0])


def test_a_page_with_counts_predicts_as_the_mixture_does(made: Path) -> None:
    """All of them: then nothing is lost but by rounding."""
    model = LanguageModel.load(made / "runs" / "whole", backend="numpy")
    text = learnable_text(40)
    page = page_with_model(model._whole(), "a page", 10**8)
    chosen = (["network", "counts"], ["counts"], ["network"])
    asked = [("surprise", {"text": text, "predictors": names}) for names in chosen]
    *measured, after = answers_of(page, *asked, ("next", {"text": "anna paints", "count": 5}))
    for names, found in zip(chosen, measured, strict=True):
        assert found["perplexity"] == pytest.approx(model.perplexity(text, mixture=names), rel=0.01)
    shares = dict(model.next_word_by_predictor("anna paints", 1))[after["words"][0]["word"]]
    without_cache = shares["network"] + shares["counts"]
    assert after["words"][0]["shares"]["counts"] == pytest.approx(shares["counts"] / without_cache, abs=0.05)
    assert sum(after["words"][0]["shares"].values()) == pytest.approx(1)
    assert page_with_model(model._whole(), "a page") == page_with_model(model._whole().only("network"), "a page")


def test_a_page_takes_as_many_counts_as_fit(made: Path) -> None:
    model = LanguageModel.load(made / "runs" / "whole", backend="numpy")
    text = learnable_text(40)
    most = len(page_with_model(model._whole(), "a page", 10**8).encode())
    with pytest.raises(ModelError, match=r"of single words alone the page has 0\.\d MB; ask for more"):
        page_with_model(model._whole(), "a page", most // 2)
    perplexities = []
    for size in (most - 1500, most - 1000, most - 500, most):
        page = page_with_model(model._whole(), "a page", size)
        assert size - 200 <= len(page.encode()) <= size
        [found] = answers_of(page, ("surprise", {"text": text, "predictors": ["counts"]}))
        perplexities.append(found["perplexity"])
    assert perplexities == sorted(perplexities, reverse=True)


def test_no_word_ends_the_page_early(rng: np.random.Generator) -> None:
    page = page_with_model(Mixture(small_language(rng, NUMPY)), "</title><script>alert(1)</script>")
    assert page.count("</script>") == page.count("<script") == 4
    assert re.findall(r"<title>(.*)</title>", page) == ["&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;"]
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("module", ["page", "exported", "worker", "widget"])
def test_the_modules_make_one_script(module: str, tmp_path: Path) -> None:
    """Without an import, and with each name declared once."""
    source = bundle(module)
    names = re.findall(r"^(?:async )?(?:class|const|function|let) (\w+)", source, re.MULTILINE)
    assert len(names) == len(set(names))
    assert not re.search(r"^(import|export)\b(?! default)", source, re.MULTILINE)


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
        until(lambda: one(".bar").click() is None)
        until(lambda: one("#panel-write textarea").get_property("value") == f"anna paints a {likeliest}")
        until(lambda: one("#tab-surprise").click() is None)
        driver.execute_script("document.querySelector('#panel-surprise textarea').value = arguments[0]", text)
        until(lambda: one("#panel-surprise .buttons button").click() is None)
        found = float(until(lambda: one("#panel-surprise .status").get_attribute("data-perplexity")))
        wrong = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    assert found == pytest.approx(model.perplexity(text, mixture=False), rel=0.01)
    assert wrong == []
