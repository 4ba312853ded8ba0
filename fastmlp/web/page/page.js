// The page of fastmlp.play.

import { make, select, statusLine } from "./dom.js";
import { mapView } from "./map.js";
import { runsView } from "./runs.js";
import { modelOf, server } from "./server.js";
import { surpriseView } from "./surprise.js";
import { tabs } from "./tabs.js";
import { trainingView } from "./training.js";
import { writeView } from "./write.js";

// Shows a run, by default the one that the command named, else the newest.
async function open(wanted) {
  const status = statusLine();
  try {
    const overview = await server.overview();
    const names = overview.runs.map(({ name }) => name);
    const run = [wanted, overview.first, ...names].find((name) => names.includes(name));
    const facts = run && (await server.ask("facts", { run }).catch(status.showError));
    const model = facts && modelOf(run, facts.predictors);
    const runs = (name) => modelOf(name, []);
    const views = {
      ...(model && {
        write: () => writeView(model),
        surprise: () => surpriseView(model),
        map: () => mapView(server.ask, run),
      }),
      training: () => trainingView(server, overview, run, open),
      ...(names.length && { runs: () => runsView(overview, run, runs, open) }),
    };
    if (!names.length) status.show("There is no run here yet: choose a text and train on it.");
    const { list, panels } = tabs(views, model ? "write" : "training");
    const chooser = select(names, run, () => open(chooser.value));
    chooser.setAttribute("aria-label", "run");
    const head = make("header", {}, make("h1", {}, "fastmlp"), names.length ? chooser : "", list);
    document.body.replaceChildren(head, status, panels);
  } catch (error) {
    status.showError(error);
    document.body.replaceChildren(status);
  }
}

open();
