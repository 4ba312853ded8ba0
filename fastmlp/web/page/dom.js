// Small helpers for elements and for work that is asked for faster than it is done.

// make("button", { class: "bar", onclick: take }, "word"): an element with attributes, listeners and children.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

// The same for drawings.
export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
}

// A labelled control: the label's text stands before it.
export function labelled(text, control) {
  return make("label", {}, make("span", {}, text), control);
}

export function select(names, chosen, onchange) {
  const options = names.map((name) => make("option", { value: name, selected: name === chosen }, name));
  return make("select", { onchange }, ...options);
}

// A line that screen readers read out when it changes; it shows what went wrong, or how things stand.
export function statusLine() {
  const line = make("p", { class: "status", role: "status" });
  line.show = (text) => {
    line.classList.remove("wrong");
    line.textContent = text;
  };
  line.showError = (error) => {
    line.classList.add("wrong");
    line.textContent = error.message;
  };
  return line;
}

// Runs `work` once now, and once more if it was asked for meanwhile: of many changes only the last one counts.
// What it returns ends with the last of them.
export function latest(work) {
  let running = null;
  let again = false;
  async function run() {
    try {
      while (again) {
        again = false;
        await work();
      }
    } finally {
      running = null;
    }
  }
  return () => {
    again = true;
    running ??= run();
    return running;
  };
}

export function percent(share) {
  const value = 100 * share;
  return `${value >= 10 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(1) : value.toPrecision(1)} %`;
}

export function thousands(number) {
  return Math.round(number).toLocaleString("en");
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
