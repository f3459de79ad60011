"""What has just happened, from the last lines of the files: how fast jobs end, and which attempts failed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from batchgen.joblog.lines import Ended, Intent, Note, Withdrawn
from batchgen.model import Attempt, Entry, Outcome

SHOWN = 5


class Rate(msgspec.Struct, frozen=True):
    """How many jobs ended and pictures came in the last `window_s` seconds, and pictures a minute."""

    window_s: float
    jobs: int
    pictures: int
    pictures_per_minute: float


class Trouble(msgspec.Struct, frozen=True):
    """A failed attempt, the last of `count` alike: whose, when it was sent, why; `outcome` where it ended its job."""

    job: str
    n: int
    at: str
    failure: str
    message: str | None
    http: int | None = None
    outcome: Outcome | None = None
    count: int = 1


def rate(entries: Iterable[Entry], since: datetime, now: datetime) -> Rate | None:
    """What ended between two moments; None where no time has gone by."""
    window_s = (now - since).total_seconds()
    if window_s <= 0:
        return None
    ended = [entry for entry in entries if since < moment(entry.finished_at) <= now]
    pictures = sum(len(entry.images) for entry in ended)
    return Rate(round(window_s, 3), len(ended), pictures, round(pictures / window_s * 60, 2))


def in_flight(entries: Iterable[Entry], notes: Iterable[Note], run: str) -> int:
    """How many requests of a run are out: intents without an end."""
    out: set[tuple[str, int]] = set()
    saved = {entry.job for entry in entries}
    for note in notes:
        if isinstance(note, Intent):
            if note.run == run:
                out.add((note.job, note.n))
        elif isinstance(note, Ended):
            out.discard((note.job, note.attempt.n))
        elif isinstance(note, Withdrawn):
            out.discard((note.job, note.n))
        else:
            saved.add(note.job)
    return sum(job not in saved for job, _ in out)


def troubles(entries: Iterable[Entry], notes: Iterable[Note]) -> list[Trouble]:
    """The last failed attempts, the newest first, those that say the same told once."""
    found: dict[tuple[str, str], Trouble] = {}
    for note in notes:
        if isinstance(note, Ended):
            _take(found, note.job, note.attempt, None)
    for entry in entries:
        for attempt in entry.attempts:
            last = attempt is entry.attempts[-1] and entry.outcome is not Outcome.DONE
            _take(found, entry.job, attempt, entry.outcome if last else None)
    alike: dict[tuple[str, Outcome | None, str], Trouble] = {}
    for trouble in sorted(found.values(), key=lambda trouble: trouble.at, reverse=True):
        # Messages that differ in numbers alone are one cause.
        cause = trouble.failure, trouble.outcome, re.sub("[0-9]+", "#", trouble.message or "")
        newest = alike.get(cause)
        alike[cause] = msgspec.structs.replace(newest, count=newest.count + 1) if newest else trouble
    return list(alike.values())[:SHOWN]


def _take(found: dict[tuple[str, str], Trouble], job: str, attempt: Attempt, outcome: Outcome | None) -> None:
    if attempt.failure is not None:
        found[job, attempt.at] = Trouble(
            job, attempt.n, attempt.at, attempt.failure.value, attempt.message, attempt.http, outcome
        )


def moment(timestamp: str) -> datetime:
    """The moment that a log's timestamp names. Raises ValueError for what is none."""
    found = datetime.fromisoformat(timestamp)
    return found.replace(tzinfo=found.tzinfo or UTC)
