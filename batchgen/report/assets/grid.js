// The grid: two of what varies as rows and columns, everything else as filters.

const ROWS_AT_ONCE = 30;
const IN_A_CELL = 4;

// What may be a row or a column: axes first, then model, prompt and meta that vary.
function gridNames() {
  const varies = (name) => dimensions.get(name).values.size > 1;
  const few = (name) => dimensions.get(name).values.size <= MANY;
  const axes = [...dimensions.keys()].filter((name) => name.startsWith("axis.") && varies(name));
  const meta = [...dimensions.keys()].filter((name) => name.startsWith("meta.") && varies(name) && few(name));
  return [...axes, ...(varies("model") ? ["model"] : []), "prompt", ...meta];
}

const hasGrid = () => [...dimensions.keys()].some((name) => name.startsWith("axis.")) || dimensions.get("model")?.values.size > 1;

function gridSides() {
  const names = gridNames();
  const given = (side) => (names.includes(view.get(side)) ? view.get(side) : null);
  const columns = given("columns") || names.find((name) => name !== given("rows") && name !== "axis.repeat" && dimensions.has(name)) || names[0];
  const rest = names.filter((name) => name !== columns);
  const axes = rest.filter((name) => name.startsWith("axis.") && name !== "axis.repeat");
  const rows = given("rows") && given("rows") !== columns ? given("rows") : axes[0] || (rest.includes("prompt") ? "prompt" : rest[0]);
  return { names, rows, columns };
}

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
    this.columns = (columns === "prompt" ? [...columnValues] : valuesInOrder(columns)).filter((v) => columnValues.has(v));
    this.rows = rows === "prompt" ? [...this.cells.keys()] : valuesInOrder(rows).filter((v) => this.cells.has(v));
    this.counted = [...this.cells.values()].reduce((sum, line) => sum + [...line.values()].reduce((n, c) => n + c.length, 0), 0);
    this.body = el("tbody");
    const head = el("tr", {}, el("td", { class: "corner" }, `${labelOf(rows)} ↓  ${labelOf(columns)} →`), ...this.columns.map((v) => el("th", { scope: "col" }, v)));
    this.box = el("div", { class: "grid scroll" }, el("table", {}, el("thead", {}, head), this.body), (this.end = el("div", { class: "end" })));
    this.drawn = 0;
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.draw(), { rootMargin: "800px" }).observe(this.end);
  }
  layout() { if (!this.drawn) this.draw(); }
  draw() {
    for (const value of this.rows.slice(this.drawn, this.drawn + ROWS_AT_ONCE)) {
      const line = this.cells.get(value);
      this.body.append(el("tr", {}, el("th", { scope: "row" }, el("span", {}, value)), ...this.columns.map((column) => this.cell(line.get(column) || []))));
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
