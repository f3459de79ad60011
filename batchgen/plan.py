"""What a run would do: for each job of the manifest whether it is to be done, and the sums. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from fnmatch import fnmatchcase

import msgspec

from batchgen.advice import Advisor
from batchgen.manifest import Mistakes, Tally
from batchgen.model import Job, ManifestChanged, Outcome, Problem, Selection, Standing, UsageError
from batchgen.shards import holds
from batchgen.shuffle import PLACES, last_place, place, shuffled
from batchgen.text import counted

KEPT_BYTES = 2 << 20
JOB_BYTES = 600
"""How much is remembered from planning to sending, and what a job takes beside its texts: 3,000 jobs of a few words."""

MISSING_FEW = 10
MISSING_PART = 0.05
USUAL_PIXELS = 1024

_encode = msgspec.json.Encoder().encode


class Mark(IntEnum):
    """What a run does about one job; one byte each is remembered between planning and running."""

    SKIP = 0
    DO = 1
    RESTORE = 2


@dataclass
class Plan:
    """The manifest against the folder.

    `standings` counts the selected jobs, `to_do` those to be sent by model, `pixels` what these ask for, `in_log` jobs
    of the manifest that the log knows, `counted` those that were counted and not looked at one by one.
    """

    selection: Selection = field(default_factory=Selection)
    total: int = 0
    selected: int = 0
    standings: Counter[Standing] = field(default_factory=Counter)
    to_do: Counter[str] = field(default_factory=Counter)
    pixels: Counter[str] = field(default_factory=Counter)
    advisor: Advisor = field(default_factory=Advisor)
    restorable: int = 0
    in_log: int = 0
    counted: int = 0
    marks: bytearray = field(default_factory=bytearray)
    _kept: list[Job] | None = field(default_factory=list)
    _kept_bytes: int = 0
    _settled: Counter[Outcome] = field(default_factory=Counter)

    @property
    def remaining(self) -> int:
        return self.to_do.total()

    def count(self, tally: Tally) -> None:
        """Take in pending jobs that were counted only; such a plan tells numbers, and no run can follow it."""
        self.counted += tally.models.total()
        self.total += tally.models.total()
        self.selected += tally.models.total()
        self.standings[Standing.PENDING] += tally.models.total()
        self.to_do += tally.models
        for model, count in tally.models.items():
            self.pixels[model] += count * USUAL_PIXELS**2

    def keep(self, job: Job) -> None:
        """Remember a job that is to be done, as long as all of them are small together: that spares the second walk."""
        if self._kept is not None:
            self._kept.append(job)
            self._kept_bytes += JOB_BYTES + len(_encode((job.id, job.request, job.meta)))
            if self._kept_bytes > KEPT_BYTES:
                self._kept = None

    def settled(self, outcome: Outcome) -> int:
        """How many selected jobs have ended this way before and stay so."""
        return self._settled[outcome]

    def chosen(self, jobs: Iterable[Job | Problem], mark: Mark) -> Iterator[Job]:
        """The jobs with this mark, from a second walk over the same manifest."""
        for number, job in enumerate(jobs):
            if number < len(self.marks) and self.marks[number] == mark:
                if isinstance(job, Problem):
                    raise ManifestChanged(f"{job.file} was edited while it was read")
                yield job

    def to_send(self, walk: Callable[[], Iterable[Job | Problem]]) -> Iterator[Job]:
        """The jobs to be done in the order in which to send them; `walk` begins another walk over the same manifest."""
        seed, last = self.selection.shuffle, self.selection.last_place
        if seed is None and self._kept is not None:
            return iter(self._kept)
        if seed is None:
            return self.chosen(walk(), Mark.DO)
        end = PLACES if last is None else last + 1
        return shuffled(lambda: self.chosen(walk(), Mark.DO), seed, self.remaining, end)

    def cost_usd(self, prices_usd: Mapping[str, float]) -> float | None:
        """What the pictures to be made will cost; None where a model's price is not known."""
        if any(model not in prices_usd for model in self.to_do):
            return None
        return sum(prices_usd[model] * count for model, count in self.to_do.items())


_SETTLED = {
    Standing.DONE: Outcome.DONE,
    Standing.SUPERSEDED: Outcome.DONE,
    Standing.FAILED: Outcome.FAILED,
    Standing.UNCERTAIN: Outcome.UNCERTAIN,
}


def draw(jobs: Iterable[Job | Problem], standing: Callable[[Job], Standing], selection: Selection) -> Selection:
    """The selection with the end of its random sample, where it asks for one; that takes a walk over the manifest."""
    if selection.shuffle is None or selection.limit is None:
        return selection
    seed = selection.shuffle
    found = (job for job in jobs if isinstance(job, Job) and _fits(job, selection))
    places = (place(seed, job.id) for job in found if _settles(standing(job), selection) is None)
    return msgspec.structs.replace(selection, last_place=last_place(places, selection.limit))


def make_plan(
    jobs: Iterable[Job | Problem | Tally],
    standing: Callable[[Job], Standing],
    selection: Selection,
    hear: Callable[[Job, Standing, Mark], None] = lambda job, standing, mark: None,
) -> Plan:
    """Walk the whole manifest once; `hear` hears of each selected job. A limit on a shuffled selection needs `draw`.

    Raises ManifestError with the `Mistakes` of the walk.
    """
    plan, mistakes = Plan(selection), Mistakes()
    for job in jobs:
        if isinstance(job, Job):
            plan.total += 1
            stands, selected = standing(job), plan.selected
            mark = _mark(plan, job, stands)
            plan.marks.append(mark)
            if mark is Mark.DO:
                plan.keep(job)
            if plan.selected > selected:
                hear(job, stands, mark)
        elif isinstance(job, Tally):
            plan.count(job)
        else:
            mistakes.add(job)
    mistakes.check()
    return plan


def _mark(plan: Plan, job: Job, standing: Standing) -> Mark:
    plan.in_log += standing is not Standing.PENDING
    if not _fits(job, plan.selection):
        return Mark.SKIP
    settled = _settles(standing, plan.selection)
    if settled is None and not _has_room(plan, job):
        return Mark.SKIP
    plan.selected += 1
    plan.standings[standing] += 1
    if settled is None:
        plan.to_do[job.model] += 1
        plan.pixels[job.model] += job.request.get("width", USUAL_PIXELS) * job.request.get("height", USUAL_PIXELS)
        plan.advisor(job)
        return Mark.DO
    plan._settled[settled] += 1
    if standing is Standing.SUPERSEDED:
        plan.restorable += 1
        return Mark.RESTORE
    return Mark.SKIP


def _fits(job: Job, selection: Selection) -> bool:
    if selection.shard and not holds(selection.shard, job.id):
        return False
    return not selection.only or any(fnmatchcase(job.id, pattern) for pattern in selection.only)


def _settles(standing: Standing, selection: Selection) -> Outcome | None:
    """How a job of this standing has ended for good; None where it is to be done."""
    settled = _SETTLED.get(standing)
    return None if selection.redo or settled in selection.retry else settled


def _has_room(plan: Plan, job: Job) -> bool:
    """Whether the limit leaves room for one more job to be done."""
    selection = plan.selection
    if selection.limit is not None and plan.remaining >= selection.limit:
        return False
    if selection.shuffle is None or selection.last_place is None:
        return True
    return place(selection.shuffle, job.id) <= selection.last_place


def check_plan(plan: Plan, selection: Selection) -> None:
    """Refuse what looks like a mistake: a selection of nothing, or to buy again what a folder holds that was moved or
    is not mounted. Raises UsageError."""
    if selection.only and plan.total and not plan.selected:
        raise UsageError(f"--only {' '.join(selection.only)}: none of the {counted(plan.total, 'job')} has such an id")
    missing = plan.standings[Standing.MISSING]
    had = missing + plan.standings[Standing.DONE]
    if too_many_missing(missing, had) and not (selection.redo or selection.redo_missing):
        raise UsageError(
            f"{missing} of {had} finished pictures are not where the log says; was the folder moved or is a disk not"
            " mounted? To make them again, and pay for them again, add --redo-missing"
        )


def too_many_missing(missing: int, had: int) -> bool:
    """Whether so many of the pictures that a folder `had` are gone that this looks like a mistake."""
    return missing > MISSING_FEW and missing > MISSING_PART * had


def headline(total: int, selected: int, standings: Mapping[Standing, int] | Mapping[str, int]) -> str:
    """How many jobs there are, how many of them are selected, and where these stand."""
    counts: Mapping[str, int] = {str(standing): count for standing, count in standings.items()}
    parts = ", ".join(f"{counts[s]} {_WORDS[s]}" for s in Standing if counts.get(s))
    return f"{counted(total, 'job')}{f' ({selected} selected)' if selected != total else ''}: {parts or 'none'}"


def render(plan: Plan, prices_usd: Mapping[str, float]) -> Iterator[str]:
    """The plan for people, a line at a time."""
    yield headline(plan.total, plan.selected, plan.standings)
    cost = plan.cost_usd(prices_usd)
    for model, count in sorted(plan.to_do.items()):
        yield f"  to do      {count} x {model}"
    if plan.remaining and cost is not None:
        yield f"  cost       ${cost:.4f}"
    for warning in plan.advisor.warnings():
        yield f"  warning    {warning}"
    if not plan.remaining:
        yield "  nothing to do"


_WORDS = {
    Standing.DONE: "done",
    Standing.PENDING: "to do",
    Standing.CHANGED: "changed (to do again)",
    Standing.MISSING: "missing (to do again)",
    Standing.SUPERSEDED: "set aside (will be brought back)",
    Standing.FAILED: "failed",
    Standing.UNCERTAIN: "uncertain",
}
