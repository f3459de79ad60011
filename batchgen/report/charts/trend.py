"""Run after run: the server's median and 95th percentile in each."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from batchgen.report.charts.chart import NARROW, Chart, Table, both, element, line, text
from batchgen.report.charts.scale import Scale, iso, number, ticks
from batchgen.report.numbers import RunNumbers
from batchgen.summary import percentile

RUNS_DRAWN = 30
_LEFT, _TOP, _HIGH = 44.0, 10.0, 110.0


def trend(runs: Sequence[RunNumbers]) -> Chart | None:
    """The last runs with pictures, the oldest first; None where there are fewer than two."""
    points = []
    for run in runs[-RUNS_DRAWN:]:
        seconds = run.all_inference_s()
        if seconds and run.first_s is not None:
            points.append((iso(run.first_s), percentile(seconds, 0.5), percentile(seconds, 0.95)))
    if len(points) < 2:
        return None
    about = f"p50 was {points[-1][1]:.2f} s in the last run and {points[-2][1]:.2f} s in the one before"
    wide, narrow = both(lambda width: _draw(points if width > NARROW else points[-12:], width), about)
    rows = [(f"{at[:10]} {at[11:16]}", f"{p50:.2f} s", f"{p95:.2f} s") for at, p50, p95 in reversed(points)]
    table = Table(("Run (UTC)", "p50", "p95"), rows)
    return Chart("Inference, run by run", "From median (dot) to p95.", wide, narrow, table)


def _draw(points: list[tuple[str, float, float]], width: int) -> tuple[float, list[Markup]]:
    marks = ticks(max(p95 for _, _, p95 in points), 3)
    base = _TOP + _HIGH
    y = Scale(0, marks[-1], base, _TOP)
    parts: list[Markup] = []
    for mark in marks:
        parts += [
            line(_LEFT, y(mark), width - 4, y(mark), "grid"),
            text(_LEFT - 6, y(mark) + 3.5, f"{number(mark)} s", anchor="end"),
        ]
    slot = min((width - _LEFT - 4) / len(points), 96.0)
    one_day = points[0][0][:10] == points[-1][0][:10]
    every = -(-46 // int(max(slot, 1)))
    for n, (at, p50, p95) in enumerate(points):
        x = round(_LEFT + (n + 0.5) * slot, 2)
        title = element("title", f"{at}: p50 {p50:.2f} s, p95 {p95:.2f} s")
        parts += [line(x, y(p50), x, y(p95), "range"), element("circle", title, cx=x, cy=y(p50), r=4, class_="dot")]
        if n % every == 0:
            parts.append(text(x, base + 16, at[11:16] if one_day else at[5:10]))
    return base + 24, parts
