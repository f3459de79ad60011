// The tools above the gallery, and what is shown when they change.

let shown = null;
const FILTERS_SHOWN = 3;
const place = (id) => document.getElementById(id);

function choice(label, options, current, change) {
  const made = el("select", { "aria-label": label, onchange: () => change(made.value) }, ...options.map(([value, said]) => el("option", { value, selected: value === current }, said)));
  return el("label", {}, el("span", {}, label), made);
}

function filterOf(name) {
  const { label, values } = dimensions.get(name);
  const options = [["", "all"], ...valuesInOrder(name).map((value) => [value, `${value.length > 60 ? value.slice(0, 59) + "…" : value} (${number(values.get(value))})`])];
  return choice(label, options, view.get(name) || "", (value) => change({ [name]: value }));
}

function outcomes() {
  const counts = new Map();
  for (const job of jobs) for (const name of [job.outcome, job.state]) if (name) counts.set(name, (counts.get(name) || 0) + 1);
  return counts.size > 1 ? [["", `all (${number(jobs.length)})`], ...[...counts].map(([name, n]) => [name, `${name} (${number(n)})`])] : null;
}

function tools() {
  const search = el("input", { type: "search", placeholder: "Search prompts and ids", "aria-label": "Search prompts and ids", value: view.get("q") || "" });
  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change({ q: search.value.trim() }, false), 120);
  });
  const filters = [...dimensions.values()].filter(({ name, values }) => (values.size > 1 || view.has(name)) && values.size <= MANY && !["row", "prompt"].includes(name));
  filters.sort((a, b) => rank(a) - rank(b));
  const wanted = outcomes();
  const usual = filters.slice(0, FILTERS_SHOWN), others = filters.slice(FILTERS_SHOWN);
  const rest = others.length ? el("details", { class: "others", open: others.some(({ name }) => view.has(name)) }, el("summary", {}, "More filters"), el("div", { class: "row" }, ...others.map(({ name }) => filterOf(name)))) : null;
  const parts = [
    el("label", { class: "search" }, el("span", {}, "Search"), search),
    wanted && choice("Outcome", wanted, view.get("outcome") || "", (value) => change({ outcome: value })),
    ...usual.map(({ name }) => filterOf(name)),
    choice("Order", Object.entries(SORTS).map(([name, [said]]) => [name, said]), view.get("sort") || "log", (value) => change({ sort: value === "log" ? "" : value })),
    ...(hasGrid() ? gridTools() : []),
  ];
  place("tools").replaceChildren(el("div", { class: "row" }, ...parts.filter(Boolean)), ...(rest ? [rest] : []));
  place("tools").hidden = false;
}

const rank = ({ name }) => (name === "model" ? 0 : name.startsWith("axis.") ? 1 : name.startsWith("meta.") ? 2 : 3);

function gridTools() {
  const isGrid = asGrid();
  const button = (said, value) => el("button", { type: "button", "aria-pressed": String(isGrid === (value === "grid")), onclick: () => change({ view: value }) }, said);
  const kind = el("div", { class: "kind", role: "group", "aria-label": "View" }, button("Tiles", "tiles"), button("Grid", "grid"));
  if (!isGrid) return [kind];
  const { names, rows, columns } = gridSides();
  const options = names.map((name) => [name, labelOf(name)]);
  return [
    kind,
    choice("Rows", options, rows, (value) => change(value === columns ? { rows: columns, columns: rows } : { rows: value, columns })),
    choice("Columns", options, columns, (value) => change(value === rows ? { rows: columns, columns: rows } : { rows, columns: value })),
  ];
}

function change(changes, redraw = true) {
  view.set(changes);
  if (redraw) tools();
  show();
}

function show() {
  const found = selected();
  const isGrid = asGrid();
  shown = isGrid ? new Grid(found) : new Gallery(found, view.has("all"));
  place("view").replaceChildren(shown.box);
  shown.layout();
  tell(found, isGrid);
}

function tell(found, isGrid) {
  const group = view.has("group") ? `, of the cause “${data.groups[Number(view.get("group"))] ?? "?"}”` : "";
  const outside = isGrid && shown.counted < found.length ? `, ${number(found.length - shown.counted)} of them not in this grid` : "";
  const all = found.length === jobs.length ? `${number(jobs.length)} jobs` : `${number(found.length)} of ${number(jobs.length)} jobs${group}`;
  const filtered = [...view.params.keys()].some((name) => !["view", "sort", "all", "open", "rows", "columns"].includes(name));
  const clear = filtered ? el("button", { type: "button", class: "link", onclick: () => { view.params = new URLSearchParams(view.has("view") ? { view: view.get("view") } : {}); change({}); } }, "Show all") : "";
  place("count").replaceChildren(jobs.length ? all + outside : "Nothing is finished yet.", " ", clear);
  const button = (said, value) => el("button", { type: "button", class: "all", onclick: () => { change({ all: value }, false); if (!value) place("gallery").scrollIntoView(); } }, said);
  const hidden = !isGrid && found.length > shown.visible;
  place("more").replaceChildren(...(hidden ? [button(`Show all ${number(found.length)}`, "1")] : view.has("all") && !isGrid ? [button("Show fewer", "")] : []));
  place("more").className = view.has("all") ? "stuck" : "";
}

function restore() {
  const linked = view.read();
  tools();
  show();
  if (linked) place("gallery").scrollIntoView();
  const opened = view.get("open");
  const at = opened === null ? -1 : shown.jobs.findIndex((job) => job.id === opened);
  if (at >= 0) dialog.open(at);
  else if (dialog.box.open) dialog.box.close();
}

let drawing = false;
addEventListener("scroll", () => {
  if (drawing || !(shown instanceof Gallery)) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; shown.draw(); });
}, { passive: true });

let width = document.documentElement.clientWidth;
addEventListener("resize", () => {
  if (document.documentElement.clientWidth === width) {
    if (shown instanceof Gallery) shown.draw();
    return;
  }
  width = document.documentElement.clientWidth;
  shown.layout();
  tell(shown.jobs, shown instanceof Grid);
});
addEventListener("hashchange", () => { if (location.hash.includes("=")) restore(); });

for (const button of document.querySelectorAll("#failures .copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button.previousElementSibling.textContent, button));
}
restore();
document.documentElement.dataset.ready = "1";
