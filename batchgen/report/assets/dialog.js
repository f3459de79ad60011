// One job in full: its picture, everything that was asked, all that happened, and its entry to copy.

function facts(title, pairs) {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!told.length) return null;
  return el("section", {}, el("h3", {}, title), el("dl", {}, ...told.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function attemptsTable(job) {
  if (!job.attempts.length) return null;
  const several = job.attempts.some((a) => a.endpoint);
  const rows = job.attempts.map((a) =>
    el("tr", {}, el("td", {}, String(a.n)), el("td", {}, when(a.at).slice(5, 19)), several ? el("td", {}, a.endpoint || "–") : null, el("td", {}, a.http ? String(a.http) : "–"), el("td", {}, seconds(a.seconds)),
      el("td", {}, a.failure ? words(a.failure) : "answered"), el("td", {}, a.billed === "no" ? "no" : a.billed)));
  const said = job.attempts.filter((a) => a.message).map((a) => el("p", { class: "message" }, `${a.n}: ${a.message}${a.code ? ` (${a.code})` : ""}`));
  const head = ["#", "Sent (UTC)", ...(several ? ["Asked"] : []), "HTTP", "Took", "Ended", "Paid"].map((name) => el("th", { scope: "col" }, name));
  return el("section", {}, el("h3", {}, job.attempts.length > 1 ? `${job.attempts.length} attempts` : "Attempt"), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))), ...said);
}

async function copy(text, button) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    // Not every browser lets a page that was opened as a file write to the clipboard.
    const area = el("textarea", { class: "away", "aria-hidden": "true" });
    area.value = text;
    button.after(area);
    area.select();
    try { done = document.execCommand("copy"); } catch { done = false; }
    area.remove();
    button.focus();
  }
  const before = button.dataset.label ??= button.textContent;
  button.textContent = done ? "Copied" : "Select the text and copy it";
  setTimeout(() => { button.textContent = before; }, 2000);
}

const dialog = {
  box: document.getElementById("dialog"),
  place: -1,
  open(place) {
    const job = shown.jobs[place];
    if (!job) return;
    this.place = place;
    // The arrows go on working: what had the focus has it again in what takes its place.
    const focused = [".prev", ".next"].find((name) => document.activeElement?.matches(`dialog ${name}`)) ?? ".close";
    this.fill(job);
    view.set({ open: job.id });
    if (!this.box.open) this.box.showModal();
    const again = this.box.querySelector(focused);
    (again.disabled ? this.box.querySelector(".close") : again).focus();
    this.box.querySelector(".side").scrollTop = 0;
  },
  step(by) {
    const next = this.place + by;
    if (next >= 0 && next < shown.jobs.length) this.open(next);
  },
  fill(job) {
    const copyButton = el("button", { type: "button", class: "copy" }, "Copy");
    const entry = manifestEntry(job);
    copyButton.addEventListener("click", () => copy(entry, copyButton));
    const asked = Object.entries(job.request).filter(([name]) => name !== "prompt");
    const value = (v) => (v && typeof v === "object" && v.path ? `${v.path} (sha256 ${String(v.sha256).slice(0, 12)}…)` : plain(v));
    const money = (usd) => (usd === null || usd === undefined ? null : `$${usd.toFixed(4)}`);
    const mark = job.state ? [el("p", { class: "note" }, STATES[job.state] || job.state)] : [];
    this.box.replaceChildren(
      el("div", { class: "head" },
        el("button", { type: "button", class: "prev", "aria-label": "Previous", disabled: this.place === 0, onclick: () => this.step(-1) }, "←"),
        el("button", { type: "button", class: "next", "aria-label": "Next", disabled: this.place === shown.jobs.length - 1, onclick: () => this.step(1) }, "→"),
        el("span", { class: "where" }, `${number(this.place + 1)} of ${number(shown.jobs.length)}`),
        el("h2", {}, job.id),
        el("button", { type: "button", class: "close", "aria-label": "Close", autofocus: true, onclick: () => this.box.close() }, "×")),
      el("div", { class: "pair" },
        el("div", { class: "pictures" }, ...this.pictures(job)),
        el("div", { class: "side", tabindex: "0" },
          el("p", { class: "whole-prompt" }, job.prompt), ...mark,
          facts("Asked", [["model", job.model], ...asked.map(([name, v]) => [words(name), value(v)])]) ,
          facts("Place in the grid", Object.entries(job.axes).map(([name, v]) => [name, plain(v)])),
          facts("Meta", Object.entries(job.meta).map(([name, v]) => [name, plain(v)])),
          facts("Result", [["outcome", job.outcome], ["inference", job.inference === null ? null : seconds(job.inference)], ["cost", money(job.row.c)],
            ["perhaps paid in vain", money(job.row.u)], ["finished", when(job.finished)], ["run", job.run], ["from", `${from("files", job.row.d)}, line ${job.row.l}`],
            ...(job.row.y || []).map((said) => ["note", said])]),
          facts("Timings", TIMINGS.map((name, n) => [name, job.row.x[n] === null ? null : seconds(job.row.x[n])])),
          attemptsTable(job),
          el("section", {}, el("h3", {}, "As a manifest entry"), el("div", { class: "command" }, el("pre", { tabindex: "0", class: "entry" }, entry), copyButton)))));
  },
  pictures(job) {
    if (!job.row.g) return [el("div", { class: "instead" }, job.why || job.outcome)];
    return job.pictures.map((picture) => {
      const about = `${picture.width} × ${picture.height}, ${size(picture.bytes)}`;
      if (!picture.thumb) return el("figure", {}, el("div", { class: "instead" }, picture.problem || "no picture"), el("figcaption", {}, `${picture.path}, ${about}`));
      const image = el("img", { src: picture.full, alt: job.prompt, width: picture.width, height: picture.height });
      image.addEventListener("error", () => image.replaceWith(instead("this picture cannot be shown")), { once: true });
      return el("figure", {}, el("a", { href: picture.full, target: "_blank", rel: "noopener" }, image), el("figcaption", {}, `${picture.path}, ${about}${picture.problem ? `; ${picture.problem}` : ""}`));
    });
  },
};

dialog.box.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("pre")) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    event.preventDefault();
    dialog.step(event.key === "ArrowLeft" ? -1 : 1);
  }
});
dialog.box.addEventListener("click", (event) => { if (event.target === dialog.box) dialog.box.close(); });
dialog.box.addEventListener("close", () => {
  view.set({ open: null });
  dialog.box.replaceChildren();
  shown.focus(dialog.place);
});
