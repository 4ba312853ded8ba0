// The page of fastmlp.play.

import { make, select, statusLine } from "./dom.js";
import { mapView } from "./map.js";
import { runsView } from "./runs.js";
import { modelOf, server } from "./server.js";
import { surpriseView } from "./surprise.js";
import { tabs } from "./tabs.js";
import { trainingView } from "./training.js";
import { writeView } from "./write.js";

const AROUND_TRAINING = ["#training", "#runs"]; // views that show at once that a training has ended
const texts = {}; // that were written in the views
let leaving = new AbortController(); // of what is shown now

// Shows a run, by default the one that the command named, else the newest; texts stay from run to run.
// said: of a training that has just ended
async function open(wanted, said = null) {
  const status = statusLine();
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  try {
    const overview = await server.overview();
    const names = overview.runs.map(({ name }) => name);
    const run = [wanted, overview.first, ...names].find((name) => names.includes(name));
    const facts = run && (await server.ask("facts", { run }).catch(status.showError));
    const model = facts && modelOf(run, facts.predictors);
    if (signal.aborted) return; // another run was asked for meanwhile
    const runs = (name) => modelOf(name, []);
    for (const area of document.querySelectorAll("main textarea")) texts[area.closest("section").id] = area.value;
    let ended = null; // a training, and what is to be said of it, while somebody looks at something else
    const showEnded = () => {
      if (ended && AROUND_TRAINING.includes(location.hash)) open(...ended);
    };
    const trained = (...training) => {
      ended = training;
      showEnded();
    };
    const views = {
      ...(model && {
        write: () => writeView(model, texts["panel-write"]),
        surprise: () => surpriseView(model, texts["panel-surprise"]),
        map: () => mapView(server.ask, run),
      }),
      training: () => trainingView({ server, overview, run, said, trained, signal }),
      ...(names.length && { runs: () => runsView(overview, run, runs, open) }),
    };
    if (!names.length) status.show("There is no run here yet: choose a text and train on it.");
    const { list, panels } = tabs(views, model ? "write" : "training", "", showEnded);
    const chooser = select(names, run, () => open(chooser.value));
    chooser.setAttribute("aria-label", "run");
    const head = make("header", {}, make("h1", {}, "fastmlp"), names.length ? chooser : "", list);
    document.body.replaceChildren(head, status, panels);
  } catch (error) {
    if (signal.aborted) return;
    status.showError(error);
    document.querySelector("body > .status")?.remove();
    document.body.prepend(status); // what was shown stays, with the texts that were written
  }
}

open();
