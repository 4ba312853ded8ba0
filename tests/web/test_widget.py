"""The page in a notebook: the widget's Python half answers as the library does, its JavaScript half shows it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fastmlp.language_model import LanguageModel
from fastmlp.web.bundle import bundle
from tests.web.browser import browser, until

pytest.importorskip("anywidget", reason="the widget needs fastmlp[play]")

from fastmlp.web.widget import Widget, scoped_style


@pytest.fixture
def model(made: Path) -> LanguageModel:
    return LanguageModel.load(made / "runs" / "whole")


def ask(widget: Widget, monkeypatch: pytest.MonkeyPatch, *messages: Any) -> list[dict[str, Any]]:
    """What the widget sends for what it hears."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(widget, "send", lambda content: sent.append(json.loads(json.dumps(content))))
    for message in messages:
        widget._handle_custom_msg(message, [])
    return sent


def test_it_answers_as_the_library_does(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = model.play()
    text = "anna paints a red hens."
    next_words, surprise = ask(
        widget,
        monkeypatch,
        {"number": "1", "method": "next", "question": {"text": "anna", "count": 3}},
        {"number": "2", "method": "surprise", "question": {"text": text, "predictors": ["network"]}},
    )
    assert (next_words["number"], surprise["number"]) == ("1", "2")
    found = {word["word"]: word["probability"] for word in next_words["answer"]["words"]}
    assert found == pytest.approx(dict(model.next_word("anna", 3)), rel=1e-4)
    want = model.perplexity(text, mixture="network")
    assert surprise["answer"]["perplexity"] == pytest.approx(want, rel=1e-5)


def test_what_it_cannot_answer_gets_a_sentence(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        ({"number": "1", "method": "next", "question": {"text": 1}}, "text: expected a text, got 1"),
        ({"number": "2", "method": "next", "question": None}, "expected a JSON object"),
        ({"number": "3", "method": "train", "question": {}}, "'train': no such question"),
        ("hello", "None: no such question"),
    ]
    answers = ask(model.play(), monkeypatch, *(message for message, _ in asked))
    assert [answer["error"] for answer in answers] == [error for _, error in asked]


def test_a_fault_of_our_own_is_told_too(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page would wait for ever."""
    widget, sent = model.play(), []
    monkeypatch.setattr(widget, "send", sent.append)
    monkeypatch.setattr(widget, "_answer", lambda _message: [][0])
    with pytest.raises(IndexError):
        widget._hear(widget, {"number": "1"}, [])
    assert sent == [{"number": "1", "error": "IndexError: list index out of range"}]


def test_a_model_that_is_trained_again_answers_as_it_is_then(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LanguageModel(context=1, embed=4, hidden=(8,), backend="numpy")
    model.fit("to be or not to be. " * 50, steps=50, batch_size=16)
    widget = model.play()
    question = {"number": "1", "method": "next", "question": {"text": "cats", "count": 1, "predictors": ["network"]}}
    [before] = ask(widget, monkeypatch, question)
    assert before["answer"]["unknown"] == ["cats"]
    model.fit("cats sleep. " * 80, steps=200, batch_size=16, lr=0.02)
    [after] = ask(widget, monkeypatch, question)
    assert (after["answer"]["unknown"], after["answer"]["words"][0]["word"]) == ([], "sleep")


def test_as_text_it_says_what_it_is(model: LanguageModel) -> None:
    assert repr(model.play()).startswith("the page of LanguageModel(")


def test_without_the_extra_one_line_says_what_to_install(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastmlp.web.widget", None)
    with pytest.raises(ImportError, match=r"not installed: pip install 'fastmlp\[play\]'"):
        model.play()


HOST = """<!doctype html><meta charset="utf-8"><body><button id="own">a button of the notebook</button>
<div id="one"></div><div id="two"></div><script type="module">
%s
window.sent = [];
const listeners = [];
const channel = {
  on: (_, listener) => listeners.push(listener),
  send: (message) => window.sent.push(message),
  get: (name) => (%s)[name],
};
window.reply = (message) => listeners.forEach((listener) => listener(message));
for (const id of ["one", "two"]) widget.render({ model: channel, el: document.getElementById(id) });
</script>"""


def test_it_is_shown_in_a_page_that_has_another_style(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them, as two cells show it; what is asked goes to Python and back."""
    widget = model.play()
    source = bundle("widget").replace("export default", "const widget =")
    traits = json.dumps({"predictors": widget.predictors, "style": scoped_style()})
    page = tmp_path / "notebook.html"
    page.write_text(HOST % (source, traits), encoding="utf-8")
    with browser() as driver:
        driver.get(page.as_uri())
        until(lambda: driver.execute_script("return window.reply !== undefined"))

        def in_shadow(number: str, css: str) -> Any:
            """Elements of a widget, while its questions are answered."""
            for message in driver.execute_script("return window.sent.splice(0)"):
                for answer in ask(widget, monkeypatch, message):
                    driver.execute_script("window.reply(arguments[0])", answer)
            shadow = driver.find_element("id", number).shadow_root
            return [element for element in shadow.find_elements("css selector", css) if element.is_displayed()]

        def one(number: str, css: str) -> Any:
            return until(lambda: in_shadow(number, css))[0]

        one("two", "textarea").send_keys("anna paints a")
        [(likeliest, _)] = model.next_word("anna paints a", 1)
        until(lambda: one("two", ".bar").get_attribute("data-word") == likeliest)
        until(lambda: one("two", ".bar").click() is None)
        until(lambda: one("two", "textarea").get_property("value") == f"anna paints a {likeliest}")
        assert one("one", "textarea").get_property("value") == ""
        until(lambda: one("one", "button[role=tab]:nth-child(2)").click() is None)
        one("one", "[aria-label='the text to measure']").send_keys("anna paints zebras.")
        until(lambda: one("one", "section:not([hidden]) .buttons button").click() is None)
        assert (
            "1 outside the vocabulary"
            in until(lambda: [line.text for line in in_shadow("one", ".status") if "perplexity" in line.text]).pop()
        )
        own = driver.find_element("id", "own")
        assert own.value_of_css_property("border-radius") != one("two", ".buttons button").value_of_css_property(
            "border-radius"
        )
        assert driver.execute_script("return location.hash") == ""
        wrong = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    assert wrong == []
