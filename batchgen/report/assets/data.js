// The jobs as Python wrote them (report/rows.py), with names that can be read; and small helpers for everybody.

const FIELDS = ["prompt", "negative_prompt", "width", "height", "num_steps", "guidance_scale", "seed", "image", "mask"];
const TIMINGS = ["queued", "waited", "first byte", "response", "decode", "save", "total"];
const STATES = {
  changed: "made for an earlier version of this job",
  missing: "its picture is not in the folder any more",
  superseded: "its picture lies in superseded/",
  orphan: "no longer in the manifest",
};

const data = JSON.parse(document.getElementById("data").textContent);
const from = (table, number, otherwise = null) => (number === undefined ? otherwise : data.tables[table][number]);

class Job {
  constructor(row, n) {
    this.row = row;
    this.n = n;
    this.id = row.i;
    this.outcome = data.outcomes[row.o || 0];
    this.state = from("states", row.s);
    this.model = from("models", row.m);
    this.run = from("runs", row.r);
    this.meta = from("metas", row.e, {});
    this.axes = from("axes", row.a, {});
    this.inference = row.f ?? null;
    this.total = row.x[6];
    this.finished = row.t ?? 0;
  }
  get prompt() { return this.row.p === undefined ? "" : String(this.row.p); }
  get text() { return (this.lower ??= `${this.id}\n${this.prompt}`.toLowerCase()); }
  get request() {
    const prompt = this.row.p === undefined ? {} : { prompt: this.row.p };
    return { ...prompt, ...from("requests", this.row.q, {}), ...this.row.w };
  }
  get pictures() { return (this.row.g || []).map((told) => new Picture(this, told)); }
  get first() { return this.row.g ? new Picture(this, this.row.g[0]) : null; }
  get attempts() {
    return this.row.z.map(([n, at, seconds, billed, http, cause, endpoint]) => {
      const [failure, message, code] = from("causes", cause ?? undefined, [null, null, null]);
      return { n, at, seconds, billed: data.billed[billed], http, failure, message, code, endpoint: from("endpoints", endpoint) };
    });
  }
  get why() {
    const cause = this.row.z.length ? from("causes", this.row.z[this.row.z.length - 1][5] ?? undefined) : null;
    return cause ? words(cause[0] || "") : "";
  }
}

class Picture {
  constructor(job, [file, thumb, width, height, bytes, inference, problem]) {
    const path = file.startsWith("/") ? file.slice(1) : `images/${job.id}${file}`;
    // A path from the log is a path in this folder, whatever it looks like.
    Object.assign(this, { path, width, height, bytes, inference, problem: from("problems", problem) });
    this.full = "./" + path.split("/").map(encodeURIComponent).join("/");
    this.thumb = thumb ? `./thumbs/${encodeURIComponent(thumb)}` : null;
  }
}

const jobs = data.jobs.map((row, n) => new Job(row, n));

function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const words = (name) => name.replaceAll("_", " ");
const plain = (value) => (typeof value === "string" ? value : exact(value));
const when = (ms) => (ms ? new Date(ms).toISOString().slice(0, 19).replace("T", " ") + " UTC" : "");
const number = (n) => n.toLocaleString("en-US");
const natural = new Intl.Collator("en", { numeric: true });

function seconds(s) {
  if (s === null || s === undefined) return "–";
  return s < 10 ? `${s.toFixed(s < 1 ? 3 : 2)} s` : s < 90 ? `${s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}

function size(bytes) {
  for (const unit of ["bytes", "KiB", "MiB"]) {
    if (bytes < 1024) return `${unit === "bytes" ? bytes : bytes.toFixed(1)} ${unit}`;
    bytes /= 1024;
  }
  return `${bytes.toFixed(1)} GiB`;
}

// JSON that is YAML too: what JSON may leave unescaped and YAML may not is escaped. Whole numbers that a script would
// round come as {"$int": digits}.
function exact(value) {
  if (Array.isArray(value)) return `[${value.map(exact).join(", ")}]`;
  if (value !== null && typeof value === "object") {
    if (typeof value.$int === "string" && Object.keys(value).length === 1) return value.$int;
    return `{${Object.entries(value).map(([key, inner]) => `${exact(key)}: ${exact(inner)}`).join(", ")}}`;
  }
  const escaped = (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0");
  return JSON.stringify(value).replace(/[\u007f-\u00a0\u00ad\u2028\u2029\ufeff\ufffe\uffff]/g, escaped);
}

// The job as it would stand in a YAML manifest, in the order in which the manifest's fields are documented.
function manifestEntry(job) {
  const asked = job.request;
  const lines = [`id: ${exact(job.id)}`];
  const rest = Object.create(null);
  for (const name of FIELDS) {
    if (!(name in asked)) continue;
    const value = name === "image" || name === "mask" ? asked[name].path : asked[name];
    lines.push(`${name}: ${exact(value)}`);
    if (name === "prompt") lines.push(`model: ${exact(job.model)}`);
  }
  if (!("prompt" in asked)) lines.push(`model: ${exact(job.model)}`);
  for (const [name, value] of Object.entries(asked)) if (!FIELDS.includes(name)) rest[name] = value;
  if (Object.keys(rest).length) lines.push(`params: ${exact(rest)}`);
  if (Object.keys(job.meta).length) lines.push(`meta: ${exact(job.meta)}`);
  return `- ${lines.join("\n  ")}\n`;
}
