// The loss over the steps, of the training and the validation part.

import { makeSvg, thousands } from "./dom.js";

const WIDTH = 720;
const HEIGHT = 280;
const LEFT = 44;
const BOTTOM = 28;
const MARKS = 5; // on each axis

// metrics: the lines of metrics.jsonl
export function curve(metrics) {
  const lines = ["loss", "val_loss"].map((name) =>
    metrics.filter((line) => Number.isFinite(line[name])).map((line) => [line.step, line[name]]),
  );
  const all = lines.flat();
  const drawing = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", role: "img" });
  if (!all.length) return drawing;
  const last = Math.max(1, ...all.map(([step]) => step));
  const [low, high] = [Math.min(...all.map(([, loss]) => loss)), Math.max(...all.map(([, loss]) => loss))];
  const x = (step) => LEFT + (step / last) * (WIDTH - LEFT - 10);
  const y = (loss) => 8 + ((high - loss) / (high - low || 1)) * (HEIGHT - BOTTOM - 8);
  for (let mark = 0; mark <= MARKS; mark++) {
    const loss = low + ((high - low) * mark) / MARKS;
    const step = (last * mark) / MARKS;
    drawing.append(
      makeSvg("line", { x1: LEFT, x2: WIDTH, y1: y(loss), y2: y(loss), class: "grid" }),
      makeSvg("text", { x: LEFT - 6, y: y(loss) + 4, "text-anchor": "end" }, loss.toFixed(1)),
      makeSvg("text", { x: x(step), y: HEIGHT - 6, "text-anchor": mark ? "end" : "start" }, thousands(step)),
    );
  }
  lines.forEach((line, kind) => {
    const points = line.map(([step, loss]) => `${x(step)},${y(loss)}`).join(" ");
    const name = kind ? "validation" : "training";
    drawing.append(makeSvg("polyline", { points, class: name }));
    if (line.length) {
      drawing.append(makeSvg("text", { x: WIDTH - 4, y: 24 + 22 * kind, "text-anchor": "end", class: name }, name));
    }
  });
  const final = lines.map((line) => (line.length ? line.at(-1)[1].toFixed(2) : "none"));
  drawing.setAttribute("aria-label", `loss after ${last} steps: training ${final[0]}, validation ${final[1]}`);
  return drawing;
}
