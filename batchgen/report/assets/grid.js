// The grid: two of what varies as rows and columns, everything else as filters.

const ROWS_AT_ONCE = 30;
const IN_A_CELL = 4;

// What may be a row or a column: axes first, then model, the manifest's row and prompt where several jobs share one,
// then meta.
function gridNames() {
  const several = (name) => dimensions.get(name).values.size > 1;
  const shared = (name) => several(name) && dimensions.get(name).values.size < jobs.length;
  const known = [...dimensions.keys()];
  const axes = known.filter((name) => name.startsWith("axis.") && several(name));
  const meta = known.filter((name) => name.startsWith("meta.") && several(name) && dimensions.get(name).values.size <= MANY);
  return [...axes, ...(several("model") ? ["model"] : []), ...["row", "prompt"].filter(shared), ...meta];
}

function gridSides() {
  const names = gridNames();
  const usual = names.filter((name) => name !== "axis.repeat");
  const given = (side) => (names.includes(view.get(side)) ? view.get(side) : null);
  const [first, second] = isMatrix(2) || usual.length < 2 ? usual : [usual.find((name) => ["row", "prompt"].includes(name)) ?? usual[1], usual[0]];
  const rows = given("rows") ?? (first === given("columns") ? second : first);
  const columns = given("columns") ?? (second === rows ? names.find((name) => name !== rows) : second);
  return { names, rows, columns };
}

// Whether most jobs come of a matrix of so many axes.
function isMatrix(least) {
  const many = jobs.filter((job) => Object.keys(job.axes).filter((name) => name !== "repeat").length >= least);
  return jobs.length > 0 && many.length * 2 >= jobs.length;
}

const hasGrid = () => gridNames().length > 1 && (isMatrix(1) || dimensions.get("model").values.size > 1 || view.get("view") === "grid");
const asGrid = () => hasGrid() && (view.has("view") ? view.get("view") === "grid" : isMatrix(2));

const labelOf = (name) => (dimensions.has(name) ? dimensions.get(name).label : name);

class Grid {
  constructor(jobsShown) {
    this.jobs = jobsShown;
    const { rows, columns } = gridSides();
    Object.assign(this, { rowName: rows, columnName: columns });
    this.cells = new Map();
    const columnValues = new Set();
    jobsShown.forEach((job, place) => {
      const [row, column] = [valueOf(job, rows), valueOf(job, columns)];
      if (row === undefined || column === undefined) return;
      columnValues.add(column);
      if (!this.cells.has(row)) this.cells.set(row, new Map());
      const line = this.cells.get(row);
      if (!line.has(column)) line.set(column, []);
      line.get(column).push(place);
    });
    if (!view.has("sort")) this.sortCells();
    this.columns = valuesInOrder(columns).filter((v) => columnValues.has(v));
    this.rows = valuesInOrder(rows).filter((v) => this.cells.has(v));
    this.counted = [...this.cells.values()].reduce((sum, line) => sum + [...line.values()].reduce((n, c) => n + c.length, 0), 0);
    this.body = el("tbody");
    const head = el("tr", {}, el("td", { class: "corner" }, `${labelOf(rows)} ↓  ${labelOf(columns)} →`), ...this.columns.map((v) => el("th", { scope: "col" }, v)));
    this.box = el("div", { class: "grid scroll" }, el("table", {}, el("thead", {}, head), this.body), (this.end = el("div", { class: "end" })));
    this.drawn = 0;
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.draw(), { rootMargin: "800px" }).observe(this.end);
  }
  // A row of the manifest is known by its prompt; where it has several, by the first.
  label(value, line) { return this.rowName === "row" ? this.jobs[line.values().next().value[0]].prompt : value; }
  // What shares a cell stands in the order of the other axes.
  sortCells() {
    const others = [...dimensions.keys()].filter((name) => name.startsWith("axis.") && name !== this.rowName && name !== this.columnName);
    const ranks = others.map((name) => [name, new Map(valuesInOrder(name).map((value, n) => [value, n]))]);
    const rank = (place) => ranks.map(([name, order]) => order.get(valueOf(this.jobs[place], name)) ?? -1);
    const compare = (a, b) => { for (const [n, one] of rank(a).entries()) { const d = one - rank(b)[n]; if (d) return d; } return a - b; };
    for (const line of this.cells.values()) for (const places of line.values()) if (places.length > 1) places.sort(compare);
  }
  layout() { if (!this.drawn) this.draw(); }
  draw() {
    for (const value of this.rows.slice(this.drawn, this.drawn + ROWS_AT_ONCE)) {
      const line = this.cells.get(value);
      this.body.append(el("tr", {}, el("th", { scope: "row" }, el("span", {}, this.label(value, line))), ...this.columns.map((column) => this.cell(line.get(column) || []))));
    }
    this.drawn = Math.min(this.rows.length, this.drawn + ROWS_AT_ONCE);
  }
  cell(places) {
    const small = places.slice(0, IN_A_CELL).map((place) => {
      const job = this.jobs[place];
      const mark = job.state || (job.outcome === "done" ? "" : job.outcome);
      return el(
        "button",
        { type: "button", class: "mini", "data-place": place, "aria-label": `${job.id}${mark && `, ${mark}`}`, title: job.id, onclick: () => dialog.open(place) },
        thumbnail(job.first, job),
      );
    });
    const more = places.length > IN_A_CELL ? el("span", { class: "more" }, `and ${places.length - IN_A_CELL} more`) : null;
    return el("td", { class: places.length > 1 ? "several" : "" }, ...small, more);
  }
  focus(n) { this.box.querySelector(`[data-place="${n}"]`)?.focus(); }
}
