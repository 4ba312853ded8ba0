// Tabs: one view is shown, and made when it is first looked at.

import { make } from "./dom.js";

// views: { name: () => element }; first: the one to show; part: where there are other pages of the same kind, the number
// of this one, else the address says which view is shown; onshow(): called then. Returns the tabs and their panels.
export function tabs(views, first, part = "", onshow = () => {}) {
  const names = Object.keys(views);
  const list = make("div", { role: "tablist", "aria-label": "views" });
  const panels = make("main", {});
  const made = {};

  function show(name) {
    for (const other of names) {
      const tab = list.children[names.indexOf(other)];
      tab.setAttribute("aria-selected", String(other === name));
      tab.tabIndex = other === name ? 0 : -1;
      if (made[other]) made[other].hidden = other !== name;
    }
    if (!made[name]) {
      made[name] = make("section", {
        role: "tabpanel",
        id: `panel-${name}${part}`,
        "aria-labelledby": `tab-${name}${part}`,
      });
      panels.append(made[name]);
      made[name].append(views[name]());
    }
    if (!part) history.replaceState(null, "", `#${name}`);
    onshow();
  }

  for (const name of names) {
    const tab = { role: "tab", id: `tab-${name}${part}`, "aria-controls": `panel-${name}${part}`, type: "button" };
    list.append(make("button", { ...tab, onclick: () => show(name) }, name));
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (names.indexOf(event.target.textContent) + step + names.length) % names.length;
    show(names[next]);
    list.children[next].focus();
  });
  const wanted = part ? first : location.hash.slice(1);
  show(names.includes(wanted) ? wanted : first);
  return { list, panels };
}
