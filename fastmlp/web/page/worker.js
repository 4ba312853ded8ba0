// Computes beside the exported page, so that it stays quick: one question after the other.

import { Inside } from "./inside.js";

let inside;

self.onmessage = ({ data: { number, described, buffer, method, question } }) => {
  if (described) {
    inside = new Inside(described, buffer);
    return;
  }
  const progress = (done, all) => postMessage({ number, done, all });
  try {
    postMessage({ number, answer: inside[method](question, progress) });
  } catch (error) {
    postMessage({ number, error: error.message });
  }
};
