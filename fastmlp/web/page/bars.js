// The next words as bars: how likely each is, and which predictor says so, by color.

import { make, percent } from "./dom.js";

// take(piece): called with how the text goes on, when a bar is clicked
export function bars(words, take) {
  const most = words.length ? words[0].probability : 1;
  return words.map((found) => make("li", {}, bar(found, most, take)));
}

function bar({ word, piece, probability, shares }, most, take) {
  const stack = make("span", { class: "stack", "aria-hidden": "true" });
  for (const [name, share] of Object.entries(shares)) {
    const part = make("span", { class: name });
    part.style.width = `${(100 * share * probability) / most}%`;
    stack.append(part);
  }
  const said = Object.entries(shares).map(([name, share]) => `${name} ${percent(share * probability)}`);
  return make(
    "button",
    {
      class: "bar",
      type: "button",
      title: said.join(", "),
      "aria-label": `${word}: ${percent(probability)}`,
      "data-word": word,
      "data-probability": probability,
      onclick: () => take(piece),
    },
    make("span", { class: "word" }, word),
    stack,
    make("span", { class: "number" }, percent(probability)),
  );
}

// A cache that hears its own words repeats them: texts are written without it at first, as fastmlp.generate does.
export function writersOf(names) {
  const writers = names.filter((name) => name !== "cache");
  return writers.length ? writers : names;
}

// Boxes that switch predictors on and off, some of which are on; onchange(names of those that are on)
export function predictorBoxes(names, chosen, onchange) {
  const on = new Set(chosen);
  const group = make("fieldset", { class: "predictors" }, make("legend", {}, "what predicts"));
  const boxes = names.map((name) => {
    const box = make("input", { type: "checkbox", checked: on.has(name), value: name });
    box.addEventListener("change", () => {
      if (box.checked) on.add(name);
      else on.delete(name);
      keepOneOn();
      onchange(names.filter((other) => on.has(other)));
    });
    group.append(make("label", { class: name }, box, make("span", { class: "swatch" }), name));
    return box;
  });
  // a cache alone knows no other words, and nothing at all predicts nothing: what carries the rest stays on
  function keepOneOn() {
    const carrying = writersOf(names).filter((name) => on.has(name));
    for (const box of boxes) box.disabled = carrying.length === 1 && box.value === carrying[0];
  }
  keepOneOn();
  return group;
}
