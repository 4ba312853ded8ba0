// Map: the frequent words in two dimensions; those that are used alike lie together.

import { labelled, make, statusLine } from "./dom.js";

const WORDS_ON_MAP = 1000;
const NEIGHBORS = 10;
const ZOOM = 1.25; // of a key or a button
const NEAR = 14; // pixels from a dot within which a click means it

// ask(name, question): the server
export function mapView(ask, run) {
  let words = [];
  let points = [];
  let view = { x: 0, y: 0, scale: 1 }; // the point in the middle, and how much is enlarged
  let asked = ""; // the word whose neighbors are wanted
  let chosen = -1; // its number, if it is on the map
  let near = []; // the neighbors of the chosen word that are on the map

  const canvas = make("canvas", {
    class: "map",
    tabindex: 0,
    role: "img",
    "aria-label": "the map of words; arrow keys move it, + and - zoom, 0 shows all",
  });
  const names = make("datalist", { id: "words-on-map" });
  const search = make("input", { type: "search", list: "words-on-map", onchange: () => find(search.value) });
  const list = make("ol", { class: "neighbors", "aria-label": "neighbors" });
  const status = statusLine();

  // ------------------------------------------------------------------ places on the screen

  const unit = () => (Math.min(canvas.clientWidth, canvas.clientHeight) / 2.2) * view.scale;
  const onScreen = ([x, y]) => [
    canvas.clientWidth / 2 + (x - view.x) * unit(),
    canvas.clientHeight / 2 - (y - view.y) * unit(),
  ];

  function move(right, up) {
    view.x += right / unit();
    view.y += up / unit();
    draw();
  }

  // Zoom so that what is under this pixel stays there.
  function zoom(factor, left = canvas.clientWidth / 2, top = canvas.clientHeight / 2) {
    const [dx, dy] = [left - canvas.clientWidth / 2, canvas.clientHeight / 2 - top];
    const before = unit();
    view.scale = Math.min(60, Math.max(0.5, view.scale * factor));
    view.x += dx / before - dx / unit();
    view.y += dy / before - dy / unit();
    draw();
  }

  function showAll() {
    view = { x: 0, y: 0, scale: 1 };
    draw();
  }

  // ------------------------------------------------------------------ drawing

  function draw() {
    const pixels = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * pixels;
    canvas.height = canvas.clientHeight * pixels;
    canvas.dataset.scale = view.scale;
    const pen = canvas.getContext("2d");
    pen.scale(pixels, pixels);
    const style = getComputedStyle(canvas);
    const [ink, dot, accent] = ["--ink", "--faint", "--accent"].map((name) => style.getPropertyValue(name));
    pen.font = `13px ${style.fontFamily}`;
    pen.textBaseline = "middle";
    pen.strokeStyle = accent;
    for (const other of near) line(pen, onScreen(points[chosen]), onScreen(points[other]));
    const taken = [];
    const first = chosen < 0 ? [] : [chosen, ...near]; // their labels have room
    for (const word of [...first, ...words.keys()]) {
      const [left, top] = onScreen(points[word]);
      if (left < 0 || top < 0 || left > canvas.clientWidth || top > canvas.clientHeight) continue;
      const marked = first.includes(word);
      pen.fillStyle = marked ? accent : dot;
      pen.beginPath();
      pen.arc(left, top, marked ? 3 : 1.5, 0, 7);
      pen.fill();
      const box = [left + 4, top - 8, left + 6 + pen.measureText(words[word]).width, top + 8];
      if (taken.some((other) => overlap(box, other))) continue;
      taken.push(box);
      pen.fillStyle = marked ? accent : ink;
      pen.fillText(words[word], left + 5, top);
    }
  }

  // ------------------------------------------------------------------ words

  async function choose(word) {
    asked = word;
    chosen = words.indexOf(word);
    near = [];
    try {
      const { neighbors } = await ask("neighbors", { run, word, count: NEIGHBORS });
      if (word !== asked) return; // for another one meanwhile
      const places = neighbors.map(([other]) => words.indexOf(other));
      near = chosen < 0 ? [] : places.filter((place) => place >= 0);
      const item = ([other, cosine]) =>
        make("li", {}, make("button", { type: "button", onclick: () => find(other) }, other), ` ${cosine.toFixed(2)}`);
      list.replaceChildren(...neighbors.map(item));
      status.show(chosen < 0 ? `${word} is not among the words on the map; its neighbors:` : `neighbors of ${word}:`);
    } catch (error) {
      near = [];
      list.replaceChildren();
      status.showError(error);
    }
    draw();
  }

  function find(word) {
    const place = words.indexOf(word);
    if (place >= 0) view = { x: points[place][0], y: points[place][1], scale: Math.max(view.scale, 3) };
    if (word) choose(word);
  }

  // ------------------------------------------------------------------ pointer and keys

  let last = null; // where the pointer was while it drags
  let dragged = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = [event.offsetX, event.offsetY];
    dragged = false;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const [right, down] = [event.offsetX - last[0], event.offsetY - last[1]];
    if (!dragged && Math.hypot(right, down) < 4) return;
    dragged = true;
    last = [event.offsetX, event.offsetY];
    move(-right, down);
  });
  canvas.addEventListener("pointercancel", () => {
    last = null;
  });
  canvas.addEventListener("pointerup", (event) => {
    last = null;
    if (dragged) return;
    const distance = (point) => {
      const [left, top] = onScreen(point);
      return Math.hypot(left - event.offsetX, top - event.offsetY);
    };
    const nearest = points.reduce((best, point, i) => (distance(point) < distance(points[best]) ? i : best), 0);
    if (points.length && distance(points[nearest]) < NEAR) choose(words[nearest]);
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    },
    { passive: false },
  );
  canvas.addEventListener("keydown", (event) => {
    const step = 40;
    const act = {
      ArrowLeft: () => move(-step, 0),
      ArrowRight: () => move(step, 0),
      ArrowUp: () => move(0, step),
      ArrowDown: () => move(0, -step),
      "+": () => zoom(ZOOM),
      "-": () => zoom(1 / ZOOM),
      0: showAll,
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  new ResizeObserver(() => words.length && draw()).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  status.show("computing the map ...");
  ask("map", { run, count: WORDS_ON_MAP }).then((found) => {
    ({ words, points } = found);
    names.append(...words.map((word) => make("option", { value: word })));
    const shown = found.variance.map((share) => `${(100 * share).toFixed(0)} %`).join(" and ");
    status.show(`${words.length} words; the axes show ${shown} of how they vary`);
    draw();
  }, status.showError);

  const button = (label, text, onclick) => make("button", { type: "button", "aria-label": label, onclick }, text);
  return make(
    "div",
    {},
    make(
      "div",
      { class: "buttons" },
      labelled("search", search),
      names,
      button("zoom in", "+", () => zoom(ZOOM)),
      button("zoom out", "−", () => zoom(1 / ZOOM)),
      button("show all", "All", showAll),
    ),
    canvas,
    status,
    list,
  );
}

function overlap(one, other) {
  return one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
}

function line(pen, from, to) {
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(...to);
  pen.stroke();
}
