"""Where the time of jobs went: one bar for each model, cut by what they did or waited for."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from batchgen.report.charts.chart import Chart, Table, bar, both, text
from batchgen.report.charts.scale import Scale
from batchgen.report.numbers import PARTS, Spent
from batchgen.text import duration

MODELS_DRAWN = 8
NAMES = {
    "queued": "queue",
    "waited": "wait after a failure",
    "failed": "attempts in vain",
    "inference": "inference",
    "transfer": "transfer and server's queue",
    "save": "check and save",
}
COLOURS = dict(zip(PARTS, ("c4", "c3", "bad", "c0", "c1", "c2"), strict=True))


def where_time_went(spent: Mapping[str, Spent]) -> Chart | None:
    """None where no time is known."""
    known = {model: one for model, one in spent.items() if sum(one.seconds.values()) > 0}
    if not known:
        return None
    drawn = dict(sorted(known.items(), key=lambda item: -sum(item[1].seconds.values()))[:MODELS_DRAWN])
    whole = {name: sum(one.seconds[name] for one in known.values()) for name in PARTS}
    total, jobs = sum(whole.values()), sum(one.jobs for one in known.values())
    about = ", ".join(f"{NAMES[name]} {whole[name] / total:.0%}" for name in PARTS if whole[name] / total >= 0.005)
    wide, narrow = both(lambda width: _draw(drawn, width), about)
    rows = [
        (NAMES[name], f"{whole[name] / total:.1%}", duration(whole[name]), f"{whole[name] / jobs:.3f} s")
        for name in PARTS
    ]
    return Chart(
        "Where the time went",
        "The time of all jobs added up; they ran side by side. A mean job took " + f"{total / jobs:.2f} s.",
        wide,
        narrow,
        Table(("Part", "Share", "All jobs", "A job"), rows),
        tuple((COLOURS[name], NAMES[name]) for name in PARTS if whole[name] > 0),
    )


def _draw(spent: Mapping[str, Spent], width: int) -> tuple[float, list[Markup]]:
    parts: list[Markup] = []
    for row, (model, one) in enumerate(spent.items()):
        top, total, at = row * 58.0, sum(one.seconds.values()), 0.0
        scale = Scale(0, total, 4, width - 4)
        parts.append(text(4, top + 14, model, "label", "start"))
        for name in PARTS:
            seconds = one.seconds[name]
            left, right = scale(at), scale(at + seconds)
            at += seconds
            if right - left < 0.4:
                continue
            hint = f"{NAMES[name]}: {seconds / total:.1%}, {seconds / one.jobs:.3f} s a job"
            parts.append(bar(left, top + 22, right - left - 0.6, 24, COLOURS[name], hint))
            if right - left > 38:
                parts.append(text((left + right) / 2, top + 38, f"{seconds / total:.0%}", f"on on-{COLOURS[name]}"))
    return len(spent) * 58.0, parts
