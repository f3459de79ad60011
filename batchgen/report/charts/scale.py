"""Numbers to places: scales, round ticks, intervals of time. Knows nothing of SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

INTERVALS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


class Scale(NamedTuple):
    """A straight line from the values `low`..`high` to the places `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        part = (value - self.low) / span if span > 0 else 0.0
        return round(self.start + min(1.0, max(0.0, part)) * (self.end - self.start), 2)


def ticks(high: float, count: int) -> list[float]:
    """About `count` round values from 0 up to at least `high`.

    >>> ticks(23, 4)
    [0.0, 10.0, 20.0, 30.0]
    """
    if not (high > 0 and math.isfinite(high)):
        return [0.0, 1.0]
    raw = high / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999) * power
    return [round(step * n, 10) for n in range(math.ceil(high / step - 1e-9) + 1)]


def whole_ticks(high: float, count: int) -> list[float]:
    """As `ticks`, for what is counted."""
    return sorted({float(round(tick)) for tick in ticks(max(high, 1), count)})


def interval(span_s: float, most: int) -> float:
    """The smallest usual interval that cuts `span_s` into at most `most` parts."""
    days = math.ceil(span_s / most / 86400) * 86400
    return next((float(one) for one in INTERVALS_S if span_s / one <= most), float(max(days, 86400)))


def bins(values: list[float], start: float, width: float, count: int) -> list[int]:
    """How many values fall into each of `count` intervals of `width` from `start`; what lies beyond, into the ends."""
    found = [0] * count
    for value in values:
        found[min(count - 1, max(0, int((value - start) // width)))] += 1
    return found


def iso(at_s: float) -> str:
    """ISO 8601 in UTC of Unix seconds."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def clock_ticks(start_s: float, end_s: float, count: int) -> Iterator[tuple[float, str]]:
    """Round times of day between two Unix times, with their labels."""
    step = interval(end_s - start_s, count)
    at_s = math.ceil(start_s / step) * step
    while at_s <= end_s:
        said = iso(at_s)
        yield at_s, said[5:10] if step >= 86400 else said[11:16] if step >= 60 else said[11:19]
        at_s += step


def number(value: float) -> str:
    """A short number for an axis.

    >>> number(0), number(0.25), number(1500), number(12.0)
    ('0', '0.25', '1,500', '12')
    """
    return f"{value:,.0f}" if value == int(value) else f"{value:,.6f}".rstrip("0")
