"""What a run would do: for each job of the manifest whether it is to be done, and the sums. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from fnmatch import fnmatchcase

from batchgen.manifest import Tally
from batchgen.model import Job, ManifestChanged, ManifestError, Outcome, Problem, Selection, Standing, UsageError
from batchgen.text import counted

SHOWN_PROBLEMS = 100
MISSING_FEW = 10
MISSING_PART = 0.05


class Mark(IntEnum):
    """What a run does about one job; one byte each is remembered between planning and running."""

    SKIP = 0
    DO = 1
    RESTORE = 2


@dataclass
class Plan:
    """The manifest against the folder.

    `standings` counts the selected jobs, `to_do` those to be sent by model, `in_log` jobs of the manifest that the log
    knows, `counted` those that were counted and not looked at one by one.
    """

    total: int = 0
    selected: int = 0
    standings: Counter[Standing] = field(default_factory=Counter)
    to_do: Counter[str] = field(default_factory=Counter)
    restorable: int = 0
    in_log: int = 0
    counted: int = 0
    marks: bytearray = field(default_factory=bytearray)
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


def make_plan(
    jobs: Iterable[Job | Problem | Tally],
    standing: Callable[[Job], Standing],
    selection: Selection,
    without_picture: Callable[[Job], None] = lambda job: None,
) -> Plan:
    """Walk the whole manifest once; `without_picture` hears of each job that ended badly before and stays so.

    Raises ManifestError with the first hundred problems and the count of all.
    """
    plan, count = Plan(), 0
    problems: list[Problem] = []
    for job in jobs:
        if isinstance(job, Problem):
            count += 1
            if len(problems) < SHOWN_PROBLEMS:
                problems.append(job)
            continue
        if isinstance(job, Tally):
            plan.count(job)
            continue
        plan.total += 1
        stands, selected = standing(job), plan.selected
        mark = _mark(plan, job, stands, selection)
        plan.marks.append(mark)
        if plan.selected > selected and mark is Mark.SKIP and stands in (Standing.FAILED, Standing.UNCERTAIN):
            without_picture(job)
    if problems:
        raise ManifestError(problems, count)
    return plan


def _mark(plan: Plan, job: Job, standing: Standing, selection: Selection) -> Mark:
    plan.in_log += standing is not Standing.PENDING
    if selection.only and not any(fnmatchcase(job.id, pattern) for pattern in selection.only):
        return Mark.SKIP
    settled = _SETTLED.get(standing)
    again = selection.redo or settled in selection.retry
    if settled is None or again:
        if selection.limit is not None and plan.remaining >= selection.limit:
            return Mark.SKIP
        settled = None
    plan.selected += 1
    plan.standings[standing] += 1
    if settled is None:
        plan.to_do[job.model] += 1
        return Mark.DO
    plan._settled[settled] += 1
    if standing is Standing.SUPERSEDED:
        plan.restorable += 1
        return Mark.RESTORE
    return Mark.SKIP


def check_plan(plan: Plan, selection: Selection) -> None:
    """Refuse what looks like a mistake: a selection of nothing, or to buy again what a folder holds that was moved or
    is not mounted. Raises UsageError."""
    if selection.only and plan.total and not plan.selected:
        raise UsageError(f"--only {' '.join(selection.only)}: none of the {counted(plan.total, 'job')} has such an id")
    missing = plan.standings[Standing.MISSING]
    had = missing + plan.standings[Standing.DONE]
    if missing > MISSING_FEW and missing > MISSING_PART * had and not (selection.redo or selection.redo_missing):
        raise UsageError(
            f"{missing} of {had} finished pictures are not where the log says; was the folder moved or is a disk not"
            " mounted? To make them again, and pay for them again, add --redo-missing"
        )


def render(plan: Plan, prices_usd: Mapping[str, float]) -> Iterator[str]:
    """The plan for people, a line at a time."""
    parts = ", ".join(f"{plan.standings[s]} {_WORDS[s]}" for s in Standing if plan.standings[s])
    selected = f" ({plan.selected} selected)" if plan.selected != plan.total else ""
    yield f"{counted(plan.total, 'job')}{selected}: {parts or 'none'}"
    cost = plan.cost_usd(prices_usd)
    for model, count in sorted(plan.to_do.items()):
        yield f"  to do      {count} x {model}"
    if plan.remaining and cost is not None:
        yield f"  cost       ${cost:.4f}"
    if plan.counted:
        yield f"  {plan.counted:,} of them were counted and not built; a run checks each before it sends anything"
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
