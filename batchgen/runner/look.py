"""Looks at a folder without touching it: where it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec

from batchgen.flags import Flags
from batchgen.model import Job, Outcome, Standing, UsageError
from batchgen.plan import Mark, Plan
from batchgen.runner import live
from batchgen.runner.archive import Archive, open_archive, recent_at
from batchgen.runner.refusal import reason_of
from batchgen.runner.session import open_session, plan_of
from batchgen.text import counted, printable
from batchgen.world import Clock

Hear = Callable[[Job, Standing, Mark], None]


class Status(live.Now, frozen=True, kw_only=True):
    """Where a folder stands, and what goes on there.

    `total` is None where the manifest cannot be found or, by `manifest_error`, not be read. While a run is at work
    what is in flight counts as `in_doubt`.
    """

    output: str
    manifest: str | None
    total: int | None
    done: int
    failed: int
    uncertain: int
    pending: int | None
    missing: int
    in_doubt: int
    orphans: int
    requests: int
    cost_usd: float
    exposure_usd: float
    running: bool = False
    manifest_error: str | None = None
    store: str | None = None
    v: int = 1

    def at(self, now: live.Now) -> Status:
        """The same counts with what goes on now."""
        fields = {name: getattr(now, name) for name in now.__struct_fields__}
        return msgspec.structs.replace(self, running=now.running, **fields)


def status(path: Path, env: Mapping[str, str], clock: Clock) -> Status:
    """Where the output folder `path` stands, or the one that belongs to the manifest `path`."""
    with open_archive(path) as archive:
        manifest = path if path.is_file() else archive.manifest
        plan, error = None, None
        try:
            plan = plan_now(manifest, archive, env) if manifest else None
            if not manifest and archive.manifest_place:
                error = f"not at {printable(str(archive.manifest_place), 300)}"
        except UsageError as refused:
            error = reason_of(refused)
        found = counts_of(archive, manifest, plan)
    return msgspec.structs.replace(found.at(now_at(Path(found.output), clock)), manifest_error=error)


def now_at(root: Path, clock: Clock) -> live.Now:
    """What goes on in an output folder; cheap, however much is in it."""
    with recent_at(root) as recent:
        return live.now(recent, clock.utc())


def plan_now(manifest: Path, archive: Archive, env: Mapping[str, str], hear: Hear = lambda *said: None) -> Plan:
    """The plan that the last run would have now; `hear` hears of every job of the manifest."""
    flags, state = Flags(manifest, output=archive.root), archive.state
    if state:
        flags = replace(flags, api=state.api or None, defaults=state.defaults, format=state.format or None)
    session = open_session(flags, env)
    return plan_of(session, archive.records.standing, hear)


def counts_of(archive: Archive, manifest: Path | None, plan: Plan | None) -> Status:
    """How many jobs stand where, by the folder's files and, where the manifest is known, by its plan."""
    root, fold, lives = archive.root, archive.records.fold, archive.records.lives
    counts: Mapping[Outcome, int] = (
        {outcome: plan.settled(outcome) for outcome in Outcome} if plan else Counter(fold.counts())
    )
    return Status(
        output=str(root),
        manifest=str(manifest) if manifest else None,
        total=plan.total if plan else None,
        done=counts[Outcome.DONE],
        failed=counts[Outcome.FAILED],
        uncertain=counts[Outcome.UNCERTAIN],
        pending=plan.remaining if plan else None,
        missing=plan.standings[Standing.MISSING] if plan else 0,
        in_doubt=len(lives.doubtful()),
        orphans=fold.jobs - plan.in_log if plan else 0,
        requests=fold.requests + len(lives.ended()),
        cost_usd=round(fold.spent_usd, 6),
        exposure_usd=round(fold.exposure_usd + lives.exposure_usd(), 6),
        store=archive.store,
    )


def render(found: Status, utc: datetime) -> Iterator[str]:
    """The status for people, a line at a time."""
    of = f" of {found.total}" if found.total is not None else ""
    yield f"{found.output}: {found.done}{of} jobs done"
    if found.store:
        yield f"  pictures   {found.store}"
    for name, count in (("failed", found.failed), ("uncertain", found.uncertain), ("pending", found.pending)):
        if count:
            yield f"  {name:<10} {count}"
    if found.missing:
        yield f"  missing    {found.missing} were done and their pictures are gone; `batchgen verify` names them"
    if found.in_doubt and not found.running:
        yield f"  in doubt   {counted(found.in_doubt, 'job')} may have been paid for without an answer"
    if found.orphans:
        yield f"  orphans    {found.orphans} jobs of the log are no longer in the manifest"
    cost = f", ${found.cost_usd:.4f}" if found.cost_usd else ""
    exposure = f" (and ${found.exposure_usd:.4f} in doubt)" if found.exposure_usd else ""
    yield f"  requests   {found.requests}{cost}{exposure}"
    yield from live.render(found, utc)
    if found.manifest_error:
        yield f"  manifest   {found.manifest_error}; pending jobs cannot be counted"
    elif found.manifest is None:
        yield "  the manifest is not where it was; pending jobs cannot be counted"
