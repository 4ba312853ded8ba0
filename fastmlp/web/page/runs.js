// Runs: those of this folder, and two of them side by side on the same prompt.

import { bars, writersOf } from "./bars.js";
import { duration, labelled, make, select, statusLine, thousands } from "./dom.js";

const WORDS_TO_COMPARE = 30; // that each of two runs writes
const BARS_TO_COMPARE = 8;

// modelOf(run): a model that can be asked; use(run): show this one in the other views
export function runsView(overview, current, modelOf, use) {
  const { runs } = overview;
  const columns = ["text", "network", "steps", "time", "perplexity"];
  const head = ["run", ...columns, ""].map((name) => make("th", { scope: "col" }, name));
  const rows = runs.map((run) => {
    const chosen = run.name === current;
    const perplexity = (run.mixed_perplexity ?? run.network_perplexity)?.toFixed(1) ?? "";
    const state = run.finished ? thousands(run.steps) : `${thousands(run.steps)}, not finished`;
    const cells = [run.text, run.network, state, duration(run.seconds), perplexity].map((text, column) =>
      make("td", { "data-column": columns[column] }, text),
    );
    const button = make(
      "button",
      { type: "button", disabled: chosen, onclick: () => use(run.name) },
      chosen ? "shown" : "Show",
    );
    return make("tr", {}, make("th", { scope: "row" }, run.name), ...cells, make("td", {}, button));
  });
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  return make(
    "div",
    {},
    make("div", { class: "wide" }, table),
    runs.length > 1 ? comparison(runs, current, modelOf) : "",
  );
}

function comparison(runs, current, modelOf) {
  const names = runs.map(({ name }) => name);
  const other = names.find((name) => name !== current);
  const chosen = [select(names, current), select(names, other)];
  const prompt = make("input", { type: "text", value: "it was the", "aria-label": "prompt" });
  const sides = chosen.map(() => make("div", { class: "side" }));
  const status = statusLine();

  async function compare() {
    try {
      await Promise.all(sides.map((side, i) => fill(side, modelOf(chosen[i].value), chosen[i].value, prompt.value)));
      status.show("");
    } catch (error) {
      status.showError(error);
    }
  }

  return make(
    "section",
    { "aria-label": "compare two runs" },
    make(
      "div",
      { class: "buttons" },
      labelled("compare", chosen[0]),
      labelled("with", chosen[1]),
      labelled("after", prompt),
      make("button", { type: "button", onclick: compare }, "Compare"),
    ),
    status,
    make("div", { class: "columns" }, ...sides),
  );
}

async function fill(side, model, name, prompt) {
  const { predictors } = await model.facts();
  const question = { predictors: writersOf(predictors), count: BARS_TO_COMPARE, temperature: 0.7 };
  const text = make("p", { class: "written" }, prompt);
  const list = make("ol", { class: "bars", "aria-label": `the next words of ${name}` });
  side.replaceChildren(make("h3", {}, name), list, text);
  for (let word = 0; word < WORDS_TO_COMPARE; word++) {
    const found = await model.next({ ...question, text: text.textContent });
    if (!word) list.replaceChildren(...bars(found.words, () => {}));
    text.textContent += found.drawn;
  }
}
