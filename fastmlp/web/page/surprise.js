// Surprise: a text whose words are colored by how little the model expected them.

import { predictorBoxes } from "./bars.js";
import { duration, labelled, latest, make, percent, statusLine, thousands } from "./dom.js";

const STEPS = 9; // of color
const BITS_A_STEP = 2;
const EXPECTED = 5; // words that are shown in place of one

// model: predictors, surprise(question), and next(question) for what was expected; text: to begin with
export function surpriseView(model, text = "") {
  let predictors = model.predictors;
  let measured = ""; // the text whose words are shown
  let words = [];
  let selected = -1;

  const area = make("textarea", {
    rows: 6,
    "aria-label": "the text to measure",
    placeholder: "Paste a text, or drop a file.",
    spellcheck: "false",
  });
  area.value = text;
  const status = statusLine();
  const detail = make("p", { class: "detail", role: "status" });
  const page = make("div", {
    class: "surprises",
    tabindex: 0,
    role: "group",
    "aria-label": "the text, colored by surprise; arrow keys go from word to word",
  });

  const measure = latest(async () => {
    const text = area.value;
    if (!text.trim()) return;
    status.show("reading ...");
    page.setAttribute("aria-busy", "true");
    try {
      const began = performance.now();
      const found = await model.surprise({ text, predictors }, (done, all) => {
        const left = ((performance.now() - began) / 1000 / done) * (all - done);
        status.show(`${thousands(done)} of ${thousands(all)} words${done ? `, ${duration(left)} left` : ""}`);
      });
      measured = text;
      words = found.words;
      show(found);
      await new Promise(requestAnimationFrame); // the words are on the page
      page.dataset.seconds = (performance.now() - began) / 1000;
    } catch (error) {
      status.showError(error);
    }
    page.removeAttribute("aria-busy");
  });

  function show(found) {
    selected = -1;
    detail.textContent = "";
    page.replaceChildren(...words.flatMap(coloredWord));
    const perplexity = found.perplexity === null ? "none is known" : `perplexity ${found.perplexity.toFixed(1)}`;
    const outside = found.unknown ? `; ${thousands(found.unknown)} outside the vocabulary, left out of it` : "";
    status.show(`${thousands(words.length)} words, ${perplexity}${outside}`);
    status.dataset.perplexity = found.perplexity;
  }

  // What the model expected at a place is asked for when somebody looks there.
  const explain = latest(async () => {
    const place = selected;
    const [piece, bits, known] = words[place];
    const surprise = known ? `${bits.toFixed(1)} bits` : "not in the vocabulary";
    detail.textContent = `${piece.trim() || "¶"}: ${surprise}`;
    try {
      const { words: expected } = await model.next({ text: measured, place, predictors, count: EXPECTED });
      if (place !== selected) return;
      const instead = expected.map(({ word, probability }) => `${word} ${percent(probability)}`).join(", ");
      detail.textContent += `; expected: ${instead}`;
    } catch (error) {
      status.showError(error);
    }
  });

  function choose(place) {
    if (place < 0 || place >= words.length || place === selected) return;
    page.children[selected]?.classList.remove("selected");
    selected = place;
    page.children[selected].classList.add("selected");
    explain();
  }

  page.addEventListener("pointerover", (event) => {
    if (event.target.parentElement === page) choose([...page.children].indexOf(event.target));
  });
  page.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(selected < 0 ? 0 : selected + step);
    page.children[selected]?.scrollIntoView({ block: "nearest" });
  });
  area.addEventListener("paste", () => setTimeout(measure));
  area.addEventListener("dragover", (event) => event.preventDefault());
  area.addEventListener("drop", async (event) => {
    const [file] = event.dataTransfer.files;
    if (!file) return;
    event.preventDefault();
    area.value = await file.text();
    measure();
  });
  const file = make("input", {
    type: "file",
    accept: ".txt,text/plain",
    onchange: async () => {
      if (!file.files.length) return;
      area.value = await file.files[0].text();
      measure();
    },
  });

  measure();
  return make(
    "div",
    {},
    area,
    make(
      "div",
      { class: "buttons" },
      make("button", { type: "button", onclick: measure }, "Measure"),
      labelled("or a file", file),
    ),
    predictorBoxes(model.predictors, predictors, (names) => {
      predictors = names;
      measure();
    }),
    status,
    scale(),
    detail,
    page,
  );
}

// The white space before a word has no color; a word that is all white space, such as a paragraph's end, shows as ¶.
function coloredWord([piece, bits, known]) {
  const step = Math.min(STEPS - 1, Math.floor(bits / BITS_A_STEP));
  const word = piece.trimStart();
  const span = make("span", { class: known ? `s${step}` : "unknown" }, word || "¶");
  return word ? [piece.slice(0, piece.length - word.length), span] : [span, piece];
}

function scale() {
  const steps = Array.from({ length: STEPS }, (_, step) =>
    make("span", { class: `s${step}` }, `${step * BITS_A_STEP}${step === STEPS - 1 ? "+" : ""}`),
  );
  return make("p", { class: "scale" }, "bits: ", ...steps, make("span", { class: "unknown" }, "unknown word"));
}
