// Write: a text grows word by word, beside the words that may come next.

import { bars, predictorBoxes, writersOf } from "./bars.js";
import { labelled, latest, make, statusLine } from "./dom.js";

const WORDS_AT_ONCE = 30;
const BARS = 20;

// model: predictors, and next(question) as the server answers it
export function writeView(model, text = "") {
  const question = { count: BARS, temperature: 0.7, predictors: writersOf(model.predictors) };
  const back = [];
  const forth = [];
  let found = { words: [], drawn: "" };
  let writing = false;

  const area = make("textarea", {
    rows: 8,
    "aria-label": "the text",
    placeholder: "Begin a text, or take a word.",
    spellcheck: "false",
  });
  area.value = text;
  const list = make("ol", { class: "bars", "aria-label": "the next words" });
  const status = statusLine();

  let asked = Promise.resolve(); // until it ends, `found` is of an earlier text
  let taken = Promise.resolve(); // until it ends, words that were asked for are still to come

  const showNext = latest(async () => {
    try {
      found = await model.next({ ...question, text: area.value });
    } catch (error) {
      status.showError(error);
      return;
    }
    list.replaceChildren(...bars(found.words, append));
    status.show(found.unknown.length ? `not in the vocabulary: ${found.unknown.join(", ")}` : "");
  });

  function refresh() {
    asked = showNext();
    return asked;
  }

  function change(value) {
    back.push(area.value);
    forth.length = 0;
    area.value = value;
    area.scrollTop = area.scrollHeight;
    showButtons();
    return refresh();
  }

  function append(piece) {
    return change(area.value.replace(/[^\S\n]+$/, "") + (area.value.trim() ? piece : piece.trimStart()));
  }

  function go(from, to) {
    if (!from.length) return;
    to.push(area.value);
    area.value = from.pop();
    showButtons();
    refresh();
  }

  // A key that is pressed again before the words after the last one are there means these.
  function take(chosen) {
    taken = taken.then(async () => {
      await asked;
      const piece = chosen();
      if (piece) await append(piece);
    });
    return taken;
  }
  const takeLikeliest = () => take(() => found.words[0]?.piece);
  const takeDrawn = () => take(() => found.drawn);

  async function writeOn() {
    writing = !writing;
    showButtons();
    for (let word = 0; word < WORDS_AT_ONCE && writing && area.isConnected; word++) {
      const before = area.value;
      await takeDrawn();
      if (area.value === before) break; // nothing came: the status says why
    }
    writing = false;
    showButtons();
  }

  area.addEventListener("input", refresh);
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey || event.shiftKey)) return;
    event.preventDefault();
    if (event.shiftKey) takeDrawn();
    else takeLikeliest();
  });

  const button = (label, onclick, keys) =>
    make("button", { type: "button", onclick, "aria-keyshortcuts": keys, title: keys }, label);
  const backButton = button("Back", () => go(back, forth));
  const forthButton = button("Forth", () => go(forth, back));
  const writeButton = button(`Write ${WORDS_AT_ONCE}`, writeOn);
  function showButtons() {
    backButton.disabled = !back.length;
    forthButton.disabled = !forth.length;
    writeButton.textContent = writing ? "Stop" : `Write ${WORDS_AT_ONCE}`;
  }
  showButtons();
  refresh();

  const buttons = [
    button("Likeliest", takeLikeliest, "Control+Enter"),
    button("Drawn", takeDrawn, "Shift+Enter"),
    ...[writeButton, backButton, forthButton],
  ];
  const boxes = predictorBoxes(model.predictors, question.predictors, (names) => {
    question.predictors = names;
    refresh();
  });
  return make(
    "div",
    { class: "writing" },
    make("div", { class: "text" }, area, make("div", { class: "buttons" }, ...buttons), status),
    list,
    make("div", { class: "limits" }, ...limits(question, refresh), boxes),
  );
}

// Sliders for what draws the next word; they write into the question.
function limits(question, refresh) {
  const off = { temperature: 0.7, top_p: 1, top_k: 0 };
  const ranges = [
    ["temperature", 0, 2, 0.05, (value) => value],
    ["top_p", 0.05, 1, 0.05, (value) => (value === 1 ? null : value)],
    ["top_k", 0, 100, 1, (value) => value || null],
  ];
  return ranges.map(([name, min, max, step, read]) => {
    const output = make("output", {}, shown(off[name], name));
    const slider = make("input", { type: "range", min, max, step, value: off[name], name });
    slider.addEventListener("input", () => {
      const value = Number(slider.value);
      question[name] = read(value);
      output.textContent = shown(value, name);
      slider.setAttribute("aria-valuetext", output.textContent);
      refresh();
    });
    const row = labelled(name.replace("_", "-"), slider);
    row.classList.add("slider");
    row.append(output);
    return row;
  });
}

function shown(value, name) {
  if (name === "top_k") return value ? String(value) : "all";
  return value.toFixed(2);
}
