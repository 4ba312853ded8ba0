// Write and Surprise in a notebook: an anywidget whose Python half answers.

import { surpriseView } from "./surprise.js";
import { tabs } from "./tabs.js";
import { writeView } from "./write.js";

let widgets = 0; // widgets so far: each has its own names for its parts

// The model as the views ask it: messages go to Python and back.
function modelInPython(channel) {
  const waiting = new Map();
  let asked = 0;
  channel.on("msg:custom", ({ number, answer, error }) => {
    const { resolve, reject } = waiting.get(number) ?? {};
    waiting.delete(number);
    if (error) reject?.(new Error(error));
    else resolve?.(answer);
  });
  const ask = (method, question) =>
    new Promise((resolve, reject) => {
      const number = `${asked++} ${crypto.randomUUID?.() ?? Math.random()}`; // other views of this widget hear it too
      waiting.set(number, { resolve, reject });
      channel.send({ number, method, question });
    });
  return {
    predictors: channel.get("predictors"),
    next: (question) => ask("next", question),
    surprise: (question) => ask("surprise", question),
  };
}

// The notebook has its own style: that of the page stays inside of a shadow.
function render({ model: channel, el }) {
  const style = document.createElement("style");
  style.textContent = channel.get("style");
  const body = document.createElement("div");
  body.className = "body";
  const shadow = el.shadowRoot ?? el.attachShadow({ mode: "open" });
  shadow.replaceChildren(style, body);
  const model = modelInPython(channel);
  const views = { write: () => writeView(model), surprise: () => surpriseView(model) };
  const { list, panels } = tabs(views, "write", `-${++widgets}`);
  const header = document.createElement("header");
  header.append(list);
  body.append(header, panels);
  // keys that are typed here are none of the notebook's
  for (const kind of ["keydown", "keyup", "keypress"]) body.addEventListener(kind, (event) => event.stopPropagation());
}

export default { render };
