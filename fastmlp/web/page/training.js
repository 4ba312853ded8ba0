// Training: the curve while it runs, samples as they come; and the same of the runs that are there.

import { curve } from "./curve.js";
import { duration, labelled, make, select, statusLine, thousands } from "./dom.js";

const LARGEST = 100_000_000; // bytes of a text

// server: ask, upload, events; overview: what there is; run: the one whose curve is shown; said: { text, isWrong } of a
// training that has just ended; trained(run, said): called when one has; signal: aborted when this view is left for good
export function trainingView({ server, overview, run, said, trained, signal }) {
  let metrics = [];
  let busy = false; // with a training, or a text for it
  let following = false;

  const status = statusLine();
  const figures = make("p", { class: "figures" });
  const picture = make("figure", {});
  const samples = make("ol", { class: "samples", "aria-label": "samples" });
  const texts = select(overview.texts.map(({ name }) => name));
  const file = make("input", { type: "file", accept: ".txt,.epub,.fb2,.html,.htm,.gz,.bz2,.xz,.zst,text/plain" });
  const minutes = make("input", { type: "number", min: 0.1, step: "any", placeholder: "as it suits the text" });
  const trainButton = make("button", { type: "button", onclick: () => begin({ fresh: true }) }, "Train");
  const resumeButton = make("button", { type: "button", onclick: () => begin({ fresh: false }) }, "Resume");
  const stopButton = make("button", { type: "button", onclick: stop }, "Stop and save");

  function showButtons() {
    trainButton.disabled = busy || following;
    stopButton.disabled = !following;
    const shown = overview.runs.find(({ name }) => name === run);
    resumeButton.hidden = busy || following || !shown || shown.finished || !shown.steps;
    resumeButton.textContent = `Resume ${run}`;
  }

  function drawCurve() {
    picture.replaceChildren(curve(metrics));
  }

  async function begin({ fresh }) {
    busy = true;
    showButtons();
    try {
      let question = { resume: run };
      if (fresh) {
        const [chosen] = file.files;
        if (chosen?.size > LARGEST) throw new Error("a text of more than 100 MB is not taken");
        if (chosen) status.show(`taking ${chosen.name} ...`);
        const text = chosen ? (await server.upload(chosen)).name : texts.value;
        if (!text) throw new Error("choose a text file first");
        question = { text, minutes: minutes.value ? Number(minutes.value) : null };
      }
      status.show("starting ...");
      await server.ask("train", question);
      metrics = [];
      samples.replaceChildren();
      await follow();
    } catch (error) {
      if (!signal.aborted) status.showError(error);
    }
    busy = false;
    showButtons();
  }

  async function stop() {
    status.show("stopping after this step, and saving ...");
    await server.ask("stop", {}).catch(status.showError);
  }

  // Shows the events of the last training from its first on; after a page was closed, it finds it again.
  async function follow() {
    following = true;
    showButtons();
    let folder = null;
    try {
      for await (const event of server.events(signal)) {
        if (event.event === "Writing") folder = event.folder;
        show(event);
      }
    } finally {
      following = false;
      showButtons();
    }
    const name = folder?.split("/").at(-1);
    if (name) trained(name, { text: status.textContent, isWrong: status.classList.contains("wrong") });
  }

  function show(event) {
    const shown = {
      TextRead: () => status.show(`${thousands(event.words)} words of ${event.source}`),
      Resumed: () => status.show(`resumed after step ${thousands(event.step)}`),
      Compiling: () => status.show(`compiling the ${event.backend} kernels ...`),
      Started: () => status.show("training ..."),
      Sampled: () => samples.prepend(make("li", {}, `step ${thousands(event.step)}: ${event.text}`)),
      Evaluating: () => status.show(`trained; evaluating ${thousands(event.words)} words ...`),
      Stopped: () => status.show(`stopped and saved after step ${thousands(event.step)}`),
      Finished: () => status.show(finished(event)),
      Failed: () => status.showError({ message: event.text }),
      Measured: () => showMeasured(event),
    }[event.event];
    shown?.();
  }

  function showMeasured({ metrics: line, seconds_left: left }) {
    metrics.push(line);
    drawCurve();
    const speed = line.words_per_second ? `, ${thousands(line.words_per_second)} words/s` : "";
    const rest = left === null ? "" : `, ${duration(left)} left`;
    figures.textContent = `step ${thousands(line.step)}, loss ${line.loss.toFixed(2)}${speed}${rest}`;
  }

  async function showHistory() {
    const { metrics: lines, samples: text } = await server.ask("history", { run });
    if (following || !lines.length) return;
    metrics = lines;
    drawCurve();
    const line = lines.at(-1);
    figures.textContent = `${run}: step ${thousands(line.step)}, loss ${line.loss.toFixed(2)}, ${duration(line.seconds)}`;
    const each = text
      .trim()
      .split(/\n\n(?=step )/)
      .filter(Boolean)
      .reverse();
    samples.replaceChildren(...each.map((sample) => make("li", {}, sample.replace("\n", ": "))));
  }

  if (said?.isWrong) status.showError({ message: said.text });
  else if (said) status.show(said.text);
  showButtons();
  if (overview.training?.running) follow().catch((error) => signal.aborted || status.showError(error));
  else if (run) showHistory().catch(status.showError);

  return make(
    "div",
    {},
    make(
      "div",
      { class: "buttons" },
      labelled("a text file", file),
      overview.texts.length ? labelled("or one that is here", texts) : "",
      labelled("minutes", minutes),
      trainButton,
      resumeButton,
      stopButton,
    ),
    status,
    figures,
    picture,
    samples,
  );
}

function finished({ kept, seconds }) {
  const perplexity = kept.mixture?.["network+counts+cache"] ?? kept.kept_val_perplexity;
  const reached = perplexity ? `: perplexity ${perplexity.toFixed(1)}` : "";
  return `finished in ${duration(seconds)}${reached}`;
}
