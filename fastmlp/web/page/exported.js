// A page with its model inside, which needs no server: Write and Surprise.

import { make } from "./dom.js";
import { surpriseView } from "./surprise.js";
import { tabs } from "./tabs.js";
import { writeView } from "./write.js";

const content = (id) => document.getElementById(id).textContent;

// The model as the views ask it: a worker answers.
function modelInWorker() {
  const worker = new Worker(URL.createObjectURL(new Blob([content("worker")], { type: "text/javascript" })));
  const waiting = new Map();
  worker.onmessage = ({ data: { number, answer, error, done, all } }) => {
    const { resolve, reject, progress } = waiting.get(number);
    if (error) reject(new Error(error));
    else if (!answer) {
      progress?.(done, all);
      return;
    }
    waiting.delete(number);
    resolve(answer);
  };
  let asked = 0;
  const ask = (method, question, progress) =>
    new Promise((resolve, reject) => {
      waiting.set(++asked, { resolve, reject, progress });
      worker.postMessage({ number: asked, method, question });
    });

  const { buffer } = Uint8Array.from(atob(content("weights")), (character) => character.charCodeAt(0));
  const described = JSON.parse(content("model"));
  worker.postMessage({ described, buffer }, [buffer]);
  return {
    predictors: described.counts ? ["network", "counts"] : ["network"],
    next: (question) => ask("next", question),
    surprise: (question, progress) => ask("surprise", question, progress),
  };
}

const model = modelInWorker();
const { list, panels } = tabs({ write: () => writeView(model), surprise: () => surpriseView(model) }, "write");
document.body.replaceChildren(make("header", {}, make("h1", {}, document.title), list), panels);
