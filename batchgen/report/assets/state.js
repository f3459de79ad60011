// What is looked at, and in which way: kept in the address, so that a link shows the same view.

const SORTS = {
  log: ["in the log's order", (a, b) => a.n - b.n],
  id: ["by id", (a, b) => natural.compare(a.id, b.id)],
  newest: ["newest first", (a, b) => b.finished - a.finished],
  oldest: ["oldest first", (a, b) => a.finished - b.finished],
  slowest: ["longest inference first", (a, b) => (b.inference ?? -1) - (a.inference ?? -1)],
  fastest: ["shortest inference first", (a, b) => (a.inference ?? Infinity) - (b.inference ?? Infinity)],
  longest: ["longest duration first", (a, b) => b.total - a.total],
  shortest: ["shortest duration first", (a, b) => a.total - b.total],
};

// Everything that jobs can be told apart by, each with its values and how many jobs have them.
const MANY = 400;
const dimensions = findDimensions();

function findDimensions() {
  const found = new Map();
  const note = (name, label, value) => {
    if (!found.has(name)) found.set(name, { name, label, values: new Map() });
    const values = found.get(name).values;
    values.set(value, (values.get(value) || 0) + 1);
  };
  for (const job of jobs) {
    note("model", "Model", job.model);
    note("run", "Run", job.run);
    note("row", "Manifest's row", valueOf(job, "row"));
    note("prompt", "Prompt", job.prompt);
    for (const key in job.axes) note(`axis.${key}`, key, plain(job.axes[key]));
    for (const key in job.meta) note(`meta.${key}`, key, plain(job.meta[key]));
  }
  return found;
}

function valueOf(job, name) {
  if (name === "row") return `${from("files", job.row.d)}:${job.row.l}`;
  if (name === "model" || name === "run" || name === "prompt") return job[name];
  const holder = name.startsWith("axis.") ? job.axes : job.meta;
  const key = name.slice(5);
  return Object.hasOwn(holder, key) ? plain(holder[key]) : undefined;
}

// An axis keeps the manifest's order; everything else is sorted as people count.
function valuesInOrder(name) {
  const values = [...dimensions.get(name).values.keys()];
  const order = name.startsWith("axis.") && Object.hasOwn(data.axes, name.slice(5)) ? data.axes[name.slice(5)] : [];
  const place = new Map(order.map((value, n) => [value, n]));
  const rank = (value) => place.get(value) ?? Infinity;
  return values.sort((a, b) => (rank(a) === rank(b) ? natural.compare(a, b) : rank(a) - rank(b)));
}

const view = {
  params: new URLSearchParams(),
  read() {
    const hash = location.hash.slice(1);
    this.params = new URLSearchParams(hash.includes("=") ? hash : "");
    return hash.includes("=");
  },
  get(name) { return this.params.get(name); },
  has(name) { return this.params.has(name); },
  set(changes) {
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === "") this.params.delete(name);
      else this.params.set(name, value);
    }
    const hash = this.params.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  },
};

function selected() {
  const tests = [];
  const wanted = (view.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
  if (wanted.length) tests.push((job) => wanted.every((word) => job.text.includes(word)));
  const outcome = view.get("outcome");
  if (outcome) tests.push((job) => job.outcome === outcome || job.state === outcome);
  if (view.has("group")) tests.push((job) => job.row.k === Number(view.get("group")));
  for (const [name, value] of view.params) {
    if (dimensions.has(name)) tests.push((job) => valueOf(job, name) === value);
  }
  const found = tests.length ? jobs.filter((job) => tests.every((test) => test(job))) : jobs.slice();
  const order = SORTS[view.get("sort")] || SORTS.log;
  return found.sort(order[1]);
}
