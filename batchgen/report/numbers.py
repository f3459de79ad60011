"""Entries added up for charts and comparison: sums, and the seconds of pictures. No entry is kept."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from batchgen import joblog
from batchgen.model import Attempt, Entry, Failure, Outcome


class Kind(NamedTuple):
    """Pictures that a server should need about the same time for."""

    model: str
    size: str
    steps: str

    def __str__(self) -> str:
        said = ", ".join(part for part in (self.size, f"{self.steps} steps" if self.steps else "") if part)
        return f"{self.model} ({said})" if said else self.model


@dataclass
class RunNumbers:
    """What one run did, by the log. `finished_s` and `failed_s` are Unix seconds: pictures, and attempts in vain."""

    run: str
    first_s: float | None = None
    last_s: float | None = None
    done: int = 0
    failed: int = 0
    uncertain: int = 0
    requests: int = 0
    cost_usd: float = 0.0
    exposure_usd: float = 0.0
    priced: bool = False
    finished_s: array[float] = field(default_factory=lambda: array("d"))
    failed_s: array[float] = field(default_factory=lambda: array("d"))
    inference_s: dict[Kind, array[float]] = field(default_factory=dict)

    @property
    def wall_s(self) -> float:
        return max(0.0, self.last_s - self.first_s) if self.first_s is not None and self.last_s is not None else 0.0

    def all_inference_s(self) -> list[float]:
        return sorted(second for seconds in self.inference_s.values() for second in seconds)

    def saw(self, at_s: float | None) -> None:
        if at_s is not None:
            self.first_s = at_s if self.first_s is None else min(self.first_s, at_s)
            self.last_s = at_s if self.last_s is None else max(self.last_s, at_s)


PARTS = ("queued", "waited", "failed", "inference", "transfer", "save")
"""Where a job's time goes, in the order in which it passes."""


@dataclass
class Spent:
    """Seconds of all jobs of a model added up, by PARTS. Jobs run side by side: this is more than a clock shows."""

    jobs: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def add(self, entry: Entry) -> None:
        times, response_s = entry.timings, entry.timings.response_s or 0.0
        inference_s = min(entry.inference_s or 0.0, response_s) if entry.images else 0.0
        self.jobs += 1
        parts = (
            times.queued_s,
            times.waited_s,
            sum(attempt.elapsed_s for attempt in entry.attempts if attempt.failure),
            inference_s,
            response_s - inference_s if entry.images else 0.0,
            times.decode_s + times.save_s,
        )
        for name, seconds in zip(PARTS, parts, strict=True):
            self.seconds[name] += seconds


@dataclass
class Day:
    """What one UTC day brought and cost."""

    pictures: int = 0
    cost_usd: float = 0.0
    exposure_usd: float = 0.0


@dataclass
class EndpointNumbers:
    """What one of several endpoints did, over all runs: jobs that it ended, pictures, attempts in vain."""

    jobs: int = 0
    pictures: int = 0
    failures: int = 0
    inference_s: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class Numbers:
    """Takes in every entry of the logs, in any order, each of them once."""

    runs: dict[str, RunNumbers] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)
    days: dict[str, Day] = field(default_factory=dict)
    endpoints: dict[str, EndpointNumbers] = field(default_factory=dict)
    retold: set[int] = field(default_factory=set)
    _seen: set[int] = field(default_factory=set)
    _jobs: set[int] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Take in one entry; a line that stands in several files counts once."""
        line = joblog.key(entry.job, entry.fingerprint, entry.finished_at, entry.outcome)
        if line in self._seen:
            return
        self._seen.add(line)
        job = joblog.key(entry.job, entry.fingerprint)
        (self.retold if job in self._jobs else self._jobs).add(job)
        if entry.outcome is Outcome.DONE and not entry.attempts:
            return  # brought back from superseded/: made and paid for earlier
        self._run(entry)
        self._endpoints(entry)
        self.spent.setdefault(entry.model, Spent()).add(entry)
        day = self.days.setdefault(entry.finished_at[:10], Day())
        day.pictures += len(entry.images)
        day.cost_usd += entry.cost_usd or 0.0
        day.exposure_usd += entry.exposure_usd or 0.0

    def _run(self, entry: Entry) -> None:
        run = self.runs.setdefault(entry.run, RunNumbers(entry.run))
        finished_s = unix_s(entry.finished_at)
        run.done += entry.outcome is Outcome.DONE
        run.failed += entry.outcome is Outcome.FAILED
        run.uncertain += entry.outcome is Outcome.UNCERTAIN
        run.saw(finished_s)
        for attempt in entry.attempts:
            self._attempt(run, attempt)
        if entry.cost_usd is not None:
            run.priced = True
            run.cost_usd += entry.cost_usd
            run.exposure_usd += entry.exposure_usd or 0.0
        seconds = [picture.inference_s for picture in entry.images if picture.inference_s is not None]
        if seconds:
            run.inference_s.setdefault(kind(entry), array("d")).extend(seconds)
        if finished_s is not None:
            run.finished_s.extend([finished_s] * len(entry.images))

    def _endpoints(self, entry: Entry) -> None:
        for attempt in entry.attempts:
            if attempt.endpoint:
                each = self.endpoints.setdefault(attempt.endpoint, EndpointNumbers())
                each.failures += attempt.failure is not None
        if entry.endpoint:
            each = self.endpoints[entry.endpoint]
            each.jobs += 1
            each.pictures += len(entry.images)
            each.inference_s.extend(p.inference_s for p in entry.images if p.inference_s is not None)

    def add_open(self, attempt: Attempt, run: str) -> None:
        """An attempt of a job that is not finished: it counts for `run`, the last that was at work."""
        if run in self.runs and attempt.failure is not Failure.IN_DOUBT:
            self._attempt(self.runs[run], attempt)

    def _attempt(self, run: RunNumbers, attempt: Attempt) -> None:
        """One request; an earlier run's, which a job took along, is left to that run's clock."""
        sent_s = unix_s(attempt.at)
        run.requests += 1
        if sent_s is None or attempt.at[:19] < began(run.run):
            return
        run.saw(sent_s)
        if attempt.failure:
            run.failed_s.append(sent_s + attempt.elapsed_s)

    @property
    def priced(self) -> bool:
        return any(run.priced for run in self.runs.values())

    def in_order(self) -> list[RunNumbers]:
        """The runs, the oldest first."""
        return sorted(self.runs.values(), key=lambda run: (run.first_s or 0.0, run.run))

    def inference_by_model(self) -> dict[str, list[float]]:
        """The server's seconds of all pictures, sorted, by model; the model with most pictures first."""
        found: dict[str, list[float]] = {}
        for run in self.runs.values():
            for one, seconds in run.inference_s.items():
                found.setdefault(one.model, []).extend(seconds)
        for seconds_of_model in found.values():
            seconds_of_model.sort()
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def kind(entry: Entry) -> Kind:
    """What the time of this entry's picture may be compared with."""
    asked = entry.request
    size = f"{asked['width']} x {asked['height']}" if {"width", "height"} <= asked.keys() else ""
    if not size and entry.images:
        size = f"{entry.images[0].width} x {entry.images[0].height}"
    return Kind(entry.model, size, str(asked.get("num_steps", "")))


def began(run: str) -> str:
    """The second in which a run began, in ISO 8601, from its name; empty where the name does not tell.

    >>> began("20261122T220000Z-7f3a")
    '2026-11-22T22:00:00'
    """
    stamp = run.partition("Z-")[0]
    if len(stamp) != 15 or not stamp.replace("T", "", 1).isdecimal():
        return ""
    date, time = stamp[:8], stamp[9:]
    return f"{date[:4]}-{date[4:6]}-{date[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}"


def unix_s(at: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 time; None where it is none."""
    try:
        found = datetime.fromisoformat(at)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
