"""The page in a real browser: what is clicked and pressed, and what is then to be seen."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmlp.language_model import LanguageModel
from tests.runs import ROOT, learnable_text, lines_in
from tests.web.browser import browser, served, until

By = pytest.importorskip("selenium.webdriver.common.by", reason="no selenium").By
Keys = pytest.importorskip("selenium.webdriver.common.keys", reason="no selenium").Keys
ActionChains = pytest.importorskip("selenium.webdriver.common.action_chains", reason="no selenium").ActionChains
ScrollOrigin = pytest.importorskip("selenium.webdriver.common.actions.wheel_input", reason="no selenium").ScrollOrigin


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


class Page:
    """The page in the browser."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def all(self, css: str) -> list[Any]:
        return [element for element in self.driver.find_elements(By.CSS_SELECTOR, css) if element.is_displayed()]

    def one(self, css: str) -> Any:
        return until(lambda: self.all(css))[0]

    def click(self, css: str) -> None:
        """Click on something, again if it was replaced at that moment."""
        until(lambda: self.one(css).click() is None)

    def tab(self, name: str) -> None:
        self.click(f"#tab-{name}")

    def press(self, label: str) -> None:
        def pressed() -> bool:
            [button] = until(lambda: [button for button in self.all("button") if button.text == label])
            return button.click() is None

        until(pressed)

    def text(self) -> str:
        return str(self.one("#panel-write textarea").get_property("value"))

    def bars(self) -> dict[str, float]:
        """The words on the bars and the probabilities behind them."""
        found = self.driver.execute_script(
            "return [...document.querySelectorAll('#panel-write .bar')].map((bar) => ({...bar.dataset}))"
        )
        return {bar["word"]: float(bar["probability"]) for bar in found}

    def drop(self, css: str, name: str, text: str) -> None:
        """Drop a file on something."""
        self.driver.execute_script(
            "const dropped = new DataTransfer(); dropped.items.add(new File([arguments[2]], arguments[1]));"
            "const event = new DragEvent('drop', {dataTransfer: dropped, bubbles: true, cancelable: true});"
            "document.querySelector(arguments[0]).dispatchEvent(event)",
            css,
            name,
            text,
        )

    def says(self, pattern: str) -> re.Match[str]:
        return until(lambda: re.search(pattern, self.one("main").text))


@pytest.fixture
def page(chromium: Any, folder: Path) -> Iterator[Page]:
    with served(folder, "runs/whole") as address:
        chromium.get(address)
        yield Page(chromium, folder)
        wrong = [line for line in chromium.get_log("browser") if line["level"] == "SEVERE"]
        chromium.get("about:blank")
    assert wrong == []


def test_write_five_words_by_clicks_and_keys(page: Page) -> None:
    area = page.one("#panel-write textarea")
    area.send_keys("anna")
    until(lambda: "paints" in page.bars())
    page.click(".bar[data-word='paints']")
    until(lambda: page.text() == "anna paints")
    until(lambda: next(iter(page.bars()), None) == "a")
    area.send_keys(Keys.CONTROL, Keys.ENTER)
    until(lambda: page.text() == "anna paints a")
    until(lambda: next(iter(page.bars())) == "red")
    area.send_keys(Keys.CONTROL, Keys.ENTER)
    until(lambda: page.text() == "anna paints a red")
    until(lambda: "door" in page.bars())
    area.send_keys(Keys.SHIFT, Keys.ENTER)
    until(lambda: re.fullmatch(r"anna paints a red \w+", page.text()))
    page.press("Back")
    assert page.text() == "anna paints a red"
    page.press("Forth")
    until(lambda: re.fullmatch(r"anna paints a red \w+", page.text()))
    page.press("Write 30")
    until(lambda: len(page.text().replace(".", " .").split()) == 35)


def test_another_word_than_before_ends_the_way_forth(page: Page) -> None:
    page.one("#panel-write textarea").send_keys("anna")
    until(lambda: "paints" in page.bars())
    page.click(".bar[data-word='paints']")
    until(lambda: page.text() == "anna paints")
    page.press("Back")
    until(lambda: "paints" in page.bars())
    page.click(".bar[data-word='paints']")
    until(lambda: page.text() == "anna paints")
    [forth] = [button for button in page.all("button") if button.text == "Forth"]
    assert not forth.is_enabled()


def answer_late(page: Page) -> None:
    """Let every answer of the server take its time."""
    page.driver.execute_script(
        "const ask = window.fetch; window.fetch = async (...question) => {"
        "await new Promise((go) => setTimeout(go, 300)); return ask(...question); }"
    )


def test_a_key_that_is_pressed_again_at_once_takes_the_word_after(page: Page) -> None:
    area = page.one("#panel-write textarea")
    area.send_keys("anna")
    until(lambda: "paints" in page.bars())
    answer_late(page)
    area.send_keys(" paints")
    area.send_keys(Keys.CONTROL, Keys.ENTER, Keys.ENTER)
    until(lambda: page.text() == "anna paints a red")


def test_a_text_stays_when_another_run_is_shown(page: Page) -> None:
    page.one("#panel-write textarea").send_keys("anna")
    page.tab("surprise")
    page.one("#panel-surprise textarea").send_keys("anna paints a red hen.")
    chooser = page.one("select[aria-label=run]")
    for name in ("begun", "whole", "begun"):  # in a hurry: the last one counts
        page.driver.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", chooser, name
        )
    page.says(r"6 words, perplexity")  # of the other run
    page.tab("write")
    assert page.text() == "anna"
    assert page.one("select[aria-label=run]").get_property("value") == "begun"


def test_a_training_that_ends_disturbs_nobody_who_writes(page: Page) -> None:
    page.tab("training")
    page.one("input[type=number]").send_keys("0.02")
    page.press("Train")
    page.tab("write")
    page.one("#panel-write textarea").send_keys("anna")
    until(
        lambda: page.driver.execute_async_script(
            "const done = arguments[0]; fetch('api/overview').then((answer) => answer.json())"
            ".then(({ training }) => done(training && !training.running))"
        )
    )
    until(lambda: not page.driver.find_element(By.XPATH, "//button[text()='Train']").get_property("disabled"))
    assert page.one("select[aria-label=run]").get_property("value") == "whole"
    assert page.text() == "anna"
    page.tab("training")
    page.says("finished in .* perplexity")
    until(lambda: page.one("select[aria-label=run]").get_property("value") == "story")
    page.tab("write")
    assert page.text() == "anna"


def test_a_drawn_word_is_not_always_the_likeliest(page: Page) -> None:
    area = page.one("#panel-write textarea")
    area.send_keys("in the old town.")
    until(page.bars)
    drawn = set()
    for _ in range(12):  # of five names that are about equally likely
        area.send_keys(Keys.SHIFT, Keys.ENTER)
        until(lambda: page.text() != "in the old town.")
        drawn.add(page.text())
        page.press("Back")
        until(lambda: page.text() == "in the old town.")
    assert len(drawn) > 1


def test_the_sliders_and_switches_show_the_librarys_numbers(page: Page) -> None:
    model = LanguageModel.load(page.folder / "runs" / "whole")
    page.one("#panel-write textarea").send_keys("the old")

    def slide(name: str, value: float) -> None:
        page.driver.execute_script(
            "const slider = document.querySelector(`input[name=${arguments[0]}]`); slider.value = arguments[1];"
            "slider.dispatchEvent(new Event('input'))",
            name,
            value,
        )

    def shows(want: dict[str, float]) -> None:
        until(lambda: page.bars() == pytest.approx(want, rel=1e-4))

    slide("temperature", 1)
    shows(dict(model.next_word("the old", 20, mixture=["network", "counts"])))  # as generate writes
    page.click("input[value='cache']")
    shows(dict(model.next_word("the old", 20)))
    page.click("input[value='cache']")
    page.click("input[value='counts']")
    of_network = dict(model.next_word("the old", 20, mixture=False))
    shows(of_network)
    assert not page.one("input[value='network']").is_enabled()
    slide("top_k", 2)
    first, second = list(of_network.items())[:2]
    total = first[1] + second[1]
    shows({first[0]: first[1] / total, second[0]: second[1] / total})
    slide("temperature", 0)
    shows({first[0]: 1.0})


def test_a_pasted_text_is_colored_by_its_surprise(page: Page) -> None:
    text = "anna paints a red hens. zebra"
    page.tab("surprise")
    page.one("#panel-surprise textarea").send_keys(text)
    page.press("Measure")
    perplexity = float(page.says(r"perplexity ([\d.]+); 1 outside the vocabulary")[1])
    model = LanguageModel.load(page.folder / "runs" / "whole")
    assert perplexity == pytest.approx(model.perplexity(text), abs=0.06)
    words = {word.text: word.get_attribute("class") for word in page.all(".surprises span")}
    assert words["zebra"] == "unknown"
    assert int(words["hens"][1:]) > int(words["red"][1:])
    shown = page.one(".surprises")
    shown.send_keys(*[Keys.ARROW_RIGHT] * 5)
    expected, _ = model.next_word("anna paints a red", 1)[0]
    page.says(rf"hens: \d+\.\d bits; expected: {expected} \d+")


def test_the_map_is_searched_zoomed_and_moved(page: Page) -> None:
    page.tab("map")
    page.says(r"\d+ words; the axes show")
    page.one("#panel-map input").send_keys("anna", Keys.ENTER)
    page.says("neighbors of anna:")
    model = LanguageModel.load(page.folder / "runs" / "whole")
    assert [button.text for button in page.all(".neighbors button")] == [
        word for word, _ in model.neighbors("anna", 10)
    ]
    canvas = page.one("canvas")
    scale = float(canvas.get_attribute("data-scale"))
    canvas.send_keys("+")
    assert float(canvas.get_attribute("data-scale")) == pytest.approx(1.25 * scale)
    canvas.send_keys("0")
    assert float(canvas.get_attribute("data-scale")) == 1
    before = page.driver.execute_script("return arguments[0].toDataURL()", canvas)
    canvas.send_keys(Keys.ARROW_LEFT)
    assert page.driver.execute_script("return arguments[0].toDataURL()", canvas) != before


def test_a_dropped_file_is_measured_and_hovering_explains(page: Page) -> None:
    page.tab("surprise")
    page.drop("#panel-surprise textarea", "chapter.txt", learnable_text(5))
    page.says(r"perplexity [\d.]+$|perplexity [\d.]+\n")
    words = page.all(".surprises span")
    ActionChains(page.driver).move_to_element(words[4]).perform()
    page.says(rf"{words[4].text}: \d+\.\d bits; expected: ")
    model = LanguageModel.load(page.folder / "runs" / "whole")
    page.click("#panel-surprise input[value='cache']")
    page.click("#panel-surprise input[value='counts']")
    alone = model.perplexity(learnable_text(5), mixture=False)
    until(lambda: float(page.says(r"perplexity ([\d.]+)")[1]) == pytest.approx(alone, abs=0.06))


def test_hovering_explains_again_after_an_error(page: Page) -> None:
    page.tab("surprise")
    page.one("#panel-surprise textarea").send_keys("anna paints a red hen.")
    page.press("Measure")
    page.says("6 words")
    run, elsewhere = page.folder / "runs" / "whole", page.folder / "elsewhere"
    run.rename(elsewhere)
    page.one(".surprises").send_keys(Keys.ARROW_RIGHT)
    page.says("there is no run 'whole' here")
    elsewhere.rename(run)
    page.one(".surprises").send_keys(Keys.ARROW_RIGHT)
    page.says(r"bits; expected: ")
    for line in page.driver.get_log("browser"):
        assert "404" in line["message"]  # as it must be


def test_a_click_on_the_map_means_the_word_there_and_a_wheel_zooms(page: Page) -> None:
    page.tab("map")
    page.says(r"\d+ words; the axes show")
    page.one("#panel-map input").send_keys("anna", Keys.ENTER)  # now it lies in the middle
    page.says("neighbors of anna:")
    page.click(".neighbors button")
    page.says(r"neighbors of (?!anna)\w+:")
    page.one("#panel-map input").clear()
    page.one("#panel-map input").send_keys("anna", Keys.ENTER)
    page.says("neighbors of anna:")
    canvas = page.one("canvas")
    page.click(".neighbors button")
    other = page.says(r"neighbors of (?!anna)(\w+):")[1]
    lines = page.driver.execute_script("return arguments[0].toDataURL()", canvas)
    ActionChains(page.driver).move_to_element(canvas).click().perform()  # the other one, which is in the middle now
    page.says(f"neighbors of {other}:")
    scale = float(canvas.get_attribute("data-scale"))
    ActionChains(page.driver).scroll_from_origin(ScrollOrigin.from_element(canvas), 0, -200).perform()
    until(lambda: float(canvas.get_attribute("data-scale")) > scale)
    ActionChains(page.driver).drag_and_drop_by_offset(canvas, 60, 40).perform()
    assert page.driver.execute_script("return arguments[0].toDataURL()", canvas) != lines
    page.says(f"neighbors of {other}:")  # a drag is no click


def test_a_run_that_is_deleted_while_the_page_is_open(page: Page) -> None:
    until(page.bars)
    shutil.rmtree(page.folder / "runs" / "whole")
    page.one("#panel-write textarea").send_keys("anna")
    page.says("there is no run 'whole' here")
    page.driver.refresh()
    until(lambda: page.one("select[aria-label=run]").get_property("value") == "begun")
    for line in page.driver.get_log("browser"):
        assert "404" in line["message"]  # as it must be


def test_two_tabs(page: Page) -> None:
    words = np.random.default_rng(1).integers(0, 3_000, 500_000)
    story = page.folder / "texts" / "story.txt"
    story.write_text(" ".join(map(str, words)), encoding="utf-8")  # which is not soon learned
    page.tab("training")
    first = page.driver.current_window_handle
    address = page.driver.current_url
    page.driver.switch_to.new_window("tab")
    page.driver.get(address)
    page.tab("training")
    page.one("input[type=number]").send_keys("5")
    page.press("Train")
    page.says(r"step \d+, loss")
    page.driver.switch_to.window(first)
    page.press("Train")
    page.says("story is being trained; stop it first")
    page.driver.refresh()  # this tab follows it now too
    page.says(r"step \d+, loss")
    page.press("Stop and save")
    until(lambda: page.one("select[aria-label=run]").get_property("value") == "story")
    second = next(handle for handle in page.driver.window_handles if handle != first)
    page.driver.switch_to.window(second)
    until(lambda: page.one("select[aria-label=run]").get_property("value") == "story")
    page.driver.close()
    page.driver.switch_to.window(first)
    for line in page.driver.get_log("browser"):
        assert "409" in line["message"]  # as it must be


def test_a_folder_without_runs_or_texts(chromium: Any, tmp_path: Path) -> None:
    with served(tmp_path) as address:
        chromium.get(address)
        page = Page(chromium, tmp_path)
        until(lambda: "There is no run here yet: choose a text" in page.one("body").text)
        page.press("Train")
        page.says("choose a text file first")
        picture = tmp_path / "picture.txt"
        picture.write_bytes(bytes(range(256)) * 9)
        page.one("#panel-training input[type=file]").send_keys(str(picture))
        page.press("Train")
        page.says(r"picture\.txt: ")
        assert "Traceback" not in page.one("main").text
        story = tmp_path / "a story.txt"
        story.write_text(learnable_text(), encoding="utf-8")
        page.one("#panel-training input[type=file]").send_keys(str(story))
        page.one("input[type=number]").send_keys("0.01")
        page.press("Train")
        until(lambda: page.one("select[aria-label=run]").get_property("value") == "a story")
        chromium.get("about:blank")


def test_train_on_a_file_stop_it_and_resume_on_the_command_line(page: Page, tmp_path: Path) -> None:
    novel = tmp_path / "novel.txt"
    novel.write_bytes((page.folder / "texts" / "story.txt").read_bytes() * 20)
    page.tab("training")
    page.one("#panel-training input[type=file]").send_keys(str(novel))
    page.one("input[type=number]").send_keys("5")
    page.press("Train")
    page.says(r"step \d+, loss \d\.\d\d, [\d,]+ words/s, .* left")
    page.driver.refresh()  # the run goes on, and is found again
    page.says(r"step \d+, loss \d\.\d\d, [\d,]+ words/s, .* left")
    page.press("Stop and save")
    until(lambda: page.one("select[aria-label=run]").get_property("value") == "novel")
    run = page.folder / "runs" / "novel"
    steps = lines_in(run)
    page.tab("training")
    page.says("Resume novel")
    resume = [sys.executable, "-m", "fastmlp.train", "--resume", "--out", "runs/novel", "--minutes", "0.01", "--quiet"]
    environment = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(resume, cwd=page.folder, env=environment, check=True, timeout=120)
    assert lines_in(run) > steps


def test_train_to_the_end_and_write_with_it(page: Page) -> None:
    page.tab("training")
    page.one("input[type=number]").send_keys("0.02")
    page.press("Train")
    until(lambda: page.one("select[aria-label=run]").get_property("value") == "story")
    assert page.one("svg.curve").get_attribute("aria-label").startswith("loss after")
    page.tab("write")
    page.one("#panel-write textarea").send_keys("anna")
    until(page.bars)


def test_two_runs_side_by_side(page: Page) -> None:
    page.tab("runs")
    assert {row.text for row in page.all("tbody th")} == {"whole", "begun"}
    prompt = page.one("input[aria-label=prompt]")
    prompt.clear()
    prompt.send_keys("anna paints")
    page.press("Compare")
    until(lambda: all(len(text.text.split()) > 20 for text in page.all(".written")) and len(page.all(".written")) == 2)
    page.press("Show")
    until(lambda: page.one("select[aria-label=run]").get_property("value") == "begun")


@pytest.mark.parametrize("width", [360, 1600])
def test_every_control_has_a_name_and_nothing_is_cut_off(page: Page, width: int) -> None:
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        for name in ("write", "surprise", "map", "training", "runs"):
            page.tab(name)
            page.one(f"#panel-{name} button")
            assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
            for control in page.all("input, select, textarea, button, canvas, svg"):
                assert control.accessible_name, control.get_attribute("outerHTML")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_goes_from_tab_to_tab(page: Page) -> None:
    page.one("#tab-write").send_keys(Keys.ARROW_RIGHT)
    assert page.driver.switch_to.active_element.get_attribute("id") == "tab-surprise"
    assert page.one("#panel-surprise")
    assert not page.all("#panel-write")
