"""Entries added up: the numbers of a run, and the verdict in words. No entry is kept; only sums and durations are."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from batchgen.events import Event, Finished, Left, Tried
from batchgen.model import Attempt, Billed, Entry, ExitCode, Failure, Outcome
from batchgen.text import counted, duration

_NAMED_JOBS = 20
_GROUPS = 50


class FailureGroup(msgspec.Struct):
    """Jobs that ended alike: how many, the first message, and the ids of the first of them."""

    failure: str
    outcome: Outcome
    count: int
    message: str
    jobs: list[str]


class Inference(msgspec.Struct, frozen=True):
    """The server's own seconds a picture."""

    p50: float
    p95: float
    max: float


class EndpointCounts(msgspec.Struct):
    """What one of several endpoints was asked in a run, and what came of it; `inference_p50_s` is a median."""

    requests: int = 0
    pictures: int = 0
    failures: int = 0
    inference_p50_s: float | None = None


class JobCounts(msgspec.Struct, frozen=True):
    """Where the selected jobs stand; the four add up to `selected`."""

    selected: int
    done: int
    failed: int
    uncertain: int
    pending: int


class Summary(msgspec.Struct, frozen=True):
    """The verdict of a run, as `summary.json` holds it. `selected` of the manifest's `total` jobs were asked for.

    Beside where the jobs stand it tells what this run did: jobs `made`, `requests` sent, `wall_s` seconds; of several
    `endpoints` also what each did.
    """

    run: str
    manifest: str
    output: str
    exit_code: int
    verdict: str
    started_at: str
    finished_at: str
    wall_s: float
    total: int
    selected: int
    done: int
    failed: int
    uncertain: int
    pending: int
    in_doubt: int
    made: int
    requests: int
    retries: int
    pictures_per_minute: float | None
    inference_s: Inference | None
    cost_usd: float | None
    exposure_usd: float | None
    failures: list[FailureGroup]
    left: dict[str, int] = {}
    notices: list[str] = []
    store: str | None = None
    endpoints: dict[str, EndpointCounts] = {}
    v: int = 1


@dataclass
class Tally:
    """Takes in a run's entries and attempts as they happen; an observer of the pool."""

    done: int = 0
    failed: int = 0
    uncertain: int = 0
    pictures: int = 0
    requests: int = 0
    retries: int = 0
    cost_usd: float = 0.0
    exposure_usd: float = 0.0
    priced: bool = False
    inference_s: array[float] = field(default_factory=lambda: array("d"))
    groups: dict[tuple[str, Outcome, str], FailureGroup] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    endpoints: dict[str, EndpointCounts] = field(default_factory=dict)
    _inference_at: dict[str, array[float]] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        match event:
            case Finished(entry=entry):
                self._finished(entry)
            case Tried(attempt=attempt, price_usd=price_usd, pictures=pictures, again=again):
                self.retries += again
                self._tried(attempt, price_usd, pictures)
            case Left(failure=failure):
                self.left[failure.value] = self.left.get(failure.value, 0) + 1

    @property
    def ended(self) -> int:
        """How many jobs this run has ended."""
        return self.done + self.failed + self.uncertain

    def _finished(self, entry: Entry) -> None:
        match entry.outcome:
            case Outcome.DONE:
                self.done += 1
                self.pictures += len(entry.images)
                seconds = [p.inference_s for p in entry.images if p.inference_s is not None]
                self.inference_s.extend(seconds)
                if entry.endpoint:
                    self._inference_at.setdefault(entry.endpoint, array("d")).extend(seconds)
                return
            case Outcome.FAILED:
                self.failed += 1
            case Outcome.UNCERTAIN:
                self.uncertain += 1
        self.without_picture(entry)

    def without_picture(self, entry: Entry) -> FailureGroup:
        """Group a job without a picture, of this run or an earlier one, by the cause of its last attempt."""
        last = entry.attempts[-1] if entry.attempts else None
        cause = (last.failure if last else None) or Failure.INTERNAL
        message = (last.message if last else None) or ""
        # Messages that differ in numbers alone are one cause; beyond so many groups the kind of failure must do.
        key = (cause.value, entry.outcome, re.sub("[0-9]+", "#", message) if len(self.groups) < _GROUPS else "")
        if key not in self.groups:
            self.groups[key] = FailureGroup(cause.value, entry.outcome, 0, message, [])
        group = self.groups[key]
        group.count += 1
        if len(group.jobs) < _NAMED_JOBS:
            group.jobs.append(entry.job)
        return group

    def _tried(self, attempt: Attempt, price_usd: float | None, pictures: int) -> None:
        self.requests += 1
        if attempt.endpoint:
            counts = self.endpoints.setdefault(attempt.endpoint, EndpointCounts())
            counts.requests += 1
            counts.pictures += 0 if attempt.failure else pictures
            counts.failures += attempt.failure is not None
        if price_usd is not None:
            self.priced = True
            self.cost_usd += price_usd * pictures * (attempt.billed is Billed.YES)
            self.exposure_usd += price_usd * (attempt.billed is Billed.MAYBE)

    def by_endpoint(self) -> dict[str, EndpointCounts]:
        """What each of several endpoints did, the busiest first."""
        for name, seconds in self._inference_at.items():
            if seconds and name in self.endpoints:
                self.endpoints[name].inference_p50_s = percentile(sorted(seconds), 0.5)
        return dict(sorted(self.endpoints.items(), key=lambda item: (-item[1].pictures, item[0])))

    def inference(self) -> Inference | None:
        if not self.inference_s:
            return None
        ordered = sorted(self.inference_s)
        return Inference(percentile(ordered, 0.5), percentile(ordered, 0.95), ordered[-1])


def percentile(ordered: Sequence[float], part: float) -> float:
    """The nearest-rank percentile of sorted values: a value that really occurred."""
    return ordered[max(0, -(-len(ordered) * round(part * 1000) // 1000) - 1)]


def exit_code(counts: JobCounts, stops: Iterable[ExitCode]) -> ExitCode:
    """The code that tells the truth where several hold: 1, 7, 6, 2, signal, 4, 3, 0 (DESIGN.md section 6)."""
    # A limit that was reached when nothing was left to do has left no work.
    holding = set(stops) - {ExitCode.WORK_LEFT}
    if counts.pending:
        holding.add(ExitCode.WORK_LEFT)
    if counts.failed or counts.uncertain:
        holding.add(ExitCode.INCOMPLETE)
    order = (
        *(ExitCode.INTERNAL, ExitCode.STORAGE, ExitCode.ACCOUNT, ExitCode.USAGE),
        *(ExitCode.SIGHUP, ExitCode.SIGINT, ExitCode.SIGTERM, ExitCode.WORK_LEFT, ExitCode.INCOMPLETE),
    )
    return next((code for code in order if code in holding), ExitCode.OK)


def verdict(code: ExitCode, counts: JobCounts, made: int, reasons: Sequence[str]) -> str:
    """One sentence for the morning."""
    why = f": {reasons[0].rstrip('. ')}" if reasons else ""
    again = "run the same command again"
    left = f"{counts.pending} of {counts.selected} jobs are left"
    match code:
        case ExitCode.OK if not made:
            return f"nothing to do: {counts.done} of {counts.selected} jobs are done"
        case ExitCode.OK:
            return f"{counts.done} of {counts.selected} jobs are done"
        case ExitCode.INCOMPLETE:
            retry = " ".join(
                f"--retry {n}" for n, k in (("failed", counts.failed), ("uncertain", counts.uncertain)) if k
            )
            without = f"{counts.failed + counts.uncertain} of {counts.selected} jobs"
            return f"finished, but without a picture for {without}; to try them again: {retry}"
        case ExitCode.WORK_LEFT:
            return f"{left}{why}" if "raise it with" in why else f"{left}{why}; {again}"
        case ExitCode.ACCOUNT:
            return f"stopped, the account was refused{why}; {left}"
        case ExitCode.USAGE:
            return f"stopped, the request or its settings are wrong{why}; {left}"
        case ExitCode.STORAGE:
            return f"stopped, storage failed{why}; {left}, then {again}"
        case ExitCode.INTERNAL:
            return f"stopped by an error in batchgen{why}; {left}"
    return f"stopped{why}; {left}, {again}"


def render(summary: Summary) -> Iterator[str]:
    """The summary for people, a line at a time, the verdict first."""
    yield f"{summary.verdict}"
    parts = {"done": summary.done, "failed": summary.failed, "uncertain": summary.uncertain, "pending": summary.pending}
    selected = f" ({summary.selected} selected)" if summary.selected != summary.total else ""
    doubt = f" ({summary.in_doubt} in doubt)" if summary.in_doubt else ""
    counts = ", ".join(f"{n} {name}" for name, n in parts.items() if n or name == "done")
    yield f"  jobs       {summary.total}{selected}: {counts}{doubt}"
    rate = f", {summary.pictures_per_minute:.1f} pictures a minute" if summary.pictures_per_minute else ""
    repeated = "retry" if summary.retries == 1 else "retries"
    sent = counted(summary.requests, "request") + (f" ({summary.retries} {repeated})" if summary.retries else "")
    yield f"  this run   {summary.made} made, {sent}, {duration(summary.wall_s)}{rate}"
    if times := summary.inference_s:
        yield f"  inference  p50 {times.p50:.2f} s, p95 {times.p95:.2f} s, max {times.max:.2f} s"
    for name, each in summary.endpoints.items():
        did = [counted(each.requests, "request"), counted(each.pictures, "picture")]
        did += [f"{each.failures} failed"] if each.failures else []
        did += [] if each.inference_p50_s is None else [f"inference p50 {each.inference_p50_s:.2f} s"]
        yield f"  endpoint   {name}: {', '.join(did)}"
    if summary.cost_usd is not None:
        maybe = (
            f", and ${summary.exposure_usd:.4f} may have been paid without a picture" if summary.exposure_usd else ""
        )
        yield f"  cost       ${summary.cost_usd:.4f}{maybe}"
    for group in summary.failures:
        more = f" and {group.count - 3} more" if group.count > 3 else ""
        yield f"  {group.outcome:<9}  {group.count} x {group.failure}: {group.message}"
        yield f"             {', '.join(group.jobs[:3])}{more}"
    for failure, count in sorted(summary.left.items()):
        yield f"  left over  {count} x {failure}"
    for notice in summary.notices:
        yield f"  note       {notice}"
    yield f"  output     {summary.output}" + (f", pictures in {summary.store}" if summary.store else "")
