"""How long the server drew: for each model a histogram of its seconds, with p50, p95 and p99."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from batchgen.report.charts.chart import NARROW, Chart, Table, bar, both, line, text
from batchgen.report.charts.scale import Scale, bins, number, ticks
from batchgen.summary import percentile
from batchgen.text import counted

MODELS_DRAWN = 8
_ROW, _BARS, _LEFT, _RIGHT, _FOOT, _LABEL = 116.0, 60.0, 4.0, 6.0, 24.0, 66.0
_MARKS = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def distribution(seconds: Mapping[str, Sequence[float]]) -> Chart | None:
    """`seconds` are sorted, by model; None where there are none."""
    if not seconds:
        return None
    rows = [(model, *_row(ordered)) for model, ordered in seconds.items()]
    drawn = dict(list(seconds.items())[:MODELS_DRAWN])
    about = "; ".join(f"{model}: p50 {p50}, p95 {p95}, p99 {p99}" for model, _, p50, p95, p99, _ in rows[:MODELS_DRAWN])
    more = f" The {MODELS_DRAWN} models with most pictures are drawn." if len(seconds) > MODELS_DRAWN else ""
    wide, narrow = both(lambda width: _draw(drawn, width), about)
    return Chart(
        "Inference time",
        f"Seconds that the server says it drew, for each picture.{more}",
        wide,
        narrow,
        Table(("Model", "Pictures", "p50", "p95", "p99", "Longest"), rows),
    )


def _row(ordered: Sequence[float]) -> tuple[str, str, str, str, str]:
    marks = [f"{percentile(ordered, part):.2f} s" for _, part in _MARKS]
    return f"{len(ordered):,}", marks[0], marks[1], marks[2], f"{ordered[-1]:.2f} s"


def _draw(seconds: Mapping[str, Sequence[float]], width: int) -> tuple[float, list[Markup]]:
    # A few pictures that took ten times as long would press all others into one bar: they are counted in the last.
    far = max(percentile(ordered, 0.99) for ordered in seconds.values()) * 1.15
    marks = ticks(min(far, max(ordered[-1] for ordered in seconds.values())) or 1.0, 4 if width == NARROW else 8)
    scale = Scale(0.0, marks[-1], _LEFT, width - _RIGHT)
    parts: list[Markup] = []
    for row, (model, ordered) in enumerate(seconds.items()):
        parts += _histogram(model, ordered, scale, row * _ROW, row)
    foot = len(seconds) * _ROW
    parts += [line(scale(mark), foot - 6, scale(mark), foot - 1) for mark in marks]
    for mark in marks:
        end = "start" if mark == 0 else "end" if mark == marks[-1] else "middle"
        parts.append(text(scale(mark), foot + 14, f"{number(mark)} s", anchor=end))
    return foot + _FOOT, parts


def _histogram(model: str, ordered: Sequence[float], scale: Scale, top: float, row: int) -> list[Markup]:
    count = 60 if scale.end > NARROW else 34
    step = scale.high / count
    heights = bins(list(ordered), 0.0, step, count)
    base, width = top + _ROW - 8, (scale.end - scale.start) / count
    tall = Scale(0, max(heights), 0, _BARS)
    parts = [text(_LEFT, top + 9, model, "label", "start")]
    for n, height in enumerate(heights):
        if height:
            till = (
                "or more" if n == count - 1 and ordered[-1] > scale.high else f"to {number(round((n + 1) * step, 3))} s"
            )
            hint = f"{number(round(n * step, 3))} {till}: {counted(height, 'picture')}"
            high = max(tall(height), 1.0)
            parts.append(bar(scale(n * step) + 0.5, base - high, width - 1, high, f"c{row % 6}", hint))
    parts.append(line(scale.start, base, scale.end, base))
    return parts + _percentiles(ordered, scale, top, base)


def _percentiles(ordered: Sequence[float], scale: Scale, top: float, base: float) -> list[Markup]:
    parts: list[Markup] = []
    values = [percentile(ordered, part) for _, part in _MARKS]
    places = [scale(value) for value in values]
    ends = [*places[1:], scale.end]
    free, high = scale.start, False
    for n, (x, end) in enumerate(zip(places, ends, strict=True)):
        # To the right of its mark where there is room, else to the left; else above what is in the way.
        start = end - x >= _LABEL or x - _LABEL < free
        high = (x < free if start else False) and not high
        y = top + (22 if high else 34)
        said, anchor = f"{_MARKS[n][0]} {values[n]:.2f} s", "start" if start and x < scale.end - _LABEL else "end"
        parts.append(line(x, y + 2, x, base, f"mark m{n}"))
        parts.append(text(x + (3 if anchor == "start" else -3), y, said, "mark-label", anchor))
        free = x + _LABEL if anchor == "start" else x
    return parts
