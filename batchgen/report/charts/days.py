"""What each UTC day cost, or, where no prices are known, how many pictures it brought."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

from markupsafe import Markup

from batchgen.report.charts.chart import NARROW, Chart, Table, bar, both, line, text
from batchgen.report.charts.scale import Scale, ticks, whole_ticks
from batchgen.report.numbers import Day

DAYS_DRAWN = 42
_LEFT, _TOP, _HIGH = 52.0, 12.0, 110.0


def per_day(days: Mapping[str, Day], *, priced: bool) -> Chart | None:
    """None where nothing was made on a day that can be read."""
    row = _row_of_days(days)
    if not row:
        return None
    total = sum(day.cost_usd for day in days.values())
    about = f"${total:,.2f} on {len(days)} days" if priced else f"{sum(d.pictures for d in days.values()):,} pictures"
    wide, narrow = both(lambda width: _draw(row if width > NARROW else row[-21:], width, priced=priced), about)
    rows = [
        (day, f"{found.pictures:,}", f"${found.cost_usd:,.4f}", f"${found.exposure_usd:,.4f}")
        for day, found in sorted(days.items(), reverse=True)
    ]
    head = ("Day (UTC)", "Pictures", "Cost", "Perhaps paid in vain")
    return Chart(
        "Cost per day" if priced else "Pictures per day",
        "What was surely paid, and what may have been paid without a picture." if priced else "No prices are known.",
        wide,
        narrow,
        Table(head, rows) if priced else Table(head[:2], [one[:2] for one in rows]),
        (("c0", "paid"), ("maybe", "perhaps paid in vain")) if priced else (),
    )


def _row_of_days(days: Mapping[str, Day]) -> list[tuple[str, Day]]:
    """The last days without a gap between them, those on which nothing happened among them."""
    try:
        known = sorted(date.fromisoformat(day) for day in days)
    except ValueError:
        return sorted(days.items())[-DAYS_DRAWN:]
    if not known:
        return []
    first = max(known[0], known[-1] - timedelta(days=DAYS_DRAWN - 1))
    every = (first + timedelta(days=n) for n in range((known[-1] - first).days + 1))
    return [(day.isoformat(), days.get(day.isoformat(), Day())) for day in every]


def _draw(row: list[tuple[str, Day]], width: int, *, priced: bool) -> tuple[float, list[Markup]]:
    values = [(day.cost_usd + day.exposure_usd) if priced else float(day.pictures) for _, day in row]
    marks = ticks(max(values), 3) if priced else whole_ticks(max(values), 3)
    digits = 0 if marks[1] >= 1 else 2 if marks[1] >= 0.01 else 4
    base = _TOP + _HIGH
    up = Scale(0, marks[-1], base, _TOP)
    parts: list[Markup] = []
    for mark in marks:
        said = f"${mark:,.{digits}f}" if priced else f"{mark:,.0f}"
        parts += [
            line(_LEFT, up(mark), width - 4, up(mark), "grid"),
            text(_LEFT - 6, up(mark) + 3.5, said, anchor="end"),
        ]
    slot = min((width - _LEFT - 4) / len(row), 72.0)
    every = -(-46 // int(max(slot, 1)))
    for n, (day, found) in enumerate(row):
        left, sure = _LEFT + n * slot, up(found.cost_usd) if priced else up(found.pictures)
        hint = f"{day}: {found.pictures:,} pictures" + (f", ${found.cost_usd:,.4f}" if priced else "")
        if base > sure:
            parts.append(bar(left + slot * 0.15, sure, slot * 0.7, base - sure, "c0", hint))
        if priced and found.exposure_usd:
            high = sure - up(found.cost_usd + found.exposure_usd)
            parts.append(bar(left + slot * 0.15, sure - high, slot * 0.7, high, "maybe", hint))
        if n % every == 0:
            parts.append(text(left + slot / 2, base + 16, day[5:] if day[4:5] == "-" else day))
    return base + 24, [*parts, line(_LEFT, base, width - 4, base)]
