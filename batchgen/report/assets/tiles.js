// The gallery: only what is near the window is in the page, so that ten thousand pictures scroll like ten.

const GAP = 14;
const CAPTION = 58;

function thumbnail(picture, job, lazy = true) {
  if (picture && picture.thumb) {
    const image = el("img", { src: picture.thumb, alt: "", decoding: "async", loading: lazy ? "lazy" : null, draggable: "false" });
    image.addEventListener("error", () => image.replaceWith(instead("no thumbnail")), { once: true });
    return image;
  }
  return instead(picture ? picture.problem || "no thumbnail" : job.why || job.outcome);
}

const instead = (why) => el("span", { class: "instead" }, why);

function tile(job, place) {
  const mark = job.state || (job.outcome === "done" ? null : job.outcome);
  const more = job.row.g && job.row.g.length > 1 ? el("span", { class: "times" }, `×${job.row.g.length}`) : null;
  return el(
    "button",
    { type: "button", class: "tile", "data-place": place, "aria-label": `${job.id}: ${job.prompt}`, onclick: () => dialog.open(place) },
    el("span", { class: "frame" }, thumbnail(job.first, job), more, mark ? el("span", { class: `badge o-${mark}` }, mark) : null),
    el("span", { class: "prompt" }, job.prompt || job.id),
    el("span", { class: "id" }, job.id),
  );
}

class Gallery {
  constructor(jobsShown, all) {
    this.jobs = jobsShown;
    this.all = all;
    this.shown = new Map();
    this.box = el("div", { class: "tiles", role: "group", "aria-label": "Pictures" });
    this.box.addEventListener("keydown", (event) => this.key(event));
  }
  layout() {
    const width = this.box.clientWidth;
    this.columns = Math.max(2, Math.floor((width + GAP) / ((width < 480 ? 140 : 184) + GAP)));
    this.side = Math.floor((width - GAP * (this.columns - 1)) / this.columns);
    this.step = this.side + CAPTION + GAP;
    const rows = Math.ceil(this.jobs.length / this.columns);
    this.rows = this.all ? rows : Math.min(rows, this.columns > 3 ? 3 : 4);
    this.box.style.height = `${Math.max(0, this.rows * this.step - GAP)}px`;
    this.box.replaceChildren();
    this.shown.clear();
    this.draw();
  }
  draw() {
    const top = -this.box.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((top - innerHeight) / this.step));
    const last = Math.min(this.rows, Math.ceil((top + 2 * innerHeight) / this.step));
    const wanted = new Set();
    for (let n = first * this.columns; n < Math.min(last * this.columns, this.jobs.length); n++) wanted.add(n);
    for (const [n, made] of this.shown) {
      if (!wanted.has(n) && made !== document.activeElement) {
        made.remove();
        this.shown.delete(n);
      }
    }
    const fresh = document.createDocumentFragment();
    for (const n of wanted) if (!this.shown.has(n)) fresh.append(this.place(n));
    this.box.append(fresh);
  }
  place(n) {
    const made = tile(this.jobs[n], n);
    made.style.width = `${this.side}px`;
    made.style.setProperty("--side", `${this.side}px`);
    made.style.transform = `translate(${(n % this.columns) * (this.side + GAP)}px, ${Math.floor(n / this.columns) * this.step}px)`;
    this.shown.set(n, made);
    return made;
  }
  get visible() { return Math.min(this.jobs.length, this.rows * this.columns); }
  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns }[event.key];
    const at = Number(event.target.closest(".tile")?.dataset.place ?? NaN);
    if (by === undefined || Number.isNaN(at)) return;
    event.preventDefault();
    this.focus(Math.min(this.visible - 1, Math.max(0, at + by)));
  }
  focus(n) {
    if (n >= this.visible) return;
    if (!this.shown.has(n)) this.box.append(this.place(n));
    const made = this.shown.get(n);
    made.scrollIntoView({ block: "nearest" });
    made.focus({ preventScroll: true });
    this.draw();
  }
}
