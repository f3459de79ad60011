"""The verdict: what somebody wants to know who has a minute. Words and numbers from what was counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from batchgen.report.charts.scale import iso
from batchgen.report.compare import Comparison, sentence
from batchgen.report.facts import Scene, Stand
from batchgen.report.numbers import Numbers, RunNumbers
from batchgen.summary import FailureGroup, percentile
from batchgen.text import counted, duration


class Fact(msgspec.Struct, frozen=True):
    """One number under the verdict, with what it is about and a word more."""

    name: str
    value: str
    more: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The first thing on the page. `parts` are outcome and count, for the bar."""

    headline: str
    lines: tuple[str, ...]
    parts: tuple[tuple[str, int], ...]
    facts: tuple[Fact, ...]


def verdict(scene: Scene, numbers: Numbers, groups: Sequence[FailureGroup], found: Sequence[Comparison]) -> Verdict:
    """What the page says first."""
    stand = scene.stand
    parts = (
        ("done", stand.done),
        ("failed", stand.failed),
        ("uncertain", stand.uncertain),
        ("pending", stand.pending or 0),
    )
    return Verdict(
        _headline(stand),
        tuple(_lines(scene, groups, found)),
        tuple((name, count) for name, count in parts if count),
        tuple(_facts(scene, numbers)),
    )


def _headline(stand: Stand) -> str:
    total = stand.total if stand.total is not None else stand.done + stand.failed + stand.uncertain
    verb = "is" if stand.done == 1 else "are"
    if stand.total is not None and stand.done == total:
        return f"All {counted(total, 'job')} are done." if total != 1 else "The one job is done."
    if stand.running:
        return f"{stand.done:,} of {total:,} jobs {verb} done so far."
    return f"{stand.done:,} of {total:,} jobs {verb} done."


def _lines(scene: Scene, groups: Sequence[FailureGroup], found: Sequence[Comparison]) -> Iterator[str]:
    stand = scene.stand
    if stand.running:
        yield f"A run is at work: {stand.doing}, last heard of at {moment(stand.heartbeat_at)}."
    elif stand.killed:
        yield "The last run ended without a word. Run the same command again: it goes on where that one stopped."
    if missing := stand.failed + stand.uncertain:
        first = sorted(groups, key=lambda group: -group.count)[:3]
        causes = ", ".join(f"{group.count} {group.failure.replace('_', ' ')}" for group in first)
        more = ", and others" if len(groups) > 3 else ""
        yield f"{counted(missing, 'job')} ended without a picture: {causes}{more}." if causes else ""
    if stand.pending:
        said = scene.summary.verdict if scene.summary and not stand.running and scene.summary.pending else ""
        yield f"{counted(stand.pending, 'job')} still to do." + (f" The last run said: {said}." if said else "")
    if stand.total is None:
        yield "The manifest cannot be read where it was, so jobs that are still to be done are not counted."
    if words := sentence(found):
        yield words


def _facts(scene: Scene, numbers: Numbers) -> Iterator[Fact]:
    stand, runs = scene.stand, numbers.in_order()
    without = stand.failed + stand.uncertain
    if without or stand.pending:
        said = [f"{n} {name}" for name, n in (("failed", stand.failed), ("uncertain", stand.uncertain)) if n]
        said += [f"{stand.pending:,} pending"] if stand.pending else []
        yield Fact("Missing", f"{without + (stand.pending or 0):,}", ", ".join(said))
    if stand.cost_usd is not None:
        maybe = f"and {dollars(stand.exposure_usd)} may have been paid without a picture" if stand.exposure_usd else ""
        yield Fact("Cost", dollars(stand.cost_usd), maybe or f"in {stand.requests:,} requests")
    else:
        yield Fact("Requests", f"{stand.requests:,}", "no prices are known")
    if runs:
        yield _last_run(scene, runs[-1])
    if seconds := [second for model in numbers.inference_by_model().values() for second in model]:
        seconds.sort()
        yield Fact(
            "Inference",
            f"{percentile(seconds, 0.5):.2f} s",
            f"median of all; p95 {percentile(seconds, 0.95):.2f} s, p99 {percentile(seconds, 0.99):.2f} s",
        )


def _last_run(scene: Scene, last: RunNumbers) -> Fact:
    told = scene.summary if scene.summary and scene.summary.run == last.run else None
    wall_s = told.wall_s if told else last.wall_s
    rate = f", {len(last.finished_s) / wall_s * 60:.0f} a minute" if wall_s >= 1 and last.done else ""
    return Fact("Last run", duration(wall_s), f"{last.done:,} done{rate}; {moment(iso_of(last))}")


def iso_of(run: RunNumbers) -> str:
    """When a run began, as far as its entries tell."""
    return iso(run.first_s) if run.first_s is not None else ""


def moment(at: str | None) -> str:
    """A UTC time for people: `2026-11-22 22:00 UTC`."""
    return f"{at[:10]} {at[11:16]} UTC" if at else "no known time"


def dollars(amount: float) -> str:
    """Money for people, with as many digits as it needs.

    >>> dollars(4.2), dollars(0.0031), dollars(1234.5)
    ('$4.20', '$0.0031', '$1,234.50')
    """
    return f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"
