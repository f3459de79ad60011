"""One run over its time: pictures per interval, attempts in vain, pauses, and how many requests might be out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from batchgen.joblog import PaceNote
from batchgen.report.charts.chart import NARROW, Chart, Table, bar, both, element, line, text
from batchgen.report.charts.scale import Scale, bins, clock_ticks, interval, iso, number, whole_ticks
from batchgen.report.numbers import RunNumbers, unix_s
from batchgen.text import counted, duration

_LEFT, _RIGHT, _TOP, _UP, _DOWN, _STEP = 40.0, 8.0, 14.0, 120.0, 34.0, 40.0
_ROWS = 200


@dataclass(frozen=True)
class _Span:
    """The run's time, cut into intervals; `pictures` and `failures` are counted for each of them."""

    start_s: float
    end_s: float
    step_s: float
    pictures: list[int]
    failures: list[int]


def timeline(run: RunNumbers, pace: Sequence[PaceNote]) -> Chart | None:
    """None where the run made nothing and nothing failed in it. `pace` may tell of other runs too."""
    if run.first_s is None or run.last_s is None or not (run.finished_s or run.failed_s):
        return None
    notes = [note for note in pace if note.run == run.run and unix_s(note.at) is not None]
    span = _span(run, 60)
    said = f"{counted(len(run.finished_s), 'picture')} in {duration(run.wall_s)}"
    besides = ((len(run.failed_s), "failed attempt"), (_pauses(notes), "pause"))
    about = ", ".join([said, *(counted(n, noun) for n, noun in besides if n)])
    wide, narrow = both(lambda width: _draw(_span(run, 60 if width > NARROW else 34), notes, width), about)
    return Chart(
        f"Run of {iso(run.first_s)[:16].replace('T', ' ')} UTC",
        f"{about}. Pictures per {_interval_words(span.step_s)}.",
        wide,
        narrow,
        _table(span, notes),
        tuple(_legend(run, notes)),
    )


def _legend(run: RunNumbers, notes: Sequence[PaceNote]) -> Iterator[tuple[str, str]]:
    yield "c0", "pictures"
    if run.failed_s:
        yield "bad", "failed attempts"
    if _pauses(notes):
        yield "pause", "pause"
    if any(note.concurrency is not None for note in notes):
        yield "limit", "requests at once, at most"


def _span(run: RunNumbers, most: int) -> _Span:
    assert run.first_s is not None and run.last_s is not None
    step_s = interval(max(run.last_s - run.first_s, 1.0), most)
    start_s = math.floor(run.first_s / step_s) * step_s
    count = int((run.last_s - start_s) // step_s) + 1
    cut = (start_s, step_s, count)
    end_s = start_s + count * step_s
    return _Span(start_s, end_s, step_s, bins(list(run.finished_s), *cut), bins(list(run.failed_s), *cut))


def _draw(span: _Span, notes: Sequence[PaceNote], width: int) -> tuple[float, list[Markup]]:
    x = Scale(span.start_s, span.end_s, _LEFT, width - _RIGHT)
    base, failed = _TOP + _UP, max(span.failures)
    limits = _limits(notes, span)
    parts = _pause_bands(notes, span, x, base + (_DOWN if failed else 4) + (_STEP if limits else 0))
    marks = whole_ticks(max(span.pictures), 3)
    up = Scale(0, marks[-1], base, _TOP)
    for mark in marks:
        parts += [line(_LEFT, up(mark), width - _RIGHT, up(mark), "grid"), _side(up(mark) + 3.5, number(mark))]
    parts += _bars(span.pictures, span, x, base, -_UP / marks[-1], ("c0", "picture"))
    bottom = base + 4
    if failed:
        parts += _bars(span.failures, span, x, base + 1, (_DOWN - 6) / failed, ("bad", "failed attempt"))
        parts.append(_side(base + _DOWN - 4, number(failed)))
        bottom = base + _DOWN
    if limits:
        parts += _steps(limits, x, bottom + 8, bottom + _STEP)
        bottom += _STEP
    parts.append(line(_LEFT, base, width - _RIGHT, base))
    for at_s, said in clock_ticks(span.start_s, span.end_s, 4 if width == NARROW else 9):
        end = "end" if x(at_s) > width - 40 else "middle"
        parts += [line(x(at_s), bottom + 2, x(at_s), bottom + 6), text(x(at_s), bottom + 19, said, anchor=end)]
    return bottom + 26, parts


def _side(y: float, said: str) -> Markup:
    return text(_LEFT - 6, y, said, anchor="end")


def _bars(counts: Sequence[int], span: _Span, x: Scale, base: float, per: float, kind: tuple[str, str]) -> list[Markup]:
    class_, noun = kind
    parts = []
    for n, count in enumerate(counts):
        if count:
            at_s = span.start_s + n * span.step_s
            left, right = x(at_s), x(at_s + span.step_s)
            high = max(abs(count * per), 1.0)
            hint = f"{iso(at_s)[11:19]}: {counted(count, noun)}"
            parts.append(bar(left + 0.5, base - high if per < 0 else base, right - left - 1, high, class_, hint))
    return parts


def _pause_bands(notes: Sequence[PaceNote], span: _Span, x: Scale, bottom: float) -> list[Markup]:
    parts = []
    for n, note in enumerate(notes):
        if _is_pause(note):
            at_s = unix_s(note.at) or 0.0
            own = [later for later in notes[n + 1 :] if later.endpoint == note.endpoint]
            till_s = at_s + note.pause_s if note.pause_s else _outage_end_s(own, span)
            left = x(at_s)
            wide = max(x(min(till_s, span.end_s)) - left, 1.5)
            parts.append(bar(left, _TOP, wide, bottom - _TOP, "pause", f"{note.at[11:19]}: {note.message}"))
    return parts


def _outage_end_s(later: Sequence[PaceNote], span: _Span) -> float:
    """When the server answered again; the end of the run where it did not."""
    return next((unix_s(note.at) or 0.0 for note in later if note.concurrency is not None), span.end_s)


def _is_pause(note: PaceNote) -> bool:
    return note.outage or bool(note.pause_s)


def _limits(notes: Sequence[PaceNote], span: _Span) -> list[tuple[float, int]]:
    """How many requests might be out, and from when: of several endpoints, all together."""
    told = [(unix_s(note.at) or 0.0, note.endpoint, note.concurrency) for note in notes if note.concurrency is not None]
    limits = {endpoint: 1 for _, endpoint, _ in told}
    found = [(span.start_s, len(limits))] if limits else []
    for at_s, endpoint, limit in told:
        limits[endpoint] = limit
        found.append((at_s, sum(limits.values())))
    return found


def _steps(limits: Sequence[tuple[float, int]], x: Scale, top: float, bottom: float) -> list[Markup]:
    """How many requests were allowed at once: one at first, then as the notes say."""
    high = max(limit for _, limit in limits)
    y = Scale(0, high, bottom, top)
    path = f"M{x(limits[0][0])} {y(limits[0][1])}"
    for at_s, limit in limits[1:]:
        path += f"H{x(at_s)}V{y(limit)}"
    hint = f"{limits[-1][1]} at once at the end, {high} at most"
    parts = [line(x.start, bottom, x.end, bottom, "grid"), _side(top + 5, number(high))]
    return [*parts, element("path", element("title", hint), d=f"{path}H{x.end}", class_="limit")]


def _pauses(notes: Sequence[PaceNote]) -> int:
    return sum(map(_is_pause, notes))


def _interval_words(step_s: float) -> str:
    return {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}.get(step_s) or (
        f"{step_s:.0f} s" if step_s < 60 else f"{step_s / 60:.0f} min" if step_s < 3600 else f"{step_s / 3600:.0f} h"
    )


def _table(span: _Span, notes: Sequence[PaceNote]) -> Table:
    told: list[list[str]] = [[] for _ in span.pictures]
    for note in notes:
        place = int(((unix_s(note.at) or 0.0) - span.start_s) // span.step_s)
        told[min(max(place, 0), len(told) - 1)].append(note.message)
    rows = []
    for n, (pictures, failures) in enumerate(zip(span.pictures, span.failures, strict=True)):
        at = iso(span.start_s + n * span.step_s).replace("T", " ")[5:19]
        more = f" … {len(told[n]) - 4} more … " if len(told[n]) > 4 else "; "
        said = told[n] if len(told[n]) <= 4 else [*told[n][:2], *told[n][-2:]]
        words = more.join(["; ".join(said[:2]), "; ".join(said[2:])]) if len(said) > 2 else "; ".join(said)
        rows.append((at, f"{pictures:,}", f"{failures:,}", words))
    return Table(("From (UTC)", "Pictures", "Failed attempts", "Pace"), rows[:_ROWS])
